"""Reproducible zip archives: equal names and contents give equal bytes.

Knows everything that the zip format leaves open (order, times, owners, modes) and fixes
it: the bytes do not depend on day, folder or user, only on Python's zlib. Does not know
the purpose of an archive. An archive appears under its name only when it is complete.
Specification: APPNOTE.TXT of PKWARE, sections 4.3
and 4.4; AWS Lambda Developer Guide, "Deploy Python Lambda functions with .zip file
archives" (permissions).
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lambda_deno_spawn.dev.package.scratch import partial_file
from lambda_deno_spawn.dev.project.selection import OWN_ARCHIVE
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

EXECUTABLE = 0o755
READABLE = 0o644  # Lambda's user is neither owner nor group of a file
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in the zip format
UNIX = 3  # "version made by", APPNOTE 4.4.2.2: the attributes are a Unix mode
# zlib's default. 9 makes Deno's binary 0.3 % smaller and takes more than twice as long.
LEVEL = 6
# For archives that a developer waits for: a third less time than 6, and 2 % larger.
QUICK_LEVEL = 5


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Relative path in the archive, with ``/``; a folder's ends with one.
        content: Its bytes, or a file to read when the archive is written.
        mode: Permission bits; with ``stat.S_IFLNK`` a link, whose target is the
            content; with ``stat.S_IFDIR`` a folder.
    """

    name: str
    content: bytes | Path
    mode: int = READABLE


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written.

    Attributes:
        unzipped_bytes: Total size of its files, as Lambda counts it.
        sha256: Digest of the zip, in hexadecimal.
    """

    path: Path
    zipped_bytes: int
    unzipped_bytes: int
    sha256: str


def write_archive(
    path: Path,
    members: Iterable[Member],
    begun: Written | None = None,
    *,
    level: int = LEVEL,
) -> Written:
    """Write an archive, replacing an existing one; create its folder if needed.

    Args:
        path: Path of the archive.
        members: Its files, in any order.
        begun: An archive with its first files, which stays as it is.
        level: Level of compression, as for zlib.

    Raises:
        BuildError: A member cannot be read, or the archive cannot be written.
        ValueError: Two members have the same name, or a name is not a relative path.
    """
    ordered = sorted(members, key=lambda member: member.name)
    _check_names(ordered, begun)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot("create folder", path.parent, error) from error
    try:
        with partial_file(path) as partial:
            unzipped_bytes = 0
            if begun is not None:
                shutil.copyfile(begun.path, partial)
                unzipped_bytes = begun.unzipped_bytes
            unzipped_bytes += _write(
                partial, ordered, "w" if begun is None else "a", level
            )
            with partial.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            zipped_bytes = partial.stat().st_size
    except OSError as error:
        raise _cannot("write", path, error) from error
    return Written(path, zipped_bytes, unzipped_bytes, sha256)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, replacing an existing one.

    Raises:
        BuildError: The file cannot be written.
    """
    try:
        with partial_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot("write", path, error) from error


def _write(
    path: Path, members: list[Member], mode: Literal["w", "a"], level: int
) -> int:
    unzipped_bytes = 0
    with zipfile.ZipFile(path, mode, zipfile.ZIP_DEFLATED) as archive:
        archive.comment = OWN_ARCHIVE
        for member in members:
            info = zipfile.ZipInfo(member.name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = UNIX
            kind = stat.S_IFMT(member.mode) or stat.S_IFREG
            info.external_attr = (kind | stat.S_IMODE(member.mode)) << 16
            content = _content(member)
            archive.writestr(info, content, compresslevel=level)
            unzipped_bytes += len(content)
    return unzipped_bytes


def _content(member: Member) -> bytes:
    if isinstance(member.content, bytes):
        return member.content
    try:
        return member.content.read_bytes()
    except OSError as error:
        raise _cannot("read", member.content, error) from error


def _check_names(members: list[Member], begun: Written | None) -> None:
    """Reject names that would be unpacked outside the folder, or over another file."""
    seen: set[str] = set()
    if begun is not None:
        with zipfile.ZipFile(begun.path) as archive:
            seen.update(archive.namelist())
    for member in members:
        name = member.name
        parts = (name.removesuffix("/") if stat.S_ISDIR(member.mode) else name).split(
            "/"
        )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"Cannot archive {name!r}: its name is not UTF-8; rename it, or leave "
                "it out"
            ) from None
        if "" in parts or "." in parts or ".." in parts or "\\" in member.name:
            raise ValueError(
                f"Cannot archive {member.name!r}: its name is not a relative path"
            )
        if member.name in seen:
            raise ValueError(f"Cannot archive {member.name!r}: the name occurs twice")
        seen.add(member.name)


def _cannot(verb: str, path: Path, error: OSError) -> BuildError:
    is_closed = error.errno in (errno.EROFS, errno.EACCES) and verb != "read"
    advice = "; name another folder with --out" if is_closed else ""
    return BuildError(f"Cannot {verb} {str(path)!r}: {error.strerror or error}{advice}")
