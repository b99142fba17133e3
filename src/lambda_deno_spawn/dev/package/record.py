"""A record of a package's inputs, so that an unchanged one is not built again.

Knows the state of every file that a build has read, of whole packages, and of the
folders in which a new file would have been found instead. Does not know how a package
is built, nor which files it reads. The record lies beside the package; without it, or
if anything differs, the package is built. Specification: docs/build.md, "A second
build".
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_deno_spawn.dev.project.home import home_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

# Files that change where Deno finds modules, in the folder of a module and above it.
CONFIGURATION = (
    "deno.json", "deno.jsonc", "deno.lock", "package.json", "tsconfig.json", ".npmrc",
    "node_modules", "pnpm-workspace.yaml",
    "registry.json",  # the versions of a package in Deno's cache
)  # fmt: skip
PACKAGES = "node_modules"
# A file that was written this shortly before a build may be written again unnoticed.
CLOCK_STEP_NS = 20_000_000

# Errors of a record that is missing, or is not one of ours.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)

State = list[int | str] | None


class Inputs(NamedTuple):
    """The inputs of a package.

    Attributes:
        files: Files, and folders of which the names count.
        trees: Folders of which every file counts.
    """

    files: set[Path]
    trees: set[Path]


class Observed(NamedTuple):
    """The state of a package's inputs at one time.

    Attributes:
        states: States of files and folders, by their paths.
        trees: Those of whole folders.
        changed_ns: Time of the last change of a file, Unix time.
    """

    states: Mapping[str, State]
    trees: Mapping[str, State]
    changed_ns: int


def record_path(package: Path) -> Path:
    """Return the path of a package's record."""
    return package.with_name(f".{package.stem}.build.json")


