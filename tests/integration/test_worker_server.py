"""The worker's HTTP server, asked by hand: what it takes, what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deno import find_deno_bin

import lambda_deno_spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SERVER = Path(lambda_deno_spawn.__file__).parent / "js" / "server.js"
# Answers with line and event; in pieces, without an end, if the line says so.
PROGRAM = """
const { open, serve } = await import(Deno.args[0]);
const [encoder, decoder] = [new TextEncoder(), new TextDecoder()];
serve(open(Deno.args[1]), (line, event, output) => {
  const said = encoder.encode(`${decoder.decode(line)}|${event.length}`);
  if (decoder.decode(line) !== "stream") {
    output.write(said, true);
    output.end();
    return () => {};
  }
  output.writeLater(said);
  return () => {
    output.write(encoder.encode("cancelled"), true);
    output.end();
  };
});
console.log("listening");
"""


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[str]:
    """Run the server; yield the path of its socket."""
    program, socket = folder / "program.js", str(folder / "s")
    program.write_text(PROGRAM, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        find_deno_bin(), "run", "-A", "--no-config", "--quiet", program,
        SERVER.as_uri(), socket,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"listening\n"
            yield socket
    finally:
        process.kill()
        await process.wait()


def request(body: bytes, target: str = "POST /1") -> bytes:
    head = f"{target} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status, _, length = head.partition(b"\r\nContent-Length: ")
    assert status == b"HTTP/1.1 200 OK"
    return await reader.readexactly(int(length))


async def test_a_request_may_be_cut_anywhere(short_tmp_path: Path) -> None:
    data = request('{"a":"é"}\n{"b":1}'.encode())
    async with listening(short_tmp_path) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        for at in range(len(data)):
            for piece in (data[:at], data[at:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            assert await answer_of(reader) == '{"a":"é"}|7'.encode()
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await writer.drain()
        assert await answer_of(reader) == '{"a":"é"}|7'.encode()
        writer.close()


@pytest.mark.parametrize("size", [0, 65_000, 65_536, 6_000_000])
async def test_an_event_may_have_any_size(short_tmp_path: Path, size: int) -> None:
    async with listening(short_tmp_path) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        for _ in range(2):
            writer.write(request(b"line\n" + b"x" * size))
            assert await answer_of(reader) == b"line|%d" % size
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n" + b" " * 256,
        request(b"line\n{}").replace(b"worker", b"others") + b" " * 256,
        request(b"line\n{}").replace(b"HTTP/1.1", b"HTTP/1.0") + b" " * 256,
        request(b"line\n{}", "POST /x") + b" " * 256,
        request(b"line\n{}") + request(b"line\n{}"),
        b"\0" * 256,
    ],
    ids=["get", "host", "version", "number", "two-at-once", "noise"],
)
async def test_what_the_supervisor_would_not_ask_ends_the_connection(
    short_tmp_path: Path, data: bytes
) -> None:
    async with listening(short_tmp_path) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(data)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(request(b"line\n{}"))
        assert await answer_of(reader) == b"line|2"
        writer.close()


async def test_a_stream_is_sent_as_it_comes_and_given_up_by_its_number(
    short_tmp_path: Path,
) -> None:
    async with listening(short_tmp_path) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(request(b"stream\n{}", "POST /7"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await reader.readexactly(13) == b"8\r\nstream|2\r\n"
        other_reader, other = await asyncio.open_unix_connection(socket)
        for number in (8, 7, 7):  # nobody has it, it has, it had
            other.write(request(b"", f"DELETE /{number}"))
            assert await answer_of(other_reader) == b""
        assert await reader.readexactly(19) == b"9\r\ncancelled\r\n0\r\n\r\n"
        writer.write(request(b"line\n{}"))
        assert await answer_of(reader) == b"line|2"
        writer.close()
        other.close()
