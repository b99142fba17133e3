"""Answers of the plain kind: what is taken, what is left to h11, in any pieces."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_deno_spawn.http1 import (
    CHUNKED,
    HEAD_LIMIT_BYTES,
    AnswerReader,
    OddAnswerError,
    chunk,
    last_chunk,
    request_head,
)

SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
PIECES = (
    b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n02\r\nlo\r\n0\r\n\r\n"
)


def read(*data: bytes) -> tuple[AnswerReader, bytes]:
    """Return the reader after some reads, and the body."""
    reader = AnswerReader()
    body = b"".join(piece for one in data for piece in reader.receive(one))
    return reader, body


@pytest.mark.parametrize("answer", [SIZED, PIECES], ids=["sized", "chunked"])
def test_an_answer_is_the_same_wherever_it_is_cut(answer: bytes) -> None:
    for at in range(len(answer) + 1):
        reader, body = read(answer[:at], answer[at:])
        assert body == b"hello"
        assert reader.is_complete
        assert not reader.has_surplus
    reader, body = read(*(answer[n : n + 1] for n in range(len(answer))))
    assert (body, reader.is_complete) == (b"hello", True)


def test_head_has_names_in_lower_case_and_values_without_blanks() -> None:
    reader, _ = read(
        b"HTTP/1.1 404 Not Found\r\nA-b:\t 1 2 \r\nEmpty:\r\nLatin: \xe4\r\n"
        b"A-B: 3\r\ncontent-length: 0\r\n\r\n"
    )
    assert reader.head == (
        404,
        [
            ("a-b", "1 2"), ("empty", ""), ("latin", "\xe4"), ("a-b", "3"),
            ("content-length", "0"),
        ],
        0,
    )  # fmt: skip
    assert reader.is_complete


def test_nothing_is_complete_before_its_last_byte() -> None:
    for answer in (SIZED, PIECES):
        for at in range(len(answer)):
            assert not read(answer[:at])[0].is_complete


@pytest.mark.parametrize("answer", [SIZED, PIECES], ids=["sized", "chunked"])
def test_what_comes_behind_an_answer_is_told(answer: bytes) -> None:
    reader, body = read(answer + b"H")
    assert (body, reader.is_complete, reader.has_surplus) == (b"hello", True, True)


def test_size_is_known_before_the_body() -> None:
    assert read(SIZED[:-5])[0].head == (200, *read(SIZED)[0].head[1:])  # type: ignore[index]
    head = read(PIECES.split(b"3\r\n")[0])[0].head
    assert head is not None
    assert head.body_bytes == CHUNKED


HEAD = b"HTTP/1.1 200 OK\r\n"
ODD = {
    "no http": b"rubbish\r\n\r\n",
    "http 1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "information": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    "no size": HEAD + b"A: b\r\n\r\n",
    "no fields": HEAD + b"\r\n",
    "two sizes": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "size and chunks": HEAD
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "sign": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "negative": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "list of sizes": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "huge": HEAD + b"Content-Length: 1234567890123456\r\n\r\nabc",
    "other digits": HEAD + "Content-Length: ٣\r\n\r\nabc".encode(),
    "coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "close": HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
    "keep-alive": HEAD + b"Connection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    "folded": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "blank before colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "no colon": HEAD + b"Content-Length\r\n\r\n",
    "no name": HEAD + b": 3\r\nContent-Length: 0\r\n\r\n",
    "control in a value": HEAD + b"A: \x01\r\nContent-Length: 0\r\n\r\n",
    "nul": HEAD + b"A: \x00\r\nContent-Length: 0\r\n\r\n",
    "bare newlines": HEAD.replace(b"\r", b"") + b"Content-Length: 0\n\n",
    "a bare newline": HEAD + b"A: b\nC: d\r\nContent-Length: 0\r\n\r\n",
    "a bare return": HEAD + b"A: b\rC: d\r\nContent-Length: 0\r\n\r\n",
    "blank line first": b"\r\n" + SIZED,
    "chunk extension": PIECES.replace(b"3\r\n", b"3;a=b\r\n"),
    "no size of a chunk": PIECES.replace(b"3\r\n", b"\r\n"),
    "size in other digits": PIECES.replace(b"3\r\n", b"0x3\r\n"),
    "size of a chunk too long": PIECES.replace(b"3\r\n", b"000000003\r\n"),
    "chunk longer than it says": PIECES.replace(b"hel", b"hell"),
    "bare newline behind a size": PIECES.replace(b"3\r\n", b"3\n"),
    "bare newline behind a chunk": PIECES.replace(b"hel\r\n", b"hel\n"),
    "trailers": PIECES[:-2] + b"A: b\r\n\r\n",
    "long head": HEAD + b"A: " + b"b" * HEAD_LIMIT_BYTES + b"\r\n\r\n",
    "endless head": HEAD + b"A: " + b"b" * HEAD_LIMIT_BYTES,
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_is_told_as_one_wherever_it_is_cut(answer: bytes) -> None:
    cuts = range(len(answer)) if len(answer) < 1000 else (0, 17, len(answer) - 1)
    for at in cuts:
        with pytest.raises(OddAnswerError):
            read(answer[:at], answer[at:])


NAMES = st.sampled_from(["Content-Type", "X-A", "Content-Length", "Transfer-Encoding"])
VALUES = st.sampled_from(
    ["0", "3", "text/plain", "chunked", "Chunked", " 3", "a\tb", "é", "3, 3"]
)
BODIES = st.sampled_from([b"", b"abc", b"abcd", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"])
STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 410 ", b"HTTP/1.0 200 OK"]
)


@given(STATUS_LINES, st.lists(st.tuples(NAMES, VALUES), max_size=4), BODIES, st.data())
def test_whatever_is_taken_h11_takes_for_the_same(
    status_line: bytes, fields: list[tuple[str, str]], body: bytes, data: st.DataObject
) -> None:
    lines = [status_line, *(f"{n}: {v}".encode("latin-1") for n, v in fields)]
    answer = b"\r\n".join(lines) + b"\r\n\r\n" + body
    at = data.draw(st.integers(0, len(answer)))
    try:
        reader, taken = read(answer[:at], answer[at:])
    except OddAnswerError:
        return
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    http.send(h11.EndOfMessage())
    http.receive_data(answer)
    response = http.next_event()
    assert isinstance(response, h11.Response)
    assert reader.head is not None
    assert response.status_code == reader.head.status
    assert [(k.decode(), v.decode("latin-1")) for k, v in response.headers] == (
        reader.head.fields
    )
    theirs = b""
    while isinstance(event := http.next_event(), h11.Data):
        theirs += event.data
    assert taken == theirs
    assert reader.is_complete == isinstance(event, h11.EndOfMessage)
    if reader.is_complete:  # before, it is what h11 has not understood yet
        assert reader.has_surplus == bool(http.trailing_data[0])


def test_request_head() -> None:
    head = request_head("GET", "/a?b", [("Host", "x"), ("A", ""), ("B", "\xe4 \t~")])
    assert head == b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: \r\nB: \xe4 \t~\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        ("/a b", "A", "b"),
        ("/\r\nA: b", "A", "b"),
        ("", "A", "b"),
        ("/\xe4", "A", "b"),
        ("/", "A b", "c"),
        ("/", "", "c"),
        ("/", "A:", "c"),
        ("/", "A\n", "c"),
        ("/", "A", "b\r\nC: d"),
        ("/", "A", "b\n"),
        ("/", "A", "b\rc"),
        ("/", "A", "b\0"),
        ("/", "A", "b\x7f"),
        ("/", "A", " b"),
        ("/", "A", "b "),
        ("/", "A", "\u20ac"),
    ],
)
def test_a_request_cannot_be_made_to_say_something_else(
    target: str, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match="illegal"):
        request_head("GET", target, [(name, value)])
    with pytest.raises(ValueError, match="illegal"):
        last_chunk([("A", "b\r\n\r\n")])


def test_chunks() -> None:
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert last_chunk([]) == b"0\r\n\r\n"
    assert last_chunk([("A", "b"), ("C", "d")]) == b"0\r\nA: b\r\nC: d\r\n\r\n"
