"""Exchanges over HTTP with servers that answer in parts, wrongly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import WorkerProtocolError
from lambda_deno_spawn.invocation import Invocation, Success
from lambda_deno_spawn.protocol.frames import (
    State,
)
from lambda_deno_spawn.worker.exchange import Exchange
from lambda_deno_spawn.worker.socket_channel import SocketChannel
from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.as_lambda

MARKER = "0123456789abcdef" * 2
RESULT = f'{MARKER}{{"kind":"RESULT","bytes":2}}\n42{MARKER}\n'
DONE = f'{MARKER}{{"kind":"DONE","bytes":0,"more":true}}\n{MARKER}\n'
INVOCATION = Invocation("id", 1_000, "arn", b'{"n":1}')


class Server:
    """Answers each request with pieces, written one after the other."""

    def __init__(self, *pieces: str, closes: bool = False) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self._pieces = pieces
        self._closes = closes
        self.tasks: set[asyncio.Task[None] | None] = set()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError):  # the link was closed
            while head := await reader.read(65_536):
                line, _, body = head.partition(b"\r\n\r\n")
                self.requests.append((line.split(b"\r\n")[0].decode(), body))
                for piece in self._pieces:
                    writer.write(piece.encode())
                    await writer.drain()
                    await asyncio.sleep(0)
                if self._closes:
                    break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def begun(
    path: Path, server: Server
) -> AsyncIterator[tuple[Exchange, SocketChannel]]:
    """Post an invocation to a server; yield it and its channel."""
    listening = await asyncio.start_unix_server(server.serve, path / "s")
    channel = SocketChannel(str(path / "s"), os.getpid(), MARKER, lambda: "the log")
    exchange = await channel.hand_over(INVOCATION, 900)
    yield exchange, channel
    channel.close()
    listening.close()
    await asyncio.gather(*(task for task in server.tasks if task is not None))
    await listening.wait_closed()


def sized(body: str) -> str:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}"


async def test_an_answer_frees_its_connection_for_the_next(
    short_tmp_path: Path,
) -> None:
    server = Server(sized(RESULT + DONE))
    async with begun(short_tmp_path, server) as (exchange, channel):
        assert await exchange.response() == Success(b"42")
        await exchange.finished()
        assert exchange.leaves_worker_usable
        again = await channel.hand_over(INVOCATION, 900)
        assert await again.response() == Success(b"42")
        assert len(server.tasks) == 1, "connections"
        assert (exchange.number, again.number) == (1, 2)
        assert [line for line, _ in server.requests] == [
            "POST /1 HTTP/1.1",
            "POST /2 HTTP/1.1",
        ]
        assert server.requests[0][1].endswith(b'\n{"n":1}')


async def test_an_answer_may_come_in_pieces_of_any_size(short_tmp_path: Path) -> None:
    body = RESULT + DONE
    chunks = [f"{len(part):x}\r\n{part}\r\n" for part in (body[:7], body[7:])]
    head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [head[:9], head[9:], *chunks, "0\r\n\r\n"]
    async with begun(short_tmp_path, Server(*pieces)) as (exchange, _):
        assert await exchange.response() == Success(b"42")
        await exchange.finished()
        assert exchange.state is State.IDLE


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", "says 500"),
        ("not HTTP at all\r\n\r\n", "illegal status line"),
        (sized("rubbish" + RESULT + DONE), "between its frames is b'rubbish'"),
        (sized(f'{MARKER}{{"kind":"READY","bytes":0}}\n'), "READY is not allowed"),
    ],
    ids=["status", "no-http", "stray", "wrong-frame"],
)
async def test_what_is_no_answer_breaks_the_exchange_off(
    short_tmp_path: Path, answer: str, message: str
) -> None:
    async with begun(short_tmp_path, Server(answer)) as (exchange, channel):
        with pytest.raises(WorkerProtocolError, match=message):
            await exchange.response()
        await exchange.finished()
        assert not exchange.leaves_worker_usable
        assert channel._idle == []


CHUNKED = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HEAD = "HTTP/1.1 200 OK\r\n"
BOUNDLESS = {
    "status-line": "HTTP/1.1 200 " + "x" * 300_000,
    "head": HEAD + "a: b\r\n" * 60_000,
    "field": HEAD + f"a: {'b' * 300_000}\r\n",
    "length": HEAD + f"content-length: {'9' * 5_000}\r\n\r\n",
    "interim": "HTTP/1.1 100 Continue\r\n\r\n" * 1_000 + HEAD + "\t\r\n\r\n",
    "chunk-size": CHUNKED + "0" * 300_000,
    "chunk-extension": CHUNKED + "1;" + "x" * 300_000,
    "trailer": f"{CHUNKED}0\r\na: {'b' * 300_000}",
    "frame": f'{HEAD}content-length: 7340032\r\n\r\n{MARKER}{{"kind":"ERROR",'
             '"bytes":7000000}\n',
    "frame-header": f"{CHUNKED}800\r\n{MARKER}{'x' * 2_016}\r\n",
}  # fmt: skip


@pytest.mark.parametrize("answer", BOUNDLESS.values(), ids=BOUNDLESS.keys())
async def test_what_has_no_bounds_breaks_the_exchange_off(
    short_tmp_path: Path, answer: str
) -> None:
    """A worker's socket may have been taken over by its handler."""
    async with begun(short_tmp_path, Server(answer)) as (exchange, channel):
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(WorkerProtocolError):
                await exchange.response()
        assert not exchange.leaves_worker_usable
        assert channel._idle == []


async def test_word_that_nobody_listens_is_answered_without_a_body(
    short_tmp_path: Path,
) -> None:
    """What came instead was read and thrown away for as long as it came."""
    server = Server(sized(RESULT + DONE))
    async with begun(short_tmp_path, server) as (exchange, channel):
        await exchange.response()
        await exchange.finished()
        [link] = channel._idle
        channel.notify_caller_gone(1)
        async with asyncio.timeout(LIMIT_S):
            while link.is_open:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        assert channel._idle == []


@pytest.mark.parametrize(
    "pieces", [(), (sized(RESULT),), (sized(RESULT + DONE)[:-9],)],
    ids=["nothing", "no-done", "cut-off"],
)  # fmt: skip
async def test_a_connection_that_ends_too_early_is_told(
    short_tmp_path: Path, pieces: tuple[str, ...]
) -> None:
    server = Server(*pieces, closes=True)
    async with begun(short_tmp_path, server) as (exchange, channel):
        async with asyncio.timeout(LIMIT_S):
            await exchange.finished()
        assert not exchange.leaves_worker_usable
        assert channel.is_reachable, "it has read the event"
        if pieces:
            assert "the process runs on" in str(exchange.lost_work)
        else:
            with pytest.raises(WorkerProtocolError, match="the process runs on"):
                await exchange.response()
