"""One plain HTTP/1.1 peer: requests sent, answers awaited, on asyncio's transports.

Knows keep-alive on one connection, when a request may be repeated, and an answer that
comes before the request is complete. Refuses to know proxies, TLS, redirects, content
codings, pools and timeouts: the peer is the Runtime API on a loopback address, and
whoever calls decides how long to wait. What HTTP looks like is in ``http1``. Why no
client of others: decision 0022.
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
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_deno_spawn.http.http1 import (
    AnswerReader,
    HttpError,
    RemoteProtocolError,
    chunk,
    end_of_chunks,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from lambda_deno_spawn.http.http1 import Field

# Loopback answers at once or never; a longer wait would only hide a wrong address.
CONNECT_LIMIT_S = 1.0
HTTP_REFUSED = 400  # from here on a status says no (RFC 9110, section 15)
# As much as asyncio takes at once.
READ_BYTES = 256 * 1024
# Up to here head and body are joined: two writes would be two packets. A copy of more
# takes longer than a packet.
JOINED_BYTES = 64 * 1024


# Between two looks whether a Unix socket's queue has room again.
CONNECT_PAUSE_S = 0.01
# From linux/sockios.h: bytes that the peer has not read yet. So that of terminals.
SIOCOUTQ = getattr(termios, "TIOCOUTQ", None)
UCRED = "3i"  # struct ucred: pid, uid, gid (unix(7))


class ConnectError(HttpError):
    """The peer cannot be reached; nothing was sent. Its cause is the system's."""


class ConnectionLostError(HttpError):
    """The connection ended before any byte of an answer."""


class TruncatedAnswerError(HttpError):
    """The head of an answer came, its body did not, or is too large.

    Attributes:
        answer: The answer with what there is of its body.
    """

    def __init__(self, message: str, answer: Answer) -> None:
        self.answer = answer
        super().__init__(message)


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: Of the answer.
        headers: Fields, names in lower case; the last one counts of those that repeat.
        ambiguous: Names of fields that came more than once and differ.
        body: All of it, whatever its coding is called.
    """

    status: int
    headers: dict[str, str]
    ambiguous: frozenset[str]
    body: bytes


class HttpTransport:
    """Sends requests one after another over one kept-alive connection.

    Not for concurrent use: give each loop its own. A kept connection that was closed
    in the meantime, or on which something came unasked, is replaced.
    """

    def __init__(self, host: str, port: int, body_limit_bytes: int) -> None:
        """Take the peer, connected to by the first request, and a bound for answers."""
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
    ) -> Answer:
        """Send a request and return the whole answer.

        An answer that refuses ends the request, also if it comes before the end of it.
        Cancelled, it gives the connection up.

        Args:
            head: Of the request.
            body: Of the request.
            is_repeatable: Send it again if a kept connection breaks before any byte of
                an answer: it may have been seen.

        Raises:
            ConnectError: The peer cannot be reached; nothing was sent.
            TruncatedAnswerError: The answer has a head and no whole body.
            HttpError: The peer broke off, or broke HTTP.
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
    ) -> Answer:
        """Send a request in pieces, each as it comes, and return the whole answer.

        As ``send``, but the connection is given up behind it in any case.

        Args:
            head: Of the request; says that it is chunked.
            pieces: The body.
            trailers: Called after the last one: fields that follow it.
        """
        connection = await self._connected()
        try:
            receiving = connection.expect_answer(self._body_limit_bytes)
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
        """Close the connection; what was not sent yet is dropped."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _connected(self) -> _Connection:
        if self._connection is None:
            await self.connect()
        assert self._connection is not None
        return self._connection

    async def _exchange(self, head: bytes, body: bytes) -> Answer:
        connection = self._connection or await self._connected()
        try:
            connection.write(head, body)
            receiving = connection.expect_answer(self._body_limit_bytes)
            # What is not written yet goes on in the background: an answer may be early.
            answer = await receiving
            if connection.is_writing and answer.status < HTTP_REFUSED:
                await connection.written()
        finally:
            # Also when cancelled: half an exchange spoils the connection.
            if not connection.is_idle:
                await self.aclose()
        return answer


async def connect_unix(path: str, pid: int) -> socket.socket:
    """Connect to a Unix socket that a certain process listens on, and no other.

    Raises:
        OSError: Nobody listens, or another process does, or its queue stays full.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + CONNECT_LIMIT_S
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # asyncio takes a full queue (EAGAIN) for a connection that is being made.
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
            reason = "as many connections wait for it as the kernel allows"
            raise OSError(errno.EAGAIN, reason) from error
        return False
    return True


def _check_listener(sock: socket.socket, pid: int) -> None:
    """Refuse a connection to another process than that one, where the system tells."""
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
    """Write a request, in one go unless it is large."""
    # Not writelines: in some releases of Python 3.12 and 3.13 it never waits for a
    # slow peer (CVE-2024-12254).
    if sum(map(len, body)) <= JOINED_BYTES:
        transport.write(b"".join((head, *body)))
        return
    transport.write(head)
    for part in body:
        transport.write(memoryview(part))  # of which a rest is no copy


