"""Functions behind HTTP: at ``/``, at ``/NAME/``, and at ``NAME.localhost``.

Knows which function a request is for, and how its response is sent: at once, or piece
by piece. Does not know events and results: see ``http_events``. Specification: AWS
Lambda Developer Guide, "Invoking Lambda function URLs" and "Response streaming".
"""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from starlette.requests import ClientDisconnect, Request

from lambda_deno_spawn.dev.devserver.answers import (
    Answer,
    BodyTooLargeError,
    CutError,
    read_body,
    request_fields,
)
from lambda_deno_spawn.dev.devserver.fleet import TooManyRequestsError
from lambda_deno_spawn.dev.devserver.functions import EventForm, InvokeMode
from lambda_deno_spawn.dev.devserver.guard import is_local, names_function
from lambda_deno_spawn.dev.devserver.http_events import (
    HttpRequest,
    HttpResponse,
    MalformedResultError,
    event_for,
    failure_for,
    prelude_response,
    response_for,
)
from lambda_deno_spawn.dev.devserver.journal import Source
from lambda_deno_spawn.dev.devserver.url_config import (
    ALLOW_ORIGIN,
    NotSignedError,
    UrlConfig,
    is_preflight,
    signer,
)
from lambda_deno_spawn.dev.local.environment import (
    RESPONSE_LIMIT_BYTES,
    OutcomeKind,
)
from lambda_deno_spawn.dev.local.response_stream import split_prelude
from lambda_deno_spawn.dev.project.quotas import EVENT_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from lambda_deno_spawn.dev.devserver.fleet import Fleet
    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ALB_LIMIT_BYTES = 1024 * 1024  # of a request's body, and of a result
STREAMING_FORMS = frozenset({EventForm.URL, EventForm.REST_API})
JSON = "application/json"
REQUEST_ID = "x-amzn-RequestId"
NO_WEBSOCKETS = (
    "Function URLs have no WebSockets: send an HTTP request, or have the response "
    "streamed"
)
HOW_TO_SIGN = (
    "The AuthType of this function URL is AWS_IAM: sign the request, as "
    '`lambda-deno-spawn call` does, or set auth = "NONE" in [url] of its lambda.toml'
)


