"""One invocation and its outcome.

Knows how the Runtime API's headers describe an invocation, and how a failure is written
as an error body. Does not know clocks, sockets or processes. Specification: AWS Lambda
Developer Guide, "Using the Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.records import NamedTuple, Protocol
from lambda_deno_spawn.strict_json import JsonError, dumps, loads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from lambda_deno_spawn.errors import WorkerError

# The platform stores 64 KiB of the cause, and servers limit a header block: half of
# that keeps the whole request well below both.
XRAY_CAUSE_LIMIT_BYTES = 32 * 1024
# Longer error bodies are not parsed for it: Python's objects are thirty times as large
# as their JSON.
XRAY_BODY_LIMIT_BYTES = 2 * XRAY_CAUSE_LIMIT_BYTES
# Letters of ``Lambda-Runtime-Function-Error-Type`` after its category.
ERROR_REASON_LIMIT = 128
# Enough to show the cause without turning the error body into a log file.
LOG_TAIL_LIMIT_LINES = 20

# These two are compiled at the first error, not in a cold start.
_ERROR_TYPE = r"(?:Runtime|Function)\.[A-Z][A-Za-z]+"
# AWS's ids have 36 characters; an id becomes part of a path, and of each log line.
REQUEST_ID_LIMIT = 1024
# 15 digits of milliseconds reach past the year 30000 and are exact in JavaScript.
DEADLINE_DIGITS = 15
# A handler can write anything into its stack: a longer number is not a line number.
_STACK_FRAME = (
    r"^\s*at (?:(?P<label>.*?) \(|async )?"
    r"(?P<path>[^()]*?):(?P<line>[0-9]{1,9}):[0-9]+\)?$"
)


class Invocation(NamedTuple):
    """One event and the facts that arrived with it.

    Attributes:
        request_id: ``Lambda-Runtime-Aws-Request-Id``.
        deadline_epoch_ms: When the platform stops waiting; Unix time, milliseconds.
        function_arn: Invoked ARN, with the caller's alias or version.
        event: The payload exactly as it arrived; never decoded by the supervisor.
        trace_id: X-Ray header, None if there is none.
        client_context: JSON text of the caller's client context.
        cognito_identity: JSON text of the caller's Cognito identity.
        tenant_id: Tenant of a tenant-isolated function.
        invocation_id: Opaque value to be sent back with the response.
    """

    request_id: str
    deadline_epoch_ms: int
    function_arn: str
    event: bytes
    trace_id: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None
    invocation_id: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], event: bytes) -> Invocation:
        """Build an invocation from the headers of a response to ``next``.

        Args:
            headers: Header fields with lower-case names; unknown ones are ignored,
                empty optional ones count as absent.
            event: Body of the response.

        Raises:
            RuntimeApiError: A header that every invocation has is missing or malformed.
        """
        request_id = headers.get("lambda-runtime-aws-request-id", "")
        deadline = headers.get("lambda-runtime-deadline-ms", "")
        is_id = 0 < len(request_id) <= REQUEST_ID_LIMIT
        is_number = deadline.isascii() and deadline.isdigit()
        if not is_id or not is_number or len(deadline) > DEADLINE_DIGITS:
            raise RuntimeApiError(
                "next",
                "a required header is missing or malformed: "
                f"request id {request_id[:64]!r}, deadline {deadline[:64]!r}",
                status=200,
            )
        return cls(
            request_id=request_id,
            deadline_epoch_ms=int(deadline),
            function_arn=headers.get("lambda-runtime-invoked-function-arn", ""),
            event=event,
            trace_id=headers.get("lambda-runtime-trace-id") or None,
            client_context=headers.get("lambda-runtime-client-context") or None,
            cognito_identity=headers.get("lambda-runtime-cognito-identity") or None,
            tenant_id=headers.get("lambda-runtime-aws-tenant-id") or None,
            invocation_id=headers.get("lambda-runtime-invocation-id") or None,
        )


class Success(NamedTuple):
    """The handler's result: JSON text, passed on byte for byte."""

    payload: bytes
    content_type: str = "application/json"


