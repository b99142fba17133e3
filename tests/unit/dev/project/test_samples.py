"""Sample events, and values that are set in them."""

from __future__ import annotations

import json

import pytest

from lambda_deno_spawn.dev.project.samples import (
    find_sample,
    near_sample,
    sample_names,
    set_values,
)
from lambda_deno_spawn.errors import UsageError


@pytest.mark.parametrize("name", sample_names())
def test_sample_is_an_object_in_readable_json(name: str) -> None:
    text = find_sample(name)
    assert text is not None
    event = json.loads(text)
    assert isinstance(event, dict)
    assert text.decode() == json.dumps(event, indent=2) + "\n"


def test_unknown_name_has_no_sample_but_a_near_one() -> None:
    assert find_sample("s3put") is None
    assert find_sample("../samples/sqs") is None
    assert near_sample("s3put") == "s3-put"
    assert near_sample("xyz") is None


EVENT = {"text": "a", "number": 1, "list": [{"key": "x"}], "nothing": None}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("text=12", {"text": "12"}),  # text stays text
        ("text={}", {"text": "{}"}),
        ("text=", {"text": ""}),
        ("text=a=b", {"text": "a=b"}),
        ("number=12", {"number": 12}),
        ("number=many", {"number": "many"}),
        ("number=NaN", {"number": "NaN"}),
        ('nothing={"a":[true]}', {"nothing": {"a": [True]}}),
        ("nothing.below=x", {"nothing": {"below": "x"}}),
        ("new.deep=007", {"new": {"deep": "007"}}),
        ("list.0.key=y", {"list": [{"key": "y"}]}),
        ("list.1.key=y", {"list": [{"key": "x"}, {"key": "y"}]}),
        ("list=[]", {"list": []}),
        (r"dotted\.name=1", {"dotted.name": 1}),
    ],
)
def test_value_is_set(assignment: str, expected: dict[str, object]) -> None:
    changed = set_values(json.dumps(EVENT).encode(), [assignment])
    assert json.loads(changed) == {**EVENT, **expected}


def test_later_assignments_see_earlier_ones() -> None:
    assert set_values(b"{}", ["a.b=1", "a.c=2"]) == b'{"a":{"b":1,"c":2}}'


def test_bytes_stay_without_an_assignment() -> None:
    assert set_values(b'{ "a" : 1.0 }', []) == b'{ "a" : 1.0 }'


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("text", "expected PATH=VALUE"),
        ("=1", "expected PATH=VALUE"),
        ("a..b=1", "expected PATH=VALUE"),
        ("a.=1", "expected PATH=VALUE"),
        ("text.below=1", """'below' would be a part of "a\""""),
        ("list.2=1", "a list of 1, in which '2' is not an index"),
        ("list.key=1", "a list of 1, in which 'key' is not an index"),
        ("list.-1=1", "'-1' is not an index"),
    ],
)
def test_assignment_that_cannot_be_made_is_refused(
    assignment: str, reason: str
) -> None:
    with pytest.raises(UsageError) as refused:
        set_values(json.dumps(EVENT).encode(), [assignment])
    assert reason in str(refused.value)
    assert repr(assignment) in str(refused.value)
