"""What ``dev`` shows of a log, and which origins it accepts."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.cli.dev import _explained, _short, check_origin
from lambda_deno_spawn.errors import UsageError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "2026-11-28T13:35:59.542Z\tid-1\tINFO\thello\tyou",
            ["13:35:59 INFO hello\tyou"],
        ),
        (
            "2026-11-28T13:35:59.542Z\t-\tERROR\ttwo\nlines",
            ["13:35:59 ERROR two", "lines"],
        ),
        (
            '{"timestamp":"2026-11-28T13:35:59.5Z","level":"WARN","message":"json"}',
            ["13:35:59 WARN json"],
        ),
        (
            '{"timestamp":"2026-11-28T13:35:59.5Z","level":"INFO","message":{"a":1}}',
            ['13:35:59 INFO {"a": 1}'],
        ),
        ('{"timestamp":"x"}', ['{"timestamp":"x"}']),
        ("plain", ["plain"]),
        ("", [""]),
    ],
)
def test_a_record_is_shown_without_date_and_id(text: str, shown: list[str]) -> None:
    assert _short(text) == shown


def test_an_error_is_shown_with_its_stack() -> None:
    body = (
        '{"errorType":"TypeError","errorMessage":"no luck\\n    at a.ts:1",'
        '"stackTrace":["at a.ts:1","at b.ts:2"]}'
    )
    assert _explained(body) == "TypeError: no luck\n    at a.ts:1\n    at b.ts:2"
    assert _explained("not json") == "not json"


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "https://a.example", "*", "tauri://localhost"]
)
def test_an_origin_is_accepted(origin: str) -> None:
    assert check_origin(origin) == origin


@pytest.mark.parametrize(
    "text", ["localhost:5173", "http://a.example/", "http://a b", "", "null"]
)
def test_what_is_not_an_origin_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--allow-origin"):
        check_origin(text)
