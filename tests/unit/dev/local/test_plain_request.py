"""Which requests are read without h11; h11 itself says what each of them means."""

from __future__ import annotations

import h11
import pytest

from lambda_deno_spawn.dev.local.plain_request import LIMIT_BYTES, take_request

HOST = b"Host: localhost:3000\r\n"


def read(data: bytes) -> tuple[object, ...] | None:
    taken = take_request(bytearray(data))
    return None if taken is None else tuple(taken)


def read_by_h11(data: bytes) -> tuple[object, ...]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head.method, head.target, list(head.headers), body


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"HEAD /a?b=%20&c HTTP/1.1\r\nhOST:localhost\r\nX-A:  b \t\r\nX-A: c\r\n\r\n",
        b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"PUT /x HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\nX:\r\n\r\n",
        b"PATCH /x HTTP/1.1\r\n" + HOST + b"X-A: \xe9\xff\r\n\r\n",
    ],
    ids=["get", "fields", "body", "empty", "latin-1"],
)
def test_a_plain_request_means_what_h11_says(data: bytes) -> None:
    assert read(data) == read_by_h11(data)
    buffer = bytearray(data + b"GET /next")
    assert take_request(buffer) is not None
    assert buffer == b"GET /next"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n" + HOST,
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.0\r\n" + HOST + b"\r\n",
        b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST + b"\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n" * 2 + b"\r\nx",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1, 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\nx",
        b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * LIMIT_BYTES + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_any_other_request_is_left_as_it_is(data: bytes) -> None:
    buffer = bytearray(data)
    assert take_request(buffer) is None
    assert buffer == data
