"""Which process serves, and when it is ended, with processes that are none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.serving.shared_server import SharedServer
from lambda_deno_spawn.worker.exchange import Exchange

if TYPE_CHECKING:
    from lambda_deno_spawn.serving.workers import Workers


class FakeExchange:
    """An invocation in a process; ``is_fine``: the process takes another one."""

    def __init__(self, *, is_fine: bool = True) -> None:
        self.leaves_worker_usable = is_fine


class FakeWorker:
    """A process that does nothing, and notes what is done to it."""

    pid = 1
    started = SimpleNamespace(started_s=0.0)

    def __init__(self) -> None:
        self.is_alive = True
        self.is_stopped = False
        self.is_serving_another = True
        self.ended: list[object] = []
        self.done: list[str] = []

    def is_usable(self) -> bool:
        return self.is_alive

    def has_read_another(self, _: object) -> bool:
        return self.is_serving_another

    def close_exchange(self, exchange: object) -> None:
        self.ended.append(exchange)

    def kill(self) -> None:
        self.done.append("kill")

    async def terminate(self, _: float) -> None:
        self.done.append("terminate")


class FakeWorkers:
    """Starts them; ends one when the gate is open."""

    has_leftovers = False

    def __init__(self) -> None:
        self.started: list[FakeWorker] = []
        self.stopped: list[Any] = []
        self.stopping: set[FakeWorker] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_stuck = False

    async def renew_credentials(self, _: float) -> None:
        pass

    async def make_room(self) -> None:
        pass

    def is_outdated(self, *_: object) -> bool:
        return False

    def is_stopping(self, worker: FakeWorker) -> bool:
        return worker in self.stopping

    def start(self) -> FakeWorker:
        self.started.append(FakeWorker())
        return self.started[-1]

    async def stop(self, worker: FakeWorker, _: float) -> None:
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


def make(workers: FakeWorkers, **settings: Any) -> SharedServer:
    values = {"concurrency": 8, **settings}
    made = Settings(runtime_api="", handler="", task_root="", **values)
    return SharedServer(made, cast("Workers", workers))


def exchange(*, is_fine: bool = True) -> Exchange:
    return cast("Exchange", FakeExchange(is_fine=is_fine))


async def test_a_process_that_was_taken_is_not_ended_before_it_has_its_event(
    workers: FakeWorkers,
) -> None:
    """It was counted from the hand-over only, and ended in between."""
    server = make(workers)
    first, second = await server.take(), await server.take()
    assert first is second
    await server.give_back(first, exchange(is_fine=False), 1.0)
    assert workers.stopped == []
    assert await server.take() is not first, "it gets no others"
    await server.give_back(second, exchange(), 1.0)
    assert workers.stopped == [first]


async def test_a_process_is_assigned_no_more_events_than_it_may_serve(
    workers: FakeWorkers,
) -> None:
    """Those that had not been handed over were not counted."""
    server = make(workers, max_invocations=2)
    taken = [await server.take() for _ in range(4)]
    assert taken[0] is taken[1]
    assert taken[2] is taken[3]
    assert taken[0] is not taken[2]
    for worker in taken[:2]:
        await server.give_back(worker, exchange(), 1.0)
    assert workers.stopped == [taken[0]]


async def test_a_process_that_cannot_be_reached_is_replaced_and_ended(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    first = cast("FakeWorker", await server.take())
    await server.take()
    first.is_alive = False
    await server.give_back(cast("Any", first), None, 1.0)
    second = await server.take()
    assert cast("FakeWorker", second) is not first
    assert workers.stopped == [], "another is on its way"
    await server.give_back(cast("Any", first), None, 1.0)
    assert workers.stopped == [first]


@pytest.mark.parametrize("is_serving", [False, True])
async def test_at_a_deadline_a_process_ends_if_none_of_the_others_has_begun(
    workers: FakeWorkers, is_serving: bool
) -> None:
    server = make(workers)
    worker = await server.take()
    await server.take()
    fake, late = cast("FakeWorker", worker), exchange()
    fake.is_serving_another = is_serving
    await server.stop_for_deadline(worker, late, 0.0)
    assert fake.ended == [late]
    assert fake.done == ([] if is_serving else ["kill"])
    assert await server.take() is not worker


async def test_at_a_deadline_a_process_ends_that_nobody_else_was_assigned(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    worker = await server.take()
    await server.stop_for_deadline(worker, exchange(), 0.0)
    assert cast("FakeWorker", worker).done == ["terminate"]


async def test_a_deadline_of_one_leaves_alone_what_others_wait_for(
    workers: FakeWorkers,
) -> None:
    server = make(workers)
    worker = await server.take()
    await server.stop_for_deadline(worker, None, 0.0)
    assert cast("FakeWorker", worker).done == []
    assert await server.take() is worker


async def test_an_end_that_is_cancelled_or_in_vain_is_tried_again(
    workers: FakeWorkers,
) -> None:
    """The process was forgotten, and stayed until the end of the runtime."""
    server = make(workers)
    worker = await server.take()
    workers.gate.clear()
    ending = asyncio.create_task(server.give_back(worker, exchange(is_fine=False), 1))
    await asyncio.sleep(0)
    other = await server.take()
    # While it is being ended nobody else ends it.
    await server.give_back(other, exchange(), 1.0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert workers.stopped == []
    workers.gate.set()
    workers.is_stuck = True
    for _ in range(2):
        await server.give_back(await server.take(), exchange(), 1.0)
    assert workers.stopped == [worker, worker]
    workers.is_stuck = False
    for _ in range(2):
        await server.give_back(await server.take(), exchange(), 1.0)
    assert workers.stopped == [worker] * 3
