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
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import orjson

from lambda_deno_spawn import __version__
from lambda_deno_spawn.errors import ConfigError, RuntimeApiError
from lambda_deno_spawn.http.http1 import (
    HttpError,
    end_of_chunks,
    field_lines,
    request_head,
)
from lambda_deno_spawn.http.transport import (
    ConnectError,
    HttpTransport,
    TruncatedResponseError,
)
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.log.writer import log_context, log_failure, logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.http.http1 import Field
    from lambda_deno_spawn.http.transport import Response
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
UNIQUE_HEADERS = ("lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms")
STREAM_TRAILERS = (
    "Lambda-Runtime-Function-Error-Type",
    "Lambda-Runtime-Function-Error-Body",
)
# All lines behind a stream together. AWS's server is written in Go, whose own takes
# 4,096 bytes of them and breaks the connection off for more (net/http, transfer.go);
# then the caller loses what was streamed, and the environment ends.
TRAILERS_LIMIT_BYTES = 3 * 1024
# As AWS writes it, a path needs no escapes for it; quote() takes its time.
_PLAIN_ID = re.compile(r"[-0-9A-Za-z]+")
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
# What the caller was told by the platform.
REFUSED_TYPES = {410: "Sandbox.Timedout", 413: "Function.ResponseSizeTooLarge"}


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
        self._spare: HttpTransport | None = None
        self._working_directory = working_directory
        self._host_field = runtime_api
        self._common = field_lines([("Host", runtime_api), ("User-Agent", USER_AGENT)])

    async def next(self) -> Invocation:
        """Wait for the next invocation, without a limit.

        Until this call the previous invocation goes on, for the platform and for the
        bill; inside it the environment may be frozen.

        Raises:
            RuntimeApiError: Fatal: no invocation can be had any more.
        """
        answer = await self._get("next", "/invocation/next")
        if answer.status != HTTP_OK:
            raise RuntimeApiError(
                "next", _detail(answer), status=answer.status, is_fatal=True
            )
        headers = answer.headers
        if answer.ambiguous:
            _check_unique(answer)
        for name in UTF8_HEADERS & headers.keys():
            headers[name] = _utf8(headers[name])
        return Invocation.from_headers(headers, answer.body)

    async def report(self, invocation: Invocation, outcome: Outcome) -> str | None:
        """Post what came of an invocation.

        A refusal or a broken connection is logged: it concerns this invocation only.

        Returns:
            None, or the error type of what came of it instead of the outcome.

        Raises:
            RuntimeApiError: Fatal: the environment must end (HTTP 500).
        """
        path = _path(invocation.request_id)
        fields: list[Field] = []
        if invocation.invocation_id is not None:
            fields.append(("Lambda-Runtime-Invocation-Id", invocation.invocation_id))
        try:
            match outcome:
                case Success(payload, content_type):
                    fields.append(("Content-Type", content_type))
                    await self._post("response", f"{path}/response", fields, payload)
                case Failure(body=body):
                    fields += self._error_fields(outcome)
                    await self._post("error", f"{path}/error", fields, body)
                case Streaming():
                    failure = await self._stream(f"{path}/response", fields, outcome)
                    if failure is not None:
                        fields += self._error_fields(failure)
                        await self._post("error", f"{path}/error", fields, failure.body)
                        log_failure(invocation, failure)
                        return failure.error_type
        except RuntimeApiError as error:
            if error.is_fatal:
                raise
            logger.error("%s", error, extra=log_context(invocation))
            return REFUSED_TYPES.get(error.status or 0, error.error_type)
        return None

    async def init_error(self, failure: Failure) -> None:
        """Tell the platform that no invocation can be served; then exit.

        Raises:
            RuntimeApiError: It could not be told.
        """
        fields = self._error_fields(failure)
        await self._post("init error", "/init/error", fields, failure.body)

    async def restore_next(self) -> None:
        """Let the snapshot be taken; returns in an environment restored from it.

        On a connection of its own: none that was open before is used after it.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """
        await self._alone("restore next", "GET", f"{API_PATH}/restore/next")

    async def restore_error(self, failure: Failure) -> None:
        """Tell the platform that the restored environment is of no use; then exit.

        Raises:
            RuntimeApiError: It could not be told.
        """
        # The body has the module's own error, the header says when it happened.
        fields = self._error_fields(failure, "Runtime.AfterRestoreError")
        await self._post("restore error", "/restore/error", fields, failure.body)

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
                ("Content-Type", "application/json"),
            ],
            b'{"events":[]}',
        )
        identifier = answer.headers.get("lambda-extension-identifier", "")
        if not identifier:
            raise RuntimeApiError(call, "no identifier", status=HTTP_OK, is_fatal=False)
        return identifier

    async def extension_next(self, identifier: str) -> None:
        """Say that an extension has nothing to do; for one without events for ever.

        Raises:
            RuntimeApiError: It was refused, or the connection broke.
        """
        path = f"{EXTENSIONS_PATH}/event/next"
        fields = [("Lambda-Extension-Identifier", identifier)]
        await self._alone("extension next", "GET", path, fields)

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch credentials as JSON from where the environment says that they are.

        Args:
            uri: Most likely at the Runtime API's address, but not of it.
            token: What is shown for them.

        Raises:
            RuntimeApiError: There are none.
        """
        fields = [("Authorization", token)] if token else []
        return (await self._alone("credentials", "GET", uri, fields)).body

    async def aclose(self) -> None:
        """Close the connection, and the one for the next stream."""
        await self._transport.aclose()
        if self._spare is not None:
            await self._spare.aclose()

    def _error_fields(
        self, failure: Failure, error_type: str | None = None
    ) -> list[Field]:
        error_type = error_type or failure.function_error_type
        fields = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Function-Error-Type", error_type),
        ]
        cause = failure.xray_cause(self._working_directory)
        if cause is not None:
            fields.append(("Lambda-Runtime-Function-XRay-Error-Cause", cause))
        return fields

    async def _stream(
        self, path: str, fields: list[Field], outcome: Streaming
    ) -> Failure | None:
        """Post an answer in pieces, on a connection of its own, as AWS asks.

        Returns:
            None, or why the answer could not be begun: nothing of it was sent.
        """

        def trailers() -> list[Field]:
            failure = outcome.chunks.failure
            if failure is None:
                return []
            return _trailers(failure)

        transport = self._spare or self._connection()
        self._spare = None
        try:
            fields = [
                *fields,
                ("Content-Type", outcome.content_type),
                ("Lambda-Runtime-Function-Response-Mode", "streaming"),
                ("Trailer", ", ".join(STREAM_TRAILERS)),
            ]
            head = self._head("POST", path, fields, None)
            async with asyncio.timeout(outcome.limit_s):
                if not transport.is_idle:
                    await transport.aclose()  # the spare one was ended meanwhile
                    await transport.connect()
                answer = await transport.stream(head, outcome.chunks, trailers)
        except TimeoutError:
            detail = "the response was not taken before the deadline and is cut off"
            raise RuntimeApiError("response", detail, is_fatal=False) from None
        except ConnectError as error:
            return _not_begun(error)
        except HttpError as error:
            answer = _known_answer("response", error)
        finally:
            await transport.aclose()
        await self._connect_spare()
        self._check("response", answer)
        return None

    async def _connect_spare(self) -> None:
        """Have a connection for the next stream: its caller waits for the first byte.

        AWS asks for the end of a connection that has carried a stream. Where one came
        others will.
        """
        spare = self._connection()
        with contextlib.suppress(ConnectError):  # it is tried again when it is needed
            await spare.connect()
            self._spare = spare

    async def _alone(
        self,
        call: str,
        method: str,
        address: str,
        fields: Sequence[Field] = (),
        body: bytes = b"",
    ) -> Response:
        """Make a call on a connection of its own, for as long as that takes.

        Args:
            call: For messages.
            method: Of HTTP.
            address: Path at the Runtime API's address, or where else it goes.
            fields: Besides those of every call.
            body: Of the request.

        Raises:
            RuntimeApiError: The answer is not 200; its words hold no secret.
        """
        url = urlsplit(address)
        transport, host = self._connection(), self._host_field
        if url.hostname is not None:
            port = url.port or DEFAULT_PORT
            transport = HttpTransport(url.hostname, port, ANSWER_LIMIT_BYTES)
            host = url.netloc
        target = url._replace(scheme="", netloc="").geturl() or "/"
        try:
            lines = field_lines([("Host", host), ("User-Agent", USER_AGENT), *fields])
            head = request_head(method, target, lines, len(body))
            answer = await transport.send(head, body)
        except HttpError as error:
            answer = _known_answer(call, error)
        finally:
            await transport.aclose()
        if answer.status != HTTP_OK:
            detail = _detail(answer)
            raise RuntimeApiError(call, detail, status=answer.status, is_fatal=False)
        return answer

    # What a further call of the API needs is one of these two.

    async def _get(self, call: str, path: str) -> Response:
        """Ask, and ask again if a kept connection breaks before it has answered.

        Raises:
            RuntimeApiError: There is no answer; fatal if it was to be an event.
        """
        return await self._send(call, "GET", path, [], b"")

    async def _post(
        self, call: str, path: str, fields: list[Field], body: bytes
    ) -> None:
        """Tell something, once.

        Raises:
            RuntimeApiError: It was not accepted; fatal if the status says so.
        """
        self._check(call, await self._send(call, "POST", path, fields, body))

    async def _send(
        self, call: str, method: str, path: str, fields: list[Field], body: bytes
    ) -> Response:
        try:
            head = self._head(method, path, fields, len(body))
            is_repeatable = method == "GET"
            return await self._transport.send(head, body, is_repeatable=is_repeatable)
        except HttpError as error:
            return _known_answer(call, error)

    def _check(self, call: str, answer: Response) -> None:
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

    def _connection(self) -> HttpTransport:
        return HttpTransport(self._host, self._port, ANSWER_LIMIT_BYTES)

    def _head(
        self, method: str, path: str, fields: list[Field], length: int | None
    ) -> bytes:
        lines = self._common + field_lines(fields)
        return request_head(method, API_PATH + path, lines, length)


def _trailers(failure: Failure) -> list[Field]:
    """Return the fields that tell an error behind a stream, cut to what is taken."""
    name, body_name = STREAM_TRAILERS
    error_type = failure.function_error_type
    # Without the body: two lines and the empty one behind them.
    taken = len(end_of_chunks([(name, error_type), (body_name, "")]))
    body = failure.shortened((TRAILERS_LIMIT_BYTES - taken) // 4 * 3).body
    return [(name, error_type), (body_name, base64.b64encode(body).decode("ascii"))]


def _utf8(value: str) -> str:
    """Read a header value as UTF-8 if it is that."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _path(request_id: str) -> str:
    """Return where an invocation's answer goes."""
    if _PLAIN_ID.fullmatch(request_id):
        return f"/invocation/{request_id}"
    segment = quote(request_id, safe="")
    if segment in (".", ".."):  # a path would resolve them
        segment = segment.replace(".", "%2E")
    return f"/invocation/{segment}"


