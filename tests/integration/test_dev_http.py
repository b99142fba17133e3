"""HTTP of ``dev``: what clients send in one piece is answered as uvicorn would."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import h11
import pytest

from lambda_deno_spawn.dev.devserver import server as dev_server
from lambda_deno_spawn.dev.devserver.http_protocol import PlainProtocol
from lambda_deno_spawn.dev.devserver.server import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 30
HOST = b"Host: localhost:3000\r\n"
HOST_FIELD = ("Host", "localhost")
FRAMING = (b"content-length", b"transfer-encoding")
LAST = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was received; the path says in which way."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    path = scope["path"]
    if path == "/fails":
        raise ValueError("mistake")
    status = {"/none": 204, "/unchanged": 304}.get(path, 200)
    facts = [scope[n] for n in ("method", "path", "raw_path", "query_string", "scheme")]
    text = repr([*facts, scope["headers"], body]).encode()
    fields = [(b"x-path", scope["raw_path"])]
    if path != "/stream" and status == 200:
        fields.append((b"content-length", str(len(text)).encode()))
    if path == "/breaks":
        fields.append((b"x-bad", b"a\r\nset-cookie: b"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    if path == "/stream":
        await send({"type": "http.response.body", "body": text, "more_body": True})
        text = b"end"
    if path == "/cut":
        await send({"type": "http.response.body", "body": text[:5], "more_body": True})
        return
    await send({"type": "http.response.body", "body": text if status == 200 else b""})


@contextlib.asynccontextmanager
async def served(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(dev_server, "PlainProtocol", protocol)
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


def understood(requests: bytes, data: bytes) -> list[Any]:
    """Return what a client reads: status, fields but those of the framing, body."""
    methods = re.findall(rb"(GET|HEAD|POST) /[^ ]* HTTP", requests) or [b"GET"]
    found: list[Any] = []
    while data and methods:
        client = h11.Connection(h11.CLIENT)
        client.send(
            h11.Request(method=methods.pop(0), target="/", headers=[HOST_FIELD])
        )
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        try:
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    fields = sorted(f for f in event.headers if f[0] not in FRAMING)
                    found += [event.status_code, fields, b""]
                else:
                    assert isinstance(event, h11.Data)
                    found[-1] += event.data
        except h11.RemoteProtocolError:
            return [*found, "incomplete"]
        data, _ = client.trailing_data
    return [*found, data]


@pytest.mark.parametrize(
    "data",
    [
        get(b"/a%20b?c=%2F&d", b"X-A: 1\r\nx-a: 2\r\n") + LAST,
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello" + LAST,
        b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + LAST,
        b"HEAD /stream HTTP/1.1\r\n" + HOST + b"\r\n" + LAST,
        get(b"/stream") + LAST,
        get(b"/none") + LAST,
        get(b"/unchanged") + LAST,
        get(b"/cut"),
        get(b"/1") + get(b"/2") + get(b"/stream") + get(b"/3") + LAST,
        get(b"/1")
        + b"POST /2 HTTP/1.1\r\n" + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        + get(b"/3")
        + LAST,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999\r\n\r\n"
        + b"x" * 99_999
        + LAST,
    ],
    ids=[
        "fields", "body", "head", "head of a stream", "stream", "204", "304",
        "cut", "pipelined", "handed over", "no host", "tls", "large",
    ],
)  # fmt: skip
async def test_a_client_sees_no_difference_to_uvicorn(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(PlainProtocol, monkeypatch) as port:
        ours = await exchange(port, data)
    async with served("h11", monkeypatch) as port:
        theirs = await exchange(port, data)
    assert understood(data, ours) == understood(data, theirs)
    assert len(ours) > 0


@pytest.mark.parametrize("path", [b"/fails", b"/breaks"])
async def test_a_fault_is_a_500_and_the_end_of_the_connection(
    path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(PlainProtocol, monkeypatch) as port:
        seen = await exchange(port, get(path) + get(b"/next"))
    assert seen.startswith(
        b"HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\n"
    )
    assert seen.count(b"HTTP/1.1") == 1
    assert b"set-cookie" not in seen


async def test_a_body_follows_its_head_without_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sockets of a listener without a protocol had Nagle's algorithm: 40 ms each."""
    import socket

    seen = []

    class Watched(PlainProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    async with served(Watched, monkeypatch) as port:
        await exchange(port, LAST)
    assert seen[0] != 0


async def test_an_end_waits_for_the_response_in_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
