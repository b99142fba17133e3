"""The runtime's loop: next, execute, report, settle.

Knows the order of the calls and when it ends. Refuses to know how they are done: the
Runtime API and the strategy are what the two protocols below say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.invocation import Failure, Streaming
from lambda_deno_spawn.logs import logger

if TYPE_CHECKING:
    from lambda_deno_spawn.invocation import Invocation, Outcome


class RuntimeApi(Protocol):
    """Where invocations come from and outcomes go to."""

    async def next(self) -> Invocation:
        """Wait for the next invocation."""

    async def report(self, invocation: Invocation, outcome: Outcome) -> None:
        """Post what came of it."""


class Strategy(Protocol):
    """How an invocation is executed."""

    async def execute(self, invocation: Invocation) -> Outcome:
        """Run it and return what came of it before its deadline."""

    async def settle(self, invocation: Invocation) -> None:
        """Clean up after the answer and prepare for the next one."""


class RuntimeLoop:
    """Serves one invocation after another."""

    def __init__(self, api: RuntimeApi, strategy: Strategy) -> None:
        """Take both ends; the loop owns neither."""
        self._api = api
        self._strategy = strategy

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            RuntimeApiError: The Runtime API ended it.
        """
        while True:
            # The caller has its answer at `report`; the environment is frozen, and the
            # bill ends, only at `next`. So everything slow happens in between.
            invocation = await self._api.next()
            outcome = await self._strategy.execute(invocation)
            await self._api.report(invocation, outcome)
            if isinstance(outcome, Failure):
                log_failure(invocation, outcome)
            elif isinstance(outcome, Streaming) and outcome.chunks.failure is not None:
                log_failure(invocation, outcome.chunks.failure)
            await self._strategy.settle(invocation)


def log_failure(invocation: Invocation, failure: Failure) -> None:
    """Write the error to the log as Node's runtime does: one record, body as JSON."""
    body = failure.body.decode("utf-8", "replace")
    logger.error(
        "Invoke Error\t%s",
        body,
        extra={"request_id": invocation.request_id, "tenant_id": invocation.tenant_id},
    )


async def run_until(stop: asyncio.Event, loop: RuntimeLoop) -> None:
    """Run a loop until it fails or ``stop`` is set, whichever comes first.

    Raises:
        RuntimeApiError: The loop failed.
    """
    running = asyncio.create_task(loop.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
