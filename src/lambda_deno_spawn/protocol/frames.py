"""The wire protocol between the supervisor and one Deno process.

A sans-io state machine: bytes in, events out; bytes to write are returned. Knows
frames, states and limits. Does not know pipes, processes or time. The normative text is
docs/protocol.md; ``js/runtime.js`` is the other end.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from lambda_deno_spawn.early import StrEnum
from lambda_deno_spawn.errors import WorkerProtocolError
from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.limits import RESPONSE_LIMIT_BYTES
from lambda_deno_spawn.protocol.hello import MARKER_BYTES
from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.strict_json import JsonError, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_deno_spawn.invocation import Invocation

# A longer line is not a header: even one with the longest content type is shorter.
HEADER_LIMIT_BYTES = 1024
# Pieces of a body shorter than this are joined: each one costs a Python object.
SMALL_BYTES = 4096
# A worker cuts its error bodies to this (``ERROR_LIMIT_BYTES`` of runtime.js). Parsed
# JSON takes up to thirty times its size.
ERROR_LIMIT_BYTES = 256 * 1024
# Longest piece in which a worker writes a streamed answer.
CHUNK_LIMIT_BYTES = 64 * 1024
# Both become header fields. A worker cuts a longer error type, and refuses a longer
# content type.
ERROR_TYPE_LIMIT = 128
CONTENT_TYPE_LIMIT = 256
DEFAULT_CONTENT_TYPE = "application/octet-stream"
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,6}")
# The handler chooses it, and it becomes a header field: printable ASCII without blanks
# at either end.
_CONTENT_TYPE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class State(StrEnum):
    """The state of a worker, as its frames have reported it."""

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    STREAMING = "STREAMING"
    FINISHING = "FINISHING"
    DONE = "DONE"
    FAILED = "FAILED"


class FrameKind(StrEnum):
    """Kinds of frames a worker sends."""

    READY = "READY"
    PART = "PART"
    RESULT = "RESULT"
    STREAM = "STREAM"
    CHUNK = "CHUNK"
    END = "END"
    ERROR = "ERROR"
    DONE = "DONE"


# Every legal pair of state and frame; any other pair breaks the protocol. INVOKE, which
# the supervisor sends, leads from IDLE to BUSY; receive_eof handles end-of-file. A DONE
# frame with "more" leads back to IDLE.
TRANSITIONS: Mapping[tuple[State, FrameKind], State] = {
    (State.STARTING, FrameKind.READY): State.IDLE,
    (State.STARTING, FrameKind.PART): State.STARTING,
    (State.STARTING, FrameKind.ERROR): State.FINISHING,
    (State.BUSY, FrameKind.PART): State.BUSY,
    (State.BUSY, FrameKind.RESULT): State.FINISHING,
    (State.BUSY, FrameKind.ERROR): State.FINISHING,
    (State.BUSY, FrameKind.STREAM): State.STREAMING,
    (State.STREAMING, FrameKind.PART): State.STREAMING,
    (State.STREAMING, FrameKind.CHUNK): State.STREAMING,
    (State.STREAMING, FrameKind.END): State.FINISHING,
    (State.STREAMING, FrameKind.ERROR): State.FINISHING,
    (State.FINISHING, FrameKind.DONE): State.DONE,
}


# Longest body of each kind of frame, checked before any of it is kept. Any frame may
# have been written by the handler, which can find out the marker.
LIMITS_BYTES: Mapping[FrameKind, int] = {
    FrameKind.READY: 0,
    FrameKind.PART: RESPONSE_LIMIT_BYTES,
    FrameKind.RESULT: RESPONSE_LIMIT_BYTES,
    FrameKind.STREAM: 0,
    FrameKind.CHUNK: CHUNK_LIMIT_BYTES,
    FrameKind.END: 0,
    FrameKind.ERROR: ERROR_LIMIT_BYTES,
    FrameKind.DONE: 0,
}


# Frames that may follow a PART, whose body is joined with theirs.
ANSWER_KINDS = frozenset({FrameKind.PART, FrameKind.RESULT, FrameKind.ERROR})


class Ready(NamedTuple):
    """The module is loaded; the worker waits for its invocation."""


class Answered(NamedTuple):
    """The worker's answer: the handler's outcome, or why its module did not load."""

    outcome: Success | Failure


class StreamBegun(NamedTuple):
    """The answer follows in chunks; together they have this media type."""

    content_type: str


class Chunk(NamedTuple):
    """A piece of a streamed answer."""

    data: bytes


class StreamEnded(NamedTuple):
    """The streamed answer is complete, or broken off by an error."""

    failure: Failure | None


class Done(NamedTuple):
    """The worker has nothing left to do."""


class Stray(NamedTuple):
    """Bytes on stdout outside any frame: output that escaped the rerouting."""

    data: bytes


Event = Ready | Answered | StreamBegun | Chunk | StreamEnded | Done | Stray


class _Header(NamedTuple):
    kind: FrameKind
    length: int
    error_type: str
    content_type: str
    is_more: bool


@lru_cache(maxsize=4)  # a server has one marker for many connections
def _spelling(marker: str) -> tuple[bytes, bytes, bytes, Mapping[bytes, State]]:
    """Return the byte strings that depend on the marker.

    Returns:
        The marker; the end of a frame; the beginning of a RESULT; each text that may
        follow the body of a RESULT in the same read, with the state that it leads to.
    """
    start = marker.encode("ascii")
    trailer = start + b"\n"
    done = b'%b%b{"kind":"DONE","bytes":0' % (trailer, start)
    ends = {
        trailer: State.FINISHING,
        b"%b}\n%b" % (done, trailer): State.DONE,
        b'%b,"more":true}\n%b' % (done, trailer): State.IDLE,
    }
    return start, trailer, b'%b{"kind":"RESULT","bytes":' % start, ends


class WorkerConnection:
    """The supervisor's end of one worker's stdin and stdout, or of one HTTP exchange.

    Attributes:
        state: What the worker is doing.
    """

    def __init__(self, marker: str, state: State = State.STARTING) -> None:
        """Expect nothing yet.

        Args:
            marker: The worker's marker, ``MARKER_BYTES`` hexadecimal characters.
            state: IDLE for an HTTP exchange, which begins with INVOKE.
        """
        if len(marker) != MARKER_BYTES:
            raise ValueError(f"Cannot use marker {marker!r}: not {MARKER_BYTES} long")
        self.state = state
        self._marker, self._trailer, self._result, self._ends = _spelling(marker)
        self._buffer = bytearray()
        self._header: _Header | None = None
        # The received pieces of a body, and how many bytes are missing.
        self._pieces: list[bytes] = []
        self._missing_bytes = 0
        # One buffer: thousands of small pieces would take ten times their size.
        self._parts: bytearray | None = None

    def invoke(self, invocation: Invocation, abort_epoch_ms: int) -> list[bytes]:
        """Hand over an invocation; return the buffers to write.

        Args:
            invocation: The event and its facts.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.

        Raises:
            WorkerProtocolError: The worker is not idle.
        """
        if self.state is not State.IDLE:
            raise WorkerProtocolError(
                f"Cannot send an invocation: the worker is {self.state}"
            )
        self.state = State.BUSY
        head = {
            "eventBytes": len(invocation.event),
            "requestId": invocation.request_id,
            "deadlineEpochMs": invocation.deadline_epoch_ms,
            "abortEpochMs": abort_epoch_ms,
            "functionArn": invocation.function_arn,
            "traceId": invocation.trace_id,
            "clientContext": invocation.client_context,
            "identity": invocation.cognito_identity,
            "tenantId": invocation.tenant_id,
        }
        return [dumps(head) + b"\n", invocation.event]

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """Receive bytes from the worker's stdout; yield the events they complete.

        The iterator must be exhausted before the next call. Bytes that cannot belong
        to a frame are yielded as ``Stray`` as soon as that is certain.

        Raises:
            WorkerProtocolError: A frame is broken, too large, or not allowed in this
                state. The connection is FAILED and ignores all further bytes.
        """
        if self.state is State.FAILED:
            return
        is_within = self._buffer or self._header or self._parts is not None
        if self.state is State.BUSY and not is_within:
            whole = self._read_whole_result(data)
            if whole is not None:
                result, state = whole
                self.state = State.FINISHING
                yield Answered(Success(result))
                if state is not State.FINISHING:
                    self.state = state
                    yield Done()
                return
        if self._missing_bytes:
            data = self._fill_body(data)
        self._buffer += data
        while True:
            if self._header is None:
                stray = self._take_stray()
                if stray:
                    yield Stray(stray)
                self._header = self._take_header()
                if self._header is None:
                    return
            body = self._take_body(self._header)
            if body is None:
                return
            header, self._header = self._header, None
            event = self._accept(header, body)
            if event is not None:
                yield event

    def _read_whole_result(self, data: bytes) -> tuple[bytes, State] | None:
        """Read the bytes of one whole RESULT, which nearly every answer is.

        Returns:
            The result and the state that follows it; None if the bytes are anything
            else, with nothing decided.
        """
        start = len(self._result)
        end = data.find(b"}\n", start, start + HEADER_LIMIT_BYTES)
        digits = data[start:end]
        if end < 0 or not (data.startswith(self._result) and _LENGTH.fullmatch(digits)):
            return None
        body_start = end + 2
        length = int(digits)
        if length > RESPONSE_LIMIT_BYTES:
            return None
        body_end = body_start + length
        state = self._ends.get(data[body_end:])
        return None if state is None else (data[body_start:body_end], state)

    def receive_eof(self) -> Stray | None:
        """Receive the end of the worker's stdout; return the bytes left over, if any.

        It is in order after DONE, and while IDLE, when nothing is lost; ``state`` shows
        which. A frame that was cut off is reported by its size only: its body may be a
        result, which belongs to the caller and not into the log.
        """
        rest = b"".join([*self._pieces, self._buffer])
        header, self._header = self._header, None
        self._forget()
        if self.state is State.FAILED:
            return None
        if header is not None:
            cut = f"{len(rest)} of {header.length} bytes of frame {header.kind}"
            return Stray(f"{cut} were dropped: the rest never came".encode())
        return Stray(rest) if rest else None

    def _forget(self) -> None:
        self._buffer, self._parts = bytearray(), None
        self._pieces, self._missing_bytes = [], 0

    def _take_stray(self) -> bytes:
        """Remove and return the bytes before the next marker, or the start of one."""
        start = self._buffer.find(self._marker)
        if start < 0:
            start = len(self._buffer) - self._partial_marker_length()
        stray = bytes(self._buffer[:start])
        del self._buffer[:start]
        return stray

    def _partial_marker_length(self) -> int:
        """Return the length of the start of a marker at the end of the buffer."""
        longest = min(len(self._buffer), len(self._marker) - 1)
        for length in range(longest, 0, -1):
            if self._buffer.endswith(self._marker[:length]):
                return length
        return 0

    def _take_header(self) -> _Header | None:
        if len(self._buffer) < len(self._marker):
            return None
        start = len(self._marker)
        end = self._buffer.find(b"\n", start, start + HEADER_LIMIT_BYTES)
        if end < 0:
            if len(self._buffer) - start >= HEADER_LIMIT_BYTES:
                self._fail("a frame header does not end", self._buffer[start:])
            return None
        line = bytes(self._buffer[start:end])
        try:
            fields: Any = loads(line)
            kind = FrameKind(fields["kind"])
            length = fields["bytes"]
            error_type = fields.get("errorType", "")
            content_type = fields.get("contentType", DEFAULT_CONTENT_TYPE)
            is_more = fields.get("more") is True
        except (JsonError, KeyError, TypeError, ValueError):
            self._fail("a frame header is malformed", line)
        if type(length) is not int or length < 0:
            self._fail("a frame's length is out of range", line)
        if not isinstance(error_type, str) or len(error_type) > ERROR_TYPE_LIMIT:
            self._fail(
                f"a frame's error type is not text of up to {ERROR_TYPE_LIMIT} "
                "characters",
                line,
            )
        if (self.state, kind) not in TRANSITIONS:
            self._fail(f"frame {kind} is not allowed while {self.state}", line)
        if not (
            isinstance(content_type, str)
            and len(content_type) <= CONTENT_TYPE_LIMIT
            and _CONTENT_TYPE.fullmatch(content_type)
        ):
            self._fail("a frame's content type cannot be a header field", line)
        self._check_length(kind, length, line)
        self._missing_bytes = length
        body_start = end + 1
        received = min(length, len(self._buffer) - body_start)
        # No byte more: with a thousand small frames in one read, each of them would
        # copy all the others.
        body = bytes(self._buffer[body_start : body_start + received])
        del self._buffer[: body_start + received]
        self._fill_body(body)
        return _Header(kind, length, error_type, content_type, is_more)

    def _check_length(self, kind: FrameKind, length: int, line: bytes) -> None:
        """Refuse a body that is too long, alone or together with its PARTs."""
        limit = LIMITS_BYTES[kind]
        if kind is FrameKind.PART and self.state is not State.BUSY:
            limit = ERROR_LIMIT_BYTES  # nothing but an error can follow
        if length > limit:
            self._fail(
                f"a frame's length is out of range: {kind} takes {limit} bytes", line
            )
        if kind not in ANSWER_KINDS or self._parts is None:
            return
        if len(self._parts) + length > limit:
            self._fail(
                f"the parts of an answer are too large together: {kind} takes "
                f"{limit} bytes",
                line,
            )

    def _fill_body(self, data: bytes) -> bytes:
        """Keep the bytes that a body is still missing; return the bytes after it."""
        piece = data[: self._missing_bytes]
        if self._pieces and len(self._pieces[-1]) < SMALL_BYTES:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._missing_bytes -= len(piece)
        return data[len(piece) :]

    def _take_body(self, header: _Header) -> bytes | None:
        if self._missing_bytes or len(self._buffer) < len(self._trailer):
            return None
        if not self._buffer.startswith(self._trailer):
            self._fail(
                f"frame {header.kind} of {header.length} bytes does not end where its "
                "header says: another program wrote into it",
                self._buffer,
            )
        del self._buffer[: len(self._trailer)]
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _accept(self, header: _Header, body: bytes) -> Event | None:
        was_streaming = self.state is State.STREAMING
        self.state = TRANSITIONS[self.state, header.kind]
        if header.kind is FrameKind.PART:
            if self._parts is None:
                self._parts = bytearray()
            self._parts += body
            return None
        if self._parts is not None:
            if header.kind not in ANSWER_KINDS:
                self._fail(f"frame {header.kind} follows parts of an answer")
            self._parts += body
            body, self._parts = bytes(self._parts), None
        match header.kind:
            case FrameKind.READY:
                return Ready()
            case FrameKind.RESULT:
                return Answered(Success(body))
            case FrameKind.ERROR:
                failure = Failure(header.error_type or "Error", body)
                return StreamEnded(failure) if was_streaming else Answered(failure)
            case FrameKind.STREAM:
                return StreamBegun(header.content_type)
            case FrameKind.CHUNK:
                return Chunk(body)
            case FrameKind.END:
                return StreamEnded(None)
            case FrameKind.DONE:  # pragma: no branch - there is no other
                if header.is_more:
                    self.state = State.IDLE
                return Done()

    def _fail(
        self, problem: str, evidence: bytes | bytearray | None = None
    ) -> NoReturn:
        state, self.state = self.state, State.FAILED
        shown = "" if evidence is None else f"; it begins with {bytes(evidence[:64])!r}"
        self._forget()
        raise WorkerProtocolError(
            f"Cannot read the worker's output while {state}: {problem}{shown}"
        )
