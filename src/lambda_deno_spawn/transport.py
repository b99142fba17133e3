"""An httpx transport for one plain HTTP/1.1 peer, on asyncio streams and h11.

Knows keep-alive on one connection, sized and chunked bodies both ways. Refuses to know
proxies, TLS, redirects, pools and timeouts: the peer is the Runtime API on a loopback
address, and whoever calls decides how long to wait. Why not httpx's own transport:
decision 0008. Specification: RFC 9112; h11's documentation.
"""

from __future__ import annotations

import asyncio
import socket

import h11
import httpx

READ_BYTES = 64 * 1024
# A client context alone may take 3.5 KB; h11's own limit is 16 KB for all together.
HEADERS_LIMIT_BYTES = 256 * 1024
# Loopback answers at once or never; a longer wait would only hide a wrong address.
CONNECT_LIMIT_S = 1.0


class ConnectionLostError(httpx.RemoteProtocolError):
    """The peer closed a connection before any byte of its answer."""


class SingleConnectionTransport(httpx.AsyncBaseTransport):
    """Sends requests one after another over one kept-alive connection.

    Not for concurrent use: give each loop its own. A kept connection that was closed
    in the meantime is replaced. So is one that breaks before any byte of an answer, for
    a GET: a POST may have been seen, and is not repeated.

    One extension of a request is known: ``trailers`` marks a body that comes in pieces,
    each written as it comes; called after the last one it returns trailer fields.
    """

    def __init__(self, host: str, port: int) -> None:
        """Take the peer; it is connected to by the first request."""
        self._host = host
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._http = _connection()
        self._has_received = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole answer.

        Raises:
            httpx.ConnectError: The peer cannot be reached.
            httpx.TransportError: It broke off, or broke HTTP.
        """
        if self._reader is not None and self._reader.at_eof():
            await self.aclose()
        is_reused = self._writer is not None
        try:
            return await self._exchange(request)
        except ConnectionLostError:
            if not is_reused or request.method != "GET":
                raise
            return await self._exchange(request)

    async def aclose(self) -> None:
        """Close the connection."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        if self._writer is None:
            await self._connect()
        is_complete = self._has_received = False
        try:
            await self._send(request)
            response = await self._receive()
            is_complete = self._http.our_state is self._http.their_state is h11.DONE
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

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host, self._port, limit=READ_BYTES
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or "timed out"
            raise httpx.ConnectError(
                f"cannot connect to {self._host}:{self._port}: {reason}"
            ) from error
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = _connection()

    async def _send(self, request: httpx.Request) -> None:
        assert self._writer is not None
        http = self._http
        head = h11.Request(
            method=request.method,
            target=request.url.raw_path,
            headers=request.headers.raw,
        )
        parts: list[bytes | None] = [http.send(head)]
        trailers: list[tuple[str, str]] = []
        if "trailers" in request.extensions:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            async for chunk in request.stream:
                if chunk:
                    parts += http.send_with_data_passthrough(h11.Data(chunk)) or []
                    await self._write(parts)
            trailers = request.extensions["trailers"]()
        elif request.content:
            # Head and body go out together: two writes would be two packets.
            body = h11.Data(request.content)
            parts += http.send_with_data_passthrough(body) or []
        end = h11.EndOfMessage(headers=trailers)
        parts += http.send_with_data_passthrough(end) or []
        await self._write(parts)

    async def _write(self, parts: list[bytes | None]) -> None:
        """Write and wait while the peer is slow; the list is empty afterwards."""
        assert self._writer is not None
        self._writer.writelines([part for part in parts if part])
        parts.clear()
        await self._writer.drain()

    async def _receive(self) -> httpx.Response:
        assert self._reader is not None
        http = self._http
        response: h11.Response | None = None
        body: list[bytes] = []
        event: object = h11.NEED_DATA  # the answer cannot be there yet
        while True:
            if event is h11.NEED_DATA:
                data = await self._reader.read(READ_BYTES)
                if not data and not self._has_received:
                    raise ConnectionLostError("the peer closed the connection")
                self._has_received = True
                http.receive_data(data)
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                return httpx.Response(
                    response.status_code,
                    headers=list(response.headers),
                    content=b"".join(body),
                )
            elif not isinstance(event, h11.InformationalResponse):
                raise httpx.RemoteProtocolError(f"unexpected event {event!r}")
            event = http.next_event()


def _connection() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_LIMIT_BYTES)
