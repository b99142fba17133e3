"""The Lambda Runtime API: next, response, error, init error, and what is beside it.

Knows paths, headers in both directions, and what each status code obliges a runtime to
do; also the few calls of its neighbours on the same address: restore, extensions,
credentials. Refuses to know how an outcome comes about, and sockets. Specification: AWS
Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes", "Using the
Lambda Extensions API to create extensions"; restore: decision 0023.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import platform
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import orjson

from lambda_deno_spawn import __version__
from lambda_deno_spawn.errors import ConfigError, RuntimeApiError
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.logs import log_context, log_failure, logger
from lambda_deno_spawn.transport import (
    SingleConnectionTransport,
    TruncatedResponseError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.invocation import Outcome

API_PATH = "/2018-06-01/runtime"
EXTENSIONS_PATH = "/2020-01-01/extension"
EXTENSION_NAME = "lambda-deno-spawn"
USER_AGENT = f"lambda-deno-spawn/{__version__} python/{platform.python_version()}"
# They hold what a caller wrote; all others are ASCII, or opaque and sent back as is.
UTF8_HEADERS = frozenset(
    {
        "lambda-runtime-aws-tenant-id",
        "lambda-runtime-client-context",
        "lambda-runtime-cognito-identity",
    }
)
# They say which invocation it is, and how long it lasts.
UNIQUE_HEADERS = (b"lambda-runtime-aws-request-id", b"lambda-runtime-deadline-ms")
STREAM_TRAILERS = (
    "Lambda-Runtime-Function-Error-Type",
    "Lambda-Runtime-Function-Error-Body",
)
DEFAULT_PORT = 80
PORT_LIMIT = 65_535
# An event is at most 6 MiB (AWS "Lambda quotas"), other answers are far shorter: what
# exceeds this is neither, and is not taken into memory.
ANSWER_LIMIT_BYTES = 7 * 1024 * 1024
# Characters of somebody else's words in a message of ours.
DETAIL_LIMIT = 200
# The system's ways to say that there is no room for one more connection.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
HTTP_ACCEPTED = 202
HTTP_OK = 200
HTTP_CONTAINER_ERROR = 500
# Refusals of an answer that concern this invocation alone: unknown or answered already,
# wrong state, too late or crossed, too large. Logged, and the next one is served.
REFUSALS = {
    400: "the Runtime API does not know this invocation (any more)",
    403: "the invocation was answered already",
    410: "the answer came after the timeout, or belongs to another invocation",
    413: "the response is too large; the caller has been told so",
}
# What the caller was told by the platform, or AWS's name for an answer not taken.
REFUSED_TYPES = {410: "Sandbox.Timedout", 413: "Function.ResponseSizeTooLarge"}
NOT_TAKEN = "Runtime.LambdaRuntimeClientError"


class RuntimeApiClient:
    """Calls the Runtime API over one kept-alive connection.

    One client serves one loop. Proxy variables are ignored, and nothing here has a
    timeout: an environment may be frozen for hours inside ``next``.
    """

    def __init__(self, runtime_api: str, working_directory: str) -> None:
        """Take the address (``host:port``) and the folder named in X-Ray causes.

        Raises:
            ConfigError: The address is malformed.
        """
        host, separator, port = runtime_api.rpartition(":")
        is_port = port.isascii() and port.isdigit() and int(port) <= PORT_LIMIT
        is_host = host.isascii() and (":" not in host or host.startswith("["))
        if not (separator and host and is_host and is_port):
            raise ConfigError("AWS_LAMBDA_RUNTIME_API", runtime_api, "host:port")
        self._host, self._port = host.strip("[]"), int(port)
        self._transport = self._connection()
        self._root = f"http://{runtime_api}{API_PATH}"
        self._extensions = f"http://{runtime_api}{EXTENSIONS_PATH}"
        self._working_directory = working_directory
        self._next_url = httpx.URL(f"{self._root}/invocation/next")
        self._prepared = ("", self._next_url, self._next_url)
        self._common = [
            (b"Host", runtime_api.encode("ascii")),
            (b"User-Agent", USER_AGENT.encode("ascii")),
        ]

    async def next(self) -> Invocation:
        """Wait for the next invocation, without a limit.

        Until this call the previous invocation goes on, for the platform and for the
        bill; inside it the environment may be frozen.

        Raises:
            RuntimeApiError: Fatal: no invocation can be had any more.
        """
        response = await self._send("next", "GET", self._next_url, [])
        if response.status_code != HTTP_OK:
            raise RuntimeApiError(
                "next", _detail(response), status=response.status_code, is_fatal=True
            )
        # httpx looks every name up by scanning; one pass over the raw fields is faster.
        fields = response.headers.raw
        headers = {
            name.lower().decode("ascii"): value.decode("latin-1")
            for name, value in fields
        }
        if len(headers) < len(fields):
            _check_repeated(fields)
        for name in UTF8_HEADERS & headers.keys():
            headers[name] = _utf8(headers[name])
        invocation = Invocation.from_headers(headers, response.content)
        # The loop comes to this while the worker runs, so the caller does not wait.
        asyncio.get_running_loop().call_soon(self._prepare, invocation.request_id)
        return invocation

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of an invocation.

        A refusal or a broken connection is logged: it concerns this invocation only.

        Returns:
            None, or the error type of what came of it instead of the outcome.

        Raises:
            RuntimeApiError: Fatal: the environment must end (HTTP 500).
        """
        headers: list[tuple[str, str]] = []
        if invocation.invocation_id is not None:
            headers.append(("Lambda-Runtime-Invocation-Id", invocation.invocation_id))
        if self._prepared[0] != invocation.request_id:
            self._prepare(invocation.request_id)
        _, response_url, error_url = self._prepared
        try:
            match outcome:
                case Success():
                    headers.append(("Content-Type", outcome.content_type))
                    await self._post("response", response_url, headers, outcome.payload)
                case Failure():
                    headers += self._error_headers(outcome)
                    await self._post("error", error_url, headers, outcome.body)
                case Streaming():
                    failure = await self._stream(response_url, headers, outcome)
                    if failure is not None:
                        headers += self._error_headers(failure)
                        await self._post("error", error_url, headers, failure.body)
                        log_failure(invocation, failure)
                        return failure.error_type
        except RuntimeApiError as error:
            if error.is_fatal:
                raise
            logger.error("%s", error, extra=log_context(invocation))
            return REFUSED_TYPES.get(error.status or 0, NOT_TAKEN)
        return None

    async def init_error(self, failure: Failure) -> None:
        """Tell the platform that no invocation can be served; then exit.

        Raises:
            RuntimeApiError: It could not be told.
        """
        headers = self._error_headers(failure)
        url = httpx.URL(f"{self._root}/init/error")
        await self._post("init error", url, headers, failure.body)

    async def restore_next(self) -> None:
        """Let the snapshot be taken; returns in an environment restored from it.

        On a connection of its own: none that was open before is used after it.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """
        url = f"{self._root}/restore/next"
        self._check_ok("restore next", await self._alone("restore next", "GET", url))

    async def restore_error(self, failure: Failure) -> None:
        """Tell the platform that the restored environment is of no use; then exit.

        Raises:
            RuntimeApiError: It could not be told.
        """
        # The body has the module's own error, the header says when it happened.
        headers = self._error_headers(failure, "Runtime.AfterRestoreError")
        url = httpx.URL(f"{self._root}/restore/error")
        await self._post("restore error", url, headers, failure.body)

    async def register_extension(self) -> str:
        """Register this process as an extension without events; return its identifier.

        Raises:
            RuntimeApiError: It cannot be one.
        """
        call = "register extension"
        response = await self._alone(
            call,
            "POST",
            f"{self._extensions}/register",
            [
                ("Lambda-Extension-Name", EXTENSION_NAME),
                ("Content-Type", "application/json"),
            ],
            b'{"events":[]}',
        )
        self._check_ok(call, response)
        identifier: str = response.headers.get("Lambda-Extension-Identifier", "")
        if not identifier:
            raise RuntimeApiError(call, "no identifier", status=HTTP_OK, is_fatal=False)
        return identifier

    async def extension_next(self, identifier: str) -> None:
        """Say that an extension has nothing to do; for one without events for ever.

        Raises:
            RuntimeApiError: It was refused, or the connection broke.
        """
        call = "extension next"
        url = f"{self._extensions}/event/next"
        headers = [("Lambda-Extension-Identifier", identifier)]
        self._check_ok(call, await self._alone(call, "GET", url, headers))

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch credentials as JSON from where the environment says that they are.

        Args:
            uri: Most likely at the Runtime API's address, but not of it.
            token: What is shown for them.

        Raises:
            RuntimeApiError: There are none.
        """
        headers = [("Authorization", token)] if token else []
        response = await self._alone("credentials", "GET", uri, headers)
        self._check_ok("credentials", response)
        return response.content

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.aclose()

    def _error_headers(
        self, failure: Failure, error_type: str | None = None
    ) -> list[tuple[str, str]]:
        error_type = error_type or failure.function_error_type
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Function-Error-Type", error_type),
        ]
        cause = failure.xray_cause(self._working_directory)
        if cause is not None:
            headers.append(("Lambda-Runtime-Function-XRay-Error-Cause", cause))
        return headers

    def _prepare(self, request_id: str) -> None:
        """Work out where an invocation's answer goes; parsing a URL takes its time."""
        segment = quote(request_id, safe="")
        if segment in (".", ".."):  # a URL would resolve them
            segment = segment.replace(".", "%2E")
        path = f"{self._root}/invocation/{segment}"
        self._prepared = (
            request_id,
            httpx.URL(f"{path}/response"),
            httpx.URL(f"{path}/error"),
        )

    async def _stream(
        self, url: httpx.URL, headers: list[tuple[str, str]], outcome: Streaming
    ) -> Failure | None:
        """Post an answer in pieces, on a connection of its own, as AWS asks.

        Returns:
            None, or why the answer could not be begun: nothing of it was sent.
        """

        def trailers() -> list[tuple[str, str]]:
            failure = outcome.chunks.failure
            if failure is None:
                return []
            error_type, error_body = STREAM_TRAILERS
            return [
                (error_type, failure.function_error_type),
                (error_body, base64.b64encode(failure.body).decode("ascii")),
            ]

        fields = self._fields(
            [
                *headers,
                ("Content-Type", outcome.content_type),
                ("Lambda-Runtime-Function-Response-Mode", "streaming"),
                ("Trailer", ", ".join(STREAM_TRAILERS)),
            ]
        )
        extensions = {"trailers": trailers}
        request = httpx.Request(
            "POST", url, headers=fields, content=outcome.chunks, extensions=extensions
        )
        transport = self._connection()
        try:
            async with asyncio.timeout(outcome.limit_s):
                await transport.connect()
                response = await self._exchange(transport, "response", request)
        except TimeoutError:
            detail = "the response was not taken before the deadline and is cut off"
            raise RuntimeApiError("response", detail, is_fatal=False) from None
        except httpx.ConnectError as error:
            return _not_begun(error)
        finally:
            await transport.aclose()
        self._check("response", response)
        return None

    async def _post(
        self, call: str, url: httpx.URL, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self._check(call, await self._send(call, "POST", url, headers, body))

    async def _alone(
        self,
        call: str,
        method: str,
        address: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> httpx.Response:
        """Make a call on a connection of its own, for as long as that takes."""
        url = httpx.URL(address)
        transport = SingleConnectionTransport(
            url.host, url.port or DEFAULT_PORT, ANSWER_LIMIT_BYTES
        )
        fields = [
            (name, url.netloc if name == b"Host" else value)
            for name, value in self._fields(list(headers))
        ]
        request = httpx.Request(method, url, headers=fields, content=body)
        try:
            return await self._exchange(transport, call, request)
        finally:
            await transport.aclose()

    def _check_ok(self, call: str, response: httpx.Response) -> None:
        """Raise what a status other than 200 means; its words hold no secret."""
        if response.status_code != HTTP_OK:
            raise RuntimeApiError(
                call, _detail(response), status=response.status_code, is_fatal=False
            )

    def _check(self, call: str, response: httpx.Response) -> None:
        """Raise what a status other than 202 means."""
        status = response.status_code
        if status == HTTP_ACCEPTED:
            return
        detail = _detail(response)
        if status in REFUSALS:
            detail = f"{REFUSALS[status]} ({detail})"
        raise RuntimeApiError(
            call, detail, status=status, is_fatal=status >= HTTP_CONTAINER_ERROR
        )

    async def _send(
        self,
        call: str,
        method: str,
        url: httpx.URL,
        headers: list[tuple[str, str]],
        body: bytes | None = None,
    ) -> httpx.Response:
        # Straight to the transport: AsyncClient adds redirects, cookies and auth, which
        # this API does not have, and half a millisecond (decision 0008).
        request = httpx.Request(
            method, url, headers=self._fields(headers), content=body
        )
        return await self._exchange(self._transport, call, request)

    async def _exchange(
        self, transport: SingleConnectionTransport, call: str, request: httpx.Request
    ) -> httpx.Response:
        try:
            return await transport.handle_async_request(request)
        except TruncatedResponseError as error:
            # The status says it all, but for an event: that is the body.
            status = error.response.status_code
            if call != "next" or status != HTTP_OK:
                return error.response
            raise RuntimeApiError(
                call, _short(error), status=status, is_fatal=True
            ) from error
        except httpx.TransportError as error:
            raise RuntimeApiError(
                call, _short(error), is_fatal=call == "next"
            ) from error

    def _connection(self) -> SingleConnectionTransport:
        return SingleConnectionTransport(self._host, self._port, ANSWER_LIMIT_BYTES)

    def _fields(self, headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
        return self._common + [(k.encode(), v.encode("latin-1")) for k, v in headers]


def _utf8(value: str) -> str:
    """Read a header value as UTF-8 if it is that."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _not_begun(error: httpx.ConnectError) -> Failure:
    """Say why there is no connection for a stream."""
    cause = error.__cause__
    is_exhausted = isinstance(cause, OSError) and cause.errno in EXHAUSTED
    return Failure.of(
        "Runtime.ResourceExhausted" if is_exhausted else "Runtime.StreamUnavailable",
        f"Cannot stream the answer: {error}",
    )


def _check_repeated(fields: list[tuple[bytes, bytes]]) -> None:
    """Refuse an invocation of which it is not sure which one it is.

    Of any other field that comes more than once the last one counts.

    Raises:
        RuntimeApiError: Fatal: there are two request ids or deadlines.
    """
    for name in UNIQUE_HEADERS:
        values = {value for key, value in fields if key.lower() == name}
        if len(values) > 1:
            raise RuntimeApiError(
                "next",
                f"{name.decode()} comes more than once and differs",
                status=HTTP_OK,
                is_fatal=True,
            )


def _short(error: httpx.TransportError) -> str:
    """Return its message; h11 quotes what broke HTTP, however long it is."""
    return str(error)[:DETAIL_LIMIT]


def _detail(response: httpx.Response) -> str:
    """Return the platform's own words from an error body."""
    try:
        body = orjson.loads(response.content)
        words = [body["errorType"], body["errorMessage"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = []
    # Anything else than text may be nested too deep to be written.
    if words and all(isinstance(word, str) for word in words):
        return ": ".join(word[:DETAIL_LIMIT] for word in words)
    return repr(response.content[:DETAIL_LIMIT])
