"""One child process and everything that descends from it.

Knows how to start a program with pipes in a process group of its own, how to read and
write without blocking, how to end it for certain, and how to find what escaped from its
group. Refuses to know what the bytes mean. Facts used: prctl(2) PR_SET_CHILD_SUBREAPER
and PR_SET_DUMPABLE, proc(5) ``/proc/pid/task/tid/children`` and ``oom_score_adj``,
pipe(7), pidfd_open(2), wait4(2).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.errors import WorkerSpawnError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

READ_BYTES = 64 * 1024
# Log lines take their time; between two reads a deadline may come.
READ_LOG_BYTES = 16 * 1024
# Largest pipe an unprivileged process may ask for (/proc/sys/fs/pipe-max-size).
LARGE_PIPE_BYTES = 1024 * 1024
F_SETPIPE_SZ = 1031  # fcntl(2); Python names it since 3.10 on Linux only
# A sweep that takes longer is given up, and told: something is stuck in the kernel, or
# starts processes faster than they can be ended. The next sweep goes on with it.
SWEEP_LIMIT_S = 5.0
# Looked again after this long even if no end of a process was told.
SWEEP_ROUND_S = 0.05
# Stopping a tree takes one round per generation that was started meanwhile.
STOP_ROUNDS = 20
# The kernel ends the process with the highest score first when memory runs out; a
# worker must go before the supervisor, however small it is (proc(5)).
OOM_SCORE = b"1000"


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended, and what it had used (wait4(2)).

    Attributes:
        returncode: Exit code; negative: the signal that ended it.
        user_s: Processor time in its own code, with the children it waited for.
        system_s: Processor time in the kernel, likewise.
        peak_bytes: Most resident memory of it or of a child it waited for.
    """

    returncode: int
    user_s: float = 0.0
    system_s: float = 0.0
    peak_bytes: int = 0


