"""The first invocation in a new environment, from start to response.

Layers and a package, built with our commands, are mounted read-only at Lambda's paths,
with an empty ``/tmp`` each time; see ``tests/lambda_root.py``. Timed from the exec of
the runtime's start script to the last byte of the response; the event is available from
the start. The baseline is a bare ``deno run`` of the same bundle at the same path, from
exec to exit, with and without the package's cache. Starts alternate; the first one of
each is discarded. Needs root; reproduce with ``python -m bench firststart``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from tests.integration.test_as_deployed import unzip
from tests.lambda_root import ROOT, STARTED_FD, LambdaRoot

from bench.contestants import HERE, deno_environ
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.runtime_api import RuntimeApi
from lambda_deno_spawn.dev.package.build import BuildOptions, build
from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from lambda_deno_spawn.dev.package.layer import Kind, LayerOptions, build_layers
from lambda_deno_spawn.dev.project.project import Arch, load_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STARTS = 25
PYTHON = "3.13"
SEEDED_TO_UNSEEDED = 0.65
SEEDED_TO_BARE = 1.2


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Start each contestant ``events`` times, alternately."""
    if os.geteuid() != 0:
        print("firststart: needs root to show files where Lambda has them; left out")
        return []
    count = events or STARTS
    places = _build(scratch)
    times: dict[str, list[float]] = {}
    for _ in range(count + 1):
        for name, root in places.items():
            times.setdefault(name, []).append(await _invoke(root, scratch))
            bare = f"bare, {name}"
            times.setdefault(bare, []).append(_run_bare(root, name == "seeded"))
    shutil.rmtree(scratch / "opt")
    ms = {name: statistics.median(samples[1:]) for name, samples in times.items()}

    def figure(name: str, one: str, other: str, target: float | None) -> Figure:
        detail = f"{ms[one]:.0f} ms / {ms[other]:.0f} ms"
        return Figure(
            f"firststart: {name}", ms[one] / ms[other], "x", target, count, detail
        )

    return [
        figure("with / without cache", "seeded", "unseeded", SEEDED_TO_UNSEEDED),
        figure("with cache / bare, with it", "seeded", "bare, seeded", SEEDED_TO_BARE),
        figure("with cache / bare, without", "seeded", "bare, unseeded", None),
    ]


def _build(scratch: Path) -> dict[str, LambdaRoot]:
    arch = Arch.here()
    kinds = (Kind.DENO, Kind.RUNTIME)
    build_layers(LayerOptions(scratch, os.environ, kinds, (arch,), pythons=(PYTHON,)))
    zips = [scratch / f"{kind.value}-layer-{arch.value}.zip" for kind in kinds]
    opt = unzip(zips, scratch / "opt")
    lang = find_interpreter(PYTHON, os.environ).path.resolve().parent.parent
    roots = {}
    for name in ("seeded", "unseeded"):
        options = BuildOptions(
            load_project(HERE / "bundle", name=name),
            arch,
            scratch,
            is_seeded=name == "seeded",
        )
        task = unzip([build(options, os.environ).path], scratch / name)
        roots[name] = LambdaRoot({"/opt": opt, "/var/task": task, "/var/lang": lang})
    return roots


async def _invoke(root: LambdaRoot, scratch: Path) -> float:
    """Return milliseconds from exec to response."""
    async with RuntimeApi() as api:
        interpreter = f"/var/lang/bin/python{PYTHON}"
        environ = {
            **_environ(scratch),
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "_HANDLER": "function.handler",
        }
        process, started_at_s = await asyncio.to_thread(
            _start, root, ["/opt/lambda-deno-spawn", interpreter], environ
        )
        try:
            response = await api.invoke(b'{"n":1}')
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
    if response.body != b'{"ok":true,"n":1,"routes":1}':
        raise RuntimeError(f"Wrong response: {response.body[:500]!r}")
    return (response.received_at_s - started_at_s) * 1000


def _run_bare(root: LambdaRoot, is_seeded: bool) -> float:
    """Return milliseconds from exec to exit."""
    folder = "/var/task/.deno_dir" if is_seeded else "/tmp/deno"
    environ = {"DENO_DIR": folder, "DENO_NO_UPDATE_CHECK": "1", "HOME": "/tmp"}
    command = ["/opt/bin/deno", "run", "--no-config", "--quiet", "-A"]
    process, started_at_s = _start(
        root, [*command, "/var/task/function.bundle.js"], environ
    )
    if process.wait() != 0:
        raise RuntimeError(f"Deno ended with exit code {process.returncode}")
    return (time.perf_counter() - started_at_s) * 1000


def _start(
    root: LambdaRoot, argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], float]:
    """Start a command in the environment; return it and the time of its exec."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stamp:
        process = subprocess.Popen(
            root.command(argv),
            cwd=ROOT,
            env={**environ, STARTED_FD: str(writer)},
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(writer)
        started_ns = int(stamp.read())
    return process, started_ns / 1e9


def _environ(scratch: Path) -> dict[str, str]:
    """Return the variables that Lambda sets."""
    variables = deno_environ(scratch)
    del variables["DENO_DIR"]
    return {
        **variables,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LD_LIBRARY_PATH": "/var/lang/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "TMPDIR": "/tmp",
    }
