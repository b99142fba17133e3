"""Which worker serves where each has one invocation at a time, and how many wait."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.invocation import Failure, Invocation
from lambda_deno_spawn.serving.fresh_process import FreshProcess
from lambda_deno_spawn.serving.pool import Bounded, PoolPolicy, Unbounded
from lambda_deno_spawn.serving.strategy import WarmPolicy
from tests.unit.workers import FakeWorker, Machine

if TYPE_CHECKING:
    from lambda_deno_spawn.serving.strategy import Lease
    from lambda_deno_spawn.serving.template import Templates
    from tests.unit.hand_driven import HandDrivenLoop

BACKGROUND = WarmPolicy(Warm.BACKGROUND)
TWO_FIT = 160 + 2 * 30 + 5  # MB; a process of the tests has 30


class Pool:
    """A strategy, with what its workers do."""

    def __init__(
        self,
        loop: HandDrivenLoop,
        *,
        warm: WarmPolicy = BACKGROUND,
        policy: PoolPolicy | None = None,
        invocations: int = 1,
    ) -> None:
        self.loop = loop
        self.machine = Machine(invocations=invocations)
        self.strategy = loop.call(
            FreshProcess,
            self.machine.workers,
            self.machine.leftovers,
            warm,
            policy or Unbounded(),
        )

    @property
    def made(self) -> list[FakeWorker]:
        return self.machine.made

    def start(self) -> None:
        """Start with a worker that is loaded."""
        task = self.loop.begin(self.strategy.start(self.machine.launch({}), 9.0))
        self.load()
        assert task.result() is None

    def load(self) -> None:
        """Load what is loading."""
        for worker in self.machine.running:
            if worker.ready_s is None:
                self.loop.call(worker.deno.load)

    def lease(self) -> Lease:
        return self.loop.run(self.strategy.lease(lambda: 1.0).acquire())

    def hand_over(self, lease: Lease, name: str = "a") -> None:
        self.loop.run(lease.hand_over(Invocation(name, 0, "", b""), 0))

    def serve(self, lease: Lease, *, more: bool = False) -> None:
        """Respond and finish."""
        self.hand_over(lease)
        worker = deno_of(lease)
        self.loop.call(worker.deno.respond, b"1")
        self.loop.call(lambda: worker.deno.finish(more=more))

    def prepare(self, left_s: float = 1.0) -> None:
        task = self.loop.begin(self.strategy.prepare(lambda: left_s))
        self.load()
        assert task.done()


def deno_of(lease: Lease) -> FakeWorker:
    worker = lease.worker
    assert isinstance(worker, FakeWorker)
    return worker


def test_a_worker_serves_once_and_the_next_one_waits(loop: HandDrivenLoop) -> None:
    pool = Pool(loop)
    pool.start()
    first = pool.lease()
    assert first.worker is pool.made[0]
    pool.serve(first)
    loop.run(first.release())
    assert first.worker.is_stopped
    pool.prepare()
    second = pool.lease()
    assert second.worker is pool.made[1]
    assert len(pool.made) == 2, "one at a time"


def test_the_facts_of_a_lease_are_those_of_its_hand_over(loop: HandDrivenLoop) -> None:
    pool = Pool(loop)
    pool.start()
    lease = pool.lease()
    assert lease.is_alone
    pool.serve(lease)
    facts = lease.facts
    assert (facts.number, facts.is_first) == (1, True)
    assert facts.ready_s is not None
    assert facts.handed_over_s is not None
    assert facts.started_s <= facts.ready_s <= facts.handed_over_s
    assert lease.usage.exited is None
    loop.run(lease.release())
    assert lease.facts == facts
    assert lease.usage.exited is not None


def test_a_lease_whose_worker_never_had_an_event_has_facts_too(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop)
    lease = pool.lease()
    loop.run(lease.release())
    facts = lease.facts
    assert (facts.number, facts.is_first, facts.ready_s) == (0, True, None)


def test_a_worker_is_used_again_if_it_is_told_to_serve_more(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop, invocations=2)
    pool.start()
    for number in (1, 2):
        lease = pool.lease()
        assert lease.worker is pool.made[0]
        pool.serve(lease, more=number == 1)
        assert lease.facts.is_first is (number == 1)
        loop.run(lease.release())
    assert pool.made[0].is_stopped


def test_a_worker_that_serves_more_comes_before_those_that_wait(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop, policy=Bounded(3, None), invocations=2)
    pool.start()
    lease = pool.lease()
    pool.serve(lease, more=True)
    loop.run(lease.release())
    assert pool.lease().worker is lease.worker


def test_a_worker_that_says_it_serves_more_than_it_may_ends_with_its_lease(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop)
    pool.start()
    lease = pool.lease()
    pool.serve(lease, more=True)
    loop.run(lease.release())
    assert lease.worker.is_stopped


@pytest.mark.parametrize("doubt", ["busy", "exited", "stream", "no-event"])
def test_a_worker_in_doubt_is_not_used_again(loop: HandDrivenLoop, doubt: str) -> None:
    pool = Pool(loop, invocations=2)
    pool.start()
    lease = pool.lease()
    deno = deno_of(lease).deno
    if doubt == "exited":
        pool.serve(lease, more=True)
        loop.call(deno.exit, 0)
    elif doubt != "no-event":
        pool.hand_over(lease)
        if doubt == "stream":
            loop.call(deno.stream, b"chunk")
            assert lease.exchange is not None
            loop.call(lease.exchange.abandon_stream)
            loop.call(deno.end_stream)
            loop.call(lambda: deno.finish(more=True))
            assert signal.SIGUSR2 in deno.signals
    loop.run(lease.release())
    assert lease.worker.is_stopped
    assert pool.lease().worker is not lease.worker


@pytest.mark.parametrize("problem", ["exited", "too old"])
def test_a_waiting_worker_that_cannot_serve_is_replaced(
    loop: HandDrivenLoop, problem: str
) -> None:
    max_age_s = 3600.0 if problem == "exited" else 0.0
    pool = Pool(loop, warm=WarmPolicy(Warm.BACKGROUND, max_age_s))
    pool.start()
    if problem == "exited":
        loop.call(pool.made[0].deno.exit, 0)
    lease = pool.lease()
    assert lease.worker is pool.made[1]
    loop.settle()
    assert pool.made[0].exit_status is not None
    loop.run(lease.release())
    assert pool.machine.workers.is_empty, "both are ended with the lease"


@pytest.mark.parametrize("warm", list(Warm))
def test_the_next_worker_is_started_and_waited_for_as_the_policy_says(
    loop: HandDrivenLoop, warm: Warm
) -> None:
    pool = Pool(loop, warm=WarmPolicy(warm))
    pool.start()
    lease = pool.lease()
    pool.serve(lease)
    loop.run(lease.release())
    task = loop.begin(pool.strategy.prepare(lambda: 1.0))
    assert len(pool.made) == (1 if warm is Warm.OFF else 2)
    assert task.done() is (warm is not Warm.READY)
    loop.advance(1.0)
    assert task.done(), "it goes on loading in the next invocation's time"


def test_a_worker_that_cannot_be_started_ahead_is_started_for_its_event(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop)
    pool.machine.refusal = WorkerSpawnError("no process is left")
    loop.run(pool.strategy.prepare(lambda: 1.0))
    with pytest.raises(WorkerSpawnError):
        pool.lease()
    pool.machine.refusal = None
    assert pool.lease().worker is pool.made[0]


def test_a_module_that_does_not_load_fails_init(loop: HandDrivenLoop) -> None:
    pool = Pool(loop)
    task = loop.begin(pool.strategy.start(pool.machine.launch({}), 9.0))
    loop.call(pool.made[0].deno.fail_to_load)
    assert isinstance(task.result(), Failure)
    task = loop.begin(pool.strategy.start(pool.machine.launch({}), 9.0))
    loop.call(pool.made[1].deno.exit, 3)
    failure = task.result()
    assert failure is not None
    assert failure.error_type == "Runtime.ExitError"


def test_a_module_that_loads_for_long_does_not_fail_init(loop: HandDrivenLoop) -> None:
    pool = Pool(loop)
    task = loop.begin(pool.strategy.start(pool.machine.launch({}), 9.0))
    loop.advance(8.9)
    assert not task.done()
    loop.advance(0.2)
    assert task.result() is None
    assert pool.lease().worker is pool.made[0]


def test_with_several_at_once_as_many_wait_as_may_arrive(loop: HandDrivenLoop) -> None:
    pool = Pool(loop, policy=Bounded(3, None))
    pool.start()
    assert len(pool.made) == 3
    leases = [pool.lease() for _ in range(3)]
    assert [lease.worker for lease in leases] == pool.made[:3]
    loop.settle()
    assert len(pool.made) == 6, "the next ones are started beside the events"


def test_an_event_waits_for_room_in_the_order_of_arrival(loop: HandDrivenLoop) -> None:
    pool = Pool(loop, policy=Bounded(4, TWO_FIT))
    pool.start()
    leases = [pool.lease(), pool.lease()]
    waiting = [loop.begin(pool.strategy.lease(lambda: 1.0).acquire()) for _ in range(2)]
    assert [task.done() for task in waiting] == [False, False]
    assert len(pool.machine.running) == 2
    loop.run(leases[0].release())
    assert [task.done() for task in waiting] == [True, False]
    assert len(pool.machine.running) == 2
    loop.run(leases[1].release())
    assert waiting[1].done()


def test_an_event_that_no_longer_waits_for_room_takes_none(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop, policy=Bounded(4, TWO_FIT))
    pool.start()
    leases = [pool.lease(), pool.lease()]
    waiting = loop.begin(pool.strategy.lease(lambda: 1.0).acquire())
    waiting.cancel()
    loop.settle()
    loop.run(leases[0].release())
    pool.prepare()
    assert len(pool.machine.running) == 2, "the next one was started ahead"


def test_workers_are_counted_as_large_as_those_that_have_ended(
    loop: HandDrivenLoop,
) -> None:
    policy = Bounded(4, 160 + 8 * 31)
    pool = Pool(loop, policy=policy)
    pool.start()
    assert policy.limit == 8
    lease = pool.lease()
    deno_of(lease).deno.peak_bytes *= 4
    pool.serve(lease)
    loop.run(lease.release())
    assert policy.limit == 2


def test_without_a_first_worker_the_least_sizes_count(loop: HandDrivenLoop) -> None:
    policy = Bounded(4, 160 + 2 * 24 + 10)
    pool = Pool(loop, warm=WarmPolicy(Warm.OFF), policy=policy)
    assert loop.run(pool.strategy.start(None)) is None
    assert policy.limit == 2
    assert pool.made == []


def test_a_lease_that_is_cancelled_makes_room(loop: HandDrivenLoop) -> None:
    pool = Pool(loop, policy=Bounded(4, TWO_FIT))
    pool.start()
    leases = [pool.lease(), pool.lease()]
    waiting = loop.begin(pool.strategy.lease(lambda: 1.0).acquire())
    leases[0].give_back()
    loop.settle()
    assert waiting.done()
    assert not leases[0].worker.is_stopped, "its end is left to the next release"
    loop.run(leases[1].release())
    assert leases[0].worker.is_stopped


def test_a_block_gives_its_lease_back_whatever_ends_it(loop: HandDrivenLoop) -> None:
    pool = Pool(loop)

    async def block(error: BaseException) -> None:
        async with pool.strategy.lease(lambda: 1.0):
            raise error

    with pytest.raises(KeyError):
        loop.run(block(KeyError()))
    assert pool.made[0].is_stopped
    with pytest.raises(asyncio.CancelledError):
        loop.run(block(asyncio.CancelledError()))
    assert pool.made[1].is_stopped


def test_all_are_ended_before_a_snapshot_and_others_follow(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop)
    pool.start()
    assert loop.run(pool.strategy.clear())
    assert pool.made[0].is_stopped
    assert pool.lease().worker is pool.made[1]
    pool.made[1].deno.is_stuck = True
    assert not loop.run(pool.strategy.clear())


def test_a_worker_that_is_retired_with_last_words_is_heard_out(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop, invocations=5)
    pool.start()
    lease = pool.lease()
    pool.hand_over(lease)
    deno = deno_of(lease).deno
    loop.call(deno.respond, b"1")
    loop.call(deno.announce)
    loop.call(lambda: deno.finish(more=True))
    loop.run(lease.release())
    deno.ends_by_close = True
    pool.strategy._warm = WarmPolicy(Warm.OFF, 0.0)  # from now on it is too old
    second = pool.lease()
    assert second.worker is not lease.worker
    assert deno.signals == []
    loop.run(second.release())
    assert lease.worker.is_stopped
    assert lease.worker.exit_status is not None
    assert lease.worker.exit_status.returncode == 0


def test_at_the_end_a_worker_that_served_may_close_and_all_are_ended(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop, invocations=2)
    pool.start()
    lease = pool.lease()
    pool.hand_over(lease)
    lease.give_back()
    deno_of(lease).deno.ends_by_sigterm = True
    loop.run(pool.strategy.aclose(0.1))
    assert lease.worker.exit_status is not None
    assert lease.worker.exit_status.returncode == 0
    assert pool.machine.workers.is_empty


class FakeTemplates:
    """Notes which leftovers were there when a process was to be started."""

    def __init__(self, pool: Pool, *, is_due: bool) -> None:
        self.kept: set[FakeWorker] = set()
        self.worker = None
        self.were_there: list[bool] = []
        self._pool = pool
        self._is_due = is_due

    def is_due(self, _needed_s: float) -> bool:
        return self._is_due

    async def prepare(self, _needed_s: float, _limit_s: float, *, waits: bool) -> None:
        del waits
        self.were_there.append(self._pool.machine.leftovers.are_there)

    def take(self) -> None: ...


@pytest.mark.parametrize("is_due", [True, False])
def test_what_events_have_left_is_removed_before_a_template_is_started(
    loop: HandDrivenLoop, *, is_due: bool
) -> None:
    """Where /tmp is memory, there may be no room for both."""
    pool = Pool(loop)
    pool.start()
    templates = FakeTemplates(pool, is_due=is_due)
    pool.machine.workers.templates = cast("Templates", templates)
    pool.machine.state.has_leftovers, pool.machine.state.slices = True, 3
    pool.prepare()
    assert templates.were_there == [not is_due]


def test_a_template_is_told_of_a_process_that_ended_before_it_was_made(
    loop: HandDrivenLoop,
) -> None:
    pool = Pool(loop)
    pool.start()
    told: list[object] = []
    pool.machine.workers.make_templates = lambda _: cast(
        "Templates", SimpleNamespace(ended=told.append)
    )
    lease = pool.lease()
    pool.serve(lease)
    loop.run(lease.release())
    pool.machine.workers.find_templates()
    assert told == [lease.worker]