class Failure(NamedTuple):
    """An invocation (or the init phase) that ended in an error.

    Attributes:
        error_type: As the caller sees it in ``errorType``.
        body: The whole JSON error body. A worker's may have a newline and a second one
            behind it: the same, with members of the error that only the log gets.
    """

    error_type: str
    body: bytes

    @classmethod
    def of(
        cls,
        error_type: str,
        message: str,
        stack_trace: Sequence[str] = (),
        log_tail: str = "",
    ) -> Failure:
        """Write an error body of the runtime's own; invalid Unicode is replaced."""
        body: dict[str, object] = {
            "errorType": error_type,
            "errorMessage": _clean(message),
            "stackTrace": [_clean(line) for line in stack_trace],
        }
        if log_tail:
            lines = _clean(log_tail).splitlines()
            body["logTail"] = lines[-LOG_TAIL_LIMIT_LINES:]
        return cls(error_type, dumps(body))

    @classmethod
    def from_worker_error(cls, error: WorkerError) -> Failure:
        """Describe a worker that ended early, with the last lines it logged."""
        return cls.of(error.error_type, str(error), log_tail=error.stderr_tail)

    @property
    def answer(self) -> bytes:
        """The error body as the caller gets it."""
        return self.body.partition(b"\n")[0]

    @property
    def log_text(self) -> str:
        """The error body as the log has it."""
        answer, _, logged = self.body.partition(b"\n")
        return (logged or answer).decode("utf-8", "replace")

    @property
    def log_value(self) -> bytes | None:
        """The same as JSON on one line; None if it is not JSON. Only this reads it."""
        try:
            return dumps(loads(self.log_text.encode()))
        except (ValueError, RecursionError):
            return None

    @property
    def function_error_type(self) -> str:
        """Value of ``Lambda-Runtime-Function-Error-Type``: always ``Category.Reason``.

        The platform turns every other form into ``Runtime.Unknown``, so an error of the
        handler becomes ``Function.<its name>``.
        """
        is_short = len(self.error_type) <= ERROR_REASON_LIMIT
        if is_short and re.fullmatch(_ERROR_TYPE, self.error_type):
            return self.error_type
        letters = re.sub(r"[^A-Za-z]", "", self.error_type)[:ERROR_REASON_LIMIT]
        return (
            f"Function.{letters[:1].upper()}{letters[1:]}"
            if len(letters) > 1
            else ("Function.Unknown")
        )

    def shortened(self, limit_bytes: int) -> Failure:
        """Return a failure with a body of at most ``limit_bytes``.

        It is the same one if it is short enough. Else type and message are kept, and as
        many lines of the stack as fit; the body says that it was cut. Causes and the
        log are dropped.

        Args:
            limit_bytes: Longest body, a few hundred bytes at least.
        """
        answer = self.answer
        if len(answer) <= limit_bytes:
            return self
        try:
            body = loads(answer)
        except JsonError:
            body = None
        if not isinstance(body, dict):
            found = f"{len(answer)} bytes that are not a JSON object"
            body = {"errorMessage": found}
        message, lines = body.get("errorMessage"), body.get("stackTrace")
        if not isinstance(message, str):
            message = ""
        stack = (
            [line for line in lines if isinstance(line, str)]
            if (isinstance(lines, list))
            else []
        )
        whole = _body(self.error_type, message, [CUT])
        if len(whole) > limit_bytes:
            short = _most(
                message,
                lambda kept, left: _body(
                    self.error_type, f"{kept}\u2026 ({left} characters more)", [CUT]
                ),
                limit_bytes,
            )
            return Failure(self.error_type, short)
        fits = _most(
            stack,
            lambda kept, _: _body(self.error_type, message, [*kept, CUT]),
            limit_bytes,
        )
        return Failure(self.error_type, fits)

    def xray_cause(self, working_directory: str) -> str | None:
        """Return the one-line JSON of the X-Ray error cause header.

        None if it would be too long; the header is optional.
        """
        answer = self.answer
        if len(answer) > XRAY_BODY_LIMIT_BYTES:
            return None
        try:
            body = loads(answer)
        except JsonError:
            return None
        if not isinstance(body, dict):
            return None
        lines = body.get("stackTrace")
        try:
            message = str(body.get("errorMessage", ""))
        except RecursionError:  # JSON may nest deeper than str() can write
            message = ""
        stack = [
            {"path": m["path"], "line": int(m["line"]), "label": m["label"] or ""}
            for line in (lines if isinstance(lines, list) else ())
            if isinstance(line, str) and (m := re.match(_STACK_FRAME, line))
        ]
        exception = {
            "type": self.error_type,
            "message": message,
            "stack": stack,
        }
        cause = {
            "working_directory": _clean(working_directory),
            "exceptions": [exception],
            "paths": sorted({frame["path"] for frame in stack}),
        }
        data = dumps(cause)
        if len(data) > XRAY_CAUSE_LIMIT_BYTES:  # escapes only add to it
            return None
        # Header values are single-line latin-1: everything else is escaped.
        text = "".join(map(_escape, data.decode()))
        return text if len(text) <= XRAY_CAUSE_LIMIT_BYTES else None


class Chunks(Protocol):
    """The pieces of a streamed answer, as they are received.

    Iteration ends with the answer; ``failure`` then shows whether it was complete.
    """

    @property
    def failure(self) -> Failure | None:
        """Why the answer was cut off; None while it lasts, and if it was complete."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate once."""


class Streaming(NamedTuple):
    """The handler's result in pieces, of which the first has been received.

    Attributes:
        content_type: Media type of the whole.
        chunks: The pieces.
        limit_s: Time until the answer is given up, in seconds from now.
    """

    content_type: str
    chunks: Chunks
    limit_s: float


Outcome = Success | Failure | Streaming


# Last line of the stack in an error body that was cut.
CUT = "\u2026 (cut; the whole error is in the log)"

T = TypeVar("T", str, list[str])


def _body(error_type: str, message: str, stack: list[str]) -> bytes:
    return dumps(
        {"errorType": error_type, "errorMessage": message, "stackTrace": stack}
    )


def _most(whole: T, write: Callable[[T, int], bytes], limit_bytes: int) -> bytes:
    """Write the longest beginning of a text or list that fits.

    Args:
        whole: The text or list.
        write: Writes a beginning; its second argument is how much is left out.
        limit_bytes: Most bytes, enough for an empty beginning.
    """
    # Each character, and each line, takes at least one byte.
    low, high = 0, min(len(whole), limit_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        if len(write(whole[:middle], len(whole) - middle)) <= limit_bytes:
            low = middle
        else:
            high = middle - 1
    return write(whole[:low], len(whole) - low)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _escape(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
