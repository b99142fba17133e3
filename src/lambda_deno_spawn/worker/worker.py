"""One Deno process from its start to the last byte it wrote.

Joins a child process, its end of the wire protocol and the relay of its log: what comes
out are exchanges, and for each a ``WorkerError`` if the process broke off. Refuses to
know when a worker is started or how many there are; that is ``strategies.py``.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerProtocolError,
    WorkerSpawnError,
    WorkerUnreachedError,
)
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.processes.child import ChildProcess
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Ready,
    State,
    Stray,
    WorkerConnection,
)
from lambda_deno_spawn.worker.exchange import Exchange
from lambda_deno_spawn.worker.exits import exit_error
from lambda_deno_spawn.worker.http_link import HttpLink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.processes.child import Footprint
    from lambda_deno_spawn.processes.reaper import ExitStatus, Reaper
    from lambda_deno_spawn.processes.state import Removal, StateDir
    from lambda_deno_spawn.worker.start import StartedWorker

# A process that closed its stdout is given this long to end by itself, so that its exit
# code can be told; measured exits of Deno take 1-5 ms, a busy small machine needs more.
EXIT_GRACE_S = 0.5
# Between SIGTERM and SIGKILL: time to flush a log, a quarter of the default margin.
TERMINATE_GRACE_S = 0.05
# To connect takes 0.1 ms, unless so many wait already that the kernel takes no more.
CONNECT_SOON_S = 0.5
# No connection for want of these is no fault of the worker's.
OUR_OWN_WANT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
# Tells the worker that nobody listens to its stream any more; runtime.js knows it.
CALLER_GONE_SIGNAL = signal.SIGUSR2


class Worker:
    """A running Deno process that can serve invocations.

    The order of calls is ``ready``, ``begin``, ``stop``; ``stop`` may come at any point
    and must come at the end. One exchange at a time, unless it is reached by a socket.
    A cancelled call leaves the worker as it is.

    Attributes:
        started_s: When it was started; this and the next on the monotonic clock.
        ready_s: When its module was loaded; None until then.
        spawn_s: How long the call took that started it.
        private_dir: Its folder, in the environment of it and of what it starts.
        begun: How many invocations were handed to it; the last one's number.
        left_processes: Programs that were still running when it was stopped.
        is_stopped: Nothing of it is left to end.
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
        """Take over a started process."""
        import asyncio

        from lambda_deno_spawn.log.relay import Relay

        self.started_s = started.started_s
        self.spawn_s = started.spawn_s
        self.ready_s: float | None = None
        self.begun = 0
        self.left_processes = 0
        self._removal: Removal | None = None
        self._ended_before: int | None = None
        self._oom_kills = reaper.oom_kills.lately()
        self._is_killed = False
        self._is_unreachable = False
        self._state = state
        self._cache = cache
        self._deno_dir = started.deno_dir
        self._writer = writer
        self._connection = WorkerConnection(started.marker)
        self.private_dir = started.private_dir
        self._sources = started.sources
        self._socket = started.socket
        self._invocations = started.invocations
        # With the connection that each is on, if that is not the pipes.
        self._exchanges: dict[Exchange, HttpLink | None] = {}
        self._links: list[HttpLink] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._marker = started.marker
        self._relay = Relay(writer, started.marker)
        self._stray = Relay(writer, started.marker)
        self._loop = loop
        self._reaper = reaper
        self._ready = asyncio.Event()
        self._exited = asyncio.Event()
        self._load_failure: Failure | None = None
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
            and not self._is_unreachable
            and self._process.status is None
            and self._eof_timer is None
            and self._connection.state in (State.STARTING, State.IDLE)
        )

    def serves_another(self, exchange: Exchange) -> bool:
        """Tell whether it has begun an invocation besides, or may have."""
        return any(
            link is None or (link.carries(other) and not link.is_unread)
            for other, link in self._exchanges.items()
            if other is not exchange
        )

    @property
    def left_files(self) -> int:
        """Files and folders in its private folder when it was stopped.

        At least: those that have been removed by now.
        """
        return 0 if self._removal is None else self._removal.removed

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended and what it used; None while it runs."""
        return self._process.status

    def footprint(self) -> Footprint | None:
        """Return what its process takes up now; None if that is not known."""
        return self._process.footprint()

    @property
    def log_tail(self) -> str:
        """The last lines it logged; empty if they may be those of another's."""
        return self._relay.tail if len(self._exchanges) < 2 else ""

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

    async def begin(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Hand over an invocation.

        Args:
            invocation: The event and its facts; the worker must be ready.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.

        Raises:
            WorkerUnreachedError: The process cannot be reached.
            WorkerSpawnError: There is nothing left to reach it with.
        """
        self._state.have_private(self.private_dir)
        if self._socket is not None:
            return await self._begin_http(self._socket, invocation, abort_epoch_ms)
        self.begun += 1
        # Written first: nothing is read before this returns, so the rest can follow.
        buffers = self._connection.invoke(invocation, abort_epoch_ms)
        self._process.write_all(buffers, ends=self.begun == self._invocations)
        self._attribute_log(invocation)
        exchange = Exchange(self._connection, self, self.begun)
        self._exchanges[exchange] = None
        return exchange

    async def _begin_http(
        self, socket: str, invocation: Invocation, abort_epoch_ms: int
    ) -> Exchange:
        link = self._free_link() or await self._connect(socket)
        # Not before: another may have begun meanwhile, and this one might not have.
        self.begun += 1
        number = self.begun
        exchange = link.begin(
            self._marker,
            number,
            invocation,
            abort_epoch_ms,
            on_lost=self._link_lost,
            on_abandon=lambda: self._abandon(socket, number),
        )
        self._attribute_log(invocation)
        self._exchanges[exchange] = link
        return exchange

    def _free_link(self) -> HttpLink | None:
        while self._links:
            link = self._links.pop()
            if link.is_open:
                return link
        return None

    async def _connect(self, socket: str) -> HttpLink:
        begun_s = self._loop.time()
        try:
            return await HttpLink.connect(socket, self.pid, self._links.append)
        except OSError as error:
            if error.errno in OUR_OWN_WANT:
                action = "connect to the handler's process"
                raise WorkerSpawnError.from_os_error(action, error) from error
            raise self._unreached(error.strerror or str(error)) from error
        except BaseException:
            # Its queue was full, and whoever waited has a deadline before ours.
            if self._loop.time() - begun_s > CONNECT_SOON_S:
                self._is_unreachable = True
            raise

    def _link_lost(self, exchange: Exchange, is_unread: bool) -> None:
        """Wait a moment for the exit that belongs to the end of a connection."""
        if is_unread:
            exchange.break_off(self._unreached("it closed the connection unread"))
        elif self._error is not None:
            exchange.break_off(self._error)
        else:
            error = WorkerProtocolError(
                "Cannot read an answer: the worker's server closed the connection, and "
                "the process runs on",
                pid=self.pid,
                stderr_tail=self.log_tail,
            )
            self._loop.call_later(EXIT_GRACE_S, exchange.break_off, error)

    def _unreached(self, reason: str) -> WorkerUnreachedError:
        """Note that nobody is to be sent to it any more, and say why."""
        self._is_unreachable = True
        return WorkerUnreachedError(
            f"Cannot reach the worker's server: {reason}",
            pid=self.pid,
            stderr_tail=self.log_tail,
        )

    async def reason_of(self, error: WorkerError) -> WorkerError:
        """Return why it was not reached: its end, if that comes in a moment."""
        await self._wait_for_exit(EXIT_GRACE_S)
        return self._error or error

    def _abandon(self, socket: str, number: int) -> None:
        async def tell() -> None:
            with contextlib.suppress(WorkerError):  # its end tells more
                link = self._free_link() or await self._connect(socket)
                link.abandon(number)

        task = self._loop.create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, exchange: Exchange) -> None:
        """Forget an exchange that has ended, or that nobody waits for any more."""
        self.drain_log()
        link = self._exchanges.pop(exchange, None)
        exchange.close()
        if link is not None and link.carries(exchange):
            link.close()

    def drain_log(self) -> None:
        """Relay what it has written to stderr by now: it belongs to what ran by now."""
        self._process.drain_stderr()

    def _attribute_log(self, invocation: Invocation) -> None:
        """Let what it writes to stderr belong to an invocation, if that is certain."""
        is_alone = not self._exchanges
        for relay in (self._relay, self._stray):
            relay.request_id = invocation.request_id if is_alone else ""
            relay.tenant_id = invocation.tenant_id if is_alone else None
        # Nobody is told what was logged for another.
        if self.begun > 1:
            self._relay.forget()

    # What an exchange asks of its way, if that are the pipes (exchange.Carrier).

    def hold(self) -> None:
        """Leave frames in the pipe."""
        self._process.hold_stdout()

    def release(self) -> None:
        """Take frames again."""
        self._process.release_stdout()

    def tell_caller_gone(self) -> None:
        """Tell it that nobody listens to its stream any more."""
        self._process.signal(CALLER_GONE_SIGNAL)

    def kill(self) -> None:
        """Send SIGKILL to its group; ``stop`` does the rest."""
        self.process_ending()
        self._is_killed = True
        self._process.signal_group(signal.SIGKILL)

    async def terminate(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL to what is left of the group after ``grace_s``."""
        if self._process.status is None:
            self.process_ending()
            self._process.signal_group(signal.SIGTERM)
            await self._wait_for_exit(grace_s)
        self.kill()

    async def close(self, grace_s: float) -> None:
        """Let it close what it has open: SIGTERM and the end of stdin, for a while.

        The signal wakes no process that is blocked in a read; the end of stdin does.

        Args:
            grace_s: How long its end is waited for.
        """
        if self._process.status is None:
            self.process_ending()
            self._process.signal_group(signal.SIGTERM)
            self._process.close_stdin()
            await self._wait_for_exit(grace_s)

    async def stop(self, limit_s: float, spares: Callable[[int], bool]) -> bool:
        """End the process and all that descends from it; leave nothing behind.

        Cancelled or given up, it can be called again and does what is left.

        Args:
            limit_s: Given up after this long: something is stuck in the kernel.
            spares: Tells of a process whose parent is gone that it belongs to a worker
                that goes on.

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
        is_swept = await self._reaper.sweep(left_s, spares)
        self._process.drain()
        self._relay.flush()
        self._stray.flush()
        self._process.close()
        for link in [*self._links, *self._exchanges.values()]:
            if link is not None:
                link.close()
        self._writer.forget(self._go_on_logging)
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        self.left_processes = self._reaper.ended - (self._ended_before or 0)
        self._removal = self._state.remove_private(self.private_dir)
        if self._socket is not None:
            self._state.remove_private(self._socket)
        self._cache.remove(self._deno_dir)
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
                        self._separate()
                        self.ready_s = time.monotonic()
                        self._ready.set()
                    case Answered(Failure() as failure) if not self._ready.is_set():
                        self._load_failure = failure
                        self._ready.set()
                    case Stray(stray):
                        # An answer may come behind it, which must not wait for a log
                        # that is not read.
                        if self._writer.is_full:
                            self._writer.drop(max(1, stray.count(b"\n")))
                        else:
                            self._stray.feed(stray)
                    case _:
                        for exchange in self._exchanges:
                            exchange.take(event)
        except WorkerProtocolError as error:
            error.pid = self.pid
            error.stderr_tail = self.log_tail
            self._break_off(error)

    def _separate(self) -> None:
        """Take from it, before it has an event, what others share with it."""
        try:
            self._cache.loaded(self._deno_dir)
        except OSError as error:
            action = f"close the module cache {self._deno_dir!r}"
            self._break_off(WorkerSpawnError.from_os_error(action, error))

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
        is_oom = False
        if status.returncode == -signal.SIGKILL and not self._is_killed:
            before = self._oom_kills
            is_oom = before is None or self._reaper.oom_kills.now() != before
        error = exit_error(
            status,
            self.pid,
            self._connection.state,
            self._relay.tail,
            self._sources,
            is_oom=is_oom,
        )
        error.stderr_tail = self.log_tail
        self._break_off(error)

    def _break_off(self, error: WorkerError) -> None:
        """Wake everybody; the error counts for what has not happened yet."""
        if self._error is None:
            self._error = error
        self._ready.set()
        for exchange, link in self._exchanges.items():
            if link is None or not link.carries(exchange):
                exchange.break_off(error)
            else:
                # What it has sent is read first; how its connection ends tells whether
                # the event was read. Both are there already if the process has ended.
                self._loop.call_later(EXIT_GRACE_S, exchange.break_off, error)