class Receiver(asyncio.BufferedProtocol):
    """A protocol that is given what has come, read into one buffer for all.

    asyncio's other way makes an object of 256 KiB for each read and cuts it: memory is
    asked for and given back each time, 30 µs for 300 bytes (decision 0022).
    """

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Lend the buffer; what it holds is taken before anybody else reads."""
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        """Take what was read."""
        self.data_received(bytes(_BUFFER[:count]))

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        raise NotImplementedError


_BUFFER = memoryview(bytearray(READ_BYTES))


class _Connection(Receiver):
    """One connection, and the answer that is awaited on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._receiving: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._written: asyncio.Future[None] | None = None
        self._is_spent = False
        self._is_lost = False

    @property
    def is_idle(self) -> bool:
        """True while a request can be sent: nothing is on its way, nothing came."""
        return self._reader is None and not self._is_spent and self._written is None

    @property
    def is_writing(self) -> bool:
        """True while the kernel has not taken all of the request."""
        return self._written is not None

    def expect_answer(self, limit_bytes: int) -> asyncio.Future[Answer]:
        """Begin to wait for an answer whose body is no longer than that.

        The future fails as ``HttpTransport.send`` does.
        """
        self._body = []
        self._reader = AnswerReader(self._body.append, limit_bytes)
        self._receiving = self._loop.create_future()
        return self._receiving

    def write(self, head: bytes, body: bytes) -> None:
        """Write a request; what the kernel does not take yet follows by itself."""
        assert self._transport is not None
        write_parts(self._transport, head, body)

    async def written(self) -> bool:
        """Wait until the kernel has all of it; False if the connection broke."""
        if self._written is not None:
            await self._written
        return not self._is_lost

    async def send_pieces(
        self,
        head: bytes,
        pieces: AsyncIterable[bytes],
        trailers: Callable[[], Iterable[Field]],
    ) -> None:
        """Send a request as its pieces come, or until the connection breaks.

        That ends the waiting for the answer as well, which knows whether there was one.
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
        """Give it up."""
        self._is_spent = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Written means: the kernel has all of it.
        transport.set_write_buffer_limits(0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer; unasked they spoil the connection."""
        reader = self._reader
        if reader is None:
            self._spoil()
            return
        try:
            reader.receive_data(data)
        except RemoteProtocolError as error:
            self._fail(error)
        else:
            if reader.is_complete:
                self._succeed(reader)

    def eof_received(self) -> bool:
        """Take the end of what the peer sends."""
        self._end(ConnectionLostError("the peer closed the connection"))
        return True  # what is being written may still be taken

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end of the connection."""
        self._is_lost = True
        if error is not None:
            self._read_rest()
        self.resume_writing()
        lost = f"the connection broke: {error or 'it was given up'}"
        cause = ConnectionLostError(lost)
        cause.__cause__ = error
        self._end(cause, is_broken=True)

    def pause_writing(self) -> None:
        """Note that the kernel has not taken all."""
        self._written = self._loop.create_future()

    def resume_writing(self) -> None:
        """Note that it has."""
        written, self._written = self._written, None
        if written is not None and not written.done():
            written.set_result(None)

    def _read_rest(self) -> None:
        """Read what the kernel still has: a refusal, on which the writing broke."""
        assert self._transport is not None
        fd = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while self._reader is not None and (data := os.read(fd, READ_BYTES)):
                self.data_received(data)

    def _end(self, error: ConnectionLostError, *, is_broken: bool = False) -> None:
        """Bring what is awaited to its end, because nothing more comes."""
        self._is_spent = True
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

    def _spoil(self) -> None:
        self._is_spent = True
        assert self._transport is not None
        self._transport.pause_reading()

    def _succeed(self, reader: AnswerReader) -> None:
        self._reader = None
        self._is_spent = self._is_spent or reader.is_last
        receiving, self._receiving = self._receiving, None
        if receiving is not None and not receiving.done():
            receiving.set_result(self._answer(reader))

    def _fail(self, error: HttpError) -> None:
        reader, self._reader = self._reader, None
        self._is_spent = True
        receiving, self._receiving = self._receiving, None
        if receiving is None or receiving.done():
            return
        if reader is not None and reader.status:
            answer = self._answer(reader)
            detail = f"its body cannot be read: {error}"
            truncated = TruncatedAnswerError(detail, answer)
            truncated.__cause__ = error
            receiving.set_exception(truncated)
        else:
            receiving.set_exception(error)

    def _answer(self, reader: AnswerReader) -> Answer:
        pieces, self._body = self._body, []
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Answer(reader.status, reader.headers, reader.ambiguous, body)
