"""The port of ``dev``: which module answers a request, and which clients may send one.

Knows the paths of the Lambda API, that functions have all others, and that further
modules mount their pages below ``/_/``. Does not know how a function is run. The server
is uvicorn, with Starlette's requests and responses: decision 0046.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from lambda_deno_spawn.dev.devserver.answers import request_fields
from lambda_deno_spawn.dev.devserver.guard import names_function, refusal
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from types import TracebackType

    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
PAGES = "/_"  # below it is everything that is neither a function nor Lambda's API
# Every call of Lambda's API: what is not known here must not run a function instead.
OWN_PATH = re.compile(
    r"/_(?:/.*)?|/20\d\d-\d\d-\d\d/(?:account-settings|capacity-providers|"
    r"code-signing-configs|durable-execution-callbacks|durable-executions|"
    r"event-source-mappings|functions|layers|resource-policy|tags)(?:/.*)?",
    re.DOTALL,
)
BACKLOG = 512
JOINED_BYTES = 64 * 1024  # a longer body is not copied to stand behind its head
# Longer than clients keep a connection that they do not use: a request on one that is
# being closed fails.
KEEP_ALIVE_S = 300
CLOSE_LIMIT_S = 1.0  # for responses in progress when dev ends


class Guarded:
    """Two ASGI applications behind ``guard``."""

    def __init__(
        self,
        app: ASGIApp,
        functions: ASGIApp,
        allowed_origins: Collection[str],
        on_error: Callable[[str], None],
        origins_for: Callable[[Request], Collection[str]],
    ) -> None:
        """Let requests through, if nothing speaks against them.

        Args:
            app: Answers requests to ``OWN_PATH``.
            functions: Answers all others, and those to a name below ``localhost``,
                where every path is the function's.
            allowed_origins: Origins whose pages may call functions.
            on_error: Told of a fault in `dev` itself; the client only sees status 500.
            origins_for: Returns further origins for a request to a function.
        """
        self._on_error = on_error
        self._origins_for = origins_for
        self._app = app
        self._functions = functions
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; called by uvicorn."""
        request = Request(scope)
        headers = request_fields(scope)
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            response = PlainTextResponse("Cannot serve two hosts at once\n", 400)
            await response(scope, receive, send)
            return
        is_function = names_function(headers.get("host", ""))
        path = scope["path"]
        is_own = not is_function and OWN_PATH.fullmatch(path) is not None
        is_from_page = "origin" in headers
        further = self._origins_for(request) if is_from_page and not is_own else ()
        problem = refusal(
            headers,
            method=request.method,
            is_own=is_own,
            allowed_origins={*self._allowed_origins, *further},
        )
        if problem is not None:
            response = PlainTextResponse(f"{problem}\n", 403)
            await response(scope, receive, send)
            return
        app = self._app if is_own else self._functions
        try:
            await app(scope, receive, send)
        except Exception as error:
            what = f"{request.method} {path}"
            self._on_error(f"Cannot answer {what}: {type(error).__name__}: {error}")
            raise


def application(
    api: Sequence[BaseRoute],
    functions: ASGIApp,
    pages: Sequence[BaseRoute] = (),
    *,
    allowed_origins: Collection[str] = (),
    on_error: Callable[[str], None] = lambda _: None,
    origins_for: Callable[[Request], Collection[str]] = lambda _: (),
) -> ASGIApp:
    """Return what answers requests.

    Args:
        api: Routes of Lambda's API.
        functions: Answers for the functions, which have all paths that are left.
        pages: Starlette's routes of other modules, without the ``/_`` in front.
        allowed_origins: Origins whose pages may call functions.
        on_error: Told of a fault in `dev` itself.
        origins_for: Returns further origins whose pages may send a certain request.
    """
    own = Mount(PAGES, routes=list(pages))
    return Guarded(
        Starlette(routes=[own, *api]),
        functions,
        allowed_origins,
        on_error,
        origins_for,
    )


class _Joining:
    """A transport that sends the head of a response together with its body.

    uvicorn writes them one after the other: two packets, for which the client wakes up
    twice. Bytes that nothing follows at once are sent in the event loop's next turn.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send bytes now or soon."""
        if self._held:
            held, self._held = self._held, b""
            if len(data) <= JOINED_BYTES:
                data = held + data
            else:
                self._transport.write(held)
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


class Http(HttpToolsProtocol):
    """uvicorn's protocol, which sends a short response in one piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(_Joining(transport))  # type: ignore[arg-type]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Called by asyncio: the client sends nothing more, and may still read.

        Programs such as socat and ncat say so right after their request.
        """
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.more_body or cycle.response_started:
            return None  # close the connection
        cycle.keep_alive = False
        return True


class _Server(uvicorn.Server):
    """uvicorn's server, in a program that handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Listener:
    """Listens on a loopback port while the context is entered.

    Attributes:
        url: ``http://127.0.0.1:port``.
    """

    def __init__(self, port: int) -> None:
        """Bind the port; requests wait until the context is entered.

        Args:
            port: 0: any free one.

        Raises:
            UsageError: The port cannot be used.
        """
        self._socket = bind(port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._app: ASGIApp | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def serve(self, app: ASGIApp) -> Self:
        """Name what answers requests; return the listener, to be entered."""
        self._app = app
        return self

    async def __aenter__(self) -> Self:
        """Answer requests from now on."""
        assert self._app is not None
        config = uvicorn.Config(
            self._app,
            http=Http,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(CLOSE_LIMIT_S),
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Refuse connections, and end those that are left."""
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await asyncio.wait([self._serving], timeout=2 * CLOSE_LIMIT_S)
        self._serving.cancel()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def bind(port: int) -> socket.socket:
    """Return a socket that is bound to a loopback port.

    Raises:
        UsageError: The port cannot be used.
    """
    # Named, because asyncio sets TCP_NODELAY only then: the body of a response would
    # wait until the client has acknowledged its head, up to 40 ms.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        # A port that another program listens on is refused here on some systems.
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        state = (
            "another program listens on it"
            if error.errno == errno.EADDRINUSE
            else (error.strerror or str(error)).lower()
        )
        raise UsageError(
            f"Cannot listen on port {port}: {state}; give another one with --port, or "
            "--port 0 for any that is free"
        ) from error
    bound.setblocking(False)
    return bound
