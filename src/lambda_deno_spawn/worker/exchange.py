"""One invocation in a worker: from its frames to its response.

Knows the forms a response takes: whole, streamed, or none because the worker broke off.
Does not know how frames arrive, or what a process is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    LastWords,
    State,
    StreamBegun,
    StreamEnded,
)
from lambda_deno_spawn.records import NamedTuple, Protocol

if TYPE_CHECKING:
    from lambda_deno_spawn.errors import WorkerError
    from lambda_deno_spawn.invocation import Failure, Success
    from lambda_deno_spawn.protocol.frames import Event

# How much of a stream is buffered before its caller has received it. Together with the
# pipe or socket this bounds the memory that a slow caller costs.
STREAM_BUFFER_BYTES = 256 * 1024
# The cost of a buffered chunk besides its bytes: a worker may send single bytes.
CHUNK_COST_BYTES = 64


class StreamStarted(NamedTuple):
    """The worker streams its response, of this media type; see ``next_chunk``."""

    content_type: str


class Source(Protocol):
    """The source of an exchange's frames."""

    def pause_reading(self) -> None:
        """Leave further frames unread, which makes the worker wait."""

    def resume_reading(self) -> None:
        """Read again."""

    def notify_caller_gone(self, number: int) -> None:
        """Tell the worker that the caller of an invocation has left its stream."""


class Exchange:
    """An invocation that was handed to a worker.

    The order of calls is ``response``, ``next_chunk`` if the response is streamed,
    ``finished``; one at a time. A cancelled call leaves the exchange as it is.

    Attributes:
        number: Position among the invocations of its worker, from 1; unique there.
        state: How far this exchange has come, whatever its worker does later.
        handed_over_s: When the event was handed over; monotonic clock.
        responded_s: When the response was complete; None until then.
        has_last_words: The worker has said that its program listens for its end.
    """

    def __init__(self, number: int, source: Source) -> None:
        """Start an exchange whose event has just been sent."""
        self.number = number
        self.state = State.BUSY
        self.handed_over_s = time.monotonic()
        self.responded_s: float | None = None
        self.has_last_words = False
        self._source = source
        self._news: asyncio.Future[None] | None = None
        self._is_done = False
        self._response: Success | Failure | StreamStarted | None = None
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._stream_end: StreamEnded | None = None
        self._is_abandoned = False
        self._error: WorkerError | None = None

    @property
    def lost_work(self) -> WorkerError | None:
        """Why work handed to ``waitUntil`` did not end, None if it did."""
        return self._error if self.state is State.FINISHING else None

    @property
    def leaves_worker_usable(self) -> bool:
        """True if the exchange has ended and its worker accepts another one."""
        # A late notice that the caller is gone would reach the next invocation.
        is_clean = self._error is None and not self._is_abandoned
        return is_clean and self.state is State.IDLE

    @property
    def has_finished(self) -> bool:
        """True if ``finished`` would not wait."""
        return self._is_done or self._error is not None

    async def response(self) -> Success | Failure | StreamStarted:
        """Wait for the response, or for the start of a stream; no time limit.

        Raises:
            WorkerError: The process broke off before it responded.
        """
        while self._response is None:
            if self._error is not None:
                raise self._error
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return self._response

    async def next_chunk(self) -> bytes | StreamEnded:
        """Wait for the next chunk of a streamed response, without a time limit.

        Raises:
            WorkerError: The process broke off before the end of its stream.
        """
        while not self._chunks:
            if self._stream_end is not None:
                return self._stream_end
            if self._error is not None:
                raise self._error
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk) + CHUNK_COST_BYTES
        if self._chunk_bytes < STREAM_BUFFER_BYTES:
            self._source.resume_reading()
        return chunk

    def abandon_stream(self) -> None:
        """Tell the handler that its caller has left, and drop what it still sends."""
        if self.state is not State.STREAMING or self._is_abandoned:
            return
        self._is_abandoned = True
        self._source.notify_caller_gone(self.number)
        self._chunks.clear()
        self._chunk_bytes = 0
        self._source.resume_reading()

    async def finished(self) -> None:
        """Wait until the worker has nothing left to do for it, or has ended."""
        while not self.has_finished:
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def close(self) -> None:
        """Count as finished, whatever the worker still sends."""
        self._is_done = True
        self._notify()

    def receive(self, event: Event, state: State) -> None:
        """Receive what a frame says.

        Args:
            event: Its meaning.
            state: The worker's state after it, in this exchange.
        """
        self.state = state
        match event:
            case Answered(outcome):
                self.responded_s = time.monotonic()
                self._response = outcome
            case StreamBegun(content_type):
                self._response = StreamStarted(content_type)
            case Chunk(chunk):
                self._receive_chunk(chunk)
            case StreamEnded() as end:
                self.responded_s = time.monotonic()
                self._stream_end = end
            case LastWords():
                self.has_last_words = True
            case Done():
                self._is_done = True
        self._notify()

    def fail(self, error: WorkerError) -> None:
        """Raise this error for all that has not been received; the first one counts."""
        if self._error is None:
            self._error = error
        self._notify()

    def _notify(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _receive_chunk(self, chunk: bytes) -> None:
        if self._is_abandoned or not chunk:
            return
        self._chunks.append(chunk)
        self._chunk_bytes += len(chunk) + CHUNK_COST_BYTES
        if self._chunk_bytes >= STREAM_BUFFER_BYTES:
            self._source.pause_reading()
