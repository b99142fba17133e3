"""The supervisor's own folder, and what supervisors that were killed left behind.

A supervisor cannot clean up after SIGKILL: its busy worker runs on, its folder stays.
Lambda resets an environment that way and keeps ``/tmp``, so the next supervisor does it
at init. Whose a folder is, is told by a lock that ends with its holder; whose a process
is, by the private folder in its environment. Refuses to know what a worker is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal

PREFIX = "lambda-deno-spawn-"
LOCK = "lock"


class StateDir:
    """A folder of this process's own; its name cannot be guessed beforehand.

    Attributes:
        path: Where it is.
    """

    def __init__(self, temp_root: str) -> None:
        """Create the folder and hold its lock.

        Raises:
            OSError: The folder cannot be made.
        """
        self._temp_root = temp_root
        while True:
            self.path = f"{temp_root}/{PREFIX}{os.urandom(8).hex()}"
            os.mkdir(self.path, 0o700)  # noqa: PTH102 - fails if it exists, as it must
            lock = _lock(self.path, os.O_CREAT)
            if lock is not None:
                self._lock = lock
                return

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        remove_tree(self.path)
        os.close(self._lock)

    def clear_abandoned(self) -> int:
        """End the processes and remove the folders of supervisors that are gone.

        Returns:
            How many folders there were.
        """
        abandoned = 0
        with contextlib.suppress(OSError):
            for name in os.listdir(self._temp_root):  # noqa: PTH208
                path = f"{self._temp_root}/{name}"
                if name.startswith(PREFIX) and path != self.path and _is_ours(path):
                    lock = _lock(path)
                    if lock is not None:
                        _end_processes_of(path)
                        remove_tree(path)
                        os.close(lock)
                        abandoned += 1
        return abandoned


def remove_tree(path: str) -> None:
    """Remove a folder, whatever was left in it; what cannot be removed stays."""
    try:
        os.rmdir(path)  # noqa: PTH106 - most often it is empty
    except OSError:
        shutil.rmtree(path, onerror=_open_and_retry)


def _open_and_retry(function: object, path: str, _: object) -> None:
    """Open a folder that its owner has closed to himself, and try once more."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120
        if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114
            os.unlink(path)  # noqa: PTH108
        elif function is not os.rmdir:
            os.chmod(path, 0o700)  # noqa: PTH101
            shutil.rmtree(path, ignore_errors=True)


def _is_ours(path: str) -> bool:
    status = os.lstat(path)
    return status.st_uid == os.geteuid()


def _lock(folder: str, flags: int = 0) -> int | None:
    """Take a folder's lock; None if somebody holds it or there is none."""
    try:
        descriptor = os.open(
            f"{folder}/{LOCK}", os.O_RDWR | os.O_NOFOLLOW | flags, 0o600
        )
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _end_processes_of(folder: str) -> None:
    """Kill every process whose private folder lies in this one."""
    mark = f"TMPDIR={folder}/".encode()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH208, PTH112
        if name.isdigit():
            # A process may end meanwhile; those of other users cannot be read.
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as f:  # noqa: PTH123
                if any(entry.startswith(mark) for entry in f.read().split(b"\0")):
                    os.kill(int(name), signal.SIGKILL)
