"""The supervisor's own folder, and the folders of supervisors that were killed.

A supervisor cannot clean up after SIGKILL: its busy worker runs on, its folder stays.
Lambda resets an environment that way and keeps ``/tmp``, so the next supervisor cleans
up at init. A lock, which ends with its holder, tells whether a folder is in use; the
private folder in a process's environment tells which supervisor started it. Does not
know what a worker is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from lambda_deno_spawn.early import signal, suppress
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX = "lambda-deno-spawn-"
LOCK = "lock"
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
SPARE = "spare"
# Suffix of a folder that is being removed.
AWAY = ".away"
# How long a removal may hold up the event loop, and every invocation with it.
SLICE_S = 0.005
# Steps of a slice whatever the time: where others have the processor, a slice of time
# may pass within one step, while every event leaves a folder with a few files.
SLICE_LEAST = 16
# At exit: SIGTERM leaves little time. The next supervisor removes the rest.
CLOSE_LIMIT_S = 0.1
CLOSE_LEAST = 500  # steps, whatever the time
# If less than half of the disk is free, and less than this, the files of earlier
# events are removed before another one starts, which may need the room.
SHORT_BYTES = 256 * 1024 * 1024
SHORT_NAMES = 50_000


class StateDir:
    """A folder of this process's own, with a name that cannot be guessed.

    It holds the private folders, one for each worker.

    Attributes:
        path: Path of the folder.
    """

    def __init__(self, temp_root: str) -> None:
        """Create the folder and hold its lock.

        Raises:
            OSError: The folder or its lock cannot be made.
        """
        self._temp_root = temp_root
        self._written: dict[str, tuple[int, ...]] = {}
        # Removals that could not be completed at once, oldest first.
        self._leftovers: list[Removal] = []
        while True:
            self.path = f"{temp_root}/{PREFIX}{os.urandom(8).hex()}"
            os.mkdir(self.path, 0o700)
            try:
                self._lock = _lock(self.path, os.O_CREAT)
                break
            except (BlockingIOError, FileNotFoundError):
                continue  # another supervisor took it for abandoned and removes it
            except OSError:
                remove_tree(self.path)
                raise
        self._has_spare = False
        self._note_identity()

    def heal(self) -> None:
        """Repair the folder after handlers that may write everywhere.

        If it was replaced or moved away, its contents are lost.

        Raises:
            OSError: It cannot be made again.
        """
        with suppress(OSError):
            if self._identity == _identities(self.path):
                if self._has_spare and not _is_folder(f"{self.path}/{SPARE}"):
                    self.make_spare()
                return
        try:
            self._make_again()
        except PermissionError:  # the folder around it may be closed; it may be ours
            os.chmod(self._temp_root, os.stat(self._temp_root).st_mode | 0o700)
            self._make_again()

    def _make_again(self) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(self.path).st_mode):
                os.chmod(self.path, 0o700)
            else:
                os.unlink(self.path)
        os.makedirs(self.path, 0o700, exist_ok=True)
        lock = f"{self.path}/{LOCK}"
        held = os.fstat(self._lock)
        if not os.path.lexists(lock) or not os.path.samestat(held, os.lstat(lock)):
            if os.path.lexists(lock):
                self._put_away(lock)
            new = _lock(self.path, os.O_CREAT | os.O_EXCL)
            os.close(self._lock)
            self._lock = new
        self._note_identity()
        if not _is_folder(f"{self.path}/{SPARE}"):
            self.make_spare()

    def _note_identity(self) -> None:
        self._identity = _identities(self.path)

    def write(self, name: str, text: str) -> None:
        """Write a file unless it is there, unchanged since it was written.

        Args:
            name: Name of the file, always with the same text.
            text: Its content.

        Raises:
            OSError: It cannot be written.
        """
        path = f"{self.path}/{name}"
        with suppress(OSError, KeyError):
            if self._written[name] == _state_of(path):
                return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            file = os.open(path, flags, 0o600)
        except FileExistsError:
            self.remove_private(path)
            file = os.open(path, flags, 0o600)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
        self._written[name] = _state_of(path)

    def write_all(self, files: Mapping[str, str]) -> None:
        """Write each of the files that a process starts with, as ``write`` does."""
        for name, text in files.items():
            self.write(name, text)

    def link(self, name: str, target: str) -> None:
        """Have a symbolic link to a target.

        Raises:
            OSError: It cannot be made.
        """
        path = f"{self.path}/{name}"
        with suppress(OSError):
            if os.readlink(path) == target:
                return
        if os.path.lexists(path):
            self._put_away(path)
        os.symlink(target, path)

    def new_private(self) -> str:
        """Return the path of a worker's folder that does not exist yet."""
        return f"{self.path}/{os.urandom(8).hex()}"

    def make_private(self) -> str:
        """Make an empty folder for one worker and return its path.

        Raises:
            OSError: It cannot be made.
        """
        path = self.new_private()
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:  # a handler that may write everywhere emptied /tmp
            os.makedirs(path, 0o700)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A handler has filled the disk; the spare folder needs no room.
            try:
                os.rename(f"{self.path}/{SPARE}", path)
                # A handler that may write everywhere may have used it.
                if os.listdir(path):
                    self._put_away(path)
                    os.mkdir(path, 0o700)
            except OSError:
                raise error from None
            self._has_spare = False
        return path

    def have_private(self, path: str) -> None:
        """Make a worker's folder again if an event before its own has removed it."""
        if not _is_folder(path):
            with suppress(OSError):  # the handler will get an error itself
                self.heal()
                self.remove_private(path)
                os.mkdir(path, 0o700)

    def private_dir_of(self, pid: int) -> str | None:
        """Return the private folder of the worker that a process descends from.

        None if its environment does not name one, or is closed to us.
        """
        mark = f"{self.path}/".encode()
        with suppress(OSError):
            for folder in _temp_dirs(pid):
                if folder.startswith(mark):
                    return os.fsdecode(folder)
        return None

    def remove_private(self, path: str) -> Removal:
        """Remove a worker's folder, or rename it and remove the rest later.

        ``remove_some`` continues. Nothing is left under its name.

        Returns:
            The removal, which counts files and folders.
        """
        removal = Removal(path)
        try:
            os.rmdir(path)  # most are empty
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOTDIR):
                with suppress(OSError):
                    self.heal()  # otherwise nothing can be removed from it
            removal = self._put_away(path)
            self.remove_some(SLICE_S)
        if not self._has_spare:
            self.make_spare()
        return removal

    def _put_away(self, path: str) -> Removal:
        """Rename a folder, and queue its removal."""
        away = f"{self.path}/{os.urandom(8).hex()}{AWAY}"
        try:
            os.rename(path, away)
        except OSError:
            away = path
        self._leftovers.append(Removal(away))
        return self._leftovers[-1]

    @property
    def has_leftovers(self) -> bool:
        """True while something is left to remove."""
        return bool(self._leftovers)

    def remove_some(self, limit_s: float = SLICE_S) -> bool:
        """Continue with removals for ``limit_s``; True if all are complete.

        At least ``SLICE_LEAST`` steps are done of the oldest.
        """
        end_s = time.monotonic() + limit_s
        while self._leftovers and self._leftovers[0].go_on(
            end_s - time.monotonic(), SLICE_LEAST
        ):
            del self._leftovers[0]
        return not self._leftovers

    def is_short_of_room(self) -> bool:
        """Return whether the disk is short of free bytes, or of names."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return False
        bytes_short = min(disk.f_blocks * disk.f_frsize // 2, SHORT_BYTES)
        names_short = min(disk.f_files // 2, SHORT_NAMES)
        return (
            disk.f_bavail * disk.f_frsize < bytes_short or disk.f_favail < names_short
        )

    def make_spare(self) -> None:
        """Make the folder that replaces a private one on a full disk.

        Not when this one is created: a new folder takes a disk up to a millisecond,
        and no handler has filled it before its process was started.
        """
        path = f"{self.path}/{SPARE}"
        self._has_spare = False
        with suppress(OSError):
            if os.path.lexists(path) and not _is_folder(path):
                self._put_away(path)  # a handler has put something else there
            os.mkdir(path, 0o700)
            self._has_spare = True

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        """Remove the folder and its contents, as far as ``limit_s`` allows.

        The lock is removed last: it lets the next supervisor take over the rest.
        """
        if not os.access(self._temp_root, os.W_OK):
            # A handler has closed the folder around it.
            with suppress(OSError):
                os.chmod(self._temp_root, os.stat(self._temp_root).st_mode | 0o700)
        Removal(self.path, last=LOCK).go_on(limit_s, CLOSE_LEAST)
        os.close(self._lock)

    def clear_abandoned(self) -> None:
        """End the processes of killed supervisors, and take over their folders.

        ``remove_some`` removes those later, so init does not wait.
        """
        with os.scandir(self._temp_root) as entries:
            found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        for path in found:
            if path == self.path:
                continue
            # Its owner may be alive and hold the lock, or be removing it.
            with suppress(OSError):
                if os.lstat(path).st_uid == os.geteuid():
                    os.close(_open_folder(path))  # opens it to us: else no rename
                    lock = _lock(path)
                    try:
                        _end_processes_of(path)
                        self._put_away(path)
                    finally:
                        os.close(lock)


class Removal:
    """The removal of a folder and its contents, in slices.

    A handler may have put something else in its place, or a million files into it: so
    no folder is listed as a whole. Files that cannot be removed stay.

    Attributes:
        removed: How many files and folders so far, the folder itself not counted.
        is_over: Nothing is left that could be removed.
    """

    def __init__(self, path: str, last: str = "") -> None:
        """Remove nothing yet.

        Args:
            path: Path of the folder.
            last: Name of the file in it that is removed after all others.
        """
        self.removed = 0
        self.is_over = False
        self._steps = _removal(path, last)

    def go_on(
        self,
        limit_s: float,
        least: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> bool:
        """Continue; return whether it is over.

        Args:
            limit_s: Stop after this time.
            least: Number of steps that are done whatever the time.
            clock: Returns the time, in seconds.
        """
        end_s = clock() + limit_s
        for steps, removed in enumerate(self._steps, 1):
            self.removed += removed
            if steps >= least and clock() >= end_s:
                return False
        self.is_over = True
        return True


def _is_folder(path: str) -> bool:
    """Return whether there is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _state_of(path: str) -> tuple[int, ...]:
    """Return values that change when a file is changed or replaced.

    Raises:
        OSError: It does not exist, or is out of reach.
    """
    found = os.lstat(path)
    # Only the kernel can set the time of the last change.
    return (found.st_ino, found.st_ctime_ns, found.st_size)


