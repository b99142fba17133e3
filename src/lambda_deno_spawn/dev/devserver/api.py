"""The Lambda API, as far as it invokes functions: for AWS's SDKs and its command line.

Knows the calls, their headers, and how Lambda refuses them. Does not know how a
function is run. Signatures are not checked: a client that ``guard`` lets through
may invoke. Specification: AWS Lambda API reference, Invoke, InvokeWithResponseStream,
InvokeAsync, ListFunctions, GetFunctionConfiguration, GetFunctionUrlConfig and "Common
error types".
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.requests import ClientDisconnect
from starlette.routing import Route

from lambda_deno_spawn.dev.devserver import eventstream
from lambda_deno_spawn.dev.devserver.answers import (
    Answer,
    BodyTooLargeError,
    read_body,
)
from lambda_deno_spawn.dev.devserver.fleet import TooManyRequestsError
from lambda_deno_spawn.dev.devserver.journal import Source
from lambda_deno_spawn.dev.devserver.local_lambda import LATEST, UnknownFunctionError
from lambda_deno_spawn.dev.devserver.url_config import UrlConfig
from lambda_deno_spawn.dev.local.environment import (
    RESPONSE_LIMIT_BYTES,
    EmulatedOutcome,
    OutcomeKind,
)
from lambda_deno_spawn.dev.project.quotas import (
    ASYNC_EVENT_LIMIT_BYTES,
    EVENT_LIMIT_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from lambda_deno_spawn.dev.devserver.fleet import Fleet
    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda

CLIENT_CONTEXT_LIMIT_BYTES = 3583
LOG_TAIL_BYTES = 4096
TENANT_ID = re.compile(r"[A-Za-z0-9._:/=+\-@ ]{1,256}")
QUALIFIER = re.compile(r"\$LATEST(?:\.PUBLISHED)?|[A-Za-z0-9_-]{1,128}")
JSON = "application/json"


class RefusedError(Exception):
    """A call is refused, as Lambda would.

    Attributes:
        status: HTTP status.
        code: Name of the exception in AWS's SDKs.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class LambdaApi:
    """The Lambda API for the functions that are served."""

    def __init__(self, local_lambda: LocalLambda) -> None:
        """Serve no call yet."""
        self._lambda = local_lambda

    def routes(self) -> list[Route]:
        """Return the calls, with their paths."""
        functions = "/2015-03-31/functions"
        one = "/{name}"
        stream = "/2021-11-15/functions/{name}/response-streaming-invocations"
        old = "/2014-11-13/functions/{name}/invoke-async"
        table: list[tuple[str, str, Callable[[Request], Awaitable[Answer]]]] = [
            ("POST", f"{functions}{one}/invocations", self._invoke),
            ("POST", stream, self._invoke_with_stream),
            ("POST", old, self._invoke_async),
            ("POST", f"{old}/", self._invoke_async),
            ("GET", functions, self._list),
            ("GET", f"{functions}/", self._list),
            ("GET", f"{functions}{one}", self._get),
            ("GET", f"{functions}{one}/configuration", self._get_configuration),
            ("GET", "/2021-10-31/functions/{name}/url", self._get_url),
        ]
        routes = [
            Route(path, _refusing(call), methods=[method])
            for method, path, call in table
        ]
        every = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
        rest = Route("/20{rest:path}", _refusing(_unknown), methods=every)
        return [*routes, rest]

    # The calls.

    async def _invoke(self, request: Request) -> Answer:
        kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
        if kind not in ("RequestResponse", "Event", "DryRun"):
            raise RefusedError(
                400,
                "InvalidParameterValueException",
                f"Value {kind!r} at 'invocationType' failed to satisfy constraint: "
                "Member must satisfy enum value set: [Event, RequestResponse, DryRun]",
            )
        is_async = kind == "Event"
        limit_bytes = ASYNC_EVENT_LIMIT_BYTES if is_async else EVENT_LIMIT_BYTES
        fleet, qualifier = self._find(request)
        event = await _read_event(request, limit_bytes, "InvokeFunction")
        if kind == "DryRun":
            return Answer(204, [("X-Amz-Executed-Version", LATEST)])
        source = Source.ASYNC if is_async else Source.INVOKE
        job = self._begin(request, fleet, qualifier, event, source)
        if is_async:
            self._lambda.journal.respond(job.record, 202, [])
            return Answer(202, [("x-amzn-RequestId", job.record.id)])
        outcome = _buffered(await job.answered())
        headers = [
            ("Content-Type", outcome.content_type or JSON),
            ("X-Amz-Executed-Version", LATEST),
            ("x-amzn-RequestId", job.record.id),
        ]
        if outcome.kind is not OutcomeKind.RESPONSE:
            headers.append(("X-Amz-Function-Error", "Unhandled"))
            headers[0] = ("Content-Type", JSON)
        # Before the request has ended, which the log has to wait for.
        self._lambda.journal.respond(job.record, 200, headers)
        if _wants_log(request):
            headers.append(("X-Amz-Log-Result", await _log_tail(job)))
        return Answer(200, headers, outcome.body)

    async def _invoke_with_stream(self, request: Request) -> Answer:
        fleet, qualifier = self._find(request)
        operation = "InvokeFunctionWithResponseStream"
        event = await _read_event(request, EVENT_LIMIT_BYTES, operation)
        if request.headers.get("x-amz-invocation-type") == "DryRun":
            return Answer(204, [("X-Amz-Executed-Version", LATEST)])
        job = self._begin(request, fleet, qualifier, event, Source.STREAM)
        headers = [
            ("Content-Type", eventstream.CONTENT_TYPE),
            ("X-Amz-Executed-Version", LATEST),
            ("x-amzn-RequestId", job.record.id),
        ]
        self._lambda.journal.respond(job.record, 200, headers)
        pieces = _messages(job, has_log=_wants_log(request))
        return Answer(200, headers, pieces=pieces, on_end=job.hang_up)

    async def _invoke_async(self, request: Request) -> Answer:
        fleet, qualifier = self._find(request)
        event = await _read_event(request, ASYNC_EVENT_LIMIT_BYTES, "InvokeAsync")
        job = self._begin(request, fleet, qualifier, event, Source.ASYNC)
        self._lambda.journal.respond(job.record, 202, [])
        return _json(202, {"Status": 202})

    async def _list(self, _: Request) -> Answer:
        fleets = self._lambda.fleets.values()
        return _json(200, {"Functions": [_configuration(fleet) for fleet in fleets]})

    async def _get(self, request: Request) -> Answer:
        fleet, _ = self._find(request)
        code = {"RepositoryType": "local", "Location": str(fleet.function.folder)}
        return _json(200, {"Configuration": _configuration(fleet), "Code": code})

    async def _get_configuration(self, request: Request) -> Answer:
        fleet, _ = self._find(request)
        return _json(200, _configuration(fleet))

    async def _get_url(self, request: Request) -> Answer:
        fleet, _ = self._find(request)
        config = UrlConfig.of(fleet.function.project.aws)
        # Not every system knows the address of NAME.localhost.
        folder = "" if self._lambda.only() is fleet else f"{fleet.function.name}/"
        url = f"{self._lambda.url}/{folder}"
        return _json(
            200,
            {
                "FunctionUrl": url,
                "FunctionArn": fleet.arn,
                "AuthType": "AWS_IAM" if config.is_signed else "NONE",
                "InvokeMode": "BUFFERED",
            },
        )

    # Used by several routes.

    def _find(self, request: Request) -> tuple[Fleet, str | None]:
        try:
            fleet, in_name = self._lambda.find(request.path_params["name"])
        except UnknownFunctionError as error:
            raise RefusedError(404, "ResourceNotFoundException", str(error)) from error
        given = request.query_params.get("Qualifier")
        if given is not None and not QUALIFIER.fullmatch(given):
            raise RefusedError(
                400,
                "InvalidParameterValueException",
                f"Value {given!r} at 'qualifier' failed to satisfy constraint: Member "
                f"must satisfy regular expression pattern: {QUALIFIER.pattern}",
            )
        if given is not None and in_name not in (None, given):
            raise RefusedError(
                400,
                "InvalidParameterValueException",
                "The derived qualifier from the function name does not match the "
                "specified qualifier.",
            )
        return fleet, given or in_name

    def _begin(
        self,
        request: Request,
        fleet: Fleet,
        qualifier: str | None,
        event: bytes,
        source: Source,
    ) -> Job:
        tenant_id = request.headers.get("x-amz-tenant-id")
        if tenant_id is not None and not TENANT_ID.fullmatch(tenant_id):
            raise RefusedError(
                400,
                "InvalidParameterValueException",
                f"Value {tenant_id!r} at 'tenantId' failed to satisfy constraint: "
                "Member must have 1 to 256 characters out of letters, digits, spaces "
                "and . _ : / = + - @",
            )
        trace = request.headers.get("x-amzn-trace-id")
        try:
            if source is Source.ASYNC:
                return self._lambda.begin_async(
                    fleet, event, qualifier=qualifier, tenant_id=tenant_id, trace=trace
                )
            return self._lambda.begin(
                fleet,
                event,
                source,
                qualifier=qualifier,
                client_context=_client_context(request),
                tenant_id=tenant_id,
                trace=trace,
            )
        except TooManyRequestsError as error:
            raise RefusedError(429, "TooManyRequestsException", str(error)) from error


