"""Executions, leases and workers in any order of what can happen to them.

A state machine plays several events at once: modules that load or do not, responses in
any order, streams that are left, processes that exit, broken frames, connections that
take their time or fail, deadlines, cancellation, and the end of the runtime.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.errors import (
    WorkerProtocolError,
    WorkerSpawnError,
    WorkerUnreachedError,
)
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.protocol.frames import State
from lambda_deno_spawn.serving.execution import Execution
from lambda_deno_spawn.serving.fresh_process import FreshProcess
from lambda_deno_spawn.serving.pool import Bounded, Unbounded
from lambda_deno_spawn.serving.shared_server import SharedServer
from lambda_deno_spawn.serving.strategy import Lease, WarmPolicy
from tests.unit.hand_driven import HandDrivenLoop
from tests.unit.workers import FakeWorker, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.worker import Worker

EPOCH_S = 1_795_000_000.0
MARGIN_S = 0.2
REUSE = 3
POOL_MB = 160 + 3 * 31


class Ledger:
    """What becomes of each lease; mixed into a strategy."""

    leases: list[Lease]
    returned: list[Lease]

    def lease(self, left_s: Callable[[], float]) -> Lease:
        lease = super().lease(left_s)  # type: ignore[misc]
        self.leases.append(lease)
        return cast("Lease", lease)

    def take_back(self, lease: Lease) -> None:
        assert lease not in self.returned, "a lease is given back once"
        self.returned.append(lease)
        super().take_back(lease)  # type: ignore[misc]

    async def end_unused(self, lease: Lease, limit_s: float) -> None:
        await super().end_unused(lease, limit_s)  # type: ignore[misc]
        worker = lease.worker
        is_used = worker in [one.worker for one in self.held] or worker in self.kept
        # One that was cancelled meanwhile leaves the end to the next release.
        last = [one for one in self.returned if one.worker is worker][-1]
        assert (
            lease is not last
            or is_used
            or worker.is_stopped
            or (self.is_stopping(worker))
        ), "a worker of no use ends with its last lease"

    def is_stopping(self, worker: Worker) -> bool:
        raise NotImplementedError

    @property
    def kept(self) -> set[Worker]:
        """Workers that get further invocations."""
        raise NotImplementedError

    @property
    def held(self) -> list[Lease]:
        """Leases that have a worker and were not given back."""
        return [
            lease
            for lease in self.leases
            if hasattr(lease, "worker") and lease not in self.returned
        ]


class WatchedFresh(Ledger, FreshProcess):
    """One worker for each invocation."""

    def is_stopping(self, worker: Worker) -> bool:
        return self._workers.is_stopping(worker)

    @property
    def kept(self) -> set[Worker]:
        return set(self._waiting)


class WatchedServer(Ledger, SharedServer):
    """One worker for all."""

    def is_stopping(self, worker: Worker) -> bool:
        return self._workers.is_stopping(worker)

    @property
    def kept(self) -> set[Worker]:
        return set() if self._server is None else {self._server}


class Event:
    """One event, and what its caller sees of it."""

    def __init__(self, name: str, execution: Execution, deadline_s: float) -> None:
        self.name = name
        self.execution = execution
        self.deadline_s = deadline_s
        self.outcome: Success | Failure | Streaming | None = None
        self.received: list[bytes] = []
        self.read_since_s = 0.0
        self.is_stream_over = False
        self.running: Any = None
        self.reading: Any = None
        self.settling: Any = None

    async def run(self) -> None:
        self.outcome = await self.execution.run()

    async def read(self) -> None:
        assert isinstance(self.outcome, Streaming)
        async for chunk in self.outcome.chunks:
            self.received.append(chunk)
        self.is_stream_over = True

    @property
    def is_over(self) -> bool:
        """True once it has settled, or was cancelled."""
        was_cancelled = self.running.done() and self.running.cancelled()
        return was_cancelled or (self.settling is not None and self.settling.done())


class Serving(RuleBasedStateMachine):
    """Everything between the loop and the processes."""

    way: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = HandDrivenLoop()
        self.events: list[Event] = []
        # Names of the events that each worker was handed, by whether it read them.
        self.names: dict[FakeWorker, list[str]] = {}
        self.is_closed = False

    @initialize(warm=st.sampled_from(list(Warm)), has_first=st.booleans())
    def begin(self, warm: Warm, has_first: bool) -> None:
        limits = {"fresh": 1, "reuse": REUSE, "pool": 1, "server": 0}
        self.machine = Machine(
            invocations=limits[self.way], listens=self.way == "server"
        )
        self.strategy: Any = self.loop.call(self._strategy, WarmPolicy(warm))
        self.strategy.leases, self.strategy.returned = [], []
        if has_first and warm is not Warm.OFF:
            start = self.strategy.start(self.machine.launch({}))
        else:
            start = self.strategy.start(None)
        starting = self.loop.begin(start)
        if has_first and warm is not Warm.OFF:
            self.loop.call(self.machine.made[0].deno.load)
        assert starting.result() is None

    def _strategy(self, warm: WarmPolicy) -> Any:
        workers, leftovers = self.machine.workers, self.machine.leftovers
        if self.way == "server":
            return WatchedServer(
                workers, leftovers, warm, max_invocations=REUSE, concurrency=4
            )
        pool = Bounded(4, POOL_MB) if self.way == "pool" else Unbounded()
        return WatchedFresh(workers, leftovers, warm, pool)

    # What can happen.

    @property
    def current(self) -> list[Event]:
        return [event for event in self.events if not event.is_over]

    @property
    def may_arrive(self) -> bool:
        at_once = 4 if self.way in ("pool", "server") else 1
        return not self.is_closed and len(self.current) < at_once

    @precondition(lambda self: self.may_arrive)
    @rule(timeout_s=st.sampled_from([1.0, 3.0, 10.0]))
    def arrive(self, timeout_s: float) -> None:
        name = f"event-{len(self.events)}"
        deadline_s = self.loop.now_s + timeout_s
        invocation = Invocation(name, round((EPOCH_S + deadline_s) * 1000), "", b"{}")
        execution = self.loop.call(
            lambda: Execution(
                self.strategy,
                self.machine.log,
                MARGIN_S,
                None,
                None,
                invocation,
                lambda: EPOCH_S + self.loop.now_s,
            )
        )
        event = Event(name, execution, deadline_s)
        self.events.append(event)
        event.running = self.loop.begin(event.run())

    @property
    def loading(self) -> list[FakeWorker]:
        return [
            worker
            for worker in self.machine.running
            if worker._connection.state is State.STARTING
        ]

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), how=st.sampled_from(["loads", "loads", "fails", "exits"]))
    def load(self, data: st.DataObject, how: str) -> None:
        deno = data.draw(st.sampled_from(self.loading), "loading").deno
        if how == "loads":
            self.loop.call(deno.load)
        elif how == "fails":
            self.loop.call(deno.fail_to_load)
        else:
            self.loop.call(deno.exit, 1)

    @property
    def open_exchanges(self) -> list[tuple[FakeWorker, Exchange, str]]:
        """Invocations that workers have, with the names of their events."""
        found: list[tuple[FakeWorker, Exchange, str]] = []
        for worker in self.machine.running:
            if self.way == "server":
                found += [
                    (worker, exchange, name)
                    for exchange, name in worker.channel.exchanges.items()
                    if not exchange.has_finished
                ]
            elif worker._channel.on_stdout is not None:
                exchange = worker._channel.on_stdout
                if not exchange.has_finished:
                    found.append((worker, exchange, worker.deno.requests[-1]))
        return found

    @precondition(lambda self: self.open_exchanges)
    @rule(data=st.data(), broken=st.sampled_from([False] * 9 + [True]))
    def go_on(self, data: st.DataObject, broken: bool) -> None:
        """Have a worker send its next frame: names say whose it is."""
        exchanges = self.open_exchanges
        worker, exchange, name = data.draw(st.sampled_from(exchanges), "exchange")
        if broken:
            self.loop.call(self._break, worker, exchange)
            return
        if exchange.state is State.BUSY:
            does = data.draw(st.sampled_from(["respond", "stream"]))
        elif exchange.state is State.STREAMING:
            does = data.draw(st.sampled_from(["chunk", "end"]))
        else:
            does = "finish"
        more = data.draw(st.booleans()) if does == "finish" else False
        if self.way == "server":
            worker.channel.read.add(exchange)
            self.loop.call(self._over_socket, worker, exchange, name, does, more)
        else:
            self.loop.call(self._over_pipe, worker, name, does, more)

    def _over_pipe(self, worker: FakeWorker, name: str, does: str, more: bool) -> None:
        deno = worker.deno
        match does:
            case "respond":
                deno.respond(name.encode())
            case "stream":
                deno.stream(name.encode())
            case "chunk":
                deno.chunk(name.encode())
            case "end":
                deno.end_stream()
            case _:
                deno.finish(more=more and len(deno.requests) < REUSE)

    def _over_socket(
        self, worker: FakeWorker, exchange: Exchange, name: str, does: str, more: bool
    ) -> None:
        channel = worker.channel
        match does:
            case "respond":
                channel.respond(exchange, name.encode())
            case "stream":
                channel.begin_stream(exchange)
                channel.send_chunk(exchange, name.encode())
            case "chunk":
                channel.send_chunk(exchange, name.encode())
            case "end":
                channel.end_stream(exchange)
            case _:
                channel.finish(exchange, more=more)

    def _break(self, worker: FakeWorker, exchange: Exchange) -> None:
        if self.way == "server":
            exchange.fail(WorkerProtocolError("broken"))
        else:
            worker.deno.load()  # READY is not allowed now

    @precondition(lambda self: self.way == "server" and self.open_exchanges)
    @rule(data=st.data())
    def close_unread(self, data: st.DataObject) -> None:
        """End a connection whose event was not read."""
        unread = [
            (worker, exchange)
            for worker, exchange, _ in self.open_exchanges
            if exchange.state is State.BUSY and exchange not in worker.channel.read
        ]
        if unread:
            worker, exchange = data.draw(st.sampled_from(unread), "unread")
            worker.channel.is_reachable = False
            worker.channel.exchanges.pop(exchange)
            self.loop.call(exchange.fail, WorkerUnreachedError("unread"))

    @precondition(lambda self: self.way == "server" and self.machine.running)
    @rule(data=st.data(), opens=st.booleans())
    def connections(self, data: st.DataObject, opens: bool) -> None:
        """Let connections to a worker take their time, or be made."""
        gate = data.draw(st.sampled_from(self.machine.running), "worker").channel.gate
        self.loop.call(gate.set if opens else gate.clear)

    @precondition(lambda self: self.machine.running)
    @rule(
        data=st.data(),
        returncode=st.sampled_from([0, 3, -signal.SIGKILL]),
    )
    def exit(self, data: st.DataObject, returncode: int) -> None:
        worker = data.draw(st.sampled_from(self.machine.running), "worker")
        self.loop.call(worker.deno.exit, returncode)

    @rule(holds=st.booleans(), refuses=st.booleans())
    def system(self, holds: bool, refuses: bool) -> None:
        """Let the kernel hold what is killed, and refuse processes; or not."""
        self.machine.reaper.holds = holds
        error = WorkerSpawnError("no process is left")
        self.machine.refusal = error if refuses else None

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @property
    def unread_streams(self) -> list[Event]:
        return [
            event
            for event in self.events
            if isinstance(event.outcome, Streaming)
            and event.reading is None
            and event.settling is None
        ]

    @precondition(lambda self: self.unread_streams)
    @rule(data=st.data())
    def read_stream(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.unread_streams), "stream")
        event.read_since_s = self.loop.now_s
        event.reading = self.loop.begin(event.read())

    @property
    def unsettled(self) -> list[Event]:
        return [
            event
            for event in self.events
            if event.outcome is not None
            and event.settling is None
            and not self.is_closed
        ]

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Post the response, or have its caller leave in the middle of it."""
        event = data.draw(st.sampled_from(self.unsettled), "event")
        if event.reading is not None:
            event.reading.cancel()
            self.loop.settle()
        event.settling = self.loop.begin(event.execution.settle(None))

    @precondition(lambda self: self.way in ("pool", "server") and self.current)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.current), "event")
        if event.settling is None:
            event.running.cancel()
            self.loop.settle()

    @precondition(lambda self: not self.is_closed and len(self.events) > 2)
    @rule()
    def close(self) -> None:
        """End the runtime, as ``bootstrap`` does: cancel what runs, then close."""
        self._close()

    def _close(self) -> None:
        for event in self.unsettled:  # the loop was cancelled while it posted
            lease = event.execution._lease
            if lease is not None:
                lease.give_back()
        self.is_closed = True
        for event in self.events:
            for task in (event.running, event.reading, event.settling):
                if task is not None:
                    task.cancel()
        self.loop.settle()
        self.machine.has_closed = True
        self.machine.reaper.holds = False
        self.loop.run(self.strategy.aclose(0.1))
        assert all(worker.is_stopped for worker in self.machine.made)

    # What always holds.

    @invariant()
    def all_holds(self) -> None:
        self.nothing_was_raised_without_being_asked()
        self.a_response_reaches_its_own_invocation_only()
        self.every_event_has_its_outcome_by_its_deadline()
        self.numbers_are_unique_and_no_event_is_handed_over_twice()
        self.a_worker_is_lent_as_often_as_it_may_be()
        self.a_lease_is_held_by_an_execution_that_runs()
        self.what_is_of_no_use_has_ended()
        self.there_are_no_more_workers_than_there_is_room_for()

    def nothing_was_raised_without_being_asked(self) -> None:
        assert self.loop.errors == []
        for event in self.events:
            for task in (event.running, event.reading, event.settling):
                if task is not None and task.done() and not task.cancelled():
                    task.result()

    def a_response_reaches_its_own_invocation_only(self) -> None:
        for event in self.events:
            if isinstance(event.outcome, Success):
                assert event.outcome.payload == event.name.encode()
            assert set(event.received) <= {event.name.encode()}

    def every_event_has_its_outcome_by_its_deadline(self) -> None:
        for event in self.events:
            if self.loop.now_s >= event.deadline_s:
                assert event.running.done(), event.name
            # One that is read late is stopped then.
            if self.loop.now_s >= max(event.deadline_s, event.read_since_s + MARGIN_S):
                assert event.reading is None or event.reading.done(), event.name

    def numbers_are_unique_and_no_event_is_handed_over_twice(self) -> None:
        if self.way == "server":
            for worker in self.machine.made:
                numbers = [one.number for one in worker.channel.all_exchanges]
                assert len(set(numbers)) == len(numbers)
        else:
            names = [name for one in self.machine.made for name in one.deno.requests]
            assert len(set(names)) == len(names)

    def a_worker_is_lent_as_often_as_it_may_be(self) -> None:
        held: list[Worker] = [lease.worker for lease in self.strategy.held]
        limit = 1 if self.way in ("fresh", "pool") else REUSE
        for worker in self.machine.made:
            assert worker.handed_over <= limit
        if self.way == "server":
            leases = [one for one in self.strategy.leases if hasattr(one, "worker")]
            ever = [lease.worker for lease in leases]
            assert all(ever.count(worker) <= limit for worker in ever)
        else:
            assert len(set(held)) == len(held), "never to two at once"

    def a_lease_is_held_by_an_execution_that_runs(self) -> None:
        if self.is_closed:
            return
        holders = [event.execution._lease for event in self.current]
        for lease in self.strategy.held:
            assert lease in holders

    def what_is_of_no_use_has_ended(self) -> None:
        # The next release ends it, or the end of the runtime.
        had_no_release = any(
            event.running.cancelled() or event.execution._lease is None
            for event in self.events
        )
        if self.current or had_no_release or self.is_closed:
            return
        for worker in self.machine.running:
            assert worker in self.strategy.kept

    def there_are_no_more_workers_than_there_is_room_for(self) -> None:
        if self.way == "pool":
            there = len(self.strategy._waiting) + len(self.strategy._lent)
            limit = self.strategy._pool.limit
            assert limit is not None
            assert there <= max(limit, 3)

    def teardown(self) -> None:
        if hasattr(self, "strategy"):
            if not self.is_closed:
                for event in self.unsettled:
                    event.settling = self.loop.begin(event.execution.settle(None))
                self._close()
            assert self.strategy.held == [], "every lease was given back"
        self.loop.end()


def machine_of(way_played: str, examples: int) -> type[RuleBasedStateMachine]:
    class Played(Serving):
        way = way_played

    Played.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=40, deadline=None
    )
    return Played


TestFresh = machine_of("fresh", 60).TestCase
TestReuse = machine_of("reuse", 60).TestCase
TestPool = machine_of("pool", 100).TestCase
TestServer = machine_of("server", 100).TestCase
