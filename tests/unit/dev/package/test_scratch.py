"""Unfinished files: gone after a failure, a kill, and never while they are in use."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.package.scratch import (
    LOCKED,
    partial_file,
    partial_folder,
    remove,
    scratch_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLED = """
import os, signal, sys
from pathlib import Path
from lambda_deno_spawn.dev.package.scratch import *
path = Path(sys.argv[1]) / "result"
with scratch_folder() as scratch, partial_folder(path.with_name("folder")) as folder:
    with partial_file(path) as partial:
        for place in (Path(scratch) / "deep", folder / "deep"):
            place.mkdir()
            (place / "file").write_bytes(b"x")
        partial.write_bytes(b"half")
        place.chmod(0o500)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is also that for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_what_a_killed_command_has_left_is_removed_by_the_next(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 3
    foreign = folder / "lambda-deno-spawn-abcdefgh"  # of a version without locks
    foreign.mkdir()
    with (
        scratch_folder() as scratch,
        partial_folder(folder / "folder") as whole,
        partial_file(folder / "result") as partial,
    ):
        names = {Path(scratch).name, whole.name, partial.name, foreign.name}
        assert {path.name for path in folder.iterdir()} == names
        partial.write_text("whole")
    assert sorted(folder.iterdir()) == [foreign, folder / "result"]
    assert (folder / "result").read_text() == "whole"


def test_a_folder_of_a_command_that_locks_nothing_stays(folder: Path) -> None:
    """Of 1,369 runs of `invoke` one had a name that another command took for its own.

    It removed the folder, which stood for ``/tmp``, while the function ran.
    """
    # With each character that ``tempfile`` may choose in the place of the second one.
    with scratch_folder() as scratch:
        own = Path(scratch).name
    at = own.index(LOCKED) + 1
    names = tempfile._RandomNameSequence.characters  # type: ignore[attr-defined]
    folders = [folder / f"{own[:at]}{letter}{own[at + 1 :]}" for letter in names]
    for path in folders:
        path.mkdir()
    with scratch_folder():
        pass
    assert sorted(folder.iterdir()) == sorted(folders)


def test_what_is_in_use_stays(folder: Path) -> None:
    with scratch_folder() as one, partial_file(folder / "x") as first:
        with scratch_folder() as other, partial_file(folder / "x") as second:
            assert one != other
            assert first != second
            second.write_text("2")
        assert Path(one).is_dir()
        assert not Path(other).exists()
        assert (folder / "x").read_text() == "2"
        first.write_text("1")
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert (folder / "x").read_text() == "1"


def test_file_that_fails_does_not_appear(folder: Path) -> None:
    (folder / "x").write_text("before")

    def fail() -> None:
        with partial_file(folder / "x") as partial:
            partial.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert (folder / "x").read_text() == "before"


def test_names_are_taken_as_they_are(folder: Path) -> None:
    """A pattern in a name must not reach other files."""
    other = folder / ".x1.0.partial"
    other.write_text("another's")
    with partial_file(folder / "x[0-9]") as partial:
        partial.touch()
    assert other.exists()
    link = folder / ".y.0.partial"
    link.symlink_to(other)
    with partial_file(folder / "y"):
        pass
    assert link.is_symlink()
    assert other.exists()
    assert link.readlink() == other


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder"])
def test_what_another_command_removes_before_it_is_locked_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    """Of two deployments of an image at once, one could not write its layout."""
    removed: list[Path] = []
    name = "touch" if is_file else "mkdir"
    make = getattr(Path, name)

    def make_and_lose(path: Path, *arguments: Any, **options: Any) -> None:
        make(path, *arguments, **options)
        if not removed:
            removed.append(path)
            remove(path)

    monkeypatch.setattr(Path, name, make_and_lose)
    make_partial = partial_file if is_file else partial_folder
    with make_partial(folder / "made") as partial:
        assert partial.exists()
        assert [partial] != removed
