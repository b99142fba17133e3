"""The runtime's loops: next, execute, report, settle; one, or several side by side.

Knows the order of the calls, when a loop ends, and what differs where nothing restarts
an environment (Managed Instances). Refuses to know how calls are done: the Runtime API
and executions are what the two protocols below say. Decision 0025 (several loops).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.invocation import Failure, Streaming
from lambda_deno_spawn.log.writer import log_context, log_failure, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from lambda_deno_spawn.invocation import Invocation, Outcome


T = TypeVar("T")

# Until this the official clients for Managed Instances wait for the next event: those
# of Node.js go on for a quarter of an hour, those of Python for 3 s.
RETRY_FIRST_S = 0.1
RETRY_LIMIT_S = 10.0
RETRIES = 12  # a minute in all


class RuntimeApi(Protocol):
    """Where invocations come from and outcomes go to."""

    async def next(self) -> Invocation:
        """Wait for the next invocation."""

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of it; return an error type if it was not taken as it is."""


class Execution(Protocol):
    """How one invocation is executed."""

    async def run(self) -> Outcome:
        """Run it and return what came of it before its deadline."""

    async def settle(self, refusal: str | None) -> None:
        """Clean up after the answer and prepare for the next one.

        Args:
            refusal: What ``report`` returned.
        """


class RuntimeLoop:
    """Serves one invocation after another."""

    def __init__(
        self,
        api: RuntimeApi,
        begin: Callable[[Invocation], Execution],
        *,
        settles_beside: bool = False,
    ) -> None:
        """Take both ends; the loop owns neither.

        Args:
            api: This loop's own.
            begin: Makes an execution.
            settles_beside: Ask for the next invocation while the last one settles: for
                places that freeze nothing and turn events away while nobody asks.
        """
        self._api = api
        self._begin = begin
        self._settles_beside = settles_beside
        self._settling: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_polling = False
        self._is_stopping = False

    async def run(self) -> None:
        """Serve until stopped or cancelled; returns once all has settled.

        Raises:
            RuntimeApiError: The Runtime API ended it.
        """
        self._task = asyncio.current_task()
        try:
            while (invocation := await self._next()) is not None:
                await self._serve(invocation)
            await asyncio.gather(*self._settling)
        finally:
            for task in self._settling:
                task.cancel()

    @property
    def is_busy(self) -> bool:
        """True while an invocation runs, or settles."""
        return not self._is_polling or bool(self._settling)

    def stop(self) -> None:
        """Ask for no more invocations; the one that runs goes on to its end."""
        self._is_stopping = True
        if self._is_polling and self._task is not None:
            self._task.cancel()

    async def _next(self) -> Invocation | None:
        """Wait for an invocation; None if there is to be no other."""
        if self._is_stopping:
            return None
        self._is_polling = True
        try:
            return await self._api.next()
        except asyncio.CancelledError:
            if self._is_stopping and self._task is not None:
                # Ours, unless somebody else wants the end of it too.
                if self._task.uncancel() > 0:
                    raise
                return None
            raise
        finally:
            self._is_polling = False

    async def _serve(self, invocation: Invocation) -> None:
        # The caller has its answer at `report`; the environment is frozen, and the
        # bill ends, only at `next`. So everything slow happens in between.
        execution = self._begin(invocation)
        outcome = await execution.run()
        refusal = await self._api.report(invocation, outcome)
        if isinstance(outcome, Failure):
            log_failure(invocation, outcome)
        elif isinstance(outcome, Streaming) and outcome.chunks.failure is not None:
            log_failure(invocation, outcome.chunks.failure)
        if not self._settles_beside:
            await execution.settle(refusal)
            return
        task = asyncio.create_task(execution.settle(refusal))
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        # Nobody waits for it who could be told.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Cannot clean up after an invocation", exc_info=error)


class PersistentRuntimeApi:
    """A Runtime API that is asked again, and that cannot end the environment.

    On Managed Instances nothing restarts an environment that has ended, and all that
    runs in it would fail with the one call that did not get through.
    """

    def __init__(
        self,
        api: RuntimeApi,
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
    ) -> None:
        """Take the one that is asked, and what waits so many seconds."""
        self._api = api
        self._sleep = sleep

    async def next(self) -> Invocation:
        """Wait for the next invocation, and ask again if asking failed.

        Raises:
            RuntimeApiError: It failed for a minute.
        """
        delay_s = RETRY_FIRST_S
        for _ in range(RETRIES):
            try:
                return await self._api.next()
            except RuntimeApiError as error:
                logger.warning("%s; asked again in %.1f s", error, delay_s)
            await self._sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
        return await self._api.next()

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of it; what is not taken concerns this invocation alone."""
        try:
            return await self._api.report(invocation, outcome)
        except RuntimeApiError as error:
            logger.error("%s", error, extra=log_context(invocation))
            return error.error_type


class Stop:
    """That the runtime is to end, and how soon; told by signals.

    Attributes:
        asked: No further invocation is to be asked for.
        urged: What runs is not waited for either.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = asyncio.Event()
        self.urged = asyncio.Event()

    def ask(self) -> None:
        """Ask for the end, and the second time urge it."""
        (self.urged if self.asked.is_set() else self.asked).set()


async def serve(
    loops: Sequence[RuntimeLoop], stop: Stop, drain_limit_s: float | None
) -> None:
    """Run loops side by side until they are to stop, or one of them fails.

    Args:
        loops: Not running yet.
        stop: Asked for: each loop ends with the invocation that it has.
        drain_limit_s: What has not ended so long after that is cancelled; None: what
            runs has deadlines of its own.

    Raises:
        RuntimeApiError: The Runtime API ended it.
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
    """Do some work until it ends or ``stop`` is set, whichever comes first.

    Returns:
        What the work returned, None if it was stopped.

    Raises:
        RuntimeApiError: The work failed.
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
