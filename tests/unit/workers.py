"""Workers without processes: what is sent to them is noted, a test says what they do.

All but process and socket is the real thing: workers, pipe channels, exchanges and the
wire protocol, whose frames are spelled by hand here.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.log.writer import LogWriter
from lambda_deno_spawn.processes.child import Footprint
from lambda_deno_spawn.processes.launch import Launched
from lambda_deno_spawn.processes.reaper import ExitStatus
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    State,
    StreamBegun,
    StreamEnded,
)
from lambda_deno_spawn.serving.leftovers import Leftovers
from lambda_deno_spawn.serving.workers import WorkerFactory, Workers
from lambda_deno_spawn.worker.exchange import Exchange
from lambda_deno_spawn.worker.start import StartedWorker
from lambda_deno_spawn.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_deno_spawn.errors import WorkerError
    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.processes.child import ChildProcess
    from lambda_deno_spawn.processes.reaper import Reaper
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper
    from lambda_deno_spawn.worker.channel import Channel

MARKER = "0123456789abcdef" * 2


def frame(kind: str, body: bytes = b"", **more: object) -> bytes:
    """Spell a frame."""
    head = {"kind": kind, "bytes": len(body), **more}
    line = json.dumps(head, separators=(",", ":"))
    return f"{MARKER}{line}\n".encode() + body + f"{MARKER}\n".encode()


class FakeLog(LogWriter):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.text = b""
        self.is_held_up = False
        self.callbacks: list[Callable[[], None]] = []

    @property
    def is_full(self) -> bool:
        return self.is_held_up

    def write_block(self, data: bytes) -> None:
        self.text += data

    def when_drained(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        self.callbacks = [one for one in self.callbacks if one != callback]


@dataclass(slots=True)
class FakeRemoval:
    """What was in a folder."""

    removed: int = 0


@dataclass(slots=True)
class FakeState:
    """The supervisor's folder, with nothing in it."""

    removed: list[str] = field(default_factory=list)
    left_files: int = 0
    is_slow: bool = False
    has_leftovers: bool = False
    is_short: bool = False
    slices: int = 0

    def have_private(self, path: str) -> None:
        """It is there."""

    def remove_private(self, path: str) -> FakeRemoval:
        self.removed.append(path)
        return FakeRemoval(self.left_files)

    def private_dir_of(self, _pid: int) -> str | None:
        return None

    def is_short_of_room(self) -> bool:
        return self.is_short

    def remove_some(self) -> bool:
        self.slices -= self.slices > 0
        self.has_leftovers = self.slices > 0
        return not self.has_leftovers


class FakeCache:
    """Deno's cache: nothing to do."""

    def loaded(self, path: str) -> None:
        """It was not changed."""

    def remove(self, path: str) -> None:
        """It is gone."""


class FakeOomKills:
    """The kernel's count."""

    def __init__(self) -> None:
        self.count = 0

    def lately(self) -> int:
        return self.count

    def now(self) -> int:
        return self.count


class FakeReaper:
    """Sweeps at once, unless the kernel holds something."""

    def __init__(self) -> None:
        self.ended = 0
        self.oom_kills = FakeOomKills()
        self.holds = False
        self.spared: list[Callable[[int], bool]] = []

    def poll(self, pid: int) -> None:
        """Nothing has ended that was not told."""

    async def sweep(self, limit_s: float, spares: Callable[[int], bool]) -> bool:
        self.spared.append(spares)
        await asyncio.sleep(limit_s if self.holds else 0)
        return not self.holds


