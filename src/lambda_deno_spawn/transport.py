"""One kept-alive HTTP/1.1 connection to a plain peer on this machine.

Knows keep-alive, sized requests and such that come in pieces, an answer that comes
before the request is complete, and whom to ask about answers of an odd kind: h11, which
is loaded for those alone. Refuses to know proxies, TLS, redirects, content codings,
pools and timeouts: the peer is the Runtime API on a loopback address, and whoever calls
decides how long to wait. Why neither httpx nor h11 for all: decision 0022.
Specification: RFC 9112; h11's documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lambda_deno_spawn.http1 import AnswerReader, OddAnswerError, chunk, last_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

# A client context alone may take 3.5 KB; h11's own limit is 16 KB for all together.
HEADERS_LIMIT_BYTES = 256 * 1024
# Of what came and nobody has read, before the peer has to wait.
UNREAD_LIMIT_BYTES = 1024 * 1024
# Loopback answers at once or never; a longer wait would only hide a wrong address.
CONNECT_LIMIT_S = 1.0
HTTP_REFUSED = 400  # from here on a status says no (RFC 9110, section 15)


class Answer(NamedTuple):
    """What a peer answers.

    Attributes:
        status: Three digits.
        fields: Names in lower case and values, both as latin-1.
        body: All of it, or of a truncated one what there is.
    """

    status: int
    fields: list[tuple[str, str]]
    body: bytes


class TransportError(Exception):
    """There is no answer."""


class ConnectError(TransportError):
    """The peer cannot be reached; nothing was sent. Its cause has the reason."""


class ConnectionLostError(TransportError):
    """The peer closed a connection before any byte of its answer."""


class TruncatedAnswerError(TransportError):
    """The head of an answer came, its body did not, or is too large.

    Attributes:
        answer: With what there is of its body.
    """

    def __init__(self, message: str, answer: Answer) -> None:
        self.answer = answer
        super().__init__(message)


class HttpConnection:
    """Sends requests one after another over one kept-alive connection.

    Not for concurrent use: give each loop its own. A kept connection that was closed
    in the meantime, or on which something came unasked, is replaced.
    """

    def __init__(self, host: str, port: int, body_limit_bytes: int) -> None:
        """Take the peer, connected to by the first request, and a bound for answers."""
        self._host = host
        self._port = port
        self._body_limit_bytes = body_limit_bytes
        self._stream: _Stream | None = None

    async def request(self, message: bytes, *, is_repeatable: bool = False) -> Answer:
        """Send a request and return the whole answer.

        An answer that refuses ends the request, also if it comes before the end of it.

        Args:
            message: All of it.
            is_repeatable: Send it again if a kept connection breaks before any byte of
                an answer: for requests that change nothing. Others may have been seen.

        Raises:
            ConnectError: The peer cannot be reached; nothing was sent.
            TruncatedAnswerError: The answer has a head and no whole body.
            TransportError: The peer broke off, or broke HTTP.
        """
        if self._stream is not None and not self._stream.is_idle:
            await self.aclose()
        is_kept = self._stream is not None
        try:
            return await self._request(message)
        except ConnectionLostError:
            if not (is_kept and is_repeatable):
                raise
            return await self._request(message)

    async def request_in_pieces(
        self,
        head: bytes,
        pieces: AsyncIterable[bytes],
        trailers: Callable[[], list[tuple[str, str]]],
    ) -> Answer:
        """Send a request as its pieces come, each of them at once.

        Args:
            head: Up to the body, which it says to be chunked.
            pieces: Those of the body.
            trailers: Called after the last one for what follows it.

        Raises:
            ValueError: A trailer would be read as something else.
            TransportError: As ``request``.
        """
        stream = await self._begin()
        receiving = asyncio.create_task(self._receive(stream))
        sending = asyncio.create_task(_send(stream, head, pieces, trailers))
        tasks = {receiving, sending}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            is_early = receiving.done()
            if not is_early or receiving.result().status < HTTP_REFUSED:
                await sending
            return await receiving
        except OSError as error:
            raise _lost(stream, error) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._end(stream)

    async def connect(self) -> None:
        """Connect now instead of with the first request.

        Raises:
            ConnectError: The peer cannot be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, self._stream = await loop.create_connection(
                    _Stream, self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or "timed out"
            raise ConnectError(
                f"cannot connect to {self._host}:{self._port}: {reason}"
            ) from error

    async def aclose(self) -> None:
        """Close the connection; what was not sent yet is dropped."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()

    async def _request(self, message: bytes) -> Answer:
        stream = await self._begin()
        try:
            # What cannot be written yet goes on in the background: an answer may be
            # early.
            stream.write(message)
            answer = await self._receive(stream)
            if answer.status < HTTP_REFUSED and not stream.is_written:
                with contextlib.suppress(OSError):  # the answer is here
                    await stream.drained()
        except OSError as error:
            raise _lost(stream, error) from error
        else:
            return answer
        finally:
            self._end(stream)

    async def _begin(self) -> _Stream:
        """Have a connection for one exchange.

        Raises:
            ConnectError: The peer cannot be reached.
        """
        if self._stream is None:
            await self.connect()
        assert self._stream is not None
        self._stream.begin()
        return self._stream

    def _end(self, stream: _Stream) -> None:
        """Keep the connection only if nothing is left of the exchange."""
        # Also when cancelled: half an exchange spoils it.
        if not (stream.can_go_on and stream.is_written):
            stream.abort()
            self._stream = None

    async def _receive(self, stream: _Stream) -> Answer:
        reader = AnswerReader()
        raw: list[bytes] = []
        pieces: list[bytes] = []
        size_bytes = 0
        try:
            while not reader.is_complete:
                data = await stream.read()
                if not data:
                    _broke_off()
                raw.append(data)
                for piece in reader.receive(data):
                    pieces.append(piece)
                    size_bytes += len(piece)
                if reader.head is not None:
                    self._check_size(max(size_bytes, reader.head.body_bytes))
        except OddAnswerError:
            return await self._receive_odd(stream, b"".join(raw))
        except (TransportError, OSError) as error:
            if reader.head is None:
                raise
            head = reader.head
            answer = Answer(head.status, head.fields, b"".join(pieces))
            detail = f"its body cannot be read: {error}"
            raise TruncatedAnswerError(detail, answer) from error
        assert reader.head is not None
        stream.can_go_on = not reader.has_surplus and stream.is_idle
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Answer(reader.head.status, reader.head.fields, body)

    async def _receive_odd(self, stream: _Stream, begun: bytes) -> Answer:
        """Read an answer of which some bytes have come as h11 understands it."""
        import h11

        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_LIMIT_BYTES)
        # How the request was does not matter for what is an answer to it.
        http.send(h11.Request(method="GET", target="/", headers=[("Host", "")]))
        http.send(h11.EndOfMessage())
        response: h11.Response | None = None
        body = bytearray()
        try:
            http.receive_data(begun)
            event: object = http.next_event()
            while not isinstance(event, h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.read())
                elif isinstance(event, h11.Data):
                    body += event.data
                    self._check_size(len(body))
                elif isinstance(event, h11.Response):
                    response = event
                    for name, value in event.headers:
                        if name == b"content-length":
                            self._check_size(int(value))
                event = http.next_event()
        except (h11.RemoteProtocolError, TransportError, OSError) as error:
            if response is None:
                if isinstance(error, h11.RemoteProtocolError):
                    raise TransportError(str(error)) from error
                raise
            detail = f"its body cannot be read: {error}"
            raise TruncatedAnswerError(detail, _odd_answer(response, body)) from error
        assert response is not None
        stream.can_go_on = (
            http.our_state is http.their_state is h11.DONE
            and not http.trailing_data[0]
            and stream.is_idle
        )
        return _odd_answer(response, body)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._body_limit_bytes:
            raise TransportError(f"it is longer than {self._body_limit_bytes} bytes")


class _Stream(asyncio.Protocol):
    """The bytes of one connection, in both directions.

    Attributes:
        has_received: Something has come since ``begin``.
        can_go_on: Whoever has read the last answer says that another may follow.
    """

    def __init__(self) -> None:
        self.has_received = False
        self.can_go_on = False
        self._transport: asyncio.Transport | None = None
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._is_at_end = False
        self._lost: OSError | None = None
        self._came: asyncio.Future[None] | None = None
        self._has_room: asyncio.Future[None] | None = None
        self._is_full = False

    @property
    def is_idle(self) -> bool:
        """True while nothing came that was not read, the end included."""
        return not self._unread and not self._is_at_end

    @property
    def is_written(self) -> bool:
        """True if the kernel has all that was written."""
        return not self._is_full and not self._is_at_end

    def begin(self) -> None:
        """Begin an exchange."""
        self.has_received = self.can_go_on = False

    def write(self, data: bytes) -> None:
        """Write; what the kernel does not take at once follows by itself."""
        assert self._transport is not None
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the kernel has all that was written.

        Raises:
            OSError: The connection broke.
        """
        if self._is_full and not self._is_at_end:
            self._has_room = asyncio.get_running_loop().create_future()
            await self._has_room
        if self._lost is not None:
            raise self._lost

    async def read(self) -> bytes:
        """Wait for what comes next; nothing at the end of an answer that had begun.

        Raises:
            ConnectionLostError: It ended before any byte of an answer.
            OSError: It broke.
        """
        if not self._unread and not self._is_at_end:
            self._came = asyncio.get_running_loop().create_future()
            await self._came
        if self._unread:
            data = b"".join(self._unread)
            self._unread.clear()
            if self._unread_bytes > UNREAD_LIMIT_BYTES and self._transport is not None:
                self._transport.resume_reading()
            self._unread_bytes = 0
            self.has_received = True
            return data
        if self._lost is not None:
            raise self._lost
        if not self.has_received:
            raise ConnectionLostError("the peer closed the connection")
        return b""

    def abort(self) -> None:
        """Close it; what was not sent yet is dropped."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        # Drained means: the kernel has all of it.
        transport.set_write_buffer_limits(0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep bytes for whoever reads."""
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_LIMIT_BYTES and self._transport is not None:
            self._transport.pause_reading()
        _wake(self._came)

    def eof_received(self) -> bool:
        """Tell the end; what was not sent yet still may be."""
        self._is_at_end = True
        _wake(self._came)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the end, and how it came; what was received can still be read."""
        if isinstance(error, OSError):
            self._lost = error
        elif error is not None:
            self._lost = ConnectionError(str(error))
        self._is_at_end = True
        _wake(self._came)
        _wake(self._has_room)

    def pause_writing(self) -> None:
        """Note that the kernel has no room."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Note that it has all of it."""
        self._is_full = False
        _wake(self._has_room)


def _lost(stream: _Stream, error: OSError) -> TransportError:
    kind = TransportError if stream.has_received else ConnectionLostError
    return kind(f"the connection broke: {error}")


def _broke_off() -> NoReturn:
    raise TransportError("the peer unexpectedly closed the connection")


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def _send(
    stream: _Stream,
    head: bytes,
    pieces: AsyncIterable[bytes],
    trailers: Callable[[], list[tuple[str, str]]],
) -> None:
    """Send a request as its pieces come, or until the connection breaks.

    That ends the reading as well, which knows whether there was an answer.
    """
    with contextlib.suppress(OSError):
        unsent = head
        async for piece in pieces:
            if piece:
                stream.write(unsent + chunk(piece))
                unsent = b""
                await stream.drained()
        stream.write(unsent + last_chunk(trailers()))
        await stream.drained()


def _odd_answer(response: Any, body: bytearray) -> Answer:
    fields = [(k.decode("ascii"), v.decode("latin-1")) for k, v in response.headers]
    return Answer(response.status_code, fields, bytes(body))
