"""Invocations over HTTP to a worker's Unix socket, several at a time.

Knows how an invocation is posted, that the body of its response holds frames, which
number each one has, and what the end of a connection means. Does not know what becomes
of the process. Normative text: docs/protocol.md, "Over HTTP"; ``js/server.js`` is the
other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerProtocolError,
    WorkerSpawnError,
    WorkerUnreachedError,
)
from lambda_deno_spawn.http.http1 import (
    HTTP_OK,
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
from lambda_deno_spawn.worker.channel import EXIT_GRACE_S
from lambda_deno_spawn.worker.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.invocation import Invocation

HOST = field_lines([("Host", "worker")])
# Connecting takes 0.1 ms, unless the kernel's queue of connections is full.
CONNECT_SOON_S = 0.5
# If the supervisor lacks these, the worker is not to blame for a missing connection.
OWN_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class SocketChannel:
    """The connections to one worker's socket; see ``channel.Channel``."""

    def __init__(
        self, path: str, pid: int, marker: str, log_tail: Callable[[], str]
    ) -> None:
        """Connect to nothing yet.

        Args:
            path: Path of the socket.
            pid: The worker's process id: no other process is sent an event.
            marker: The worker's marker.
            log_tail: Returns the last lines of its log, for error messages.
        """
        self.handed_over = 0
        self.on_stdout: Exchange | None = None  # frames come over connections
        self.is_reachable = True
        self._path = path
        self._pid = pid
        self._marker = marker
        self._log_tail = log_tail
        self._loop = asyncio.get_running_loop()
        self._error: WorkerError | None = None
        self._links: dict[Exchange, HttpLink] = {}
        self._idle: list[HttpLink] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_exchanges(self) -> int:
        """How many were handed over and not closed."""
        return len(self._links)

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Post an invocation over a connection of its own."""
        link = self._idle_link() or await self._connect()
        # Counted after the connection: others may have been handed over meanwhile, and
        # this one might never be.
        self.handed_over += 1
        exchange = link.post(self._marker, self.handed_over, invocation, abort_epoch_ms)
        self._links[exchange] = link
        return exchange

    def has_read_another(self, exchange: Exchange) -> bool:
        """Tell whether the worker has read an open invocation besides."""
        return any(
            link.carries(other) and not link.is_unread
            for other, link in self._links.items()
            if other is not exchange
        )

    def close_exchange(self, exchange: Exchange) -> None:
        """Forget an exchange; a connection that still carries it is closed."""
        link = self._links.pop(exchange, None)
        exchange.close()
        if link is not None and link.carries(exchange):
            link.close()

    def fail(self, error: WorkerError) -> None:
        """Fail every exchange, each once its connection has been read to the end."""
        self._error = self._error or error
        for exchange, link in self._links.items():
            if link.carries(exchange):
                # Bytes that the worker has sent are read first; the way in which its
                # connection ends tells whether the event was read. Both are here
                # already if it has exited.
                self._loop.call_later(EXIT_GRACE_S, exchange.fail, error)
            else:
                exchange.fail(error)

    def close(self) -> None:
        """Close every connection."""
        for link in [*self._idle, *self._links.values()]:
            link.close()

    # Reports of links.

    def link_idle(self, link: HttpLink) -> None:
        """Keep a connection that can carry another exchange."""
        self._idle.append(link)

    def link_lost(self, exchange: Exchange, *, is_unread: bool) -> None:
        """Fail an exchange whose connection ended before its response did.

        Args:
            exchange: The exchange that it carried.
            is_unread: The worker had not read all of the event, and so has not run it.
        """
        if is_unread:
            exchange.fail(self._unreached("it closed the connection unread"))
        elif self._error is not None:
            exchange.fail(self._error)
        else:
            error = WorkerProtocolError(
                "Cannot read a response: the worker's server closed the connection, "
                "and the process runs on",
                pid=self._pid,
                stderr_tail=self._log_tail(),
            )
            self._loop.call_later(EXIT_GRACE_S, exchange.fail, error)

    def notify_caller_gone(self, number: int) -> None:
        """Tell the worker over another connection which stream has lost its caller."""
        task = self._loop.create_task(self._abandon(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _abandon(self, number: int) -> None:
        with contextlib.suppress(WorkerError):  # the exchange itself says why
            link = self._idle_link() or await self._connect()
            link.abandon(number)

    def _idle_link(self) -> HttpLink | None:
        while self._idle:
            link = self._idle.pop()
            if link.is_open:
                return link
        return None

    async def _connect(self) -> HttpLink:
        started_s = self._loop.time()
        try:
            sock = await connect_unix(self._path, self._pid)
            _, link = await self._loop.create_unix_connection(
                lambda: HttpLink(self), sock=sock
            )
        except OSError as error:
            if error.errno in OWN_SHORTAGE:
                action = "connect to the handler's process"
                raise WorkerSpawnError.from_os_error(action, error) from error
            raise self._unreached(error.strerror or str(error)) from error
        except BaseException:
            # The queue stayed full until the deadline of the invocation.
            if self._loop.time() - started_s > CONNECT_SOON_S:
                self.is_reachable = False
            raise
        return link

    def _unreached(self, reason: str) -> WorkerUnreachedError:
        """Hand nothing more to this worker; return why."""
        self.is_reachable = False
        return WorkerUnreachedError(
            f"Cannot reach the worker's server: {reason}",
            pid=self._pid,
            stderr_tail=self._log_tail(),
        )


class HttpLink(Receiver):
    """A kept-alive connection that carries one exchange at a time.

    It is the source of that exchange's frames (``exchange.Source``).

    Attributes:
        is_open: False once the connection is of no more use.
    """

    def __init__(self, channel: SocketChannel) -> None:
        """Report to the channel what happens to the connection."""
        self.is_open = True
        self._channel = channel
        self._reader: ResponseReader | None = None
        self._transport: asyncio.Transport | None = None
        self._connection: WorkerConnection | None = None
        self._exchange: Exchange | None = None

    def carries(self, exchange: Exchange) -> bool:
        """Tell whether it still does: afterwards it may carry another."""
        return self._exchange is exchange

    @property
    def is_unread(self) -> bool:
        """True if the worker has not read all of what it was sent last."""
        return self._transport is not None and has_unread_bytes(self._transport)

    def post(
        self, marker: str, number: int, invocation: Invocation, abort_epoch_ms: int
    ) -> Exchange:
        """Post an invocation; see ``channel.Channel.hand_over``."""
        connection = WorkerConnection(marker, State.IDLE)
        # Sent first, to save time: no frame is read before this function returns.
        self._send("POST", number, connection.invoke(invocation, abort_epoch_ms))
        self._connection = connection
        self._exchange = Exchange(number, self)
        return self._exchange

    def abandon(self, number: int) -> None:
        """Say that the caller of an invocation has left its stream."""
        self._send("DELETE", number, [])

    def close(self) -> None:
        """Close the connection, whatever it carries."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # exchange.Source

    def pause_reading(self) -> None:
        """Leave frames in the socket."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read frames again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def notify_caller_gone(self, number: int) -> None:
        """Use another connection: this one still carries the end of the stream."""
        self._channel.notify_caller_gone(number)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: bytes of a response."""
        reader = self._reader
        if reader is None:
            self._fail(RemoteProtocolError("nothing was asked"))
            return
        try:
            reader.receive_data(data)
            if reader.status:
                self._check(reader.status)
            if reader.is_complete:
                self._complete(reader)
        except (RemoteProtocolError, WorkerProtocolError) as error:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio: the end of the connection."""
        self.is_open = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # Linux resets a Unix socket that is closed while something in it is unread;
            # a peer that no longer accepts bytes has not read the end of them either.
            is_unread = isinstance(error, (ConnectionResetError, BrokenPipeError))
            has_response = self._reader is not None and bool(self._reader.status)
            self._channel.link_lost(exchange, is_unread=is_unread and not has_response)

    def _send(self, method: str, number: int, body: list[bytes]) -> None:
        assert self._transport is not None
        length = sum(map(len, body))
        head = request_head(method, f"/{number}", HOST, length)
        write_parts(self._transport, head, *body)
        self._reader = ResponseReader(self._receive_body)

    def _check(self, status: int) -> None:
        if status != HTTP_OK:
            raise WorkerProtocolError(
                f"Cannot read a response: the worker's server says {status}"
            )

    def _receive_body(self, data: bytes) -> None:
        if self._reader is not None:
            self._check(self._reader.status)
        connection, exchange = self._connection, self._exchange
        if connection is None or exchange is None:
            # A notice that the caller is gone is answered by a head alone.
            raise WorkerProtocolError("Cannot read a response: it has a body")
        for event in connection.receive_data(data):
            if isinstance(event, Stray):
                shown = bytes(event.data[:64])
                raise WorkerProtocolError(
                    f"Cannot read a response: between its frames is {shown!r}"
                )
            exchange.receive(event, connection.state)

    def _complete(self, reader: ResponseReader) -> None:
        self._reader = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.state not in (State.IDLE, State.DONE):
            self._channel.link_lost(exchange, is_unread=False)
        if not reader.is_reusable:
            self.close()
        else:
            self._channel.link_idle(self)

    def _fail(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if not isinstance(error, WorkerProtocolError):
                error = WorkerProtocolError(f"Cannot read a response: {error}")
            if self._connection is not None:
                exchange.state = self._connection.state
            exchange.fail(error)
        self.close()
