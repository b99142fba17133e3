"""The long runs of tests/soak, made short."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import cgroups
from tests.soak import events, frames, responses
from tests.soak.__main__ import main
from tests.soak.hostile import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.report import Report


def test_fuzzed_streams_of_frames_end_in_order_or_in_a_named_error() -> None:
    report = frames.run(1000, seed=2)
    assert_passed(report, 1000)
    assert set(report.kinds) == set(frames.DAMAGES)


async def test_fuzzed_answers_of_the_runtime_api_are_understood_or_refused() -> None:
    async with asyncio.timeout(40):
        report = await responses.fuzz(300, 2, 0)
    assert sum(report.kinds[call].total() for call in set(responses.CALLS)) == 300
    assert_passed(report, 300)


@pytest.mark.deno
async def test_hostile_events_get_one_answer_each_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(55):
        report = await events.soak(120, 2, tmp_path)
    assert_passed(report, 120)
    is_limited = cgroups.available()
    for kind in HOSTILE:
        is_tried = kind.case in report.kinds
        assert is_tried == (is_limited or not kind.needs_cgroup), kind.case


def test_a_plan_has_a_tenth_of_hostile_events_and_each_kind() -> None:
    plan = events.plan(10_000, 1, with_cgroup=True)
    counts = Counter(kind.case for kind in plan)
    assert sum(counts[kind.case] for kind in HOSTILE) == 1000
    assert all(counts[kind.case] for kind in HOSTILE)
    assert plan == events.plan(10_000, 1, with_cgroup=True)
    assert plan != events.plan(10_000, 2, with_cgroup=True)


def test_what_a_run_found_is_printed_as_json_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["frames", "--count", "20", "--seed", "7", "-o", "json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["count"], output["seed"], output["violations"]) == (20, 7, [])
    assert sum(sum(kind.values()) for kind in output["kinds"].values()) == 20


def assert_passed(report: Report, count: int) -> None:
    """Nothing happened that must not, and all of it was done."""
    assert report.violations == []
    assert report.count == count
