"""AWS Lambda's Runtime API, served over HTTP to a runtime on this machine.

Knows the calls, their headers, and how they wait, stream and break off. What a call
does to the execution environment is in ``environment``, how HTTP is served in
``http_server``. Does not know processes and timers: its owner starts the runtime, and
tells the state when a deadline has passed or the runtime has exited. It shares no code
with the runtime's own client and spells every header itself: each checks the other.

Specification: as for ``environment``. Known gaps: the Extensions API only as far as the
runtime uses it, no Telemetry API, no SnapStart, and streams are not slowed down after
their first 6 MB.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Self

from lambda_deno_spawn.dev.local.environment import RefusedCallError, RuntimeApiState
from lambda_deno_spawn.dev.local.http_server import (
    JSON,
    HttpServer,
    MalformedRequestError,
    Request,
    Response,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from lambda_deno_spawn.dev.local.environment import EmulatedInvocation

# The arguments of the error that calls get which wait when the emulator closes.
CLOSING = (500, "InternalServerError", "The emulator is closing")
LINE_BREAK = re.compile("[\r\n]")
DEFAULT_FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:function"


class Emulator:
    """The Runtime API on a loopback port of its own, while the context is entered.

    Belongs to one event loop. Closing it ends connections, not the runtime.

    Attributes:
        state: The execution environment; a change of it wakes ``wait_until``.
        address: ``host:port`` for ``AWS_LAMBDA_RUNTIME_API``, once entered.

    Args:
        function_arn: ARN told to the runtime.
        on_delivery: Called before an event is sent for the first time.
        on_chunk: Called with each piece of a streamed response; no more is read before
            it returns. Must not raise.
        on_answer: Called when a response or an error has been received, before the
            runtime is told so.
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
        self.state = RuntimeApiState(
            time.monotonic,
            time.time,
            self.wake,
            is_managed_instance=is_managed_instance,
        )
        self.address = ""
        self._function_arn = function_arn
        self._on_delivery = on_delivery
        self._on_chunk = on_chunk
        self._on_answer = on_answer
        # Each with what it waits for: most changes concern one of them.
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._is_waking = False
        self._is_closing = False
        self._server = HttpServer(self._respond, on_hang_up=self.wake)
        runtime, extension = "/2018-06-01/runtime", "/2020-01-01/extension"
        invocation = f"{runtime}/invocation/(?P<request_id>[^/]+)"
        table: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
            ("GET", f"{runtime}/invocation/next", self._next),
            ("POST", f"{invocation}/response", self._response),
            ("POST", f"{invocation}/error", self._error),
            ("POST", f"{runtime}/init/error", self._init_error),
            ("POST", f"{extension}/register", self._register),
            ("GET", f"{extension}/event/next", self._extension_next),
            ("GET", "/2018-06-01/ping", self._ping),
        ]
        self._routes = [(method, re.compile(path), c) for method, path, c in table]

    async def __aenter__(self) -> Self:
        self.address = await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closing = True
        self.wake()
        await self._server.aclose()

    async def wait_until(
        self, is_true: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait for a condition on the state; return whether it holds.

        Args:
            is_true: Called again after every change, and by ``wake``.
            timeout_s: How long to wait; None: without a limit.
        """
        loop = asyncio.get_running_loop()
        end_s = None if timeout_s is None else loop.time() + timeout_s
        while not is_true():
            if end_s is not None and loop.time() >= end_s:
                return False
            await self._change(is_true, end_s)
        return True

    async def catch_up(self) -> None:
        """Return once the state has seen every call that was made before.

        For the owner of a runtime that has exited: its last call may be on its way.
        """
        # Connections are accepted in order, so a call of our own comes after them.
        host, port = self.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readline()
        finally:
            writer.close()

    def wake(self) -> None:
        """Make ``wait_until`` ask again, after a change outside of the state."""
        self._wake_those()
        # Again when the change that is being made is complete.
        if self._waiters and not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake_again)

    def _wake_again(self) -> None:
        self._is_waking = False
        self._wake_those()

    def _wake_those(self) -> None:
        """Wake those that wait for what holds now."""
        for waiter, is_true in self._waiters.items():
            if is_true():
                _end_wait(waiter)

    async def _change(self, is_true: Callable[[], bool], end_s: float | None) -> None:
        """Wait for a change after which a condition holds, or until a time."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = None if end_s is None else loop.call_at(end_s, _end_wait, waiter)
        self._waiters[waiter] = is_true
        try:
            await waiter
        finally:
            del self._waiters[waiter]
            if timer is not None:
                timer.cancel()

    async def _respond(self, request: Request) -> Response:
        allowed = []
        for method, path, respond in self._routes:
            match = path.fullmatch(request.path)
            if match is not None and method == request.method:
                try:
                    return await respond(request, **match.groupdict())
                except RefusedCallError as error:
                    return _refusal(error)
            if match is not None:
                allowed.append(method)
        if allowed:
            fields = [("Allow", ", ".join(allowed))]
            return Response(405, b"Method Not Allowed", fields=fields)
        return Response(404, b"Not Found")

    # The calls.

    async def _ping(self, _: Request) -> Response:
        return Response(200, b"pong")

    async def _next(self, request: Request) -> Response:
        await request.read()
        self.state.poll()
        # No limit: the platform holds this call until there is an event.
        await self.wait_until(lambda: self._is_over(request) or self.state.has_event())
        if self._is_over(request):  # an event must not be lost with its connection
            raise RefusedCallError(*CLOSING)
        invocation = self.state.deliver()
        if invocation.deliveries == 1:
            self._on_delivery(invocation)
        return self._event(invocation)

    def _event(self, invocation: EmulatedInvocation) -> Response:
        fields = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_epoch_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn
            or self._function_arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
            "Lambda-Runtime-Client-Context": invocation.client_context,
            "Lambda-Runtime-Cognito-Identity": invocation.cognito_identity,
            "Lambda-Runtime-Aws-Tenant-Id": invocation.tenant_id,
            "Lambda-Runtime-Invocation-Id": invocation.invocation_id,
        }
        present = [(k, _header_value(v)) for k, v in fields.items() if v is not None]
        return Response(200, invocation.event, JSON, present)

    async def _response(self, request: Request, request_id: str) -> Response:
        invocation = self.state.begin_response(
            request_id,
            request.headers.get("lambda-runtime-invocation-id"),
            request.headers.get("lambda-runtime-function-response-mode"),
            request.headers.get("content-type", ""),
        )
        try:
            while (chunk := await request.next_chunk()) is not None:
                is_wanted = self.state.receive(invocation, chunk)
                if is_wanted and invocation.is_streamed and self._on_chunk is not None:
                    await self._on_chunk(invocation, chunk)
        except MalformedRequestError:
            self.state.truncate(invocation)
            raise RefusedCallError(
                400, "TruncatedHTTPRequest", "The request was truncated"
            ) from None
        self._on_answer()
        self.state.complete_response(invocation, request.trailers)
        return _accepted()

    async def _error(self, request: Request, request_id: str) -> Response:
        body = await request.read()
        self._on_answer()
        self.state.fail(
            request_id,
            request.headers.get("lambda-runtime-invocation-id"),
            body,
            content_type=request.headers.get("content-type", ""),
            error_type=request.headers.get("lambda-runtime-function-error-type"),
        )
        return _accepted()

    async def _init_error(self, request: Request) -> Response:
        body = await request.read()
        self.state.fail_init(
            body,
            content_type=request.headers.get("content-type", ""),
            error_type=request.headers.get("lambda-runtime-function-error-type"),
        )
        return _accepted()

    async def _register(self, request: Request) -> Response:
        """Register the runtime as an extension; it gets no events."""
        if not request.headers.get("lambda-extension-name"):
            raise RefusedCallError(
                403, "Extension.InvalidExtensionName", "Empty extension name"
            )
        identifier = ("Lambda-Extension-Identifier", str(uuid.uuid4()))
        return Response(200, b"{}", JSON, [identifier])

    async def _extension_next(self, request: Request) -> Response:
        await request.read()
        await self.wait_until(lambda: self._is_over(request))
        raise RefusedCallError(*CLOSING)

    def _is_over(self, request: Request) -> bool:
        return self._is_closing or request.is_abandoned


def _end_wait(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _header_value(text: str) -> str:
    """Change a header value as Go does: no line breaks, no white space at its ends."""
    return LINE_BREAK.sub(" ", text).strip(" \t")


def _accepted() -> Response:
    return Response(202, b'{"status":"OK"}', JSON)


def _refusal(error: RefusedCallError) -> Response:
    body = {"errorMessage": str(error), "errorType": error.error_type}
    return Response(error.status, json.dumps(body).encode(), JSON)
