"""A copy of a loaded process for each event, beside a ``deno run`` for each event.

An echo handler, and a bundle of a router, an SDK and a schema. Measured as
``lambda-deno-spawn bench`` does it: in turns, frozen between events. Reproduce with
``python -m bench fork``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.integration.test_as_deployed import unzip

from bench.contestants import HANDLERS, HERE, deno_environ, forks
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.measure import BenchOptions, measure
from lambda_deno_spawn.dev.bench.report import summarise
from lambda_deno_spawn.dev.bench.ways import Way
from lambda_deno_spawn.dev.package.build import BuildOptions, build
from lambda_deno_spawn.dev.project.function import Function
from lambda_deno_spawn.dev.project.project import Arch, load_project

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.dev.bench.report import Summary

EVENTS = {"echo": 200, "bundle": 100}
EVENT = b'{"n":1}'
CPU_TO_BARE = {"echo": 0.30, "bundle": 0.10}
AFTER_TO_EXEC = {"echo": 0.30, "bundle": 0.08}
TO_EXEC = 1.1
# Missed by the bundle, with a process of its own start too: the polling process has run
# the code before, and V8 has compiled it.
TO_POLLER = 1.5
P99_TO_P50 = 3.0
OFF_TO_EXEC = 0.25
WAYS = (Way.FORK, Way.EXEC, Way.POLLER, Way.BARE)


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure both functions, ``events`` times each."""
    figures: list[Figure] = []
    functions = {
        "echo": Function(HANDLERS, "echo.handler"),
        "bundle": build_bundle(scratch),
    }
    if not await forks(scratch):
        return []
    for name, function in functions.items():
        count = events or EVENTS[name]
        ready = await _measure(name, function, count, scratch, "ready", WAYS)
        off = await _measure(name, function, count, scratch, "off", WAYS[:2])
        figures += _figures(name, count, ready, off)
    return figures


async def _measure(
    name: str,
    function: Function,
    count: int,
    scratch: Path,
    warm: str,
    ways: tuple[Way, ...],
) -> dict[Way, Summary]:
    folder = scratch / f"{name}-{warm}"
    folder.mkdir()
    options = BenchOptions(
        function, EVENT, count, ways, variables={"LAMBDA_DENO_WARM": warm}, starts=1
    )
    results = await measure(options, {**os.environ, **deno_environ(scratch)}, folder)
    for refused in results.refused:
        raise RuntimeError(f"{name}, {refused.way.value}: {refused.reason}")
    for measured in results.measured:
        if measured.note is not None:
            raise RuntimeError(f"{name}, {measured.way.value}: {measured.note}")
    arch = Arch.here().value
    return {one.way: summarise(one, arch) for one in results.measured}


def _figures(
    name: str, count: int, ready: dict[Way, Summary], off: dict[Way, Summary]
) -> list[Figure]:
    fork, exec_ = ready[Way.FORK], ready[Way.EXEC]

    def quotient(what: str, ours: float, theirs: float, target: float | None) -> Figure:
        detail = f"{ours:.2f} / {theirs:.2f} ms"
        return Figure(
            f"fork: {name}, {what}", ours / theirs, "x", target, count, detail
        )

    return [
        quotient(
            "CPU / bare deno run", fork.cpu_ms, ready[Way.BARE].cpu_ms,
            CPU_TO_BARE[name],
        ),
        quotient(
            "response to next / exec's", fork.after.p50, exec_.after.p50,
            AFTER_TO_EXEC[name],
        ),
        quotient(
            "latency / exec's", fork.latency.p50, exec_.latency.p50, TO_EXEC
        ),
        quotient(
            "latency / poller's", fork.latency.p50, ready[Way.POLLER].latency.p50,
            TO_POLLER,
        ),
        quotient("p99 / p50", fork.latency.p99, fork.latency.p50, P99_TO_P50),
        quotient(
            "latency / exec's, off", off[Way.FORK].latency.p50,
            off[Way.EXEC].latency.p50, OFF_TO_EXEC,
        ),
        *(
            Figure(f"fork: {name}, {one.way.value}, {what}", value, unit, None, count)
            for one in ready.values()
            for what, value, unit in (
                ("p50", one.latency.p50, "ms"),
                ("p99", one.latency.p99, "ms"),
                ("CPU per event", one.cpu_ms, "ms"),
                ("memory", one.memory_mib, "MiB"),
            )
        ),
    ]  # fmt: skip


def build_bundle(scratch: Path) -> Function:
    """Build the bundle; this needs network access, or the packages in Deno's cache."""
    project = load_project(HERE / "bundle", name="bundle")
    options = BuildOptions(project, Arch.here(), scratch, is_seeded=False)
    folder = unzip([build(options, os.environ).path], scratch / "bundle")
    return Function(folder, project.function.handler)
