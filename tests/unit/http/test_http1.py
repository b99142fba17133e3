"""Responses, read by our reader and by h11: the same result, wherever they are cut."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_deno_spawn.http.http1 import (
    LocalProtocolError,
    RemoteProtocolError,
    ResponseReader,
    chunk,
    end_of_chunks,
    field_lines,
    request_head,
)

NEXT = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/json\r\n"
    b"Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n"
    b"Lambda-Runtime-Deadline-Ms: 1542409706888\r\n"
    b"Lambda-Runtime-Client-Context: {}\r\n"
    b"Content-Length: 7\r\n\r\n"
    b'{"a":1}'
)


@dataclass(frozen=True)
class Read:
    """The result of reading some bytes.

    Attributes:
        ends: "complete"; "last", if the connection cannot be reused; "broken"; or
            "waiting" for more.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    ends: str


def read(pieces: list[bytes], *, is_closed: bool = False) -> tuple[Read, bool]:
    """Read pieces with our reader; return also whether it needed h11."""
    body: list[bytes] = []
    reader = ResponseReader(body.append, 10**30)
    ends = "waiting"
    try:
        for piece in pieces:
            if not reader.is_complete:
                reader.receive_data(piece)
        if is_closed and not reader.is_complete:
            reader.receive_eof()
    except RemoteProtocolError:
        ends = "broken"
    if reader.is_complete:
        ends = "complete" if reader.is_reusable else "last"
    result = Read(reader.status, reader.headers, b"".join(body), ends)
    return result, reader.needs_h11


