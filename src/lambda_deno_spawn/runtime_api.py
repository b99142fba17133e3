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
import contextlib
import errno
import platform
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from lambda_deno_spawn import __version__
from lambda_deno_spawn.errors import ConfigError, RuntimeApiError
from lambda_deno_spawn.http1 import request_head
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.logs import log_context, log_failure, logger
from lambda_deno_spawn.transport import (
    ConnectError,
    HttpConnection,
    TransportError,
    TruncatedAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.invocation import Outcome
    from lambda_deno_spawn.transport import Answer

    Fields = Sequence[tuple[str, str]]

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
UNIQUE_HEADERS = ("lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms")
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
JSON = "application/json"
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


class Prepared(NamedTuple):
    """What is worked out for an answer before there is one.

    Attributes:
        request_id: Of the invocation.
        target: Path of its answer, but for the last word.
        head: What stands before a JSON result but for its size; None: it cannot.
    """

    request_id: str
    target: str
    head: bytes | None


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
        self._connection = self._connect()
        self._working_directory = working_directory
        self._common = [("Host", runtime_api), ("User-Agent", USER_AGENT)]
        target = f"{API_PATH}/invocation/next"
        self._next_message = request_head("GET", target, self._common)
        self._prepared = Prepared("", "", None)

    async def next(self) -> Invocation:
        """Wait for the next invocation, without a limit.

        Until this call the previous invocation goes on, for the platform and for the
        bill; inside it the environment may be frozen.

        Raises:
            RuntimeApiError: Fatal: no invocation can be had any more.
        """
        answer = await self._ask(
            self._connection, "next", self._next_message, is_repeatable=True
        )
        if answer.status != HTTP_OK:
            raise RuntimeApiError(
                "next", _detail(answer), status=answer.status, is_fatal=True
            )
        headers = dict(answer.fields)
        if len(headers) < len(answer.fields):
            _check_repeated(answer.fields)
        for name in UTF8_HEADERS:
            if name in headers:
                headers[name] = _utf8(headers[name])
        invocation = Invocation.from_headers(headers, answer.body)
        # The loop comes to this while the worker runs, so the caller does not wait.
        asyncio.get_running_loop().call_soon(self._prepare, invocation)
        return invocation

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of an invocation.

        A refusal or a broken connection is logged: it concerns this invocation only.

        Returns:
            None, or the error type of what came of it instead of the outcome.

        Raises:
            RuntimeApiError: Fatal: the environment must end (HTTP 500).
        """
        if self._prepared.request_id != invocation.request_id:
            self._prepare(invocation)
        _, target, head = self._prepared
        headers = _echoed(invocation)
        try:
            match outcome:
                case Success(payload, content_type) if content_type == JSON and head:
                    length = b"Content-Length: %d\r\n\r\n" % len(payload)
                    message = head + length + payload
                    call = "response"
                    self._check(call, await self._ask(self._connection, call, message))
                case Success():
                    headers.append(("Content-Type", outcome.content_type))
                    await self._post(
                        "response", f"{target}/response", headers, outcome.payload
                    )
                case Failure():
                    headers += self._error_headers(outcome)
                    await self._post("error", f"{target}/error", headers, outcome.body)
                case Streaming():
                    failure = await self._stream(f"{target}/response", headers, outcome)
                    if failure is not None:
                        headers += self._error_headers(failure)
                        await self._post(
                            "error", f"{target}/error", headers, failure.body
                        )
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
        await self._post("init error", f"{API_PATH}/init/error", headers, failure.body)

    async def restore_next(self) -> None:
        """Let the snapshot be taken; returns in an environment restored from it.

        On a connection of its own: none that was open before is used after it.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """
        call = "restore next"
        self._check_ok(call, await self._alone(call, "GET", f"{API_PATH}/restore/next"))

    async def restore_error(self, failure: Failure) -> None:
        """Tell the platform that the restored environment is of no use; then exit.

        Raises:
            RuntimeApiError: It could not be told.
        """
        # The body has the module's own error, the header says when it happened.
        headers = self._error_headers(failure, "Runtime.AfterRestoreError")
        target = f"{API_PATH}/restore/error"
        await self._post("restore error", target, headers, failure.body)

    async def register_extension(self) -> str:
        """Register this process as an extension without events; return its identifier.

        Raises:
            RuntimeApiError: It cannot be one.
        """
        call = "register extension"
        answer = await self._alone(
            call,
            "POST",
            f"{EXTENSIONS_PATH}/register",
            [
                ("Lambda-Extension-Name", EXTENSION_NAME),
                ("Content-Type", JSON),
            ],
            b'{"events":[]}',
        )
        self._check_ok(call, answer)
        identifier = dict(answer.fields).get("lambda-extension-identifier", "")
        if not identifier:
            raise RuntimeApiError(call, "no identifier", status=HTTP_OK, is_fatal=False)
        return identifier

    async def extension_next(self, identifier: str) -> None:
        """Say that an extension has nothing to do; for one without events for ever.

        Raises:
            RuntimeApiError: It was refused, or the connection broke.
        """
        call = "extension next"
        target = f"{EXTENSIONS_PATH}/event/next"
        headers = [("Lambda-Extension-Identifier", identifier)]
        self._check_ok(call, await self._alone(call, "GET", target, headers))

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch credentials as JSON from where the environment says that they are.

        Args:
            uri: Most likely at the Runtime API's address, but not of it.
            token: What is shown for them.

        Raises:
            RuntimeApiError: There are none.
        """
        call = "credentials"
        headers = [("Authorization", token)] if token else []
        answer = await self._alone(call, "GET", uri, headers)
        self._check_ok(call, answer)
        return answer.body

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

    def _error_headers(
        self, failure: Failure, error_type: str | None = None
    ) -> list[tuple[str, str]]:
        error_type = error_type or failure.function_error_type
        headers = [
            ("Content-Type", JSON),
            ("Lambda-Runtime-Function-Error-Type", error_type),
        ]
        cause = failure.xray_cause(self._working_directory)
        if cause is not None:
            headers.append(("Lambda-Runtime-Function-XRay-Error-Cause", cause))
        return headers

    def _prepare(self, invocation: Invocation) -> None:
        """Work out where an invocation's answer goes, and what stands before it."""
        segment = quote(invocation.request_id, safe="")
        if segment in (".", ".."):  # a server would resolve them
            segment = segment.replace(".", "%2E")
        target = f"{API_PATH}/invocation/{segment}"
        fields = [*_echoed(invocation), ("Content-Type", JSON)]
        head = None
        with contextlib.suppress(RuntimeApiError):  # it is told by the answer itself
            head = self._head("response", "POST", f"{target}/response", fields)[:-2]
        self._prepared = Prepared(invocation.request_id, target, head)

    async def _stream(
        self, target: str, headers: Fields, outcome: Streaming
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

        call = "response"
        fields = [
            *headers,
            ("Content-Type", outcome.content_type),
            ("Lambda-Runtime-Function-Response-Mode", "streaming"),
            ("Trailer", ", ".join(STREAM_TRAILERS)),
            ("Transfer-Encoding", "chunked"),
        ]
        head = self._head(call, "POST", target, fields)
        connection = self._connect()
        try:
            async with asyncio.timeout(outcome.limit_s):
                await connection.connect()
                answer = await connection.request_in_pieces(
                    head, outcome.chunks, trailers
                )
        except TimeoutError:
            detail = "the response was not taken before the deadline and is cut off"
            raise RuntimeApiError(call, detail, is_fatal=False) from None
        except ConnectError as error:
            return _not_begun(error)
        except TransportError as error:
            answer = _understood(call, error)
        finally:
            await connection.aclose()
        self._check(call, answer)
        return None

    async def _post(self, call: str, target: str, headers: Fields, body: bytes) -> None:
        fields = [*headers, ("Content-Length", str(len(body)))]
        # Head and body go out together: two writes would be two packets.
        message = self._head(call, "POST", target, fields) + body
        self._check(call, await self._ask(self._connection, call, message))

    async def _alone(
        self,
        call: str,
        method: str,
        address: str,
        headers: Fields = (),
        body: bytes | None = None,
    ) -> Answer:
        """Make a call on a connection of its own, for as long as that takes.

        Args:
            call: For messages.
            method: Of HTTP.
            address: Path at the Runtime API, or where else it goes.
            headers: Besides those of every call.
            body: None: it has none.
        """
        url = urlsplit(address)
        sized = [] if body is None else [("Content-Length", str(len(body)))]
        if url.hostname is None:
            target, connection = address, self._connect()
            head = self._head(call, method, target, [*headers, *sized])
        else:
            target = url._replace(scheme="", netloc="").geturl() or "/"
            connection = HttpConnection(
                url.hostname, url.port or DEFAULT_PORT, ANSWER_LIMIT_BYTES
            )
            common = [("Host", url.netloc), *self._common[1:]]
            head = _request_head(call, method, target, [*common, *headers, *sized])
        try:
            return await self._ask(connection, call, head + (body or b""))
        finally:
            await connection.aclose()

    def _check_ok(self, call: str, answer: Answer) -> None:
        """Raise what a status other than 200 means; its words hold no secret."""
        if answer.status != HTTP_OK:
            raise RuntimeApiError(
                call, _detail(answer), status=answer.status, is_fatal=False
            )

    def _check(self, call: str, answer: Answer) -> None:
        """Raise what a status other than 202 means."""
        status = answer.status
        if status == HTTP_ACCEPTED:
            return
        detail = _detail(answer)
        if status in REFUSALS:
            detail = f"{REFUSALS[status]} ({detail})"
        raise RuntimeApiError(
            call, detail, status=status, is_fatal=status >= HTTP_CONTAINER_ERROR
        )

    async def _ask(
        self,
        connection: HttpConnection,
        call: str,
        message: bytes,
        *,
        is_repeatable: bool = False,
    ) -> Answer:
        try:
            return await connection.request(message, is_repeatable=is_repeatable)
        except TransportError as error:
            return _understood(call, error)

    def _connect(self) -> HttpConnection:
        return HttpConnection(self._host, self._port, ANSWER_LIMIT_BYTES)

    def _head(self, call: str, method: str, target: str, fields: Fields) -> bytes:
        return _request_head(call, method, target, [*self._common, *fields])


def _echoed(invocation: Invocation) -> list[tuple[str, str]]:
    """Return the field that tells two deliveries of one event apart, if it came."""
    if invocation.invocation_id is None:
        return []
    return [("Lambda-Runtime-Invocation-Id", invocation.invocation_id)]


def _request_head(
    call: str, method: str, target: str, fields: list[tuple[str, str]]
) -> bytes:
    try:
        return request_head(method, target, fields)
    except ValueError as error:
        raise RuntimeApiError(call, _short(error), is_fatal=call == "next") from error


def _understood(call: str, error: TransportError) -> Answer:
    """Return what can be taken for an answer though it broke off.

    Raises:
        RuntimeApiError: Nothing can.
    """
    status = None
    if isinstance(error, TruncatedAnswerError):
        # The status says it all, but for an event: that is the body.
        status = error.answer.status
        if call != "next" or status != HTTP_OK:
            return error.answer
    raise RuntimeApiError(
        call, _short(error), status=status, is_fatal=call == "next"
    ) from error


def _utf8(value: str) -> str:
    """Read a header value as UTF-8 if it is that."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _not_begun(error: ConnectError) -> Failure:
    """Say why there is no connection for a stream."""
    cause = error.__cause__
    is_exhausted = isinstance(cause, OSError) and cause.errno in EXHAUSTED
    return Failure.of(
        "Runtime.ResourceExhausted" if is_exhausted else "Runtime.StreamUnavailable",
        f"Cannot stream the answer: {error}",
    )


def _check_repeated(fields: Fields) -> None:
    """Refuse an invocation of which it is not sure which one it is.

    Of any other field that comes more than once the last one counts.

    Raises:
        RuntimeApiError: Fatal: there are two request ids or deadlines.
    """
    for name in UNIQUE_HEADERS:
        values = {value for key, value in fields if key == name}
        if len(values) > 1:
            raise RuntimeApiError(
                "next",
                f"{name} comes more than once and differs",
                status=HTTP_OK,
                is_fatal=True,
            )


def _short(error: Exception) -> str:
    """Return its message; h11 quotes what broke HTTP, however long it is."""
    return str(error)[:DETAIL_LIMIT]


def _detail(answer: Answer) -> str:
    """Return the platform's own words from an error body."""
    try:
        body = orjson.loads(answer.body)
        words = [body["errorType"], body["errorMessage"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = []
    # Anything else than text may be nested too deep to be written.
    if words and all(isinstance(word, str) for word in words):
        return ": ".join(word[:DETAIL_LIMIT] for word in words)
    return repr(answer.body[:DETAIL_LIMIT])
