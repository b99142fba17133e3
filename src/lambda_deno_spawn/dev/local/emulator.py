"""AWS Lambda's Runtime API, served to a runtime on this machine.

Knows the calls and their headers, for one execution environment: one that handles one
invocation at a time, or a Lambda Managed Instance, where each ``next`` that waits gets
an event. What a call does there is in ``environment``. It shares no code with the
runtime's own client and spells every header itself, so that each checks the other.

Specification: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom
runtimes", "Lambda execution environment lifecycle" and "Understanding the Lambda
Managed Instances execution environment"; where they are silent, AWS's Runtime
Interface Emulator. Known gaps: no Extensions and Telemetry APIs, no SnapStart,
and streams are not slowed down after their first 6 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from lambda_deno_spawn.dev.local.environment import RefusedCallError, RuntimeApiState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from uvicorn.server import ServerState

    from lambda_deno_spawn.dev.local.environment import EmulatedInvocation

# A runtime keeps its connection through an invocation of up to 15 minutes and a freeze
# of any length; the platform never closes it.
KEEP_ALIVE_S = 24 * 3600
# Runtimes may send an X-Ray cause of up to 1 MiB in one header.
HEADERS_LIMIT_BYTES = 2 * 1024 * 1024
CLOSE_LIMIT_S = 1.0  # for handlers to see that the server closes; loopback takes 1 ms

DEFAULT_FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:function"


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
