"""JSON by the standard library, held against orjson, which is as strict as RFC 8259."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambda_deno_spawn.strict_json import JsonError, dumps, loads

# orjson keeps whole numbers of 64 bits; larger ones become inexact.
WHOLE = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
).filter(lambda value: "inf" not in repr(value))
PIECES = [
    "{", "}", "[", "]", ",", ":", '"', "a", " ", "\t", "\n", "\x00", "0", "1", "-", ".",
    "e9", "E999", "+", "true", "null", "NaN", "Infinity", "\\", "\\n", "\\ud83d",
    "\\uDE00", "\\u0041", "ü", "\u2028", "\ufeff", "//", "'",
]  # fmt: skip


@given(VALUES)
def test_what_is_written_is_what_orjson_writes(value: object) -> None:
    assert orjson.loads(dumps(value)) == value
    assert loads(orjson.dumps(value)) == value


@given(st.lists(st.sampled_from(PIECES)).map("".join).map(str.encode) | st.binary())
@example(b'"\xff"')
@example(b'"\xed\xa0\x80"')
@example(b'\xef\xbb\xbf{"a":1}')
@example('{"a":1}'.encode("utf-16"))
@example(b'{"a":1,"a":2}')
@example(b'["\\ud83d\\ude00", "\\\\ud83d"]')
def test_what_is_accepted_is_what_orjson_accepts(data: bytes) -> None:
    try:
        expected = orjson.loads(data)
    except orjson.JSONDecodeError:
        with pytest.raises(JsonError):
            loads(data)
        return
    assert loads(data) == expected


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1E999", "9" * 5000])
def test_a_number_that_json_cannot_express_is_refused(number: str) -> None:
    with pytest.raises(JsonError):
        loads(f'{{"a":[{number}]}}'.encode())


@pytest.mark.parametrize("piece", ["[", '{"a":'])
def test_text_that_nests_without_end_is_an_error_like_any_other(piece: str) -> None:
    with pytest.raises(JsonError):
        loads(piece.encode() * 1_000_000)


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud83d", ["\udc00"]])
def test_what_json_cannot_express_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"encode|JSON compliant"):
        dumps(value)
