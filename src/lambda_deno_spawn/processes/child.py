"""One child process on an event loop: its pipes, its signals, its end.

Knows how to read and write without blocking, and how a process and its group are ended
for certain. Does not know how it was started, nor what the bytes mean. Facts used:
pipe(7), proc(5).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios
from typing import TYPE_CHECKING

from lambda_deno_spawn.records import NamedTuple, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from lambda_deno_spawn.processes.launch import Launched
    from lambda_deno_spawn.processes.reaper import ExitStatus, Reaper

# Capacity of a pipe unless it is enlarged (pipe(7)).
PIPE_BYTES = 64 * 1024
# Relaying log lines takes time, and a deadline may fall between two reads.
READ_LOG_BYTES = 16 * 1024
# Largest pipe an unprivileged process may ask for (/proc/sys/fs/pipe-max-size).
LARGE_PIPE_BYTES = 1024 * 1024
F_SETPIPE_SZ = 1031  # fcntl(2); Python names it on Linux only
_FOOTPRINT = (b"RssAnon:", b"RssFile:", b"Threads:")


class ProcessEvents(Protocol):
    """Receives what a process writes, and notice of its end."""

    def stdout_received(self, data: bytes) -> None:
        """Bytes arrived on its stdout."""

    def stdout_ended(self) -> None:
        """No process holds the other end of its stdout any more."""

    def stderr_received(self, data: bytes) -> None:
        """Bytes arrived on its stderr."""

    def process_ending(self) -> None:
        """It has ended; its group is about to be ended too."""

    def process_exited(self, status: ExitStatus) -> None:
        """It is gone and reaped; what its pipes held has been delivered before."""


class Footprint(NamedTuple):
    """The memory of a process while it runs (proc(5), ``status``).

    Attributes:
        own_bytes: Memory that no other process shares with it.
        file_bytes: Pages of files, mostly of its program: others share them.
        threads: How many it has.
    """

    own_bytes: int
    file_bytes: int
    threads: int


class PipeReader:
    """The reading end of a pipe from a process, on an event loop.

    Attributes:
        is_open: False from end-of-file, or from ``close``, on.
        is_held: True while the bytes are left in the pipe.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        read_bytes: int,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to read.

        Args:
            loop: Event loop that watches the descriptor.
            fd: A non-blocking descriptor, which this object closes.
            read_bytes: Most that one read takes.
            on_data: Called with each piece that was read.
            on_end: Called at end-of-file, when the descriptor is closed already.
        """
        self.is_open = True
        self.is_held = False
        self._loop = loop
        self._fd = fd
        self._read_bytes = read_bytes
        self._on_data = on_data
        self._on_end = on_end
        loop.add_reader(fd, self.read)

    def read(self) -> None:
        """Read once, also while held."""
        if not self.is_open:
            return
        try:
            data = os.read(self._fd, self._read_bytes)
        except BlockingIOError:
            return
        if data:
            self._on_data(data)
        else:
            self.close()
            self._on_end()

    def hold(self) -> None:
        """Leave bytes in the pipe, whose writer has to wait when it is full."""
        if self.is_open and not self.is_held:
            self._loop.remove_reader(self._fd)
            self.is_held = True

    def release(self) -> None:
        """Read again."""
        if self.is_held:
            self.is_held = False
            if self.is_open:
                self._loop.add_reader(self._fd, self.read)

    def drain(self) -> None:
        """Deliver what the pipe holds now, also while held.

        Not what is written meanwhile: a writer that goes on would keep us here.
        """
        left = self._readable_bytes() if self.is_open else 0
        while left > 0 and self.is_open:
            try:
                data = os.read(self._fd, min(left, self._read_bytes))
            except BlockingIOError:  # another process reads from this pipe too
                return
            if not data:
                return
            left -= len(data)
            self._on_data(data)

    def close(self) -> None:
        """Close the descriptor."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _readable_bytes(self) -> int:
        counted = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0" * 4)
        return int.from_bytes(counted, sys.byteorder)


