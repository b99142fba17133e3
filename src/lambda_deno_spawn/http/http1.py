"""HTTP/1.1 as far as one client needs it: writes requests, reads responses.

Reads a response by itself if its head is plain: received in one piece, in the usual
characters, each field once, with a length or chunks, and no field about the connection.
Every other response is read by h11 from its first byte on and means what h11 says. Does
not know sockets, nor what the requests are for. Why h11 does not read all of them:
decisions 0022 and 0031. Specification: RFC 9112.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import h11

    Field = tuple[str, str]

# A client context alone may take 3.5 KB; h11's own limit is 16 KB for all fields.
HEAD_LIMIT_BYTES = 256 * 1024
HTTP_OK = 200
LINE_END = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
# The trailer section is read together with the line end before it, so that it ends with
# an empty line even if it has no field.
END_OF_TRAILERS = (b"\n\n", b"\n\r\n")
# A Content-Length in these responses is not the length of a body: they have none.
_BODYLESS = frozenset({204, 304})
_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_VALUE = r"(?:[!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)?"
_HEAD = re.compile(rf"HTTP/1\.1 ([2-5][0-9][0-9]) [ -~]*((?:\r\n{_TOKEN}: ?{_VALUE})+)")
# One field of a head that _HEAD has matched.
_FIELD = re.compile(r"\r\n([^:]+): ?([^\r]*)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,11}")
# Compiled when the first body in chunks arrives, not in a cold start. They accept what
# h11 accepts: up to 20 digits; and in trailers bare newlines and folded lines too
# (RFC 9112, 2.2 and 5.2).
_CHUNK_LINE = rb"([0-9A-Fa-f]{1,20})(?:;[^\n]*|[ \t]*)\r\n"
_TEXT = rb"[\x01-\x09\x0e-\xff]*"
_TRAILERS = rb"\n(?:%b:%b\r?\n(?:[ \t]%b\r?\n)*)*\r?\n" % (
    _TOKEN.encode(), _TEXT, _TEXT,
)  # fmt: skip
# Values that may be sent: h11's rule, within latin-1.
_WRITABLE = re.compile(
    r"(?:[\x01-\x08\x0e-\x1f!-\xff](?:[\x01-\x09\x0e-\xff]*[\x01-\x08\x0e-\x1f!-\xff])?)?"
)


class HttpError(Exception):
    """There is no response, or not all of it."""


class LocalProtocolError(HttpError):
    """The request would not be valid HTTP; nothing of it was sent."""


class RemoteProtocolError(HttpError):
    """The response is not valid HTTP, too long, or incomplete."""


def field_lines(fields: Iterable[Field]) -> str:
    """Write header fields, or trailers.

    Args:
        fields: Names, which must be ours, and values from any source.

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
        lines: From ``field_lines``, without the fields that frame the body.
        length: Length of the body, 0 if there is none; None: it is sent in chunks.
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
    """Write one chunk of a body; an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def end_of_chunks(trailers: Iterable[Field]) -> bytes:
    """Write the end of a chunked body; raises as ``field_lines``."""
    return f"0\r\n{field_lines(trailers)}\r\n".encode("latin-1")


class ResponseReader:
    """Reads one response, from its first byte to its last.

    Attributes:
        status: Status code; 0 until the head was received.
        headers: Fields, names in lower case; of repeated fields the last one counts.
        ambiguous: Names of fields that are repeated with different values.
        is_complete: True once the last byte was received.
        is_reusable: True if the connection can carry another response, and nothing that
            was not asked for follows this one. Known once the response is complete.
    """

    def __init__(
        self, on_body: Callable[[bytes], object], limit_bytes: int | None = None
    ) -> None:
        """Expect the first byte of a response.

        Args:
            on_body: Called with each piece of the body.
            limit_bytes: Longest body accepted; None: unlimited.
        """
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ambiguous: frozenset[str] = frozenset()
        self.is_complete = False
        self.is_reusable = False
        self._on_body = on_body
        self._limit_bytes = limit_bytes
        self._body_bytes_left = 0  # if the head says how long the body is
        self._body_bytes_received = 0  # if it does not
        self._chunks: _ChunkReader | None = None
        self._http: h11.Connection | None = None

    @property
    def has_begun(self) -> bool:
        """True once any byte was received."""
        return self.status != 0 or self.needs_h11

    @property
    def needs_h11(self) -> bool:
        """True if the head was not plain, so that h11 reads the response."""
        return self._http is not None

    def receive_data(self, data: bytes) -> None:
        """Read bytes of a response that is not complete.

        Raises:
            RemoteProtocolError: The response is not valid HTTP, or too long. The part
                of the body before that was passed on.
        """
        if self._http is not None:
            self._receive_through_h11(self._http, data)
        elif self._chunks is not None:
            self._receive_chunks(self._chunks, data)
        elif self.status:
            self._receive_body(data)
        elif end := self._read_head(data):
            if self._chunks is None:
                self._check_size(self._body_bytes_left)
                self._receive_body(data[end:])
            else:
                self._receive_chunks(self._chunks, data[end:])
        else:
            self._http = _expecting_response()
            self._receive_through_h11(self._http, data)

    def receive_eof(self) -> None:
        """Note the end of the connection, which may be the end of the response.

        Raises:
            RemoteProtocolError: The response is incomplete.
        """
        if self._http is None:
            missing = "the end" if self._chunks else f"{self._body_bytes_left} bytes"
            raise RemoteProtocolError(
                f"peer closed the connection, {missing} of the body was missing"
            )
        self._receive_through_h11(self._http, b"")

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
            self._body_bytes_left = int(length)
        return end + len(END_OF_HEAD)

    def _receive_body(self, data: bytes) -> None:
        surplus = len(data) - self._body_bytes_left
        self._body_bytes_left = max(0, -surplus)
        body = data[: len(data) - surplus] if surplus > 0 else data
        if body:
            self._on_body(body)
        self.is_complete = surplus >= 0
        self.is_reusable = surplus == 0

    def _receive_chunks(self, chunks: _ChunkReader, data: bytes) -> None:
        for piece in chunks.receive_data(data):
            self._receive_piece(piece)
        self.is_complete = chunks.is_complete
        self.is_reusable = chunks.is_complete and not chunks.has_surplus

    def _receive_through_h11(self, http: h11.Connection, data: bytes) -> None:
        import h11

        try:
            http.receive_data(data)
            while self._receive_event(http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(str(error)) from error
        if self.is_complete:
            is_kept_alive = http.their_state is h11.DONE
            self.is_reusable = is_kept_alive and not http.trailing_data[0]

    def _receive_event(self, event: object) -> bool:
        """Note what h11 has read; return whether another event can follow at once."""
        import h11

        match event:
            case h11.Response():
                self._receive_head(event)
            case h11.Data(data=data):
                self._receive_piece(bytes(data))
            case h11.EndOfMessage():
                self.is_complete = True
        return isinstance(event, h11.Response | h11.Data | h11.InformationalResponse)

    def _receive_head(self, head: h11.Response) -> None:
        self.status = head.status_code
        ambiguous = set()
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if self.headers.setdefault(name, value) != value:
                ambiguous.add(name)
                self.headers[name] = value
        self.ambiguous = frozenset(ambiguous)
        self._check_size(int(self.headers.get("content-length", "0")))

    def _receive_piece(self, piece: bytes) -> None:
        """Pass on a piece of a body whose length was not declared."""
        self._body_bytes_received += len(piece)
        self._check_size(self._body_bytes_received)
        self._on_body(piece)

    def _check_size(self, size_bytes: int) -> None:
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            raise RemoteProtocolError(f"it is longer than {self._limit_bytes} bytes")


def _expecting_response() -> h11.Connection:
    """Return a connection that has sent a request; h11 need not know which one."""
    # Neither a cold start nor most environments ever need h11.
    import h11

    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT_BYTES)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "peer")]))
    http.send(h11.EndOfMessage())
    return http


class _ChunkReader:
    """Reads a chunked body; skips extensions and trailers (RFC 9112, 7.1).

    Attributes:
        is_complete: True once the last chunk and the trailers were received.
        has_surplus: True if something follows them.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self.has_surplus = False
        self._chunk_bytes_left = 0
        self._line_end_left = b""  # what is missing of the line end behind a chunk
        self._is_in_trailers = False
        self._held = bytearray()  # an incomplete chunk line, or trailer section

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """Yield the parts of the body in some bytes.

        Raises:
            RemoteProtocolError: They are not chunks.
        """
        at = 0
        while at < len(data) and not self.is_complete:
            if self._chunk_bytes_left:
                piece = data[at : at + self._chunk_bytes_left]
                at += len(piece)
                self._chunk_bytes_left -= len(piece)
                if self._chunk_bytes_left == 0:
                    self._line_end_left = LINE_END
                yield piece
            elif self._line_end_left:
                found = data[at : at + len(self._line_end_left)]
                if not self._line_end_left.startswith(found):
                    raise RemoteProtocolError(f"illegal end of a chunk: {found!r}")
                at += len(found)
                self._line_end_left = self._line_end_left[len(found) :]
            elif self._is_in_trailers:
                at, trailers = self._collect(data, at, END_OF_TRAILERS)
                if trailers and not re.fullmatch(_TRAILERS, trailers):
                    raise RemoteProtocolError(f"illegal trailers: {trailers[:64]!r}")
                self.is_complete = bool(trailers)
            elif not self._held and (line := re.compile(_CHUNK_LINE).match(data, at)):
                at = line.end()
                self._begin_chunk(line)
            else:
                at, held = self._collect(data, at, (LINE_END,))
                if held:
                    line = re.fullmatch(_CHUNK_LINE, held)
                    if line is None:
                        raise RemoteProtocolError(f"illegal chunk: {held[:64]!r}")
                    self._begin_chunk(line)
        self.has_surplus = at < len(data)

    def _begin_chunk(self, line: re.Match[bytes]) -> None:
        self._chunk_bytes_left = int(line[1], 16)
        if self._chunk_bytes_left == 0:
            self._is_in_trailers = True
            self._held += b"\n"  # see END_OF_TRAILERS

    def _collect(
        self, data: bytes, at: int, ends: tuple[bytes, ...]
    ) -> tuple[int, bytes]:
        """Hold bytes, however they are cut, until one of the ends.

        Each byte is looked at once: a peer that sends single bytes gains nothing.

        Returns:
            Where the rest of the data begins, and all that was held; empty if the end
            was not received yet.
        """
        while line_end := data.find(b"\n", at) + 1:
            self._held += data[at:line_end]
            at = line_end
            if self._held.endswith(ends):
                held, self._held = bytes(self._held), bytearray()
                return at, held
        self._held += data[at:]
        if len(self._held) > HEAD_LIMIT_BYTES:
            raise RemoteProtocolError("a chunk line, or the trailers, are too long")
        return len(data), b""