def _refusing(
    call: Callable[[Request], Awaitable[Answer]],
) -> Callable[[Request], Awaitable[Answer]]:
    """Return a call that answers as Lambda when it is refused."""

    async def answer(request: Request) -> Answer:
        try:
            return await call(request)
        except RefusedError as error:
            member = "Message" if error.status == 404 else "message"
            body = {"Type": "User", member: str(error)}
            return _json(error.status, body, ("x-amzn-ErrorType", error.code))
        except ClientDisconnect:
            return Answer(400, [])  # nothing was invoked, and there is no reader

    return answer


async def _unknown(request: Request) -> Answer:
    message = (
        f"dev does not know the call {request.method} {request.url.path}; it invokes "
        "functions, and lists them"
    )
    raise RefusedError(404, "UnknownOperationException", message)


def _json(status: int, value: object, *headers: tuple[str, str]) -> Answer:
    fields = [("Content-Type", JSON), ("x-amzn-RequestId", str(uuid.uuid4()))]
    return Answer(status, [*fields, *headers], json.dumps(value).encode())


async def _read_event(request: Request, limit_bytes: int, operation: str) -> bytes:
    """Return the event of a call, byte for byte.

    Raises:
        RefusedError: It is too large, or not JSON.
    """
    try:
        event = await read_body(request, limit_bytes)
    except BodyTooLargeError:
        raise RefusedError(
            413,
            "RequestTooLargeException",
            f"Request must be smaller than {limit_bytes} bytes for the {operation} "
            "operation",
        ) from None
    if not event:
        return b"{}"
    try:
        # Python's limits for numbers are not the handler's.
        json.loads(
            event.decode(),
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else error
        raise RefusedError(
            400,
            "InvalidRequestContentException",
            f"Could not parse request body into json: {problem}",
        ) from error
    return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} exists in JavaScript, but not in JSON")


