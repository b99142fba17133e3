"""A Runtime API that costs as little as possible and freezes like Lambda's.

Serves ``next``, ``response``, ``error`` and ``init error`` to one runtime from an
``asyncio.Protocol``, and responds to a post at once. With a sandbox, it freezes that as
soon as it has received a ``next``, and thaws it before it sends the event. The time
measured runs from the write of the event to the last byte of the post, to its first
piece if it is streamed, and to the ``next`` after it, where billing ends. Leaves out
what benchmarks do not need: deadlines that are enforced, extensions, several runtimes.

Not the emulator of ``dev/local``: the server's own time is part of what is measured,
and with h11 it is 0.25 ms between an event and its post instead of 0.1 ms. That would
move every ratio towards 1.

Specification: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom
runtimes" and "Understanding the execution environment lifecycle".
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from lambda_deno_spawn.dev.bench.sandbox import Sandbox

RESPONSE_TIMEOUT_S = 30.0  # far longer than any event: the runtime must have died
DEADLINE_S = 300.0  # no benchmark is about deadlines
# Threads of a thawed process wake one by one. The event is sent after that, because the
# time that Lambda takes to thaw does not count.
SETTLE_S = 0.001

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ ]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ ]*chunked", re.IGNORECASE)
# A field after a streamed body: the stream has broken off.
_FAILED = re.compile(
    rb"^lambda-runtime-function-error-type:", re.IGNORECASE | re.MULTILINE
)
ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
    b'Content-Length: 16\r\n\r\n{"status":"OK"}\n'
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class InitFailedError(LambdaDenoSpawnError):
    """The runtime posted an init error.

    Attributes:
        body: The error as JSON, if the runtime keeps to the form.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        super().__init__(f"Init failed: {body.decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class Response:
    """The runtime's post for one event.

    Attributes:
        is_error: True if it was posted to ``error`` instead of ``response``, or broke
            off.
        body: Body of the post.
        latency_s: Time from the write of the event to the last byte of the post.
        first_piece_s: Time from the write of the event to the first piece of a chunked
            post; the same as ``latency_s`` for any other post.
        received_at_s: When the last byte was received (``time.perf_counter``).
        billed_s: Time from the write of the event to the following ``next``.
    """

    is_error: bool
    body: bytes
    latency_s: float
    first_piece_s: float
    received_at_s: float
    billed_s: float = 0.0


class RuntimeApi:
    """The server's side of one runtime; an async context manager.

    Create it inside the event loop. One event at a time: ``invoke`` must not be called
    concurrently.

    Attributes:
        address: ``host:port``, known once entered.
        polled_at_s: When ``next`` was last called (``time.perf_counter``).
        on_post: Called when a post has been received, before the runtime is told so.

    Args:
        sandbox: Frozen while the runtime waits in ``next``; None: nothing is.
        deadline_s: How much time the runtime is told that it has for an event.
        limit_s: How long to wait for a call of the runtime.
    """

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        limit_s: float = RESPONSE_TIMEOUT_S,
    ) -> None:
        self.address = ""
        self.polled_at_s = 0.0
        self.on_post: Callable[[], None] = lambda: None
        self._sandbox = sandbox
        self._deadline_s = deadline_s
        self._limit_s = limit_s
        self._server: asyncio.Server | None = None
        loop = asyncio.get_running_loop()
        self._poll: asyncio.Future[Connection] = loop.create_future()
        self._post: asyncio.Future[Response] = loop.create_future()
        self._sent_at_s = 0.0
        self._first_piece_at_s: float | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback interface."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), host="127.0.0.1", port=0
        )
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening; the runtime should have ended by now."""
        assert self._server is not None
        self._server.close()

    async def polled(self) -> None:
        """Return when the runtime waits in ``next``, frozen if there is a sandbox.

        Raises:
            TimeoutError: It did not call ``next``.
            InitFailedError: It posted an init error instead.
        """
        async with asyncio.timeout(self._limit_s):
            await asyncio.shield(self._poll)

    async def invoke(self, event: bytes) -> Response:
        """Deliver one event; return after the post for it *and* the following ``next``.

        Raises:
            TimeoutError: There was no post, or no ``next`` after it.
        """
        await self.polled()
        if self._sandbox is not None:
            self._sandbox.thaw()
            await asyncio.sleep(SETTLE_S)
        loop = asyncio.get_running_loop()
        connection = self._poll.result()
        self._poll = loop.create_future()
        self._post = loop.create_future()
        message = delivery(str(uuid.uuid4()), event, self._deadline_s)
        self._first_piece_at_s = None
        self._sent_at_s = time.perf_counter()
        connection.write(message)
        async with asyncio.timeout(self._limit_s):
            response = await self._post
        await self.polled()
        return replace(response, billed_s=self.polled_at_s - self._sent_at_s)

    def piece_came(self) -> None:
        """Note the time of a chunked post's first piece; called after each read."""
        if self._first_piece_at_s is None:
            self._first_piece_at_s = time.perf_counter()

    def handle(
        self, connection: Connection, method: bytes, path: bytes, body: bytes
    ) -> None:
        """Serve one complete request; called by a connection."""
        received_at_s = time.perf_counter()
        if method == b"GET" and path.endswith(b"/invocation/next"):
            self.polled_at_s = received_at_s
            if self._sandbox is not None:
                self._sandbox.freeze()
            self._poll.set_result(connection)
        elif path.endswith((b"/response", b"/error")) and b"/invocation/" in path:
            self.on_post()
            connection.write(ACCEPTED)
            is_error = path.endswith(b"/error") or connection.has_broken_off
            latency_s = received_at_s - self._sent_at_s
            first_piece_s = (self._first_piece_at_s or received_at_s) - self._sent_at_s
            self._post.set_result(
                Response(is_error, body, latency_s, first_piece_s, received_at_s)
            )
        elif path.endswith(b"/init/error"):
            connection.write(ACCEPTED)
            self._poll.set_exception(InitFailedError(body))
        else:
            connection.write(_NOT_FOUND)