class PipeWriter:
    """The writing end of a pipe to a process, on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        """Write nothing yet.

        Args:
            loop: Event loop that watches the descriptor.
            fd: A non-blocking descriptor, which this object closes.
        """
        self._loop = loop
        self._fd: int | None = fd
        self._unwritten: list[memoryview] = []
        self._ends = False

    def write_all(self, buffers: Sequence[bytes], *, ends: bool) -> None:
        """Write what the pipe takes now; the rest follows when there is room.

        A process that no longer reads causes no error here: its exit status says more.

        Args:
            buffers: The bytes to write.
            ends: Close the pipe after them.
        """
        self._ends = ends
        if sum(map(len, buffers)) > PIPE_BYTES:
            self._enlarge()
            self._unwritten += [memoryview(buffer) for buffer in buffers]
        else:
            self._unwritten.append(memoryview(b"".join(buffers)))
        self._write()

    def close(self) -> None:
        """Let the process read end-of-file; unwritten input is dropped."""
        if self._fd is not None:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = None
            self._unwritten.clear()

    def _writable(self) -> None:
        """Continue, now that the pipe has room (asyncio callback)."""
        if self._fd is not None:
            self._loop.remove_writer(self._fd)
            self._write()

    def _write(self) -> None:
        if self._fd is None:
            return
        try:
            while self._unwritten:
                written = os.write(self._fd, self._unwritten[0])
                if written == len(self._unwritten[0]):
                    del self._unwritten[0]
                else:
                    self._unwritten[0] = self._unwritten[0][written:]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._writable)
            return
        except BrokenPipeError:
            self._ends = True
        if self._ends:
            self.close()

    def _enlarge(self) -> None:
        # Fewer wake-ups for a large event; a refusal costs only time.
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, F_SETPIPE_SZ, LARGE_PIPE_BYTES)


class ChildProcess:
    """A launched process, watched by an event loop.

    Attributes:
        pid: Its process id.
        status: How it ended; None until it is reaped.
    """

    def __init__(
        self,
        launched: Launched,
        events: ProcessEvents,
        loop: asyncio.AbstractEventLoop,
        reaper: Reaper,
    ) -> None:
        """Own the process and its pipes from now on.

        Args:
            launched: The process.
            events: Notified of its output and its end.
            loop: Event loop that watches the pipes.
            reaper: Waits for the process.
        """
        self.pid = launched.pid
        self.status: ExitStatus | None = None
        self._is_ending = False
        self._events = events
        self._stdin = PipeWriter(loop, launched.stdin)
        self._stdout = PipeReader(
            loop,
            launched.stdout,
            PIPE_BYTES,
            events.stdout_received,
            events.stdout_ended,
        )
        self._stderr = PipeReader(
            loop, launched.stderr, READ_LOG_BYTES, events.stderr_received
        )
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
        """Write to its stdin, see ``PipeWriter.write_all``."""
        self._stdin.write_all(buffers, ends=ends)

    def close_stdin(self) -> None:
        """Let the process read end-of-file."""
        self._stdin.close()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that stayed in its group.

        Does nothing if it has ended: its process id may be another's by now, and its
        group was ended with it.
        """
        if self.status is None and not self._is_ending:
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        # It may have left its group; if it has not, it received the signal already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) != self.pid:
                os.kill(self.pid, number)

    def hold_stdout(self) -> None:
        """Leave its output in the pipe, which makes it wait when that is full."""
        self._stdout.hold()

    def release_stdout(self) -> None:
        """Read its stdout again."""
        self._stdout.release()

    def hold_stderr(self) -> None:
        """As ``hold_stdout``."""
        self._stderr.hold()

    def release_stderr(self) -> None:
        """As ``release_stdout``."""
        self._stderr.release()

    def drain(self) -> None:
        """Deliver what the pipes hold now, also while they are held.

        The end is delivered too if no other process can write to a pipe any more.
        """
        for reader in (self._stdout, self._stderr):
            reader.drain()
            reader.read()

    def drain_stderr(self) -> None:
        """Deliver what stderr holds now, unless it is held."""
        if not self._stderr.is_held:
            self._stderr.drain()

    def close(self) -> None:
        """Close the pipes. The process itself must have ended."""
        self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    # reaper.Watcher

    def ending(self) -> None:
        """End its group while the group's number is still its own."""
        self._is_ending = True
        self._events.process_ending()
        # If a member of the group wrote on, the pipes would never be empty.
        self._signal_group(signal.SIGKILL)

    def exited(self, status: ExitStatus) -> None:
        """Deliver what its pipes hold, and then its end."""
        self.drain()
        self.status = status
        self._events.process_exited(status)

    # Last, as the annotations above name the module.
    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.status is None and not self._is_ending:
            os.kill(self.pid, number)