class ProcessEvents(Protocol):
    """Who is told what a process does."""

    def stdout_received(self, data: bytes) -> None:
        """Bytes arrived on its stdout."""

    def stdout_ended(self) -> None:
        """Nobody holds the other end of its stdout any more."""

    def stderr_received(self, data: bytes) -> None:
        """Bytes arrived on its stderr."""

    def process_exited(self, status: ExitStatus) -> None:
        """It is gone and reaped; what its pipes held has been delivered before."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that runs already, before there is an event loop to watch it."""

    pid: int
    stdin: int
    stdout: int
    stderr: int

    def write_first(self, data: bytes) -> None:
        """Write to its stdin, once and at once; must fit into a pipe.

        Raises:
            WorkerSpawnError: It does not fit; the process is ended.
        """
        with contextlib.suppress(BrokenPipeError):  # it died, and tells so by itself
            if os.write(self.stdin, data) < len(data):
                self.abort()
                raise WorkerSpawnError(
                    f"Cannot start a process: {len(data)} bytes of settings are more "
                    "than a pipe takes"
                )

    def abort(self) -> None:
        """End a process that nobody will watch, and wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


def launch(argv: Sequence[str], environ: Mapping[str, str], cwd: str) -> Launched:
    """Start a program with pipes, in a process group of its own. Does not wait.

    Args:
        argv: Program and arguments.
        environ: Its whole environment.
        cwd: Its working directory.

    Raises:
        WorkerSpawnError: The system refused.
    """
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(3):
            pipes.append(os.pipe())
    except OSError as error:
        for fd in (fd for pipe in pipes for fd in pipe):
            os.close(fd)
        raise WorkerSpawnError.from_os_error(f"start {argv[0]!r}", error) from error
    (child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr) = pipes
    try:
        process = subprocess.Popen(
            argv,
            stdin=child_stdin,
            stdout=child_stdout,
            stderr=child_stderr,
            env=environ,
            cwd=cwd,
            process_group=0,
        )
    except OSError as error:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        raise WorkerSpawnError.from_os_error(f"start {argv[0]!r}", error) from error
    finally:
        for fd in (child_stdin, child_stdout, child_stderr):
            os.close(fd)
    process.returncode = 0  # the reaping is ours; Popen must not wait as well
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    _prefer_for_oom_kill(process.pid)
    return Launched(process.pid, stdin, stdout, stderr)


def _prefer_for_oom_kill(pid: int) -> None:
    """Let the kernel end this process, and what it starts, before any other."""
    # It may have ended already; other systems have no such file.
    with contextlib.suppress(OSError):
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, OOM_SCORE)
        finally:
            os.close(fd)


class Reaper:
    """Waits for children, ours by watching and strangers by sweeping.

    A stranger is a process whose parent ended: it became our child (see
    ``become_subreaper``), and this is how descendants that left their group are found.
    It owns SIGCHLD of the event loop; one per process.

    Attributes:
        ended: How many strangers were ended by SIGKILL so far.
        oom_kills: How often the kernel had ended a process for its memory when this
            was last looked up; None if it does not say.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop; SIGCHLD is listened to from the first ``watch`` on."""
        import asyncio

        self.ended = 0
        self.oom_kills = read_oom_kills()
        self._loop = loop
        self._watched: dict[int, Callable[[ExitStatus], None]] = {}
        self._is_listening = False
        self._stranger_ended = asyncio.Event()
        # Kept open: in a sweep there may be no descriptor left to open it with.
        self._children_fd = _open_children()

    def close(self) -> None:
        """Stop watching."""
        if self._is_listening:
            self._loop.remove_signal_handler(signal.SIGCHLD)
        if self._children_fd is not None:
            os.close(self._children_fd)

    def watch(self, pid: int, callback: Callable[[ExitStatus], None]) -> None:
        """Call back once, later, with the status when this child has ended."""
        self._watched[pid] = callback
        if not self._is_listening:
            # Not before: whose end was told to nobody could not be told later.
            self._is_listening = True
            self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._loop.call_soon(self.poll, pid)

    async def sweep(self) -> bool:
        """End every stranger and its descendants; False if some are left.

        Nothing but children of ours and their descendants is ever sent a signal.
        """
        give_up_s = self._loop.time() + SWEEP_LIMIT_S
        while True:
            self._reap()
            strangers = self._strangers()
            if not strangers:
                return True
            if self._loop.time() > give_up_s:
                return False
            _stop_trees(self._strangers)
            for pid in self._strangers():
                # Not reaped yet, so the number is nobody else's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._stranger_ended.clear()
            await _set_within(SWEEP_ROUND_S, self._stranger_ended)

    def poll(self, pid: int) -> None:
        """Look now whether a watched child has ended, before its signal has told."""
        if pid in self._watched:
            self._wait(pid)

    def was_oom_kill(self) -> bool | None:
        """Tell whether the kernel ended a process for its memory since last asked.

        None if it does not say.
        """
        before, self.oom_kills = self.oom_kills, read_oom_kills()
        if before is None or self.oom_kills is None:
            return None
        return self.oom_kills > before

    def _strangers(self) -> list[int]:
        return [pid for pid in self._children() if pid not in self._watched]

    def _children(self) -> list[int]:
        if self._children_fd is None:
            return _children_by_scan(os.getpid())
        # The kernel makes the text anew for each read from its beginning.
        text = b""
        while data := os.pread(self._children_fd, READ_BYTES, len(text)):
            text += data
        return [int(pid) for pid in text.split()]

    def _reap(self) -> None:
        """Wait for every child that has ended, also for strangers: they take a slot."""
        while self._wait(-1):
            pass

    def _wait(self, pid: int) -> bool:
        """Wait for a child that has ended, -1 for any; False if there is none."""
        try:
            reaped, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            if pid in self._watched:  # somebody else waited for it
                self._watched.pop(pid)(ExitStatus(0))
            return False
        if reaped == 0:
            return False
        returncode = os.waitstatus_to_exitcode(status)
        callback = self._watched.pop(reaped, None)
        if callback is None:
            self.ended += returncode == -signal.SIGKILL
            self._stranger_ended.set()
        else:
            peak_bytes = usage.ru_maxrss * _MAXRSS_UNIT_BYTES
            callback(ExitStatus(returncode, usage.ru_utime, usage.ru_stime, peak_bytes))
        return True


class ChildProcess:
    """A launched process, watched by an event loop."""

    def __init__(
        self,
        launched: Launched,
        events: ProcessEvents,
        loop: asyncio.AbstractEventLoop,
        reaper: Reaper,
    ) -> None:
        """Take over the process; ``events`` hears of it from now on."""
        self.pid = launched.pid
        self.status: ExitStatus | None = None
        self._loop = loop
        self._events = events
        self._stdin: int | None = launched.stdin
        self._readers = {
            launched.stdout: events.stdout_received,
            launched.stderr: events.stderr_received,
        }
        self._stdout = launched.stdout
        self._read_bytes = {
            launched.stdout: READ_BYTES,
            launched.stderr: READ_LOG_BYTES,
        }
        self._stderr = launched.stderr
        self._holders: dict[int, set[str]] = {fd: set() for fd in self._readers}
        self._unwritten: list[memoryview] = []
        for fd in self._readers:
            loop.add_reader(fd, self._readable, fd)
        reaper.watch(self.pid, self._exited)

    def write_all(self, buffers: Sequence[bytes]) -> None:
        """Write to its stdin and close it; what does not fit follows by itself.

        A process that no longer reads is no error here: its end tells more.
        """
        if sum(map(len, buffers)) > READ_BYTES:
            _enlarge_pipe(self._stdin)
            self._unwritten += [memoryview(buffer) for buffer in buffers]
        else:
            self._unwritten.append(memoryview(b"".join(buffers)))
        self._writable()

    def close_stdin(self) -> None:
        """Let the process read end-of-file."""
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None
            self._unwritten.clear()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that stayed in its group."""
        # A group that has ended is what was wanted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if self.status is None:  # it may have left its group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def hold_stdout(self, holder: str) -> None:
        """Leave what it writes in the pipe, which makes it wait when that is full.

        Until every holder has released it.
        """
        self._hold(self._stdout, holder)

    def release_stdout(self, holder: str) -> None:
        """Read its stdout again, unless somebody else holds it."""
        self._release(self._stdout, holder)

    def hold_stderr(self, holder: str) -> None:
        """As ``hold_stdout``."""
        self._hold(self._stderr, holder)

    def release_stderr(self, holder: str) -> None:
        """As ``release_stdout``."""
        self._release(self._stderr, holder)

    def _hold(self, fd: int, holder: str) -> None:
        if fd in self._readers and not self._holders[fd]:
            self._loop.remove_reader(fd)
        self._holders[fd].add(holder)

    def _release(self, fd: int, holder: str) -> None:
        if holder not in self._holders[fd]:
            return
        self._holders[fd].discard(holder)
        if fd in self._readers and not self._holders[fd]:
            self._loop.add_reader(fd, self._readable, fd)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.status is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Give up the pipes. The process itself must have ended."""
        self.close_stdin()
        for fd in list(self._readers):
            self._stop_reading(fd)

    def _writable(self) -> None:
        if self._stdin is None:
            return
        try:
            while self._unwritten:
                written = os.write(self._stdin, self._unwritten[0])
                if written == len(self._unwritten[0]):
                    del self._unwritten[0]
                else:
                    self._unwritten[0] = self._unwritten[0][written:]
        except BlockingIOError:
            self._loop.add_writer(self._stdin, self._writable)
            return
        except BrokenPipeError:
            pass
        self.close_stdin()

    def _readable(self, fd: int) -> bool:
        """Read once; return False if there is nothing (more) to read."""
        try:
            data = os.read(fd, self._read_bytes[fd])
        except BlockingIOError:
            return False
        if data:
            self._readers[fd](data)
            return True
        self._stop_reading(fd)
        if fd == self._stdout:
            self._events.stdout_ended()
        return False

    def _stop_reading(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _exited(self, status: ExitStatus) -> None:
        # Nothing of its group may write on, or the pipes would never be empty.
        self.signal_group(signal.SIGKILL)
        for fd in list(self._readers):
            self._drain(fd)
        self.status = status
        self._events.process_exited(status)

    def _drain(self, fd: int) -> None:
        """Read what a pipe holds now; a stranger that writes on must not keep us."""
        import fcntl
        import termios

        counted = fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
        left = int.from_bytes(counted, sys.byteorder)
        while left > 0:
            data = os.read(fd, min(left, self._read_bytes[fd]))
            left -= len(data)
            self._readers[fd](data)
        self._readable(fd)  # the end, if nobody else holds the pipe


# What getrusage(2) counts ru_maxrss in.
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def become_subreaper() -> bool:
    """Make the kernel hand orphaned descendants to this process; False if it cannot.

    Linux only. Without it a descendant that left its process group is not found.
    """
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def become_opaque() -> bool:
    """Close memory, environment and descriptors of this process to its own user.

    A program that a handler starts runs as the same user: without this it could read
    ``/proc/PID/environ`` and attach as a debugger. Linux only; False if it cannot be.
    """
    return _prctl(PR_SET_DUMPABLE, 0)


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
    pid = os.fork()
    if pid == 0:
        # Without its parent nobody could tell it to stop.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return
    become_opaque()  # its environment is that of the supervisor

    def hand_on(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, hand_on)
    reaped, status = 0, 0
    while reaped != pid:
        reaped, status = os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as it ended
        with contextlib.suppress(OSError):  # some signals have no other action
            signal.signal(-code, signal.SIG_DFL)
        os.kill(parent, -code)
    os._exit(code)


PR_SET_PDEATHSIG = 1  # prctl(2), as the two below
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> bool:
    import ctypes

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def read_oom_kills() -> int | None:
    """Return how often the kernel ended a process for its memory; None: unknown."""
    try:
        fields = Path("/proc/vmstat").read_bytes().split()
        return int(fields[fields.index(b"oom_kill") + 1])
    except (OSError, ValueError):
        return None


def children() -> list[int]:
    """Return the process ids of this process's children, zombies included."""
    pid = os.getpid()
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_bytes()
    except OSError:
        return _children_by_scan(pid)
    return [int(child) for child in text.split()]


