"""Signals as callbacks, with real signals to this process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from lambda_deno_spawn.processes.signals import Signals

LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


async def test_each_arrival_calls_back() -> None:
    signals = Signals(asyncio.get_running_loop())
    arrived: asyncio.Queue[str] = asyncio.Queue()
    signals.handle(signal.SIGUSR1, lambda: arrived.put_nowait("one"))
    signals.handle(signal.SIGUSR2, lambda: arrived.put_nowait("two"))
    try:
        async with asyncio.timeout(LIMIT_S):
            for number, name in (
                (signal.SIGUSR1, "one"),
                (signal.SIGUSR1, "one"),
                (signal.SIGUSR2, "two"),
            ):
                os.kill(os.getpid(), number)
                assert await arrived.get() == name
        assert arrived.empty()
    finally:
        signals.close()


async def test_an_error_in_one_callback_does_not_silence_the_next() -> None:
    loop = asyncio.get_running_loop()
    signals = Signals(loop)
    arrived = asyncio.Event()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    signals.handle(signal.SIGUSR1, lambda: errors[0])
    signals.handle(signal.SIGUSR2, arrived.set)
    try:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        async with asyncio.timeout(LIMIT_S):
            await arrived.wait()
        assert [type(error) for error in errors] == [IndexError]
    finally:
        signals.close()


async def test_once_closed_signals_have_no_effect() -> None:
    signals = Signals(asyncio.get_running_loop())
    calls: list[int] = []
    signals.handle(signal.SIGUSR1, lambda: calls.append(1))
    signals.close()
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0)
    assert calls == []
