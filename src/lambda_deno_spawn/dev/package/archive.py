"""Zip archives whose bytes depend on nothing but the names and contents of their files.

Knows the zip format's freedoms (order, times, owners, modes) and leaves none of them
open: the same members give the same bytes on any day, in any folder, for any user, as
long as Python's zlib is the same. Refuses to know what an archive is for. Only whole
archives appear under their name. Specification: APPNOTE.TXT of PKWARE, sections 4.3
and 4.4; AWS Lambda Developer Guide, "Deploy Python Lambda functions with .zip file
archives" (permissions).
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

EXECUTABLE = 0o755
READABLE = 0o644  # Lambda's user is neither owner nor group of a file
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
UNIX = 3  # "version made by", APPNOTE 4.4.2.2: the attributes are a Unix mode
# zlib's default. 9 makes Deno's binary 0.3 % smaller and takes more than twice as long.
LEVEL = 6


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Path inside, with ``/``, relative.
        content: Its bytes, or the file that holds them, read when it is written.
        mode: Permission bits; with ``stat.S_IFLNK`` it is a link, to its content.
    """

    name: str
    content: bytes | Path
    mode: int = READABLE


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written.

    Attributes:
        unzipped_bytes: Sum of its files, as Lambda counts it.
        sha256: In hexadecimal.
    """

    path: Path
    zipped_bytes: int
    unzipped_bytes: int
    sha256: str


def write_archive(path: Path, members: Iterable[Member]) -> Written:
    """Write an archive, replacing the one that is there; its folder is made if needed.

    Args:
        path: Where it is to lie.
        members: In any order.

    Raises:
        BuildError: A member cannot be read, or the archive cannot be written.
        ValueError: Two members have one name, or a name is no relative path.
    """
    ordered = sorted(members, key=lambda member: member.name)
    _check_names(ordered)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot("make folder", path.parent, error) from error
    # In the same folder, as a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        unzipped_bytes = _write(partial, ordered)
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        zipped_bytes = partial.stat().st_size
        partial.replace(path)
    except OSError as error:
        raise _cannot("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return Written(path, zipped_bytes, unzipped_bytes, sha256)


def write_text(path: Path, text: str) -> None:
    """Write a text file all at once, replacing the one that is there.

    Raises:
        BuildError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise _cannot("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _write(path: Path, members: list[Member]) -> int:
    unzipped_bytes = 0
    # "x": a file that is there is not ours, however unlikely.
    with (
        path.open("xb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for member in members:
            info = zipfile.ZipInfo(member.name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = UNIX
            kind = stat.S_IFMT(member.mode) or stat.S_IFREG
            info.external_attr = (kind | stat.S_IMODE(member.mode)) << 16
            content = _content(member)
            archive.writestr(info, content, compresslevel=LEVEL)
            unzipped_bytes += len(content)
    return unzipped_bytes


def _content(member: Member) -> bytes:
    if isinstance(member.content, bytes):
        return member.content
    try:
        return member.content.read_bytes()
    except OSError as error:
        raise _cannot("read", member.content, error) from error


def _check_names(members: list[Member]) -> None:
    """Refuse what would be unpacked elsewhere, or over another file."""
    seen: set[str] = set()
    for member in members:
        parts = member.name.split("/")
        if "" in parts or "." in parts or ".." in parts or "\\" in member.name:
            raise ValueError(f"Cannot archive {member.name!r}: it is no relative path")
        if member.name in seen:
            raise ValueError(f"Cannot archive {member.name!r}: it is there twice")
        seen.add(member.name)


def _cannot(verb: str, path: Path, error: OSError) -> BuildError:
    return BuildError(f"Cannot {verb} {str(path)!r}: {error.strerror or error}")
