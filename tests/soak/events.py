"""Thousands of events, a tenth of them hostile, through the real runtime and real Deno.

Checked for each: one answer, of the kind its handler deserves, and nothing left of it
when the next event is asked for. Checked all along: the supervisor is the same process
and holds what it held before.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests import cgroups
from tests.cgroups import MIB, Cgroup
from tests.doubles import FakeRuntimeApi
from tests.integration.harness import RuntimeUnderTest
from tests.soak.hostile import GOOD, HOSTILE, SOURCE, Kind
from tests.soak.report import Report

if TYPE_CHECKING:
    from tests.doubles import Answer

# What runs inside: the supervisor, a Deno process, and what a handler may take.
MEMORY_LIMIT_BYTES = 400 * MIB
# Threads count as well; Deno has a dozen.
PROCESSES_LIMIT = 150

PROGRESS_EVENTS = 500
# Pools and caches of the supervisor are full by then.
BASELINE_EVENTS = 1000
MEMORY_GROWTH_LIMIT_KB = 2 * 1024
# Of a run too short to fill them: the largest event may be still to come.
SHORT_GROWTH_LIMIT_KB = 16 * 1024
ANSWER_LIMIT_S = 30.0


def run(count: int, seed: int, start: int = 0) -> Report:
    """Serve ``count`` events."""
    del start  # what an event leaves behind depends on those before it
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return asyncio.run(soak(count, seed, Path(folder)))


async def soak(count: int, seed: int, folder: Path) -> Report:
    """Serve ``count`` events of a runtime whose files are in ``folder``."""
    report = Report("events", seed)
    with contextlib.ExitStack() as stack:
        group: Cgroup | None = None
        if cgroups.available():
            group = Cgroup.create(
                memory_bytes=MEMORY_LIMIT_BYTES, processes=PROCESSES_LIMIT
            )
            stack.enter_context(group)
        else:
            left_out = ", ".join(kind.case for kind in HOSTILE if kind.needs_cgroup)
            report.notes.append(f"{left_out} not tried: {cgroups.unavailable()}")
        (folder / "task").mkdir()
        (folder / "tmp").mkdir()
        (folder / "task" / "function.ts").write_text(SOURCE, encoding="utf-8")
        async with FakeRuntimeApi() as api:
            runtime = RuntimeUnderTest(
                folder / "task",
                "function.handler",
                api,
                folder / "tmp",
                {
                    "LAMBDA_DENO_PERMISSIONS": "all",
                    "LAMBDA_DENO_V8_FLAGS": "--max-old-space-size=64",
                },
                wrapper=group.wrapper if group is not None else "",
                keeps_log=False,
            )
            async with runtime:
                watch = _Watch(runtime, api, group, report)
                await watch.serve(plan(count, seed, with_cgroup=group is not None))
                code = await runtime.stop()
                if code != 0:
                    report.violate(f"exit code {code} after SIGTERM")
            if group is not None and (left := group.process_ids()):
                report.violate(f"processes after the end: {left}")
    return report.finish()


def plan(count: int, seed: int, *, with_cgroup: bool) -> list[Kind]:
    """Return the events: a tenth hostile, each kind at least once, in random order."""
    rng = random.Random(seed)
    kinds = [kind for kind in HOSTILE if with_cgroup or not kind.needs_cgroup]
    hostile = [*kinds, *rng.choices(kinds, k=max(0, count // 10 - len(kinds)))]
    good = rng.choices(GOOD, k=max(0, count - len(hostile)))
    events = [*hostile, *good]
    rng.shuffle(events)
    return events


class _Watch:
    """Hands out events and looks at what is left of them."""

    def __init__(
        self,
        runtime: RuntimeUnderTest,
        api: FakeRuntimeApi,
        group: Cgroup | None,
        report: Report,
    ) -> None:
        self._runtime = runtime
        self._api = api
        self._group = group
        self._report = report
        self._pid = runtime.pid
        self._ids: set[str] = set()

    async def serve(self, events: list[Kind]) -> None:
        """Serve all of them."""
        await self._api.wait_for_next()
        self._sample("start")
        baseline = min(BASELINE_EVENTS, len(events) // 2)
        for number, kind in enumerate(events, 1):
            try:
                outcome = await self._serve_one(kind, number)
            except (TimeoutError, AssertionError) as error:
                self._report.add(kind.case, "no answer")
                self._report.violate(
                    f"event {number} ({kind.case}): no answer: {error!r}"
                )
                return
            self._report.add(kind.case, outcome)
            self._look_for_leftovers(kind, number)
            if number == baseline:
                self._sample("baseline")
            if number % PROGRESS_EVENTS == 0:
                self._sample(f"after {number}")
                print(f"{number} of {len(events)} events", file=sys.stderr)
        self._sample("end")
        self._compare()
        self._count_answers()

    async def _serve_one(self, kind: Kind, number: int) -> str:
        event = {"case": kind.case, "number": number}
        body = json.dumps(event).encode() if kind.event is None else kind.event
        request_id = self._api.deliver(body, timeout_s=kind.timeout_s)
        self._ids.add(request_id)
        answer = await self._api.answer(ANSWER_LIMIT_S)
        await self._api.wait_for_next(ANSWER_LIMIT_S)
        outcome = _outcome(answer)
        expected = kind.error_types or ("result",)
        if answer.request_id != request_id or outcome not in expected:
            self._violate(
                f"event {number} ({kind.case}): expected {expected}, got {outcome}: "
                f"{answer.body[:300]!r}"
            )
        elif kind in GOOD and answer.json() != event:
            self._report.violate(
                f"event {number}: another result: {answer.body[:99]!r}"
            )
        if kind.is_streamed != bool(answer.chunks):
            self._report.violate(f"event {number} ({kind.case}): streamed wrongly")
        return outcome

    def _look_for_leftovers(self, kind: Kind, number: int) -> None:
        """The supervisor and the process that waits for the next event, and no more."""
        found = self._processes()
        if len(found) != 2 or self._pid not in found or self._zombies():
            names = {pid: _name(pid) for pid in found}
            self._violate(
                f"event {number} ({kind.case}): processes {names} are there, "
                f"and {self._zombies()} zombies; the supervisor is {self._pid}"
            )

    def _violate(self, text: str) -> None:
        """Keep a violation; the first one with what was logged before it."""
        if not self._report.violations:
            text += f"; log:\n{self._runtime.log_tail}"
        self._report.violate(text)

    def _zombies(self) -> int:
        """Return how many children of the supervisor have ended and were not reaped."""
        states = []
        for task in Path(f"/proc/{self._pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    stat = Path(f"/proc/{child}/stat").read_text()
                    states.append(stat.rpartition(")")[2].split()[0])
        return states.count("Z")

    def _processes(self) -> list[int]:
        if self._group is not None:
            return self._group.process_ids()
        supervisor = psutil.Process(self._pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        found = {process.pid for process in family}
        # Not every child of a handler keeps the mark, but none of them loses it as well
        # as its parent.
        return sorted(found | set(self._runtime.survivors()))

    def _sample(self, when: str) -> None:
        status = Path(f"/proc/{self._pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        self._report.growth[when] = {
            "processes": len(self._processes()) + self._zombies(),
            "threads": int(fields["Threads"]),
            "descriptors": self._runtime.descriptor_count(),
            "files": sum(1 for _ in self._runtime.temp_root.rglob("*")),
            "memory_kb": int(fields["VmRSS"].split()[0]),
        }

    def _compare(self) -> None:
        growth = self._report.growth
        baseline, end = growth["baseline"], growth["end"]
        for when, held in growth.items():
            for name, value in held.items():
                if name != "memory_kb" and value > baseline[name]:
                    self._report.violate(
                        f"{name} grew from {baseline[name]} to {value}, seen {when}"
                    )
        # Memory goes up and down with what is in hand; a leak is there at the end.
        is_long = self._report.count > BASELINE_EVENTS
        allowed_kb = MEMORY_GROWTH_LIMIT_KB if is_long else SHORT_GROWTH_LIMIT_KB
        if end["memory_kb"] > baseline["memory_kb"] + allowed_kb:
            self._report.violate(f"memory grew: {baseline} at first, {end} at the end")
        if self._runtime.pid != self._pid or not self._runtime.is_running:
            self._report.violate("the supervisor is not the one that was started")

    def _count_answers(self) -> None:
        posts = Counter(
            request.split(" ")[1]
            for request in self._api.requests
            if request.startswith("POST ")
        )
        for request_id in self._ids | set(posts):
            if posts[request_id] != 1:
                times = posts[request_id]
                self._report.violate(f"{request_id} was answered {times} times")


def _outcome(answer: Answer) -> str:
    """Return ``result``, or the error type that the caller sees."""
    if answer.call == "error":
        return str(answer.json()["errorType"])
    body = answer.trailers.get("lambda-runtime-function-error-body")
    if body is None:
        return "result"
    return str(json.loads(base64.b64decode(body))["errorType"])


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.fsdecode(b" ".join(words[:4]))[:99]
    return "gone"