def delivery(request_id: str, event: bytes, deadline_s: float = DEADLINE_S) -> bytes:
    """Return the response to ``next`` that delivers an event."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {int((time.time() + deadline_s) * 1000)}\r\n"
        "Lambda-Runtime-Invoked-Function-Arn: "
        "arn:aws:lambda:us-east-1:123456789012:function:bench\r\n"
        f"Content-Length: {len(event)}\r\n\r\n"
    )
    return head.encode() + event


class Requests(Protocol):
    """The receiver of the connections' requests."""

    def piece_came(self) -> None:
        """Note that a piece of a chunked post was received."""

    def handle(
        self, connection: Connection, method: bytes, path: bytes, body: bytes
    ) -> None:
        """Serve one complete request."""


class Connection(asyncio.Protocol):
    """Splits the bytes of one connection into requests.

    Attributes:
        has_broken_off: The last chunked body ended with an error.
    """

    def __init__(self, api: Requests) -> None:
        self.has_broken_off = False
        self._api = api
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: serve the requests that are complete."""
        self._buffer += data
        while self._take_request():
            pass

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        assert self._transport is not None
        self._transport.write(data)

    def _take_request(self) -> bool:
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        head = bytes(self._buffer[:head_end])
        body_start = head_end + 4
        self.has_broken_off = False
        if _CHUNKED.search(head):
            if len(self._buffer) > body_start:
                self._api.piece_came()
            taken = _take_chunks(self._buffer, body_start)
            if taken is None:
                return False
            body, end, trailers = taken
            self.has_broken_off = _FAILED.search(trailers) is not None
        else:
            match = _CONTENT_LENGTH.search(head)
            end = body_start + (int(match[1]) if match else 0)
            if len(self._buffer) < end:
                return False
            body = bytes(self._buffer[body_start:end])
        del self._buffer[:end]
        method, path, _ = head.split(b" ", 2)
        self._api.handle(self, method, path, body)
        return True


def _take_chunks(buffer: bytearray, start: int) -> tuple[bytes, int, bytes] | None:
    """Join the chunks of one body; return None while some are missing.

    Returns:
        The body, the end of the request in the buffer, and the fields after the body.
    """
    parts: list[bytes] = []
    while (line_end := buffer.find(b"\r\n", start)) >= 0:
        size = int(bytes(buffer[start:line_end]).split(b";")[0], 16)
        if size == 0:
            last = buffer.find(b"\r\n\r\n", line_end)
            if last < 0:
                return None
            return b"".join(parts), last + 4, bytes(buffer[line_end + 2 : last + 2])
        end = line_end + 2 + size + 2
        if len(buffer) < end:
            return None
        parts.append(bytes(buffer[line_end + 2 : line_end + 2 + size]))
        start = end
    return None
