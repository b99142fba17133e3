"""Which process serves, and when it is ended, with processes that are none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.serving.shared_server import SharedServer
from lambda_deno_spawn.serving.strategy import Lease, WarmPolicy
from lambda_deno_spawn.worker.exchange import Exchange

if TYPE_CHECKING:
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.workers import Workers


class FakeExchange:
    """An invocation in a process; ``is_fine``: the process accepts another one."""

    number = 1
    handed_over_s = 0.0

    def __init__(self, *, is_fine: bool = True) -> None:
        self.leaves_worker_usable = is_fine


class FakeWorker:
    """A process that does nothing, and notes what is done to it."""

    pid = 1
    started = SimpleNamespace(started_s=0.0, spawn_s=0.0)
    ready_s: float | None = 0.0
    handed_over = 0
    exit_status = None
    left_processes = left_files = 0

    def __init__(self) -> None:
        self.is_alive = True
        self.is_stopped = False
        self.has_others = True
        self.closed: list[object] = []
        self.done: list[str] = []

    def is_usable(self) -> bool:
        return self.is_alive

    def has_read_another(self, _: object) -> bool:
        return self.has_others

    def close_exchange(self, exchange: object) -> None:
        self.closed.append(exchange)

    def kill(self) -> None:
        self.done.append("kill")

    async def terminate(self, _: float) -> None:
        self.done.append("terminate")


class FakeLeftovers:
    """There are none."""

    are_there = False


class FakeWorkers:
    """Starts them; ends one when the gate is open."""

    credentials = None

    def __init__(self) -> None:
        self.started: list[FakeWorker] = []
        self.stopped: list[Any] = []
        self.stopping: set[FakeWorker] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_stuck = False

    def is_outdated(self, *_: object) -> bool:
        return False

    def is_stopping(self, worker: FakeWorker) -> bool:
        return worker in self.stopping

    def start(self) -> FakeWorker:
        self.started.append(FakeWorker())
        return self.started[-1]

    async def stop(
        self, worker: FakeWorker, _: float, words_limit_s: float | None = None
    ) -> None:
        self.stopping.add(worker)
        try:
            await self.gate.wait()
        finally:
            self.stopping.discard(worker)
        self.stopped.append(worker)
        worker.is_stopped = not self.is_stuck


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers()


def make(workers: FakeWorkers, max_invocations: int | None = None) -> SharedServer:
    return SharedServer(
        cast("Workers", workers),
        cast("Leftovers", FakeLeftovers()),
        WarmPolicy(Warm.READY),
        max_invocations=max_invocations,
        concurrency=8,
    )


async def leased(server: SharedServer) -> Lease:
    lease = server.lease(lambda: 1.0)
    await lease.acquire()
    return lease


def fake(lease: Lease) -> FakeWorker:
    return cast("FakeWorker", lease.worker)


def hand_over(lease: Lease, *, is_fine: bool = True) -> Exchange:
    lease.exchange = cast("Exchange", FakeExchange(is_fine=is_fine))
    return lease.exchange


async def test_a_process_that_is_leased_is_not_ended_before_it_has_its_event(
    workers: FakeWorkers,
) -> None:
    """It was counted from the hand-over only, and ended in between."""
    server = make(workers)
    first, second = await leased(server), await leased(server)
    assert first.worker is second.worker
    hand_over(first, is_fine=False)
    await first.release()
    assert workers.stopped == []
    assert (await leased(server)).worker is not first.worker, "it gets no others"
    hand_over(second)
    await second.release()
    assert workers.stopped == [first.worker]


async def test_a_lease_is_given_back_once(workers: FakeWorkers) -> None:
    server = make(workers)
    first, second = await leased(server), await leased(server)
    for lease in (first, second):
        hand_over(lease, is_fine=False)
    await first.release()
    await first.release()
    first.give_back()
    assert workers.stopped == [], "the second one is still there"
    second.give_back()
    assert workers.stopped == [], "its end is left to the next release"
    await second.release()
    third = await leased(server)
    await third.release()
    assert workers.stopped == [first.worker]


async def test_a_block_that_is_cancelled_gives_its_lease_back(
    workers: FakeWorkers,
) -> None:
    server = make(workers, max_invocations=1)

    async def block() -> None:
        async with server.lease(lambda: 1.0) as lease:
            hand_over(lease)
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert workers.stopped == workers.started


async def test_a_process_is_assigned_no_more_events_than_it_may_serve(
    workers: FakeWorkers,
) -> None:
    """Those that had not been handed over were not counted."""
    server = make(workers, max_invocations=2)
    leases = [await leased(server) for _ in range(4)]
    taken = [lease.worker for lease in leases]
    assert taken[0] is taken[1]
    assert taken[2] is taken[3]
    assert taken[0] is not taken[2]
    for lease in leases[:2]:
        hand_over(lease)
        await lease.release()
    assert workers.stopped == [taken[0]]


async def test_a_process_that_cannot_be_reached_is_replaced_and_ended(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    first, other = await leased(server), await leased(server)
    fake(first).is_alive = False
    await first.release()
    second = await leased(server)
    assert second.worker is not first.worker
    assert workers.stopped == [], "another is on its way"
    await other.release()
    assert workers.stopped == [first.worker]


@pytest.mark.parametrize("has_read", [False, True])
async def test_at_a_deadline_a_process_ends_if_none_of_the_others_has_begun(
    workers: FakeWorkers, has_read: bool
) -> None:
    server = make(workers)
    late, other = await leased(server), await leased(server)
    fake(late).has_others = has_read
    exchange = hand_over(late)
    await late.stop(0.0)
    assert fake(late).closed == [exchange]
    assert fake(late).done == ([] if has_read else ["kill"])
    assert (await leased(server)).worker is not other.worker


async def test_at_a_deadline_a_process_ends_that_has_no_other_lease(
    workers: FakeWorkers,
) -> None:
    lease = await leased(make(workers))
    hand_over(lease)
    await lease.stop(0.0)
    assert fake(lease).done == ["terminate"]


async def test_a_process_that_loads_beyond_a_deadline_gets_no_other_event(
    workers: FakeWorkers,
) -> None:
    """Each event waited for it until its own time was over, for ever."""
    server = make(workers)
    late = await leased(server)
    fake(late).ready_s = None
    await late.stop(0.0)
    await late.release()
    assert workers.stopped == [late.worker]
    assert (await leased(server)).worker is not late.worker


async def test_a_deadline_of_one_leaves_alone_what_others_wait_for(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    late, other = await leased(server), await leased(server)
    fake(late).ready_s = None
    await late.stop(0.0)
    await late.release()
    assert (fake(late).done, workers.stopped) == ([], [])
    assert (await leased(server)).worker is not late.worker
    hand_over(other)
    await other.release()
    assert workers.stopped == [late.worker]


async def test_a_deadline_just_before_the_hand_over_leaves_the_process_alone(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    lease = await leased(server)
    await lease.stop(0.0)
    await lease.release()
    assert (fake(lease).done, workers.stopped) == ([], [])
    assert (await leased(server)).worker is lease.worker


async def test_a_process_that_loads_late_serves_if_no_other_has_loaded(
    workers: FakeWorkers,
) -> None:
    """A module that loads longer than an event may take would never serve."""
    server = make(workers)
    first, waiting = await leased(server), await leased(server)
    fake(first).ready_s = None
    await first.stop(0.0)
    await first.release()
    second = await leased(server)
    fake(second).ready_s = None
    fake(first).ready_s = 1.0
    hand_over(waiting)
    third = await leased(server)
    assert third.worker is waiting.worker
    await waiting.release()
    assert workers.stopped == []
    hand_over(second)
    await second.release()
    assert workers.stopped == [second.worker], "its place is taken"


async def test_a_process_in_doubt_is_not_taken_back(workers: FakeWorkers) -> None:
    server = make(workers)
    first, doubtful, other = [await leased(server) for _ in range(3)]
    fake(first).ready_s = None
    await first.stop(0.0)
    fake(first).ready_s = 1.0
    hand_over(doubtful, is_fine=False)
    await doubtful.release()
    assert (await leased(server)).worker is not other.worker


async def test_an_end_that_is_cancelled_or_in_vain_is_tried_again(
    workers: FakeWorkers,
) -> None:
    """The process was forgotten, and stayed until the end of the runtime."""
    server = make(workers)
    lease = await leased(server)
    hand_over(lease, is_fine=False)
    workers.gate.clear()
    ending = asyncio.create_task(lease.release())
    await asyncio.sleep(0)
    # While it is being ended nothing else ends it.
    await serve_one(server)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert workers.stopped == []
    workers.gate.set()
    workers.is_stuck = True
    for _ in range(2):
        await serve_one(server)
    assert workers.stopped == [lease.worker, lease.worker]
    workers.is_stuck = False
    for _ in range(2):
        await serve_one(server)
    assert workers.stopped == [lease.worker] * 3


async def serve_one(server: SharedServer) -> None:
    async with server.lease(lambda: 1.0) as lease:
        hand_over(lease)
