"""An httpx transport for one plain HTTP/1.1 peer, on asyncio streams and h11.

Knows keep-alive on one connection, sized and chunked bodies both ways, and an answer
that comes before the request is complete. Refuses to know proxies, TLS, redirects,
content codings, pools and timeouts: the peer is the Runtime API on a loopback
address, and whoever calls decides how long to wait. Why not httpx's own transport:
decision 0008. Specification: RFC 9112; h11's documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import h11
import httpx

READ_BYTES = 64 * 1024
# A client context alone may take 3.5 KB; h11's own limit is 16 KB for all together.
HEADERS_LIMIT_BYTES = 256 * 1024
# Loopback answers at once or never; a longer wait would only hide a wrong address.
CONNECT_LIMIT_S = 1.0
HTTP_REFUSED = 400  # from here on a status says no (RFC 9110, section 15)


class ConnectionLostError(httpx.RemoteProtocolError):
    """The peer closed a connection before any byte of its answer."""


class TruncatedResponseError(httpx.RemoteProtocolError):
    """The head of an answer came, its body did not, or is too large.

    Attributes:
        response: The answer with what there is of its body.
    """

    def __init__(self, message: str, response: httpx.Response) -> None:
        self.response = response
        super().__init__(message)


class SingleConnectionTransport(httpx.AsyncBaseTransport):
    """Sends requests one after another over one kept-alive connection.

    Not for concurrent use: give each loop its own. A kept connection that was closed
    in the meantime, or on which something came unasked, is replaced. So is one that
    breaks before any byte of an answer, for a GET: a POST may have been seen, and is
    not repeated.

    One extension of a request is known: ``trailers`` marks a body that comes in pieces,
    each written as it comes; called after the last one it returns trailer fields.
    """

    def __init__(self, host: str, port: int, body_limit_bytes: int) -> None:
        """Take the peer, connected to by the first request, and a bound for answers."""
        self._host = host
        self._port = port
        self._body_limit_bytes = body_limit_bytes
        self._reader: _Reader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._http = _connection()
        self._has_received = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole answer.

        An answer that refuses ends the request, also if it comes before the end of it.

        Raises:
            httpx.ConnectError: The peer cannot be reached; nothing was sent.
            TruncatedResponseError: The answer has a head and no whole body.
            httpx.TransportError: The peer broke off, or broke HTTP.
        """
        if self._reader is not None and not self._reader.is_idle:
            await self.aclose()
        is_reused = self._writer is not None
        try:
            return await self._exchange(request)
        except ConnectionLostError:
            if not is_reused or request.method != "GET":
                raise
            return await self._exchange(request)

    async def connect(self) -> None:
        """Connect now instead of with the first request.

        Raises:
            httpx.ConnectError: The peer cannot be reached. Its cause has the system's
                reason.
        """
        reader = _Reader()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                transport, protocol = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
                    self._host,
                    self._port,
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or "timed out"
            raise httpx.ConnectError(
                f"cannot connect to {self._host}:{self._port}: {reason}"
            ) from error
        # Drained means: the kernel has all of it.
        transport.set_write_buffer_limits(0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._http = _connection()

    async def aclose(self) -> None:
        """Close the connection; what was not sent yet is dropped."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        if self._writer is None:
            await self.connect()
        assert self._writer is not None
        is_complete = self._has_received = False
        try:
            if "trailers" in request.extensions:
                response = await self._stream(request)
            else:
                response = await self._send_and_receive(request)
            is_complete = (
                self._http.our_state is self._http.their_state is h11.DONE
                and self._writer.transport.get_write_buffer_size() == 0
                and not self._http.trailing_data[0]
            )
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except OSError as error:
            lost = f"the connection broke: {error}"
            if self._has_received:
                raise httpx.RemoteProtocolError(lost) from error
            raise ConnectionLostError(lost) from error
        finally:
            # Also when cancelled: half an exchange spoils the connection.
            if is_complete:
                self._http.start_next_cycle()
            else:
                await self.aclose()
        return response

    async def _send_and_receive(self, request: httpx.Request) -> httpx.Response:
        assert self._writer is not None
        http = self._http
        # Head and body go out together: two writes would be two packets.
        parts: list[bytes | None] = [http.send(_head(request))]
        if request.content:
            body = h11.Data(request.content)
            parts += http.send_with_data_passthrough(body) or []
        parts += http.send_with_data_passthrough(h11.EndOfMessage()) or []
        self._writer.write(_joined(parts))
        # What is not written yet goes on in the background: an answer may be early.
        response = await self._receive()
        if response.status_code < HTTP_REFUSED:
            with contextlib.suppress(OSError):  # the answer is here
                await self._writer.drain()
        return response

    async def _stream(self, request: httpx.Request) -> httpx.Response:
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send_pieces(request))
        try:
            await asyncio.wait(
                {receiving, sending}, return_when=asyncio.FIRST_COMPLETED
            )
            is_early = receiving.done()
            if not is_early or receiving.result().status_code < HTTP_REFUSED:
                await sending
            return await receiving
        finally:
            for task in (receiving, sending):
                task.cancel()
            await asyncio.gather(receiving, sending, return_exceptions=True)

    async def _send_pieces(self, request: httpx.Request) -> None:
        """Send a request as its pieces come, or until the connection breaks."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        http = self._http
        parts: list[bytes | None] = [http.send(_head(request))]
        async for chunk in request.stream:
            if chunk:
                parts += http.send_with_data_passthrough(h11.Data(chunk)) or []
                if not await self._write(parts):
                    return
        end = h11.EndOfMessage(headers=request.extensions["trailers"]())
        parts += http.send_with_data_passthrough(end) or []
        await self._write(parts)

    async def _write(self, parts: list[bytes | None]) -> bool:
        """Write and wait while the peer is slow; the list is empty afterwards.

        False if the connection broke. That ends the reading as well, which knows
        whether there was an answer.
        """
        assert self._writer is not None
        self._writer.write(_joined(parts))
        parts.clear()
        try:
            await self._writer.drain()
        except OSError:
            return False
        return True

    async def _receive(self) -> httpx.Response:
        response: h11.Response | None = None
        body = bytearray()
        event: object = h11.NEED_DATA  # the answer cannot be there yet
        try:
            while not isinstance(event, h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._read())
                elif isinstance(event, h11.Data):
                    body += event.data
                    self._check_size(len(body))
                elif isinstance(event, h11.Response):
                    response = event
                    for name, value in event.headers:
                        if name == b"content-length":
                            self._check_size(int(value))
                event = self._http.next_event()
        except (h11.RemoteProtocolError, httpx.RemoteProtocolError, OSError) as error:
            if response is None:
                raise
            detail = f"its body cannot be read: {error}"
            raise TruncatedResponseError(detail, _answer(response, body)) from error
        assert response is not None
        return _answer(response, body)

    async def _read(self) -> bytes:
        assert self._reader is not None
        data = await self._reader.read(READ_BYTES)
        if not data and self._reader.lost is not None:
            raise self._reader.lost
        if not data and not self._has_received:
            raise ConnectionLostError("the peer closed the connection")
        self._has_received = True
        return data

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._body_limit_bytes:
            raise httpx.RemoteProtocolError(
                f"it is longer than {self._body_limit_bytes} bytes"
            )


class _Reader(asyncio.StreamReader):
    """Keeps what came before a connection broke, and knows what nobody has read.

    Attributes:
        lost: How the connection broke; None if it did not, or was closed in order.
    """

    def __init__(self) -> None:
        super().__init__(limit=READ_BYTES, loop=asyncio.get_running_loop())
        self.lost: OSError | None = None
        self._unread_bytes = 0

    @property
    def is_idle(self) -> bool:
        """True while nothing came that was not read, the end included."""
        return self._unread_bytes == 0 and not self.at_eof()

    def feed_data(self, data: Any) -> None:
        self._unread_bytes += len(data)
        super().feed_data(data)

    def set_exception(self, exc: BaseException) -> None:
        """End the stream as it would in order: what came can still be read."""
        self.lost = exc if isinstance(exc, OSError) else ConnectionError(str(exc))
        self.feed_eof()

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self._unread_bytes -= len(data)
        return data


def _connection() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_LIMIT_BYTES)


def _head(request: httpx.Request) -> h11.Request:
    return h11.Request(
        method=request.method,
        target=request.url.raw_path,
        headers=request.headers.raw,
    )


def _joined(parts: list[bytes | None]) -> bytes:
    # Not writelines: in some releases of Python 3.12 and 3.13 it never waits for a slow
    # peer (CVE-2024-12254).
    return b"".join([part for part in parts if part])


def _answer(response: h11.Response, body: bytearray) -> httpx.Response:
    # httpx would undo a content coding; whatever it is called, the body is the event.
    headers = [field for field in response.headers if field[0] != b"content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body))