class FunctionUrls:
    """The functions' URLs."""

    def __init__(
        self,
        local_lambda: LocalLambda,
        form: EventForm = EventForm.URL,
        mode: InvokeMode = InvokeMode.AUTO,
    ) -> None:
        """Serve no request yet.

        Args:
            local_lambda: The functions.
            form: What a request becomes.
            mode: How responses are sent.
        """
        self._lambda = local_lambda
        self._form = form
        self._mode = mode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to a function; every path may be one."""
        # Without Starlette's routes, which would take as long as all of the rest.
        request = Request(scope, receive, send)
        if request.method in METHODS:
            answer = await self._answer(request)
        else:
            answer = Answer(405, [("allow", ", ".join(METHODS))])
        await answer(scope, receive, send)

    def allowed_origins(self, request: Request) -> tuple[str, ...]:
        """Return the origin of a request if the function's CORS lets its pages in.

        "*" means pages of this machine here, such as a front end's own server: any page
        on the internet could invoke the function otherwise.
        """
        found = self._find(request)
        if isinstance(found, Answer):
            return ()
        cors = self._config(found[0]).cors
        origin = request_fields(request.scope).get("origin", "")
        if cors is None or not cors.allows(origin):
            return ()
        is_meant = origin in cors.origins or is_local(urlsplit(origin).netloc)
        return (origin,) if is_meant else ()

    def _config(self, fleet: Fleet) -> UrlConfig:
        if self._form is not EventForm.URL:
            return UrlConfig()
        return UrlConfig.of(fleet.function.project.aws)

    async def _answer(self, request: Request) -> Answer:
        found = self._find(request)
        if isinstance(found, Answer):
            return found
        fleet, path = found
        config, fields = self._config(fleet), request_fields(request.scope)
        origin = fields.get("origin", "")
        if config.cors is not None and is_preflight(request.method, fields):
            return Answer(200, config.cors.of_preflight(origin))
        if fields.get("upgrade", "").lower() == "websocket":
            return _message(400, NO_WEBSOCKETS)
        access_key = None
        if config.is_signed:
            query = request.scope["query_string"].decode("latin-1")
            try:
                access_key = signer(fields, query)
            except NotSignedError as error:
                return _message(403, f"{error}. {HOW_TO_SIGN}")
        answer = await self._call(request, fleet, path, access_key)
        if config.cors is not None:
            added = config.cors.of_response(origin)
            self._warn_of_two(request, fleet, answer, added)
            answer.headers += added
        return answer

    def _warn_of_two(
        self,
        request: Request,
        fleet: Fleet,
        answer: Answer,
        added: list[tuple[str, str]],
    ) -> None:
        """Tell the developer what a browser refuses: as on Lambda, both are sent."""
        names = [{name.lower() for name, _ in one} for one in (answer.headers, added)]
        if all(ALLOW_ORIGIN in one for one in names):
            self._lambda.tell_mistake(
                f"{request.method} {request.url.path}: the response has two "
                f"{ALLOW_ORIGIN}, one by [url.cors] and one by the function; browsers "
                "refuse it: remove one of them",
                fleet.function.name,
            )

    async def _call(
        self, request: Request, fleet: Fleet, path: str, access_key: str | None
    ) -> Answer:
        is_alb = self._form in (EventForm.ALB, EventForm.ALB_MULTI)
        try:
            limit_bytes = ALB_LIMIT_BYTES if is_alb else EVENT_LIMIT_BYTES
            body = await read_body(request, limit_bytes)
        except BodyTooLargeError:
            return _too_large(limit_bytes)
        except ClientDisconnect:
            return Answer(400, [])  # nothing was invoked, and there is no reader
        http = self._http_request(request, path, body, access_key)
        event = event_for(self._form, http, fleet.function.name)
        if len(event) > EVENT_LIMIT_BYTES:
            return _too_large(EVENT_LIMIT_BYTES)
        query = f"?{http.query}" if http.query else ""
        try:
            job = self._lambda.begin(
                fleet,
                event,
                Source.URL,
                request_id=http.request_id,
                trace=request_fields(request.scope).get("x-amzn-trace-id"),
                method=http.method,
                target=f"{path}{query}",
            )
        except TooManyRequestsError as error:
            return _message(429, str(error))
        answer = await self._respond(job)
        answer.headers = [
            (name, value)
            for name, value in answer.headers
            if name.lower() != REQUEST_ID.lower()
        ]
        answer.headers.append((REQUEST_ID, job.record.id))
        self._lambda.journal.respond(job.record, answer.status, answer.headers)
        return answer

    # Which function.

    def _find(self, request: Request) -> tuple[Fleet, str] | Answer:
        """Return the function and the path below its URL, or a response instead."""
        path = _raw_path(request)
        fleets = self._lambda.fleets
        host = request_fields(request.scope).get("host", "")
        if names_function(host):
            name = host.lower().partition(":")[0].rstrip(".")
            name = name.removesuffix(".localhost")
            by_host = {each.lower(): fleet for each, fleet in fleets.items()}
            fleet = by_host.get(name)
            return (fleet, path) if fleet is not None else self._unknown(name)
        only = self._lambda.only()
        if only is not None:
            return only, path
        first, slash, rest = path[1:].partition("/")
        fleet = fleets.get(first)
        if fleet is None:
            return self._unknown(first)
        if not slash:
            # Relative links of the function's pages are relative to its URL.
            query = request.url.query
            target = f"/{first}/" + (f"?{query}" if query else "")
            return Answer(308, [("location", target)])
        return fleet, f"/{rest}"

    def _unknown(self, name: str) -> Answer:
        urls = {each: f"{self._lambda.url}/{each}/" for each in self._lambda.fleets}
        what = (
            f"There is no function {name!r}" if name else "There are several functions"
        )
        body = {"message": f"{what}; these are served", "functions": urls}
        text = json.dumps(body, indent=2).encode() + b"\n"
        return Answer(404, [("content-type", JSON)], text)

    def _http_request(
        self, request: Request, path: str, body: bytes, access_key: str | None
    ) -> HttpRequest:
        query = request.scope["query_string"].decode("latin-1")
        return HttpRequest(
            method=request.method,
            path=path,
            query=query,
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw
            ],
            body=body,
            source_ip=request.client.host if request.client else "127.0.0.1",
            port=_port(request_fields(request.scope).get("host", "")),
            epoch_s=time.time(),
            request_id=str(uuid.uuid4()),
            access_key=access_key,
        )

    # Its response.

    async def _respond(self, job: Job) -> Answer:
        await job.begun()
        can_stream = self._form in STREAMING_FORMS
        if job.is_streamed and can_stream and self._mode is not InvokeMode.BUFFERED:
            return await self._stream(job)
        outcome = await job.answered()
        if outcome.kind is not OutcomeKind.RESPONSE:
            return _whole(failure_for(self._form, outcome.body))
        is_verbatim = self._mode is InvokeMode.STREAM and can_stream
        if is_verbatim:
            # A function URL with InvokeMode RESPONSE_STREAM passes on what it is given.
            headers = [("content-type", outcome.content_type or JSON)]
            return Answer(200, headers, outcome.body)
        try:
            if len(outcome.body) > RESPONSE_LIMIT_BYTES:
                raise MalformedResultError(  # noqa: TRY301
                    f"the streamed response has {len(outcome.body)} bytes, and "
                    f"{RESPONSE_LIMIT_BYTES} are possible without streaming"
                )
            return _whole(response_for(self._form, outcome.body))
        except MalformedResultError as error:
            return self._malformed(job, str(error))

    async def _stream(self, job: Job) -> Answer:
        """Return a streamed response; its status and headers are in a prelude."""
        head = bytearray()
        pieces = job.pieces()
        parts = None
        async for piece in pieces:
            head += piece
            parts = split_prelude(head, job.content_type)
            if parts is not None:
                break
        prelude, first = parts or (None, bytes(head))
        outcome = job.outcome
        is_failed = outcome is not None and outcome.kind is not OutcomeKind.RESPONSE
        if parts is None and outcome is not None and is_failed:
            return _whole(failure_for(self._form, outcome.body))
        if prelude is None:
            content_type = job.content_type or "application/octet-stream"
            response = HttpResponse(200, [("content-type", content_type)])
        else:
            try:
                response = prelude_response(prelude.fields)
            except MalformedResultError as error:
                job.hang_up()
                return self._malformed(job, str(error))
        rest = _rest(job, first, pieces)
        status, headers = response.status, response.headers
        return Answer(status, headers, pieces=rest, on_end=job.hang_up)

    def _malformed(self, job: Job, problem: str) -> Answer:
        """Return the response to a result that is not one."""
        text = f"Cannot make a response of the result: {problem}"
        if job.is_streamed:
            text += "; the function streams, which this caller cannot take"
        now_ms = job.now_ms()
        self._lambda.journal.log(job.record, now_ms, text)
        error = {"errorType": "MalformedResult", "errorMessage": text}
        return _whole(failure_for(self._form, json.dumps(error).encode()))


async def _rest(
    job: Job, first: bytes, pieces: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the body of a streamed response; raise if it breaks off."""
    if first:
        yield first
    async for piece in pieces:
        yield piece
    outcome = job.outcome
    if outcome is None or outcome.kind is not OutcomeKind.RESPONSE:
        raise CutError


def _whole(response: HttpResponse) -> Answer:
    return Answer(response.status, response.headers, response.body)


def _port(host: str) -> int:
    """Return the port in a ``Host`` header that names this machine."""
    port = host.rpartition(":")[2]
    return int(port) if port.isdecimal() else 80


def _raw_path(request: Request) -> str:
    """Return the path as it was sent."""
    raw = request.scope.get("raw_path")
    if isinstance(raw, bytes) and raw:
        return raw.partition(b"?")[0].decode("latin-1")
    return quote(request.url.path) or "/"


def _message(status: int, text: str) -> Answer:
    body = json.dumps({"Message": text}).encode()
    return Answer(status, [("content-type", JSON)], body)


def _too_large(limit_bytes: int) -> Answer:
    return _message(
        413,
        f"Request must be smaller than {limit_bytes} bytes for the InvokeFunction "
        "operation",
    )
