"""One child process: its start, its pipes, its end, and who waits for it.

Knows how to start a program with pipes in a process group of its own, how to read and
write without blocking, how to end it for certain, and how to wait for children of any
kind. Refuses to know what the bytes mean. Facts used: pipe(7), waitid(2), wait4(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.processes.descendants import (
    ChildList,
    OomKills,
    end_trees,
    lose,
    oom_score,
)
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    # What is only looked at costs a cold start nothing.

    class ProcessEvents(Protocol):
        """Who is told what a process does."""

        def stdout_received(self, data: bytes) -> None:
            """Bytes arrived on its stdout."""

        def stdout_ended(self) -> None:
            """Nobody holds the other end of its stdout any more."""

        def stderr_received(self, data: bytes) -> None:
            """Bytes arrived on its stderr."""

        def process_ending(self) -> None:
            """It has ended; its group is about to be ended too."""

        def process_exited(self, status: ExitStatus) -> None:
            """It is gone and reaped; what its pipes held has been delivered before."""

    class Watcher(Protocol):
        """Who is told of the end of a child."""

        def ending(self) -> None:
            """It has ended and is not reaped: its number still means it."""

        def exited(self, status: ExitStatus) -> None:
            """It is reaped."""


STDERR = 2
# An ignored signal stays ignored in the program that is started.
IGNORED_BY_PYTHON = [signal.SIGPIPE, signal.SIGXFSZ]
READ_BYTES = 64 * 1024
# Log lines take their time; between two reads a deadline may come.
READ_LOG_BYTES = 16 * 1024
# Largest pipe an unprivileged process may ask for (/proc/sys/fs/pipe-max-size).
LARGE_PIPE_BYTES = 1024 * 1024
F_SETPIPE_SZ = 1031  # fcntl(2); Python names it since 3.10 on Linux only
# Looked again after this long even if no end of a process was told.
SWEEP_ROUND_S = 0.05
DESCRIPTORS_LOST = (
    "Cannot keep the descriptors that the runtime has inherited: handlers inherit them"
)


class ExitStatus(NamedTuple):
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


class Footprint(NamedTuple):
    """What a process takes up while it runs (proc(5), ``status``).

    Attributes:
        own_bytes: Memory that no other process shares with it.
        file_bytes: Pages of files, mostly of its program: others share them.
        threads: How many it has.
    """

    own_bytes: int
    file_bytes: int
    threads: int


class Launched(NamedTuple):
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

    Not by subprocess, whose import would delay the first process by 4 ms (decision
    0020). Descriptors are left to ``keep_descriptors``.

    Args:
        argv: Program and arguments.
        environ: Its whole environment.
        cwd: Its working directory, and from now on this process's.

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
        os.chdir(cwd)
        arguments = list(argv)
        with oom_score:
            pid = os.posix_spawn(
                argv[0],
                arguments,
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, child_stdin, 0),
                    (os.POSIX_SPAWN_DUP2, child_stdout, 1),
                    (os.POSIX_SPAWN_DUP2, child_stderr, 2),
                ],
                setpgroup=0,
                setsigmask=[],
                setsigdef=IGNORED_BY_PYTHON,
            )
    except OSError as error:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        raise WorkerSpawnError.from_os_error(f"start {argv[0]!r}", error) from error
    finally:
        for fd in (child_stdin, child_stdout, child_stderr):
            os.close(fd)
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    return Launched(pid, stdin, stdout, stderr)


def keep_descriptors() -> None:
    """Let no program that is started inherit a descriptor but its own three.

    Python's own are closed by exec; those that this process has inherited, such as that
    of AWS's log, would not be.
    """
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(folder)
        except OSError as error:  # other systems have only the second
            reason = str(error)
            continue
        for name in names:
            if int(name) > STDERR:
                _keep_descriptor(int(name))
        return
    lose(DESCRIPTORS_LOST, reason)


def _keep_descriptor(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        if error.errno != errno.EBADF:  # that of the list itself is gone by now
            lose(DESCRIPTORS_LOST, str(error))


class Reaper:
    """Waits for children, ours by watching and strangers by sweeping.

    A stranger is a process whose parent ended: it became our child (see
    ``become_subreaper``), and this is how descendants that left their group are found.
    It owns SIGCHLD of the event loop; one per process.

    Attributes:
        ended: How many strangers have ended so far.
        oom_kills: How many processes the kernel has ended, whosever they were.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop; SIGCHLD is listened to from the first ``watch`` on."""
        import asyncio

        # Now: when they are needed there may be no descriptor left to load them with.
        # os.wait4 itself imports resource.
        import fcntl  # noqa: F401
        import resource  # noqa: F401
        import termios  # noqa: F401

        self.ended = 0
        self.oom_kills = OomKills()
        self._loop = loop
        self._watched: dict[int, Watcher] = {}
        self._is_listening = False
        self._stranger_ended = asyncio.Event()
        self._children = ChildList()

    def close(self) -> None:
        """Stop watching."""
        if self._is_listening:
            self._loop.remove_signal_handler(signal.SIGCHLD)
        self._children.close()

    def watch(self, pid: int, watcher: Watcher) -> None:
        """Tell once, later, when this child has ended; it leads a group of its own."""
        self._watched[pid] = watcher
        if not self._is_listening:
            # Not before: whose end was told to nobody could not be told later.
            self._is_listening = True
            self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._loop.call_soon(self.poll, pid)

    async def sweep(self, limit_s: float, spares: Callable[[int], bool]) -> bool:
        """End every stranger and its descendants; False if some are left.

        Nothing but children of ours and their descendants is ever sent a signal.

        Args:
            limit_s: Given up after this long: something is stuck in the kernel.
            spares: Tells of a stranger's process id that it is to be left alone.
        """

        def unspared() -> list[int]:
            return [pid for pid in self._strangers() if not spares(pid)]

        give_up_s = self._loop.time() + limit_s
        while True:
            self._reap()
            try:
                if not unspared():
                    return True
                if self._loop.time() > give_up_s:
                    return False
                end_trees(unspared)
            except OSError:  # who is left cannot be told now: not that nobody is
                if self._loop.time() > give_up_s:
                    return False
            self._stranger_ended.clear()
            await _set_within(SWEEP_ROUND_S, self._stranger_ended)

    def poll(self, pid: int) -> None:
        """Look now whether a watched child has ended, before its signal has told."""
        # An ordinary wait for each event would take longer than this look.
        if pid in self._watched and _has_ended(pid):
            self._wait(pid)

    def _strangers(self) -> list[int]:
        return [pid for pid in self._children.read() if pid not in self._watched]

    def _reap(self) -> None:
        """Wait for every child that has ended, also for strangers: they take a slot."""
        while self._wait(0):
            pass

    def _wait(self, pid: int) -> bool:
        """Wait for a child that has ended, 0 for any; False if there is none."""
        try:
            ended = self._announce(pid)
            if ended == 0:
                return False
            reaped, status, usage = os.wait4(ended, os.WNOHANG)
        except ChildProcessError:
            if pid in self._watched:  # somebody else waited for it
                self._watched.pop(pid).exited(ExitStatus(0))
            return False
        if reaped == 0:
            return False
        returncode = os.waitstatus_to_exitcode(status)
        watcher = self._watched.pop(reaped, None)
        if watcher is None:
            self.ended += 1
            self._stranger_ended.set()
        else:
            peak_bytes = usage.ru_maxrss * _MAXRSS_UNIT_BYTES
            watcher.exited(
                ExitStatus(returncode, usage.ru_utime, usage.ru_stime, peak_bytes)
            )
        return True

    def _announce(self, pid: int) -> int:
        """Tell of a child's end before it is reaped; return which, 0 if none has ended.

        Raises:
            ChildProcessError: There is no such child.
        """
        if not hasattr(os, "waitid"):  # macOS: it is told afterwards, and by the exit
            return pid or -1
        which = (os.P_PID, pid) if pid else (os.P_ALL, 0)
        ended = os.waitid(*which, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return 0
        if ended.si_pid in self._watched:
            self._watched[ended.si_pid].ending()
        return ended.si_pid


_LOOK = getattr(os, "WEXITED", 0) | os.WNOHANG | getattr(os, "WNOWAIT", 0)
_FOOTPRINT = (b"RssAnon:", b"RssFile:", b"Threads:")


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, or is not there; it stays to be reaped."""
    try:
        return os.waitid(os.P_PID, pid, _LOOK) is not None
    except (ChildProcessError, AttributeError):  # macOS has no waitid
        return True