def _open_children() -> int | None:
    """Open the kernel's list of our children; None where it keeps none.

    That of the first thread: it starts every worker, and orphans come to it.
    """
    pid = os.getpid()
    try:
        return os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)
    except OSError:
        return None


def _children_by_scan(parent: int) -> list[int]:
    """Find children without the kernel's list, which not every kernel has."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and _parent(name) == parent]


def _parent(pid: int | str) -> int | None:
    """Return the parent of a process, None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in front may hold anything, blanks and brackets too.
    return int(stat[stat.rindex(b")") + 1 :].split()[1])


def _stop_trees(roots: Callable[[], list[int]]) -> None:
    """Stop our children and their descendants, so that none starts another meanwhile.

    A descendant is pinned before it is sent a signal (pidfd_open(2)): its number could
    be another process's by now.
    """
    stopped: set[int] = set()
    for _ in range(STOP_ROUNDS):
        new = [pid for pid in roots() if pid not in stopped]
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        stopped.update(new)
        waiting = list(stopped)
        for parent in waiting:
            for pid in _children_of(parent):
                if pid not in stopped and _stop_child(parent, pid):
                    stopped.add(pid)
                    waiting.append(pid)
                    new.append(pid)
        if not new:
            return


def _children_of(parent: int) -> list[int]:
    found: list[int] = []
    # It may have ended, or there is no descriptor left: it is ended all the same.
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208
            path = f"/proc/{parent}/task/{task}/children"
            found += map(int, Path(path).read_bytes().split())
    return found


def _stop_child(parent: int, pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return False
    try:
        if _parent(pid) != parent:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _enlarge_pipe(fd: int | None) -> None:
    import fcntl

    # Fewer wake-ups for a large event; a refusal costs only time.
    with contextlib.suppress(OSError):
        if fd is not None:
            fcntl.fcntl(fd, F_SETPIPE_SZ, LARGE_PIPE_BYTES)


async def _set_within(limit_s: float, event: asyncio.Event) -> None:
    import asyncio

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
