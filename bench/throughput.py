"""Events per second with several at once, and the memory that this takes.

The runtime as on Managed Instances, with fresh processes, an echo handler, and a
Runtime API that responds to each ``next`` with an event at once. The baseline is the
limit set by the CPU: the number of cores, divided by the CPU time of one bare ``deno
run`` of the same handler (see ``cpu.py``), while as many of these run concurrently as
events. That is stricter: on partly idle cores, one run takes up to a quarter more CPU
time. The two alternate, in case the machine slows down meanwhile: the load is frozen
while the bare processes run. All responses are checked. Memory is the proportional set
size of the whole tree, read while it is frozen. Reproduce with ``python -m bench
throughput``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.contestants import HANDLERS, deno_environ, environ
from bench.cpu import run_bare
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.contestant import memory_of
from lambda_deno_spawn.dev.bench.runtime_api import ACCEPTED, Connection, delivery
from lambda_deno_spawn.dev.bench.sandbox import open_sandbox
from lambda_deno_spawn.dev.local.runtime import bootstrap_command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONCURRENCY = 8
MEMORY_MB = 2048
DURATION_S = 60.0
TURNS = 12
WARM_UP_EVENTS = 40
BARE_RUNS = 40  # in each turn
SUSTAINED = 0.85
# Memory allowed late in the run, relative to early: the number of processes varies a
# little. A leak of 8 KB per event would exceed it.
MEMORY_GROWTH = 1.2


@dataclass(frozen=True, slots=True)
class Subject:
    """The runtime that serves the events, and the baseline.

    Attributes:
        name: Of the function.
        variables: Settings of the runtime beside those of all contestants.
        answer: What the handler responds, with the event's number.
        bare: The program that runs the handler once, with number 0.
        bare_runs: How often, in each turn.
        duration_s: How long events are served; none of it is the bare runs' time.
    """

    name: str = "echo"
    variables: Mapping[str, str] = field(default_factory=dict)
    answer: bytes = b'{"ok":true,"n":%d}'
    bare: Path = HANDLERS / "bare.mjs"
    bare_runs: int = BARE_RUNS
    duration_s: float = DURATION_S


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure for a minute, or until ``events`` have a response."""
    load, bare_s = await take_turns(events, scratch, Subject())
    cpu_s = statistics.mean(bare_s)
    possible = possible_per_s(bare_s)
    early, late = load.memory_mib(first=True), load.memory_mib(first=False)
    count = load.answered
    return [
        Figure(
            "throughput: possible / sustained",
            possible / load.per_s,
            "x",
            1 / SUSTAINED,
            count,
            f"{load.per_s:.1f} of {possible:.1f} events/s in {load.duration_s:.0f} s; "
            f"bare {cpu_s * 1000:.1f} ms of CPU, ours {load.cpu_s / count * 1000:.1f}",
        ),
        Figure(
            "throughput: memory late / early",
            late / early,
            "x",
            MEMORY_GROWTH,
            len(load.samples_mib),
            f"{early:.0f} then {late:.0f} MiB, {max(load.samples_mib):.0f} at most, "
            f"of {MEMORY_MB} MB",
        ),
    ]


def possible_per_s(bare_s: list[float]) -> float:
    """Return how many bare runs a second take all processors."""
    return len(os.sched_getaffinity(0)) / statistics.mean(bare_s)


