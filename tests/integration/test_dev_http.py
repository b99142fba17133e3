"""HTTP of ``dev``: how it sets up uvicorn, and what it relies on."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.devserver import server as dev_server
from lambda_deno_spawn.dev.devserver.server import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 90
HOST = b"Host: localhost:3000\r\n"
LAST = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path; the path says in which way."""
    await receive()
    path, body = scope["path"], scope["raw_path"]
    if path == "/fails":
        raise ValueError("mistake")
    fields = [(b"content-length", str(len(body)).encode())]
    if path == "/breaks":
        fields.append((b"x-bad", b"a\r\nset-cookie: b"))
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    listener = Listener(0)
    try:
        async with asyncio.timeout(LIMIT_S), listener.serve(app):
            yield listener.port
    finally:
        listener.close()


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes; return all that come until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return re.sub(rb"date: [^\r]+", b"date: now", await reader.read())
    finally:
        writer.close()


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, more)


async def test_a_fault_is_a_500_and_the_end_of_the_connection() -> None:
    async with served() as port:
        seen = await exchange(port, get(b"/fails"))
    assert seen.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nconnection: close\r\n" in seen


async def test_a_line_break_in_a_header_is_not_sent() -> None:
    async with served() as port:
        seen = await exchange(port, get(b"/breaks"))
    assert b"x-bad" not in seen
    assert b"set-cookie" not in seen


async def test_a_body_follows_its_head_without_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sockets of a listener without a protocol had Nagle's algorithm: 40 ms each."""
    import socket

    seen = []

    class Watched(dev_server.Http):
        def connection_made(self, transport: Any) -> None:
            sock = transport.get_extra_info("socket")
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    monkeypatch.setattr(dev_server, "Http", Watched)
    async with served() as port:
        await exchange(port, LAST)
    assert seen[0] != 0


async def test_a_short_response_is_one_packet_and_no_piece_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[bytes] = []
    more = asyncio.Event()

    class Noting:
        def __init__(self, transport: Any) -> None:
            self._transport = transport

        def write(self, data: bytes) -> None:
            written.append(data)
            self._transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

    class Watched(dev_server.Http):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Noting(transport))  # type: ignore[arg-type]

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/last":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await more.wait()  # the client has the head
        large = b"x" * 100_000
        await send({"type": "http.response.body", "body": large, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(dev_server, "Http", Watched)
    listener = Listener(0)
    async with asyncio.timeout(LIMIT_S), listener.serve(streaming):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(get(b"/stream") + LAST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        more.set()
        rest = await reader.read()
        writer.close()
    listener.close()
    assert rest.startswith(b"186a0\r\nxxx")
    assert b"x\r\n0\r\n\r\nHTTP/1.1 200 OK" in rest
    assert rest.endswith(b"\r\n\r\n/last")
    assert b"".join(written).endswith(rest)
    assert written[-1].startswith(b"HTTP/1.1 200 OK")
    assert written[-1].endswith(b"/last")


async def test_an_end_waits_for_the_response_in_progress() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await may_end.wait()
        await app(scope, receive, send)

    listener = Listener(0)
    async with asyncio.timeout(LIMIT_S):
        async with listener.serve(slow):
            idle, idle_writer = await asyncio.open_connection(
                "127.0.0.1", listener.port
            )
            asking = asyncio.create_task(exchange(listener.port, get(b"/")))
            await begun.wait()
            asyncio.get_running_loop().call_later(0.05, may_end.set)
        assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert await idle.read() == b""
        idle_writer.close()
    listener.close()
