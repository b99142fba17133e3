"""Copies for eight events at once, for a minute: events per second, and memory.

As in ``throughput.py``, with copies of a loaded process in the place of processes of
their own start; also with a bundle of a router, an SDK and a schema, whose copies are
compared with processes of their own start, too. Reproduce with ``python -m bench
managed``.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench.contestants import HANDLERS, forks
from bench.figures import Figure
from bench.fork import build_bundle
from bench.throughput import MEMORY_GROWTH, Subject, possible_per_s, take_turns
from lambda_deno_spawn.launch.entry import file_url
from lambda_deno_spawn.launch.handler import find_handler

if TYPE_CHECKING:
    from pathlib import Path

    from bench.throughput import Load
    from lambda_deno_spawn.dev.project.function import Function

# The sustained rate, over the rate that a bare `deno run` for each event would allow.
TO_POSSIBLE = {"echo": 3.0, "bundle": 8.0}
MEMORY_TO_EXEC = 0.5
# For the memory of processes of their own start, which takes no minute.
EXEC_S = 12.0
BUNDLE_BARE_RUNS = 16


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure each function for a minute, or until ``events`` have a response."""
    if not await forks(scratch):
        return []
    figures: list[Figure] = []
    for subject in (_echo(), _bundle(scratch, build_bundle(scratch))):
        load, bare_s = await _measure(events, scratch, subject, "fork")
        brief = Subject(
            subject.name, subject.variables, subject.answer, subject.bare,
            bare_runs=1, duration_s=EXEC_S,
        )  # fmt: skip
        started, _ = await _measure(events, scratch, brief, "exec")
        figures += _figures(subject.name, load, bare_s, started)
    return figures


async def _measure(
    events: int | None, scratch: Path, subject: Subject, start: str
) -> tuple[Load, list[float]]:
    folder = scratch / f"{subject.name}-{start}"
    folder.mkdir()
    variables = {**subject.variables, "LAMBDA_DENO_START": start}
    return await take_turns(
        events,
        folder,
        Subject(
            subject.name, variables, subject.answer, subject.bare, subject.bare_runs,
            subject.duration_s,
        ),
    )  # fmt: skip


def _figures(name: str, load: Load, bare_s: list[float], started: Load) -> list[Figure]:
    possible, count = possible_per_s(bare_s), load.answered
    early, late = load.memory_mib(first=True), load.memory_mib(first=False)
    ours, theirs = max(load.samples_mib), started.memory_mib(first=False)
    return [
        Figure(
            f"managed: {name}, possible / sustained",
            possible / load.per_s,
            "x",
            1 / TO_POSSIBLE[name],
            count,
            f"{load.per_s:.1f} of {possible:.1f} events/s in {load.duration_s:.0f} s; "
            f"bare {statistics.mean(bare_s) * 1000:.1f} ms of CPU, "
            f"ours {load.cpu_s / count * 1000:.1f}",
        ),
        Figure(
            f"managed: {name}, memory / exec's",
            late / theirs,
            "x",
            MEMORY_TO_EXEC,
            len(load.samples_mib),
            f"{late:.0f} / {theirs:.0f} MiB",
        ),
        # The first events have processes of their own start.
        Figure(
            f"managed: {name}, memory at most / exec's",
            ours / theirs,
            "x",
            None,
            len(load.samples_mib),
            f"{ours:.0f} / {theirs:.0f} MiB",
        ),
        Figure(
            f"managed: {name}, memory late / early",
            late / early,
            "x",
            MEMORY_GROWTH,
            len(load.samples_mib),
            f"{early:.0f} then {late:.0f} MiB",
        ),
    ]


def _echo() -> Subject:
    return Subject(variables={"LAMBDA_TASK_ROOT": str(HANDLERS)})


def _bundle(scratch: Path, function: Function) -> Subject:
    found = find_handler(str(function.task_root), function.handler)
    program = scratch / "bare-bundle.mjs"
    program.write_text(
        f"""import {{ {found.export} }} from "{file_url(found.path)}";
console.log(JSON.stringify(await {found.export}({{ n: 0 }})));
""",
        encoding="utf-8",
    )
    return Subject(
        "bundle",
        {"LAMBDA_TASK_ROOT": str(function.task_root), "_HANDLER": function.handler},
        b'{"ok":true,"n":%d,"routes":1}',
        program,
        BUNDLE_BARE_RUNS,
    )
