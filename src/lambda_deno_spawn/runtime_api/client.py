"""The Lambda Runtime API: next, response, error, init error, and those of a restore.

Knows paths, header fields in both directions, trailers, and what each status code says.
Does not know how an outcome comes about, what follows a refusal, nor sockets: a call
that is not accepted raises, and ``serving.loop`` decides. Specification: AWS Lambda
Developer Guide, "Using the Lambda runtime API for custom runtimes"; restore: decision
0023.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import errno
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import RuntimeApiError, StreamNotBegunError
from lambda_deno_spawn.http.http1 import (
    HTTP_OK,
    HttpError,
    end_of_chunks,
    field_lines,
    request_head,
)
from lambda_deno_spawn.http.transport import ConnectError, TruncatedResponseError
from lambda_deno_spawn.invocation import Invocation
from lambda_deno_spawn.runtime_api.calls import (
    Address,
    call_once,
    refusal,
    response_before,
    short,
)

if TYPE_CHECKING:
    from lambda_deno_spawn.http.http1 import Field
    from lambda_deno_spawn.http.transport import HttpTransport, Response
    from lambda_deno_spawn.invocation import Failure, Streaming, Success

API_PATH = "/2018-06-01/runtime"
# These hold what a caller wrote; all others are ASCII, or opaque and sent back as is.
UTF8_HEADERS = frozenset(
    {
        "lambda-runtime-aws-tenant-id",
        "lambda-runtime-client-context",
        "lambda-runtime-cognito-identity",
    }
)
# Which invocation it is, and how long it lasts: two different values cannot be served.
UNIQUE_HEADERS = ("lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms")
STREAM_TRAILERS = (
    "Lambda-Runtime-Function-Error-Type",
    "Lambda-Runtime-Function-Error-Body",
)
# All trailer lines together. AWS's server is written in Go, whose HTTP server reads
# 4,096 bytes of trailers and drops the connection if there are more (net/http,
# transfer.go): the caller would lose what was streamed, and the environment would end.
TRAILERS_LIMIT_BYTES = 3 * 1024
# Bytes of a request id that stay as they are in a path (RFC 3986, 2.3).
UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
# Errors of the system that mean: no room for one more connection.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
HTTP_ACCEPTED = 202
# The meaning of a refused post.
REFUSALS = {
    400: "the Runtime API does not know this invocation (any more)",
    403: "the invocation was answered already",
    410: "the answer came after the timeout, or belongs to another invocation",
    413: "the response is too large; the caller has been told so",
}


class RuntimeApiClient:
    """Calls the Runtime API over one kept-alive connection.

    One client serves one loop. Proxy variables are ignored. No call but ``stream`` has
    a timeout: an environment may be frozen for hours inside ``next``.
    """

    def __init__(self, runtime_api: str, working_directory: str) -> None:
        """Connect to nothing yet; the first call does.

        Args:
            runtime_api: ``host:port``.
            working_directory: Folder named in X-Ray causes.

        Raises:
            ConfigError: The address is malformed.
        """
        self._address = Address.of_runtime_api(runtime_api)
        self._transport = self._address.transport()
        self._spare: HttpTransport | None = None
        self._working_directory = working_directory
        self._common = self._address.common_fields()

    async def next(self) -> Invocation:
        """Wait for the next invocation, without a limit.

        Until this call the previous invocation goes on, for the platform and for the
        bill; during the call the environment may be frozen. It is repeated once if a
        kept connection breaks before the response.

        Raises:
            RuntimeApiError: There is no invocation that could be served.
        """
        head = self._head("GET", "/invocation/next", [], 0)
        try:
            response = await self._transport.send(head, is_repeatable=True)
        except HttpError as error:
            response = _response_to_next(error)
        if response.status != HTTP_OK:
            raise refusal("next", response)
        headers = response.headers
        if response.ambiguous:
            _check_unique(response)
        for name in UTF8_HEADERS & headers.keys():
            headers[name] = _utf8(headers[name])
        return Invocation.from_headers(headers, response.body)

    # Outcomes and errors are posted once: a response whose connection broke may have
    # been received, and a request id has one outcome.

    async def post_response(self, invocation: Invocation, success: Success) -> None:
        """Post a handler's result.

        Raises:
            RefusedError: The Runtime API did not accept it.
            RuntimeApiError: It is unknown whether it did.
        """
        path, fields = _of(invocation)
        fields.append(("Content-Type", success.content_type))
        await self._post("response", f"{path}/response", fields, success.payload)

    async def post_error(self, invocation: Invocation, failure: Failure) -> None:
        """Post why an invocation failed.

        Raises:
            RefusedError: The Runtime API did not accept it.
            RuntimeApiError: It is unknown whether it did.
        """
        path, fields = _of(invocation)
        fields += self._error_fields(failure)
        await self._post("error", f"{path}/error", fields, failure.answer)

    async def stream(self, invocation: Invocation, streaming: Streaming) -> None:
        """Post a result in chunks, on a connection of its own, as AWS asks for it.

        If the chunks break off, the trailers tell why.

        Raises:
            StreamNotBegunError: There is no connection; nothing was sent, and an error
                may be posted instead.
            RefusedError: The Runtime API did not accept it, perhaps before its end.
            RuntimeApiError: It was not received in full before its time limit, or it is
                unknown whether it was accepted.
        """
        path, fields = _of(invocation)
        fields += [
            ("Content-Type", streaming.content_type),
            ("Lambda-Runtime-Function-Response-Mode", "streaming"),
            ("Trailer", ", ".join(STREAM_TRAILERS)),
        ]
        response = await self._send_chunks(f"{path}/response", fields, streaming)
        await self._connect_spare()
        _check_accepted("response", response)

    async def post_init_error(self, failure: Failure) -> None:
        """Tell the platform that no invocation can be served; then exit.

        Raises:
            RefusedError: The Runtime API did not accept it.
            RuntimeApiError: It is unknown whether it did.
        """
        fields = self._error_fields(failure)
        await self._post("init error", "/init/error", fields, failure.answer)

    async def restore_next(self) -> None:
        """Let the snapshot be taken; returns in an environment restored from it.

        The call has a connection of its own: no connection outlives a snapshot.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """
        await call_once(
            self._address, "restore next", "GET", f"{API_PATH}/restore/next"
        )

    async def post_restore_error(self, failure: Failure) -> None:
        """Tell the platform that the restored environment cannot be used; then exit.

        Raises:
            RefusedError: The Runtime API did not accept it.
            RuntimeApiError: It is unknown whether it did.
        """
        # The body has the module's own error, the header says when it happened.
        fields = self._error_fields(failure, "Runtime.AfterRestoreError")
        await self._post("restore error", "/restore/error", fields, failure.answer)

    async def aclose(self) -> None:
        """Close the connection, and the spare one for a stream."""
        await self._transport.aclose()
        if self._spare is not None:
            await self._spare.aclose()

    async def _post(
        self, call: str, path: str, fields: list[Field], body: bytes
    ) -> None:
        try:
            head = self._head("POST", path, fields, len(body))
            response = await self._transport.send(head, body)
        except HttpError as error:
            response = response_before(error, call)
        _check_accepted(call, response)

    async def _send_chunks(
        self, path: str, fields: list[Field], streaming: Streaming
    ) -> Response:
        def trailers() -> list[Field]:
            failure = streaming.chunks.failure
            return [] if failure is None else _trailers(failure)

        transport = self._spare or self._address.transport()
        self._spare = None
        try:
            head = self._head("POST", path, fields, None)
            async with asyncio.timeout(streaming.limit_s):
                if not transport.is_idle:
                    await transport.aclose()  # the peer closed the spare one
                    await transport.connect()
                return await transport.stream(head, streaming.chunks, trailers)
        except TimeoutError:
            detail = "the response was not taken before the deadline and is cut off"
            raise RuntimeApiError("response", detail) from None
        except ConnectError as error:
            raise _not_begun(error) from error
        except HttpError as error:
            return response_before(error, "response")
        finally:
            await transport.aclose()

    async def _connect_spare(self) -> None:
        """Connect for the next stream already, whose caller waits for the first byte.

        AWS asks for a connection that has carried a stream to be closed. A function
        that streams once will do so again.
        """
        spare = self._address.transport()
        with contextlib.suppress(ConnectError):  # the next stream tries again
            await spare.connect()
            self._spare = spare

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

    def _head(
        self, method: str, path: str, fields: list[Field], length: int | None
    ) -> bytes:
        lines = self._common + field_lines(fields)
        return request_head(method, API_PATH + path, lines, length)


def _of(invocation: Invocation) -> tuple[str, list[Field]]:
    """Return the path below which an outcome is posted, and the fields to echo."""
    fields: list[Field] = []
    if invocation.invocation_id is not None:
        fields.append(("Lambda-Runtime-Invocation-Id", invocation.invocation_id))
    return _path(invocation.request_id), fields


def _path(request_id: str) -> str:
    if request_id.isascii() and request_id.replace("-", "").isalnum():
        return f"/invocation/{request_id}"  # as AWS writes them
    segment = "".join(
        chr(byte) if byte in UNRESERVED else f"%{byte:02X}"
        for byte in request_id.encode()
    )
    if segment in (".", ".."):  # dot segments are removed from paths (RFC 3986, 5.2.4)
        segment = segment.replace(".", "%2E")
    return f"/invocation/{segment}"


def _check_accepted(call: str, response: Response) -> None:
    status = response.status
    if status != HTTP_ACCEPTED:
        raise refusal(call, response, REFUSALS.get(status, ""))


def _response_to_next(error: HttpError) -> Response:
    """Return a response whose body broke off, unless that body was to be the event.

    Raises:
        RuntimeApiError: It was, or not even a status was received.
    """
    if isinstance(error, TruncatedResponseError) and error.response.status == HTTP_OK:
        raise RuntimeApiError("next", short(error), status=HTTP_OK) from error
    return response_before(error, "next")


def _check_unique(response: Response) -> None:
    """Reject an event whose request id or deadline is ambiguous.

    Of any other field that is repeated, the last one counts.

    Raises:
        RuntimeApiError: There are two different request ids or deadlines.
    """
    for name in UNIQUE_HEADERS:
        if name in response.ambiguous:
            detail = f"{name} comes more than once and differs"
            raise RuntimeApiError("next", detail, status=response.status)


def _utf8(value: str) -> str:
    """Decode a header value as UTF-8 if it is valid UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _trailers(failure: Failure) -> list[Field]:
    """Return the fields that report an error after a stream, cut to the limit."""
    name, body_name = STREAM_TRAILERS
    error_type = failure.function_error_type
    # Without the body: two lines and the empty one behind them.
    taken = len(end_of_chunks([(name, error_type), (body_name, "")]))
    body = failure.shortened((TRAILERS_LIMIT_BYTES - taken) // 4 * 3).answer
    return [(name, error_type), (body_name, _base64(body))]


def _not_begun(error: ConnectError) -> StreamNotBegunError:
    cause = error.__cause__
    is_exhausted = isinstance(cause, OSError) and cause.errno in EXHAUSTED
    return StreamNotBegunError(str(error), is_exhausted=is_exhausted)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
