"""An execution environment as the Runtime API sees it: state only, no I/O.

Knows invocations and their phases, which order of calls is legal, how the platform
refuses other calls, and what the caller of an invocation receives. Does not know HTTP,
processes and clocks: its owner passes on the calls, says when a deadline has passed or
the runtime has exited, and supplies the time.

Specification: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom
runtimes", "Lambda execution environment lifecycle" and "Understanding the Lambda
Managed Instances execution environment"; where they are silent, AWS's Runtime
Interface Emulator.
"""

from __future__ import annotations

import base64
import binascii
import json
import signal
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# 6 MiB and 100 bytes of envelope: AWS's emulator enforces it and says so.
RESPONSE_LIMIT_BYTES = 6_291_556
STREAM_LIMIT_BYTES = 200 * 1024 * 1024  # AWS "Lambda quotas", streamed response

# Signal names as Go prints them; the platform is written in Go.
SIGNAL_NAMES: dict[int, str] = {
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGHUP: "hangup",
    signal.SIGILL: "illegal instruction",
    signal.SIGINT: "interrupt",
    signal.SIGKILL: "killed",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGTERM: "terminated",
    signal.SIGTRAP: "trace/breakpoint trap",
}


class RefusedCallError(LambdaDenoSpawnError):
    """A Runtime API call was answered with an error status.

    Attributes:
        status: HTTP status of the response.
        error_type: ``errorType`` in its body.
    """

    def __init__(self, status: int, error_type: str, message: str) -> None:
        self.status = status
        self.error_type = error_type
        super().__init__(message)


class Phase(StrEnum):
    """How far an invocation has come."""

    QUEUED = "queued"
    IN_FLIGHT = "in flight"
    RESPONDING = "responding"  # a part of the response was received
    ANSWERED = "answered"  # the caller has its outcome; billed until the end
    ENDED = "ended"


class End(StrEnum):
    """The end of an invocation, by its cause."""

    NEXT = "next"  # the orderly way: the runtime asked for the next event
    ANSWER = "answer"  # the same on Managed Instances, where others continue
    TIMEOUT = "timeout"
    EXIT = "exit"
    INIT_ERROR = "init error"


class OutcomeKind(StrEnum):
    """The response that the caller of an invocation received."""

    RESPONSE = "response"
    ERROR = "error"
    TIMEOUT = "timeout"
    EXIT = "exit"
    INIT_ERROR = "init error"


@dataclass(frozen=True, slots=True)
class EmulatedOutcome:
    """The response that the caller of an invocation received.

    Attributes:
        kind: The source of it.
        body: Bytes of the response, or the JSON error body.
        content_type: As the runtime sent it; empty if it sent none. If a stream ended
            with an error, the content type of the stream.
        error_type: ``Lambda-Runtime-Function-Error-Type`` as the runtime sent it, or
            the platform's own type; None for a response or without that header.
        is_streamed: True if the runtime asked for response streaming.
        partial: The part of a streamed response that was received before an error.
    """

    kind: OutcomeKind
    body: bytes
    content_type: str = "application/json"
    error_type: str | None = None
    is_streamed: bool = False
    partial: bytes = b""


@dataclass(slots=True, eq=False)
class EmulatedInvocation:
    """One invocation and its record; times are seconds of the monotonic clock.

    Attributes:
        function_arn: ARN told to the runtime; None: that of the emulator.
        deliveries: How many times the event was delivered; one, if all goes well.
        deadline_epoch_ms: Delivery plus timeout; Unix time, milliseconds.
        delivered_s: When the event was delivered first.
        answered_s: When the outcome was known.
        ended_s: When the environment was done with it; billing runs until here.
        is_streamed: True if the runtime asked for response streaming.
        content_type: Content type of the response.
        received: The part of an incomplete response that was received.
        is_oversized: True if the response exceeds the limit; the excess was dropped.
    """

    request_id: str
    event: bytes
    timeout_s: float
    trace_id: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None
    invocation_id: str | None = None
    function_arn: str | None = None
    phase: Phase = Phase.QUEUED
    deliveries: int = 0
    deadline_epoch_ms: int | None = None
    delivered_s: float | None = None
    answered_s: float | None = None
    ended_s: float | None = None
    is_streamed: bool = False
    content_type: str = ""
    received: bytearray = field(default_factory=bytearray)
    is_oversized: bool = False
    outcome: EmulatedOutcome | None = None
    end: End | None = None


