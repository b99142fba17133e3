"""The long runs of tests/soak, made short."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import cgroups
from tests.doubles import FakeRuntimeApi
from tests.integration.harness import RuntimeUnderTest
from tests.soak import events, frames, responses
from tests.soak.__main__ import main
from tests.soak.environment import PERMISSIONS, Environment, Setup
from tests.soak.hostile import GOOD, HOSTILE, SOURCE, Kind
from tests.soak.report import Report

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.as_lambda
# What other tests, which have the processor as well, may add to it.
LATE_S = 30.0


@pytest.fixture(autouse=True)
def allow_for_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be strict about the time of ``next`` in long runs only, which are alone."""
    monkeypatch.setattr(events, "LATE_S", LATE_S)


@pytest.mark.long
def test_fuzzed_streams_of_frames_end_in_order_or_in_a_named_error() -> None:
    report = frames.run(1000, seed=2)
    assert_passed(report, 1000)
    assert set(report.kinds) == set(frames.DAMAGES)


async def test_fuzzed_answers_of_the_runtime_api_are_understood_or_refused() -> None:
    async with asyncio.timeout(500):
        report = await responses.fuzz(300, 2, 0)
    assert sum(report.kinds[call].total() for call in set(responses.CALLS)) == 300
    assert_passed(report, 300)


@pytest.mark.long
@pytest.mark.deno
async def test_hostile_events_get_one_answer_each_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(500):
        report = await events.soak(140, 2, tmp_path)
    assert_passed(report)
    kinds = events.kinds_of(Setup(), with_cgroup=cgroups.available())
    assert {kind.case for kind in kinds} <= set(report.kinds)


# As on Lambda, in the ways that differ most; the long runs have all kinds in each.
AS_ON_LAMBDA = {
    "frozen at 128 MB": (
        Setup(
            memory_mb=128,
            permissions="default",
            is_forked=True,
            is_frozen=True,
            is_unprivileged=True,
        ),
        70,
        (
            "exhaustsHeap", "exitsWith", "failsLate", "forges-", "importsData",
            "leavesFilesUntil", "steals", "choosesTrust", "throwsInTimer",
        ),
    ),
    "eight at once at 256 MB": (
        Setup(memory_mb=256, concurrency=8, is_unprivileged=True),
        150,
        (
            "emptiesFolder", "exhaustsHeap", "forges-objects", "importsFiles",
            "killsItself", "leavesDaemon", "throws",
        ),
    ),
    "one server for eight at 256 MB": (
        Setup(
            memory_mb=256,
            concurrency=8,
            strategy="server",
            permissions="default",
            is_unprivileged=True,
        ),
        200,
        ("emptiesFolder", "exitsWith", "failsLate", "rejects", "throws"),
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.deno
@pytest.mark.root
@pytest.mark.parametrize("name", AS_ON_LAMBDA)
def test_hostile_events_as_on_lambda(name: str) -> None:
    setup, count, only = AS_ON_LAMBDA[name]
    if reason := setup.impossible():
        pytest.skip(reason)
    report = events.run(count, 2, 0, setup, only)
    assert_passed(report)
    assert report.facts["user and group"] == "993 990"
    assert report.facts["memory limit"] == f"{setup.memory_mb} MB"
    for kind in events.kinds_of(setup, only, with_cgroup=True):
        assert kind.case in report.kinds


def test_a_lost_environment_is_a_violation_and_no_wait(tmp_path: Path) -> None:
    async def lose() -> Report:
        with Environment(Setup(), tmp_path) as environment:
            report = Report("events", 1)
            (tmp_path / "task" / "function.ts").write_text(SOURCE)
            async with FakeRuntimeApi() as api:
                runtime = RuntimeUnderTest(
                    tmp_path / "task",
                    "function.handler",
                    api,
                    tmp_path / "tmp",
                    Setup().variables(),
                    wrapper=environment.wrapper,
                    keeps_log=False,
                )
                async with runtime:
                    watch = events._Watch(runtime, api, environment, report)
                    killing = Kind("killsTheSupervisor", does="neverReturns")
                    running = asyncio.create_task(watch.run([killing]))
                    # Not while the soak still looks at the supervisor before it.
                    while not watch._flying and not running.done():
                        await asyncio.wait([running], timeout=0.01)
                    os.kill(runtime.pid, signal.SIGKILL)
                    await running
        return report

    report = asyncio.run(lose())
    assert any("THE ENVIRONMENT IS LOST" in text for text in report.violations)


def test_a_plan_has_a_tenth_of_hostile_events_and_each_kind() -> None:
    kinds = events.kinds_of(Setup(), with_cgroup=True)
    plan = events.plan(10_000, 1, kinds)
    counts = Counter(kind.case for kind in plan)
    assert sum(counts[kind.case] for kind in kinds) == 1000
    assert all(counts[kind.case] for kind in kinds)
    assert plan == events.plan(10_000, 1, kinds)
    assert plan != events.plan(10_000, 2, kinds)


def test_each_kind_has_a_name_of_its_own_and_is_run_somewhere() -> None:
    assert len({kind.case for kind in [*GOOD, *HOSTILE]}) == len(GOOD) + len(HOSTILE)
    found = {
        kind.case
        for permissions in PERMISSIONS
        for kind in events.kinds_of(Setup(permissions=permissions), with_cgroup=True)
    }
    assert found == {kind.case for kind in HOSTILE}


def test_an_environment_that_cannot_be_had_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["events", "--frozen", "--concurrency", "8"])
    assert "a Managed Instance is never frozen" in capsys.readouterr().err


def test_what_a_run_found_is_printed_as_json_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["frames", "--count", "20", "--seed", "7", "-o", "json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["count"], output["seed"], output["violations"]) == (20, 7, [])
    assert sum(sum(kind.values()) for kind in output["kinds"].values()) == 20


def assert_passed(report: Report, count: int | None = None) -> None:
    """Nothing happened that must not, and all of it was done."""
    assert report.violations == []
    assert count is None or report.count == count
