"""The console page of ``dev`` and its requests: routes below ``/_/``.

Knows the page's files, its requests, and which headers keep everything else out of it:
nothing is loaded from elsewhere, no script or style is inline, no other page may frame
it. Who may send requests at all is in ``guard``. Does not know how functions run.
Specification: docs/dev.md, "The console page".
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lambda_deno_spawn.dev.devserver.fleet import TooManyRequestsError
from lambda_deno_spawn.dev.devserver.journal import Source
from lambda_deno_spawn.dev.project.quotas import EVENT_LIMIT_BYTES
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from lambda_deno_spawn.dev.devserver.fleet import Fleet
    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.journal import Record
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda

PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SAMPLES = "events"  # folder of a function
SAMPLES_LIMIT = 100
SAMPLE_LIMIT_BYTES = 1024 * 1024
BEAT_S = 15.0  # a comment on a quiet stream, so that both ends notice a lost one


class Console:
    """The page of one ``dev``."""

    def __init__(
        self, local: LocalLambda, record: Callable[[Record], Path] | None = None
    ) -> None:
        """Show the requests of ``local``.

        Args:
            local: The functions and the journal.
            record: Writes the recording of a request, and returns its file.
        """
        self._local = local
        self._record = record
        # A task without a reference could be collected before it ends.
        self._reading: set[asyncio.Task[object]] = set()

    def routes(self) -> list[BaseRoute]:
        """Return the routes, without the ``/_`` in front."""
        request = "/api/requests/{request_id}"
        files = [Route(f"/{name}", self._file) for name in FILES]
        return [
            *files,
            Route("/api/state", self._state),
            Route("/api/changes", self._changes),
            Route("/api/functions/{name}/samples", self._samples),
            Route("/api/functions/{name}/send", self._send, methods=["POST"]),
            Route(request, self._details),
            Route(f"{request}/again", self._again, methods=["POST"]),
            Route(f"{request}/record", self._write, methods=["POST"]),
        ]

    async def _file(self, request: Request) -> Response:
        name, media_type = FILES[request.url.path.rpartition("/")[2]]
        content = await run_in_threadpool((PAGE / name).read_bytes)
        return Response(content, media_type=media_type, headers=HEADERS)

    async def _state(self, _: Request) -> Response:
        local = self._local
        return _json(
            {
                "url": local.url,
                "functions": [
                    self._function(name, fleet)
                    for name, fleet in sorted(local.fleets.items())
                ],
                "records": [record.summary() for record in local.journal.records()],
                "notices": [notice.to_json() for notice in local.journal.notices()],
                "canRecord": self._record is not None,
            }
        )

    def _function(self, name: str, fleet: Fleet) -> dict[str, object]:
        function = fleet.function
        only = self._local.only() is not None
        return {
            "name": name,
            "url": f"{self._local.url}/" if only else f"{self._local.url}/{name}/",
            "folder": str(function.folder),
            "handler": function.project.function.handler,
            "memoryMb": function.memory_mb,
            "timeoutS": function.timeout_s,
            "code": fleet.code,
            "environments": len(fleet.environments),
            "waiting": fleet.waiting,
        }

    async def _changes(self, request: Request) -> Response:
        async def messages() -> AsyncIterator[bytes]:
            with self._local.journal.subscribe() as subscription:
                yield b": connected\n\n"
                changes = aiter(subscription)
                coming = asyncio.ensure_future(anext(changes, None))
                try:
                    while True:
                        done, _ = await asyncio.wait({coming}, timeout=BEAT_S)
                        if not done:
                            if await request.is_disconnected():
                                return
                            yield b": quiet\n\n"
                            continue
                        change = coming.result()
                        if change is None:  # dev ends
                            return
                        yield change.sse()
                        coming = asyncio.ensure_future(anext(changes, None))
                finally:
                    coming.cancel()

        return StreamingResponse(
            messages(), media_type="text/event-stream", headers=HEADERS
        )

    async def _details(self, request: Request) -> Response:
        record = self._local.journal.find(request.path_params["request_id"])
        if record is None:
            return _problem(404, "This request is not kept any longer")
        return _json(record.details())

    async def _samples(self, request: Request) -> Response:
        fleet = self._local.fleets.get(request.path_params["name"])
        if fleet is None:
            return _problem(404, "There is no such function any more")
        return _json(await run_in_threadpool(samples, fleet.function.folder))

    async def _send(self, request: Request) -> Response:
        fleet = self._local.fleets.get(request.path_params["name"])
        if fleet is None:
            return _problem(404, "There is no such function any more")
        event = bytearray()
        async for chunk in request.stream():
            event += chunk
            if len(event) > EVENT_LIMIT_BYTES:
                return _problem(
                    413, f"The event has more than {EVENT_LIMIT_BYTES} bytes"
                )
        try:
            value = json.loads(event)
        except (ValueError, RecursionError) as error:
            return _problem(400, f"The event is not JSON: {error}")
        method, target = http_request(value)
        return self._begun(fleet, bytes(event), method=method, target=target)

    async def _again(self, request: Request) -> Response:
        record = self._local.journal.find(request.path_params["request_id"])
        if record is None:
            return _problem(404, "This request is not kept any longer")
        facts = record.facts
        fleet = self._local.fleets.get(facts.function)
        if fleet is None:
            return _problem(404, "There is no such function any more")
        return self._begun(
            fleet,
            facts.event,
            qualifier=facts.qualifier,
            client_context=facts.client_context,
            cognito_identity=facts.cognito_identity,
            tenant_id=facts.tenant_id,
            method=facts.method,
            target=facts.target,
            replay_of=record.id,
        )

    def _begun(self, fleet: Fleet, event: bytes, **facts: str | None) -> Response:
        try:
            job = self._local.begin(fleet, event, Source.CONSOLE, **facts)
        except TooManyRequestsError as error:
            return _problem(429, str(error))
        task = asyncio.create_task(self._finish(job))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return _json({"id": job.record.id}, 202)

    async def _finish(self, job: Job) -> None:
        """Read a response to its end, and note the status that it stands for."""
        await job.answered()
        record = job.record
        if record.is_ok and record.facts.method is not None and not record.is_streamed:
            status = http_status(bytes(record.result))
            if status is not None:
                self._local.journal.respond(record, status, [])

    async def _write(self, request: Request) -> Response:
        record = self._local.journal.find(request.path_params["request_id"])
        if record is None or self._record is None:
            return _problem(404, "This request is not kept any longer")
        if record.times.ended_ms is None:
            return _problem(409, "This request has not ended yet")
        try:
            path = await run_in_threadpool(self._record, record)
        except UsageError as error:
            return _problem(500, str(error))
        return _json({"file": str(path)})


def http_request(event: object) -> tuple[str | None, str | None]:
    """Return method and target of an HTTP event; None and None for another one."""
    match event:
        case {
            "requestContext": {"http": {"method": str(method)}},
            "rawPath": str(path),
            **rest,
        }:
            query = rest.get("rawQueryString")
            return method, f"{path}?{query}" if query else path
        case {"httpMethod": str(method), "path": str(path)}:
            return method, path
    return None, None


def http_status(result: bytes) -> int | None:
    """Return the status in a result of the form that function URLs expect."""
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        return None
    status = value.get("statusCode") if isinstance(value, dict) else None
    return status if isinstance(status, int) and 100 <= status <= 599 else None


def samples(folder: Path) -> list[dict[str, str]]:
    """Return the events in a function's folder, by their file names."""
    found: list[dict[str, str]] = []
    try:
        paths = sorted((folder / SAMPLES).glob("*.json"))
    except OSError:
        paths = []
    for path in [folder / "event.json", *paths][: SAMPLES_LIMIT + 1]:
        try:
            if path.is_file() and path.stat().st_size <= SAMPLE_LIMIT_BYTES:
                text = path.read_text("utf-8")
                found.append({"name": path.name, "event": text})
        except (OSError, UnicodeDecodeError):
            continue  # an unreadable file is not a sample
    return found


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, headers=HEADERS)


def _problem(status: int, text: str) -> Response:
    return _json({"problem": text}, status)
