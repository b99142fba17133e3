"""HTTP/1.1 as peers on this machine write it: bytes in, one answer out; requests.

Knows status lines, fields, sized bodies and chunks of the plain kind, strictly:
whatever else the specification allows, or forbids, is an ``OddAnswerError``, and
whoever reads asks a library that knows all of it, or gives up. So nothing here has to
be lenient, and an answer takes 7 µs where h11 takes 71 (decision 0022). Refuses to know
sockets. Specification: RFC 9112.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Of a plain answer's head; those of the Runtime API have half a kilobyte.
HEAD_LIMIT_BYTES = 16 * 1024
CHUNKED = -1
# Statuses whose answers have no body, whatever their fields say.
BODILESS = frozenset({204, 304})

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9][0-9]) [\t -~\x80-\xff]*\r\n")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
_FIELD_LINES = re.compile(rf"(?:{_TOKEN}:[\t -~\x80-\xff]*\r\n)+")
# Without blanks at its ends.
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_TARGET = re.compile(r"[!-~]+")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_CHUNK_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")


class OddAnswerError(Exception):
    """An answer is not of the plain kind; it may be right all the same."""


class Head(NamedTuple):
    """What stands before the body of an answer.

    Attributes:
        status: Three digits.
        fields: Names in lower case and values, both as latin-1.
        body_bytes: Size of the body, ``CHUNKED`` if it comes in pieces.
    """

    status: int
    fields: list[tuple[str, str]]
    body_bytes: int


def request_head(method: str, target: str, fields: list[tuple[str, str]]) -> bytes:
    """Write a request up to its body.

    Raises:
        ValueError: A name, a value or the target would be read as something else.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"illegal target {target!r}")
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise ValueError(f"illegal field name {name!r}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"illegal value {value!r} of field {name!r}")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Write a piece of a chunked body, which must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[tuple[str, str]]) -> bytes:
    """Write the end of a chunked body.

    Raises:
        ValueError: As for ``request_head``.
    """
    return b"0\r\n" + request_head("GET", "/", trailers).partition(b"\r\n")[2]


class AnswerReader:
    """Reads one answer.

    Attributes:
        head: None until it has come.
        is_complete: True once the last byte of the body has come.
        has_surplus: True if something came behind it.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.head: Head | None = None
        self.is_complete = False
        self.has_surplus = False
        self._begun = b""  # of a head, or of a line between chunks
        self._left = 0  # bytes of the body, or of the chunk
        self._is_behind_chunk = False
        self._is_behind_last = False

    def receive(self, data: bytes) -> list[bytes]:
        """Take what has come; return the pieces of the body that are in it.

        Raises:
            OddAnswerError: It is not of the plain kind; the reader is of no more use.
        """
        if self.head is None:
            data = self._begun + data if self._begun else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._begun = data
                _check_begun_head(data)
                return []
            self.head = _parse_head(data[: end + 2])
            self._begun = b""
            self._left = max(0, self.head.body_bytes)
            data = data[end + 4 :]
        if self.head.body_bytes == CHUNKED:
            return self._take_chunks(data)
        taken = data[: self._left] if len(data) > self._left else data
        self._left -= len(taken)
        self.is_complete = self._left == 0
        self.has_surplus = len(taken) < len(data)
        return [taken] if taken else []

    def _take_chunks(self, data: bytes) -> list[bytes]:
        pieces = []
        if self._begun:
            data, self._begun = self._begun + data, b""
        at = 0
        while at < len(data) and not self.is_complete:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._is_behind_chunk = self._left == 0
                pieces.append(piece)
            elif self._is_behind_chunk or self._is_behind_last:
                line_end = data[at : at + 2]
                if line_end == b"\r":
                    self._begun = line_end
                    return pieces
                if line_end != b"\r\n":  # or it has trailers
                    raise OddAnswerError
                at += 2
                self.is_complete = self._is_behind_last
                self._is_behind_chunk = False
            else:
                size = _CHUNK_SIZE.match(data, at)
                if size is None:
                    self._begun = data[at:]
                    if not _CHUNK_SIZE_BEGUN.fullmatch(self._begun):
                        raise OddAnswerError
                    return pieces
                at = size.end()
                self._left = int(size[1], 16)
                self._is_behind_last = self._left == 0
        self.has_surplus = at < len(data)
        return pieces


def _check_begun_head(data: bytes) -> None:
    # Lines may end in other ways, and then the end of the head would never come.
    if len(data) > HEAD_LIMIT_BYTES or data.count(b"\n") != data.count(b"\r\n"):
        raise OddAnswerError


def _parse_head(data: bytes) -> Head:
    if len(data) > HEAD_LIMIT_BYTES:
        raise OddAnswerError
    text = data.decode("latin-1")
    status = _STATUS_LINE.match(text)
    if status is None or not _FIELD_LINES.fullmatch(text, status.end()):
        raise OddAnswerError
    fields = []
    deciding = []
    for line in text[status.end() : -2].split("\r\n"):
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in _DECIDING:
            deciding.append((name, value))
        fields.append((name, value))
    if len(deciding) != 1 or int(status[1]) in BODILESS:
        raise OddAnswerError
    return Head(int(status[1]), fields, _body_bytes(*deciding[0]))


def _body_bytes(name: str, value: str) -> int:
    if name == "content-length" and _LENGTH.fullmatch(value):
        return int(value)
    if name == "transfer-encoding" and value == "chunked":
        return CHUNKED
    raise OddAnswerError


# Fields that decide where a body ends and what follows it. None of them means: with the
# connection.
_DECIDING = frozenset({"content-length", "transfer-encoding", "connection"})
