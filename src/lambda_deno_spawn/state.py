"""The supervisor's own folder, and what supervisors that were killed left behind.

A supervisor cannot clean up after SIGKILL: its busy worker runs on, its folder stays.
Lambda resets an environment that way and keeps ``/tmp``, so the next supervisor does it
at init. Whose a folder is, is told by a lock that ends with its holder; whose a process
is, by the private folder in its environment. Refuses to know what a worker is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal

PREFIX = "lambda-deno-spawn-"
LOCK = "lock"
SPARE = "spare"


class StateDir:
    """A folder of this process's own; its name cannot be guessed beforehand.

    In it are private folders, one for each worker.

    Attributes:
        path: Where it is.
    """

    def __init__(self, temp_root: str) -> None:
        """Create the folder and hold its lock.

        Raises:
            OSError: The folder or its lock cannot be made.
        """
        self._temp_root = temp_root
        while True:
            self.path = f"{temp_root}/{PREFIX}{os.urandom(8).hex()}"
            os.mkdir(self.path, 0o700)  # noqa: PTH102 - fails if it exists, as it must
            try:
                self._lock = _lock(self.path, os.O_CREAT)
                break
            except BlockingIOError:
                continue  # another one took it for abandoned just now, and removes it
            except OSError:
                remove_tree(self.path)
                raise
        self._make_spare()

    def make_private(self) -> str:
        """Make an empty folder for one worker and return its path.

        Raises:
            OSError: It cannot be made.
        """
        path = f"{self.path}/{os.urandom(8).hex()}"
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102 - in the hot path
        except FileNotFoundError:  # a handler that may write everywhere emptied /tmp
            os.makedirs(path, 0o700)  # noqa: PTH103
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A handler has filled the disk. A folder that is there needs no room.
            try:
                os.rename(f"{self.path}/{SPARE}", path)  # noqa: PTH104
            except OSError:
                raise error from None
            self._has_spare = False
        return path

    def remove_private(self, path: str) -> int:
        """Remove a worker's folder; return how many files and folders were in it."""
        left = remove_tree(path)
        if not self._has_spare:
            self._make_spare()
        return left

    def _make_spare(self) -> None:
        self._has_spare = False
        with contextlib.suppress(OSError):
            os.mkdir(f"{self.path}/{SPARE}", 0o700)  # noqa: PTH102
            self._has_spare = True

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        remove_tree(self.path)
        os.close(self._lock)

    def clear_abandoned(self) -> None:
        """End the processes and remove the folders of supervisors that are gone."""
        for name in os.listdir(self._temp_root):  # noqa: PTH208
            path = f"{self._temp_root}/{name}"
            if not name.startswith(PREFIX) or path == self.path:
                continue
            # Its owner may live and hold the lock, or remove it while we look.
            with contextlib.suppress(OSError):
                if os.lstat(path).st_uid == os.geteuid():
                    lock = _lock(path)
                    _end_processes_of(path)
                    remove_tree(path)
                    os.close(lock)


def remove_tree(path: str) -> int:
    """Remove a folder, whatever was left in it; what cannot be removed stays.

    Returns:
        How many files and folders were in it, those that stay included.
    """
    try:
        os.rmdir(path)  # noqa: PTH106 - most often it is empty
    except FileNotFoundError:
        return 0
    except OSError:
        import shutil  # 2 ms that a cold start need not pay

        left = _open_folders(path)
        shutil.rmtree(path, ignore_errors=True)
        return left
    return 0


def _open_folders(path: str) -> int:
    """Open the folders below (and this one) that their owner closed to himself.

    Returns:
        How many files and folders are below.
    """
    below = 0
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700, follow_symlinks=False)  # noqa: PTH101
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            below += 1
            if entry.is_dir(follow_symlinks=False):
                below += _open_folders(entry.path)
    return below


def _lock(folder: str, flags: int = 0) -> int:
    """Take a folder's lock.

    Raises:
        BlockingIOError: Somebody holds it.
        OSError: There is none, or it cannot be taken.
    """
    flags |= os.O_RDWR | os.O_NOFOLLOW
    descriptor = os.open(f"{folder}/{LOCK}", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
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