class RuntimeApiState:
    """One execution environment; its methods are synchronous and do no I/O.

    Not for use by several threads.

    Attributes:
        init_finished_s: When ``next`` was called first, monotonic; None before.
        init_error: What was posted to init error, None if nothing was.

    Args:
        clock: Returns seconds of the monotonic clock.
        epoch_clock: Returns seconds of Unix time.
        on_change: Called after every change, but for parts of a response.
        is_managed_instance: Any number of invocations may be in flight.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        epoch_clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        *,
        is_managed_instance: bool = False,
    ) -> None:
        self.init_finished_s: float | None = None
        self.init_error: EmulatedOutcome | None = None
        self._on_change = on_change
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._queue: deque[EmulatedInvocation] = deque()
        self._is_managed_instance = is_managed_instance
        # By request id; more than one only on a Managed Instance.
        self._delivered: dict[str, EmulatedInvocation] = {}
        self._timed_out_ids: set[str] = set()

    def queue(
        self,
        event: bytes,
        *,
        timeout_s: float,
        trace_id: str | None = None,
        client_context: str | None = None,
        cognito_identity: str | None = None,
        tenant_id: str | None = None,
        invocation_id: str | None = None,
        request_id: str | None = None,
        function_arn: str | None = None,
    ) -> EmulatedInvocation:
        """Add an invocation to the queue; its time starts at delivery."""
        invocation = EmulatedInvocation(
            request_id=request_id or str(uuid.uuid4()),
            event=event,
            timeout_s=timeout_s,
            trace_id=trace_id,
            client_context=client_context,
            cognito_identity=cognito_identity,
            tenant_id=tenant_id,
            invocation_id=invocation_id,
            function_arn=function_arn,
        )
        self._queue.append(invocation)
        self._on_change()
        return invocation

    def poll(self) -> None:
        """Note that ``next`` was called: init, or an answered invocation, is over.

        Raises:
            RefusedCallError: There was an init error, or a response is incomplete.
        """
        if self.init_error is not None:
            raise _illegal("InitError", "Ready")
        current = self._current
        if current is not None and current.phase is Phase.RESPONDING:
            raise _illegal("InvocationResponse", "Ready")
        if self.init_finished_s is None:
            self.init_finished_s = self._clock()
        if current is not None and current.phase is Phase.ANSWERED:
            self._end(current, End.NEXT)
        self._on_change()

    def has_event(self) -> bool:
        """Tell whether there is an event to deliver."""
        if self._current is None:
            return bool(self._queue)
        return self._current.phase is Phase.IN_FLIGHT

    def deliver(self) -> EmulatedInvocation:
        """Deliver the unanswered invocation once more, else the first in the queue."""
        current = self._current
        if current is None:
            current = self._queue.popleft()
            self._delivered[current.request_id] = current
            current.phase = Phase.IN_FLIGHT
            current.delivered_s = self._clock()
            deadline_epoch_s = self._epoch_clock() + current.timeout_s
            current.deadline_epoch_ms = round(deadline_epoch_s * 1000)
        current.deliveries += 1
        self._on_change()
        return current

    def begin_response(
        self,
        request_id: str,
        invocation_id: str | None,
        response_mode: str | None,
        content_type: str = "",
    ) -> EmulatedInvocation:
        """Accept a response before its body is received.

        Raises:
            RefusedCallError: The invocation is not in flight, or the mode is unknown;
                the latter fails the invocation, as on the platform.
        """
        invocation = self._in_flight(request_id, invocation_id, "InvocationResponse")
        if response_mode not in (None, "streaming"):
            message = "Invalid function response mode"
            self._fail(invocation, "Runtime.InvalidResponseModeHeader", message)
            raise RefusedCallError(400, "InvalidFunctionResponseMode", message)
        invocation.phase = Phase.RESPONDING
        invocation.is_streamed = response_mode is not None
        invocation.content_type = content_type
        self._on_change()
        return invocation

    def receive(self, invocation: EmulatedInvocation, chunk: bytes) -> bool:
        """Receive the next bytes of a response; return whether the caller gets them.

        It does not after the end of the invocation, nor beyond the limit.
        """
        if invocation.phase is not Phase.RESPONDING or invocation.is_oversized:
            return False
        size_bytes = len(invocation.received) + len(chunk)
        if size_bytes > _limit_bytes(invocation):
            invocation.is_oversized = True
            return False
        invocation.received += chunk
        return True

    def complete_response(
        self, invocation: EmulatedInvocation, trailers: Mapping[str, str] | None = None
    ) -> None:
        """Give the caller the response, or the error in its trailers.

        Args:
            invocation: The invocation that is responding.
            trailers: Fields after the body, names in lower case; they count in
                streamed responses only.

        Raises:
            RefusedCallError: The invocation was ended before the whole body was
                received, or the body exceeds the limit: the caller got an error.
        """
        if invocation.phase is not Phase.RESPONDING:
            raise RefusedCallError(410, "InvokeTimeout", "Invocation timed out")
        if invocation.is_oversized:
            self._refuse_oversized(invocation)
        fields = (trailers or {}) if invocation.is_streamed else {}
        error_type = fields.get("lambda-runtime-function-error-type")
        if error_type:
            encoded = fields.get("lambda-runtime-function-error-body", "")
            body = _decode(encoded) or _json({"errorType": error_type})
            outcome = EmulatedOutcome(
                OutcomeKind.ERROR, body, invocation.content_type, error_type
            )
        else:
            outcome = EmulatedOutcome(
                OutcomeKind.RESPONSE,
                bytes(invocation.received),
                invocation.content_type,
                is_streamed=invocation.is_streamed,
            )
        self._answer(invocation, outcome)

    def _refuse_oversized(self, invocation: EmulatedInvocation) -> NoReturn:
        limit_bytes = _limit_bytes(invocation)
        limit = f"exceeded maximum allowed payload size ({limit_bytes} bytes)."
        self._fail(
            invocation,
            "Function.ResponseSizeTooLarge",
            f"Response payload size {limit}",
        )
        raise RefusedCallError(
            413, "RequestEntityTooLarge", limit[:1].upper() + limit[1:]
        )

    def truncate(self, invocation: EmulatedInvocation) -> None:
        """Fail an invocation whose response stays incomplete."""
        if invocation.phase is Phase.RESPONDING:
            self._fail(
                invocation, "Runtime.TruncatedResponse", "Response was truncated"
            )

    def fail(
        self,
        request_id: str,
        invocation_id: str | None,
        body: bytes,
        *,
        content_type: str,
        error_type: str | None,
    ) -> None:
        """Give the caller a function error, byte for byte.

        Raises:
            RefusedCallError: The invocation is not in flight, or has begun to respond.
        """
        invocation = self._in_flight(
            request_id, invocation_id, "InvocationErrorResponse"
        )
        self._answer(
            invocation,
            EmulatedOutcome(OutcomeKind.ERROR, body, content_type, error_type),
        )

    def fail_init(
        self, body: bytes, *, content_type: str, error_type: str | None
    ) -> None:
        """Note an init error; the first caller in the queue gets it.

        Raises:
            RefusedCallError: Init is over.
        """
        if self.init_error is not None or self.init_finished_s is not None:
            raise _illegal(
                "Ready" if self.init_error is None else "InitError", "InitError"
            )
        outcome = EmulatedOutcome(
            OutcomeKind.INIT_ERROR, body, content_type, error_type
        )
        self.init_error = outcome
        if self._queue:
            self._answer(self._queue[0], outcome)
            self._end(self._queue[0], End.INIT_ERROR)
        self._on_change()

    def time_out(self, invocation: EmulatedInvocation) -> None:
        """Note that the deadline has passed; a caller without an outcome gets an error.

        The owner must end the runtime and call ``reset`` afterwards, except on a
        Managed Instance, which continues.
        """
        if invocation.end is not None:
            return
        if invocation.outcome is None:
            self._timed_out_ids.add(invocation.request_id)
            text = f"Task timed out after {invocation.timeout_s:.2f} seconds"
            self._answer(
                invocation,
                _platform_outcome(
                    OutcomeKind.TIMEOUT, "Sandbox.Timedout", invocation, text
                ),
            )
        self._end(invocation, End.TIMEOUT)
        self._on_change()

    def record_exit(self, returncode: int) -> None:
        """Note that the runtime exited by itself, which ends its invocations.

        Args:
            returncode: Exit code; negative: the signal that ended it.
        """
        affected = list(self._delivered.values())
        if not affected and self.init_finished_s is None and not self.init_error:
            affected = [self._queue[0]] if self._queue else []
        for invocation in affected:
            if invocation.outcome is None:
                text = exit_text(returncode)
                self._answer(
                    invocation,
                    _platform_outcome(
                        OutcomeKind.EXIT, "Runtime.ExitError", invocation, text
                    ),
                )
            self._end(invocation, End.EXIT)
        self.reset()

    def reset(self) -> None:
        """Expect a new runtime; invocations that were not delivered stay queued."""
        self.init_finished_s = None
        self.init_error = None
        self._on_change()

    @property
    def _current(self) -> EmulatedInvocation | None:
        """The invocation that must end before another is delivered."""
        if self._is_managed_instance:
            return None
        return next(iter(self._delivered.values()), None)

    def _in_flight(
        self, request_id: str, invocation_id: str | None, target: str
    ) -> EmulatedInvocation:
        current = self._delivered.get(request_id)
        if current is None:
            if request_id in self._timed_out_ids:
                raise RefusedCallError(410, "InvokeTimeout", "Invocation timed out")
            raise RefusedCallError(400, "InvalidRequestID", "Invalid request ID")
        if None not in (invocation_id, current.invocation_id) and (
            invocation_id != current.invocation_id
        ):
            raise RefusedCallError(
                410,
                "InvocationIdMismatch",
                f"Invocation ID mismatch: {invocation_id!r} is not in flight",
            )
        if current.phase is not Phase.IN_FLIGHT:
            raise _illegal("InvocationResponse", target)
        return current

    def _fail(
        self, invocation: EmulatedInvocation, error_type: str, message: str
    ) -> None:
        body = _json({"errorMessage": message, "errorType": error_type})
        self._answer(
            invocation,
            EmulatedOutcome(OutcomeKind.ERROR, body, error_type=error_type),
        )

    def _answer(self, invocation: EmulatedInvocation, outcome: EmulatedOutcome) -> None:
        if invocation.is_streamed and outcome.kind is not OutcomeKind.RESPONSE:
            # The caller keeps what it has received, whatever ended the stream.
            outcome = replace(
                outcome,
                content_type=invocation.content_type,
                is_streamed=True,
                partial=bytes(invocation.received),
            )
        invocation.received.clear()
        invocation.outcome = outcome
        invocation.answered_s = self._clock()
        invocation.phase = Phase.ANSWERED
        is_from_runtime = outcome.kind in (OutcomeKind.RESPONSE, OutcomeKind.ERROR)
        if self._is_managed_instance and is_from_runtime:
            self._end(invocation, End.ANSWER)
        self._on_change()

    def _end(self, invocation: EmulatedInvocation, end: End) -> None:
        invocation.phase = Phase.ENDED
        invocation.end = end
        invocation.ended_s = self._clock()
        if self._delivered.pop(invocation.request_id, None) is None and (
            invocation in self._queue
        ):
            self._queue.remove(invocation)


def exit_text(returncode: int) -> str:
    """Describe the end of a runtime process in the platform's words."""
    if returncode == 0:
        return "Runtime exited without providing a reason"
    if returncode > 0:
        return f"Runtime exited with error: exit status {returncode}"
    name = SIGNAL_NAMES.get(-returncode, f"signal {-returncode}")
    return f"Runtime exited with error: signal: {name}"


def _platform_outcome(
    kind: OutcomeKind, error_type: str, invocation: EmulatedInvocation, text: str
) -> EmulatedOutcome:
    message = f"RequestId: {invocation.request_id} Error: {text}"
    body = _json({"errorType": error_type, "errorMessage": message})
    return EmulatedOutcome(kind, body, error_type=error_type)


def _illegal(state: str, target: str) -> RefusedCallError:
    return RefusedCallError(
        403,
        "InvalidStateTransition",
        f"Transition from {state} to {target} is not allowed.",
    )


def _limit_bytes(invocation: EmulatedInvocation) -> int:
    return STREAM_LIMIT_BYTES if invocation.is_streamed else RESPONSE_LIMIT_BYTES


def _decode(encoded: str) -> bytes:
    """Decode base64; if it is invalid return nothing, as AWS's emulator does."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _json(value: dict[str, str]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