def read_by_h11(data: bytes, *, is_closed: bool = False) -> Read:
    """Read with h11 alone, which is the witness."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)
    http.send(h11.Request(method="GET", target="/x", headers=[("Host", "h")]))
    http.send(h11.EndOfMessage())
    status, headers, body, ends = 0, {}, b"", "waiting"
    try:
        http.receive_data(data)
        if is_closed:
            http.receive_data(b"")
        while True:
            event = http.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {k.decode(): v.decode("latin-1") for k, v in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                is_kept = http.their_state is h11.DONE and not http.trailing_data[0]
                ends = "complete" if is_kept else "last"
                break
            elif not isinstance(event, h11.InformationalResponse):
                break
    except h11.RemoteProtocolError:
        ends = "broken"
    return Read(status, headers, body, ends)


def response(
    fields: str, status_line: str = "HTTP/1.1 200 OK", body: str = "{}"
) -> bytes:
    head = "".join(f"{field}\r\n" for field in fields.split("|") if field)
    return f"{status_line}\r\n{head}\r\n{body}".encode("latin-1")


def in_chunks(body: str) -> bytes:
    return response("Transfer-Encoding: chunked", body=body)


PLAIN = {
    "next": NEXT,
    "accepted": response("Content-Length: 2", "HTTP/1.1 202 Accepted"),
    "no-body": response("Content-Length: 0", body=""),
    "no-reason": response("Content-Length: 2", "HTTP/1.1 200 "),
    "no-blank": response("content-length:2"),
    "no-value": response("X:|Content-Length: 2|Y: "),
    "refused": response("Content-Length: 2", "HTTP/1.1 413 Payload Too Large"),
    "utf-8": response("X: \xc3\xa9|Content-Length: 2"),
    "odd-names": response("!#$%&'*+-.^_`~09aZ: x|Content-Length: 2"),
    "longer-than-a-read": response("Content-Length: 300000", body="x" * 300_000),
    "a-second-response-behind": response("Content-Length: 2") * 2,
    "cut-off": response("Content-Length: 9"),
    "chunked": in_chunks("2\r\n{}\r\n0\r\n\r\n"),
    "chunked-without-body": in_chunks("0\r\n\r\n"),
    "chunked-in-several": in_chunks("1\r\n{\r\n01\r\n}\r\n00\r\n\r\n"),
    "chunked-in-large-ones": in_chunks("aBc\r\n" + "x" * 0xABC + "\r\n0\r\n\r\n"),
    "chunked-cut-off-between": in_chunks("2\r\n{}\r\n"),
    "chunked-cut-off-within": in_chunks("9\r\n{}"),
    "chunked-cut-off-in-a-size": in_chunks("9"),
    "chunked-cut-off-behind-the-last": in_chunks("2\r\n{}\r\n0\r\n"),
    "chunked-cut-off-behind-a-return": in_chunks("2\r\n{}\r"),
    "chunked-with-another-behind": in_chunks("2\r\n{}\r\n0\r\n\r\n") + NEXT,
    "chunk-extension": in_chunks("2;a=b\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-late": in_chunks("1\r\n{\r\n1;a\r\n}\r\n0\r\n\r\n"),
    "chunk-with-blank": in_chunks("2 \r\n{}\r\n0\r\n\r\n"),
    "chunk-without-size": in_chunks("\r\n{}\r\n0\r\n\r\n"),
    "chunk-size-no-number": in_chunks("0x2\r\n{}\r\n0\r\n\r\n"),
    "chunk-size-long": in_chunks("000000002\r\n{}\r\n0\r\n\r\n"),
    "chunk-size-too-small": in_chunks("1\r\n{}\r\n0\r\n\r\n"),
    "chunk-behind-newline": in_chunks("2\n{}\r\n0\r\n\r\n"),
    "chunk-before-newline": in_chunks("2\r\n{}\n0\r\n\r\n"),
    "chunk-extension-with-a-return": in_chunks("2;a\rb\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-with-a-newline": in_chunks("2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-behind-blank": in_chunks("2 ;a\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-in-latin-1": in_chunks("2;\xe9\0\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-last": in_chunks("2\r\n{}\r\n0;a=b\r\n\r\n"),
    "chunk-size-of-20-digits": in_chunks(f"{2:020x}\r\n{{}}\r\n0\r\n\r\n"),
    "chunk-size-of-21-digits": in_chunks(f"{2:021x}\r\n{{}}\r\n0\r\n\r\n"),
    "chunk-size-huge": in_chunks("f" * 20 + "\r\n{}"),
    "trailers": in_chunks("2\r\n{}\r\n0\r\nX: y\r\nz:1\r\n\r\n"),
    "trailers-with-another-behind": in_chunks("0\r\nX: y\r\n\r\n") + NEXT,
    "trailers-behind-newlines": in_chunks("0\r\nX: y\nZ:\n\n"),
    "trailers-none-behind-newline": in_chunks("0\r\n\n"),
    "trailers-folded": in_chunks("0\r\nX: y\r\n z\r\n\t\r\n\r\n"),
    "trailers-folded-first": in_chunks("0\r\n X: y\r\n\r\n"),
    "trailers-without-colon": in_chunks("0\r\nX\r\n\r\n"),
    "trailers-without-name": in_chunks("0\r\n: y\r\n\r\n"),
    "trailers-with-blank-behind-a-name": in_chunks("0\r\nX : y\r\n\r\n"),
    "trailers-with-nul": in_chunks("0\r\nX: \0\r\n\r\n"),
    "trailers-with-a-return": in_chunks("0\r\nX: y\r\r\n\r\n"),
    "trailers-in-latin-1": in_chunks("0\r\nX: \xe9\x01\t y \t\r\n\r\n"),
    "trailers-that-do-not-end": in_chunks("0\r\nX: y\r\n"),
    "trailers-that-cannot-be-right": in_chunks("0\r\nX\r\n"),
    "chunk-size-that-cannot-be-right": in_chunks("zzz"),
}  # fmt: skip
ODD = {
    "nothing": b"",
    "no-end-of-head": NEXT[:100],
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "http-1.0": response("Content-Length: 2", "HTTP/1.0 200 OK"),
    "http-2": response("Content-Length: 2", "HTTP/2.0 200 OK"),
    "no-reason-nor-blank": response("Content-Length: 2", "HTTP/1.1 200"),
    "two-blanks": response("Content-Length: 2", "HTTP/1.1  200 OK"),
    "status-of-two-digits": response("Content-Length: 2", "HTTP/1.1 20 OK"),
    "status-of-four-digits": response("Content-Length: 2", "HTTP/1.1 2000 OK"),
    "status-999": response("Content-Length: 2", "HTTP/1.1 999 OK"),
    "control-in-reason": response("Content-Length: 2", "HTTP/1.1 200 O\x01K"),
    "latin-1-in-reason": response("Content-Length: 2", "HTTP/1.1 200 \xe9"),
    "continue": response("", "HTTP/1.1 100 Continue", "") + NEXT,
    "switching-protocols": response("", "HTTP/1.1 101 Switching", ""),
    "204": response("Content-Length: 2", "HTTP/1.1 204 No Content"),
    "304": response("Content-Length: 2", "HTTP/1.1 304 Not Modified"),
    "no-field": response(""),
    "no-length": response("X: y"),
    "length-empty": response("Content-Length:"),
    "length-negative": response("Content-Length: -2"),
    "length-signed": response("Content-Length: +2"),
    "length-no-number": response("Content-Length: two"),
    "length-hexadecimal": response("Content-Length: 0x2"),
    "length-with-zeros": response("Content-Length: 02"),
    "length-in-superscript": response("Content-Length: \xb2"),
    "length-huge": response("Content-Length: " + "9" * 19),
    "lengths-alike": response("Content-Length: 2|content-length: 2"),
    "lengths-that-differ": response("Content-Length: 2|Content-Length: 1"),
    "lengths-in-a-list": response("Content-Length: 2, 2"),
    "any-field-twice": response("X: 1|x: 2|Content-Length: 2"),
    "chunked-in-capitals": response("Transfer-Encoding: Chunked", body="0\r\n\r\n"),
    "chunked-and-gzip": response("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
    "chunked-twice": response(
        "Transfer-Encoding: chunked|Transfer-Encoding: chunked", body="0\r\n\r\n"
    ),
    "chunked-and-length": response(
        "Transfer-Encoding: chunked|Content-Length: 2", body="2\r\n{}\r\n0\r\n\r\n"
    ),
    "identity": response("Transfer-Encoding: identity|Content-Length: 2"),
    "close": response("Connection: close|Content-Length: 2"),
    "keep-alive": response("Connection: keep-alive|Content-Length: 2"),
    "folded": response("X: y|  z|Content-Length: 2"),
    "two-blanks-before-a-value": response("X:  y|Content-Length: 2"),
    "blank-behind-a-value": response("X: y |Content-Length: 2"),
    "blank-behind-a-name": response("X : y|Content-Length: 2"),
    "tab-before-a-value": response("X:\ty|Content-Length: 2"),
    "tab-within-a-value": response("X: y\tz|Content-Length: 2"),
    "nul": response("X: y\0z|Content-Length: 2"),
    "carriage-return": response("X: y\rz|Content-Length: 2"),
    "newline": response("X: y\nz: 1|Content-Length: 2"),
    "newlines-only": NEXT.replace(b"\r\n", b"\n"),
    "no-name": response(": y|Content-Length: 2"),
    "no-colon": response("X|Content-Length: 2"),
    "name-in-latin-1": response("\xe9: y|Content-Length: 2"),
    "newline-first": b"\r\n" + NEXT,
}  # fmt: skip
CLOSED = pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])


@CLOSED
@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_a_plain_response_is_read_without_h11_as_h11_would_read_it(
    data: bytes, is_closed: bool
) -> None:
    result, needs_h11 = read([data], is_closed=is_closed)
    assert not needs_h11
    assert result == read_by_h11(data, is_closed=is_closed)


@CLOSED
@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_a_response_with_an_odd_head_is_read_by_h11(
    data: bytes, is_closed: bool
) -> None:
    result, needs_h11 = read([data], is_closed=is_closed)
    assert needs_h11
    assert result == read_by_h11(data, is_closed=is_closed)


@pytest.mark.parametrize(
    "data",
    [*(data for data in PLAIN.values() if len(data) < 1000), *ODD.values()],
    ids=[*(name for name, data in PLAIN.items() if len(data) < 1000), *ODD],
)
def test_it_does_not_matter_where_a_response_is_cut(data: bytes) -> None:
    expected = read_by_h11(data, is_closed=True)
    for at in range(1, len(data)):
        # Bytes after a complete response may be in a read of their own.
        result, _ = read([data[:at], data[at:]], is_closed=True)
        is_cut_behind = result.ends == "complete" and expected.ends == "last"
        assert result == expected or is_cut_behind, at
    result, _ = read([data[at : at + 1] for at in range(len(data))], is_closed=True)
    assert (result.status, result.headers, result.body) == (
        expected.status,
        expected.headers,
        expected.body,
    )


NAMES = st.sampled_from(
    ["Content-Length", "content-length", "Connection", "Transfer-Encoding", "X", "Y-Z"]
)
VALUES = st.one_of(
    st.sampled_from(["2", "0", "02", "close", "chunked", "", " ", "a b", "a\tb"]),
    st.text(st.characters(max_codepoint=255), max_size=4),
)
RESPONSES = st.builds(
    lambda version, status, reason, fields, colon, body: (
        f"HTTP/{version} {status} {reason}\r\n"
        + "".join(f"{name}{colon}{value}\r\n" for name, value in fields)
        + f"\r\n{body}"
    ).encode("latin-1"),
    st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
    st.sampled_from([200, 202, 204, 304, 403, 500, 101, 999]),
    st.sampled_from(["OK", "", "Not Found", "\xe9", "\t"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=3),
    st.sampled_from([": ", ": ", ":", " :", ":  "]),
    st.sampled_from(
        ["{}", "", "{}{}", "2\r\n{}\r\n0\r\n\r\n", "1\r\n{\r\n1;a\r\n}\r\n0\r\n\r\n"]
    ),
)
CHUNKED = st.builds(
    lambda sizes, line_end, last: in_chunks(
        "".join(f"{size:x}{line_end}{'x' * size}\r\n" for size in sizes) + last
    ),
    st.lists(st.integers(1, 20), max_size=4),
    st.sampled_from(
        ["\r\n", "\r\n", "\r\n", ";a\r\n", ';a="\r;\t" \r\n', " \r\n", "\n"]
    ),
    st.sampled_from(
        [
            "",
            "0\r\n\r\n",
            "0;a\r\n\r\n",
            "00\r\n\r\nX",
            "0\r\nX: y\r\n\r\n",
            "0\r\nX: y\r\n z\r\nY:\n\n",
            "0\r\nX:y\t z\r\nY: \r\n\r\nX",
        ]
    ),
)


@given(st.one_of(RESPONSES, CHUNKED), st.data())
def test_our_reader_has_the_same_result_as_h11(
    data: bytes, choose: st.DataObject
) -> None:
    at = choose.draw(st.integers(0, len(data)))
    garbled = choose.draw(st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b":", b";"]))
    data = data[:at] + garbled + data[at:]
    assert read([data])[0] == read_by_h11(data)
    assert read([data], is_closed=True)[0] == read_by_h11(data, is_closed=True)


@given(CHUNKED, st.data())
def test_chunks_have_the_same_result_however_they_are_cut(
    data: bytes, choose: st.DataObject
) -> None:
    cuts = choose.draw(st.lists(st.integers(0, len(data)), max_size=5).map(sorted))
    starts, ends = [0, *cuts], [*cuts, len(data)]
    pieces = [data[a:b] for a, b in zip(starts, ends, strict=True) if a < b]
    result, expected = read(pieces)[0], read_by_h11(data)
    is_cut_behind = result.ends == "complete" and expected.ends == "last"
    assert result == expected or is_cut_behind
    result = read(pieces, is_closed=True)[0]
    expected = read_by_h11(data, is_closed=True)
    assert result == expected or is_cut_behind


@pytest.mark.parametrize(
    "field", ["Content-Length: 2, 3", "Content-Length: x", "Transfer-Encoding: gzip"]
)
def test_a_trailer_does_not_change_how_its_body_is_read(field: str) -> None:
    """h11 refuses these; RFC 9110, 6.5.1 wants them ignored, like every trailer."""
    result, needs_h11 = read([in_chunks(f"2\r\n{{}}\r\n0\r\n{field}\r\n\r\n")])
    assert not needs_h11
    assert (result.body, result.ends) == (b"{}", "complete")


@pytest.mark.parametrize(
    ("begun", "more"),
    [("2;", "x"), ("2;", "\n"), ("", "0"), ("0\r\nX: ", "x"), ("0\r\n", "X: y\r\n")],
    ids=["extension", "lines", "size", "trailer", "trailers"],
)
def test_skipped_parts_are_bounded(begun: str, more: str) -> None:
    limit_bytes, data = 256 * 1024, more.encode() * 16
    reader = ResponseReader(lambda _: None)
    reader.receive_data(in_chunks(begun))
    for _ in range(limit_bytes // len(data) - 1):
        reader.receive_data(data)
    with pytest.raises(RemoteProtocolError, match="too long"):
        reader.receive_data(data * 3)


def test_the_last_of_repeated_fields_counts_and_a_difference_is_noted() -> None:
    reader = ResponseReader(lambda _: None)
    reader.receive_data(response("A: 1|B: 1|a: 1|b: 2|Content-Length: 2"))
    assert reader.headers == {"a": "1", "b": "2", "content-length": "2"}
    assert reader.ambiguous == {"b"}


@pytest.mark.parametrize(
    "data",
    [
        response("Content-Length: 11"),
        response("Content-Length: 011"),
        response("", body="x" * 11),
        response("Transfer-Encoding: chunked", body="b\r\n" + "x" * 11 + "\r\n"),
    ],
    ids=["plain", "odd", "until-closed", "chunked"],
)
def test_a_response_is_no_longer_than_its_limit(data: bytes) -> None:
    reader = ResponseReader(lambda _: None, limit_bytes=10)
    with pytest.raises(RemoteProtocolError, match="longer than 10 bytes"):
        reader.receive_data(data)
    assert reader.status == 200


def test_a_body_is_passed_on_as_it_is_received() -> None:
    body: list[bytes] = []
    reader = ResponseReader(body.append)
    assert not reader.has_begun
    reader.receive_data(NEXT[:-5])
    assert reader.has_begun
    assert body == [b'{"']
    reader.receive_data(b'a":1')
    reader.receive_data(b"}")
    assert body == [b'{"', b'a":1', b"}"]
    assert reader.is_complete
    assert reader.is_reusable


def test_an_event_in_chunks_is_held_once() -> None:
    """Everything received used to be kept, so that h11 could read it again."""
    event_bytes = 6 * 1024 * 1024
    chunks = bytearray(chunk(b"x" * 65_536) * 4)
    body: list[bytes] = []
    reader = ResponseReader(body.append, 7 * 1024 * 1024)
    reader.receive_data(in_chunks(""))
    tracemalloc.start()
    try:
        for _ in range(event_bytes // (4 * 65_536)):
            reader.receive_data(bytes(chunks))  # each read is an object of its own
        reader.receive_data(b"0\r\n\r\n")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.is_complete
    assert sum(map(len, body)) == event_bytes
    assert peak_bytes < 1.2 * event_bytes


# Requests.


def test_a_request_is_written_as_the_specification_has_it() -> None:
    lines = field_lines([("Host", "127.0.0.1:9001"), ("X", "a b\tc"), ("Y", "")])
    assert request_head("GET", "/a", lines, 0) == (
        b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nX: a b\tc\r\nY: \r\n\r\n"
    )
    assert request_head("POST", "/a", "", 0) == (
        b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    )
    assert request_head("POST", "/a", "", 12) == (
        b"POST /a HTTP/1.1\r\nContent-Length: 12\r\n\r\n"
    )
    assert request_head("POST", "/a", "", None) == (
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert end_of_chunks([]) == b"0\r\n\r\n"
    assert end_of_chunks([("A", "b")]) == b"0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize(
    "value",
    ["a\r\nX: y", "a\rb", "a\nb", "\n", "a\n", "a\0b", " a", "a ", "\ta", "a\x0bb",
     "a\x0cb", "\N{GREEK SMALL LETTER PI}"],
    ids=ascii,
)  # fmt: skip
def test_a_value_that_would_be_more_than_one_is_never_written(value: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"illegal header value .* of X"):
        field_lines([("Host", "h"), ("X", value)])
    with pytest.raises(LocalProtocolError):
        end_of_chunks([("X", value)])


@given(st.text(st.characters(max_codepoint=300), max_size=6))
def test_a_value_is_written_if_h11_would_write_it(value: str) -> None:
    """Latin-1 is all that a header can hold."""
    try:
        h11.Request(
            method="GET",
            target="/",
            headers=[(b"Host", b"h"), (b"X", value.encode("latin-1"))],
        )
        is_legal = True
    except (h11.LocalProtocolError, UnicodeEncodeError):
        is_legal = False
    try:
        is_written = field_lines([("X", value)]) == f"X: {value}\r\n"
    except LocalProtocolError:
        is_written = False
    assert is_written == is_legal
