"""Who descends from this process, and who must not: the supervisor among processes.

Knows how to become the parent of orphans, how to be closed to other programs, how to
outlive its children when memory runs out, how to leave children that are somebody
else's, and how to end whole trees of processes; and remembers which of it this system
does not grant. Refuses to know what a worker is. Facts used: prctl(2), proc(5)
``children``, ``oom_score_adj``, ``stat`` and ``vmstat``, pidfd_open(2). Linux;
elsewhere each function does what there is without it. Decisions 0016, 0018.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # prctl(2), as the two below
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# Stopping a tree takes one round per generation that was started meanwhile.
STOP_ROUNDS = 20
END_ROUND_S = 0.002
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# How old a count of memory's victims may be for what comes after it.
OOM_KILLS_AGE_S = 1.0
# What a shell makes of a signal that ended a program.
SIGNAL_EXIT_CODE = 128
OOM_SCORE_FILE = "/proc/self/oom_score_adj"
# The kernel ends the process with the highest score first when memory runs out; a
# worker must go before the supervisor, however small it is (proc(5)).
OOM_SCORE = b"1000"
OOM_SCORE_LOST = (
    "Cannot let the kernel end a handler's process before the runtime when memory runs "
    "out: it may end the runtime"
)
SUBREAPER_LOST = (
    "Cannot become the parent of orphans: a program that leaves its process group "
    "outlives its event"
)
PARENT_LOST = (
    "Cannot be told of the end of the process in front of the runtime: once that has "
    "ended, the runtime goes on by itself"
)
OPAQUE_LOST = (
    "Cannot close the runtime to its own user: a program that a handler starts may "
    "read its memory"
)

# What this system does not grant, and why; None once it has been told.
_lost: dict[str, str | None] = {}


def lose(guarantee: str, reason: str) -> None:
    """Note that something cannot be kept, for there may be no log yet.

    Args:
        guarantee: What cannot be done, and what follows; noted once.
        reason: The system's.
    """
    # Other systems never had it; docs/security.md says so.
    if sys.platform == "linux":
        _lost.setdefault(guarantee, reason)


def newly_lost() -> list[str]:
    """Return what has been noted since the last call, each with its reason."""
    found = [f"{what} ({reason})" for what, reason in _lost.items() if reason]
    if found:
        _lost.update(dict.fromkeys(_lost))
    return found


def become_subreaper() -> bool:
    """Make the kernel hand orphaned descendants to this process; False if it cannot.

    Without it a descendant that left its process group is not found.
    """
    return _prctl(PR_SET_CHILD_SUBREAPER, 1, SUBREAPER_LOST)


def become_opaque() -> bool:
    """Close memory, environment and descriptors of this process to its own user.

    A program that a handler starts runs as the same user: without this it could read
    ``/proc/PID/environ`` and attach as a debugger. False if it cannot be.
    """
    return _prctl(PR_SET_DUMPABLE, 0, OPAQUE_LOST)


def leave_children() -> None:
    """Go on in a child process if this one has children already, or may get others'.

    Those are not ours to end: an exec wrapper may have started a helper. Nor are their
    descendants, and orphans come to a subreaper whosever they are, as they come to
    process 1. So this process stays what it was, their parent, and hands on signals;
    all children of the new process are ours. Returns in the new process only.

    Raises:
        OSError: There cannot be another process.
    """
    parent = os.getpid()
    if parent != 1 and not children():
        return
    become_opaque()  # its environment is that of the supervisor
    # Until they are handed on; the new process has no other action yet than to end.
    waited_for = {*HANDED_ON, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        pid = os.fork()
        if pid != 0:
            _stand_for(pid, waited_for)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
    # Without its parent nobody could tell it to stop.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, PARENT_LOST)
    if os.getppid() != parent:
        os._exit(1)


def _stand_for(child: int, waited_for: set[signal.Signals]) -> None:
    """Hand on signals, and end as the child ends. Does not return.

    Args:
        child: Its process id.
        waited_for: Signals to hand on, and SIGCHLD; all of them are blocked. A handler
            would not do: one that comes just before a wait begins is not run before
            the wait ends.
    """
    status = None
    while status is None:
        number = signal.sigwait(waited_for)
        if number == signal.SIGCHLD:
            status = _reap_until(child)
        else:
            os.kill(child, number)  # not reaped, so it is still there
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        with contextlib.suppress(OSError):  # some signals have no other action
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = SIGNAL_EXIT_CODE - code  # process 1 does not end by a signal of its own
    os._exit(code)


def _reap_until(child: int) -> int | None:
    """Reap all that have ended; return the status of that child, None if it lives."""
    reaped = -1
    while reaped not in (0, child):
        reaped, status = os.waitpid(-1, os.WNOHANG)
    return status if reaped == child else None


def _prctl(option: int, value: int, guarantee: str) -> bool:
    """Ask the kernel for something; False if it refuses: then note what is lost."""
    import ctypes

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value, 0, 0, 0) == 0:
            return True
        reason = os.strerror(ctypes.get_errno())
    except (OSError, AttributeError) as error:
        reason = str(error)
    lose(guarantee, reason)
    return False


class OomScore:
    """How early the kernel ends this process, and what it starts, for memory.

    Entered, this process has the highest score, and what it starts meanwhile keeps
    that; left, it has its own again. The child's own file is of no use: as long as exec
    has not given it memory of its own, it is as closed as this process (see
    ``become_opaque``), and its score can be written by root only.
    """

    def __init__(self) -> None:
        """Open nothing yet: a descriptor means the process that opened it."""
        self._fd: int | None = None
        self._own = b""
        self._is_raised = False

    def hold(self) -> None:
        """Open this process's own, before it is closed to its own user."""
        try:
            self._fd = _open_own_score()
            self._own = os.pread(self._fd, len(b"-1000\n"), 0).strip()
        except OSError as error:
            lose(OOM_SCORE_LOST, str(error))

    def __enter__(self) -> None:
        """Raise it, for as short as can be: meanwhile this process is no better off."""
        if self._fd is None:
            self.hold()
        if self._own in (b"", OOM_SCORE):
            return
        # Set first: whatever comes in between, it is taken back.
        self._is_raised = True
        self._write(OOM_SCORE)

    def __exit__(self, *_: object) -> None:
        """Take it back, which needs no privilege: it was as low before."""
        if self._is_raised:
            self._is_raised = False
            self._write(self._own)

    def _write(self, score: bytes) -> None:
        assert self._fd is not None
        try:
            os.pwrite(self._fd, score, 0)
        except OSError as error:
            lose(OOM_SCORE_LOST, f"{OOM_SCORE_FILE} = {score.decode()}: {error}")


