"""Stand-ins that tests share.

``FakeRuntimeApi`` is a real HTTP server on a loopback port that plays the Runtime API:
it holds ``next`` until a test hands out an event, records every answer, and can be told
to refuse, to break off, or to send its body in chunks. It spells headers itself and so
is a witness against the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    # Plays the rest of one exchange; returns False if the connection is to be closed.
    Fault = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]

# Only a test that fails waits so long, however busy the machine is.
REQUEST_LIMIT_S = 90.0
# A function's timeout where it is not what is tested: a busy machine may need seconds.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One POST of the runtime.

    Attributes:
        call: ``response``, ``error``, ``init/error`` or ``restore/error``.
        request_id: Which invocation it answers, empty for an init error.
        headers: Header fields with lower-case names.
        body: Body as sent.
        received_s: When it was complete; monotonic clock.
        chunks: When each chunk of a chunked body came; monotonic clock, and bytes.
        trailers: Trailer fields with lower-case names.
    """

    call: str
    request_id: str
    headers: dict[str, str]
    body: bytes
    received_s: float
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Refusal:
    """What to send instead of 202; ``None`` as status: close the connection."""

    status: int | None
    error_type: str = "Refused"


@dataclass(slots=True)
class _Delivery:
    head: list[str]
    body: bytes
    is_chunked: bool = False


