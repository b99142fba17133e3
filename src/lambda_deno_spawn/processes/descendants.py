"""The supervisor among processes: its descendants, and how they are found and ended.

Knows how to become the parent of orphans, how to be closed to other programs, how to
outlive its children when memory runs out, how to get away from children that others
started, and how to end whole trees of processes. It notes each of these guarantees that
this system does not give. Does not know what a worker is. Facts used: prctl(2),
proc(5) ``children``, ``oom_score_adj``, ``stat`` and ``vmstat``, pidfd_open(2). On
other systems than Linux each function does as much as is possible there. Decisions
0016, 0018.
"""

from __future__ import annotations

import os
import sys
import time

from lambda_deno_spawn.early import signal, suppress
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1  # prctl(2); so are the next two
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# Stopping a tree takes one round for each generation that was started meanwhile.
STOP_ROUNDS = 20
END_ROUND_S = 0.002
# How many processes are sent a signal at once, which takes a few milliseconds; the less
# time passes between them, the fewer can start another one.
SIGNAL_BATCH = 2048
# The same for those that are looked up first.
PINNED_BATCH = 256
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# How old a count of the kernel's kills may be to serve as the count before an event.
OOM_KILLS_AGE_S = 1.0
# A shell adds the number of the signal that ended a program to this.
SIGNAL_EXIT_CODE = 128
OOM_SCORE_FILE = "/proc/self/oom_score_adj"
# When memory runs out the kernel ends the process with the highest score first: to what
# it takes, as many thousandths of all memory are added (proc(5)). A worker must end
# before the supervisor, however small it is: 38 MB are added in the smallest function.
# A process that is only there to be copied ends before workers; copies get their score
# in serve.c.
WORKER_SCORE, TEMPLATE_SCORE = b"300", b"1000"
# With a higher score of its own, the supervisor could end before a worker.
OWN_SCORE_LIMIT = 100
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

# waitid(2): look, without reaping and without waiting.
_LOOK = getattr(os, "WEXITED", 0) | os.WNOHANG | getattr(os, "WNOWAIT", 0)
_ENDED = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)

# Guarantees that this system does not give, and the reason; None once it was reported.
_lost: dict[str, str | None] = {}


def lose(guarantee: str, reason: str) -> None:
    """Note that a guarantee cannot be kept, as there may be no log yet.

    Args:
        guarantee: Text that says what cannot be done and the consequence; noted once.
        reason: The system's error.
    """
    # No other system gives these guarantees; docs/security.md says so.
    if sys.platform == "linux":
        _lost.setdefault(guarantee, reason)


def newly_lost() -> list[str]:
    """Return the guarantees noted since the last call, each with its reason."""
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


