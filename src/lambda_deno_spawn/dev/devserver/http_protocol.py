"""Connections of clients to ``dev``: plain requests in little time, others by uvicorn.

Knows how an ASGI application answers a request that has arrived whole, and that a
connection is handed over to uvicorn's own protocol with the first other one: large
bodies, ``Expect``, ``Connection: close``, anything malformed. That one takes four times
as long for a request. Does not know what is asked for. Specification: ASGI, "HTTP
Connection Scope"; RFC 9112.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.h11_impl import H11Protocol

from lambda_deno_spawn.dev.local.plain_request import LIMIT_BYTES, take_request

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Config
    from uvicorn.server import ServerState

    from lambda_deno_spawn.dev.local.plain_request import PlainRequest

CLOSE = (b"connection", b"close")
BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
REASONS = {each.value: each.phrase.encode() for each in HTTPStatus}


class PlainProtocol(asyncio.Protocol):
    """One connection; uvicorn makes it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Expect a request; called by uvicorn."""
        if not config.loaded:
            config.load()
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._app: ASGIApp = config.loaded_app
        self._buffer = bytearray()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._cycle: _Cycle | None = None
        self._is_paused = False
        self._drained: asyncio.Future[None] | None = None  # while writing is paused
        self._is_ending = False
        self._idle_since_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server = transport.get_extra_info("sockname")
        self._client = transport.get_extra_info("peername")
        self._server_state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        if self._cycle is None:
            self._go_on()
        elif len(self._buffer) > LIMIT_BYTES:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._server_state.connections.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._cycle is not None:
            self._cycle.lose()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Called by asyncio: the client reads slowly."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # For uvicorn.

    def shutdown(self) -> None:
        """End after the request in progress; called by uvicorn."""
        self._is_ending = True
        if self._cycle is None:
            self._transport.close()

    # For the request in progress.

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        while self._drained is not None:
            await asyncio.shield(self._drained)

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        self._transport.write(data)

    def end_cycle(self, *, may_go_on: bool) -> None:
        """Expect the next request, or close the connection."""
        self._cycle = None
        if self._is_ending or not may_go_on:
            self._transport.close()
            return
        if self._transport.is_closing():
            return
        self._idle_since_s = self._loop.time()
        if self._idle_timer is None:
            self._expect_idleness(self._config.timeout_keep_alive)
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._buffer:
            self._go_on()

    def _go_on(self) -> None:
        request = take_request(self._buffer)
        if request is None:
            self._hand_over()
            return
        cycle = self._cycle = _Cycle(self, request)
        task = self._loop.create_task(cycle.run(self._app, self._scope(request)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _scope(self, request: PlainRequest) -> dict[str, Any]:
        raw_path, _, query = request.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": request.fields,
            "state": self._app_state.copy(),
        }

    def _hand_over(self) -> None:
        self._server_state.connections.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        other = H11Protocol(
            self._config, self._server_state, self._app_state, self._loop
        )
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        if self._drained is not None:
            other.pause_writing()
        other.data_received(bytes(self._buffer))

    def _expect_idleness(self, delay_s: float) -> None:
        self._idle_timer = self._loop.call_later(delay_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        limit_s = self._config.timeout_keep_alive
        left_s = self._idle_since_s + limit_s - self._loop.time()
        if self._cycle is None and left_s <= 0:
            self._transport.close()
        else:
            self._expect_idleness(limit_s if self._cycle is not None else left_s)

    @property
    def default_fields(self) -> list[tuple[bytes, bytes]]:
        """The fields that every response has, such as ``date``."""
        return self._server_state.default_headers


class _Cycle:
    """One request, and its response."""

    def __init__(self, protocol: PlainProtocol, request: PlainRequest) -> None:
        self._protocol = protocol
        self._request = request
        self._has_read = False
        self._is_lost = False
        self._over: asyncio.Event | None = None  # for an application that waits for it
        self._start: Any = None
        self._is_begun = False
        self._is_chunked = False
        self._may_go_on = True
        self._is_complete = False

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Have the application answer."""
        try:
            await app(scope, self.receive, self.send)
        except Exception:  # `Guarded` has told the developer
            pass
        finally:
            if not self._is_complete and not self._is_lost:
                self._break_off()

    def lose(self) -> None:
        """Note that the client is gone."""
        self._is_lost = True
        if self._over is not None:
            self._over.set()

    async def receive(self) -> dict[str, Any]:
        """Return the body, then wait for the end; called by the application."""
        if not self._has_read:
            self._has_read = True
            body = self._request.body
            return {"type": "http.request", "body": body, "more_body": False}
        if not (self._is_lost or self._is_complete):
            if self._over is None:
                self._over = asyncio.Event()
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Send a part of the response; called by the application."""
        if self._protocol._drained is not None:
            await self._protocol.drain()
        if self._is_lost:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body = message.get("body", b"")
        has_more = message.get("more_body", False)
        data = [] if self._is_begun else [self._head()]
        self._is_begun = True
        if self._request.method == b"HEAD":
            pass
        elif self._is_chunked:
            if body:
                data.append(b"%x\r\n%b\r\n" % (len(body), body))
            if not has_more:
                data.append(b"0\r\n\r\n")
        elif self._start["status"] not in BODILESS:
            data.append(body)
        self._protocol.write(b"".join(data))
        if not has_more:
            self._is_complete = True
            if self._over is not None:
                self._over.set()
            self._protocol.end_cycle(may_go_on=self._may_go_on)

    def _head(self) -> bytes:
        status = self._start["status"]
        given = self._start["headers"]
        fields = [*self._protocol.default_fields, *given]
        names = {name for name, _ in given}
        if b"content-length" not in names and status not in BODILESS:
            self._is_chunked = True
            fields.append((b"transfer-encoding", b"chunked"))
        self._may_go_on = CLOSE not in given
        text = b"".join([b"%b: %b\r\n" % field for field in fields])
        if not text.count(b"\n") == text.count(b"\r") == len(fields) or b"\0" in text:
            raise ValueError("Cannot send a header with a line break")
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, REASONS.get(status, b""), text)

    def _break_off(self) -> None:
        """End a response that the application did not complete."""
        if not self._is_begun:
            body = b"Internal Server Error"
            head = b"HTTP/1.1 500 %b\r\nconnection: close\r\n" % body
            type_ = b"content-type: text/plain; charset=utf-8\r\n"
            length = b"content-length: %d\r\n\r\n" % len(body)
            self._protocol.write(head + type_ + length + body)
        self._protocol.end_cycle(may_go_on=False)