def _identities(path: str) -> tuple[tuple[int, int, int], ...]:
    """Return values that change when a folder or its lock is replaced.

    Raises:
        OSError: One of them does not exist, or is out of reach.
    """
    found = (os.lstat(path), os.lstat(f"{path}/{LOCK}"))
    return tuple((one.st_ino, one.st_dev, one.st_mode) for one in found)


def remove_tree(path: str) -> int:
    """Remove a folder and its contents, however long that takes.

    Returns:
        How many files and folders were removed besides the folder itself.
    """
    removal = Removal(path)
    removal.go_on(float("inf"))
    return removal.removed


def _removal(path: str, last: str = "") -> Iterator[int]:
    """Remove a folder; yield after each step the number of files removed in it.

    It may be of any depth, closed, and full of links, which are not followed. The
    contents of inner folders are moved up, one level at a time, so that paths stay
    short and there is no recursion.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        with suppress(OSError):
            os.unlink(path)
            yield 1
        return
    except OSError:
        with suppress(OSError):
            top = _open_folder(path)
            try:
                yield from _clearing(top, last)
                if last:
                    with suppress(FileNotFoundError):
                        os.unlink(last, dir_fd=top)
            finally:
                os.close(top)
            os.rmdir(path)


def _clearing(top: int, last: str) -> Iterator[int]:
    """Remove the contents of a folder except one name."""
    has_removed = True
    while has_removed:
        has_removed = False
        # New entries may appear while the list is read; the next round finds them.
        with os.scandir(top) as entries:
            for entry in entries:
                if entry.name == last:
                    continue
                # The rest is removed even if one entry cannot be.
                with suppress(OSError):
                    for removed in _entry_removal(top, entry):
                        has_removed |= removed > 0
                        yield removed


def _entry_removal(top: int, entry: os.DirEntry[str]) -> Iterator[int]:
    """Remove a file, or a folder after its contents were moved to ``top``."""
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=top)
        yield 1
        return
    folder = _open_folder(entry.name, top)
    try:
        with os.scandir(folder) as entries:
            for inner in entries:
                with suppress(OSError):
                    if inner.is_dir(follow_symlinks=False):
                        os.close(_open_folder(inner.name, folder))  # or no rename
                        new = os.urandom(16).hex()
                        os.rename(inner.name, new, src_dir_fd=folder, dst_dir_fd=top)
                        yield 0
                    else:
                        os.unlink(inner.name, dir_fd=folder)
                        yield 1
    finally:
        os.close(folder)
    os.rmdir(entry.name, dir_fd=top)
    yield 1


def _open_folder(name: str, parent: int | None = None) -> int:
    """Open a folder of ours, even if its mode is closed to us; follow no link.

    Raises:
        OSError: It is not a folder (any more), or another user's.
    """
    try:
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    os.fchmod(folder, 0o700)
    return folder


def _lock(folder: str, flags: int = 0) -> int:
    """Acquire a folder's lock.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: There is none, or it cannot be acquired.
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
            with suppress(OSError):
                if any(path.startswith(mark) for path in _temp_dirs(int(name))):
                    os.kill(int(name), signal.SIGKILL)


def _temp_dirs(pid: int) -> list[bytes]:
    """Return the values of ``TMPDIR`` in a process's initial environment.

    Raises:
        OSError: It has ended, or is closed to us.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:
        entries = file.read().split(b"\0")
    name = b"TMPDIR="
    return [entry[len(name) :] for entry in entries if entry.startswith(name)]
