"""Unfinished files and folders, which go in the end, also those of killed commands.

Each is locked by the command that writes it. A lock ends with its process, however that
ends, so the next command knows what was abandoned and removes it, while those that run
at the same time keep theirs. Does not know what is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.package.interruption import held_back
from lambda_deno_spawn.dev.project.selection import SCRATCH_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNFINISHED = ".partial"  # end of a name while its content is written
# If files cannot be locked, as on some network file systems, age has to tell.
UNFINISHED_S = 3600.0
# Begins the random part of the name, which has eight characters. Folders with this
# prefix that are not locked, as those of `invoke` and `dev`, are named by ``tempfile``,
# which uses no hyphen.
LOCKED = "s-"


@contextlib.contextmanager
def scratch_folder(inside: Path | None = None) -> Iterator[str]:
    """Make a folder for temporary files, and remove those of killed commands.

    Args:
        inside: Where; None: the system's folder for temporary files.
    """
    root = inside or Path(tempfile.gettempdir())
    _clear(root.glob(f"{SCRATCH_PREFIX}{LOCKED}??????"))
    with _made(
        lambda: root / f"{SCRATCH_PREFIX}{LOCKED}{secrets.token_hex(3)}",
        lambda path: path.mkdir(0o700),
    ) as path:
        yield str(path)


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside a path; it gets this path once it is written.

    Raises:
        OSError: It cannot be made, or not be renamed.
    """
    with _beside(path, lambda partial: partial.touch(0o666, exist_ok=False)) as partial:
        yield partial
        partial.replace(path)


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside a path, to be renamed once it is complete.

    Raises:
        OSError: It cannot be made.
    """
    with _beside(path, lambda partial: partial.mkdir(0o700)) as partial:
        yield partial


def _beside(
    path: Path, make: Callable[[Path], None]
) -> contextlib.AbstractContextManager[Path]:
    # In the same folder: a rename is atomic only within one file system.
    _clear(path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"))
    return _made(
        lambda: path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}"), make
    )


@contextlib.contextmanager
def _made(name: Callable[[], Path], make: Callable[[Path], None]) -> Iterator[Path]:
    """Make something under a new name, and lock it; remove it in the end."""
    made: tuple[Path, int] | None = None
    try:
        with held_back():
            path, _ = made = _locked(name, make)
        yield path
    finally:
        if made is not None:
            with held_back():
                if _is_same(*made):
                    remove(made[0])
                os.close(made[1])


def _locked(name: Callable[[], Path], make: Callable[[Path], None]) -> tuple[Path, int]:
    """Make something under a new name; return it and the descriptor with its lock."""
    while True:
        path = name()
        try:
            make(path)
        except FileExistsError:
            continue
        # Until it is locked, another command takes it for abandoned, and removes it.
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # age has to tell
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_same(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(paths: Iterator[Path]) -> None:
    """Remove what killed commands have left."""
    for path in paths:
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    if path.is_symlink() or path.lstat().st_uid != os.getuid():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it is being written
        except OSError:
            if path.lstat().st_mtime > time.time() - UNFINISHED_S:
                return
        remove(path)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return

    def retry(_: object, name: str, error: object) -> None:
        """Open a folder that was left without the permission to change it."""
        with contextlib.suppress(OSError):
            parent = Path(name).parent
            parent.chmod(parent.stat().st_mode | stat.S_IRWXU)
            if Path(name).is_dir():
                Path(name).chmod(stat.S_IRWXU)
                shutil.rmtree(name, ignore_errors=True)
            else:
                Path(name).unlink(missing_ok=True)

    shutil.rmtree(path, onerror=retry)
