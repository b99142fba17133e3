"""What ``make test`` leaves out, and that nothing is left out that has to stay."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.short import INTEGRATION, WAY, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FOUR = ("fresh", "fork", "reuse", "server")
UNIT = INTEGRATION.parent / "unit"


class FakeItem:
    """As much of an item of pytest as is looked at."""

    def __init__(
        self, test: str, case: str, way: str | None, path: Path, *marks: pytest.Mark
    ) -> None:
        named = "-".join(part for part in (way, case) if part)
        self.nodeid = f"{path}::{test}[{named}]"
        self.path = path
        self.callspec = SimpleNamespace(id=named, params={WAY: way} if way else {})
        self._marks = {mark.name: mark for mark in marks}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self._marks.get(name)

    def add_marker(self, marker: pytest.MarkDecorator) -> None:
        self._marks[marker.mark.name] = marker.mark


def items_of(
    test: str,
    cases: Iterable[str] = ("",),
    ways: Sequence[str | None] = (None,),
    *marks: pytest.MarkDecorator,
    folder: Path = INTEGRATION,
) -> list[FakeItem]:
    return [
        FakeItem(test, case, way, folder / "test_x.py", *(mark.mark for mark in marks))
        for way, case in itertools.product(ways, cases)
    ]


def short(*tests: list[FakeItem]) -> list[str]:
    """Return what `make test` runs of a module."""
    items = list(itertools.chain(*tests))
    shorten(cast("list[pytest.Item]", items))
    return [
        item.nodeid.rpartition("::")[2]
        for item in items
        if item.get_closest_marker("long") is None
    ]


def test_ways_take_turns() -> None:
    names = ("a", "b", "c", "d", "e")
    assert short(*(items_of(name, ways=FOUR) for name in names)) == [
        "a[fresh]", "b[fork]", "c[reuse]", "d[server]", "e[fresh]",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_module_has_each_way_that_its_tests_name(count: int) -> None:
    tests = [items_of(f"t{at}", ways=FOUR) for at in range(count)]
    tests.append(items_of("other", ways=("fresh", "fork")))
    run = short(*tests)
    assert {name.partition("[")[2][:-1] for name in run} == set(FOUR)
    assert {name.partition("[")[0] for name in run} == {
        item.nodeid.rpartition("::")[2].partition("[")[0]
        for test in tests
        for item in test
    }


def test_the_first_and_the_last_case_stay_each_in_one_way() -> None:
    assert short(items_of("a", "1234", FOUR[:2])) == ["a[fresh-1]", "a[fork-4]"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "1"), (2, "15"), (3, "135"), (5, "12345"), (9, "12345")],
)
def test_cases_are_as_many_as_the_mark_says(count: int, expected: str) -> None:
    run = short(items_of("a", "12345", (None,), pytest.mark.cases(count)))
    assert run == [f"a[{case}]" for case in expected]


def test_unit_tests_have_all_cases() -> None:
    assert len(short(items_of("a", "12345", folder=UNIT))) == len("12345")


def test_what_is_long_already_does_not_count() -> None:
    assert short(
        items_of("a", "123", ("fresh",), pytest.mark.long),
        items_of("b", ways=FOUR),
    ) == ["b[fresh]", "b[fork]", "b[reuse]", "b[server]"]
