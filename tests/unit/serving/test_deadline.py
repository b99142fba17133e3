"""The clock of an invocation, set only while something is waited for."""

from __future__ import annotations

import asyncio

import pytest

from lambda_deno_spawn.serving.deadline import TimeLimit


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
