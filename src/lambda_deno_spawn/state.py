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
import stat

PREFIX = "lambda-deno-spawn-"
LOCK = "lock"
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
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
            os.mkdir(self.path, 0o700)
            try:
                self._lock = _lock(self.path, os.O_CREAT)
                break
            except BlockingIOError:
                continue  # another one took it for abandoned just now, and removes it
            except OSError:
                remove_tree(self.path)
                raise
        self._note_identity()
        self._make_spare()

    def heal(self) -> None:
        """Put the folder right, whatever a handler that may write everywhere did to it.

        What was in it is gone if it was replaced, or moved away.

        Raises:
            OSError: It cannot be made again.
        """
        with contextlib.suppress(OSError):
            if self._identity == _identities(self.path):
                if self._has_spare and not os.path.isdir(f"{self.path}/{SPARE}"):
                    self._make_spare()
                return
        try:
            self._make_again()
        except PermissionError:  # the folder around it may be closed, and ours to open
            os.chmod(self._temp_root, os.stat(self._temp_root).st_mode | 0o700)
            self._make_again()

    def _make_again(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(self.path).st_mode):
                os.chmod(self.path, 0o700)
            else:
                os.unlink(self.path)
        os.makedirs(self.path, 0o700, exist_ok=True)
        lock = f"{self.path}/{LOCK}"
        held = os.fstat(self._lock)
        if not os.path.lexists(lock) or not os.path.samestat(held, os.lstat(lock)):
            remove_tree(lock)
            new = _lock(self.path, os.O_CREAT | os.O_EXCL)
            os.close(self._lock)
            self._lock = new
        self._note_identity()
        if not os.path.isdir(f"{self.path}/{SPARE}"):
            self._make_spare()

    def _note_identity(self) -> None:
        self._identity = _identities(self.path)

    def write(self, name: str, text: str) -> None:
        """Have a file with this text, whatever is there under its name.

        Raises:
            OSError: It cannot be written.
        """
        path, content = f"{self.path}/{name}", text.encode()
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if os.read(file, len(content) + 1) == content:
                    return
            finally:
                os.close(file)
        remove_tree(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        file = os.open(path, flags, 0o600)
        try:
            os.write(file, content)
        finally:
            os.close(file)

    def make_private(self) -> str:
        """Make an empty folder for one worker and return its path.

        Raises:
            OSError: It cannot be made.
        """
        path = f"{self.path}/{os.urandom(8).hex()}"
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:  # a handler that may write everywhere emptied /tmp
            os.makedirs(path, 0o700)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A handler has filled the disk. A folder that is there needs no room.
            try:
                os.rename(f"{self.path}/{SPARE}", path)
                _clear(path)  # who may write everywhere may have written there
            except OSError:
                raise error from None
            self._has_spare = False
        return path

    def have_private(self, path: str) -> None:
        """Make a worker's folder again if an event before its own has removed it."""
        if not os.path.isdir(path):
            with contextlib.suppress(OSError):  # its handler is told by what it tries
                self.heal()
                remove_tree(path)
                os.mkdir(path, 0o700)

    def private_dir_of(self, pid: int) -> str | None:
        """Return in which private folder a process was started, or what started it.

        None if its environment does not tell, or is closed to us.
        """
        mark = f"{self.path}/".encode()
        with contextlib.suppress(OSError):
            for folder in _temp_dirs(pid):
                if folder.startswith(mark):
                    return os.fsdecode(folder)
        return None

    def remove_private(self, path: str) -> int:
        """Remove a worker's folder; return how many files and folders were in it."""
        left = remove_tree(path)
        if not self._has_spare:
            self._make_spare()
        return left

    def _make_spare(self) -> None:
        self._has_spare = False
        with contextlib.suppress(OSError):
            os.mkdir(f"{self.path}/{SPARE}", 0o700)
            self._has_spare = True

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        remove_tree(self.path)
        os.close(self._lock)

    def clear_abandoned(self) -> None:
        """End the processes and remove the folders of supervisors that are gone."""
        for name in os.listdir(self._temp_root):
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


def _identities(path: str) -> tuple[tuple[int, int, int], ...]:
    """Return what tells whether a folder and its lock are those that were made.

    Raises:
        OSError: One of them is not there, or out of reach.
    """
    found = (os.lstat(path), os.lstat(f"{path}/{LOCK}"))
    return tuple((one.st_ino, one.st_dev, one.st_mode) for one in found)


def remove_tree(path: str) -> int:
    """Remove a folder and all that is in it, or what somebody has put in its place.

    What cannot be removed stays.

    Returns:
        How many files and folders were removed besides the folder itself.
    """
    removed = 0
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        with contextlib.suppress(OSError):
            os.unlink(path)
            removed = 1
    except OSError:
        with contextlib.suppress(OSError):
            removed = _clear(path)
            os.rmdir(path)
    return removed


def _clear(path: str) -> int:
    """Empty a folder, however deep, closed or full of links; follow none of them.

    Folders in it are emptied into it, one level at a time: a path of any length stays
    short, and no recursion ends with Python's.

    Returns:
        How many files and folders were removed.

    Raises:
        OSError: It cannot be opened.
    """
    top = _open_folder(path)
    removed = 0
    try:
        while names := os.listdir(top):
            before = removed
            for name in names:
                # Something that cannot be removed must not keep us from the rest.
                with contextlib.suppress(OSError):
                    removed += _remove_entry(top, name)
            if removed == before:
                break
    finally:
        os.close(top)
    return removed


def _remove_entry(top: int, name: str) -> int:
    """Remove a file, or a folder after what is in it was moved to ``top``."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        os.unlink(name, dir_fd=top)
        return 1
    folder = _open_folder(name, top)
    removed = 0
    try:
        for inner in os.listdir(folder):
            if stat.S_ISDIR(os.lstat(inner, dir_fd=folder).st_mode):
                os.close(_open_folder(inner, folder))  # or it could not be moved
                new = os.urandom(16).hex()
                os.rename(inner, new, src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=folder)
                removed += 1
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return removed + 1


def _open_folder(name: str, parent: int | None = None) -> int:
    """Open a folder, also one that its owner closed to himself; no link to one.

    Raises:
        OSError: It is none (any more), or somebody else's.
    """
    try:
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    os.fchmod(folder, 0o700)
    return folder


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
    mark = f"{folder}/".encode()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            # A process may end meanwhile; those of other users cannot be read.
            with contextlib.suppress(OSError):
                if any(path.startswith(mark) for path in _temp_dirs(int(name))):
                    os.kill(int(name), signal.SIGKILL)


def _temp_dirs(pid: int) -> list[bytes]:
    """Return what ``TMPDIR`` is in the environment that a process was started with.

    Raises:
        OSError: It has ended, or is closed to us.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:
        entries = file.read().split(b"\0")
    name = b"TMPDIR="
    return [entry[len(name) :] for entry in entries if entry.startswith(name)]