class Deno:
    """A process that does what a test says; ``child.ChildProcess``.

    Attributes:
        events: Whom it tells (the worker).
        requests: Ids of the events that were written to its stdin.
        stdin: What was written to it.
        signals: Signals that it was sent.
        ends_by_sigterm: It exits with 0 when it is asked to.
        ends_by_close: It exits with 0 when it is told that it serves no more.
        is_stuck: Not even SIGKILL ends it.
    """

    def __init__(self, pid: int, events: Worker) -> None:
        self.pid = pid
        self.events = events
        self.status: ExitStatus | None = None
        self.requests: list[str] = []
        self.stdin: list[bytes] = []
        self.has_stdin = True
        self.signals: list[int] = []
        self.ends_by_sigterm = False
        self.ends_by_close = False
        self.is_stuck = False
        self.is_closed = False
        self.peak_bytes = 30 * 2**20
        self._held: list[bytes] | None = None
        self._unread_log = b""
        self._holds_log = False

    # What the supervisor does.

    def write_all(self, buffers: list[bytes], *, ends: bool) -> None:
        if not self.has_stdin:
            return
        self.stdin += buffers
        self.has_stdin = not ends
        line = json.loads(buffers[0])
        if "requestId" in line:
            self.requests.append(line["requestId"])
        elif self.ends_by_close:
            asyncio.get_running_loop().call_soon(self.exit, 0)

    def close_stdin(self) -> None:
        self.has_stdin = False

    def signal_group(self, number: signal.Signals) -> None:
        self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        if self.status is not None:
            return
        self.signals.append(number)
        if number == signal.SIGKILL and not self.is_stuck:
            asyncio.get_running_loop().call_soon(self.exit, -number)
        elif number == signal.SIGTERM and self.ends_by_sigterm:
            asyncio.get_running_loop().call_soon(self.exit, 0)

    def hold_stdout(self) -> None:
        self._held = self._held or []

    def release_stdout(self) -> None:
        held, self._held = self._held, None
        for data in held or []:
            self.write(data)

    def hold_stderr(self) -> None:
        self._holds_log = True

    def release_stderr(self) -> None:
        self._holds_log = False
        self.drain_stderr()

    def drain_stderr(self) -> None:
        data, self._unread_log = self._unread_log, b""
        if data:
            self.events.stderr_received(data)

    def drain(self) -> None:
        self.release_stdout()
        self.drain_stderr()

    def close(self) -> None:
        self.is_closed = True

    def footprint(self) -> Footprint:
        return Footprint(self.peak_bytes, 0, 6)

    # What the process does.

    def write(self, data: bytes) -> None:
        """Write to stdout."""
        if self._held is not None:
            self._held.append(data)
        elif not self.is_closed:
            self.events.stdout_received(data)

    def log(self, text: str, *, is_read: bool = True) -> None:
        """Write to stderr."""
        self._unread_log += text.encode()
        if is_read and not self._holds_log:
            self.drain_stderr()

    def load(self) -> None:
        """Load the module."""
        self.write(frame("READY"))

    def fail_to_load(self) -> None:
        """Find that the module does not load."""
        self.write(frame("ERROR", b"{}", errorType="Runtime.ImportModuleError"))

    def respond(self, payload: bytes) -> None:
        """Send a result."""
        self.write(frame("RESULT", payload))

    def throw(self) -> None:
        """Send an error of the handler's."""
        self.write(frame("ERROR", b"{}", errorType="RangeError"))

    def stream(self, chunk: bytes) -> None:
        """Begin a stream, and send a chunk."""
        self.write(frame("STREAM", contentType="text/plain"))
        self.chunk(chunk)

    def chunk(self, chunk: bytes) -> None:
        """Send a chunk of a stream."""
        self.write(frame("CHUNK", chunk))

    def end_stream(self) -> None:
        """Send the end of a stream."""
        self.write(frame("END"))

    def announce(self) -> None:
        """Have last words."""
        self.write(frame("LAST"))

    def finish(self, *, more: bool = False) -> None:
        """Have nothing left to do."""
        self.write(frame("DONE", more=True) if more else frame("DONE"))

    def exit(self, returncode: int) -> None:
        """End."""
        if self.status is None:
            self.events.process_ending()
            self.drain()
            self.status = ExitStatus(returncode, 0.25, 0.5, self.peak_bytes)
            self.events.process_exited(self.status)