# What getrusage(2) counts ru_maxrss in.
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


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
        self._is_ending = False
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
        self._held: set[int] = set()
        self._unwritten: list[memoryview] = []
        self._ends = False
        for fd in self._readers:
            loop.add_reader(fd, self._readable, fd)
        reaper.watch(self.pid, self)

    def footprint(self) -> Footprint | None:
        """Return what it takes up; None if it has ended, or the system does not say."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                lines = [line.split() for line in file]
            fields = {line[0]: int(line[1]) for line in lines if line[0] in _FOOTPRINT}
            own, shared, threads = (fields[name] for name in _FOOTPRINT)
        except (OSError, KeyError):
            return None
        return Footprint(own * 1024, shared * 1024, threads)

    def write_all(self, buffers: Sequence[bytes], *, ends: bool) -> None:
        """Write to its stdin; what does not fit follows by itself.

        A process that no longer reads is no error here: its end tells more.

        Args:
            buffers: What to write.
            ends: Close it after that.
        """
        self._ends = ends
        if sum(map(len, buffers)) > READ_BYTES:
            _enlarge_pipe(self._stdin)
            self._unwritten += [memoryview(buffer) for buffer in buffers]
        else:
            self._unwritten.append(memoryview(b"".join(buffers)))
        self._write()

    def close_stdin(self) -> None:
        """Let the process read end-of-file."""
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None
            self._unwritten.clear()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that stayed in its group.

        None if it has ended: its number may be another's by now, and its group was
        ended with it.
        """
        if self.status is None and not self._is_ending:
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        # It may have left its group; who has not is not to be told twice.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) != self.pid:
                os.kill(self.pid, number)

    def hold_stdout(self) -> None:
        """Leave what it writes in the pipe, which makes it wait when that is full."""
        self._hold(self._stdout)

    def release_stdout(self) -> None:
        """Read its stdout again."""
        self._release(self._stdout)

    def hold_stderr(self) -> None:
        """As ``hold_stdout``."""
        self._hold(self._stderr)

    def release_stderr(self) -> None:
        """As ``release_stdout``."""
        self._release(self._stderr)

    def _hold(self, fd: int) -> None:
        if fd in self._readers and fd not in self._held:
            self._loop.remove_reader(fd)
            self._held.add(fd)

    def _release(self, fd: int) -> None:
        if fd in self._held:
            self._held.discard(fd)
            if fd in self._readers:
                self._loop.add_reader(fd, self._readable, fd)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.status is None and not self._is_ending:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Give up the pipes. The process itself must have ended."""
        self.close_stdin()
        for fd in list(self._readers):
            self._stop_reading(fd)

    def _writable(self) -> None:
        """Go on writing, now that there is room."""
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            self._write()

    def _write(self) -> None:
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
            self._ends = True
        if self._ends:
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

    def ending(self) -> None:
        """End its group while the group's number is still its own."""
        self._is_ending = True
        self._events.process_ending()
        # Nothing of it may write on, or the pipes would never be empty.
        self._signal_group(signal.SIGKILL)

    def exited(self, status: ExitStatus) -> None:
        """Deliver what its pipes hold, and then its end."""
        self.drain()
        self.status = status
        self._events.process_exited(status)

    def drain(self) -> None:
        """Deliver what the pipes hold now, whoever holds them up.

        A stranger that writes on must not keep us, nor one that reads from them.
        """
        for fd in list(self._readers):
            self._drain(fd)
            self._readable(fd)  # the end, if nobody else can write to it

    def drain_stderr(self) -> None:
        """Deliver what stderr holds now, unless it is held up."""
        if self._stderr in self._readers and self._stderr not in self._held:
            self._drain(self._stderr)

    def _drain(self, fd: int) -> None:
        left = _readable_bytes(fd)
        while left > 0 and fd in self._readers:
            try:
                data = os.read(fd, min(left, self._read_bytes[fd]))
            except BlockingIOError:
                return
            if not data:
                return
            left -= len(data)
            self._readers[fd](data)


def _readable_bytes(fd: int) -> int:
    import fcntl
    import termios

    counted = fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(counted, sys.byteorder)


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
