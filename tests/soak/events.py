"""Thousands of events, a tenth of them hostile, in the real runtime with real Deno.

Checks for each event that it has one response, which is the expected one, and that
nothing of it is left at the next ``next``. Checks all the time that the supervisor is
the same process, with constant resources. The environment: ``environment.Setup``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from tests.doubles import FakeRuntimeApi
from tests.integration.harness import RuntimeUnderTest, kill_and_wait, wait_for_end
from tests.soak.environment import Environment, Setup
from tests.soak.hostile import GOOD, HOSTILE, MEMORY, SOURCE, Kind
from tests.soak.report import VIOLATIONS_LIMIT, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tests.doubles import Answer

T = TypeVar("T")

PROGRESS_EVENTS = 500
# Events until pools and caches of the supervisor are full.
BASELINE_EVENTS = 1000
MEMORY_GROWTH_LIMIT_KB = 2 * 1024
STEPS_LIMIT_KB = 8 * 1024
MANAGED_STEPS_LIMIT_KB = 16 * 1024  # several large events at once
# Allowed growth in a run too short to fill them: the largest event may come later.
SHORT_GROWTH_LIMIT_KB = 16 * 1024
# Allowed in /tmp: Deno's databases, and their write-ahead logs.
DISK_GROWTH_LIMIT_KB = 8 * 1024
ANSWER_LIMIT_S = 60.0
# The supervisor, or a process it waits for, may be stuck in the kernel.
LONG_S = 24 * 3600.0
# On a busy machine, the Runtime API may receive ``next`` so much later.
LATE_S = 0.05
# With a shorter timeout, a busy machine may use up the time after it.
JUDGED_TIMEOUT_S = 2.0
# Number of ordinary events during which leftovers of another one are removed.
CLEANING_EVENTS = 40
# Go's HTTP server reads no more after the last chunk (net/http, ``suspiciously long
# trailer``): AWS's emulator ends the environment in that case.
TRAILERS_LIMIT_BYTES = 4096
# With one process at a time, no number may grow. With several,
# their number depends on the available memory; each has three pipes, a private
# folder and a DENO_DIR with six links, which is kept for the next process.
MANAGED_SLACK = {"processes": 1, "descriptors": 4, "files": 8, "threads": 0}
# Of workers, and of a template, which ends before them.
OOM_SCORES = ("300", "1000")
# Logged once a template is ended, and at most once in an environment.
NO_MEMORY = "memory ran out beside a loaded process"
# Resources that may be released during the following events.
PASSING = ("processes", "strangers", "files", "disk_kb")
# The end of each worker's command line, and of no other.
ENTRY = "entry.mjs"
# Longer texts are shortened in tables.
TYPE_LIMIT = 60
# As tests.doubles stores it.
_REQUEST = re.compile(r"GET invocation next|POST request-\d+ (response|error)")


class LostError(Exception):
    """The run cannot continue: the environment has ended, or is stuck."""


def run(
    count: int,
    seed: int,
    start: int = 0,
    setup: Setup | None = None,
    only: Sequence[str] = (),
) -> Report:
    """Serve ``count`` events, with all hostile kinds, or those with a prefix."""
    del start  # leftovers of an event depend on the previous ones
    # Not in /tmp: an unprivileged runtime has another /tmp, which would hide it.
    place = "/var/tmp" if setup is not None and setup.is_unprivileged else None
    with tempfile.TemporaryDirectory(prefix="soak-", dir=place) as folder:
        return asyncio.run(soak(count, seed, Path(folder), setup, only))


async def soak(
    count: int,
    seed: int,
    folder: Path,
    setup: Setup | None = None,
    only: Sequence[str] = (),
) -> Report:
    """Serve ``count`` events with a runtime whose files are in ``folder``."""
    setup = setup or Setup()
    report = Report("events", seed)
    with Environment(setup, folder) as environment:
        group = environment.group
        kinds = kinds_of(setup, only, with_cgroup=group is not None)
        if group is None:
            left_out = ", ".join(kind.case for kind in HOSTILE if kind.needs_cgroup)
            report.notes.append(f"no control group: {left_out} not tried")
        (folder / "task" / "function.ts").write_text(SOURCE, encoding="utf-8")
        loop = asyncio.get_running_loop()
        async with FakeRuntimeApi() as api:
            runtime = RuntimeUnderTest(
                folder / "task",
                "function.handler",
                api,
                folder / "tmp",
                setup.variables(),
                wrapper=environment.wrapper,
                keeps_log=False,
            )
            if setup.is_unprivileged:  # its content is not visible from outside
                runtime.temp_root = folder / "none"
                runtime.temp_root.mkdir()
            handler = loop.get_exception_handler()
            try:
                async with runtime:
                    watch = _Watch(runtime, api, environment, report)
                    loop.set_exception_handler(watch.api_failed)
                    await watch.run(plan(count, seed, kinds))
            finally:
                loop.set_exception_handler(handler)
    return report.finish()


def kinds_of(
    setup: Setup, only: Sequence[str] = (), *, with_cgroup: bool
) -> list[Kind]:
    """Return the hostile kinds that are possible in an environment."""
    return [
        kind
        for kind in HOSTILE
        if kind.fits(setup, with_cgroup=with_cgroup)
        and (not only or kind.case.startswith(tuple(only)))
    ]


def plan(count: int, seed: int, kinds: Sequence[Kind]) -> list[Kind]:
    """Return the events in random order: a tenth is hostile, and each kind occurs."""
    rng = random.Random(seed)
    hostile = list(kinds)
    if kinds:
        hostile += rng.choices(kinds, k=max(0, count // 10 - len(kinds)))
    good = rng.choices(GOOD, k=max(0, count - len(hostile)))
    events = [*hostile, *good]
    rng.shuffle(events)
    return events


@dataclass(slots=True)
class _Flight:
    """An event, and its response.

    Attributes:
        kind: Kind of the event.
        number: Number of the event.
        body: The event's bytes.
        delivered_s: Time of delivery; monotonic clock.
        answer: The response.
        answered_s: Time of the response, None until then.
    """

    kind: Kind
    number: int
    body: bytes
    delivered_s: float
    answer: asyncio.Future[Answer]
    answered_s: float | None = None

    @property
    def name(self) -> str:
        return f"event {self.number} ({self.kind.case})"

    def may_hit(self, other: _Flight) -> bool:
        """Return whether this event may have ended another one's process."""
        if self is other:
            return False
        end_s = self.answered_s if self.answered_s is not None else time.monotonic()
        ended_s = other.answered_s
        is_before = ended_s is not None and ended_s < self.delivered_s
        return not is_before and other.delivered_s <= end_s + self.kind.lingers_s


