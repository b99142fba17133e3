"""Which application answers a request, called as uvicorn would."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lambda_deno_spawn.dev.devserver.server import OWN_PATH, application

if TYPE_CHECKING:
    from starlette.requests import Request


def answers(name: str) -> Any:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(name)

    return answer


async def fails(_: Request) -> PlainTextResponse:
    raise ValueError("mistake")


async def get(
    path: str, errors: list[str] | None = None, **headers: str
) -> tuple[int, str]:
    """Return status and body of a response."""
    fields = {"host": "localhost:3000", **headers}
    app = application(
        [Route("/2015-03-31/functions", answers("api"))],
        Starlette(
            routes=[Route("/fail", fails), Route("/{path:path}", answers("function"))]
        ),
        [Route("/", answers("page"))],
        on_error=(errors if errors is not None else []).append,
    )
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(n.encode(), v.encode()) for n, v in fields.items()],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], body.decode()


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/", "localhost", "function"),
        ("/a/b", "127.0.0.1:3000", "function"),
        ("/2015-03-31/functions", "localhost:3000", "api"),
        ("/_/", "localhost:3000", "page"),
        ("/_/", "f.localhost:3000", "function"),
        ("/2015-03-31/functions", "f.localhost:3000", "function"),
    ],
)
async def test_a_path_has_one_owner(path: str, host: str, expected: str) -> None:
    assert await get(path, host=host) == (200, expected)


async def test_what_is_below_our_own_path_never_reaches_a_function() -> None:
    assert (await get("/_/none"))[0] == 404


def operations() -> list[str]:
    model = botocore.session.get_session().get_service_model("lambda")
    paths = (model.operation_model(name).http for name in model.operation_names)
    uris = (http["requestUri"].partition("?")[0] for http in paths)
    return [re.sub(r"\{[^}]*\}", "x", uri) for uri in uris]


def test_no_call_of_lambda_s_api_is_taken_for_a_function() -> None:
    """A tool that asked for an alias would have run the function."""
    assert [path for path in operations() if not OWN_PATH.fullmatch(path)] == []
    for path in ("/2024-05-01/my-day", "/2024-05-01/", "/functions/x", "/_x", "/20"):
        assert not OWN_PATH.fullmatch(path)


async def test_a_refused_request_reaches_nothing() -> None:
    status, body = await get("/", origin="https://evil.example")
    assert status == 403
    assert "evil.example" in body


async def test_a_mistake_of_ours_is_told() -> None:
    errors: list[str] = []
    with pytest.raises(ValueError, match="mistake"):
        await get("/fail", errors)
    assert errors == ["Cannot answer GET /fail: ValueError: mistake"]
