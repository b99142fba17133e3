"""Additions to JSON with comments: the value is right, the rest of the text stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_deno_spawn.dev.project.jsonc import (
    JsoncError,
    add_elements,
    add_members,
    parse,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "tasks": {\n    "a": "b"\n  }\n}'),
        ("{\n}\n", '{\n  "tasks": {\n    "a": "b"\n  }\n}\n'),
        ('{ "x": 1 }', '{ "x": 1, "tasks": {"a": "b"} }'),
        ('{"tasks":{"x":1}}', '{"tasks":{"x":1, "a": "b"}}'),
        (
            '{\n\t"tasks": {\n\t\t"x": 1, // why\n\t\t// last\n\t},\n}\n',
            '{\n\t"tasks": {\n\t\t"x": 1, // why\n\t\t// last\n\t\t"a": "b",\n'
            "\t},\n}\n",
        ),
        (
            '{\r\n    "tasks": {\r\n        "x": 1 // why\r\n    }\r\n}',
            '{\r\n    "tasks": {\r\n        "x": 1, // why\r\n        "a": "b"\r\n'
            "    }\r\n}",
        ),
        (
            '\ufeff// head\n{\n  "x": [1] /* , } */\n  // end\n}\n',
            '\ufeff// head\n{\n  "x": [1], /* , } */\n  // end\n  "tasks": {\n'
            '    "a": "b"\n  }\n}\n',
        ),
        ('{"x": "//", "tasks": {}}', '{"x": "//", "tasks": {\n  "a": "b"\n}}'),
    ],
)
def test_addition_looks_like_what_is_around_it(before: str, after: str) -> None:
    assert add_members(before, ["tasks"], {"a": "b"}) == after


def test_line_that_gets_too_long_is_broken() -> None:
    start = "deno run --allow-net --allow-env main.ts"
    before = f'{{\n  "tasks": {{ "start": "{start}" }},\n  "x": 1\n}}\n'
    assert add_members(before, ["tasks"], {"other": "deno run other.ts"}) == (
        f'{{\n  "tasks": {{\n    "start": "{start}",\n'
        '    "other": "deno run other.ts"\n  },\n  "x": 1\n}\n'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "list": [\n    {\n      "a": 1\n    }\n  ]\n}'),
        ('{"list": [0]}', '{"list": [0, {"a": 1}]}'),
        (
            '{\n  "list": [\n    {}, // one\n  ]\n}',
            '{\n  "list": [\n    {}, // one\n    {\n      "a": 1\n    },\n  ]\n}',
        ),
    ],
)
def test_elements_follow_those_of_a_list(before: str, after: str) -> None:
    assert add_elements(before, ["list"], [{"a": 1}]) == after


@settings(max_examples=30)
@given(objects, objects, st.sampled_from([None, 2, "\t"]))
def test_value_is_what_it_was_and_what_was_added(
    before: dict[str, object], added: dict[str, object], indent: int | str | None
) -> None:
    added = {name: value for name, value in added.items() if name not in before}
    text = json.dumps(before, indent=indent)
    assert parse(text) == before
    if added:
        assert parse(add_members(text, [], added)) == {**before, **added}
        assert parse(add_members(text, ["\0new", "x"], added)) == {
            **before, "\0new": {"x": added},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1, column 1: a value is missing"),
        ("{", "line 1, column 1: '{' is never closed"),
        ('{\n  "a" 1}', "line 2, column 7: a colon is missing behind 'a'"),
        ('{"a": 1 "b": 2}', "line 1, column 9: a comma is missing"),
        ("{'a': 1}", "line 1, column 2: a value is missing"),
        ("{1: 1}", "line 1, column 2: the name of a member is not in double quotes"),
        ('{"a": NaN}', "line 1, column 7: 'NaN' is not a value"),
        ('{"a": 01}', "line 1, column 7: '01' is not a value"),
        ("{,}", "line 1, column 2: a value is missing"),
        ("{} {}", "line 1, column 4: there is something behind the value"),
        ("{/* x", "line 1, column 2: a comment is never closed"),
        ("[" * 300, "line 1, column 202: there are more than 200 levels"),
    ],
)
def test_malformed_text_is_refused_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(JsoncError) as caught:
        parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize("text", ['{"tasks": []}', '{"tasks": 1}', "[]"])
def test_nothing_is_added_to_what_is_not_an_object(text: str) -> None:
    with pytest.raises(JsoncError, match="is not an object"):
        add_members(text, ["tasks"], {"a": 1})
