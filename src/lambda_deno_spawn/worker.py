"""One Deno process from its start to the last byte it wrote.

Joins a child process, its end of the wire protocol and the relay of its log: what comes
out is an outcome, or a ``WorkerError`` that says how the process broke off. Refuses to
know when a worker is started or how many there are; that is ``strategies.py``.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.descendants import oom_kills
from lambda_deno_spawn.errors import WorkerError, WorkerProtocolError
from lambda_deno_spawn.exits import exit_error
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.process import ChildProcess
from lambda_deno_spawn.protocol import (
    Answered,
    Chunk,
    Done,
    Ready,
    State,
    Stray,
    StreamBegun,
    StreamEnded,
    WorkerConnection,
)

if TYPE_CHECKING:
    import asyncio

    from lambda_deno_spawn.invocation import Invocation, Success
    from lambda_deno_spawn.logs import LogWriter
    from lambda_deno_spawn.process import ExitStatus, Reaper
    from lambda_deno_spawn.spawn import StartedWorker
    from lambda_deno_spawn.state import StateDir

# A process that closed its stdout is given this long to end by itself, so that its exit
# code can be told; measured exits of Deno take 1-5 ms, a busy small machine needs more.
EXIT_GRACE_S = 0.5
# Between SIGTERM and SIGKILL: time to flush a log, a quarter of the default margin.
TERMINATE_GRACE_S = 0.05
# What is taken from a streaming worker before the caller has taken it from us. Together
# with the pipe it bounds the memory that a slow caller costs.
STREAM_BUFFER_BYTES = 256 * 1024
# Tells the worker that nobody listens to its stream any more; runtime.js knows it.
CALLER_GONE_SIGNAL = signal.SIGUSR2


@dataclass(frozen=True, slots=True)
class AnswerBegun:
    """The worker answers in pieces, of this media type; see ``Worker.next_chunk``."""

    content_type: str


class Worker:
    """A running Deno process that can serve one invocation.

    The order of calls is ``ready``, ``invoke``, ``finished``, ``stop``; ``stop`` may
    come at any point and must come at the end. One caller at a time. A cancelled call
    leaves the worker as it is.

    Attributes:
        started_s: When it was started; this and the next three on the monotonic clock.
        ready_s: When its module was loaded; None until then.
        handed_over_s: When its event was handed over; None until then.
        answered_s: When its answer had come in full; None until then.
        spawn_s: How long the call took that started it.
        left_processes: Programs that were still running when it was stopped.
        left_files: Files and folders that were in its private folder then.
        is_stopped: Nothing of it is left to end.
    """

    def __init__(
        self,
        started: StartedWorker,
        writer: LogWriter,
        loop: asyncio.AbstractEventLoop,
        reaper: Reaper,
        state: StateDir,
    ) -> None:
        """Take over a started process."""
        import asyncio

        from lambda_deno_spawn.logs import Relay

        self.started_s = started.started_s
        self.spawn_s = started.spawn_s
        self.ready_s: float | None = None
        self.handed_over_s: float | None = None
        self.answered_s: float | None = None
        self.left_processes = 0
        self.left_files = 0
        self._ended_before: int | None = None
        self._oom_kills = oom_kills()
        self._state = state
        self._writer = writer
        self._connection = WorkerConnection(started.marker)
        self._private_dir = started.private_dir
        self._sources = started.sources
        self._relay = Relay(writer, started.marker)
        self._stray = Relay(writer, started.marker)
        self._loop = loop
        self._reaper = reaper
        self._ready = asyncio.Event()
        self._answered = asyncio.Event()
        self._done = asyncio.Event()
        self._exited = asyncio.Event()
        self._load_failure: Failure | None = None
        self._outcome: Success | Failure | AnswerBegun | None = None
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._is_abandoned = False
        self._chunk_came = asyncio.Event()
        self._stream_end: StreamEnded | None = None
        self._error: WorkerError | None = None
        self._eof_timer: asyncio.TimerHandle | None = None
        self.is_stopped = False
        self._process = ChildProcess(started.launched, self, loop, reaper)

    @property
    def pid(self) -> int:
        """Process id of Deno."""
        return self._process.pid

    def is_usable(self) -> bool:
        """Tell whether an invocation can be given to it, now or once it is ready."""
        # After a freeze the event may be read before the end of a process is told.
        self._reaper.poll(self.pid)
        return (
            self._error is None
            and self._process.status is None
            and self._eof_timer is None
            and self._connection.state in (State.STARTING, State.IDLE)
        )

    @property
    def is_answering(self) -> bool:
        """True once an invocation was handed to it."""
        return self._connection.state not in (State.STARTING, State.IDLE)

    @property
    def lost_work(self) -> WorkerError | None:
        """Why work handed to ``waitUntil`` did not end, None if it did."""
        return self._error if self._connection.state is State.FINISHING else None

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended and what it used; None while it runs."""
        return self._process.status

    @property
    def log_tail(self) -> str:
        """The last lines it logged."""
        return self._relay.tail

    async def ready(self) -> Failure | None:
        """Wait until the handler's module is loaded.

        Returns:
            None, or why the module did not load.

        Raises:
            WorkerError: The process broke off while it loaded.
        """
        await self._ready.wait()
        if self._load_failure is None and self._error is not None:
            raise self._error
        return self._load_failure

    async def invoke(
        self, invocation: Invocation, abort_epoch_ms: int
    ) -> Success | Failure | AnswerBegun:
        """Hand over an invocation and wait for what came of it, without a time limit.

        Args:
            invocation: The event and its facts; the worker must be ready.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.

        Raises:
            WorkerError: The process broke off before it answered.
        """
        for relay in (self._relay, self._stray):
            relay.request_id = invocation.request_id
            relay.tenant_id = invocation.tenant_id
        self.handed_over_s = time.monotonic()
        self._process.write_all(self._connection.invoke(invocation, abort_epoch_ms))
        await self._answered.wait()
        if self._outcome is not None:
            return self._outcome
        assert self._error is not None
        raise self._error

    async def next_chunk(self) -> bytes | StreamEnded:
        """Wait for the next piece of a streamed answer, without a time limit.

        Raises:
            WorkerError: The process broke off before the end of its answer.
        """
        while not self._chunks:
            if self._stream_end is not None:
                return self._stream_end
            if self._error is not None:
                raise self._error
            self._chunk_came.clear()
            await self._chunk_came.wait()
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk)
        if self._chunk_bytes < STREAM_BUFFER_BYTES:
            self._process.release_stdout()
        return chunk

    def abandon_stream(self) -> None:
        """Tell the handler that nobody listens any more, and drop what still comes."""
        if self._connection.state is not State.STREAMING or self._is_abandoned:
            return
        self._is_abandoned = True
        self._process.signal(CALLER_GONE_SIGNAL)
        self._chunks.clear()
        self._chunk_bytes = 0
        self._process.release_stdout()

    async def finished(self) -> None:
        """Wait until the worker has nothing left to do, or has ended."""
        await self._done.wait()

    def kill(self) -> None:
        """Send SIGKILL to its group; ``stop`` does the rest."""
        self.process_ending()
        self._process.signal_group(signal.SIGKILL)

    async def terminate(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL to what is left of the group after ``grace_s``."""
        if self._process.status is None:
            self.process_ending()
            self._process.signal_group(signal.SIGTERM)
            await self._wait_for_exit(grace_s)
        self.kill()

    async def stop(self, limit_s: float) -> bool:
        """End the process and all that descends from it; leave nothing behind.

        Cancelled or given up, it can be called again and does what is left.

        Args:
            limit_s: Given up after this long: something is stuck in the kernel.

        Returns:
            False if it, or something it started, could not be ended.
        """
        if self.is_stopped:
            return True
        begun_s = self._loop.time()
        self.kill()
        await self._wait_for_exit(limit_s)
        if self._process.status is None:
            return False
        # While its pipes are open: who writes to a closed one ends by itself.
        left_s = max(0.0, limit_s - (self._loop.time() - begun_s))
        is_swept = await self._reaper.sweep(left_s)
        self._process.drain()
        self._relay.flush()
        self._stray.flush()
        self._process.close()
        self._writer.forget(self._go_on_logging)
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        self.left_processes = self._reaper.ended - (self._ended_before or 0)
        self.left_files = self._state.remove_private(self._private_dir)
        self.is_stopped = True
        return is_swept

    async def _wait_for_exit(self, limit_s: float) -> None:
        import asyncio

        try:
            async with asyncio.timeout(limit_s):
                await self._exited.wait()
        except TimeoutError:
            return

    # What the process does (process.ProcessEvents).

    def stdout_received(self, data: bytes) -> None:
        """Take bytes of frames, and what strayed among them."""
        try:
            for event in self._connection.receive_data(data):
                match event:
                    case Ready():
                        self.ready_s = time.monotonic()
                        self._ready.set()
                    case Answered(Failure() as failure) if not self._ready.is_set():
                        self._load_failure = failure
                        self._ready.set()
                    case Answered(outcome):
                        self.answered_s = time.monotonic()
                        self._outcome = outcome
                        self._answered.set()
                    case StreamBegun(content_type):
                        self._outcome = AnswerBegun(content_type)
                        self._answered.set()
                    case Chunk(chunk):
                        self._take_chunk(chunk)
                    case StreamEnded() as end:
                        self.answered_s = time.monotonic()
                        self._stream_end = end
                        self._chunk_came.set()
                    case Done():
                        self._done.set()
                    case Stray(stray):
                        # An answer may come behind it, which must not wait for a log
                        # that is not read.
                        if self._writer.is_full:
                            self._writer.drop(max(1, stray.count(b"\n")))
                        else:
                            self._stray.feed(stray)
        except WorkerProtocolError as error:
            error.pid = self.pid
            error.stderr_tail = self.log_tail
            self._break_off(error)

    def _take_chunk(self, chunk: bytes) -> None:
        if self._is_abandoned or not chunk:
            return
        self._chunks.append(chunk)
        self._chunk_bytes += len(chunk)
        self._chunk_came.set()
        if self._chunk_bytes >= STREAM_BUFFER_BYTES:
            self._process.hold_stdout()

    def stdout_ended(self) -> None:
        """Wait a moment for the exit that belongs to this end."""
        stray = self._connection.receive_eof()
        if stray is not None:
            self._stray.feed(stray.data)
        if self._process.status is None:
            self._eof_timer = self._loop.call_later(EXIT_GRACE_S, self._stdout_closed)

    def _stdout_closed(self) -> None:
        self._break_off(
            WorkerProtocolError(
                f"Cannot read an answer: the worker closed its stdout while "
                f"{self._connection.state} and runs on",
                pid=self.pid,
                stderr_tail=self.log_tail,
            )
        )

    def stderr_received(self, data: bytes) -> None:
        """Relay lines of the log."""
        self._relay.feed(data)
        # Whoever logs more than is read waits; an answer on stdout does not.
        if self._writer.is_full:
            self._process.hold_stderr()
            self._writer.when_drained(self._go_on_logging)

    def _go_on_logging(self) -> None:
        self._process.release_stderr()

    def process_ending(self) -> None:
        """Note who was ended before; all who are from now on are what it left."""
        if self._ended_before is None:
            self._ended_before = self._reaper.ended

    def process_exited(self, status: ExitStatus) -> None:
        """Tell the end of the process to whoever waits for something else."""
        self._relay.flush()
        self._exited.set()
        is_oom = True
        if status.returncode == -signal.SIGKILL and self._oom_kills is not None:
            is_oom = oom_kills() != self._oom_kills
        self._break_off(
            exit_error(
                status,
                self.pid,
                self._connection.state,
                self.log_tail,
                self._sources,
                is_oom=is_oom,
            )
        )

    def _break_off(self, error: WorkerError) -> None:
        """Wake everybody; the error counts for what has not happened yet."""
        if self._error is None:
            self._error = error
        for event in (self._ready, self._answered, self._chunk_came, self._done):
            event.set()
