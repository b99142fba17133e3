"""AWS Lambda's Runtime API, served to a runtime on this machine.

Knows the calls, their headers, which order of calls is legal and how the platform
answers the others, for one execution environment: one that handles one invocation at a
time, or a Lambda Managed Instance, where each ``next`` that waits gets an event.
Refuses to know processes and timers: its owner starts the runtime, and says when a
deadline has passed or the runtime has exited. It shares no code with the runtime's own
client and spells every header itself, so that each is a check of the other.

Specification: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom
runtimes", "Lambda execution environment lifecycle" and "Understanding the Lambda
Managed Instances execution environment"; where they are silent, AWS's Runtime
Interface Emulator. Known gaps: no Extensions and Telemetry APIs, no SnapStart,
and streams are not slowed down after their first 6 MB.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import signal
import socket
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Self

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from uvicorn.server import ServerState

# 6 MiB and 100 bytes of envelope: what AWS's emulator enforces and names in its answer.
RESPONSE_LIMIT_BYTES = 6_291_556
STREAM_LIMIT_BYTES = 200 * 1024 * 1024  # AWS "Lambda quotas", streamed response
# A runtime keeps its connection through an invocation of up to 15 minutes and a freeze
# of any length; the platform never closes it.
KEEP_ALIVE_S = 24 * 3600
# Runtimes may send an X-Ray cause of up to 1 MiB in one header.
HEADERS_LIMIT_BYTES = 2 * 1024 * 1024
CLOSE_LIMIT_S = 1.0  # for handlers to see that the server closes; loopback takes 1 ms

# As Go words them, in which the platform is written.
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

DEFAULT_FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:function"


class RefusedCallError(LambdaDenoSpawnError):
    """A Runtime API call was answered with an error status.

    Attributes:
        status: HTTP status of the answer.
        error_type: As in the answer's ``errorType``.
    """

    def __init__(self, status: int, error_type: str, message: str) -> None:
        self.status = status
        self.error_type = error_type
        super().__init__(message)


class Phase(StrEnum):
    """How far an invocation has come."""

    QUEUED = "queued"
    IN_FLIGHT = "in flight"
    RESPONDING = "responding"  # the response has begun to arrive
    ANSWERED = "answered"  # the caller has its answer; billed until it is ended
    ENDED = "ended"


class End(StrEnum):
    """What ended an invocation."""

    NEXT = "next"  # the orderly way: the runtime asked for the next event
    ANSWER = "answer"  # the same on Managed Instances: others go on beside it
    TIMEOUT = "timeout"
    EXIT = "exit"
    INIT_ERROR = "init error"


class OutcomeKind(StrEnum):
    """What the caller of an invocation got."""

    RESPONSE = "response"
    ERROR = "error"
    TIMEOUT = "timeout"
    EXIT = "exit"
    INIT_ERROR = "init error"


@dataclass(frozen=True, slots=True)
class EmulatedOutcome:
    """What the caller of an invocation got.

    Attributes:
        kind: Where it came from.
        body: Bytes of the response, or the JSON error body.
        content_type: As the runtime sent it; empty if it sent none. Of the response, if
            that was streamed.
        error_type: ``Lambda-Runtime-Function-Error-Type`` as the runtime sent it, or
            the platform's own type; None for a response or without that header.
        is_streamed: The runtime asked for response streaming.
        partial: What had come of a streamed response that ended with an error.
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
        deliveries: How many times the event was handed out; one, if all goes well.
        deadline_epoch_ms: Delivery plus timeout; Unix time, milliseconds.
        delivered_s: When the event was first handed out.
        answered_s: When the outcome was known.
        ended_s: When the environment was done with it; billing runs until here.
        is_streamed: The runtime asked for response streaming.
        content_type: Of the response that has begun.
        received: What has come of a response that is not complete.
        is_oversized: More came than the limit allows, and was dropped.
    """

    request_id: str
    event: bytes
    timeout_s: float
    trace_id: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None
    invocation_id: str | None = None
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
    """The execution environment as the Runtime API sees it: no I/O, no waiting.

    Not for use by several threads.

    Attributes:
        init_finished_s: When the first ``next`` arrived, monotonic; None before.
        init_error: What was posted to init error, None if nothing was.

    Args:
        on_change: Called after every change.
        clock: Monotonic seconds.
        epoch_clock: Seconds of Unix time.
        is_managed_instance: Any number of invocations may be in flight.
    """

    def __init__(
        self,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        epoch_clock: Callable[[], float] = time.time,
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
    ) -> EmulatedInvocation:
        """Add an invocation behind those that wait; its deadline starts at delivery."""
        invocation = EmulatedInvocation(
            request_id=str(uuid.uuid4()),
            event=event,
            timeout_s=timeout_s,
            trace_id=trace_id,
            client_context=client_context,
            cognito_identity=cognito_identity,
            tenant_id=tenant_id,
            invocation_id=invocation_id,
        )
        self._queue.append(invocation)
        self._on_change()
        return invocation

    def poll(self) -> None:
        """Note that ``next`` was called: init, and an answered invocation, are over.

        Raises:
            RefusedCallError: After an init error, or in the middle of a response.
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
        """Tell whether ``deliver`` has something to hand out."""
        if self._current is None:
            return bool(self._queue)
        return self._current.phase is Phase.IN_FLIGHT

    def deliver(self) -> EmulatedInvocation:
        """Hand out the unanswered invocation once more, else the first that waits."""
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
        """Check a response before its body is read.

        Raises:
            RefusedCallError: Not the invocation in flight, or an unknown mode; the
                latter fails the invocation, as on the platform.
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
        """Take the next bytes of a response; return whether they are for the caller.

        They are not when the invocation is over, nor from the limit on.
        """
        if invocation.phase is not Phase.RESPONDING or invocation.is_oversized:
            return False
        size_bytes = len(invocation.received) + len(chunk)
        if size_bytes > _limit_bytes(invocation):
            invocation.is_oversized = True
            return False
        invocation.received += chunk
        self._on_change()
        return True

    def complete_response(
        self, invocation: EmulatedInvocation, trailers: Mapping[str, str] | None = None
    ) -> None:
        """Give the caller the response, or the error that its trailers tell.

        Args:
            invocation: The one that is responding.
            trailers: Fields after the body, names in lower case; they count in
                streamed responses only.

        Raises:
            RefusedCallError: The invocation was ended while the body arrived, or the
                body is over the limit: the caller has got an error instead.
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
        """Fail an invocation whose response broke off."""
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
            RefusedCallError: Not the invocation in flight, or its response has begun.
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
        """Take an init error; the caller that waits for this init gets it.

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
        """Note that the deadline passed; a caller without an answer gets the error.

        The environment is to be ended and ``reset`` afterwards, unless it is a Managed
        Instance: there everything goes on.
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
        """Note that the runtime exited by itself; its invocations are over.

        Args:
            returncode: Exit code; negative: ended by that signal.
        """
        hit = list(self._delivered.values())
        if not hit and self.init_finished_s is None and not self.init_error:
            hit = [self._queue[0]] if self._queue else []
        for invocation in hit:
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
        """Expect a new runtime; invocations that were not delivered keep waiting."""
        self.init_finished_s = None
        self.init_error = None
        self._on_change()

    @property
    def _current(self) -> EmulatedInvocation | None:
        """The invocation that keeps the environment from others."""
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
            # Whatever ended the stream, the caller has what came of it.
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
        is_runtimes = outcome.kind in (OutcomeKind.RESPONSE, OutcomeKind.ERROR)
        if self._is_managed_instance and is_runtimes:
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


