"""Commands that are killed by SIGKILL, and repeated: what they leave, and their result.

Each test kills runs at steps spread over the whole command, one after the other in the
same folders, and then lets one finish: its result is that of a run that was never
disturbed, and no temporary file is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.images import write_base, write_small_layers
from tests.fixtures.packages import DENO_DIR, fetch_bundler
from tests.fixtures.registry import programs, registry
from tests.lambda_root import ROOT

if TYPE_CHECKING:
    from tests.fixtures.cloud import Cloud

pytestmark = [pytest.mark.deno, pytest.mark.long]
ARCH = Arch.here()
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of a command: its working folder, temporary files, cache."""

    folder: Path

    def run(self, step: int, *arguments: str, is_writes_only: bool = False) -> Any:
        """Run a command; return what it prints as JSON, or None if it was killed."""
        mode = ["--writes-only"] if is_writes_only else []
        for name in ("tmp", "cache"):
            (self.folder / name).mkdir(exist_ok=True)
        counted = self.folder / "steps"
        done = subprocess.run(
            [sys.executable, "-m", "tests.killed", *mode, str(step), counted,
             *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(self.folder / "tmp"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                "DENO_DIR": str(DENO_DIR),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )  # fmt: skip
        if step and done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    @property
    def steps(self) -> int:
        return int((self.folder / "steps").read_text())

    def leftovers(self) -> list[str]:
        """Return the temporary files and the unfinished ones."""
        temporary = list((self.folder / "tmp").iterdir())
        unfinished = [
            path
            for name in ("dist", "cache")
            for path in (self.folder / name).rglob("*")
            if path.name.endswith(".partial")
        ]
        scratch = (self.folder / "cache").rglob("lambda-deno-spawn-*")
        return [str(path) for path in (*temporary, *unfinished, *scratch)]


def spread(count: int, total: int) -> list[int]:
    """Return numbers of steps, spread over all of them, the last one included."""
    return sorted({1 + (total - 1) * number // (count - 1) for number in range(count)})


def write_project(folder: Path, text: str) -> None:
    (folder / "orders").mkdir(parents=True, exist_ok=True)
    code = f"export const handler = () => {json.dumps(text)};\n"
    (folder / "orders" / "function.js").write_text(code)
    toml = f'runtime = "provided.al2023"\narch = "{ARCH}"\n'
    (folder / "orders" / "lambda.toml").write_text(toml)


def prepared(folder: Path) -> Place:
    fetch_bundler()
    write_project(folder, "the same")
    write_small_layers(folder / "dist", ARCH)
    write_base(folder / "base", [Member("etc/x", b"x" * 100_000)], ARCH)
    return Place(folder)


def test_killed_image_build_is_repeated(tmp_path: Path) -> None:
    programs_root = programs()
    if programs_root is None:
        pytest.skip("Debian's package docker-registry cannot be downloaded")
    with registry(programs_root, tmp_path) as port:
        command = (
            "build", "orders", "--image", "--base", "base", "--tar", "dist/orders.tar",
            "-o", "json", "--push",
        )  # fmt: skip
        whole = prepared(tmp_path / "whole")
        expected = whole.run(0, *command, f"127.0.0.1:{port}/whole:v1")
        assert whole.leftovers() == []
        place = prepared(tmp_path / "killed")
        steps = spread(7, whole.steps)
        ends = []
        for number, step in enumerate(steps):
            # Other code for each, or what an earlier run has built would be used.
            write_project(place.folder, f"code {number}")
            name = f"127.0.0.1:{port}/killed:v{number}"
            ends.append(place.run(step, *command, name))
        assert ends.count(None) >= len(steps) - 2, "they were to be killed"
        write_project(place.folder, "the same")
        found = place.run(0, *command, f"127.0.0.1:{port}/killed:v1")
        assert found["digest"] == expected["digest"]
        tars = [(one.folder / "dist/orders.tar").read_bytes() for one in (whole, place)]
        assert tars[0] == tars[1]
        assert place.leftovers() == []


def test_killed_layer_build_is_repeated(tmp_path: Path) -> None:
    command = ("layer", "build", "--kind", "runtime", "-o", "json")
    wheels = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    whole, place = Place(tmp_path / "whole"), Place(tmp_path / "killed")
    for one in (whole, place):
        one.folder.mkdir()
        known = wheels / "lambda-deno-spawn" / "wheels"
        if known.is_dir():  # nothing has to be downloaded
            shutil.copytree(known, one.folder / "cache/lambda-deno-spawn/wheels")
    expected = whole.run(0, *command)
    for step in spread(4, whole.steps):
        place.run(step, *command)
    assert place.run(0, *command) == expected
    assert place.leftovers() == []


def test_killed_deployment_is_repeated(empty_cloud: Cloud) -> None:
    """Of an image's function, from the build to its alias."""
    programs_root = programs()
    if programs_root is None:
        pytest.skip("Debian's package docker-registry cannot be downloaded")
    place = prepared(empty_cloud.folder)
    toml = place.folder / "orders" / "lambda.toml"
    toml.write_text(f'{toml.read_text()}alias = "live"\nreserved_concurrency = 3\n')
    command = ("deploy", "orders", "--image", "--base", "base", "-o", "json", "--yes")
    with (
        registry(programs_root, empty_cloud.folder) as port,
        empty_cloud.at_registry(port),
    ):
        killed = 0
        # Each run is killed before its sixth request that writes, so it does five.
        while place.run(6, *command, is_writes_only=True) is None:
            killed += 1
        assert killed >= 2
        assert place.run(0, *command)["changed"] is False
        function = empty_cloud.function("orders")
        assert function["PackageType"] == "Image"
        client = empty_cloud.client("lambda")
        alias = client.get_alias(FunctionName="orders", Name="live")
        assert alias["FunctionVersion"] == "1"
        assert place.leftovers() == []
