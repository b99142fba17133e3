"""The Runtime API of the benchmarks: requests from bytes, in any pieces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.bench.runtime_api import Connection

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM = (
    b"POST /r/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n"
)
FAILED = b"Lambda-Runtime-Function-Error-Type: TypeError\r\n\r\n"
NEXT = b"GET /invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes no bytes."""


class Calls:
    """Keeps what a connection passes on."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, bool]] = []
        self.pieces = 0

    def piece_came(self) -> None:
        self.pieces += 1

    def handle(
        self, connection: Connection, method: bytes, path: bytes, body: bytes
    ) -> None:
        self.requests.append((method, body, connection.has_broken_off))


def fed(pieces: Sequence[bytes]) -> Calls:
    calls = Calls()
    connection = Connection(calls)
    connection.connection_made(Transport())
    for piece in pieces:
        connection.data_received(piece)
    return calls


@pytest.mark.parametrize("step", [1, 7, 65_536], ids="reads-of-{}-bytes".format)
@pytest.mark.parametrize(
    ("end", "has_broken_off"),
    [(b"\r\n", False), (b"X: y\r\n\r\n", False), (FAILED, True)],
)
def test_a_stream_is_joined_and_its_trailers_are_read(
    step: int, end: bytes, has_broken_off: bool
) -> None:
    text = STREAM + end + NEXT
    calls = fed([text[at : at + step] for at in range(0, len(text), step)])
    assert calls.requests == [
        (b"POST", b"abcde", has_broken_off), (b"GET", b"", False),
    ]  # fmt: skip
    assert calls.pieces >= 1


def test_a_post_with_a_length_is_read_to_its_end() -> None:
    head = b"POST /r/error HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
    assert fed([head, b"{", b"}" + NEXT]).requests == [
        (b"POST", b"{}", False), (b"GET", b"", False),
    ]  # fmt: skip
