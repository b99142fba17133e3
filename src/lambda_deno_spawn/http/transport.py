"""Requests to one HTTP/1.1 server, and their responses, on asyncio's transports.

Knows keep-alive on one connection, when a request may be repeated, and a response that
is received before the request was sent completely. Does not know proxies, TLS,
redirects, content codings, pools and timeouts: the server is the Runtime API on a
loopback address, and the caller decides how long to wait. The syntax of HTTP is in
``http1``. Why no HTTP client library: decision 0022.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.http.http1 import (
    HttpError,
    RemoteProtocolError,
    ResponseReader,
    chunk,
    end_of_chunks,
)
from lambda_deno_spawn.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from lambda_deno_spawn.http.http1 import Field

# Loopback responds at once or never; a longer wait would only hide a wrong address.
CONNECT_LIMIT_S = 1.0
HTTP_REFUSED = 400  # the lowest status of an error (RFC 9110, section 15)
# As much as asyncio reads at once.
READ_BYTES = 256 * 1024
# A larger body is not joined to its head: to copy it takes longer than to send one more
# packet.
JOINED_BYTES = 64 * 1024
# How often to try again while the queue of a Unix socket is full.
CONNECT_PAUSE_S = 0.01
# Counts the bytes that the peer has not read yet (linux/sockios.h). It has the value of
# the request for terminals, which is the only one that Python names.
SIOCOUTQ = getattr(termios, "TIOCOUTQ", None)
UCRED = "3i"  # struct ucred: pid, uid, gid (unix(7))


class ConnectError(HttpError):
    """The peer cannot be reached; nothing was sent. The cause is an OSError."""


class ConnectionLostError(HttpError):
    """The connection ended before any byte of a response."""


class TruncatedResponseError(HttpError):
    """The head of a response was received, but its body is incomplete or too large.

    Attributes:
        response: The response with the part of the body that was received.
    """

    def __init__(self, message: str, response: Response) -> None:
        self.response = response
        super().__init__(message)


class Response(NamedTuple):
    """A response.

    Attributes:
        status: Status code.
        headers: Fields, names in lower case; of repeated fields the last one counts.
        ambiguous: Names of fields that are repeated with different values.
        body: The whole body; content codings are not decoded.
    """

    status: int
    headers: dict[str, str]
    ambiguous: frozenset[str]
    body: bytes


class HttpTransport:
    """Sends requests one after another over one kept-alive connection.

    Not for concurrent use: give each loop its own. A kept-alive connection is replaced
    if the peer has closed it, or has sent something that was not asked for.
    """

    def __init__(self, host: str, port: int, body_limit_bytes: int) -> None:
        """Connect to nothing yet; the first request does.

        Args:
            host: Name or address of the peer.
            port: TCP port.
            body_limit_bytes: Longest body of a response that is accepted.
        """
        self._host = host
        self._port = port
        self._body_limit_bytes = body_limit_bytes
        self._connection: _Connection | None = None

    @property
    def is_idle(self) -> bool:
        """True if there is a connection that a request can be sent on."""
        return self._connection is not None and self._connection.is_idle

    async def send(
        self, head: bytes, body: bytes = b"", *, is_repeatable: bool = False
    ) -> Response:
        """Send a request and return the whole response.

        An error status ends the exchange, even if it is received before the request was
        sent completely. Cancellation closes the connection.

        Args:
            head: Head of the request.
            body: Body of the request.
            is_repeatable: Send the request again if a kept-alive connection ends before
                any byte of a response: the peer may have received the first one.

        Raises:
            ConnectError: The peer cannot be reached; nothing was sent.
            TruncatedResponseError: The response has a head but not its whole body.
            HttpError: The connection ended, or the response is not valid HTTP.
        """
        if not self.is_idle:
            await self.aclose()
        is_kept = self._connection is not None
        try:
            return await self._exchange(head, body)
        except ConnectionLostError:
            if not (is_kept and is_repeatable):
                raise
            return await self._exchange(head, body)

    async def stream(
        self,
        head: bytes,
        pieces: AsyncIterable[bytes],
        trailers: Callable[[], Iterable[Field]],
    ) -> Response:
        """Send a chunked request, piece by piece, and return the whole response.

        Like ``send``, except that the connection is closed afterwards in any case.

        Args:
            head: Head of the request; declares that the body is chunked.
            pieces: The body; each piece is sent at once.
            trailers: Called after the last piece; returns the trailer fields.
        """
        connection = await self._connected()
        try:
            receiving = connection.expect_response(self._body_limit_bytes)
            sending = asyncio.create_task(
                connection.send_pieces(head, pieces, trailers)
            )
            try:
                both: set[asyncio.Future[Any]] = {receiving, sending}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                is_early = receiving.done()
                if not is_early or receiving.result().status < HTTP_REFUSED:
                    await sending
                return await receiving
            finally:
                for waiting in (receiving, sending):
                    waiting.cancel()
                await asyncio.gather(receiving, sending, return_exceptions=True)
        finally:
            await self.aclose()

    async def connect(self) -> None:
        """Connect now instead of with the first request.

        Raises:
            ConnectError: The peer cannot be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, self._connection = await loop.create_connection(
                    _Connection, self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or "timed out"
            raise ConnectError(
                f"cannot connect to {self._host}:{self._port}: {reason}"
            ) from error

    async def aclose(self) -> None:
        """Close the connection; bytes that were not sent yet are dropped."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _connected(self) -> _Connection:
        if self._connection is None:
            await self.connect()
        assert self._connection is not None
        return self._connection

    async def _exchange(self, head: bytes, body: bytes) -> Response:
        connection = self._connection or await self._connected()
        try:
            connection.write(head, body)
            receiving = connection.expect_response(self._body_limit_bytes)
            # Writing goes on in the background: the response may be early.
            response = await receiving
            if connection.is_writing and response.status < HTTP_REFUSED:
                await connection.written()
        finally:
            # Also when cancelled: after half an exchange it cannot be reused.
            if not connection.is_idle:
                await self.aclose()
        return response


async def connect_unix(path: str, pid: int) -> socket.socket:
    """Connect to a Unix socket that a certain process listens on, and no other.

    Raises:
        OSError: No process listens, another one does, or its queue stays full.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + CONNECT_LIMIT_S
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # asyncio would mistake EAGAIN, a full queue, for a connection in progress.
        is_last = False
        while not _is_connected(sock, path, is_last=is_last):
            await asyncio.sleep(CONNECT_PAUSE_S)
            is_last = loop.time() > give_up_s
        _check_listener(sock, pid)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_connected(sock: socket.socket, path: str, *, is_last: bool) -> bool:
    try:
        sock.connect(path)
    except BlockingIOError as error:
        if is_last:
            reason = "its queue of connections is full"
            raise OSError(errno.EAGAIN, reason) from error
        return False
    return True


def _check_listener(sock: socket.socket, pid: int) -> None:
    """Refuse a connection to any other process, on systems that tell the peer's id."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize(UCRED)
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        listening = struct.unpack(UCRED, found)[0]
        if listening != pid:
            reason = f"process {listening} listens in its place"
            raise OSError(errno.ECONNREFUSED, reason)


def has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Tell whether the peer of a Unix socket has not read all that was sent to it."""
    if transport.get_write_buffer_size():
        return True
    sock = transport.get_extra_info("socket")
    if SIOCOUTQ is None or transport.is_closing() or sock is None:
        return False
    counted = fcntl.ioctl(sock.fileno(), SIOCOUTQ, b"\0" * 4)
    return counted != b"\0" * 4


def write_parts(transport: asyncio.Transport, head: bytes, *body: bytes) -> None:
    """Write a request, in one packet unless it is large."""
    # Not writelines: in some releases of Python 3.12 and 3.13 it never waits for a
    # slow peer (CVE-2024-12254).
    if sum(map(len, body)) <= JOINED_BYTES:
        transport.write(b"".join((head, *body)))
        return
    transport.write(head)
    for part in body:
        transport.write(memoryview(part))  # the unsent rest of it is not copied


class Receiver(asyncio.BufferedProtocol):
    """A protocol whose connections all read into one buffer.

    ``asyncio.Protocol`` would allocate 256 KiB for each read and trim it afterwards:
    30 µs for 300 bytes (decision 0022).
    """

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Called by asyncio; the buffer is emptied before the next connection reads."""
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        """Called by asyncio."""
        self.data_received(bytes(_BUFFER[:count]))

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        raise NotImplementedError


_BUFFER = memoryview(bytearray(READ_BYTES))


class _Connection(Receiver):
    """One connection, and the response that is awaited on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: ResponseReader | None = None
        self._receiving: asyncio.Future[Response] | None = None
        self._body: list[bytes] = []
        self._written: asyncio.Future[None] | None = None
        self._is_reusable = True
        self._is_lost = False

    @property
    def is_idle(self) -> bool:
        """True while a request can be sent: none is in progress, none went wrong."""
        return self._reader is None and self._is_reusable and self._written is None

    @property
    def is_writing(self) -> bool:
        """True while the kernel has not accepted the whole request."""
        return self._written is not None

    def expect_response(self, limit_bytes: int) -> asyncio.Future[Response]:
        """Begin to wait for a response whose body is no longer than the limit.

        The future fails as ``HttpTransport.send`` does.
        """
        self._body = []
        self._reader = ResponseReader(self._body.append, limit_bytes)
        self._receiving = self._loop.create_future()
        return self._receiving

    def write(self, head: bytes, body: bytes) -> None:
        """Write a request; asyncio sends later what the kernel does not accept yet."""
        assert self._transport is not None
        write_parts(self._transport, head, body)

    async def written(self) -> bool:
        """Wait until the kernel has accepted it; False if the connection was lost."""
        if self._written is not None:
            await self._written
        return not self._is_lost

    async def send_pieces(
        self,
        head: bytes,
        pieces: AsyncIterable[bytes],
        trailers: Callable[[], Iterable[Field]],
    ) -> None:
        """Send a request piece by piece, as long as the connection lasts.

        A lost connection is not reported here: it ends the wait for the response too,
        which knows whether there was one.
        """
        async for piece in pieces:
            if piece:
                self.write(head, chunk(piece))
                head = b""
                if not await self.written():
                    return
        self.write(head, end_of_chunks(trailers()))
        await self.written()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # A write counts as written only once the kernel has accepted all of it.
        transport.set_write_buffer_limits(0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Read bytes of a response; without a request, discard the connection."""
        reader = self._reader
        if reader is None:
            self._discard()
            return
        try:
            reader.receive_data(data)
        except RemoteProtocolError as error:
            self._fail(error)
        else:
            if reader.is_complete:
                self._succeed(reader)

    def eof_received(self) -> bool:
        """Called by asyncio: the peer sends no more."""
        self._end(ConnectionLostError("the peer closed the connection"))
        return True  # the peer may still read what is being written

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio: the end of the connection."""
        self._is_lost = True
        if error is not None:
            self._read_rest()
        self.resume_writing()
        lost = f"the connection broke: {error or 'it was given up'}"
        cause = ConnectionLostError(lost)
        cause.__cause__ = error
        self._end(cause, is_broken=True)

    def pause_writing(self) -> None:
        """Called by asyncio: the kernel has not accepted everything."""
        self._written = self._loop.create_future()

    def resume_writing(self) -> None:
        """Called by asyncio: now it has."""
        written, self._written = self._written, None
        if written is not None and not written.done():
            written.set_result(None)

    def _read_rest(self) -> None:
        """Read what the kernel still holds: the refusal that made a write fail."""
        assert self._transport is not None
        fd = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while self._reader is not None and (data := os.read(fd, READ_BYTES)):
                self.data_received(data)

    def _end(self, error: ConnectionLostError, *, is_broken: bool = False) -> None:
        """Complete the awaited response, or fail it: nothing more will be received."""
        self._is_reusable = False
        reader = self._reader
        if reader is None:
            return
        if not reader.has_begun:
            self._fail(error)
        elif is_broken:
            self._fail(RemoteProtocolError(str(error)))
        else:
            try:
                reader.receive_eof()
            except RemoteProtocolError as early:
                self._fail(early)
            else:
                self._succeed(reader)

    def _discard(self) -> None:
        self._is_reusable = False
        assert self._transport is not None
        self._transport.pause_reading()

    def _succeed(self, reader: ResponseReader) -> None:
        self._reader = None
        self._is_reusable = self._is_reusable and reader.is_reusable
        receiving, self._receiving = self._receiving, None
        if receiving is not None and not receiving.done():
            receiving.set_result(self._response(reader))

    def _fail(self, error: HttpError) -> None:
        reader, self._reader = self._reader, None
        self._is_reusable = False
        receiving, self._receiving = self._receiving, None
        if receiving is None or receiving.done():
            return
        if reader is not None and reader.status:
            detail = f"its body cannot be read: {error}"
            truncated = TruncatedResponseError(detail, self._response(reader))
            truncated.__cause__ = error
            receiving.set_exception(truncated)
        else:
            receiving.set_exception(error)

    def _response(self, reader: ResponseReader) -> Response:
        pieces, self._body = self._body, []
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Response(reader.status, reader.headers, reader.ambiguous, body)