def fork_away_from_children() -> None:
    """Continue in a child process if this one has children, or may be given orphans.

    An exec wrapper may have started programs of its own. Neither they nor their
    descendants are ours to end; but a subreaper, like process 1, becomes the parent of
    every orphan below it. So this process stays their parent and forwards signals,
    while all children of the new process are ours. Returns in the new process only.

    Raises:
        OSError: The system refuses another process.
    """
    parent = os.getpid()
    if parent != 1 and not children():
        return
    become_opaque()  # it has the same environment as the supervisor
    # Block them until _forward_signals forwards them: the child has no handlers yet and
    # would die.
    waited_for = {*FORWARDED, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        pid = os.fork()
        if pid != 0:
            _forward_signals(pid, waited_for)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
    # Signals reach it only through its parent: without one it could not be stopped.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, PARENT_LOST)
    if os.getppid() != parent:
        os._exit(1)


def _forward_signals(child: int, waited_for: set[signal.Signals]) -> None:
    """Forward signals to a child, and exit as it does. Does not return.

    Args:
        child: Its process id.
        waited_for: Signals to forward, and SIGCHLD; all of them are blocked. A signal
            handler would not do: for a signal that arrives just before a wait begins it
            does not run until the wait ends.
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
        with suppress(OSError):  # some signals have no other action
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = SIGNAL_EXIT_CODE - code  # process 1 does not end by a signal of its own
    os._exit(code)


def _reap_until(child: int) -> int | None:
    """Reap every child that has ended; return this one's status, None if it lives."""
    reaped = -1
    while reaped not in (0, child):
        reaped, status = os.waitpid(-1, os.WNOHANG)
    return status if reaped == child else None


def _prctl(option: int, value: int, guarantee: str) -> bool:
    """Ask the kernel for a guarantee; if it refuses, note it and return False."""
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
    """This process's rank among those that the kernel ends when memory runs out.

    As a context manager it gives this process a high score, which every process
    that is started inside keeps, and then restores its own. The child's own file would
    not do: until exec has given it memory of its own, it is as closed as this process
    (see ``become_opaque``), and only root can write its score.
    """

    def __init__(self) -> None:
        """Open nothing yet: the file belongs to the process that opens it."""
        self._fd: int | None = None
        self._own = b""
        self._next = WORKER_SCORE
        self._is_raised = False

    def hold(self) -> None:
        """Open this process's score, before it is closed to its own user."""
        try:
            self._fd = _open_own_score()
            self._own = os.pread(self._fd, len(b"-1000\n"), 0).strip()
        except OSError as error:
            lose(OOM_SCORE_LOST, str(error))

    def of(self, score: bytes) -> OomScore:
        """Choose the score of processes started next; returns this object."""
        self._next = score
        return self

    def __enter__(self) -> None:
        """Raise the score, briefly: meanwhile this process may be ended first, too."""
        if self._fd is None:
            self.hold()
        if self._own in (b"", TEMPLATE_SCORE):
            return
        # Set first, so that the score is restored whatever happens in between.
        self._is_raised = True
        is_low = int(self._own) < OWN_SCORE_LIMIT
        self._write(self._next if is_low else TEMPLATE_SCORE)

    def __exit__(self, *_: object) -> None:
        """Restore the score; lowering it to its former value needs no privilege."""
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
        # The process that this one was forked from had closed itself. To be open for a
        # moment is safe, as no handler runs yet.
        if not _prctl(PR_SET_DUMPABLE, 1, OOM_SCORE_LOST):
            raise
        try:
            return os.open(OOM_SCORE_FILE, os.O_RDWR)
        finally:
            become_opaque()


oom_score = OomScore()


class OomKills:
    """How often the kernel ended a process because memory ran out; None: unknown."""

    def __init__(self) -> None:
        self._count: int | None = None
        self._read_s: float | None = None

    def now(self) -> int | None:
        """Read the count, for which the kernel takes 30 µs."""
        self._read_s = time.monotonic()
        try:
            text = _read("/proc/vmstat")
            self._count = int(text[text.index(b"\noom_kill ") + 10 :].split(None, 1)[0])
        except (OSError, ValueError):
            self._count = None
        return self._count

    def lately(self) -> int | None:
        """Return the count of at most a second ago, without reading it each time."""
        if self._read_s is None or time.monotonic() - self._read_s > OOM_KILLS_AGE_S:
            return self.now()
        return self._count


class ChildList:
    """The children of this process, readable even when descriptors are used up."""

    def __init__(self) -> None:
        """Open the kernel's list of the first thread's children.

        That thread starts every worker, and it becomes the parent of orphans.
        """
        self._pid = os.getpid()
        self._fd: int | None = None
        with suppress(OSError):
            path = f"/proc/{self._pid}/task/{self._pid}/children"
            self._fd = os.open(path, os.O_RDONLY)

    def read(self) -> list[int]:
        """Return their process ids, zombies included.

        Raises:
            OSError: They cannot be listed, as no descriptor is left.
        """
        if self._fd is None:
            return _children_by_scan(self._pid)
        # The kernel writes a new list for each read that starts at its beginning.
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
        OSError: They cannot be listed.
    """
    listing = ChildList()
    try:
        return listing.read()
    finally:
        listing.close()


def ended_child(pid: int) -> int | None:
    """Return a child that has ended, None if none has; it stays to be reaped.

    A child can make its parent its tracer (ptrace(2), ``PTRACE_TRACEME``). Then it is
    found whenever a signal stops it, as if it had ended, and nothing would let it go
    on: it is killed.

    Args:
        pid: The child; 0: any.

    Raises:
        ChildProcessError: There is no such child.
    """
    which = (os.P_PID, pid) if pid else (os.P_ALL, 0)
    while (found := os.waitid(*which, _LOOK)) is not None:
        if found.si_code in _ENDED:
            return found.si_pid
        _send(found.si_pid, signal.SIGKILL)
    return None


def has_ended(pid: int) -> bool:
    """Return whether a child has ended, or does not exist; it stays to be reaped."""
    try:
        return ended_child(pid) is not None
    except (ChildProcessError, AttributeError):  # macOS has no waitid
        return True


def end_children(limit_s: float) -> None:
    """End every child of this process and its descendants, and wait for their end.

    Blocks; for an exit without an event loop. Gives up after ``limit_s``.
    """
    give_up_s = time.monotonic() + limit_s
    while time.monotonic() < give_up_s:
        # If the children cannot be listed now, some may be left.
        with suppress(OSError):
            if not children():
                return
            for _ in end_trees(children, give_up_s - time.monotonic()):
                pass
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(END_ROUND_S)


def end_trees(
    roots: Callable[[], list[int]],
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Send SIGKILL to children of this process and to all their descendants, in steps.

    All of them are stopped first, so that none can start another one and exit before it
    is killed. Does not wait for their end. There may be thousands, so it yields after
    each step; the caller may reap children then.

    Args:
        roots: Returns the children. Called anew in each step, as the process id of one
            that was reaped may mean another process.
        limit_s: Time for it. Half of it at most is used to stop them, and some of those
            that were found are killed in any case: each attempt gets further.
        clock: Returns the time, in seconds.

    Raises:
        OSError: The children cannot be listed.
    """
    stopped: dict[int, int] = {}
    begun_s = clock()
    for _ in _stop_trees(roots, stopped):
        yield
        if clock() > begun_s + limit_s / 2:
            break
    # The last first: each one's parent, which tells that it is still the same process,
    # is there, as it was stopped.
    this = os.getpid()
    deeper = [pid for pid, parent in reversed(stopped.items()) if parent != this]
    for number, pid in enumerate(deeper, 1):
        _send_pinned(pid, stopped[pid], signal.SIGKILL)
        if number % PINNED_BATCH == 0:
            yield
            if clock() > begun_s + limit_s:
                break
    for _ in _send_all(roots, set(), signal.SIGKILL):
        yield
        if clock() > begun_s + limit_s:
            break


def _stop_trees(
    roots: Callable[[], list[int]], stopped: dict[int, int]
) -> Iterator[None]:
    """Stop children and their descendants, in steps.

    Args:
        roots: See ``end_trees``.
        stopped: Is given the processes, each with its parent.
    """
    this = os.getpid()
    for _ in range(STOP_ROUNDS):
        count = len(stopped)
        sent = {pid for pid, parent in stopped.items() if parent == this}
        for _ in _send_all(roots, sent, signal.SIGSTOP):
            stopped.update(dict.fromkeys(sent, this))
            yield
        waiting = [pid for pid in stopped if pid not in sent or not has_ended(pid)]
        for parent in waiting:
            for found in _children_of(parent):
                for pid in found:
                    if pid not in stopped and _send_pinned(pid, parent, signal.SIGSTOP):
                        stopped[pid] = parent
                        waiting.append(pid)
                yield
        if len(stopped) == count:
            break


def _send_all(
    roots: Callable[[], list[int]], sent: set[int], number: signal.Signals
) -> Iterator[None]:
    """Send a signal to each child, in steps.

    The last one first: if one starts the next and exits, again and again, it is there,
    behind those that have ended and are not reaped.

    Args:
        roots: See ``end_trees``.
        sent: The children that have been sent it; is added to.
        number: The signal.
    """
    while batch := [pid for pid in reversed(roots()) if pid not in sent]:
        del batch[SIGNAL_BATCH:]
        for pid in batch:
            _send(pid, number)
        sent.update(batch)
        yield


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _send_pinned(pid: int, parent: int, number: signal.Signals) -> bool:
    """Send a signal to a process if it is still the child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return False
    try:
        if _parent(pid) != parent:
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


def _children_of(parent: int) -> Iterator[list[int]]:
    """Find the children of each thread of a process; there may be many threads."""
    # It may have ended, or no descriptor is left. A child that is missed here becomes
    # ours when its parents end.
    with suppress(OSError):
        for task in os.listdir(f"/proc/{parent}/task"):
            path = f"/proc/{parent}/task/{task}/children"
            with suppress(OSError):
                yield [int(pid) for pid in _read(path).split()]


def _children_by_scan(parent: int) -> list[int]:
    """Find children without the kernel's list, which not every kernel has.

    Raises:
        OSError: They cannot be listed now; to return none would be a guess.
    """
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    return [int(name) for name in names if name.isdigit() and _parent(name) == parent]


def _parent(pid: int | str) -> int | None:
    """Return the parent of a process, None if it is gone."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The program's name in front may hold anything, blanks and brackets too.
    return int(stat[stat.rindex(b")") + 1 :].split()[1])
