"""How long the commands take between which a developer waits: build, invoke, deploy.

All are processes of their own, timed from start to exit, in turns: ``deno bundle`` of
the project, a ``deno run`` of that bundle with a full cache, a first build (in an empty
folder; the modules are in Deno's cache), a second one of unchanged files, ``invoke`` of
an empty handler and a bare ``deno run`` of it, and a ``deploy`` without changes against
moto on a loopback port. The first turn is discarded. Reproduce with ``python -m bench
building``; on a quiet machine, as the build uses both cores and ``deno bundle`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

from tests.fixtures.aws import aws_stand_in

from bench.contestants import DENO, HERE
from bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TURNS = 7
COMMAND = [sys.executable, "-m", "lambda_deno_spawn"]
DENO_S_BUNDLE = "theirs.js"


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Run each command ``events`` times, in turns."""
    turns = events or TURNS
    project, empty = _projects(scratch)
    with aws_stand_in() as aws:
        environ = {
            **{name: text for name, text in os.environ.items() if name[:4] != "AWS_"},
            **aws,
            "DENO_NO_UPDATE_CHECK": "1",
            # As installed by pip: with byte code.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(scratch / "pycache"),
        }
        _write_layers(scratch / "deployed")
        commands = _commands(project, empty, scratch)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(turns + 1):
            shutil.rmtree(scratch / "built", ignore_errors=True)
            for name, command in commands.items():
                times[name].append(_seconds(command, project, environ))
    s = {name: statistics.median(samples[1:]) for name, samples in times.items()}
    pair = s["deno bundle"] + s["deno run"]

    def figure(name: str, value: float, detail: str) -> Figure:
        return Figure(f"building: {name}", value, "x", None, turns, detail)

    return [
        figure(
            "first build / deno bundle and a cached load",
            s["first build"] / pair,
            f"{s['first build']:.2f} s / ({s['deno bundle']:.2f} s + "
            f"{s['deno run']:.2f} s)",
        ),
        figure(
            "second build / first build",
            s["second build"] / s["first build"],
            f"{s['second build']:.2f} s / {s['first build']:.2f} s",
        ),
        figure(
            "invoke / bare deno run",
            s["invoke"] / s["bare"],
            f"{s['invoke']:.2f} s / {s['bare']:.2f} s",
        ),
        Figure("building: --version", s["version"], "s", None, turns),
        Figure("building: deploy without changes", s["deploy"], "s", None, turns),
    ]


def _projects(scratch: Path) -> tuple[Path, Path]:
    """Copy the project out of this repository, and write an empty one."""
    project = scratch / "project"
    shutil.copytree(HERE / "bundle", project)
    empty = scratch / "empty"
    empty.mkdir()
    (empty / "function.js").write_text("export const handler = () => 1;\n")
    return project, empty


def _commands(project: Path, empty: Path, scratch: Path) -> dict[str, Sequence[str]]:
    module, bundle = str(project / "function.ts"), str(scratch / DENO_S_BUNDLE)
    build = [*COMMAND, "build", str(project), "--out", str(scratch / "built")]
    deploy = [*COMMAND, "deploy", str(project), "--out", str(scratch / "deployed")]
    return {
        "deno bundle": [DENO, "bundle", "--quiet", "--platform=deno", "--format=esm",
                        "--sourcemap=linked", "-o", bundle, module],
        "deno run": [DENO, "run", "--quiet", "--no-config", "-A", bundle],
        "first build": build,
        "second build": build,
        "bare": [DENO, "run", "--quiet", "--no-config", str(empty / "function.js")],
        "invoke": [*COMMAND, "invoke", str(empty)],
        "version": [*COMMAND, "--version"],
        "deploy": [*deploy, "--yes"],
    }  # fmt: skip


def _seconds(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> float:
    started_s = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    elapsed_s = time.perf_counter() - started_s
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return elapsed_s


def _write_layers(out: Path) -> None:
    """Write layers without content: a deployment compares their digests only."""
    out.mkdir()
    entries = []
    for kind in ("deno", "runtime"):
        name = f"lambda-deno-spawn-{kind}-x86_64"
        path = out / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(kind), kind)
        content = path.read_bytes()
        entries.append(
            {
                "kind": kind,
                "name": name,
                "arch": "x86_64",
                "file": path.name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "zippedBytes": len(content),
                "unzippedBytes": len(kind),
                "pythons": ["3.13"] if kind == "runtime" else [],
                "deno": "2.9.8" if kind == "deno" else None,
                "version": "0.1.0",
                "compatibleRuntimes": ["python3.13", "provided.al2023"],
                "licenses": "MIT",
            }
        )
    (out / "layers.json").write_text(json.dumps(entries))
