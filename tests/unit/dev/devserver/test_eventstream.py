"""The event stream, read by botocore's own decoder."""

from __future__ import annotations

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from lambda_deno_spawn.dev.devserver.eventstream import (
    PAYLOAD_LIMIT_BYTES,
    chunk,
    complete,
)


def decoded(data: bytes, step: int = 1 << 30) -> list[tuple[dict[str, str], bytes]]:
    buffer = EventStreamBuffer()
    found = []
    for start in range(0, len(data), step):
        buffer.add_data(data[start : start + step])
        found += [(message.headers, message.payload) for message in buffer]
    return found


@pytest.mark.parametrize("step", [1, 7, 65_536])
def test_chunks_and_the_end_are_messages(step: int) -> None:
    data = chunk(b"\0\xff") + complete("Unhandled", '{"a":1}', "bG9n")
    (first_headers, first), (last_headers, last) = decoded(data, step)
    assert first == b"\0\xff"
    assert first_headers == {
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert last_headers[":event-type"] == "InvokeComplete"
    assert json.loads(last) == {
        "ErrorCode": "Unhandled",
        "ErrorDetails": '{"a":1}',
        "LogResult": "bG9n",
    }


def test_a_success_ends_with_an_empty_object() -> None:
    ((_, payload),) = decoded(complete())
    assert json.loads(payload) == {}


def test_a_large_chunk_is_several_messages() -> None:
    data = b"x" * (PAYLOAD_LIMIT_BYTES + 1)
    payloads = [payload for _, payload in decoded(chunk(data))]
    assert b"".join(payloads) == data
    assert len(payloads) == 2