class Load:
    """A Runtime API that always has another event, and the results.

    Attributes:
        answered: Number of events with a response, without the warm-up.
        samples_mib: Memory of the runtime and its descendants.
        cpu_s: Their CPU time.
        duration_s: How long the load was on.
    """

    def __init__(self, answer: bytes) -> None:
        """Have no event in flight; ``answer`` is expected, with the event's number."""
        self._answer = answer
        self.answered = 0
        self.samples_mib: list[float] = []
        self.cpu_s = 0.0
        self.duration_s = 0.0
        self.warm = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent = 0
        self._warming = WARM_UP_EVENTS
        self._in_flight: dict[bytes, bytes] = {}

    @property
    def per_s(self) -> float:
        """Responses per second."""
        return self.answered / self.duration_s

    def memory_mib(self, *, first: bool) -> float:
        """Return the mean of the first or the second half of the samples."""
        half = len(self.samples_mib) // 2
        part = self.samples_mib[:half] if first else self.samples_mib[half:]
        return statistics.mean(part)

    def piece_came(self) -> None:
        """Do nothing: no response is streamed."""

    def handle(
        self, connection: Connection, method: bytes, path: bytes, body: bytes
    ) -> None:
        """Send an event, or check a response."""
        if method == b"GET":
            self._sent += 1
            request_id, event = b"r-%d" % self._sent, b'{"n":%d}' % self._sent
            self._in_flight[request_id] = self._answer % self._sent
            connection.write(delivery(request_id.decode(), event))
            return
        connection.write(ACCEPTED)
        request_id = path.split(b"/")[-2]
        expected = self._in_flight.pop(request_id, None)
        if (body != expected or not path.endswith(b"/response")) and (
            not self.failed.done()
        ):
            problem = f"{request_id!r}: {body[:500]!r} instead of {expected!r}"
            self.failed.set_exception(RuntimeError(problem))
        if self._warming:
            self._warming -= 1
            if not self._warming:
                self.warm.set()
        else:
            self.answered += 1


async def take_turns(
    events: int | None, scratch: Path, subject: Subject
) -> tuple[Load, list[float]]:
    """Return the results of the load, and the CPU time of a bare run in each turn."""
    load = Load(subject.answer)
    bare_s: list[float] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(load), host="127.0.0.1", port=0
    )
    host, port = server.sockets[0].getsockname()
    variables = {
        **environ("background", scratch, f"{host}:{port}"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
        "AWS_LAMBDA_MAX_CONCURRENCY": str(CONCURRENCY),
        **subject.variables,
    }
    log = scratch / "managed.log"
    with log.open("wb") as output, contextlib.closing(open_sandbox("busy")) as sandbox:
        process = sandbox.start(bootstrap_command(), variables, output=output)
        try:
            async with asyncio.timeout(60):
                await _first_of(load, load.warm.wait())
            load.answered = 0
            for turn in range(1, TURNS + 1):
                sandbox.freeze()
                load.samples_mib.append(memory_of(sandbox.process_ids()) / 2**20)
                bare_s.append(_bare_cpu_s(scratch, subject))
                sandbox.thaw()
                begun_s, cpu_s = time.perf_counter(), sandbox.cpu_s()
                while (
                    time.perf_counter() - begun_s < subject.duration_s / TURNS
                    if events is None
                    else load.answered < events * turn / TURNS
                ):
                    await _first_of(load, asyncio.sleep(0.05))
                load.duration_s += time.perf_counter() - begun_s
                load.cpu_s += sandbox.cpu_s() - cpu_s
        except (RuntimeError, TimeoutError) as error:
            tail = log.read_bytes()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{error}; the log ends with:\n{tail}") from error
        finally:
            server.close()
            process.terminate()
            await asyncio.to_thread(process.wait, 10)
    return load, bare_s


async def _first_of(load: Load, work: object) -> None:
    """Wait for some work, or until a response is wrong."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    await asyncio.wait({task, load.failed}, return_when=asyncio.FIRST_COMPLETED)
    if load.failed.done():
        task.cancel()
        load.failed.result()


def _bare_cpu_s(scratch: Path, subject: Subject) -> float:
    """Return the CPU time of one bare run, while all cores do the same."""
    sandbox = open_sandbox("bare")
    environ = deno_environ(scratch)

    def run(_number: int) -> None:
        printed = run_bare(sandbox, environ, subject.bare)
        if printed != subject.answer % 0 + b"\n":
            raise RuntimeError(f"A bare run of {subject.name} printed {printed!r}")

    try:
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(run, range(CONCURRENCY)))  # writes the code cache
            before_s = sandbox.cpu_s()
            list(pool.map(run, range(subject.bare_runs)))
            return (sandbox.cpu_s() - before_s) / subject.bare_runs
    finally:
        sandbox.close()