def _open_own_score() -> int:
    try:
        return os.open(OOM_SCORE_FILE, os.O_RDWR)
    except PermissionError:
        # The process that this one was forked from had closed itself; a moment's
        # opening shows nobody anything, as no handler runs yet.
        if not _prctl(PR_SET_DUMPABLE, 1, OOM_SCORE_LOST):
            raise
        try:
            return os.open(OOM_SCORE_FILE, os.O_RDWR)
        finally:
            become_opaque()


oom_score = OomScore()


class OomKills:
    """How often the kernel ended a process for its memory; None: unknown."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._count: int | None = None
        self._read_s: float | None = None

    def now(self) -> int | None:
        """Read it; the kernel takes 30 µs to make that text."""
        self._read_s = time.monotonic()
        try:
            text = _read("/proc/vmstat")
            self._count = int(text[text.index(b"\noom_kill ") + 10 :].split(None, 1)[0])
        except (OSError, ValueError):
            self._count = None
        return self._count

    def lately(self) -> int | None:
        """Return what it was a moment ago: enough where processes come and go."""
        if self._read_s is None or time.monotonic() - self._read_s > OOM_KILLS_AGE_S:
            return self.now()
        return self._count


class ChildList:
    """The children of this process, also when no descriptor is left to look with."""

    def __init__(self) -> None:
        """Open the kernel's list, that of the first thread.

        It starts every worker, and orphans come to it.
        """
        self._pid = os.getpid()
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            path = f"/proc/{self._pid}/task/{self._pid}/children"
            self._fd = os.open(path, os.O_RDONLY)

    def read(self) -> list[int]:
        """Return their process ids, zombies included.

        Raises:
            OSError: The system does not tell, as no descriptor is left.
        """
        if self._fd is None:
            return _children_by_scan(self._pid)
        # The kernel makes the text anew for each read from its beginning.
        text = b""
        while data := os.pread(self._fd, 65_536, len(text)):
            text += data
        return [int(pid) for pid in text.split()]

    def close(self) -> None:
        """Close the list."""
        if self._fd is not None:
            os.close(self._fd)


def children() -> list[int]:
    """Return the process ids of this process's children, zombies included.

    Raises:
        OSError: The system does not tell.
    """
    listing = ChildList()
    try:
        return listing.read()
    finally:
        listing.close()


def end_children(limit_s: float) -> None:
    """End every child of this process and its descendants, and wait for that.

    Blocks; for the way out, where no event loop watches. Given up after ``limit_s``.
    """
    give_up_s = time.monotonic() + limit_s
    while time.monotonic() < give_up_s:
        # Who is left cannot be told now: not that nobody is.
        with contextlib.suppress(OSError):
            if not children():
                return
            end_trees(children)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(END_ROUND_S)


def end_trees(roots: Callable[[], list[int]]) -> None:
    """Send SIGKILL to children of ours and to all that descends from them.

    All of them are stopped first: a process that starts others would be another one by
    the time it is ended. Does not wait for their end.

    Args:
        roots: Returns the children. They are not reaped yet, so their numbers are
            theirs; those of deeper ones are looked up again before each signal.
    """
    parents = _stop_trees(roots)
    for pid in roots():
        _send(pid, signal.SIGKILL)
    this = os.getpid()
    for pid, parent in parents.items():
        if parent != this:
            # Its parent may have ended just now; then it is ours.
            _send_pinned(pid, (parent, this), signal.SIGKILL)


def _stop_trees(roots: Callable[[], list[int]]) -> dict[int, int]:
    """Stop children and their descendants; return each one's parent."""
    this = os.getpid()
    stopped: dict[int, int] = {}
    for _ in range(STOP_ROUNDS):
        new = [pid for pid in roots() if pid not in stopped]
        for pid in new:
            _send(pid, signal.SIGSTOP)
        stopped.update(dict.fromkeys(new, this))
        waiting = list(stopped)
        for parent in waiting:
            for pid in _children_of(parent):
                if pid in stopped:
                    continue
                if _send_pinned(pid, (parent,), signal.SIGSTOP):
                    stopped[pid] = parent
                    waiting.append(pid)
                    new.append(pid)
        if not new:
            break
    return stopped


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _send_pinned(pid: int, parents: tuple[int, ...], number: signal.Signals) -> bool:
    """Send a signal to a process if it is still the child of one of these."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return False
    try:
        if _parent(pid) not in parents:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _children_of(parent: int) -> list[int]:
    found: list[int] = []
    # It may have ended, or there is no descriptor left: it is ended all the same, once
    # its parents are.
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{parent}/task"):
            path = f"/proc/{parent}/task/{task}/children"
            found += map(int, _read(path).split())
    return found


def _children_by_scan(parent: int) -> list[int]:
    """Find children without the kernel's list, which not every kernel has.

    Raises:
        OSError: Nobody can tell now; that there are none would be a guess.
    """
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    return [int(name) for name in names if name.isdigit() and _parent(name) == parent]


def _parent(pid: int | str) -> int | None:
    """Return the parent of a process, None if it is gone."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name in front may hold anything, blanks and brackets too.
    return int(stat[stat.rindex(b")") + 1 :].split()[1])