@dataclass(slots=True)
class FakeRuntimeApi:
    """A scripted Runtime API.

    Attributes:
        refusals: Taken one per answer, before 202 is sent again.
        next_refusals: Taken one per ``next``.
        next_faults: Taken one per ``next``, before a delivery is.
        answer_faults: Taken one per answer, in place of 202.
        body_faults: Taken one per answer whose head has come, in place of reading its
            body; such an answer is not recorded.
        requests: Method and last two words of the path of each request, bodies or not.
        user_agents: Every User-Agent seen.
        connections: How many connections were opened.
        chunk_gate: Awaited before each further chunk of an answer is read.
        first_chunk: Set once a chunk of an answer was read.
        chunks_received: Released once for each chunk.
        closes_after_next: Close the connection behind the next event.
        cut_after_chunks: Close the connection after so many chunks: a caller who left.
        hosts: Addresses to listen on, all at the same port.
        port: Port to listen on; 0: a free one.
        named: Host in ``address``, if not the first of ``hosts``.
        restore_refusals: Taken one per ``restore/next``.
        register_refusals: Taken one per registration of an extension.
        credentials: What is sent to who shows the token; None: nothing is.
        credentials_token: That token.
        extensions: Name and body of each registration.
        neighbour_faults: Taken one per call beside the Runtime API's own.
    """

    refusals: list[Refusal] = field(default_factory=list)
    next_refusals: list[Refusal] = field(default_factory=list)
    next_faults: list[Fault] = field(default_factory=list)
    answer_faults: list[Fault] = field(default_factory=list)
    body_faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    user_agents: set[str] = field(default_factory=set)
    connections: int = 0
    closes_after_next: bool = False
    chunk_gate: asyncio.Event | None = None
    cut_after_chunks: int | None = None
    first_chunk: asyncio.Event = field(default_factory=asyncio.Event)
    chunks_received: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(0)
    )
    answers: asyncio.Queue[Answer] = field(default_factory=asyncio.Queue)
    _deliveries: asyncio.Queue[_Delivery] = field(default_factory=asyncio.Queue)
    _waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 0
    named: str = ""
    restore_refusals: list[Refusal] = field(default_factory=list)
    register_refusals: list[Refusal] = field(default_factory=list)
    credentials: bytes | None = None
    credentials_token: str = ""
    extensions: list[tuple[str, bytes]] = field(default_factory=list)
    neighbour_faults: list[Fault] = field(default_factory=list)
    _snapshots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    _restored: asyncio.Event = field(default_factory=asyncio.Event)
    _extension_waits: asyncio.Event = field(default_factory=asyncio.Event)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def __aenter__(self) -> Self:
        """Listen."""
        for host in self.hosts:
            server = await asyncio.start_server(self._accept, host, self.port)
            self._servers.append(server)
            self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """``host:port`` for AWS_LAMBDA_RUNTIME_API."""
        return f"{self.named or self.hosts[0]}:{self.port}"

    async def wait_for_next(self, limit_s: float = REQUEST_LIMIT_S) -> None:
        """Wait until the runtime has asked for an event; each ``next`` counts once."""
        async with asyncio.timeout(limit_s):
            await self._waiting.acquire()

    async def wait_for_snapshot(self, limit_s: float = REQUEST_LIMIT_S) -> None:
        """Wait until the runtime lets the snapshot be taken."""
        async with asyncio.timeout(limit_s):
            await self._snapshots.acquire()

    def restore(self) -> None:
        """Answer ``restore/next``, now or as soon as it is asked for."""
        self._restored.set()

    async def wait_for_extension(self, limit_s: float = REQUEST_LIMIT_S) -> None:
        """Wait until an extension has asked for its first event; it never gets one."""
        async with asyncio.timeout(limit_s):
            await self._extension_waits.wait()

    def stop_listening(self) -> None:
        """Refuse further connections; those that are there stay."""
        for server in self._servers:
            server.close()

    def deliver(
        self,
        event: bytes,
        *,
        timeout_s: float = TIMEOUT_S,
        request_id: str | None = None,
        headers: dict[str, str] | None = None,
        is_chunked: bool = False,
    ) -> str:
        """Hand out an event to the ``next`` that waits; return its request id."""
        request_id = request_id or f"request-{next(self._ids)}"
        deadline_ms = int((time.time() + timeout_s) * 1000)
        fields = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": (
                "arn:aws:lambda:us-east-1:123456789012:function:test"
            ),
            **(headers or {}),
        }
        head = [f"{name}: {value}" for name, value in fields.items()]
        self._deliveries.put_nowait(_Delivery(head, event, is_chunked))
        return request_id

    async def answer(self, limit_s: float = REQUEST_LIMIT_S) -> Answer:
        """Return the next answer of the runtime."""
        async with asyncio.timeout(limit_s):
            return await self.answers.get()

    async def invoke(
        self,
        event: object,
        *,
        timeout_s: float = TIMEOUT_S,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Wait for ``next``, deliver an event (JSON, or bytes as they are), answer."""
        await self.wait_for_next()
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        request_id = self.deliver(body, timeout_s=timeout_s, headers=headers)
        answer = await self.answer(REQUEST_LIMIT_S + timeout_s)
        assert answer.request_id == request_id, "exactly one answer for each event"
        return answer

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(
                asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
            ):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        self.user_agents.add(headers.get("user-agent", ""))
        self.requests.append(" ".join([method, *path.split("/")[-2:]]))
        if method == "POST" and self.body_faults:
            return await self.body_faults.pop(0)(reader, writer)
        chunks: list[tuple[float, bytes]] = []
        trailers: dict[str, str] = {}
        if headers.get("transfer-encoding") == "chunked":
            async for chunk in _chunks(reader, trailers):
                chunks.append((time.monotonic(), chunk))
                self.first_chunk.set()
                self.chunks_received.release()
                if len(chunks) == self.cut_after_chunks:
                    return False
                if self.chunk_gate is not None:
                    await self.chunk_gate.wait()
            body = b"".join(chunk for _, chunk in chunks)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not path.startswith("/2018-06-01/"):
            if self.neighbour_faults:
                return await self.neighbour_faults.pop(0)(reader, writer)
            return await self._serve_neighbour(path, headers, body, writer)
        prefix = "/2018-06-01/runtime/"
        assert path.startswith(prefix), path
        words = path.removeprefix(prefix).split("/")
        if method == "GET" and words == ["invocation", "next"]:
            return await self._next(reader, writer)
        if method == "GET":
            assert words == ["restore", "next"], path
            self._snapshots.release()
            if self.restore_refusals:
                return _send(writer, self.restore_refusals.pop(0), 200, "OK", [], b"")
            await self._restored.wait()
            return _send(writer, None, 200, "OK", [], b"")
        is_of_environment = words[0] in ("init", "restore")
        call = "/".join(words) if is_of_environment else words[2]
        request_id = "" if is_of_environment else words[1]
        now_s = time.monotonic()
        answer = Answer(call, request_id, headers, body, now_s, chunks, trailers)
        self.answers.put_nowait(answer)
        if self.answer_faults:
            return await self.answer_faults.pop(0)(reader, writer)
        refusal = self.refusals.pop(0) if self.refusals else None
        return _send(writer, refusal, 202, "Accepted", ["Content-Type: json"], b"{}")

    async def _serve_neighbour(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Play what else there is on the Runtime API's address."""
        match path:
            case "/2021-04-23/credentials":
                shown = headers.get("authorization")
                if self.credentials is None or shown != self.credentials_token:
                    return _send(writer, Refusal(404), 200, "OK", [], b"")
                return _send(writer, None, 200, "OK", [], self.credentials)
            case "/2020-01-01/extension/register":
                self.extensions.append((headers["lambda-extension-name"], body))
                refusal = (
                    self.register_refusals.pop(0) if self.register_refusals else None
                )
                identifier = ["Lambda-Extension-Identifier: the-extension"]
                return _send(writer, refusal, 200, "OK", identifier, b"{}")
            case "/2020-01-01/extension/event/next":
                assert headers["lambda-extension-identifier"] == "the-extension"
                self._extension_waits.set()
                await asyncio.Event().wait()
        raise AssertionError(path)

    async def _next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self._waiting.release()
        if self.next_faults:
            return await self.next_faults.pop(0)(reader, writer)
        if self.next_refusals:
            return _send(writer, self.next_refusals.pop(0), 200, "OK", [], b"")
        delivery = await self._deliveries.get()
        if delivery.is_chunked:
            half = len(delivery.body) // 2
            parts = [p for p in (delivery.body[:half], delivery.body[half:]) if p]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts)
            head = ["HTTP/1.1 200 OK", *delivery.head, "Transfer-Encoding: chunked"]
            text = "\r\n".join(head) + "\r\n\r\n"
            writer.write(text.encode("latin-1") + chunks + b"0\r\n\r\n")
            return True
        _send(writer, None, 200, "OK", delivery.head, delivery.body)
        is_open, self.closes_after_next = not self.closes_after_next, False
        return is_open


def _send(
    writer: asyncio.StreamWriter,
    refusal: Refusal | None,
    status: int,
    reason: str,
    fields: list[str],
    body: bytes,
) -> bool:
    """Write an answer; False if the connection is to be closed instead."""
    if refusal is not None:
        if refusal.status is None:
            return False
        status, reason = refusal.status, "Refused"
        message = {"errorType": refusal.error_type, "errorMessage": "for the test"}
        body = json.dumps(message).encode()
    head = [f"HTTP/1.1 {status} {reason}", *fields, f"Content-Length: {len(body)}"]
    writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
    return True


async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
    """Never answer; a fault."""
    await asyncio.Event().wait()
    return False


async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Break off in the middle of an answer; a fault."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    return False


async def _chunks(
    reader: asyncio.StreamReader, trailers: dict[str, str]
) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    while (line := (await reader.readline()).decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        trailers[name.lower()] = value.strip()
