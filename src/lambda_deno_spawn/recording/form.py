"""The form of a recording: one invocation as data, on disk and in a function's log.

Knows its members, its version, how much it holds, and how it is cut into lines of a
log. Does not know where invocations run or where recordings are kept. Specification:
docs/replay.md.
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.strict_json import JsonError, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.recording.redaction import Redactor

KIND = "lambda-deno-spawn.recording"
VERSION = 1
RESPONSE, ERROR = "response", "error"
SUCCESS = "success"
# A line of the log may have 256 KB; this is base64, with a few members beside it.
LINE_BYTES = 128 * 1024
# Events and results in a function's log, which is paid for by its size.
LOGGED_LIMIT_BYTES = 256 * 1024
PARTS_LIMIT = 32
WHOLE_LIMIT_BYTES = 64 * 1024 * 1024
# Settings that decide in which kind of process the handler runs.
SETTINGS = (
    "LAMBDA_DENO_STRATEGY", "LAMBDA_DENO_START", "LAMBDA_DENO_MAX_INVOCATIONS",
    "LAMBDA_DENO_RESPONSE_MODE",
)  # fmt: skip


class Result(NamedTuple):
    """The result of an invocation.

    Attributes:
        status: ``success``, or the error type that the caller was told.
        payload: Response or error body; None: it was streamed and not kept.
        sent_bytes: Its size.
        http: Status, headers and cookies of a streamed response.
    """

    status: str
    payload: bytes | None
    sent_bytes: int
    content_type: str = ""
    is_streamed: bool = False
    http: Mapping[str, Any] | None = None


def recording(
    *,
    request_id: str,
    timestamp: str,
    origin: str,
    function: Mapping[str, object],
    code: str,
    settings: Mapping[str, str],
    variables: Mapping[str, str],
    context: Mapping[str, str | None],
    event: bytes,
    result: Result,
    process: Mapping[str, object],
    log: str | None,
    redactor: Redactor,
    limit_bytes: int,
) -> dict[str, Any]:
    """Return an invocation as data without secrets.

    Args:
        request_id: Of the invocation.
        timestamp: When it arrived, as log records have it.
        origin: ``lambda`` or ``local``.
        function: Name, version, handler, memory and timeout.
        code: Digest of the code, with a prefix that names the digested files.
        settings: Those of ``SETTINGS`` that were set.
        variables: Variables of the function.
        context: Trace id, client context, identity and tenant.
        event: As it was received.
        result: Its result.
        process: How its process began.
        log: The log of the invocation; None: it is elsewhere.
        redactor: Replaces secrets.
        limit_bytes: Most that is kept of the event, and of the result.
    """
    cut: list[str] = []

    def kept(data: bytes | None, name: str) -> dict[str, str] | None:
        if data is None:
            return None
        if len(data) > limit_bytes:
            cut.append(name)
            return None
        text = redactor.body(data, name)
        if text is None:
            return {"base64": base64.b64encode(data).decode()}
        return {"text": text}

    http = result.http and loads(
        (redactor.body(dumps(result.http), "outcome.http") or "{}").encode()
    )
    return {
        "type": KIND,
        "version": VERSION,
        "requestId": request_id,
        "time": timestamp,
        "origin": origin,
        "function": dict(function),
        "code": code,
        "settings": dict(settings),
        "variables": redactor.variables(dict(variables), "variables"),
        "context": {
            name: redactor.body(value.encode(), f"context.{name}")
            for name, value in context.items()
            if value is not None
        },
        "event": kept(event, "event"),
        "eventBytes": len(event),
        "outcome": {
            "kind": RESPONSE if result.status == SUCCESS else ERROR,
            "status": result.status,
            "contentType": result.content_type,
            "streamed": result.is_streamed,
            "http": http,
            "payload": kept(result.payload, "outcome.payload"),
            "payloadBytes": result.sent_bytes,
        },
        "process": dict(process),
        "log": None if log is None else redactor.text(log, "log"),
        "redacted": redactor.paths,
        "cut": cut,
    }


def log_lines(form: Mapping[str, Any], timestamp: str) -> list[bytes]:
    """Return a recording as lines of a log, without newlines.

    Args:
        form: The recording.
        timestamp: Now, as log records have it.
    """
    data = base64.b64encode(zlib.compress(dumps(form), 6)).decode()
    pieces = [data[i : i + LINE_BYTES] for i in range(0, len(data), LINE_BYTES)]
    return [
        dumps(
            {
                "timestamp": timestamp,
                "level": "INFO",
                "requestId": form["requestId"],
                "type": KIND,
                "part": number,
                "parts": len(pieces),
                "data": piece,
            }
        )
        for number, piece in enumerate(pieces, 1)
    ]


class Parts:
    """Collects the lines of one recording from a log, in any order."""

    def __init__(self, request_id: str) -> None:
        """Collect those of one invocation."""
        self._request_id = request_id
        self._pieces: dict[int, str] = {}
        self._count = 0

    def take(self, line: str) -> bool:
        """Add a line; False if it is not a part of the recording."""
        if KIND not in line or line[:1] != "{":
            return False
        try:
            found = loads(line.encode(errors="replace"))
        except JsonError:
            return False
        match found:
            case {
                "type": str(kind), "requestId": str(request_id), "part": int(part),
                "parts": int(count), "data": str(data),
            } if kind == KIND and request_id == self._request_id:  # fmt: skip
                if 1 <= part <= count <= PARTS_LIMIT:
                    if count != self._count:  # the invocation ran again
                        self._pieces.clear()
                    self._count = count
                    self._pieces[part] = data
                return True
        return False

    @property
    def missing(self) -> int | None:
        """How many parts are not there yet; None: there is none."""
        return self._count - len(self._pieces) if self._count else None

    def whole(self) -> bytes:
        """Return the recording as JSON.

        Raises:
            ValueError: It is incomplete or damaged.
        """
        if self.missing != 0:
            raise ValueError("parts of it are missing")
        text = "".join(self._pieces[part] for part in sorted(self._pieces))
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(
                base64.b64decode(text, validate=True), WHOLE_LIMIT_BYTES
            )
        except (ValueError, zlib.error) as error:
            raise ValueError(f"it is damaged ({error})") from None
        if not inflate.eof:
            raise ValueError("it is damaged: its end is missing, or it is too large")
        return data
