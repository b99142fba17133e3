"""``build --image``: what is in an image, and that it runs where nothing else is.

The base is made of this machine's C library; AWS's emulator starts the image as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
import pytest
from deno import find_deno_bin

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.package.image import EMULATOR, ENTRY
from lambda_deno_spawn.dev.package.oci import read_layout
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.command import run_command
from tests.fixtures.images import (
    libraries_of,
    unpack,
    write_base,
    write_small_layers,
)
from tests.fixtures.layers import layer_python
from tests.fixtures.packages import DENO_DIR, fetch_bundler
from tests.integration.rie import MARK, running_rie
from tests.lambda_root import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.rie import Rie

# The first test builds the layers, which takes half a minute on two cores.
pytestmark = pytest.mark.deno

ARCH = Arch.here()
OTHER = next(arch for arch in Arch if arch is not ARCH)
EXAMPLES = ROOT / "examples"
READ_TIMEOUT_S = 120.0
SKELETON = ("tmp/", "proc/", "dev/", "etc/")


def skeleton() -> list[Member]:
    return [Member(name.rstrip("/"), b"", 0o40755) for name in SKELETON]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> Path:
    """A base with a C library, and the libraries that the interpreter needs."""
    prefix = layer_python().path.resolve().parents[1]
    programs = [Path(find_deno_bin()), layer_python().path.resolve()]
    programs += prefix.glob("lib/python3.*/lib-dynload/*.so")
    members = [*skeleton(), *libraries_of(programs)]
    folder = tmp_path_factory.mktemp("base") / "base"
    return write_base(folder, members, ARCH, LANG="C.UTF-8", PATH="/usr/bin:/bin")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> Path:
    """An output folder with the layers."""
    folder = tmp_path_factory.mktemp("out")
    for file in layers.iterdir():
        (folder / file.name).hardlink_to(file)
    return folder


@pytest.fixture
def small_out(tmp_path: Path) -> Path:
    """An output folder with layers that contain next to nothing."""
    return write_small_layers(tmp_path / "small", ARCH)


def build(project: Path, base: Path, out: Path, *options: str, code: int = 0) -> Any:
    """Build an image; return what the command prints, or its error."""
    fetch_bundler()
    environ = {**os.environ, "DENO_DIR": str(DENO_DIR)}
    done = run_command(
        "build", project, "--image", "--base", base, "--out", out, "-o", "json",
        *options, limit_s=200,
        environ={**environ, "XDG_CACHE_HOME": str(out / "cache")},
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    return done.stderr.decode() if code else json.loads(done.stdout)


def write_project(folder: Path, toml: str = "") -> Path:
    folder.mkdir()
    text = 'export const handler = (event) => ({ event, who: Deno.env.get("WHO") });'
    (folder / "function.js").write_text(text)
    own = f'runtime = "provided.al2023"\narch = "{ARCH}"\n'
    (folder / "lambda.toml").write_text(f'{own}{toml}\n[env]\nWHO = "ada"\n')
    return folder


@contextmanager
def running(
    rie_binary: Path, root: Path, config: dict[str, Any], log: Path
) -> Iterator[Rie]:
    """Run an image under AWS's emulator, which lies in it like in AWS's images."""
    emulator = root / EMULATOR.lstrip("/")
    emulator.parent.mkdir(parents=True, exist_ok=True)
    emulator.write_bytes(rie_binary.read_bytes())
    emulator.chmod(0o755)

    def start(
        arguments: Sequence[str], output: IO[bytes], mark: str
    ) -> subprocess.Popen[bytes]:
        command = [EMULATOR, *arguments, *config["Entrypoint"], *config["Cmd"]]
        inside = [str(root), config["WorkingDir"], "--", *command]
        given = dict(entry.split("=", 1) for entry in config["Env"])
        return subprocess.Popen(
            [sys.executable, "-m", "tests.image_root", *inside],
            cwd=ROOT,
            env={**given, MARK: mark, "AWS_LAMBDA_FUNCTION_TIMEOUT": "90"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    with running_rie(start, log, read_timeout_s=READ_TIMEOUT_S) as rie:
        try:
            yield rie
        finally:
            assert rie.stop() == []


@pytest.mark.long
@pytest.mark.root
@pytest.mark.rie
def test_image_runs_under_aws_s_emulator(
    rie_binary: Path, base: Path, out: Path, tmp_path: Path
) -> None:
    built = build(write_project(tmp_path / "orders"), base, out)
    assert built["path"] == str(out / "orders.oci")
    image = read_layout(Path(built["path"]), ARCH)
    root = unpack(image, tmp_path / "root")
    config = image.config["config"]
    assert config["Cmd"] == ["function.handler"]
    with running(rie_binary, root, config, tmp_path / "log") as rie:
        for number in range(2):
            answer = rie.invoke({"n": number})
            assert answer == {"event": {"n": number}, "who": "ada"}, rie.log.read_text()


def test_image_is_the_same_wherever_and_whenever_it_is_built(
    small_out: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", skeleton(), ARCH)
    first = build(write_project(tmp_path / "orders"), base, small_out)
    names = sorted(path.name for path in Path(first["path"]).rglob("*"))
    cached = sorted((small_out / "cache" / "lambda-deno-spawn").rglob("*.tar.gz"))
    assert len(cached) == 3
    cached[0].write_bytes(b"damaged, so it is made again")
    (tmp_path / "elsewhere").mkdir()
    second = build(write_project(tmp_path / "elsewhere" / "orders"), base, small_out)
    assert second["digest"] == first["digest"]
    shutil.rmtree(small_out / "cache")
    third = build(tmp_path / "orders", base, small_out)
    assert third["digest"] == first["digest"]
    assert names == sorted(path.name for path in Path(second["path"]).rglob("*"))
    manifest = f"blobs/sha256/{first['digest'].partition(':')[2]}"
    assert (Path(first["path"]) / manifest).is_file()
    config = read_layout(Path(first["path"]), ARCH).config
    assert str(tmp_path) not in orjson.dumps(config).decode()


def test_image_for_the_other_architecture_needs_its_base(
    small_out: Path, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "orders")
    base = write_base(tmp_path / "base", skeleton(), ARCH)
    said = build(project, base, small_out, "--arch", OTHER.value, code=3)
    assert f"for {OTHER.value}: it has " in said


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--base", "base"], 2, "Cannot use --base without --image"),
        (["--push", "localhost:1/x"], 2, "Cannot use --push without --image"),
        (["--image", "--base", "nowhere"], 2, "Cannot use the image 'nowhere'"),
        (["--image", "--base", "."], 3, "it is not an OCI image layout"),
        (["--image", "--push", "x"], 2, "Cannot use the image 'x': expected HOST/NAME"),
    ],
)
def test_what_cannot_be_used_is_named_before_the_build(
    tmp_path: Path, options: list[str], code: int, problem: str
) -> None:
    project = write_project(tmp_path / "orders")
    done = run_command("build", project, *options, cwd=project)
    assert (done.returncode, done.stdout) == (code, b"")
    assert problem in done.stderr.decode()


def test_base_has_to_have_the_interpreter(tmp_path: Path, small_out: Path) -> None:
    project = write_project(tmp_path / "orders")
    (project / "lambda.toml").write_text(f'runtime = "python3.13"\narch = "{ARCH}"\n')
    found = {}
    for folder, version, code in (("usr/bin", "3.11", 3), ("var/lang/bin", "3.13", 0)):
        member = Member(f"{folder}/python{version}", b"", 0o755)
        base = write_base(tmp_path / version, [member], ARCH)
        options = ("--no-bundle", "--no-cache")
        found[version] = build(project, base, small_out, *options, code=code)
    assert "no python3.13 in /var/lang/bin" in found["3.11"]
    assert "it has python3.11; choose another" in found["3.11"]
    assert found["3.13"]["python"] == "/var/lang/bin/python3.13"


def test_entry_becomes_the_emulator_where_no_runtime_api_is(tmp_path: Path) -> None:
    fake = tmp_path / "rie"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    command = [
        sys.executable, "-I", "-S", "-c", ENTRY.replace(EMULATOR, str(fake)), "a.b"
    ]  # fmt: skip
    done = subprocess.run(command, env={}, capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[1:] == command[1:]
    given = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert "No module named 'lambda_deno_spawn'" in done.stderr