def _known_answer(call: str, error: HttpError) -> Response:
    """Return the answer if its head, which says it all, has come.

    Raises:
        RuntimeApiError: It has not, or the answer was to be an event: that is the body.
    """
    is_next = call == "next"
    if not isinstance(error, TruncatedResponseError):
        raise RuntimeApiError(call, _short(error), is_fatal=is_next) from error
    status = error.response.status
    if is_next and status == HTTP_OK:
        raise RuntimeApiError(
            call, _short(error), status=status, is_fatal=True
        ) from error
    return error.response


def _not_begun(error: ConnectError) -> Failure:
    """Say why there is no connection for a stream."""
    cause = error.__cause__
    is_exhausted = isinstance(cause, OSError) and cause.errno in EXHAUSTED
    return Failure.of(
        "Runtime.ResourceExhausted" if is_exhausted else "Runtime.StreamUnavailable",
        f"Cannot stream the answer: {error}",
    )


def _check_unique(answer: Response) -> None:
    """Refuse an invocation of which it is not sure which one it is.

    Of any other field that comes more than once the last one counts.

    Raises:
        RuntimeApiError: Fatal: there are two request ids or deadlines.
    """
    for name in UNIQUE_HEADERS:
        if name in answer.ambiguous:
            raise RuntimeApiError(
                "next",
                f"{name} comes more than once and differs",
                status=answer.status,
                is_fatal=True,
            )


def _short(error: HttpError) -> str:
    """Return its message; h11 quotes what broke HTTP, however long it is."""
    return str(error)[:DETAIL_LIMIT]


def _detail(answer: Response) -> str:
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