@dataclass(slots=True)
class FakeChannel:
    """A socket of a worker: carries several exchanges; ``channel.Channel``.

    Attributes:
        gate: Connections are made once it is open.
        refusal: Raised instead of making one.
        exchanges: Those that are open, with the id of the event of each.
        read: Those that the worker has read.
        abandoned: Numbers of streams whose callers have left.
    """

    handed_over: int = 0
    on_stdout: Exchange | None = None
    is_reachable: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: WorkerError | None = None
    exchanges: dict[Exchange, str] = field(default_factory=dict)
    all_exchanges: list[Exchange] = field(default_factory=list)
    read: set[Exchange] = field(default_factory=set)
    abandoned: list[int] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    is_closed: bool = False

    @property
    def open_exchanges(self) -> int:
        return len(self.exchanges)

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        await self.gate.wait()
        if self.refusal is not None:
            self.is_reachable = False
            raise self.refusal
        self.handed_over += 1
        exchange = Exchange(self.handed_over, self)
        self.exchanges[exchange] = invocation.request_id
        self.all_exchanges.append(exchange)
        return exchange

    def has_read_another(self, exchange: Exchange) -> bool:
        return bool(self.read & (self.exchanges.keys() - {exchange}))

    def close_exchange(self, exchange: Exchange) -> None:
        self.exchanges.pop(exchange, None)
        exchange.close()

    def fail(self, error: WorkerError) -> None:
        for exchange in self.exchanges:
            exchange.fail(error)

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.held.append("pause")

    def resume_reading(self) -> None:
        self.held.append("resume")

    def notify_caller_gone(self, number: int) -> None:
        self.abandoned.append(number)

    # What the worker does.

    def respond(self, exchange: Exchange, payload: bytes) -> None:
        exchange.receive(Answered(Success(payload)), State.FINISHING)

    def fail_with(self, exchange: Exchange, error_type: str) -> None:
        exchange.receive(Answered(Failure.of(error_type, "")), State.FINISHING)

    def begin_stream(self, exchange: Exchange) -> None:
        exchange.receive(StreamBegun("text/plain"), State.STREAMING)

    def send_chunk(self, exchange: Exchange, chunk: bytes) -> None:
        exchange.receive(Chunk(chunk), State.STREAMING)

    def end_stream(self, exchange: Exchange) -> None:
        exchange.receive(StreamEnded(None), State.FINISHING)

    def finish(self, exchange: Exchange, *, more: bool = True) -> None:
        exchange.receive(Done(), State.IDLE if more else State.DONE)


class FakeWorker(Worker):
    """A worker whose process is ``deno``; with ``channel``, it listens on a socket."""

    deno: Deno
    channel: FakeChannel

    def __hash__(self) -> int:
        """Keep the order of sets the same from run to run."""
        return self.started.launched.pid

    def _make_process(self) -> ChildProcess:
        self.deno = Deno(self.started.launched.pid, self)
        return cast("ChildProcess", self.deno)

    def _make_channel(self) -> Channel:
        if self.started.socket is None:
            return super()._make_channel()
        self.channel = FakeChannel()
        self.channel.gate.set()
        return self.channel


class Machine:
    """Makes such workers, and knows all that were ever made.

    Attributes:
        made: Every worker.
        refusal: Raised instead of starting a process.
        has_closed: Nothing may be started any more.
        variables: What the last process was given beside the command's.
    """

    def __init__(
        self,
        *,
        invocations: int = 1,
        listens: bool = False,
        credentials: CredentialsKeeper | None = None,
    ) -> None:
        self.log = FakeLog()
        self.state = FakeState()
        self.reaper = FakeReaper()
        self.made: list[FakeWorker] = []
        self.refusal: WorkerError | None = None
        self.has_closed = False
        self.variables: Mapping[str, str] = {}
        self.launched = 0
        self._invocations = invocations
        self._listens = listens
        self.workers = Workers(
            cast("WorkerFactory", self), self.state.private_dir_of, credentials
        )
        self.leftovers = Leftovers(self.state, is_beside_events=False)

    def launch(self, variables: Mapping[str, str]) -> StartedWorker:
        assert not self.has_closed, "nothing is started after the end"
        if self.refusal is not None:
            raise self.refusal
        self.variables = variables
        self.launched += 1
        folder = f"/tmp/{self.launched}"
        return StartedWorker(
            Launched(1000 + self.launched, -1, -1, -1),
            MARKER,
            folder,
            f"{folder}.cache",
            time.monotonic(),
            0.001,
            "the default settings",
            self._invocations,
            f"{folder}.socket" if self._listens else None,
        )

    def remove_shared_memory(self) -> None:
        """There are no programs that could have left any."""

    def adopt(self, started: StartedWorker) -> FakeWorker:
        worker = FakeWorker(
            started,
            self.log,
            asyncio.get_running_loop(),
            cast("Reaper", self.reaper),
            cast("StateDir", self.state),
            cast("ModuleCache", FakeCache()),
        )
        self.made.append(worker)
        return worker

    @property
    def running(self) -> list[FakeWorker]:
        """Those whose processes have not ended."""
        return [worker for worker in self.made if worker.deno.status is None]

    def start(self) -> FakeWorker:
        """Start a worker that nobody has asked for."""
        return self.adopt(self.launch({}))
