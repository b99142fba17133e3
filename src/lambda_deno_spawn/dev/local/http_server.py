"""A small HTTP/1.1 server on a loopback port, for the emulator.

Knows keep-alive, pipelined requests, trailers, ``Expect: 100-continue``, requests that
break off, and a body that is received no faster than it is read. Does not know what is
asked for. h11 knows the syntax, but plain requests are read without it. Nothing here is
shared with the runtime's own client. Why not a web framework: decision 0032.
Specification: RFC 9112.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import h11

from lambda_deno_spawn.dev.local.plain_request import LIMIT_BYTES, take_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
# Runtimes may send an X-Ray cause of up to 1 MiB in one header.
HEADERS_LIMIT_BYTES = 2 * 1024 * 1024
CLOSE_LIMIT_S = 1.0  # for requests in progress to end; loopback takes 1 ms
CONTROL = re.compile(r"[\0-\x08\n-\x1f\x7f]")


class MalformedRequestError(Exception):
    """A request is not valid HTTP, or breaks off.

    Attributes:
        status: What to respond.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Response(NamedTuple):
    """A response.

    Attributes:
        status: Status code.
        body: The whole body.
        content_type: Its media type.
        fields: Further header fields; values are sent as UTF-8.
    """

    status: int
    body: bytes
    content_type: str = TEXT
    fields: Sequence[tuple[str, str]] = ()


class Request:
    """A request whose body is received as it is read.

    Attributes:
        method: HTTP method.
        path: Path without the query, decoded.
        headers: Fields, names in lower case; of repeated fields the first one counts.
        trailers: The same for the fields after the body, once that was read.
    """

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[str, str],
        connection: _Connection,
        body: bytes | None = None,
    ) -> None:
        """Describe a request; without a body, the connection receives it."""
        self.method = method.decode("ascii")
        path = target.partition(b"?")[0].decode("ascii")
        self.path = unquote(path) if "%" in path else path
        self.headers = headers
        self.trailers: dict[str, str] = {}
        self.is_plain = body is not None
        self._body = body
        self._connection = connection

    @property
    def is_abandoned(self) -> bool:
        """True if the client sends nothing more; known once the body was read."""
        return self._connection.has_ended

    async def next_chunk(self) -> bytes | None:
        """Return the next piece of the body; None after the last one.

        Raises:
            MalformedRequestError: There is no valid next piece.
        """
        if self.is_plain:
            body, self._body = self._body, None
            return body or None
        event = await self._connection.receive()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        self.trailers = _by_name(event.headers)
        return None

    async def read(self) -> bytes:
        """Return the whole body; raises as ``next_chunk``."""
        body = bytearray()
        while (chunk := await self.next_chunk()) is not None:
            body += chunk
        return bytes(body)


class HttpServer:
    """Listens on a free loopback port from ``start`` to ``aclose``."""

    def __init__(
        self,
        respond: Callable[[Request], Awaitable[Response]],
        on_hang_up: Callable[[], None],
    ) -> None:
        """Listen to nothing yet.

        Args:
            respond: Called with each request; may leave its body unread.
            on_hang_up: Called when a client sends nothing more.
        """
        self._respond = respond
        self._on_hang_up = on_hang_up
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> str:
        """Listen; return ``host:port``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def aclose(self) -> None:
        """Refuse connections, let requests in progress end, close the rest."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.finish()
        try:
            if connections:
                serving = [connection.serving for connection in connections]
                await asyncio.wait(serving, timeout=CLOSE_LIMIT_S)
        finally:
            for connection in connections:
                connection.abort()
        await asyncio.sleep(0)  # asyncio reports closed connections in its next turn

    def _connection(self) -> _Connection:
        return _Connection(self._respond, self._on_hang_up, self._connections)


