"""The two ends of a pipe on an event loop: what is read, held, written and closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

import pytest

from lambda_deno_spawn.processes.child import PIPE_BYTES, PipeReader, PipeWriter

pytestmark = pytest.mark.as_lambda


class Pipe:
    """A pipe, one end of which belongs to the test."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self.write_end, False)
        self._inode = os.fstat(self.read_end).st_ino

    def close(self) -> None:
        """Close the ends that are open; their numbers may be another's by now."""
        for fd in (self.read_end, self.write_end):
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == self._inode:
                    os.close(fd)


class Received:
    """Notes what a reader delivers."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends = 0

    def data(self, data: bytes) -> None:
        self.pieces.append(data)

    def end(self) -> None:
        self.ends += 1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def reader_of(pipe: Pipe, received: Received, read_bytes: int = 8) -> PipeReader:
    loop = asyncio.get_running_loop()
    return PipeReader(loop, pipe.read_end, read_bytes, received.data, received.end)


async def turn() -> None:
    """Let the event loop look at its descriptors."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_bytes_are_delivered_in_reads_of_the_given_size(pipe: Pipe) -> None:
    received = Received()
    reader = reader_of(pipe, received)
    os.write(pipe.write_end, b"0123456789")
    await turn()
    assert received.pieces == [b"01234567", b"89"]
    reader.close()


async def test_the_end_is_told_once_and_closes_the_descriptor(pipe: Pipe) -> None:
    received = Received()
    reader = reader_of(pipe, received)
    os.write(pipe.write_end, b"last")
    os.close(pipe.write_end)
    await turn()
    reader.read()
    assert (received.pieces, received.ends) == ([b"last"], 1)
    assert not reader.is_open
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.read_end)


async def test_held_bytes_stay_in_the_pipe_until_they_are_released(pipe: Pipe) -> None:
    received = Received()
    reader = reader_of(pipe, received)
    reader.hold()
    os.write(pipe.write_end, b"later")
    await turn()
    assert (received.pieces, reader.is_held) == ([], True)
    reader.release()
    await turn()
    assert (received.pieces, reader.is_held) == ([b"later"], False)
    reader.close()


async def test_a_drain_delivers_what_is_there_although_it_is_held(pipe: Pipe) -> None:
    received = Received()
    reader = reader_of(pipe, received)
    reader.hold()
    os.write(pipe.write_end, b"0123456789")
    reader.drain()
    assert (b"".join(received.pieces), reader.is_held) == (b"0123456789", True)
    reader.close()


async def test_a_drain_does_not_follow_a_writer_that_goes_on(pipe: Pipe) -> None:
    received = Received()

    def write_more(data: bytes) -> None:
        received.data(data)
        os.write(pipe.write_end, b"more")

    loop = asyncio.get_running_loop()
    reader = PipeReader(loop, pipe.read_end, 4, write_more)
    os.write(pipe.write_end, b"01234567")
    reader.drain()
    assert received.pieces == [b"0123", b"4567"]
    reader.close()


async def test_a_reader_that_is_closed_meanwhile_reads_no_more(pipe: Pipe) -> None:
    pieces: list[bytes] = []

    def close(data: bytes) -> None:
        pieces.append(data)
        reader.close()

    loop = asyncio.get_running_loop()
    reader = PipeReader(loop, pipe.read_end, 4, close)
    os.write(pipe.write_end, b"01234567")
    reader.drain()
    reader.read()
    reader.drain()
    reader.hold()
    reader.release()
    assert pieces == [b"0123"]


async def test_what_fits_is_written_at_once(pipe: Pipe) -> None:
    writer = PipeWriter(asyncio.get_running_loop(), pipe.write_end)
    writer.write_all([b"line\n", b"event"], ends=False)
    assert os.read(pipe.read_end, 100) == b"line\nevent"
    writer.write_all([b"again"], ends=True)
    assert os.read(pipe.read_end, 100) == b"again"
    assert os.read(pipe.read_end, 100) == b""


async def test_what_does_not_fit_follows_and_then_the_end(pipe: Pipe) -> None:
    event = bytes(range(256)) * 16_384  # 4 MiB: more than the largest pipe
    writer = PipeWriter(asyncio.get_running_loop(), pipe.write_end)
    writer.write_all([b"line\n", event], ends=True)
    read = bytearray()
    async with asyncio.timeout(60):
        while True:
            try:
                data = os.read(pipe.read_end, PIPE_BYTES)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            if not data:
                break
            read += data
            await asyncio.sleep(0)
    assert bytes(read) == b"line\n" + event


async def test_a_reader_that_has_left_is_no_error_and_closes_the_pipe(
    pipe: Pipe,
) -> None:
    os.close(pipe.read_end)
    writer = PipeWriter(asyncio.get_running_loop(), pipe.write_end)
    writer.write_all([b"event"], ends=False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.write_end)
    writer.write_all([b"event"], ends=False)
    writer.close()


async def test_an_early_end_drops_what_is_not_written(pipe: Pipe) -> None:
    writer = PipeWriter(asyncio.get_running_loop(), pipe.write_end)
    writer.write_all([b"x" * 4 * 1024 * 1024], ends=True)
    writer.close()
    read = 0
    while data := os.read(pipe.read_end, PIPE_BYTES):
        read += len(data)
    assert 0 < read < 4 * 1024 * 1024
