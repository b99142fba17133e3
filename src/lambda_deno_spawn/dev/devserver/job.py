"""One request on its way through an execution environment, and back to its caller.

Knows the order: wait, run, respond piece by piece or at once, be over. The environment
writes; the caller reads, at its own speed, or has hung up. Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.local.environment import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lambda_deno_spawn.dev.devserver.journal import Journal, Record
    from lambda_deno_spawn.dev.local.environment import EmulatedOutcome

# Pieces of a response that its caller has not read, before the runtime has to wait.
PIECES_LIMIT = 4


class Job:
    """One request.

    Attributes:
        record: Its record in the journal.
        received_s: When it came in; monotonic clock, seconds.
        outcome: Its end; None before.
        content_type: Content type of the response, as the runtime sent it.
        is_streamed: The runtime streams the response.
        is_over: The environment is done with it, and its log is complete.
        takes: How many environments have taken it.
        code: The version of the function's code when it came in.
    """

    def __init__(self, record: Record, journal: Journal) -> None:
        """Wait for an environment."""
        self.record = record
        self.received_s = time.monotonic()
        self.outcome: EmulatedOutcome | None = None
        self.content_type = ""
        self.is_streamed = False
        self.is_over = False
        self.takes = 0
        self.code = 1
        self._journal = journal
        self._pieces: deque[bytes] = deque()
        self._has_hung_up = False
        self._has_begun = False
        self._waiters: set[asyncio.Future[None]] = set()

    def now_ms(self) -> float:
        """Milliseconds since the request came in."""
        return (time.monotonic() - self.received_s) * 1000

    # The environment's side.

    async def put(self, chunk: bytes, content_type: str) -> None:
        """Add a piece of a streamed response; return when there is room for more."""
        if not self._has_begun:
            self._begin(content_type, is_streamed=True)
        self._journal.add_result(self.record, chunk)
        if self._has_hung_up:
            return
        self._pieces.append(chunk)
        self._wake()
        await self._until(
            lambda: (
                len(self._pieces) < PIECES_LIMIT
                or self._has_hung_up
                or self.outcome is not None
            )
        )

    def answer(self, outcome: EmulatedOutcome) -> None:
        """Give the caller the outcome."""
        if self.outcome is not None:
            return
        if not self._has_begun:
            self._begin(outcome.content_type, is_streamed=outcome.is_streamed)
            if outcome.kind is OutcomeKind.RESPONSE:
                self._journal.add_result(self.record, outcome.body)
        self.outcome = outcome
        self._journal.answer(self.record, self.now_ms(), outcome)
        self._wake()

    def end(self, max_memory_mb: int | None, report: str) -> None:
        """Note that the environment is done with the request."""
        if not self.is_over:
            self.is_over = True
            self._journal.end(self.record, self.now_ms(), max_memory_mb, report)
            self._wake()

    def _begin(self, content_type: str, *, is_streamed: bool) -> None:
        self._has_begun = True
        self.content_type, self.is_streamed = content_type, is_streamed
        now_ms = self.now_ms()
        self._journal.begin_response(
            self.record, now_ms, content_type, is_streamed=is_streamed
        )

    # The caller's side.

    async def begun(self) -> None:
        """Wait for the first piece of a stream, or for the outcome."""
        await self._until(lambda: self._has_begun)

    async def answered(self) -> EmulatedOutcome:
        """Wait for the outcome, reading any stream to its end; return the outcome."""
        async for _ in self.pieces():
            pass
        assert self.outcome is not None
        return self.outcome

    async def over(self) -> None:
        """Wait until the environment is done with the request."""
        await self._until(lambda: self.is_over)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of a streamed response; the outcome follows."""
        while True:
            await self._until(lambda: bool(self._pieces) or self.outcome is not None)
            if not self._pieces:
                return
            piece = self._pieces.popleft()
            self._wake()
            yield piece

    def hang_up(self) -> None:
        """Read no more. As on Lambda, the function runs on to its end."""
        self._has_hung_up = True
        self._pieces.clear()
        self._wake()

    async def _until(self, is_true: Callable[[], bool]) -> None:
        # No limit: the environment keeps the function's timeout.
        while not is_true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
