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
    """A worker's streamed answer, ended in time whatever the worker does."""

    def __init__(
        self,
        exchange: Exchange,
        limit_s: float,
        margin_s: float,
        stop: Callable[[str, float, float], Awaitable[Failure]],
    ) -> None:
        """Take the exchange, the time it has from now, and what ends it then."""
        self.failure: Failure | None = None
        self.sent_bytes = 0
        self._exchange = exchange
        self._limit_s = limit_s
        self._margin_s = margin_s
        self._stop = stop
        self._end_s = asyncio.get_running_loop().time() + limit_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come."""
        while True:
            try:
                async with asyncio.timeout_at(self._end_s):
                    chunk = await self._exchange.next_chunk()
            except TimeoutError:
                what = "did not end its answer"
                self.failure = await self._stop(what, self._limit_s, self._margin_s)
                return
            except WorkerError as error:
                self.failure = Failure.from_worker_error(error)
                return
            if isinstance(chunk, StreamEnded):
                self.failure = chunk.failure
                return
            self.sent_bytes += len(chunk)
            yield chunk