class _Watch:
    """Sends events, and checks for leftovers."""

    def __init__(
        self,
        runtime: RuntimeUnderTest,
        api: FakeRuntimeApi,
        environment: Environment,
        report: Report,
    ) -> None:
        self._runtime = runtime
        self._api = api
        self._environment = environment
        self._setup = environment.setup
        self._group = environment.group
        self._report = report
        self._pid = runtime.pid
        self._tmp = runtime.temp_root
        self._flying: dict[str, _Flight] = {}
        # For a server: events that may have been in the same process.
        self._landed: deque[_Flight] = deque(maxlen=8 * self._setup.concurrency)
        self._posts: Counter[str] = Counter()
        self._numbers = 0
        # The known client: the supervisor.
        self._agents: set[str] = set()
        self._requests = 0
        self._oom_kills = 0
        self._figures = {
            "processes killed for memory": 0,
            "of them where nothing took much": 0,
            "templates killed for memory": 0,
            "slowest good answer, ms": 0,
            "longest from event to next, % of the timeout": 0,
            "next after the deadline": 0,
            "workers the kernel would spare": 0,
        }
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Events that may have caused kills since the counter was last read.
        self._takers = 0

    async def run(self, events: list[Kind]) -> None:
        """Serve all events, and stop the runtime."""
        lost = asyncio.create_task(wait_for_end(self._pid, LONG_S))
        reading = asyncio.create_task(self._read_answers())
        self._ends: list[asyncio.Future[None]] = [lost, reading, self._broken]
        try:
            await self._serve(events)
        except LostError as error:
            self._violate(str(error), with_log=True)
        finally:
            self._environment.thaw()
            self._count_kills("the end")
            connections = {"connections to the Runtime API": self._api.connections}
            self._report.figures = {**self._figures, **connections}
            is_lost = lost.done()
            if not is_lost:
                await self._stop()
            await self._end_what_is_left(is_lost=is_lost)
            for task in self._ends:
                task.cancel()
            await asyncio.gather(*self._ends, return_exceptions=True)
            with contextlib.suppress(OSError):
                self._runtime.clear_temp_root()

    async def _serve(self, events: list[Kind]) -> None:
        for _ in range(self._setup.concurrency):
            await self._within(self._api.wait_for_next(LONG_S), "the first next")
        self._agents = set(self._api.user_agents)
        self._report.facts = self._environment.watch(self._pid)
        self._tmp = self._environment.tmp_of(self._runtime)
        await self._sample("start")
        baseline = min(BASELINE_EVENTS, len(events) // 2)
        stops = {baseline, len(events), *range(0, len(events), PROGRESS_EVENTS)}
        done = 0
        for stop in sorted(stops - {0}):
            part = deque(events[done:stop])
            callers = [
                self._call(part) for _ in range(min(self._setup.concurrency, len(part)))
            ]
            await _all(callers)
            done = stop
            if stop == baseline:
                await self._sample("baseline")
            if stop % PROGRESS_EVENTS == 0:
                await self._sample(f"after {stop}")
                print(f"{stop} of {len(events)} events", file=sys.stderr)
        await self._sample("end")
        self._compare()

    async def _call(self, events: deque[Kind]) -> None:
        """Send one event after another until none is left."""
        while events:
            if len(self._report.violations) >= VIOLATIONS_LIMIT:
                raise LostError(f"given up before event {self._numbers + 1}")
            await self._serve_one(events.popleft())

    async def _serve_one(self, kind: Kind) -> None:
        self._numbers += 1
        body = kind.body(self._numbers, self._api.address)
        self._takers += kind.takes_memory
        self._environment.freeze()
        request_id = self._api.deliver(body, timeout_s=kind.timeout_s)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        flight = _Flight(kind, self._numbers, body, time.monotonic(), future)
        self._flying[request_id] = flight
        self._environment.thaw()
        limit_s = kind.timeout_s + ANSWER_LIMIT_S
        try:
            answer = await self._within(
                _result(future), f"{flight.name}: an answer", limit_s
            )
            self._judge(flight, answer)
            await self._within(
                self._api.wait_for_next(LONG_S), f"{flight.name}: the next one", limit_s
            )
        finally:
            if flight.answered_s is None:
                self._report.add(kind.case, "no answer")
        self._count_kills(flight.name)
        flying = [one.kind.takes_memory for one in self._flying.values()]
        # An event may cause a kill after its response, until its process has exited.
        self._takers = sum(flying) + (self._setup.is_managed and kind.takes_memory)
        self._look_at_requests(flight)
        if not self._setup.is_managed:
            self._look_at_the_time(flight)
            await self._look_for_leftovers(flight)

    async def _read_answers(self) -> None:
        """Pass each response to the task that waits for it."""
        while True:
            answer = await self._api.answers.get()
            self._posts[answer.request_id] += 1
            flight = self._flying.pop(answer.request_id, None)
            if flight is None:
                self._violate(
                    f"{answer.request_id or answer.call} was answered "
                    f"{self._posts[answer.request_id]} times: {answer.body[:300]!r}"
                )
                continue
            flight.answered_s = time.monotonic()
            self._landed.append(flight)
            flight.answer.set_result(answer)

    async def _within(
        self, work: Coroutine[Any, Any, T], what: str, limit_s: float = ANSWER_LIMIT_S
    ) -> T:
        """Wait for a future while the environment exists.

        Raises:
            LostError: The environment has ended, or it takes too long.
        """
        task = asyncio.ensure_future(work)
        try:
            waiting: list[asyncio.Future[Any]] = [task, *self._ends]
            await asyncio.wait(
                waiting,
                timeout=limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            lost, reading, broken = self._ends
            if reading.done():
                reading.result()
            if broken.done():
                raise LostError(f"{what} did not come: the Runtime API hung up")
            if lost.done():
                # Its log ends with the process; after that, the exit code is known.
                with contextlib.suppress(TimeoutError):
                    code = await self._runtime.wait()
                    raise LostError(
                        f"{what} did not come: THE ENVIRONMENT IS LOST, the supervisor "
                        f"has ended with {code}"
                    )
            raise LostError(f"{what} did not come within {limit_s:.0f} s")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _judge(self, flight: _Flight, answer: Answer) -> None:
        """Compare a response with the expected one."""
        kind = flight.kind
        outcome = _outcome(answer)
        self._report.add(kind.case, outcome)
        if outcome not in kind.outcomes(self._setup):
            if self._was_hit(flight, outcome):
                self._report.also(f"hit by others: {kind.case}", outcome)
                return
            self._violate(
                f"{flight.name}: expected {kind.outcomes(self._setup)}, got {outcome}: "
                f"{answer.body[:300]!r}",
                with_log=True,
            )
            return
        if kind.case in GOOD_CASES:
            if answer.body != _compact(flight.body):
                self._violate(f"{flight.name}: another result: {answer.body[:99]!r}")
            assert flight.answered_s is not None
            took_ms = round((flight.answered_s - flight.delivered_s) * 1000)
            name = "slowest good answer, ms"
            self._figures[name] = max(self._figures[name], took_ms)
        # A stream that ends before its first piece is posted as an error.
        if kind.is_streamed != bool(answer.chunks) and answer.call != "error":
            self._violate(f"{flight.name}: streamed wrongly")
        trailers = sum(
            len(f"{name}: {value}\r\n") for name, value in answer.trailers.items()
        )
        if trailers + 2 > TRAILERS_LIMIT_BYTES:
            self._violate(
                f"{flight.name}: {trailers} bytes of trailers, AWS's emulator takes "
                f"{TRAILERS_LIMIT_BYTES}"
            )

    def _was_hit(self, flight: _Flight, outcome: str) -> bool:
        """Return whether another event can explain an outcome.

        In the same process it may be any; beside it, the end of all memory only, which
        all events of an environment share.
        """
        others = [*self._landed, *self._flying.values()]
        hitting = [other for other in others if other.may_hit(flight)]
        if self._setup.is_server:
            return any(outcome in other.kind.spreads for other in hitting)
        return outcome == MEMORY and any(other.kind.takes_memory for other in hitting)

    def api_failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record a request that tests.doubles cannot parse: a violation."""
        error = context.get("exception")
        flying = ", ".join(one.name for one in self._flying.values())
        self._violate(f"the Runtime API, with {flying}: {error or context['message']}")
        if not isinstance(error, AssertionError) and not self._broken.done():
            self._broken.set_result(None)

    def _count_kills(self, when: str) -> None:
        """Check the number of processes killed by the kernel, and the cause."""
        if self._group is not None:
            kills = self._group.oom_kills() - self._oom_kills
            self._oom_kills += kills
            self._figures["processes killed for memory"] += kills
            # Before the event's process, and for good.
            name = "templates killed for memory"
            if (
                kills
                and not self._figures[name]
                and NO_MEMORY in self._runtime.log_tail
            ):
                self._figures[name] = 1
                kills -= 1
            if kills and not self._takers:
                self._figures["of them where nothing took much"] += kills
                self._violate(f"{when}: the kernel killed {kills} for memory")

    def _look_at_requests(self, flight: _Flight) -> None:
        """Check that only the supervisor calls the Runtime API."""
        if strangers := self._api.user_agents - self._agents:
            self._agents |= strangers
            self._violate(f"{flight.name}: {strangers} asked the Runtime API")
        for request in self._api.requests[self._requests :]:
            if not _REQUEST.fullmatch(request):
                self._violate(f"{flight.name}: the Runtime API was asked: {request}")
        self._requests = len(self._api.requests)

    def _look_at_the_time(self, flight: _Flight) -> None:
        """Check for a ``next`` before the deadline, when Lambda ends an environment."""
        took_s = time.monotonic() - flight.delivered_s
        share = round(100 * took_s / flight.kind.timeout_s)
        name = "longest from event to next, % of the timeout"
        self._figures[name] = max(self._figures[name], share)
        if took_s > flight.kind.timeout_s + LATE_S:
            self._figures["next after the deadline"] += 1
            if flight.kind.timeout_s >= JUDGED_TIMEOUT_S:
                self._violate(
                    f"{flight.name}: the next one was asked for after {took_s:.2f} s, "
                    f"the timeout is {flight.kind.timeout_s:.2f} s"
                )

    async def _look_for_leftovers(self, flight: _Flight) -> None:
        """Check that only the supervisor and the waiting process are left."""
        found = self._processes()
        # With forks there may be a template: not at first, nor while it is replaced.
        numbers = (2, 3) if self._setup.has_template else (2,)
        if len(found) not in numbers or self._pid not in found or self._zombies():
            names = {pid: _name(pid) for pid in found}
            self._violate(
                f"{flight.name}: processes {names} are there, "
                f"and {self._zombies()} zombies; the supervisor is {self._pid}",
                with_log=True,
            )
        self._look_at_scores(found)

    def _look_at_scores(self, found: list[int]) -> None:
        """Check that the kernel would kill a worker before the supervisor."""
        for pid in found:
            with contextlib.suppress(OSError):
                score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
                if pid != self._pid and score not in OOM_SCORES:
                    name = "workers the kernel would spare"
                    if not self._figures[name]:
                        self._violate(f"oom_score_adj of a worker is {score}")
                    self._figures[name] += 1

    def _violate(self, text: str, *, with_log: bool = False) -> None:
        """Record a violation; the first one with the log before it."""
        if with_log and not any("; log:\n" in one for one in self._report.violations):
            text += f"; log:\n{self._runtime.log_tail}"
        self._report.violate(text)

    def _zombies(self) -> int:
        """Return the number of zombies among the supervisor's children."""
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
        # Some children of handlers lose the mark, but none of these loses its
        # parent too.
        return sorted(found | set(self._runtime.survivors()))

    async def _sample(self, when: str) -> None:
        """Record the supervisor's resources while nothing runs."""
        held = self._held()
        growth = self._report.growth
        first = growth.get("start", held)
        # Leftovers may be removed during the following events.
        for _ in range(CLEANING_EVENTS):
            passing = {name: held[name] for name in PASSING}
            if not self._excess(passing, first):
                break
            await self._serve_one(ECHO)
            held = self._held()
        growth[when] = held

    def _is_ours(self, pid: int) -> bool:
        """Return whether a process is the supervisor or a worker, not a handler's."""
        return pid == self._pid or _command(pid)[-1:] == [ENTRY]

    def _held(self) -> dict[str, int]:
        status = Path(f"/proc/{self._pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        found = self._processes()
        if self._setup.is_managed:
            self._look_at_scores(found)
        count, size_kb = _files(self._tmp)
        return {
            "processes": len(found) + self._zombies(),
            "strangers": len([pid for pid in found if not self._is_ours(pid)]),
            "threads": int(fields["Threads"]),
            "descriptors": self._runtime.descriptor_count(),
            "files": count,
            "disk_kb": size_kb,
            "memory_kb": int(fields["VmRSS"].split()[0]),
        }

    def _excess(self, held: dict[str, int], before: dict[str, int]) -> list[str]:
        """Return the resources that have grown too much, except memory."""
        found = []
        for name, value in held.items():
            slack = 0
            if name == "disk_kb":
                slack = DISK_GROWTH_LIMIT_KB
            elif self._setup.is_managed:
                slack = MANAGED_SLACK.get(name, 0) * self._setup.concurrency
            elif self._setup.has_template:
                slack = MANAGED_SLACK.get(name, 0)  # a template may be there or not
            if name != "memory_kb" and value > before[name] + slack:
                found.append(f"{name} grew from {before[name]} to {value}")
        return found

    def _compare(self) -> None:
        growth = self._report.growth
        baseline, end = growth["baseline"], growth["end"]
        disk = {"disk_kb": growth["start"]["disk_kb"]}
        for when, held in growth.items():
            if when == "start":
                continue  # the first processes have their own copies of Deno's cache
            for text in self._excess(held, {**baseline, **disk}):
                self._report.violate(f"{text}, seen {when}")
        # Memory grows in steps, as large objects may fragment the heap; a leak keeps
        # growing.
        is_long = self._report.count > BASELINE_EVENTS
        allowed_kb = SHORT_GROWTH_LIMIT_KB
        if is_long:
            is_managed = self._setup.is_managed
            allowed_kb = MANAGED_STEPS_LIMIT_KB if is_managed else STEPS_LIMIT_KB
        if end["memory_kb"] > baseline["memory_kb"] + allowed_kb:
            self._report.violate(f"memory grew: {baseline} at first, {end} at the end")
        middle = growth.get(f"after {self._report.count // 2}")
        if (
            is_long
            and middle is not None
            and end["memory_kb"] > middle["memory_kb"] + MEMORY_GROWTH_LIMIT_KB
        ):
            self._report.violate(
                f"memory still grows: {middle} half-way, {end} at last"
            )
        if self._runtime.pid != self._pid or not self._runtime.is_running:
            self._report.violate("the supervisor is not the one that was started")

    async def _end_what_is_left(self, *, is_lost: bool) -> None:
        """Remove everything left of the environment; there should be nothing."""
        found = set(self._runtime.survivors())
        if self._group is not None:
            found |= set(self._group.process_ids())
        if found and not is_lost:
            self._violate(f"after the end there are {[_name(pid) for pid in found]}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                await kill_and_wait(pid)

    async def _stop(self) -> None:
        try:
            code = await self._runtime.stop()
        except TimeoutError:
            self._report.violate("the supervisor does not end after SIGTERM")
            return
        if code != 0:
            self._violate(f"exit code {code} after SIGTERM", with_log=True)
        if left := [path.name for path in self._tmp.iterdir()]:
            self._report.violate(f"left in /tmp after the end: {left[:9]}")


ECHO = GOOD[0]
GOOD_CASES = {kind.case for kind in GOOD}


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all tasks; if one fails, cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _result(future: asyncio.Future[T]) -> T:
    return await future


def _compact(body: bytes) -> bytes:
    """Return JSON in JavaScript's format."""
    return json.dumps(json.loads(body), separators=(",", ":")).encode()


def _files(folder: Path) -> tuple[int, int]:
    """Return the number of files and folders, and their disk usage."""
    count = size_kb = 0

    def skip(_: OSError) -> None:
        """Ignore the error: the folder was removed meanwhile."""

    walk: Callable[..., Any] = os.walk
    for place, folders, files in walk(folder, onerror=skip):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                size_kb += os.lstat(f"{place}/{name}").st_blocks // 2
                count += 1
    return count, size_kb


def _outcome(answer: Answer) -> str:
    """Return ``result``, or the error type that the caller receives."""
    if answer.call == "error":
        body = answer.body
    else:
        text = answer.trailers.get("lambda-runtime-function-error-body")
        if text is None:
            return "result"
        body = base64.b64decode(text)
    try:
        text = str(json.loads(body)["errorType"])
    except (ValueError, RecursionError, KeyError, TypeError):
        # A forged error: the caller receives the type in the header.
        named = "lambda-runtime-function-error-type"
        text = answer.headers.get(named) or answer.trailers.get(named, "unreadable")
        text = text.removeprefix("Function.")
    return text if len(text) <= TYPE_LIMIT else f"{text[:6]}\u2026"


def _name(pid: int) -> str:
    return " ".join(_command(pid)[:4])[:99] or "gone"


def _command(pid: int) -> list[str]:
    """Return the words of a command, with only the file name of the last one."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return [*map(os.fsdecode, words[:-1]), os.fsdecode(words[-1]).split("/")[-1]]
    return []
