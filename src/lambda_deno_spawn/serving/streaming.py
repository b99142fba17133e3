"""A worker's streamed response, ended in time whatever the worker does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import WorkerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.protocol.frames import StreamEnded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lambda_deno_spawn.worker.exchange import Exchange


class WorkerChunks:
    """The chunks of a response; ``invocation.Streaming``.

    Attributes:
        failure: Why the response broke off, None if it did not, or not yet.
        sent_bytes: How much was yielded so far.
    """

    def __init__(
        self,
        exchange: Exchange,
        limit_s: float,
        stop: Callable[[str, float], Awaitable[Failure]],
    ) -> None:
        """Yield nothing yet, but count the time from now.

        Args:
            exchange: Where the chunks come from.
            limit_s: How long they may take.
            stop: Stops the worker then. It is told what the handler did not do and how
                long it had, and returns what the caller is told.
        """
        self.failure: Failure | None = None
        self.sent_bytes = 0
        self._exchange = exchange
        self._limit_s = limit_s
        self._stop = stop
        self._end_s = asyncio.get_running_loop().time() + limit_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks as they arrive."""
        while True:
            try:
                async with asyncio.timeout_at(self._end_s):
                    chunk = await self._exchange.next_chunk()
            except TimeoutError:
                what = "did not end its answer"
                self.failure = await self._stop(what, self._limit_s)
                return
            except WorkerError as error:
                self.failure = Failure.from_worker_error(error)
                return
            if isinstance(chunk, StreamEnded):
                self.failure = chunk.failure
                return
            self.sent_bytes += len(chunk)
            yield chunk
