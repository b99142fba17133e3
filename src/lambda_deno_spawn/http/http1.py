"""HTTP/1.1 as far as one client needs it: requests are written, answers are read.

Writes requests by itself. Reads an answer by itself too if its head is entirely plain:
received in one piece, in the usual characters, each field once, with a length or
chunks, and no field about the connection. Every other answer is read by h11 from its
first byte on, so it means what h11 says. Does not know sockets, nor what is asked for.
Why not h11 for all: decision 0022. Specification: RFC 9112.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import h11

    Field = tuple[str, str]

# A client context alone may take 3.5 KB; h11's own limit is 16 KB for all together.
HEAD_LIMIT_BYTES = 256 * 1024
END_OF_HEAD = b"\r\n\r\n"
# Their length, if they have one, is not that of their body.
_BODYLESS = frozenset({204, 304})
_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_VALUE = r"(?:[!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)?"
_HEAD = re.compile(rf"HTTP/1\.1 ([2-5][0-9][0-9]) [ -~]*((?:\r\n{_TOKEN}: ?{_VALUE})+)")
# Of lines that the one above has let through.
_FIELD = re.compile(r"\r\n([^:]+): ?([^\r]*)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,11}")
LINE_END = b"\r\n"
# The rules of h11 for what it skips, too: size and extensions of a chunk, and trailers,
# whose lines may end, and go on, as those of headers did once (RFC 9112, 2.2 and 5.2).
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\n]*|[ \t]*)\r\n")
_TEXT = rb"[\x01-\x09\x0e-\xff]*"
_TRAILERS = re.compile(
    rb"\n(?:%b:%b\r?\n(?:[ \t]%b\r?\n)*)*\r?\n" % (_TOKEN.encode(), _TEXT, _TEXT)
)
END_OF_TRAILERS = (b"\n\n", b"\n\r\n")
# What a value we write may consist of: h11's rule, for no more than latin-1.
_WRITABLE = re.compile(
    r"(?:[\x01-\x08\x0e-\x1f!-\xff](?:[\x01-\x09\x0e-\xff]*[\x01-\x08\x0e-\x1f!-\xff])?)?"
)


class HttpError(Exception):
    """An exchange did not come about, or not in full."""


class LocalProtocolError(HttpError):
    """What was to be sent would not be HTTP; nothing of it was."""


class RemoteProtocolError(HttpError):
    """What came is not HTTP, or not all of it came."""


def field_lines(fields: Iterable[Field]) -> str:
    """Write header fields, or trailers.

    Args:
        fields: Names are ours, values may be anybody's.

    Raises:
        LocalProtocolError: A value would not stay one value.
    """
    lines = ""
    for name, value in fields:
        if not _WRITABLE.fullmatch(value):
            shown = value[:64]
            raise LocalProtocolError(f"illegal header value {shown!r} of {name}")
        lines += f"{name}: {value}\r\n"
    return lines


def request_head(method: str, target: str, lines: str, length: int | None) -> bytes:
    """Write the head of a request.

    Args:
        method: GET, POST ...
        target: Path, percent-encoded.
        lines: From ``field_lines``, without those that frame the body.
        length: Of the body, 0 also if there is none; None: it comes in chunks.
    """
    if length:
        framing = f"Content-Length: {length}\r\n"
    elif length is None:
        framing = "Transfer-Encoding: chunked\r\n"
    else:
        framing = "" if method == "GET" else "Content-Length: 0\r\n"
    head = f"{method} {target} HTTP/1.1\r\n{lines}{framing}\r\n"
    return head.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Write one piece of a body that comes in chunks; an empty one would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def end_of_chunks(trailers: Iterable[Field]) -> bytes:
    """Write the end of a body that came in chunks; raises as ``field_lines``."""
    return f"0\r\n{field_lines(trailers)}\r\n".encode("latin-1")


class AnswerReader:
    """Reads one answer, from its first byte to its last.

    Attributes:
        status: Of the answer; 0 until its head has come.
        headers: Fields, names in lower case; the last one counts of those that repeat.
        ambiguous: Names of fields that came more than once and differ.
        is_complete: True once all of it has come.
        is_last: True if no other answer can follow on this connection, or something
            has already that nobody asked for. Known when it is complete.
    """

    def __init__(
        self, on_body: Callable[[bytes], object], limit_bytes: int | None = None
    ) -> None:
        """Await the first byte.

        Args:
            on_body: Called with each piece of the body, as it comes.
            limit_bytes: Longest body accepted; None: unlimited.
        """
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ambiguous: frozenset[str] = frozenset()
        self.is_complete = False
        self.is_last = False
        self._on_body = on_body
        self._limit_bytes = limit_bytes
        self._left_bytes = 0  # of the body, if its length was told
        self._come_bytes = 0  # of the body, if not
        self._chunks: _ChunkReader | None = None
        self._http: h11.Connection | None = None

    @property
    def has_begun(self) -> bool:
        """True once any byte of it has come."""
        return self.status != 0 or self._http is not None

    def receive_data(self, data: bytes) -> None:
        """Take what has come of an answer that is not complete.

        Raises:
            RemoteProtocolError: It is no HTTP, or too long. What came of the body
                before that has been passed on.
        """
        if self._http is not None:
            self._receive_odd(self._http, data)
        elif self._chunks is not None:
            self._receive_chunks(self._chunks, data)
        elif self.status:
            self._receive_plain(data)
        elif end := self._read_head(data):
            if self._chunks is None:
                self._check_size(self._left_bytes)
                self._receive_plain(data[end:])
            else:
                self._receive_chunks(self._chunks, data[end:])
        else:
            self._http = _awaiting_answer()
            self._receive_odd(self._http, data)

    def receive_eof(self) -> None:
        """Take the end of the connection, which may be that of the answer.

        Raises:
            RemoteProtocolError: It is too early.
        """
        if self._http is None:
            missing = "the end" if self._chunks else f"{self._left_bytes} bytes"
            raise RemoteProtocolError(
                f"peer closed the connection, {missing} of the body was missing"
            )
        self._receive_odd(self._http, b"")

    def _read_head(self, data: bytes) -> int:
        """Read a plain head; return its length, 0 if it is not plain."""
        end = data.find(END_OF_HEAD)
        match = _HEAD.fullmatch(data[:end].decode("latin-1")) if end > 0 else None
        if match is None:
            return 0
        fields = _FIELD.findall(match[2])
        headers = {name.lower(): value for name, value in fields}
        length = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        status = int(match[1])
        if (
            len(headers) < len(fields)
            or status in _BODYLESS
            or "connection" in headers
            or (length is None) == (coding is None)
            or (length is not None and not _LENGTH.fullmatch(length))
            or (coding is not None and coding != "chunked")
        ):
            return 0
        self.status, self.headers = status, headers
        if length is None:
            self._chunks = _ChunkReader()
        else:
            self._left_bytes = int(length)
        return end + len(END_OF_HEAD)

    def _receive_chunks(self, chunks: _ChunkReader, data: bytes) -> None:
        for piece in chunks.receive_data(data):
            self._come_bytes += len(piece)
            self._check_size(self._come_bytes)
            self._on_body(piece)
        self.is_complete, self.is_last = chunks.is_complete, chunks.has_surplus

    def _receive_plain(self, data: bytes) -> None:
        behind = len(data) - self._left_bytes
        self._left_bytes = max(0, -behind)
        body = data[: len(data) - behind] if behind > 0 else data
        if body:
            self._on_body(body)
        self.is_complete = behind >= 0
        self.is_last = behind > 0

    def _receive_odd(self, http: h11.Connection, data: bytes) -> None:
        import h11

        try:
            http.receive_data(data)
            while self._take(http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(str(error)) from error
        if self.is_complete:
            is_kept = http.their_state is h11.DONE
            self.is_last = not is_kept or bool(http.trailing_data[0])

    def _take(self, event: object) -> bool:
        """Take what h11 has read; False if nothing follows, or not yet."""
        import h11

        match event:
            case h11.Response():
                self._take_head(event)
            case h11.Data(data=data):
                self._come_bytes += len(data)
                self._check_size(self._come_bytes)
                self._on_body(bytes(data))
            case h11.EndOfMessage():
                self.is_complete = True
        return isinstance(event, h11.Response | h11.Data | h11.InformationalResponse)

    def _take_head(self, head: h11.Response) -> None:
        self.status = head.status_code
        ambiguous = set()
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if self.headers.setdefault(name, value) != value:
                ambiguous.add(name)
                self.headers[name] = value
        self.ambiguous = frozenset(ambiguous)
        self._check_size(int(self.headers.get("content-length", "0")))

    def _check_size(self, size_bytes: int) -> None:
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            raise RemoteProtocolError(f"it is longer than {self._limit_bytes} bytes")


def _awaiting_answer() -> h11.Connection:
    """Return a connection that has sent a request: which one does not matter."""
    # A cold start does not need it, nor do most environments in all their time.
    import h11

    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT_BYTES)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "peer")]))
    http.send(h11.EndOfMessage())
    return http


class _ChunkReader:
    """Reads a body in chunks; skips extensions and trailers (RFC 9112, 7.1).

    Attributes:
        is_complete: The last chunk has been received, and the trailers.
        has_surplus: Something was received behind them.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self.has_surplus = False
        self._left_bytes = 0  # of a chunk's data
        self._line_end = b""  # what is still due of the one behind that data
        self._is_in_trailers = False
        self._held = bytearray()  # of a line with a size, or of the trailers

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """Yield what of the body is in some bytes.

        Raises:
            RemoteProtocolError: They are no chunks.
        """
        at = 0
        while at < len(data) and not self.is_complete:
            if self._left_bytes:
                piece = data[at : at + self._left_bytes]
                at += len(piece)
                self._left_bytes -= len(piece)
                self._line_end = b"" if self._left_bytes else LINE_END
                yield piece
            elif self._line_end:
                found = data[at : at + len(self._line_end)]
                if not self._line_end.startswith(found):
                    raise RemoteProtocolError(f"illegal end of a chunk: {found!r}")
                at += len(found)
                self._line_end = self._line_end[len(found) :]
            elif self._is_in_trailers:
                at, trailers = self._collect(data, at, END_OF_TRAILERS)
                if trailers and not _TRAILERS.fullmatch(trailers):
                    raise RemoteProtocolError(f"illegal trailers: {trailers[:64]!r}")
                self.is_complete = bool(trailers)
            elif not self._held and (line := _CHUNK_LINE.match(data, at)):
                at = line.end()
                self._begin_chunk(line)
            else:
                at, held = self._collect(data, at, (LINE_END,))
                if held:
                    line = _CHUNK_LINE.fullmatch(held)
                    if line is None:
                        raise RemoteProtocolError(f"illegal chunk: {held[:64]!r}")
                    self._begin_chunk(line)
        self.has_surplus = at < len(data)

    def _begin_chunk(self, line: re.Match[bytes]) -> None:
        self._left_bytes = int(line[1], 16)
        if self._left_bytes == 0:
            self._is_in_trailers = True
            # With it an empty line ends trailers also if there are none.
            self._held += b"\n"

    def _collect(
        self, data: bytes, at: int, ends: tuple[bytes, ...]
    ) -> tuple[int, bytes]:
        """Hold bytes until what is held has one of these ends; where they end, too.

        Returns:
            Where the next ones begin, and what was held; nothing if more is needed.
        """
        while line_end := data.find(b"\n", at) + 1:
            self._held += data[at:line_end]
            at = line_end
            if self._held.endswith(ends):
                held, self._held = bytes(self._held), bytearray()
                return at, held
        self._held += data[at:]
        if len(self._held) > HEAD_LIMIT_BYTES:
            raise RemoteProtocolError("what is between chunks is too long")
        return len(data), b""
