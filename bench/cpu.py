"""CPU time of a complete invocation, including the supervisor.

``off`` starts and ends one Deno process per event. The baseline is a bare ``deno run``
of a module that imports the same handler, calls it once and prints its result. Measures
user and system time of all processes in the contestant's sandbox, in alternating
batches. Reproduce with ``python -m bench cpu``.
"""

from __future__ import annotations

import statistics
import subprocess
from typing import TYPE_CHECKING

from bench.contestants import DENO, HANDLERS, deno_environ, invoke, start
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.sandbox import open_sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.dev.bench.sandbox import Sandbox

EVENTS = 200
BATCH = 10  # CPU time has a resolution of 1 us in a cgroup, else of 10 ms
OFF_TO_BARE = 1.25
BARE = HANDLERS / "bare.mjs"
# The variables that a handler has by default, for a bundle that reads them.
PERMISSIONS = ("--allow-env", "--allow-sys", "--allow-read")


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure ``events`` invocations and as many bare runs, alternately."""
    batches = max(1, (events or EVENTS) // BATCH)
    off_ms: list[float] = []
    bare_ms: list[float] = []
    bare = open_sandbox("bare")
    environ = deno_environ(scratch)
    try:
        run_bare(bare, environ)  # writes the code cache, like our warm-up
        async with start("off", scratch, freezes=False) as contestant:
            for _ in range(batches):
                before_s = contestant.sandbox.cpu_s()
                for n in range(BATCH):
                    await invoke(contestant, n)
                off_ms.append((contestant.sandbox.cpu_s() - before_s) * 1000 / BATCH)
                before_s = bare.cpu_s()
                for _ in range(BATCH):
                    run_bare(bare, environ)
                bare_ms.append((bare.cpu_s() - before_s) * 1000 / BATCH)
    finally:
        bare.close()
    ours, theirs = statistics.median(off_ms), statistics.median(bare_ms)
    return [
        Figure(
            "cpu: off / bare deno run",
            ours / theirs,
            "x",
            OFF_TO_BARE,
            batches * BATCH,
            f"{ours:.2f} ms / {theirs:.2f} ms of CPU",
        )
    ]


def run_bare(sandbox: Sandbox, environ: dict[str, str], program: Path = BARE) -> bytes:
    """Run a baseline once; return what it printed.

    Raises:
        RuntimeError: It failed.
    """
    command = [DENO, "run", "--no-prompt", "-q", *PERMISSIONS, str(program)]
    process = sandbox.start(command, environ, output=subprocess.PIPE)
    printed, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"Bare run exited {process.returncode}: {printed!r}")
    return printed
