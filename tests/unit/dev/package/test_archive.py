"""Archives are reproducible, and appear complete or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import time
import zipfile
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.package.archive import (
    EXECUTABLE,
    Member,
    write_archive,
    write_text,
)
from lambda_deno_spawn.errors import BuildError

MEMBERS = [
    Member("lib/b.py", b"b = 1\n" * 100),
    Member("bootstrap", b"#!/bin/sh\n", EXECUTABLE),
    Member("lib/a.py", b""),
]


class Interrupted(type(Path())):  # type: ignore[misc]
    """A file that raises KeyboardInterrupt when it is read."""

    def read_bytes(self) -> bytes:
        raise KeyboardInterrupt


def test_archive_holds_contents_and_modes_in_the_order_of_names(tmp_path: Path) -> None:
    written = write_archive(tmp_path / "new" / "a.zip", MEMBERS)
    with zipfile.ZipFile(written.path) as archive:
        infos = archive.infolist()
        assert archive.testzip() is None
        assert archive.read("lib/b.py") == b"b = 1\n" * 100
    assert [info.filename for info in infos] == ["bootstrap", "lib/a.py", "lib/b.py"]
    assert [oct(info.external_attr >> 16) for info in infos] == [
        oct(stat.S_IFREG | mode) for mode in (0o755, 0o644, 0o644)
    ]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.create_system for info in infos} == {3}


def test_sizes_and_digest_are_those_of_the_file(tmp_path: Path) -> None:
    written = write_archive(tmp_path / "a.zip", MEMBERS)
    content = written.path.read_bytes()
    assert written.zipped_bytes == len(content)
    assert written.unzipped_bytes == 610
    assert written.sha256 == hashlib.sha256(content).hexdigest()


def test_bytes_do_not_depend_on_order_owner_mask_zone_or_time_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_archive(tmp_path / "a.zip", MEMBERS)
    source = tmp_path / "source.py"
    source.write_bytes(b"b = 1\n" * 100)
    source.chmod(0o600)
    os.utime(source, (1, 1))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    mask = os.umask(0o077)
    try:
        others = [member for member in MEMBERS if member.name != "lib/b.py"]
        members = [*reversed(others), Member("lib/b.py", source)]
        second = write_archive(tmp_path / "other" / "b.zip", members)
    finally:
        os.umask(mask)
        monkeypatch.undo()
        time.tzset()
    assert first.path.read_bytes() == second.path.read_bytes()


def test_archive_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        written = write_archive(tmp_path / "a.zip", MEMBERS)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a/", "a\\b"]
)
def test_name_that_is_not_a_relative_path_is_our_error(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        write_archive(tmp_path / "a.zip", [Member(name, b"")])


def test_name_given_twice_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a': the name occurs twice"):
        write_archive(tmp_path / "a.zip", [Member("a", b"1"), Member("a", b"1")])


def test_missing_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    missing = tmp_path / "missing.js"
    with pytest.raises(BuildError, match=r"read .*missing\.js.*: No such file"):
        write_archive(tmp_path / "a.zip", [*MEMBERS, Member("z", missing)])
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_the_archive_that_was_there(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.zip", MEMBERS).path
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_archive(path, [*MEMBERS, Member("z", Interrupted("z"))])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = os.urandom(100_000)
    # The writer cannot distinguish this limit on file sizes from a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BuildError, match=r"write .*a\.zip.*: File too large"):
            write_archive(tmp_path / "a.zip", [Member("a", content)])
        with pytest.raises(BuildError, match=r"write .*a\.json.*: File too large"):
            write_text(tmp_path / "a.json", "a" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match=r"create folder .*file/dist"):
        write_archive(tmp_path / "file" / "dist" / "a.zip", MEMBERS)


def test_a_folder_has_a_name_with_a_slash(tmp_path: Path) -> None:
    members = [Member("uploads/", b"", stat.S_IFDIR | 0o755), Member("a.txt", b"a")]
    written = write_archive(tmp_path / "name.zip", members)
    with zipfile.ZipFile(written.path) as content:
        assert content.namelist() == ["a.txt", "uploads/"]
        assert content.getinfo("uploads/").is_dir()
        content.extractall(tmp_path / "out")
    assert (tmp_path / "out" / "uploads").is_dir()


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'a\\udcff': its name is not UTF-8"):
        write_archive(tmp_path / "name.zip", [Member("a\udcff", b"")])


def test_archive_is_continued_from_one_that_was_begun(tmp_path: Path) -> None:
    begun = write_archive(
        tmp_path / "begun.zip", [Member("b", b"1"), Member("a", b"2")]
    )
    before = begun.path.read_bytes()
    [first, second] = [
        write_archive(tmp_path / name, [Member(".cache", b"345")], begun)
        for name in ("first.zip", "second.zip")
    ]
    assert begun.path.read_bytes() == before
    assert (first.sha256, first.unzipped_bytes) == (second.sha256, 5)
    with zipfile.ZipFile(first.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a", "b", ".cache"]
        assert archive.read(".cache") == b"345"
    with pytest.raises(ValueError, match="the name occurs twice"):
        write_archive(tmp_path / "third.zip", [Member("a", b"")], begun)
    assert not (tmp_path / "third.zip").exists()
