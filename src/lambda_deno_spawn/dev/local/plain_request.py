"""Requests of the plainest form, read without a parser of HTTP: a tenth of the time.

Knows which bytes are a request whose meaning no reader of RFC 9112 can doubt. Leaves
all others to h11: chunked bodies, ``Expect``, other versions, lines that are folded,
anything that two servers might read differently. Pure. Specification: RFC 9112,
sections 3 to 6.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A longer request is h11's.
LIMIT_BYTES = 64 * 1024
_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,9}")
# Requests with these fields are left to h11.
_NOT_PLAIN = frozenset(
    {b"connection", b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class PlainRequest(NamedTuple):
    """A whole request.

    Attributes:
        target: Path and query, as they were sent.
        fields: Names in lower case.
    """

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes


def take_request(buffer: bytearray) -> PlainRequest | None:
    """Take a request from the beginning of a buffer.

    Returns:
        None if it is not complete, or not plain; the buffer is as it was.
    """
    head = _HEAD.match(buffer, 0, LIMIT_BYTES)
    if head is None:
        return None
    fields = []
    length = None
    hosts = 0
    for line in head[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in _NOT_PLAIN:
            return None
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        hosts += name == b"host"
        fields.append((name, value))
    start = head.end()
    end = start + (length or 0)
    if hosts != 1 or not end <= min(len(buffer), LIMIT_BYTES):
        return None
    method, target, body = head[1], head[2], bytes(buffer[start:end])
    del head  # while it is there, the buffer cannot be cut
    del buffer[:end]
    return PlainRequest(method, target, fields, body)
