"""Deadline arithmetic, and the timer that is set only while a task waits."""

from __future__ import annotations

import asyncio

import pytest

from lambda_deno_spawn.serving.deadline import Deadline, TimeLimit

DEADLINE_EPOCH_MS = 1_542_409_706_888


@pytest.mark.parametrize(
    ("now_epoch_s", "remaining_s"),
    [
        pytest.param(1_542_409_703.888, 3.0, id="before"),
        pytest.param(1_542_409_706.888, 0.0, id="at-the-deadline"),
        pytest.param(1_542_409_800.0, 0.0, id="after"),
    ],
)
def test_remaining_time_is_never_below_zero(
    now_epoch_s: float, remaining_s: float
) -> None:
    deadline = Deadline(DEADLINE_EPOCH_MS, 0.0, lambda: now_epoch_s)
    found = (deadline.remaining_s(), deadline.left_s(), deadline.limit_s)
    assert found == pytest.approx((remaining_s,) * 3, abs=1e-6)
    assert deadline.abort_epoch_ms == DEADLINE_EPOCH_MS


@pytest.mark.parametrize(
    ("remaining_s", "configured_s", "margin_s"),
    [
        pytest.param(900.0, 0.2, 0.2, id="the-longest-timeout"),
        pytest.param(1.0, 0.2, 0.2, id="the-shortest-timeout"),
        pytest.param(0.5, 0.2, 0.1, id="a-fifth-of-a-short-rest"),
        pytest.param(0.0, 0.2, 0.0, id="nothing-left"),
        pytest.param(3.0, 0.0, 0.0, id="no-margin-wanted"),
        pytest.param(3.0, 60.0, 0.6, id="more-wanted-than-there-is"),
    ],
)
def test_stop_margin_is_the_configured_one_or_a_fifth_of_the_rest(
    remaining_s: float, configured_s: float, margin_s: float
) -> None:
    deadline = Deadline(round(remaining_s * 1000), configured_s, lambda: 0.0)
    assert deadline.margin_s == pytest.approx(margin_s)
    assert deadline.limit_s == pytest.approx(remaining_s - margin_s)
    assert deadline.left_s() == pytest.approx(remaining_s - margin_s)
    assert deadline.abort_epoch_ms == round((remaining_s - 2 * margin_s) * 1000)


def test_margin_and_limit_stay_what_they_were_when_the_event_arrived() -> None:
    now_s = [0.0]
    deadline = Deadline(1000, 0.2, lambda: now_s[0])
    now_s[0] = 0.9
    assert (deadline.margin_s, deadline.limit_s) == pytest.approx((0.2, 0.8))
    assert deadline.remaining_s() == pytest.approx(0.1)
    assert deadline.left_s() == pytest.approx(0.08), "a fifth of what is left is kept"


async def test_a_limit_ends_what_waits_longer() -> None:
    with pytest.raises(TimeoutError), TimeLimit(0):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_limit_leaves_alone_what_is_ready_before_it() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    with TimeLimit(3600):
        await event.wait()
    with TimeLimit(0):
        pass  # nothing is waited for, so no clock is set
    await asyncio.sleep(0)


async def test_an_error_within_a_limit_stays_that_error() -> None:
    with pytest.raises(KeyError), TimeLimit(0):
        raise KeyError
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_stays_one() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with TimeLimit(3600):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_beside_the_clock_s_own_is_not_swallowed() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        with TimeLimit(0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                loop.call_soon(task.cancel)
                await asyncio.sleep(0)
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_limits_may_be_nested() -> None:
    with pytest.raises(TimeoutError), TimeLimit(3600), TimeLimit(0):
        await asyncio.Event().wait()
