"""Invocations over HTTP: one connection to a worker's Unix socket.

Knows how an invocation is posted, that the body of its answer holds frames, and what it
means when a connection ends. Refuses to know what becomes of the process. Normative
text: docs/protocol.md, "Over HTTP"; ``js/server.js`` is the other end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import WorkerProtocolError
from lambda_deno_spawn.http.http1 import (
    RemoteProtocolError,
    ResponseReader,
    field_lines,
    request_head,
)
from lambda_deno_spawn.http.transport import (
    Receiver,
    connect_unix,
    has_unread_bytes,
    write_parts,
)
from lambda_deno_spawn.protocol.frames import State, Stray, WorkerConnection
from lambda_deno_spawn.worker.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lambda_deno_spawn.invocation import Invocation

HOST = field_lines([("Host", "worker")])
HTTP_OK = 200


class HttpLink(Receiver):
    """A kept-alive connection that carries one exchange at a time.

    Attributes:
        is_open: False once it is of no use any more.
    """

    def __init__(self, on_free: Callable[[HttpLink], None]) -> None:
        """Take who is told that the link can carry another exchange."""
        self.is_open = True
        self._on_free = on_free
        self._reader: ResponseReader | None = None
        self._transport: asyncio.Transport | None = None
        self._connection: WorkerConnection | None = None
        self._exchange: Exchange | None = None
        self._on_lost: Callable[[Exchange, bool], None] = lambda *_: None
        self._on_abandon: Callable[[], None] = lambda: None

    @classmethod
    async def connect(
        cls, path: str, pid: int, on_free: Callable[[HttpLink], None]
    ) -> Self:
        """Connect to a worker that listens.

        Args:
            path: Of its socket.
            pid: Its process id: an event is for no other process that listens there.
            on_free: Told that the link can carry another exchange.

        Raises:
            OSError: It does not listen, or not any more.
        """
        sock = await connect_unix(path, pid)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_free), sock=sock)
        return link

    def carries(self, exchange: Exchange) -> bool:
        """Tell whether it still does: afterwards it may carry another."""
        return self._exchange is exchange

    @property
    def is_unread(self) -> bool:
        """True if the worker has not read all of what it was sent last."""
        return self._transport is not None and has_unread_bytes(self._transport)

    def begin(
        self,
        marker: str,
        number: int,
        invocation: Invocation,
        abort_epoch_ms: int,
        *,
        on_lost: Callable[[Exchange, bool], None],
        on_abandon: Callable[[], None],
    ) -> Exchange:
        """Post an invocation.

        Args:
            marker: The worker's.
            number: No other of this worker has it.
            invocation: The event and its facts.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.
            on_lost: Told if the connection ends before the answer does, and whether
                the worker had not read all of the event: then it has not begun it.
            on_abandon: Told if nobody listens to the answer any more.
        """
        connection = WorkerConnection(marker, State.IDLE)
        # Sent first: nothing is read before this returns, so the rest can follow.
        self._send("POST", number, connection.invoke(invocation, abort_epoch_ms))
        self._connection = connection
        self._exchange = Exchange(connection, self, number)
        self._on_lost, self._on_abandon = on_lost, on_abandon
        return self._exchange

    def abandon(self, number: int) -> None:
        """Say that nobody listens to the answer of an invocation any more."""
        self._send("DELETE", number, [])

    def close(self) -> None:
        """Give it up, whatever it carries."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # What an exchange asks of its way (exchange.Carrier).

    def hold(self) -> None:
        """Leave frames in the socket."""
        if self._transport is not None:
            self._transport.pause_reading()

    def release(self) -> None:
        """Take frames again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def tell_caller_gone(self) -> None:
        """Pass it on: the connection itself still carries the end of the answer."""
        self._on_abandon()

    # What the event loop tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer."""
        reader = self._reader
        if reader is None:
            self._break_off(RemoteProtocolError("nothing was asked"))
            return
        try:
            reader.receive_data(data)
            if reader.status:
                self._check(reader.status)
            if reader.is_complete:
                self._ended(reader)
        except (RemoteProtocolError, WorkerProtocolError) as error:
            self._break_off(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whose answer will not come."""
        self.is_open = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # A Unix socket that is closed before all in it was read says so: reset. One
            # that takes no more of what is sent has not had the end of it either.
            is_unread = isinstance(error, (ConnectionResetError, BrokenPipeError))
            has_answer = self._reader is not None and bool(self._reader.status)
            self._on_lost(exchange, is_unread and not has_answer)

    def _send(self, method: str, number: int, body: list[bytes]) -> None:
        assert self._transport is not None
        length = sum(map(len, body))
        head = request_head(method, f"/{number}", HOST, length)
        write_parts(self._transport, head, *body)
        self._reader = ResponseReader(self._take)

    def _check(self, status: int) -> None:
        if status != HTTP_OK:
            raise WorkerProtocolError(
                f"Cannot read an answer: the worker's server says {status}"
            )

    def _take(self, data: bytes) -> None:
        if self._reader is not None:
            self._check(self._reader.status)
        if self._connection is None or self._exchange is None:
            # Word that nobody listens is answered by a head alone.
            raise WorkerProtocolError("Cannot read an answer: it has a body")
        for event in self._connection.receive_data(data):
            if isinstance(event, Stray):
                shown = bytes(event.data[:64])
                raise WorkerProtocolError(
                    f"Cannot read an answer: between its frames is {shown!r}"
                )
            self._exchange.take(event)

    def _ended(self, reader: ResponseReader) -> None:
        self._reader = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.state not in (State.IDLE, State.DONE):
            self._on_lost(exchange, False)
        if not reader.is_reusable:
            self.close()
        else:
            self._on_free(self)

    def _break_off(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if not isinstance(error, WorkerProtocolError):
                error = WorkerProtocolError(f"Cannot read an answer: {error}")
            exchange.break_off(error)
        self.close()