def _client_context(request: Request) -> str | None:
    """Return the client context as JSON text."""
    encoded = request.headers.get("x-amz-client-context")
    if not encoded:
        return None
    if len(encoded) <= CLIENT_CONTEXT_LIMIT_BYTES:
        try:
            text = base64.b64decode(encoded, validate=True).decode()
            if isinstance(json.loads(text), dict):
                return text
        except (ValueError, RecursionError):
            pass
    raise RefusedError(
        400,
        "InvalidRequestContentException",
        "Client context must be a valid Base64-encoded JSON object of at most "
        f"{CLIENT_CONTEXT_LIMIT_BYTES} bytes.",
    )


def _buffered(outcome: EmulatedOutcome) -> EmulatedOutcome:
    """Return what a caller without streaming gets: the whole response at once."""
    is_response = outcome.kind is OutcomeKind.RESPONSE
    if not is_response or len(outcome.body) <= RESPONSE_LIMIT_BYTES:
        return outcome
    limit = f"maximum allowed payload size ({RESPONSE_LIMIT_BYTES} bytes)"
    error_type = "Function.ResponseSizeTooLarge"
    error = {
        "errorType": error_type,
        "errorMessage": f"Response payload size exceeded {limit}.",
    }
    body = json.dumps(error).encode()
    return EmulatedOutcome(OutcomeKind.ERROR, body, error_type=error_type)


async def _messages(job: Job, *, has_log: bool) -> AsyncIterator[bytes]:
    """Yield the messages of InvokeWithResponseStream."""
    await job.begun()
    async for piece in job.pieces():
        if piece:
            yield eventstream.chunk(piece)
    outcome = job.outcome
    assert outcome is not None
    is_ok = outcome.kind is OutcomeKind.RESPONSE
    if is_ok and not job.is_streamed and outcome.body:
        yield eventstream.chunk(outcome.body)
    log = await _log_tail(job) if has_log else None
    if is_ok:
        yield eventstream.complete(log=log)
    else:
        details = outcome.body.decode(errors="replace")
        yield eventstream.complete("Unhandled", details, log)


def _wants_log(request: Request) -> bool:
    return request.headers.get("x-amz-log-type") == "Tail"


async def _log_tail(job: Job) -> str:
    """Return the end of the log in base64, as soon as it is complete."""
    await job.over()
    text = "".join(f"{line.text}\n" for line in job.record.log)
    return base64.b64encode(text.encode()[-LOG_TAIL_BYTES:]).decode()


def _configuration(fleet: Fleet) -> dict[str, Any]:
    function = fleet.function
    project = function.project
    return {
        "FunctionName": function.name,
        "FunctionArn": fleet.arn,
        "Runtime": project.runtime,
        "Handler": project.function.handler,
        "Description": project.description or "",
        "Timeout": round(function.timeout_s),
        "MemorySize": function.memory_mb,
        "Version": LATEST,
        "PackageType": "Zip",
        "Architectures": [project.arch.value],
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "RevisionId": str(fleet.code),
    }
