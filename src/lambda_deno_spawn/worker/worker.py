"""One Deno process from its start to the last byte it wrote.

Joins a child process, the frames on its stdout and the relay of its log. Invocations
go through its channel; what it means that the process broke off is a ``WorkerError``.
Does not know when a worker is started, or how many there are.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerOutOfMemoryError,
    WorkerProtocolError,
    WorkerSpawnError,
)
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.launch.command import CLOSE_SHARE
from lambda_deno_spawn.launch.entry import RUNTIME_JS, file_url
from lambda_deno_spawn.processes.child import ChildProcess
from lambda_deno_spawn.protocol.frames import (
    Answered,
    LastWords,
    Ready,
    State,
    Stray,
    WorkerConnection,
    close,
)
from lambda_deno_spawn.worker.channel import EXIT_GRACE_S
from lambda_deno_spawn.worker.exits import exit_error
from lambda_deno_spawn.worker.pipe_channel import PipeChannel
from lambda_deno_spawn.worker.socket_channel import SocketChannel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.processes.child import Footprint
    from lambda_deno_spawn.processes.reaper import ExitStatus, Reaper
    from lambda_deno_spawn.processes.state import Removal, StateDir
    from lambda_deno_spawn.worker.channel import Channel
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.start import StartedWorker

# Between SIGTERM and SIGKILL: time to flush a log, a quarter of the default margin.
TERMINATE_GRACE_S = 0.05
# After SIGKILL: a process ends within milliseconds, unless something keeps it.
HELD_S = 0.5

# The folder of runtime.js as the lines of a stack show it, also without its scheme.
OWN_FILES = (
    file_url(RUNTIME_JS).removeprefix("file://").removesuffix("runtime.js").encode()
)


class Worker:
    """A running Deno process that can serve invocations.

    The order of calls is ``ready``, ``hand_over``, ``close_exchange``, ``hear_out``,
    ``stop``; ``stop`` may come at any point and must come at the end. One exchange at a
    time, unless the worker listens on a socket. A cancelled call leaves the worker as
    it is.

    Attributes:
        started: What was started: times, folders and marker.
        ready_s: When its module was loaded, monotonic clock; None until then.
        has_last_words: Its program listens for its end: see ``hear_out``.
        left_processes: Programs that were still running when it was stopped.
        is_stopped: True once nothing of it is left to end.
    """

    def __init__(
        self,
        started: StartedWorker,
        writer: LogWriter,
        loop: asyncio.AbstractEventLoop,
        reaper: Reaper,
        state: StateDir,
        cache: ModuleCache,
    ) -> None:
        """Take charge of a process that was started."""
        import asyncio

        from lambda_deno_spawn.log.relay import Relay

        self.started = started
        self.ready_s: float | None = None
        self.has_last_words = False
        self.left_processes = 0
        self.is_stopped = False
        self._removal: Removal | None = None
        self._ended_before: int | None = None
        self._oom_kills = reaper.oom_kills.lately()
        self._is_killed = False
        self._is_closing = False
        self._state = state
        self._cache = cache
        self._writer = writer
        self._relay = Relay(writer, started.marker, OWN_FILES)
        self._stray = Relay(writer, started.marker, OWN_FILES)
        self._loop = loop
        self._reaper = reaper
        self._ready = asyncio.Event()
        self._exited = asyncio.Event()
        # Set when it exits, or says that it will.
        self._has_heard = asyncio.Event()
        self._load_failure: Failure | None = None
        self._error: WorkerError | None = None
        self._eof_timer: asyncio.TimerHandle | None = None
        self._connection = WorkerConnection(started.marker)
        self._process = self._make_process()
        self._channel = self._make_channel()

    def _make_process(self) -> ChildProcess:
        return ChildProcess(self.started.launched, self, self._loop, self._reaper)

    def _make_channel(self) -> Channel:
        started = self.started
        if started.socket is None:
            return PipeChannel(self._process, self._connection, started.invocations)
        return SocketChannel(
            started.socket, self.pid, started.marker, lambda: self.log_tail
        )

    @property
    def pid(self) -> int:
        """Process id of Deno."""
        return self._process.pid

    @property
    def handed_over(self) -> int:
        """How many invocations were handed to it."""
        return self._channel.handed_over

    def is_usable(self) -> bool:
        """Tell whether an invocation can be given to it, now or once it is ready."""
        # After a freeze the event may be read before the exit of a process is reported.
        self._reaper.poll(self._process.pid)
        return (
            self._error is None
            and not self._is_killed
            and not self._is_closing
            and self._channel.is_reachable
            and self._process.status is None
            and self._eof_timer is None
            and self._connection.state in (State.STARTING, State.IDLE)
        )

    def has_read_another(self, exchange: Exchange) -> bool:
        """Tell whether it has read an open invocation besides, or may have."""
        return self._channel.has_read_another(exchange)

    @property
    def left_files(self) -> int:
        """Files and folders in its private folder when it was stopped.

        A lower bound: those that have been removed by now.
        """
        return 0 if self._removal is None else self._removal.removed

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended and what it used; None while it runs."""
        return self._process.status

    @property
    def is_out_of_memory(self) -> bool:
        """True if it has ended because memory ran out."""
        return isinstance(self._error, WorkerOutOfMemoryError)

    def footprint(self) -> Footprint | None:
        """Return the memory and threads it uses now; None if they are not known."""
        return self._process.footprint()

    @property
    def log_tail(self) -> str:
        """The last lines it logged; empty if they may belong to another invocation."""
        return self._relay.tail if self._channel.open_exchanges < 2 else ""

    async def ready(self) -> Failure | None:
        """Wait until the handler's module is loaded.

        Returns:
            None, or why the module did not load.

        Raises:
            WorkerError: The process broke off while it loaded.
        """
        if not self._ready.is_set():
            await self._ready.wait()
        if self._load_failure is None and self._error is not None:
            raise self._error
        return self._load_failure

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Hand over an invocation; the worker must be ready.

        See ``channel.Channel.hand_over``.
        """
        self._state.have_private(self.started.private_dir)
        exchange = await self._channel.hand_over(invocation, abort_epoch_ms)
        # Its stderr belongs to this invocation if that is the only one.
        is_alone = self._channel.open_exchanges == 1
        for relay in (self._relay, self._stray):
            relay.request_id = invocation.request_id if is_alone else ""
            relay.tenant_id = invocation.tenant_id if is_alone else None
        # No caller is shown what was logged for another.
        if self._channel.handed_over > 1:
            self._relay.forget()
        return exchange

    async def reason_of(self, error: WorkerError) -> WorkerError:
        """Return why it was not reached: its exit, if that follows in a moment."""
        await self._wait_for(self._exited, EXIT_GRACE_S)
        return self._error or error

    def close_exchange(self, exchange: Exchange) -> None:
        """Forget an exchange that has ended, or that is no longer awaited."""
        self._process.drain_stderr()
        self.has_last_words |= exchange.has_last_words
        self._channel.close_exchange(exchange)

    def drain_log(self) -> None:
        """Relay what it has written to stderr so far: it belongs to what ran so far."""
        self._process.drain_stderr()

    def kill(self) -> None:
        """Send SIGKILL to its group; ``stop`` does the rest."""
        self.process_ending()
        self._is_killed = True
        self._process.signal_group(signal.SIGKILL)

    async def terminate(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL to the rest of the group after ``grace_s``.

        Not if it says meanwhile that it has heard, and has last words: ``hear_out``.
        """
        if self._process.status is None:
            self.process_ending()
            self._has_heard.clear()
            self._process.signal_group(signal.SIGTERM)
            await self._wait_for(self._has_heard, grace_s)
        if self._exited.is_set() or not self._has_heard.is_set():
            self.kill()
        else:
            self._is_closing = True

    async def hear_out(self, limit_s: float) -> bool:
        """Wait until a process that has last words has ended by itself, for a while.

        Returns:
            False if it has not.
        """
        if not self.has_last_words or self._is_killed:
            return True
        if self._process.status is None:
            self.process_ending()
            if not self._is_closing:
                self._is_closing = True
                limit_ms = max(0, int(limit_s * CLOSE_SHARE * 1000))
                # One that has served its last event knows, and reads no more.
                self._process.write_all([close(limit_ms)], ends=True)
            await self._wait_for(self._exited, limit_s)
        return self._process.status is not None

    async def close(self, grace_s: float) -> None:
        """Let it close what it has open: SIGTERM and the end of stdin, for a while.

        The signal wakes no process that is blocked in a read; the end of stdin does.

        Args:
            grace_s: How long to wait for its exit.
        """
        if self._process.status is None:
            self.process_ending()
            # The signal would end one at once that is about to end by itself.
            is_done = self.has_last_words and self._connection.state is State.DONE
            if not self._is_closing and not is_done:
                self._process.signal_group(signal.SIGTERM)
                self._process.close_stdin()
            await self._wait_for(self._exited, grace_s)
        self.has_last_words = False  # it has had its time

    async def stop(self, limit_s: float, spares: Callable[[int], bool]) -> bool:
        """End the process and all that descends from it; leave nothing behind.

        After a call that was cancelled, or that returned False, call it again: it does
        what is left.

        Args:
            limit_s: Give up after this long: something is stuck in the kernel.
            spares: Tells whether a process whose parent is gone belongs to a worker
                that goes on.

        Returns:
            False if it, or something it started, could not be ended.
        """
        if self.is_stopped:
            return True
        give_up_s = self._loop.time() + limit_s
        self.kill()
        await self._wait_for(self._exited, min(HELD_S, limit_s / 2))
        if self._process.status is None:
            # A descendant that traces it keeps its end from us (ptrace(2)).
            await self._reaper.sweep(self._left_s(give_up_s) / 2, spares)
            await self._wait_for(self._exited, self._left_s(give_up_s))
        if self._process.status is None:
            return False
        # While its pipes are open: a process that writes to a closed one ends itself.
        is_swept = await self._reaper.sweep(self._left_s(give_up_s), spares)
        self._process.drain()
        self._relay.flush()
        self._stray.flush()
        self._process.close()
        self._channel.close()
        self._writer.forget(self._resume_logging)
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        self.left_processes = self._reaper.ended - (self._ended_before or 0)
        self._removal = self._state.remove_private(self.started.private_dir)
        for path in (self.started.socket, self.started.input):
            if path is not None:
                self._state.remove_private(path)
        self._cache.remove(self.started.deno_dir)
        self.is_stopped = True
        return is_swept

    def _left_s(self, end_s: float) -> float:
        return max(0.0, end_s - self._loop.time())

    async def _wait_for(self, event: asyncio.Event, limit_s: float) -> None:
        import asyncio

        try:
            async with asyncio.timeout(limit_s):
                await event.wait()
        except TimeoutError:
            return

    # process.ProcessEvents

    def stdout_received(self, data: bytes) -> None:
        """Pass on frames, and relay what strayed among them."""
        connection = self._connection
        try:
            for event in connection.receive_data(data):
                match event:
                    case Ready():
                        self._separate()
                        self.ready_s = time.monotonic()
                        self._ready.set()
                    case Answered(Failure() as failure) if not self._ready.is_set():
                        self._load_failure = failure
                        self._ready.set()
                    case LastWords():
                        self.has_last_words = True
                        self._has_heard.set()
                    case Stray(stray):
                        # A response may follow, which must not wait for a log that is
                        # not read.
                        if self._writer.is_full:
                            self._writer.drop(max(1, stray.count(b"\n")))
                        else:
                            self._stray.feed(stray)
                    case _:
                        exchange = self._channel.on_stdout
                        if exchange is not None:
                            exchange.receive(event, connection.state)
        except WorkerProtocolError as error:
            error.pid = self.pid
            error.stderr_tail = self.log_tail
            self._break_off(error)

    def _separate(self) -> None:
        """Remove what it shares with other processes, before it has an event."""
        if self.started.input is not None:  # both ends are open
            self._state.remove_private(self.started.input)
        try:
            self._cache.loaded(self.started.deno_dir)
        except OSError as error:
            action = f"close the module cache {self.started.deno_dir!r}"
            self._break_off(WorkerSpawnError.from_os_error(action, error))

    def stdout_ended(self) -> None:
        """Wait a moment for the exit that explains the end of stdout."""
        stray = self._connection.receive_eof()
        if stray is not None:
            self._stray.feed(stray.data)
        if self._process.status is None:
            self._eof_timer = self._loop.call_later(EXIT_GRACE_S, self._stdout_closed)

    def _stdout_closed(self) -> None:
        self._break_off(
            WorkerProtocolError(
                f"Cannot read a response: the worker closed its stdout while "
                f"{self._connection.state} and runs on",
                pid=self.pid,
                stderr_tail=self.log_tail,
            )
        )

    def stderr_received(self, data: bytes) -> None:
        """Relay lines of the log."""
        self._relay.feed(data)
        # A worker that logs more than is read waits; a response on stdout does not.
        if self._writer.is_full:
            self._process.hold_stderr()
            self._writer.when_drained(self._resume_logging)

    def _resume_logging(self) -> None:
        self._process.release_stderr()

    def process_ending(self) -> None:
        """Count the strangers that end from now on as left behind by this worker."""
        if self._ended_before is None:
            self._ended_before = self._reaper.ended

    def process_exited(self, status: ExitStatus) -> None:
        """Fail all that waits for something else of the process."""
        self._relay.flush()
        self._exited.set()
        self._has_heard.set()
        is_oom = False
        if status.returncode == -signal.SIGKILL and not self._is_killed:
            before = self._oom_kills
            is_oom = before is None or self._reaper.oom_kills.now() != before
        tail = self._relay.tail
        error = exit_error(
            status,
            self.pid,
            self._connection.state,
            tail,
            self.started.sources,
            is_oom=is_oom,
        )
        # The caller is not shown what may belong to another.
        error.stderr_tail = tail if self._channel.open_exchanges < 2 else ""
        self._break_off(error)

    def _break_off(self, error: WorkerError) -> None:
        """Raise this error for all that has not happened yet; the first one counts."""
        if self._error is None:
            self._error = error
        self._ready.set()
        self._channel.fail(error)