class _Connection(asyncio.Protocol):
    """One connection; its requests are served one after another.

    Attributes:
        serving: The task that serves it.
        has_ended: True once the client sends nothing more.
    """

    serving: asyncio.Task[None]
    _transport: asyncio.Transport

    def __init__(
        self,
        respond: Callable[[Request], Awaitable[Response]],
        on_hang_up: Callable[[], None],
        connections: set[_Connection],
    ) -> None:
        """Expect a request; be among the connections while that lasts."""
        self.has_ended = False
        self._respond = respond
        self._on_hang_up = on_hang_up
        self._connections = connections
        self._ahead = bytearray()  # what h11 has not been given
        self._http: h11.Connection | None = None  # while it reads a request
        self._received = asyncio.Event()
        self._is_serving = False
        self._is_finishing = False

    async def receive(self) -> object:
        """Return the next event of h11.

        Raises:
            MalformedRequestError: There is no valid next event.
        """
        assert self._http is not None
        while (event := self._next_event(self._http)) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._write(h11.InformationalResponse(status_code=100, headers=[]))
            await self._more()
        if isinstance(event, h11.EndOfMessage):
            # So that the end of the connection is noticed while a call waits.
            self._transport.resume_reading()
        return event

    def finish(self) -> None:
        """End after the request in progress; at once if there is none."""
        self._is_finishing = True
        if not self._is_serving:
            self._transport.close()

    def abort(self) -> None:
        """End now."""
        self.serving.cancel()
        self._transport.abort()

    async def _more(self) -> None:
        """Wait for more bytes, or for their end."""
        self._received.clear()
        self._transport.resume_reading()
        await self._received.wait()

    def _next_event(self, http: h11.Connection) -> object:
        try:
            return http.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            raise MalformedRequestError(status, str(error)) from error

    async def _next_request(self) -> Request | None:
        """Return the next request; None if there is none."""
        while not self._ahead:
            if self.has_ended:
                return None
            await self._more()
        plain = take_request(self._ahead)
        if plain is not None:
            headers = _by_name(plain.fields)
            return Request(plain.method, plain.target, headers, self, plain.body)
        self._http = h11.Connection(h11.SERVER, HEADERS_LIMIT_BYTES)
        self._http.receive_data(bytes(self._ahead))
        self._ahead.clear()
        if self.has_ended:
            self._http.receive_data(b"")
        head = await self.receive()
        if not isinstance(head, h11.Request):
            return None
        return Request(head.method, head.target, _by_name(head.headers), self)

    async def _serve(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                self._is_serving = True
                response = await self._respond(request)
                if request.is_plain:
                    self._send_plainly(response, has_body=request.method != "HEAD")
                elif not await self._answer(request, response):
                    break
                self._is_serving = False
                if self._is_finishing:
                    break
        except MalformedRequestError as error:
            if self._http is not None and (
                self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)
            ):
                self._send(Response(error.status, str(error).encode()))
        finally:
            self._transport.close()

    async def _answer(self, request: Request, response: Response) -> bool:
        """Respond to a request of h11's; return whether another one may follow."""
        http = self._http
        assert http is not None
        # The rest of a body that was left unread.
        while http.their_state is h11.SEND_BODY:
            await self.receive()
        self._send(response, has_body=request.method != "HEAD")
        if http.our_state is not h11.DONE:
            return False
        self._ahead[:0], _ = http.trailing_data
        self._http = None
        return True

    def _send_plainly(self, response: Response, *, has_body: bool) -> None:
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.fields),
        ]
        for line in lines:
            if CONTROL.search(line):
                raise ValueError(f"Cannot send {line!r}: it has a control character")
        if not self._transport.is_closing():
            head = "\r\n".join(lines).encode()
            # In one piece: two would be two packets.
            body = response.body if has_body else b""
            self._transport.write(b"%b\r\n\r\n%b" % (head, body))

    def _send(self, response: Response, *, has_body: bool = True) -> None:
        assert self._http is not None
        fields = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *response.fields,
        ]
        if self._http.their_state is h11.ERROR:
            fields.append(("Connection", "close"))
        head = h11.Response(
            status_code=response.status,
            headers=[(name.encode(), value.encode()) for name, value in fields],
            reason=HTTPStatus(response.status).phrase.encode(),
        )
        body = response.body if has_body else b""
        self._write(head, h11.Data(body), h11.EndOfMessage())

    def _write(self, *events: h11.Event) -> None:
        assert self._http is not None
        # In one piece: two would be two packets.
        data = b"".join(self._http.send(event) or b"" for event in events)
        if not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            if self._http is not None:
                self._http.receive_data(b"")
            self._received.set()
            self._on_hang_up()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.serving = asyncio.create_task(self._serve())
        self._connections.add(self)
        self.serving.add_done_callback(lambda _: self._connections.discard(self))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio; of a long body, no more is received than is needed."""
        if self._http is not None:
            self._transport.pause_reading()
            self._http.receive_data(data)
        else:
            self._ahead += data
            if len(self._ahead) > LIMIT_BYTES:
                self._transport.pause_reading()
        self._received.set()

    def eof_received(self) -> bool:
        """Called by asyncio: the client sends nothing more."""
        self._end()
        return True  # it may still read

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._end()


def _by_name(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Index fields by name; the first one of a name counts."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(list(fields))
    }
