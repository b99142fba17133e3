"""What ``make test`` leaves out of tests that run several times.

A test in ``tests/integration`` takes hundreds of milliseconds, and many have one item
for each way and each set of parameters. ``make test`` runs some of them; the others get
the mark ``long`` here, so ``make test-long`` runs them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

INTEGRATION = Path(__file__).parent / "integration"
CASES = 2  # sets of parameters that an integration test keeps
WAY = "way"  # the parameter that ``every_way`` adds

# Items of one test with the same parameters, by their way; None: it has none.
Case = dict[str | None, pytest.Item]
# The tests of modules, and of each test its cases by the names of their parameters.
Modules = dict[Path, dict[str, dict[str, Case]]]


def shorten(items: Iterable[pytest.Item]) -> None:
    """Mark items as ``long`` of which ``make test`` has others that are like them.

    - Of an integration test with several sets of parameters, the first and the last
      one stay; of any test that is marked ``cases(n)``, n of them, evenly spread.
    - Each set of parameters stays in one way: in that which the module has had least
      often before. So ways take turns.
    - A module that has fewer tests than ways has those in several: each way in which
      any of its tests can run stays at least once.
    """
    for tests in _modules(items).values():
        taken: Counter[str | None] = Counter()
        kept: list[Case] = []
        left_out: list[pytest.Item] = []
        for cases in tests.values():
            stay, go = _chosen(list(cases.values()))
            kept += stay
            left_out += (item for case in go for item in case.values())
        ways = list(dict.fromkeys(way for case in kept for way in case))
        short: set[str] = set()
        for case in kept:
            way = min(case, key=lambda way: taken[way])
            taken[way] += 1
            short.add(case[way].nodeid)
        for way in ways:
            if not taken[way]:
                short.add(next(case[way] for case in kept if way in case).nodeid)
        left_out += (
            item for case in kept for item in case.values() if item.nodeid not in short
        )
        for item in left_out:
            item.add_marker(pytest.mark.long)


def _modules(items: Iterable[pytest.Item]) -> Modules:
    """Return the tests that have parameters and may still be left out."""
    modules: Modules = {}
    for item in items:
        if hasattr(item, "callspec") and item.get_closest_marker("long") is None:
            way = item.callspec.params.get(WAY)
            # Its way is the first parameter, as a hook adds it.
            case = item.callspec.id.removeprefix(way or "").removeprefix("-")
            tests = modules.setdefault(item.path, {})
            cases = tests.setdefault(item.nodeid.partition("[")[0], {})
            cases.setdefault(case, {})[way] = item
    return modules


def _chosen(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """Return the cases of a test that stay, and the others."""
    item = next(iter(cases[0].values()))
    marker = item.get_closest_marker("cases")
    count = CASES if INTEGRATION in item.path.parents else len(cases)
    if marker is not None:
        (count,) = marker.args
    if count >= len(cases):
        return cases, []
    last = len(cases) - 1
    chosen = {last * at // max(count - 1, 1) for at in range(count)}
    return (
        [case for at, case in enumerate(cases) if at in chosen],
        [case for at, case in enumerate(cases) if at not in chosen],
    )
