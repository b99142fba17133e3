"""The loops: order of calls, what a refusal means, stopping, several side by side.

The Runtime API and executions are fakes here: tested is what they are asked to do, and
in which order. The real ones are in tests/integration.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from lambda_deno_spawn.errors import (
    RefusedError,
    RuntimeApiError,
    StreamNotBegunError,
)
from lambda_deno_spawn.invocation import (
    Failure,
    Invocation,
    Outcome,
    Streaming,
    Success,
)
from lambda_deno_spawn.serving.loop import (
    RETRIES,
    ManagedInstanceLoop,
    RuntimeLoop,
    Stop,
    run_until,
    serve,
)

OK = Success(b"1")
FAILED = Failure.of("RangeError", "no")


def invocation(request_id: str) -> Invocation:
    return Invocation(request_id, 0, "", b"{}")


def refused(call: str = "next", status: int = 500) -> RefusedError:
    return RefusedError(call, status, "for the test")


def lost(call: str) -> RuntimeApiError:
    return RuntimeApiError(call, "the connection broke")


@dataclass
class Chunks:
    """The chunks of a streamed response, which nothing reads here."""

    failure: Failure | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("the client reads them")
        yield b""


def streaming(failure: Failure | None = None) -> Streaming:
    return Streaming("text/plain", Chunks(failure), 1.0)


@dataclass
class Api:
    """Hands out invocations in order and then waits; notes each call."""

    script: list[str | Exception]
    calls: list[str]
    polls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    post_errors: list[RuntimeApiError | None] = field(default_factory=list)
    posted: list[Outcome] = field(default_factory=list)

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

    async def post_response(self, invocation: Invocation, success: Success) -> None:
        self._post("response", invocation, success)

    async def post_error(self, invocation: Invocation, failure: Failure) -> None:
        self._post("error", invocation, failure)

    async def stream(self, invocation: Invocation, streaming: Streaming) -> None:
        self._post("stream", invocation, streaming)

    def _post(self, call: str, invocation: Invocation, outcome: Outcome) -> None:
        self.calls.append(f"{call} {invocation.request_id}")
        self.posted.append(outcome)
        error = self.post_errors.pop(0) if self.post_errors else None
        if error is not None:
            raise error


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

    def loop(self) -> RuntimeLoop:
        return RuntimeLoop(self.api, self.begin)

    def managed(self) -> ManagedInstanceLoop:
        return ManagedInstanceLoop(self.api, self.begin)

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
    async with asyncio.timeout(30):
        while not is_true():  # noqa: ASYNC110 - nothing tells of a call
            await asyncio.sleep(0)


async def test_each_invocation_is_settled_before_the_next_is_asked_for() -> None:
    one = runtime("a", "b", refused())
    with pytest.raises(RuntimeApiError):
        await one.loop().run()
    assert one.calls == [
        "next", "run a", "response a", "settle a None", "settled a",
        "next", "run b", "response b", "settle b None", "settled b",
        "next",
    ]  # fmt: skip


# What the caller was told, and what is logged, by outcome and by what the post raised.


@dataclass(frozen=True)
class Case:
    """One way for an outcome to arrive, or not.

    Attributes:
        outcome: The outcome of the execution.
        errors: What each post raises, in order.
        calls: The posts.
        told: What ``settle`` hears.
        log: Beginnings of the log's messages.
    """

    outcome: Outcome
    errors: tuple[RuntimeApiError | None, ...]
    calls: tuple[str, ...]
    told: str | None
    log: tuple[str, ...] = ()


CLIENT_ERROR = "Runtime.LambdaRuntimeClientError"
HANDLER_FAILED = 'Invoke Error\t{"errorType":"RangeError"'
NO_SPACE = StreamNotBegunError("cannot connect", is_exhausted=True)
NOT_BEGUN = 'Invoke Error\t{"errorType":"Runtime.ResourceExhausted"'
CASES = {
    "a result arrives": Case(OK, (None,), ("response",), None),
    "a result is too large": Case(
        OK,
        (refused("response", 413),),
        ("response",),
        "Function.ResponseSizeTooLarge",
        ("Cannot complete Runtime API call 'response': HTTP status 413",),
    ),
    "a result is too late": Case(
        OK,
        (refused("response", 410),),
        ("response",),
        "Sandbox.Timedout",
        ("Cannot complete Runtime API call 'response': HTTP status 410",),
    ),
    "a result is refused for another reason": Case(
        OK,
        (refused("response", 403),),
        ("response",),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'response': HTTP status 403",),
    ),
    "the connection is lost after a result": Case(
        OK,
        (lost("response"),),
        ("response",),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'response': no answer",),
    ),
    "an error arrives": Case(FAILED, (None,), ("error",), None, (HANDLER_FAILED,)),
    "an error is refused": Case(
        FAILED,
        (refused("error", 400),),
        ("error",),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'error': HTTP status 400", HANDLER_FAILED),
    ),
    "the connection is lost after an error": Case(
        FAILED,
        (lost("error"),),
        ("error",),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'error': no answer", HANDLER_FAILED),
    ),
    "a stream arrives": Case(streaming(), (None,), ("stream",), None),
    "a stream breaks off": Case(
        streaming(FAILED), (None,), ("stream",), None, (HANDLER_FAILED,)
    ),
    "a stream is refused": Case(
        streaming(),
        (refused("response", 413),),
        ("stream",),
        "Function.ResponseSizeTooLarge",
        ("Cannot complete Runtime API call 'response': HTTP status 413",),
    ),
    "a stream breaks off and is refused": Case(
        streaming(FAILED),
        (refused("response", 410),),
        ("stream",),
        "Sandbox.Timedout",
        (
            "Cannot complete Runtime API call 'response': HTTP status 410",
            HANDLER_FAILED,
        ),
    ),
    "the connection is lost in a stream": Case(
        streaming(),
        (lost("response"),),
        ("stream",),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'response': no answer",),
    ),
    "a stream has no connection": Case(
        streaming(),
        (NO_SPACE, None),
        ("stream", "error"),
        "Runtime.ResourceExhausted",
        (NOT_BEGUN,),
    ),
    "a stream has no connection and neither has the error": Case(
        streaming(),
        (NO_SPACE, lost("error")),
        ("stream", "error"),
        CLIENT_ERROR,
        ("Cannot complete Runtime API call 'error': no answer", NOT_BEGUN),
    ),
}


@pytest.mark.parametrize("kind", [RuntimeLoop, ManagedInstanceLoop])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_what_the_caller_was_told_is_logged_and_goes_to_settle(
    case: Case, kind: type[RuntimeLoop], caplog: pytest.LogCaptureFixture
) -> None:
    one = runtime("a", outcome=case.outcome)
    one.api.post_errors = list(case.errors)
    loop = kind(one.api, one.begin)
    task = asyncio.create_task(loop.run())
    with caplog.at_level(logging.INFO, "lambda_deno_spawn"):
        await until(lambda: "settled a" in one.calls)
        loop.stop()
        await task
    posts = [f"{call} a" for call in case.calls]
    assert [call for call in one.calls if call not in ("next", "cancelled")] == [
        "run a", *posts, f"settle a {case.told}", "settled a",
    ]  # fmt: skip
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(case.log), messages
    for message, beginning in zip(messages, case.log, strict=True):
        assert message.startswith(beginning)
    for record in caplog.records:
        assert (record.levelname, getattr(record, "request_id", "")) == ("ERROR", "a")


async def test_a_stream_without_a_connection_becomes_an_error() -> None:
    one = runtime("a", refused(), outcome=streaming())
    one.api.post_errors = [NO_SPACE]
    with pytest.raises(RuntimeApiError):
        await one.loop().run()
    told = one.api.posted[-1]
    assert isinstance(told, Failure)
    assert told.error_type == "Runtime.ResourceExhausted"
    assert b'"Cannot stream the answer: cannot connect"' in told.body


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    ("outcome", "errors"),
    [
        (OK, ("response",)),
        (FAILED, ("error",)),
        (streaming(), ("response",)),
        (streaming(), (None, "error")),
    ],
    ids=["response", "error", "stream", "error-instead-of-stream"],
)
async def test_a_container_error_ends_the_loop_before_it_settles(
    outcome: Outcome, errors: tuple[str | None, ...], status: int
) -> None:
    one = runtime("a", "b", outcome=outcome)
    one.api.post_errors = [
        NO_SPACE if call is None else refused(call, status) for call in errors
    ]
    with pytest.raises(RefusedError) as caught:
        await one.loop().run()
    assert caught.value.status == status
    assert len(one.calls) == 2 + len(errors), "nothing follows the post"


async def test_a_container_error_ends_no_loop_of_a_managed_instance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = runtime("a", "b")
    one.api.post_errors = [refused("response"), None]
    loop = one.managed()
    task = asyncio.create_task(loop.run())
    with caplog.at_level(logging.ERROR, "lambda_deno_spawn"):
        await until(lambda: "settled b" in one.calls)
    assert "HTTP status 500" in caplog.text
    assert f"settle a {CLIENT_ERROR}" in one.calls
    assert "settle b None" in one.calls
    loop.stop()
    await task


async def test_a_managed_instance_asks_for_an_event_while_the_last_one_settles() -> (
    None
):
    one = runtime("a")
    one.settle_gate.clear()
    loop = one.managed()
    task = asyncio.create_task(loop.run())
    await until(lambda: one.calls.count("next") == 2 and len(one.calls) == 5)
    assert one.calls[:3] == ["next", "run a", "response a"]
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
    task = asyncio.create_task(one.managed().run())
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
    loop = ManagedInstanceLoop(one.api, lambda it: Broken(it, one.calls))
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
    assert one.calls == ["next", "run a", "response a", "settle a None", "settled a"]


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
    assert "response a" not in one.calls
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
    assert "response a" not in one.calls
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


async def test_next_is_called_again_with_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sleeps = Sleeps()
    one = runtime(refused(), lost("next"), refused(), "a")
    loop = ManagedInstanceLoop(one.api, one.begin, sleeps)
    task = asyncio.create_task(loop.run())
    with caplog.at_level(logging.WARNING, "lambda_deno_spawn"):
        await until(lambda: "settled a" in one.calls)
    assert sleeps.seconds == [0.1, 0.2, 0.4]
    assert "asked again in 0.4 s" in caplog.text
    loop.stop()
    await task


async def test_a_managed_instance_ends_if_next_fails_for_a_minute() -> None:
    sleeps = Sleeps()
    one = runtime(*(refused() for _ in range(RETRIES + 1)))
    with pytest.raises(RuntimeApiError):
        await ManagedInstanceLoop(one.api, one.begin, sleeps).run()
    assert one.api.script == []
    assert max(sleeps.seconds) == 10.0
    assert 60 < sum(sleeps.seconds) < 70


async def test_a_loop_that_waits_to_call_next_again_can_be_stopped() -> None:
    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    one = runtime(refused())
    loop = ManagedInstanceLoop(one.api, one.begin, forever)
    task = asyncio.create_task(loop.run())
    await one.api.polls.acquire()
    loop.stop()
    await task
    assert one.calls == ["next"]
