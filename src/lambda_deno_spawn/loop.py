"""The runtime's loop: next, execute, report, settle.

Knows the order of the calls and when it ends. Refuses to know how they are done: the
Runtime API and the executor are what the two protocols below say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from lambda_deno_spawn.invocation import Failure, Streaming
from lambda_deno_spawn.logs import log_failure

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from lambda_deno_spawn.invocation import Invocation, Outcome


T = TypeVar("T")


class RuntimeApi(Protocol):
    """Where invocations come from and outcomes go to."""

    async def next(self) -> Invocation:
        """Wait for the next invocation."""

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of it; return an error type if it was not taken as it is."""


class Executor(Protocol):
    """How an invocation is executed."""

    async def execute(self, invocation: Invocation) -> Outcome:
        """Run it and return what came of it before its deadline."""

    async def settle(self, invocation: Invocation, refusal: str | None) -> None:
        """Clean up after the answer and prepare for the next one.

        Args:
            invocation: What was executed.
            refusal: What ``report`` returned.
        """


class RuntimeLoop:
    """Serves one invocation after another."""

    def __init__(self, api: RuntimeApi, executor: Executor) -> None:
        """Take both ends; the loop owns neither."""
        self._api = api
        self._executor = executor

    async def run(self) -> NoReturn:
        """Serve until cancelled.

        Raises:
            RuntimeApiError: The Runtime API ended it.
        """
        while True:
            # The caller has its answer at `report`; the environment is frozen, and the
            # bill ends, only at `next`. So everything slow happens in between.
            invocation = await self._api.next()
            outcome = await self._executor.execute(invocation)
            refusal = await self._api.report(invocation, outcome)
            if isinstance(outcome, Failure):
                log_failure(invocation, outcome)
            elif isinstance(outcome, Streaming) and outcome.chunks.failure is not None:
                log_failure(invocation, outcome.chunks.failure)
            await self._executor.settle(invocation, refusal)


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
