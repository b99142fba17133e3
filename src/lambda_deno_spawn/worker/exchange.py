"""One invocation in a worker: from its frames to what came of it.

Knows how an answer comes about: whole, in pieces, or not at all; and who waits for
which part of it. Refuses to know which way the frames come, and what a process is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    State,
    StreamBegun,
    StreamEnded,
)

if TYPE_CHECKING:
    from lambda_deno_spawn.errors import WorkerError
    from lambda_deno_spawn.invocation import Failure, Success
    from lambda_deno_spawn.protocol.frames import Event, WorkerConnection

# What is taken from a streaming worker before the caller has taken it from us. Together
# with the pipe it bounds the memory that a slow caller costs.
STREAM_BUFFER_BYTES = 256 * 1024
# What a piece costs besides its bytes: a worker may send them one by one.
CHUNK_COST_BYTES = 64


@dataclass(frozen=True, slots=True)
class AnswerBegun:
    """The worker answers in pieces, of this media type; see ``Exchange.next_chunk``."""

    content_type: str


class Carrier(Protocol):
    """The way that frames come."""

    def hold(self) -> None:
        """Let the worker wait with what follows."""

    def release(self) -> None:
        """Take it again."""

    def tell_caller_gone(self) -> None:
        """Tell the worker that nobody listens any more."""


class Exchange:
    """An invocation that was handed to a worker.

    The order of calls is ``answer``, ``next_chunk`` if the answer comes in pieces,
    ``finished``; one at a time. A cancelled call leaves it as it is.

    Attributes:
        number: The worker's first one has 1, and no other has the same.
        handed_over_s: When the event was handed over; monotonic clock.
        answered_s: When the answer had come in full; None until then.
    """

    def __init__(
        self, connection: WorkerConnection, carrier: Carrier, number: int
    ) -> None:
        """Take where its state is told, and the way that its frames come."""
        self.number = number
        self.handed_over_s = time.monotonic()
        self.answered_s: float | None = None
        self._connection = connection
        self._carrier = carrier
        self._news: asyncio.Future[None] | None = None
        self._is_done = False
        self._outcome: Success | Failure | AnswerBegun | None = None
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._stream_end: StreamEnded | None = None
        self._is_abandoned = False
        self._error: WorkerError | None = None

    @property
    def state(self) -> State:
        """How far it has come."""
        return self._connection.state

    @property
    def lost_work(self) -> WorkerError | None:
        """Why work handed to ``waitUntil`` did not end, None if it did."""
        return self._error if self.state is State.FINISHING else None

    @property
    def leaves_worker_usable(self) -> bool:
        """True if it has ended and the worker takes another one."""
        # A late word that the caller is gone would reach the next one.
        is_clean = self._error is None and not self._is_abandoned
        return is_clean and self.state is State.IDLE

    @property
    def has_finished(self) -> bool:
        """True if ``finished`` would not wait."""
        return self._is_done or self._error is not None

    async def answer(self) -> Success | Failure | AnswerBegun:
        """Wait for what came of it, without a time limit.

        Raises:
            WorkerError: The process broke off before it answered.
        """
        while self._outcome is None:
            if self._error is not None:
                raise self._error
            await self._something_new()
        return self._outcome

    async def next_chunk(self) -> bytes | StreamEnded:
        """Wait for the next piece of a streamed answer, without a time limit.

        Raises:
            WorkerError: The process broke off before the end of its answer.
        """
        while not self._chunks:
            if self._stream_end is not None:
                return self._stream_end
            if self._error is not None:
                raise self._error
            await self._something_new()
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk) + CHUNK_COST_BYTES
        if self._chunk_bytes < STREAM_BUFFER_BYTES:
            self._carrier.release()
        return chunk

    def abandon_stream(self) -> None:
        """Tell the handler that nobody listens any more, and drop what still comes."""
        if self.state is not State.STREAMING or self._is_abandoned:
            return
        self._is_abandoned = True
        self._carrier.tell_caller_gone()
        self._chunks.clear()
        self._chunk_bytes = 0
        self._carrier.release()

    async def finished(self) -> None:
        """Wait until the worker has nothing left to do for it, or has ended."""
        while not self.has_finished:
            await self._something_new()

    def close(self) -> None:
        """Count it as finished, whatever still comes of it."""
        self._is_done = True
        self._tell()

    def take(self, event: Event) -> None:
        """Take what a frame has told."""
        match event:
            case Answered(outcome):
                self.answered_s = time.monotonic()
                self._outcome = outcome
            case StreamBegun(content_type):
                self._outcome = AnswerBegun(content_type)
            case Chunk(chunk):
                self._take_chunk(chunk)
            case StreamEnded() as end:
                self.answered_s = time.monotonic()
                self._stream_end = end
            case Done():
                self._is_done = True
        self._tell()

    def break_off(self, error: WorkerError) -> None:
        """Wake whoever waits; the error counts for what has not happened yet."""
        if self._error is None:
            self._error = error
        self._tell()

    async def _something_new(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _take_chunk(self, chunk: bytes) -> None:
        if self._is_abandoned or not chunk:
            return
        self._chunks.append(chunk)
        self._chunk_bytes += len(chunk) + CHUNK_COST_BYTES
        if self._chunk_bytes >= STREAM_BUFFER_BYTES:
            self._carrier.hold()
