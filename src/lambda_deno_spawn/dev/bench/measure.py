"""Measures a function in each way to serve its events, in turns.

Each way has an environment of its own, which is frozen while it waits for an event, as
on Lambda, and so while the others have theirs. They take turns event by event, and each
is first equally often: whatever slows the machine down slows all of them. Does not know
how results are shown. Specification: docs/bench.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from lambda_deno_spawn.dev.bench.contestant import (
    ContestantError,
    exit_text,
    log_tail,
    memory_of,
    running,
)
from lambda_deno_spawn.dev.bench.report import Measured, Refused, Results, Sample
from lambda_deno_spawn.dev.bench.sandbox import TreeSandbox, open_sandbox
from lambda_deno_spawn.dev.bench.ways import (
    COLD_SETTINGS,
    IGNORED,
    SETTINGS,
    Way,
    bare_source,
    baseline_command,
    poller_source,
)
from lambda_deno_spawn.dev.local.process_tree import ProcessTree
from lambda_deno_spawn.dev.local.runtime import (
    bootstrap_command,
    deno_binary,
    lambda_environ,
)
from lambda_deno_spawn.dev.project.function import InvokeOptions
from lambda_deno_spawn.dev.project.quotas import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S
from lambda_deno_spawn.launch.handler import find_handler
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from lambda_deno_spawn.dev.bench.contestant import Contestant
    from lambda_deno_spawn.dev.bench.sandbox import Sandbox
    from lambda_deno_spawn.dev.project.function import Function

T = TypeVar("T")
# Fills Deno's caches, and V8 compiles hot functions. A copy is made from the third
# event on.
WARM_UP_MOST, WARM_UP_LEAST = 20, 5
WARM_UP_SHARE = 5  # one in so many
MEMORY_EVENTS = 3  # after the others, as reading memory takes time
LINGER_MS = 200  # so long a bare run lives on after its response, to read its memory
READING_S = 0.005
STARTS = 5
# The runtime reports a handler that is too slow by itself; this is for one that hangs.
GRACE_S = 10.0
INIT_LIMIT_S = 10.0
# The runtime's log lines about an event (docs/metrics.md), and about copies that it
# cannot make (serving/template.py).
SERVED = re.compile(r'"type": ?"lambda-deno-spawn\.report".*?"start": ?"(\w+)"')
TROUBLE = re.compile(
    r"(?:Events are served by processes of their own start|Replacing the template): "
    r"(.*)"
)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The request for a measurement.

    Attributes:
        function: Its folder and handler.
        event: Sent again and again, byte for byte.
        events: How many are measured for each way.
        ways: The ways, in the order of the report.
        memory_mb: Reported to the runtime; nothing enforces it here.
        timeout_s: Time limit of an event.
        variables: The function's environment variables.
        starts: How many cold starts of each way are measured.
    """

    function: Function
    event: bytes = b"{}"
    events: int = 200
    ways: Sequence[Way] = tuple(Way)
    memory_mb: int = DEFAULT_MEMORY_MB
    timeout_s: float = DEFAULT_TIMEOUT_S
    variables: Mapping[str, str] = field(default_factory=dict)
    starts: int = STARTS

    @property
    def warm_up(self) -> int:
        """How many events each way gets before the measured ones."""
        return max(WARM_UP_LEAST, min(WARM_UP_MOST, self.events // WARM_UP_SHARE))


class Racer(Protocol):
    """One way, ready for the next event."""

    async def take(self, event: bytes) -> Sample:
        """Serve one event.

        Raises:
            ContestantError: It failed.
        """

    async def peak_bytes(self, event: bytes) -> int:
        """Return the most memory that it has while it serves some events."""

    def note(self, events: int) -> str | None:
        """Return remarks about the last events.

        Raises:
            ContestantError: They were not served in this way.
        """

    def stop(self) -> None:
        """End its processes."""


@dataclass(slots=True)
class _Waiting:
    """A racer that waits in ``next``, frozen."""

    way: Way
    contestant: Contestant

    async def take(self, event: bytes) -> Sample:
        sandbox = self.contestant.sandbox
        before_s = sandbox.cpu_s()
        response = await self.contestant.send(event)
        cpu_s = sandbox.cpu_s() - before_s
        return Sample(response.latency_s, response.billed_s, cpu_s)

    async def peak_bytes(self, event: bytes) -> int:
        peak = 0

        def read() -> None:
            nonlocal peak
            peak = max(peak, self.contestant.memory_bytes())

        # It waits for us at both moments, and most is allocated by the first.
        self.contestant.api.on_post = read
        for _ in range(MEMORY_EVENTS):
            await self.contestant.send(event)
            read()
        return peak

    def note(self, events: int) -> str | None:
        if self.way is not Way.FORK:
            return None
        log = self.contestant.log.read_text(errors="replace")
        copies, trouble = copies_in(log, events)
        why = f": {trouble}" if trouble else ""
        said = f"{copies} of {events} events were served by copies{why}"
        if copies < events / 2:
            raise self.contestant.error(f"only {said}")
        return None if copies == events else said

    def stop(self) -> None:
        self.contestant.sandbox.close()


@dataclass(slots=True)
class _Bare:
    """A racer that is a process for each event, which reads the event from a file."""

    command: Sequence[str]
    lingering_command: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    limit_s: float

    async def take(self, event: bytes) -> Sample:
        sandbox = TreeSandbox()
        before_s = sandbox.cpu_s()
        duration_s = await self.run(sandbox)
        return Sample(duration_s, duration_s, sandbox.cpu_s() - before_s)

    async def peak_bytes(self, event: bytes) -> int:
        sandbox, peak = TreeSandbox(), 0
        run = asyncio.create_task(self.run(sandbox, self.lingering_command))
        while not run.done():
            await asyncio.wait({run}, timeout=READING_S)
            peak = max(peak, memory_of(sandbox.process_ids()))
        run.result()
        return peak

    def note(self, events: int) -> str | None:
        return None

    def stop(self) -> None:
        pass

    async def run(
        self, sandbox: Sandbox, command: Sequence[str] | None = None
    ) -> float:
        """Run the program to its end; return how long it took.

        Raises:
            ContestantError: It failed, or did not end in time.
        """
        with self.log.open("wb") as output, contextlib.closing(sandbox):
            started_s = time.perf_counter()
            process = sandbox.start(
                command or self.command, self.environ, output=output
            )

            def wait() -> float:
                process.wait()
                return time.perf_counter()

            try:
                # Killed at the end of the block, which ends the thread.
                async with asyncio.timeout(self.limit_s):
                    ended_s = await asyncio.to_thread(wait)
            except TimeoutError:
                raise self._error("it did not end") from None
        if process.returncode != 0:
            raise self._error(exit_text(self.log, process.returncode))
        return ended_s - started_s

    def _error(self, reason: str) -> ContestantError:
        return ContestantError(Way.BARE.value, reason, log_tail(self.log))


async def measure(
    options: BenchOptions,
    environ: Mapping[str, str],
    scratch: Path,
    say: Callable[[str], None] = lambda _: None,
    sandbox_of: Callable[[str], Sandbox] = open_sandbox,
) -> Results:
    """Measure a function.

    Args:
        options: What to measure.
        environ: The caller's environment.
        scratch: Empty folder; its path should be short, as sockets are made below it.
        say: Called with a sentence about what comes next.
        sandbox_of: Returns a new sandbox for a name.

    Raises:
        HandlerError: The function has no such handler.
        ConfigError: There is no Deno.
    """
    run = _Run(options, environ, scratch, say, sandbox_of)
    try:
        return await run.run()
    finally:
        ProcessTree(mark=str(scratch)).kill()


class _Run:
    def __init__(
        self,
        options: BenchOptions,
        environ: Mapping[str, str],
        scratch: Path,
        say: Callable[[str], None],
        sandbox_of: Callable[[str], Sandbox],
    ) -> None:
        self._sandbox_of = sandbox_of
        self._options = options
        self._environ = environ
        self._scratch = scratch
        self._say = say
        self._handler = find_handler(
            str(options.function.task_root), options.function.handler
        )
        self._deno = deno_binary(environ)
        self._limit_s = options.timeout_s + GRACE_S
        self._event_file = scratch / "event.json"
        self._event_file.write_bytes(options.event)
        self._refused: dict[Way, Refused] = {}
        self._freezer = ""

    async def run(self) -> Results:
        options = self._options
        load = os.getloadavg()[0]
        samples: dict[Way, list[Sample]] = {way: [] for way in options.ways}
        peaks: dict[Way, int] = {}
        notes: dict[Way, str | None] = {}
        async with contextlib.AsyncExitStack() as stack:
            racers = await self._line_up(stack)
            if racers:
                self._say(f"measuring {options.events} events each: {_names(racers)}")
            for n in range(options.events):
                ways = list(racers)
                turn = n % max(1, len(ways))
                for way in ways[turn:] + ways[:turn]:
                    with self._dropping(way, racers):
                        samples[way].append(await racers[way].take(options.event))
            for way in list(racers):
                with self._dropping(way, racers):
                    notes[way] = racers[way].note(options.events)
                    peaks[way] = await racers[way].peak_bytes(options.event)
            left = list(racers)
        if left:
            self._say(f"measuring {options.starts} cold starts each: {_names(left)}")
        next_s: dict[Way, list[float]] = {way: [] for way in left}
        answer_s: dict[Way, list[float]] = {way: [] for way in left}
        for n in range(options.starts):
            for way in list(next_s):
                with self._dropping(way, next_s):
                    first_next_s, first_answer_s = await self._cold_start(way, n)
                    answer_s[way].append(first_answer_s)
                    next_s[way] += [] if first_next_s is None else [first_next_s]
        return Results(
            events=options.events,
            warm_up=options.warm_up,
            starts=options.starts,
            freezer=self._freezer,
            cores=os.cpu_count() or 1,
            load=load,
            measured=[
                Measured(
                    way, samples[way], peaks[way], next_s[way], answer_s[way],
                    notes[way],
                )
                for way in next_s
            ],
            refused=list(self._refused.values()),
        )  # fmt: skip

    async def _line_up(self, stack: contextlib.AsyncExitStack) -> dict[Way, Racer]:
        """Start all ways, and warm them up."""
        racers: dict[Way, Racer] = {}
        for way in self._options.ways:
            self._say(f"starting {way.value}")
            with self._dropping(way, racers):
                racers[way] = await stack.enter_async_context(self._racer(way))
                for _ in range(self._options.warm_up):
                    await racers[way].take(self._options.event)
        return racers

    @contextlib.contextmanager
    def _dropping(self, way: Way, among: dict[Way, T]) -> Iterator[None]:
        """Do without a way that fails, and keep the reason."""
        try:
            yield
        except ContestantError as error:
            racer = among.pop(way, None)
            if isinstance(racer, _Waiting):
                racer.stop()  # it would go on beside the others
            # The words of a refusal by `fork` assume that the user has set it.
            reason = error.reason.rpartition("; expected auto: ")[2]
            self._refused[way] = Refused(way, reason, error.is_of_function)

    @contextlib.asynccontextmanager
    async def _racer(self, way: Way) -> AsyncIterator[Racer]:
        folder = self._folder(way.value)
        if way is Way.BARE:
            yield self._bare(folder)
            return
        sandbox = self._sandbox_of(way.value)
        self._freezer = sandbox.freezer.value
        async with self._runtime(way, folder, sandbox, SETTINGS, freezes=True) as one:
            await one.first_poll()
            yield _Waiting(way, one)

    async def _cold_start(self, way: Way, n: int) -> tuple[float | None, float]:
        """Return how long the first ``next`` and the first response took."""
        folder = self._folder(f"{way.value}{n}")
        if way is Way.BARE:
            return None, await self._bare(folder).run(TreeSandbox())
        # Started directly: the shell that enters a control group takes a millisecond.
        async with self._runtime(
            way, folder, TreeSandbox(), COLD_SETTINGS, freezes=False
        ) as one:
            first_next_s = await one.first_poll()
            response = await one.send(self._options.event)
            return first_next_s, response.received_at_s - one.started_at_s

    def _runtime(
        self,
        way: Way,
        folder: Path,
        sandbox: Sandbox,
        settings: Mapping[Way, Mapping[str, str]],
        *,
        freezes: bool,
    ) -> contextlib.AbstractAsyncContextManager[Contestant]:
        if way is Way.POLLER:
            entry = self._program("poller.mjs", poller_source(self._handler))
            argv = self._baseline(entry)
        else:
            argv = bootstrap_command()
        return running(
            way.value,
            argv,
            lambda address: self._variables(way, address, folder, settings),
            folder.with_suffix(".log"),
            sandbox,
            freezes=freezes,
            deadline_s=self._options.timeout_s,
            limit_s=self._limit_s + INIT_LIMIT_S,
        )

    def _bare(self, folder: Path) -> _Bare:
        source = bare_source(self._handler, self._event_file)
        lingering = bare_source(self._handler, self._event_file, LINGER_MS)
        return _Bare(
            self._baseline(self._program("bare.mjs", source)),
            self._baseline(self._program("lingering.mjs", lingering)),
            self._variables(Way.BARE, "", folder, {}),
            folder.with_suffix(".log"),
            self._limit_s,
        )

    def _program(self, name: str, source: str) -> Path:
        file = self._scratch / name
        file.write_text(source, encoding="utf-8")
        return file

    def _baseline(self, entry: Path) -> list[str]:
        task_root = self._options.function.task_root
        return baseline_command(self._deno, task_root, entry)

    def _variables(
        self,
        way: Way,
        address: str,
        folder: Path,
        settings: Mapping[Way, Mapping[str, str]],
    ) -> dict[str, str]:
        options = self._options
        invoke = InvokeOptions(
            options.function,
            timeout_s=options.timeout_s,
            memory_mb=options.memory_mb,
            variables=options.variables,
        )
        variables = lambda_environ(invoke, address, str(folder), self._environ)
        for name in IGNORED:
            variables.pop(name, None)
        if not way.is_baseline:
            return {**variables, **settings[way]}
        packaged = options.function.task_root / PACKAGED_DENO_DIR
        if packaged.is_dir():  # a copy, as Deno writes to its cache
            own = self._scratch / "deno_dir"
            if not own.exists():
                shutil.copytree(packaged, own)
            variables["DENO_DIR"] = str(own)
        return {**variables, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}

    def _folder(self, name: str) -> Path:
        folder = self._scratch / name
        folder.mkdir()
        return folder


def _names(ways: Iterable[Way]) -> str:
    return ", ".join(way.value for way in ways)


def copies_in(log: str, events: int) -> tuple[int, str | None]:
    """Return how many of the last events were served by copies, and why not all."""
    starts = SERVED.findall(log)[-events:]
    troubles = TROUBLE.findall(log)
    return starts.count("fork"), troubles[-1] if troubles else None
