"""When a package is the same as the last one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.record import (
    Inputs,
    is_current,
    key_of,
    now_ns,
    observe,
    read_record,
    record_path,
    write_record,
)

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {"handler": "function.handler"}
SECOND = 1_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a package."""
    root = tmp_path / "project"
    (root / "lib" / "deep").mkdir(parents=True)
    for name in ("function.ts", "lib/deep/a.ts"):
        (root / name).write_text("a")
    (root / "dist").mkdir()
    (root / "dist" / "name.zip").write_bytes(b"PK")
    return root


def recorded(root: Path, started_ns: int | None = None) -> Path:
    package = root / "dist" / "name.zip"
    files = [root / "function.ts", root / "lib" / "deep" / "a.ts"]
    inputs = Inputs({root, *files}, {root / "node_modules" / "a"})
    # As if the build had begun long after the files were written.
    observed = observe(package, inputs, root)
    started_ns = started_ns or now_ns() + SECOND
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    write_record(package, "key", observed, started_ns, FACTS, sha256=sha256)
    return package


def test_an_unchanged_package_is_known(root: Path) -> None:
    package = recorded(root)
    assert read_record(package, "key") == FACTS
    assert read_record(package, "other") is None
    assert is_current(package)
    # Neither the build's own folder nor other projects are a change.
    (root / "dist" / "other.zip").touch()
    (root.parent / "other").mkdir()
    assert read_record(package, "key") == FACTS


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "function.ts").write_text("b"),
        lambda root: (root / "function.ts").unlink(),
        lambda root: (root / "function.ts").chmod(0o755),
        lambda root: (root / "lib" / "deep" / "b.ts").touch(),
        lambda root: (root / "lib" / "new").mkdir(),
        lambda root: (root / "deno.json").touch(),
        lambda root: (root.parent / "package.json").touch(),
        lambda root: (root / "dist" / "name.zip").write_bytes(b""),
        lambda root: (root / "dist" / "name.zip").unlink(),
        lambda root: record_path(root / "dist" / "name.zip").write_text("["),
        lambda root: record_path(root / "dist" / "name.zip").write_text("{}"),
    ],
)  # fmt: skip
def test_a_change_is_noticed(root: Path, change: object) -> None:
    package = recorded(root)
    assert callable(change)
    change(root)
    assert read_record(package, "key") is None
    assert not is_current(package)


def test_files_that_may_still_change_are_not_recorded(root: Path) -> None:
    written_ns = (root / "function.ts").stat().st_ctime_ns
    assert read_record(recorded(root, started_ns=written_ns), "key") is None


def test_the_key_depends_on_every_fact() -> None:
    assert key_of(a=1, b="x") == key_of(b="x", a=1)
    assert key_of(a=1, b="x") != key_of(a=1, b="y")
