"""The wheel as people install it: into an empty environment, without any extra."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.package.interpreter import search_interpreter
from tests.release.packages import broken_links

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.14", "3.13", "3.12", "3.11")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        # Neither this environment nor its programs.
        env={**os.environ, "PATH": "/usr/bin:/bin", "VIRTUAL_ENV": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
    ]
    run(*build, "--wheel-dir", folder, ROOT, cwd=folder)
    [found] = folder.glob("*.whl")
    return found


@pytest.mark.long
def test_command_needs_no_extra_and_the_old_one_is_accepted(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        fields = email.message_from_bytes(archive.read(metadata))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = fields.get_all("Requires-Dist") or []
    assert len(required) == len(project["dependencies"])
    assert not [item for item in required if "extra" in item]
    assert fields.get_all("Provides-Extra") == ["cli"]
    description = str(fields.get_payload())
    assert f"/v{__version__}/docs/" in description
    assert not list(broken_links(description))
    package = ROOT / "src" / "lambda_deno_spawn"
    for folder in ("samples", "templates"):
        files = [*(package / "dev" / "project" / folder).rglob("*")]
        assert {
            path.relative_to(package.parent).as_posix()
            for path in files
            if path.is_file()
        } <= {*names}


@pytest.mark.long
def test_empty_environment_gets_a_command_that_works(
    wheel: Path, tmp_path: Path
) -> None:
    found = (search_interpreter(version, os.environ) for version in PYTHONS)
    python = next(item for item in found if item is not None)
    run(python.path, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    install: list[str | Path] = [programs / "python", "-m", "pip", "install", "--quiet"]
    locked = ("--require-hashes", "--no-deps", "--requirement", ROOT / "locks/cli.txt")
    run(*install, *locked, cwd=tmp_path)
    run(*install, wheel, cwd=tmp_path)
    command = programs / "lambda-deno-spawn"
    assert run(command, "--version", cwd=tmp_path).startswith("lambda-deno-spawn ")
    following = run(command, "new", "orders", cwd=tmp_path).partition("Next:\n")[2]
    assert following.splitlines()[1:] == [
        f"  {command} invoke . --event @events/greeting.json",
        f"  {command} deno task test",
    ]
    project = tmp_path / "orders"
    event = "@events/greeting.json"
    out = run(command, "invoke", ".", "--event", event, cwd=project)
    assert json.loads(out)["message"] == "Hello Ada"
    assert "passed" in run(command, "deno", "task", "test", cwd=project)
