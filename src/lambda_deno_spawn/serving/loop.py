"""The runtime's loops: next, execute, post, settle; one, or several side by side.

Knows the order of the calls, what the caller was told if an outcome was refused, when a
loop ends, and what differs on Managed Instances. Does not know how calls are made or
events are executed: see the protocols below, which ``runtime_api.client`` and
``serving.execution`` implement. Decision 0025 (several loops).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_deno_spawn.errors import (
    RefusedError,
    RuntimeApiError,
    StreamNotBegunError,
)
from lambda_deno_spawn.invocation import Failure, Streaming, Success
from lambda_deno_spawn.log.writer import log_context, log_failure, logger
from lambda_deno_spawn.records import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from lambda_deno_spawn.invocation import Invocation, Outcome


T = TypeVar("T")

# From this status on the Runtime API means: the environment must end.
HTTP_CONTAINER_ERROR = 500
# The error that the platform itself reports to the caller when it refuses an outcome.
TOLD_BY_PLATFORM = {410: "Sandbox.Timedout", 413: "Function.ResponseSizeTooLarge"}
# On Managed Instances, the time until `next` is called again after it failed, doubled
# each time. AWS's clients for Node.js go on for a quarter of an hour, its clients for
# Python for 3 s.
RETRY_FIRST_S = 0.1
RETRY_LIMIT_S = 10.0
RETRIES = 12  # a minute in all


class RuntimeApi(Protocol):
    """The Runtime API: source of invocations, destination of outcomes.

    Each call raises ``RuntimeApiError`` if it fails, ``RefusedError`` if it was
    refused.
    """

    async def next(self) -> Invocation:
        """Wait for the next invocation."""

    async def post_response(self, invocation: Invocation, success: Success) -> None:
        """Post a result."""

    async def post_error(self, invocation: Invocation, failure: Failure) -> None:
        """Post an error."""

    async def stream(self, invocation: Invocation, streaming: Streaming) -> None:
        """Post a result in chunks.

        Raises:
            StreamNotBegunError: An error may be posted instead.
        """


class Execution(Protocol):
    """The execution of one invocation."""

    async def run(self) -> Outcome:
        """Run it and return its outcome before its deadline."""

    async def settle(self, refusal: str | None) -> None:
        """Clean up after the outcome was posted, and prepare for the next invocation.

        Args:
            refusal: Error type that the caller was told instead of the outcome; None:
                the caller has the outcome.
        """


class RuntimeLoop:
    """Serves one invocation after another, until the Runtime API ends it."""

    def __init__(
        self, api: RuntimeApi, begin: Callable[[Invocation], Execution]
    ) -> None:
        """Create a loop that does not run yet.

        Args:
            api: Used by this loop only; not closed by it.
            begin: Called with an invocation that has just been received.
        """
        self._api = api
        self._begin = begin
        self._task: asyncio.Task[None] | None = None
        self._is_polling = False
        self._is_stopping = False

    async def run(self) -> None:
        """Serve until stopped or cancelled.

        Raises:
            RuntimeApiError: The Runtime API ended the environment.
        """
        self._task = asyncio.current_task()
        while (invocation := await self._next_unless_stopped()) is not None:
            # The caller has its response once it is posted. The environment is frozen,
            # and billing stops, only inside `next`. All that is slow happens between.
            execution = self._begin(invocation)
            outcome = await execution.run()
            told = await self._post(invocation, outcome)
            await self._settle(execution, told)

    @property
    def is_busy(self) -> bool:
        """True while an invocation runs or settles."""
        return not self._is_polling

    def stop(self) -> None:
        """Ask for no more invocations; one that runs goes on to its end."""
        self._is_stopping = True
        if self._is_polling and self._task is not None:
            self._task.cancel()

    async def _next_unless_stopped(self) -> Invocation | None:
        """Wait for an invocation; None if the loop was stopped."""
        if self._is_stopping:
            return None
        self._is_polling = True
        try:
            return await self._next()
        except asyncio.CancelledError:
            if self._is_stopping and self._task is not None:
                # By `stop`, unless the task was cancelled by another party as well.
                if self._task.uncancel() > 0:
                    raise
                return None
            raise
        finally:
            self._is_polling = False

    async def _post(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post an outcome, and log each failure: of the handler and of the call.

        Returns:
            Error type that the caller was told instead of the outcome; None: the
            caller has the outcome.

        Raises:
            RuntimeApiError: The environment must end.
        """
        told: str | None = None
        failure: Failure | None = None
        try:
            match outcome:
                case Success():
                    await self._api.post_response(invocation, outcome)
                case Failure():
                    failure = outcome
                    await self._api.post_error(invocation, outcome)
                case Streaming():
                    try:
                        await self._api.stream(invocation, outcome)
                    except StreamNotBegunError as error:
                        failure = _not_streamed(error)
                        told = failure.error_type
                        await self._api.post_error(invocation, failure)
        except RuntimeApiError as error:
            if self._must_end(error):
                raise
            logger.error("%s", error, extra=log_context(invocation))
            told = TOLD_BY_PLATFORM.get(error.status or 0, error.error_type)
        if failure is None and isinstance(outcome, Streaming):
            failure = outcome.chunks.failure
        if failure is not None:
            log_failure(invocation, failure)
        return told

    # Differences on Managed Instances.

    async def _next(self) -> Invocation:
        return await self._api.next()

    def _must_end(self, error: RuntimeApiError) -> bool:
        """Tell whether the environment must end because an outcome was refused.

        Any other refusal concerns its invocation only.
        """
        return isinstance(error, RefusedError) and error.status >= HTTP_CONTAINER_ERROR

    async def _settle(self, execution: Execution, told: str | None) -> None:
        await execution.settle(told)