class _Connection(h11.Connection):
    """An h11 connection that tells the trailers of each request."""

    def __init__(
        self, on_end: Callable[[dict[str, str]], None], max_event_bytes: int
    ) -> None:
        super().__init__(h11.SERVER, max_event_bytes)
        self._on_end = on_end

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what h11 parsed; at the end of a request tell its trailers first."""
        event = super().next_event()
        if isinstance(event, h11.EndOfMessage):
            fields = reversed(list(event.headers))  # the first of a name counts
            self._on_end({k.decode("latin-1"): v.decode("latin-1") for k, v in fields})
        return event


class _Protocol(H11Protocol):
    """uvicorn's protocol without two losses: trailers, and the bytes before a cut.

    Adds to a request's state: ``trailers``, once its body is complete, and ``unread``,
    once its connection is lost: what came and was not asked for before.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Connection(self._keep_trailers, HEADERS_LIMIT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep what uvicorn would drop with the connection."""
        if self.cycle is not None:
            self.scope["state"]["unread"] = bytes(self.cycle.body)
        super().connection_lost(exc)

    def _keep_trailers(self, trailers: dict[str, str]) -> None:
        self.scope["state"]["trailers"] = trailers


class Emulator:
    """The Runtime API on a loopback port of its own, while the context is entered.

    Belongs to one event loop. Closing it ends connections, not the runtime.

    Attributes:
        state: Every change goes through it; waiting callers are told.
        address: ``host:port`` for ``AWS_LAMBDA_RUNTIME_API``, once entered.

    Args:
        function_arn: ARN told to the runtime.
        on_delivery: Called before an event is sent for the first time.
        on_chunk: Called with each piece of a streamed response as it arrives; no more
            is read before it returns. Must not raise.
        on_answer: Called when a response or an error has arrived, before the runtime is
            told that it did.
        is_managed_instance: Any number of invocations may be in flight.
    """

    def __init__(
        self,
        function_arn: str = DEFAULT_FUNCTION_ARN,
        *,
        on_delivery: Callable[[EmulatedInvocation], None] = lambda _: None,
        on_chunk: Callable[[EmulatedInvocation, bytes], Awaitable[None]] | None = None,
        on_answer: Callable[[], None] = lambda: None,
        is_managed_instance: bool = False,
    ) -> None:
        self.state = RuntimeApiState(self.wake, is_managed_instance=is_managed_instance)
        self.address = ""
        self._function_arn = function_arn
        self._on_delivery = on_delivery
        self._on_chunk = on_chunk
        self._on_answer = on_answer
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_closing = False
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    async def __aenter__(self) -> Self:
        # asyncio turns Nagle's algorithm off only where the protocol is spelled out; by
        # it each answer in two writes would take 40 ms more.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()
        self.address = f"{host}:{port}"
        # Neither uvicorn's signal handlers nor its ten ticks a second are wanted here,
        # so its own serve() stays unused.
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[listener])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._server.servers:
            server.close()
        self._is_closing = True
        self.wake()
        tasks = set(self._server.server_state.tasks)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSE_LIMIT_S)
        finally:
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
        await asyncio.sleep(0)  # let the transports tell that they are closed

    async def wait_until(
        self, is_true: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait for a condition on the state; return whether it holds.

        Args:
            is_true: Asked again after every change, and by ``wake``.
            timeout_s: How long to wait; None: as long as it takes.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not is_true():
                    await self._change()
        except TimeoutError:
            return is_true()
        return True

    async def catch_up(self) -> None:
        """Return once every call that was made before is seen in the state.

        For the owner of a runtime that has exited: its last call may be under way.
        """
        # Connections are accepted in order, so a call of our own comes after them.
        host, port = self.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readline()
        finally:
            writer.close()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        """Make those that wait look again, after a change outside of the state."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _app(self) -> Starlette:
        runtime = "/2018-06-01/runtime"
        invocation = f"{runtime}/invocation/{{request_id}}"
        extension = "/2020-01-01/extension"
        return Starlette(
            routes=[
                Route("/2018-06-01/ping", self._ping, methods=["GET"]),
                Route(f"{runtime}/invocation/next", self._next, methods=["GET"]),
                Route(f"{invocation}/response", self._response, methods=["POST"]),
                Route(f"{invocation}/error", self._error, methods=["POST"]),
                Route(f"{runtime}/init/error", self._init_error, methods=["POST"]),
                Route(f"{extension}/register", self._register, methods=["POST"]),
                Route(f"{extension}/event/next", self._no_event, methods=["GET"]),
            ],
            exception_handlers={RefusedCallError: _refusal},
        )

    async def _ping(self, _: Request) -> Response:
        return PlainTextResponse("pong")

    async def _next(self, request: Request) -> Response:
        self.state.poll()
        # A caller that has gone must not take the event with it.
        gone = asyncio.ensure_future(_disconnection(request))
        gone.add_done_callback(lambda _: self.wake())
        try:
            # No limit: the platform holds this call until there is an event.
            await self.wait_until(
                lambda: self._is_closing or gone.done() or self.state.has_event()
            )
        finally:
            is_gone = gone.done()
            gone.cancel()
        if self._is_closing or is_gone:
            raise RefusedCallError(
                500, "InternalServerError", "The emulator is closing"
            )
        invocation = self.state.deliver()
        if invocation.deliveries == 1:
            self._on_delivery(invocation)
        return self._event_response(invocation)

    async def _register(self, request: Request) -> Response:
        """Take an extension inside of the runtime; it is told nothing."""
        if not request.headers.get("lambda-extension-name"):
            raise RefusedCallError(
                403, "Extension.InvalidExtensionName", "Empty extension name"
            )
        return Response(
            b"{}",
            media_type="application/json",
            headers={"Lambda-Extension-Identifier": str(uuid.uuid4())},
        )

    async def _no_event(self, request: Request) -> Response:
        gone = asyncio.ensure_future(_disconnection(request))
        gone.add_done_callback(lambda _: self.wake())
        try:
            await self.wait_until(lambda: self._is_closing or gone.done())
        finally:
            gone.cancel()
        raise RefusedCallError(500, "InternalServerError", "The emulator is closing")

    def _event_response(self, invocation: EmulatedInvocation) -> Response:
        fields = {
            "Content-Type": "application/json",
            "Content-Length": str(len(invocation.event)),
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_epoch_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._function_arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
            "Lambda-Runtime-Client-Context": invocation.client_context,
            "Lambda-Runtime-Cognito-Identity": invocation.cognito_identity,
            "Lambda-Runtime-Aws-Tenant-Id": invocation.tenant_id,
            "Lambda-Runtime-Invocation-Id": invocation.invocation_id,
        }
        response = Response(invocation.event)
        response.raw_headers = [
            (name.encode(), _header_value(value))
            for name, value in fields.items()
            if value is not None
        ]
        return response

    async def _response(self, request: Request) -> Response:
        try:
            invocation = self.state.begin_response(
                request.path_params["request_id"],
                request.headers.get("lambda-runtime-invocation-id"),
                request.headers.get("lambda-runtime-function-response-mode"),
                request.headers.get("content-type", ""),
            )
        except RefusedCallError:
            # Unread bytes would spoil the connection for the calls to come.
            with contextlib.suppress(ClientDisconnect):
                async for _ in request.stream():
                    pass
            raise
        try:
            async for chunk in _chunks(request):
                is_wanted = self.state.receive(invocation, chunk)
                if is_wanted and invocation.is_streamed and self._on_chunk is not None:
                    await self._on_chunk(invocation, chunk)
        except ClientDisconnect:
            self.state.truncate(invocation)
            raise RefusedCallError(
                400, "TruncatedHTTPRequest", "The request was truncated"
            ) from None
        self._on_answer()
        self.state.complete_response(invocation, request.state.trailers)
        return _accepted()

    async def _error(self, request: Request) -> Response:
        body = await request.body()
        self._on_answer()
        self.state.fail(
            request.path_params["request_id"],
            request.headers.get("lambda-runtime-invocation-id"),
            body,
            content_type=request.headers.get("content-type", ""),
            error_type=request.headers.get("lambda-runtime-function-error-type"),
        )
        return _accepted()

    async def _init_error(self, request: Request) -> Response:
        body = await request.body()
        self.state.fail_init(
            body,
            content_type=request.headers.get("content-type", ""),
            error_type=request.headers.get("lambda-runtime-function-error-type"),
        )
        return _accepted()


def exit_text(returncode: int) -> str:
    """Return how the platform describes the end of a runtime process."""
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
    """Decode base64; what is none counts as empty, as in AWS's emulator."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _json(value: dict[str, str]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _header_value(text: str) -> bytes:
    """Write a header value as Go does: UTF-8, line breaks as spaces."""
    return text.replace("\r", " ").replace("\n", " ").encode()


def _accepted() -> Response:
    return JSONResponse({"status": "OK"}, status_code=202)


async def _refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedCallError):
        raise error
    return JSONResponse(
        {"errorMessage": str(error), "errorType": error.error_type},
        status_code=error.status,
    )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it arrives, to the last byte before a connection is cut.

    Raises:
        ClientDisconnect: It was cut in the middle of the body.
    """
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        if request.state.unread:
            yield request.state.unread
        if not hasattr(request.state, "trailers"):
            raise


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
