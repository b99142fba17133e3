"""What a package was built from, so that an unchanged one is not built again.

Knows the state of every file that a build has read, and of the folders in which a new
file would have been found instead. Does not know how a package is built. The record
lies beside the package; without it, or if anything differs, the package is built.
Specification: docs/build.md, "A second build".
"""

from __future__ import annotations

import hashlib
import json
import stat
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.package.archive import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Files that change where Deno finds modules, in the project's folder and above it.
CONFIGURATION = (
    "deno.json", "deno.jsonc", "deno.lock", "package.json", "tsconfig.json", ".npmrc",
    "node_modules", "pnpm-workspace.yaml",
)  # fmt: skip
# A file that was written this shortly before a build may be written again unnoticed.
CLOCK_STEP_NS = 20_000_000

State = list[int] | None


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
        record = json.loads(record_path(package).read_text("utf-8"))
        facts: dict[str, Any] = record["facts"]
        if record["key"] != key or record["sha256"] != _digest(package):
            return None
        states: Mapping[str, State] = record["states"]
        out = package.parent.resolve()
        if any(_state(Path(path), out) != state for path, state in states.items()):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return facts


def write_record(
    package: Path,
    key: str,
    inputs: Iterable[Path],
    task_root: Path,
    started_ns: int,
    facts: Mapping[str, object],
) -> None:
    """Record what a package was built from.

    Args:
        package: The zip.
        key: The digest of ``key_of`` for it.
        inputs: Files and folders that the build has read.
        task_root: The project's folder.
        started_ns: Time at which the build began, Unix time.
        facts: Facts that ``read_record`` is to return.

    Raises:
        BuildError: The record cannot be written.
    """
    paths = set(inputs)
    for path in list(paths):
        paths.add(path.parent)
        if path.is_relative_to(task_root):
            above = path.relative_to(task_root).parents
            paths |= {task_root / inner for inner in above}
    for folder in (task_root, *task_root.parents, Path.home()):
        paths |= {folder / name for name in CONFIGURATION}
    out = package.parent.resolve()
    states = {str(path): _state(path, out) for path in sorted(paths) if path != out}
    path = record_path(package)
    changed = (state[1] for state in states.values() if state and len(state) > 1)
    if max(changed, default=0) > started_ns - CLOCK_STEP_NS:
        path.unlink(missing_ok=True)
        return
    record = {
        "key": key,
        "sha256": _digest(package),
        "states": states,
        "facts": facts,
    }
    write_text(path, json.dumps(record))


def now_ns() -> int:
    """Return the present Unix time, as files are stamped with it."""
    return time.time_ns()


def _state(path: Path, out: Path) -> State:
    """Return values that change with a file, or with the names in a folder.

    Args:
        path: The file or folder.
        out: Folder that the build makes itself.
    """
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return [status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode]
        names = sorted(entry.name for entry in path.iterdir() if entry != out)
    except OSError:
        return None
    return [zlib.crc32("\0".join(names).encode(errors="surrogateescape"))]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