def _not_streamed(error: StreamNotBegunError) -> Failure:
    return Failure.of(error.error_type, f"Cannot stream the answer: {error.detail}")


class ManagedInstanceLoop(RuntimeLoop):
    """A loop on a Managed Instance, of which several run in one environment.

    Nothing restarts an environment that has ended, and every invocation in it would
    fail because of one call: so `next` is called again if it fails, and no refused
    outcome ends the loop. Nothing freezes the environment either, and events are turned
    away while no loop waits for one: so an invocation settles while the loop already
    waits for the next one.
    """

    def __init__(
        self,
        api: RuntimeApi,
        begin: Callable[[Invocation], Execution],
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
    ) -> None:
        """Create a loop that does not run yet.

        Args:
            api: As for ``RuntimeLoop``.
            begin: As for ``RuntimeLoop``.
            sleep: Waits for so many seconds.
        """
        super().__init__(api, begin)
        self._sleep = sleep
        self._settling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until stopped or cancelled; returns once all has settled.

        Raises:
            RuntimeApiError: `next` failed for a minute.
        """
        try:
            await super().run()
            await asyncio.gather(*self._settling)
        finally:
            for task in self._settling:
                task.cancel()

    @property
    def is_busy(self) -> bool:
        """True while an invocation runs or settles."""
        return super().is_busy or bool(self._settling)

    async def _next(self) -> Invocation:
        delay_s = RETRY_FIRST_S
        for _ in range(RETRIES):
            try:
                return await self._api.next()
            except RuntimeApiError as error:
                logger.warning("%s; asked again in %.1f s", error, delay_s)
            await self._sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
        return await self._api.next()

    def _must_end(self, _: RuntimeApiError) -> bool:
        return False

    async def _settle(self, execution: Execution, told: str | None) -> None:
        task = asyncio.create_task(execution.settle(told))
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        # No other task waits for this one, so its error would be lost.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Cannot clean up after an invocation", exc_info=error)


class Stop:
    """Requests to stop the runtime; signals make them.

    Attributes:
        asked: Set once: call ``next`` no more.
        urged: Set at the second request: do not wait for running invocations either.
    """

    def __init__(self) -> None:
        """Create both events; neither is set."""
        self.asked = asyncio.Event()
        self.urged = asyncio.Event()

    def ask(self) -> None:
        """Request a stop; the second request is urgent."""
        (self.urged if self.asked.is_set() else self.asked).set()


async def serve(
    loops: Sequence[RuntimeLoop], stop: Stop, drain_limit_s: float | None
) -> None:
    """Run loops side by side until a stop is requested or one of them fails.

    Args:
        loops: Not running yet.
        stop: Once requested, each loop ends after its current invocation.
        drain_limit_s: How long those may take before they are cancelled; None: no
            limit, as each invocation has a deadline.

    Raises:
        RuntimeApiError: The Runtime API ended the environment.
    """
    running = [asyncio.create_task(loop.run()) for loop in loops]
    stopping = asyncio.create_task(stop.asked.wait())
    tasks: list[asyncio.Task[Any]] = [stopping, *running]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stop.asked.is_set():
            busy = sum(loop.is_busy for loop in loops)
            if busy:
                logger.info("Stopping once %d invocation(s) have ended", busy)
            for loop in loops:
                loop.stop()
            ends = [
                asyncio.create_task(asyncio.wait(running, timeout=drain_limit_s)),
                asyncio.create_task(stop.urged.wait()),
            ]
            tasks += ends
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_until(stop: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """Run a coroutine until it ends or ``stop`` is set; then it is cancelled.

    Returns:
        The coroutine's result, None if it was cancelled.

    Raises:
        RuntimeApiError: The coroutine raised it.
    """
    running = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else None
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
