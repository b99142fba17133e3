"""One child process and everything that descends from it.

Knows how to start a program with pipes in a process group of its own, how to read and
write without blocking, how to end it for certain, and how to find what escaped from its
group. Refuses to know what the bytes mean. Facts used: prctl(2) PR_SET_CHILD_SUBREAPER,
proc(5) ``/proc/pid/task/tid/children``, pipe(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
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
# After a process ended, its pipes hold at most their capacity (pipe(7)); a descendant
# that goes on writing must not keep us reading.
DRAIN_LIMIT_BYTES = 64 * 1024
# Killing an orphan hands its children to us: one round per generation.
SWEEP_ROUNDS = 50
SWEEP_ROUND_S = 1.0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended.

    Attributes:
        returncode: Exit code; negative: the signal that ended it.
    """

    returncode: int


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

    def abort(self) -> None:
        """End a process that nobody will watch, and wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


def launch(
    argv: Sequence[str], environ: Mapping[str, str], cwd: str, first_input: bytes
) -> Launched:
    """Start a program with pipes, in a process group of its own. Does not wait.

    Args:
        argv: Program and arguments.
        environ: Its whole environment.
        cwd: Its working directory.
        first_input: Written to its stdin at once; must fit into a pipe.

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
        raise WorkerSpawnError(f"Cannot start {argv[0]!r}: {error}") from error
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
        raise WorkerSpawnError(f"Cannot start {argv[0]!r}: {error}") from error
    finally:
        for fd in (child_stdin, child_stdout, child_stderr):
            os.close(fd)
    process.returncode = 0  # the reaping is ours; Popen must not wait as well
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    launched = Launched(process.pid, stdin, stdout, stderr)
    with contextlib.suppress(BrokenPipeError):  # it died, and tells so by itself
        if os.write(launched.stdin, first_input) < len(first_input):
            launched.abort()
            raise WorkerSpawnError(
                f"Cannot start {argv[0]!r}: {len(first_input)} bytes of settings are "
                "more than a pipe takes"
            )
    return launched


class Reaper:
    """Waits for children, ours by watching and strangers by sweeping.

    It owns SIGCHLD of the event loop; one per process.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, spared: frozenset[int] = frozenset()
    ) -> None:
        """Take the loop, and children that were there before us and stay untouched."""
        self._loop = loop
        self._spared = spared
        self._watched: dict[int, Callable[[ExitStatus], None]] = {}
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def watch(self, pid: int, callback: Callable[[ExitStatus], None]) -> None:
        """Call back once, with the status, when this child has ended."""
        self._watched[pid] = callback
        self._reap_one(pid)

    async def sweep(self) -> None:
        """End every process that was adopted, and its descendants.

        A process whose parent ended becomes our child (see ``become_subreaper``): this
        is how descendants that left their group are found.
        """
        for _ in range(SWEEP_ROUNDS):
            adopted = [
                pid
                for pid in children()
                if pid not in self._watched and pid not in self._spared
            ]
            if not adopted:
                return
            for gone in [self._end(pid) for pid in adopted]:
                await _within(SWEEP_ROUND_S, gone)

    def _end(self, pid: int) -> asyncio.Future[None]:
        gone = self._loop.create_future()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)

        def settle(_: ExitStatus) -> None:
            if not gone.done():
                gone.set_result(None)

        self.watch(pid, settle)
        return gone

    def _reap(self) -> None:
        for pid in list(self._watched):
            self._reap_one(pid)

    def poll(self, pid: int) -> None:
        """Look now whether a watched child has ended, before its signal has told."""
        if pid in self._watched:
            self._reap_one(pid)

    def _reap_one(self, pid: int) -> None:
        try:
            reaped, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # somebody else waited for it
            reaped, status = pid, 0
        if reaped == 0:
            return
        callback = self._watched.pop(pid)
        callback(ExitStatus(os.waitstatus_to_exitcode(status)))


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
        self._unwritten: list[memoryview] = []
        for fd in self._readers:
            loop.add_reader(fd, self._readable, fd)
        # Soon, not now: it may have ended already, and nobody is ready to hear of it.
        loop.call_soon(reaper.watch, self.pid, self._exited)

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

    def pause_stdout(self) -> None:
        """Leave what it writes in the pipe, which makes it wait when that is full."""
        if self._stdout in self._readers:
            self._loop.remove_reader(self._stdout)

    def resume_stdout(self) -> None:
        """Read its stdout again."""
        if self._stdout in self._readers:
            self._loop.add_reader(self._stdout, self._readable, self._stdout)

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
            left = DRAIN_LIMIT_BYTES
            while left > 0 and fd in self._readers and self._readable(fd):
                left -= self._read_bytes[fd]
        self.status = status
        self._events.process_exited(status)


def become_subreaper() -> bool:
    """Make the kernel hand orphaned descendants to this process; False if it cannot.

    Linux only. Without it a descendant that left its process group is not found.
    """
    import ctypes

    pr_set_child_subreaper = 36
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def children() -> list[int]:
    """Return the process ids of this process's children, zombies included.

    Empty where the kernel does not list them.
    """
    try:
        tasks = os.listdir("/proc/self/task")  # noqa: PTH208 - hot path
    except OSError:
        return []
    pids: list[int] = []
    for task in tasks:
        # A thread may end while we look.
        with contextlib.suppress(OSError):
            text = Path(f"/proc/self/task/{task}/children").read_bytes()
            pids += map(int, text.split())
    return pids


def _enlarge_pipe(fd: int | None) -> None:
    import fcntl

    # Fewer wake-ups for a large event; a refusal costs only time.
    with contextlib.suppress(OSError):
        if fd is not None:
            fcntl.fcntl(fd, F_SETPIPE_SZ, LARGE_PIPE_BYTES)


async def _within(limit_s: float, future: asyncio.Future[None]) -> None:
    import asyncio

    await asyncio.wait({future}, timeout=limit_s)