def key_of(**facts: object) -> str:
    """Return a digest of what a package depends on beside files."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def read_record(package: Path, key: str) -> dict[str, Any] | None:
    """Return the facts recorded with a package; None: it has to be built.

    Args:
        package: The zip.
        key: The present digest of ``key_of``.
    """
    try:
        record = _read(package)
        facts: dict[str, Any] = record["facts"]
        if record["key"] != key or not _is_unchanged(record, package):
            return None
    except UNREADABLE:
        return None
    return facts


def is_current(package: Path) -> bool:
    """Return whether a package is recorded, and no file has changed since."""
    try:
        return _is_unchanged(_read(package), package)
    except UNREADABLE:
        return False


def _read(package: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(record_path(package).read_text("utf-8"))
    return record


def _is_unchanged(record: Mapping[str, Any], package: Path) -> bool:
    if record["sha256"] != _digest(package):
        return False
    states: Mapping[str, State] = record["states"]
    trees: Mapping[str, State] = record["trees"]
    out = os.path.realpath(package.parent)
    return all(_state(path, out)[0] == state for path, state in states.items()) and all(
        _tree(path, out)[0] == state for path, state in trees.items()
    )


def forget_record(package: Path) -> None:
    """Remove the record of a package."""
    record_path(package).unlink(missing_ok=True)


def observe(package: Path, inputs: Inputs, task_root: Path) -> Observed:
    """Look at what a package was made from, once all of it was read.

    Args:
        package: The zip, which may not exist yet.
        inputs: What the build has read.
        task_root: The project's folder.
    """
    out = os.path.realpath(package.parent)
    paths = _with_places(set(map(str, inputs.files)), str(task_root))
    found = {path: _state(path, out) for path in sorted(paths) if path != out}
    whole = {path: _tree(path, out) for path in sorted(map(str, inputs.trees))}
    return Observed(
        {name: state for name, (state, _) in found.items()},
        {name: state for name, (state, _) in whole.items()},
        max((time_ns for _, time_ns in (found | whole).values()), default=0),
    )


def write_record(
    package: Path,
    key: str,
    observed: Observed,
    started_ns: int,
    facts: Mapping[str, object],
    *,
    sha256: str,
) -> None:
    """Record what a package was built from.

    Args:
        package: The zip.
        key: The digest of ``key_of`` for it.
        observed: The state of what the build has read.
        started_ns: Time at which the build began, Unix time.
        facts: Facts that ``read_record`` is to return.
        sha256: Digest of the zip, in hexadecimal.

    Raises:
        BuildError: The record cannot be written.
    """
    # Imported by then, and not needed to read a record.
    from lambda_deno_spawn.dev.package.archive import write_text

    if observed.changed_ns > started_ns - CLOCK_STEP_NS:
        forget_record(package)
        return
    record = {
        "key": key,
        "sha256": sha256,
        "states": observed.states,
        "trees": observed.trees,
        "facts": facts,
    }
    write_text(record_path(package), json.dumps(record))


def now_ns() -> int:
    """Return the present Unix time, as files are stamped with it."""
    return time.time_ns()


def _with_places(paths: set[str], task_root: str) -> set[str]:
    """Add the folders and files by which Deno would find other modules instead."""
    folders = {_folder(path) for path in paths - {task_root}}
    home = home_folder(os.environ)
    above = set() if home is None else {str(home)}
    for path in [*paths, f"{task_root}/*"]:
        while (path := _folder(path)) not in above:
            above.add(path)
    # In these, a new name is noticed by the names that are there.
    listed = {
        folder
        for folder in above
        if _is_within(folder, task_root) or f"/{PACKAGES}/" in f"{folder}/"
    } | folders
    found = paths | listed
    for folder in above:
        names = [f"{folder.rstrip('/')}/{name}" for name in CONFIGURATION]
        is_listed = folder in listed
        found |= {path for path in names if not is_listed or _exists(path)}
    # Packages with a scope are in a folder of their own.
    return found | {
        entry.path
        for folder in found
        if folder.endswith(f"/{PACKAGES}")
        for entry in _entries(folder)
        if entry.name.startswith("@")
    }


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError:
        return False
    return True


def _is_within(folder: str, root: str) -> bool:
    return folder == root or folder.startswith(root.rstrip("/") + "/")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _state(path: str, out: str) -> tuple[State, int]:
    """Return values that change with a file, or with the names in a folder.

    Args:
        path: The file or folder.
        out: Folder that the build makes itself.

    Returns:
        The values, and the time of the last change of a file.
    """
    try:
        status = os.lstat(path)
        link: list[int | str] = []
        if stat.S_ISLNK(status.st_mode):
            link, status = [str(Path(path).readlink())], Path(path).stat()
        if not stat.S_ISDIR(status.st_mode):
            return [*link, *_values(status)], status.st_ctime_ns
        names = [entry.name for entry in os.scandir(path) if entry.path != out]
    except OSError:
        return None, 0
    return [*link, _checksum(sorted(names))], 0


def _tree(path: str, out: str) -> tuple[State, int]:
    """Return a value that changes with any file in a folder, like ``_state``."""
    lines: list[str] = []
    changed_ns = 0
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if f"{folder}/{name}" != out)
        for name in sorted([*names, *folders]):
            file = f"{folder}/{name}"
            try:
                status = os.lstat(file)
                if stat.S_ISDIR(status.st_mode):
                    lines.append(file)
                    continue
                link = Path(file).readlink() if stat.S_ISLNK(status.st_mode) else ""
            except OSError:
                continue
            lines.append(f"{file}\0{link}\0{_values(status)}")
            changed_ns = max(changed_ns, status.st_ctime_ns)
    return [_checksum(lines)], changed_ns


def _values(status: os.stat_result) -> list[int]:
    # No program can set the time of the last change of a file's state (ctime).
    return [
        status.st_ino,
        status.st_ctime_ns,
        status.st_mtime_ns,
        status.st_size,
        status.st_mode,
    ]


def _checksum(names: list[str]) -> int:
    return zlib.crc32("\0".join(names).encode(errors="surrogateescape"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
