"""Web apps as people have them: modules that serve instead of exporting a handler."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.native.control import library_path
from tests.fixtures.packages import download
from tests.integration.harness import reports
from tests.integration.test_http import alb, v1, v2

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

FOLDER = Path(__file__).parents[1] / "fixtures" / "served"
APPS = ["deno_serve", "node", "express4", "express5", "fastify", "koa", "hono_node"]
CLIENT = "203.0.113.7"


def from_client(event: dict[str, Any]) -> dict[str, Any]:
    """Add the client's address, where each service has it."""
    context = event["requestContext"]
    if "http" in context:
        context["http"]["sourceIp"] = CLIENT
    elif "elb" in context:
        event["headers"]["x-forwarded-for"] = f"10.0.0.1, {CLIENT}"
    else:
        context["identity"] = {"sourceIp": CLIENT}
    return event


def post(path: str, media_type: str, body: bytes) -> dict[str, Any]:
    headers = {"host": "api.example.com", "content-type": media_type}
    return v2(path, "POST", body, headers=headers)


@pytest.fixture(scope="module")
def deno_dir() -> str:
    """Deno's cache with every package in it."""
    return download(FOLDER)


async def check(api: FakeRuntimeApi) -> None:
    """Send one request of each kind to an app of the folder."""
    facts = {"id": "7", "x": "a b", "ip": CLIENT}
    event = from_client(v2("/items/7", rawQueryString="x=a%20b"))
    result = (await api.invoke(event)).json()
    assert result["statusCode"] == 200, result
    assert [cookie.split(";")[0] for cookie in result["cookies"]] == ["a=1", "b=2"]
    assert json.loads(result["body"]) == facts
    query = {"multiValueQueryStringParameters": {"x": ["a b"]}}
    result = (await api.invoke(from_client(v1("/items/7", **query)))).json()
    assert len(result["multiValueHeaders"]["set-cookie"]) == 2
    assert json.loads(result["body"]) == facts
    query = {"queryStringParameters": {"x": "a%20b"}}
    result = (await api.invoke(from_client(alb("/items/7", **query)))).json()
    assert (result["statusDescription"], json.loads(result["body"])) == (
        "200 OK",
        facts,
    )
    text = json.dumps({"ü": [1]}, ensure_ascii=False).encode()
    result = (await api.invoke(post("/items", "application/json", text))).json()
    assert (result["statusCode"], json.loads(result["body"])) == (201, {"ü": [1]})
    binary = bytes(range(256)) * 300
    event = post("/bytes", "application/octet-stream", binary)
    result = (await api.invoke(event)).json()
    assert result["isBase64Encoded"] is True
    assert base64.b64decode(result["body"]) == binary
    result = (await api.invoke(v2("/pieces"))).json()
    assert result["body"] == "one two three"
    assert (await api.invoke(v2("/throws"))).json()["statusCode"] == 500
    assert (await api.invoke(v2("/nowhere"))).json()["statusCode"] == 404
    result = (await api.invoke(v2("/items/7", "HEAD"))).json()
    assert result["body"] == ""
    await api.wait_for_next()


@pytest.mark.parametrize("app", APPS)
async def test_an_app_answers_unchanged(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, app: str
) -> None:
    async with make_runtime(FOLDER, f"{app}.handler", DENO_DIR=deno_dir):
        await check(api)


@pytest.mark.every_way("reuse", "server")
@pytest.mark.parametrize("app", ["deno_serve", "express5"])
async def test_an_app_answers_in_a_process_that_serves_more(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, app: str
) -> None:
    async with make_runtime(FOLDER, f"{app}.handler", DENO_DIR=deno_dir):
        await check(api)


@pytest.mark.parametrize("app", ["deno_serve", "node", "fastify"])
async def test_a_streamed_answer_streams(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, app: str
) -> None:
    async with make_runtime(
        FOLDER,
        f"{app}.handler",
        DENO_DIR=deno_dir,
        LAMBDA_DENO_RESPONSE_MODE="stream",
    ):
        answer = await api.invoke(v2("/pieces"))
        prelude, _, body = answer.body.partition(b"\0" * 8)
        assert json.loads(prelude)["headers"]["content-type"].startswith("text/plain")
        assert body == b"one two three"
        assert len(answer.chunks) == 3
        answer = await api.invoke(v2("/items/7", "HEAD"))
        prelude, _, body = answer.body.partition(b"\0" * 8)
        assert (json.loads(prelude)["statusCode"], body) == (200, b"")


@pytest.mark.skipif(library_path() is None, reason="make native builds the library")
@pytest.mark.parametrize("app", ["deno_serve", "node"])
async def test_a_process_with_an_app_can_be_copied(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, app: str
) -> None:
    async with make_runtime(
        FOLDER,
        f"{app}.handler",
        DENO_DIR=deno_dir,
        LAMBDA_DENO_START="auto",
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_WARM="ready",
    ) as runtime:
        await check(api)
        assert reports(runtime.log)[-1]["start"] == "fork"
