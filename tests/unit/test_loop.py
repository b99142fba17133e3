"""The loops: order of calls, stopping, several side by side, asking again.

The Runtime API and executions are stand-ins here: what is tested is the order in which
they are called. The real ones are in tests/integration.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.invocation import Failure, Invocation, Outcome, Success
from lambda_deno_spawn.serving.loop import (
    RETRIES,
    PersistentRuntimeApi,
    RuntimeLoop,
    Stop,
    run_until,
    serve,
)

OK = Success(b"1")


def invocation(request_id: str) -> Invocation:
    return Invocation(request_id, 0, "", b"{}")


def refused(call: str = "next") -> RuntimeApiError:
    return RuntimeApiError(call, "for the test", status=500, is_fatal=True)


@dataclass
class Api:
    """Hands out invocations in order and then waits; notes each call."""

    script: list[str | Exception]
    calls: list[str]
    polls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    report_errors: list[RuntimeApiError] = field(default_factory=list)

    async def next(self) -> Invocation:
        self.calls.append("next")
        self.polls.release()
        if not self.script:
            try:
                await asyncio.Event().wait()
            finally:
                self.calls.append("cancelled")
        entry = self.script.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return invocation(entry)

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        self.calls.append(f"report {invocation.request_id}")
        if self.report_errors:
            raise self.report_errors.pop(0)
        return "Refused" if isinstance(outcome, Failure) else None


@dataclass
class Execution:
    """Runs when its gate opens; settles when the other one does."""

    invocation: Invocation
    calls: list[str]
    outcome: Outcome = OK
    gate: asyncio.Event | None = None
    settle_gate: asyncio.Event | None = None

    async def run(self) -> Outcome:
        self.calls.append(f"run {self.invocation.request_id}")
        if self.gate is not None:
            await self.gate.wait()
        return self.outcome

    async def settle(self, refusal: str | None) -> None:
        self.calls.append(f"settle {self.invocation.request_id} {refusal}")
        if self.settle_gate is not None:
            await self.settle_gate.wait()
        self.calls.append(f"settled {self.invocation.request_id}")


@dataclass
class Runtime:
    """A loop with its two ends."""

    api: Api
    calls: list[str]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    settle_gate: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome = OK

    def loop(self, *, settles_beside: bool = False) -> RuntimeLoop:
        return RuntimeLoop(self.api, self.begin, settles_beside=settles_beside)

    def begin(self, invocation: Invocation) -> Execution:
        return Execution(
            invocation, self.calls, self.outcome, self.gate, self.settle_gate
        )


def runtime(*script: str | Exception, outcome: Outcome = OK) -> Runtime:
    calls: list[str] = []
    made = Runtime(Api(list(script), calls), calls, outcome=outcome)
    made.gate.set()
    made.settle_gate.set()
    return made


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - nothing tells of a call
            await asyncio.sleep(0)


async def test_each_invocation_is_settled_before_the_next_is_asked_for() -> None:
    one = runtime("a", "b", refused())
    with pytest.raises(RuntimeApiError):
        await one.loop().run()
    assert one.calls == [
        "next", "run a", "report a", "settle a None", "settled a",
        "next", "run b", "report b", "settle b None", "settled b",
        "next",
    ]  # fmt: skip


async def test_settle_is_told_what_was_refused() -> None:
    one = runtime("a", refused(), outcome=Failure.of("Error", "for the test"))
    with pytest.raises(RuntimeApiError):
        await one.loop().run()
    assert "settle a Refused" in one.calls


async def test_beside_a_managed_instance_asks_again_while_it_settles() -> None:
    one = runtime("a")
    one.settle_gate.clear()
    loop = one.loop(settles_beside=True)
    task = asyncio.create_task(loop.run())
    await until(lambda: one.calls.count("next") == 2 and len(one.calls) == 5)
    assert one.calls[:3] == ["next", "run a", "report a"]
    assert sorted(one.calls[3:]) == ["next", "settle a None"]
    loop.stop()
    await asyncio.sleep(0)
    assert not task.done(), "it waits for what settles"
    one.settle_gate.set()
    await task
    assert one.calls[-1] == "settled a"


async def test_cancelling_a_loop_cancels_what_settles() -> None:
    one = runtime("a")
    one.settle_gate.clear()
    task = asyncio.create_task(one.loop(settles_beside=True).run())
    await until(lambda: "settle a None" in one.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert "settled a" not in one.calls
    assert len(asyncio.all_tasks()) == 1


async def test_what_fails_while_it_settles_beside_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Execution):
        async def settle(self, refusal: str | None) -> None:
            raise ZeroDivisionError

    one = runtime("a")
    loop = RuntimeLoop(one.api, lambda it: Broken(it, one.calls), settles_beside=True)
    task = asyncio.create_task(loop.run())
    with caplog.at_level(logging.ERROR, "lambda_deno_spawn"):
        await until(lambda: bool(caplog.records))
    assert "ZeroDivisionError" in caplog.text
    loop.stop()
    await task


async def test_stopping_a_loop_that_waits_ends_it() -> None:
    one = runtime()
    loop = one.loop()
    task = asyncio.create_task(loop.run())
    await one.api.polls.acquire()
    loop.stop()
    await task
    assert one.calls == ["next", "cancelled"]


async def test_stopping_a_loop_that_runs_lets_it_end() -> None:
    one = runtime("a", "b")
    one.gate.clear()
    loop = one.loop()
    task = asyncio.create_task(loop.run())
    await until(lambda: "run a" in one.calls)
    loop.stop()
    one.gate.set()
    await task
    assert one.calls == ["next", "run a", "report a", "settle a None", "settled a"]


async def test_cancelling_a_loop_that_was_stopped_is_no_end_in_order() -> None:
    one = runtime()
    loop = one.loop()
    task = asyncio.create_task(loop.run())
    await one.api.polls.acquire()
    loop.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_serve_drains_each_loop() -> None:
    some = [runtime(f"a{n}", f"b{n}") for n in range(3)]
    idle = runtime()
    for one in some:
        one.gate.clear()
    stop = Stop()
    loops = [one.loop() for one in (*some, idle)]
    task = asyncio.create_task(serve(loops, stop, None))
    await until(lambda: all(len(one.calls) == 2 for one in some))
    stop.ask()
    await until(lambda: idle.calls == ["next", "cancelled"])
    for one in some:
        assert not task.done()
        one.gate.set()
    await task
    assert [one.calls[-1] for one in some] == ["settled a0", "settled a1", "settled a2"]


async def test_serve_gives_up_at_its_limit() -> None:
    one = runtime("a")
    one.gate.clear()
    stop = Stop()
    stop.ask()
    await serve([one.loop()], stop, 0.0)
    assert "report a" not in one.calls
    assert len(asyncio.all_tasks()) == 1


async def test_serve_ends_at_once_if_asked_twice() -> None:
    one = runtime("a")
    one.gate.clear()
    stop = Stop()
    task = asyncio.create_task(serve([one.loop()], stop, None))
    await until(lambda: "run a" in one.calls)
    stop.ask()
    await asyncio.sleep(0)
    assert not task.done()
    stop.ask()
    await task
    assert "report a" not in one.calls
    assert len(asyncio.all_tasks()) == 1


async def test_serve_ends_all_loops_if_the_runtime_api_ends_one() -> None:
    failing, other = runtime(refused()), runtime()
    with pytest.raises(RuntimeApiError):
        await serve([other.loop(), failing.loop()], Stop(), None)
    assert len(asyncio.all_tasks()) == 1


async def test_run_until_returns_what_the_work_returned() -> None:
    async def work() -> int:
        return 3

    assert await run_until(asyncio.Event(), work()) == 3


async def test_run_until_cancels_the_work() -> None:
    stop = asyncio.Event()
    stop.set()
    assert await run_until(stop, asyncio.sleep(1000, result=3)) is None
    assert len(asyncio.all_tasks()) == 1


@dataclass
class Sleeps:
    """Notes how long it should have slept."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def test_next_is_asked_for_again_with_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sleeps = Sleeps()
    api = Api([refused(), refused(), refused(), "a"], [])
    with caplog.at_level(logging.WARNING, "lambda_deno_spawn"):
        got = await PersistentRuntimeApi(api, sleeps).next()
    assert got.request_id == "a"
    assert sleeps.seconds == [0.1, 0.2, 0.4]
    assert "asked again in 0.4 s" in caplog.text


async def test_next_is_given_up_after_a_minute() -> None:
    sleeps = Sleeps()
    api = Api([refused() for _ in range(RETRIES + 1)], [])
    with pytest.raises(RuntimeApiError):
        await PersistentRuntimeApi(api, sleeps).next()
    assert api.script == []
    assert max(sleeps.seconds) == 10.0
    assert 60 < sum(sleeps.seconds) < 70


async def test_a_report_that_fails_concerns_its_invocation_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = Api([], [], report_errors=[refused("response")])
    with caplog.at_level(logging.ERROR, "lambda_deno_spawn"):
        refusal = await PersistentRuntimeApi(api).report(invocation("a"), OK)
    assert refusal == "Runtime.LambdaRuntimeClientError"
    assert "HTTP status 500" in caplog.text
    assert (
        await PersistentRuntimeApi(api).report(invocation("b"), Success(b"1")) is None
    )
