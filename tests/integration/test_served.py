"""Web apps as people have them: modules that serve instead of exporting a handler."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.native.control import library_path
from tests.fixtures.packages import download
from tests.fixtures.ports import free_port
from tests.integration.harness import reports
from tests.integration.test_http import alb, v1, v2

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

FOLDER = Path(__file__).parents[1] / "fixtures" / "served"
CLIENT = "203.0.113.7"
# Apps that do not log an error of a route.
QUIET = {"fastify", "node"}


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
    event = v1("/items/7", multiValueQueryStringParameters={"x": ["a b"]})
    result = (await api.invoke(from_client(event))).json()
    assert len(result["multiValueHeaders"]["set-cookie"]) == 2
    assert json.loads(result["body"]) == facts
    event = alb("/items/7", queryStringParameters={"x": "a%20b"})
    result = (await api.invoke(from_client(event))).json()
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


@pytest.mark.cases(3)  # one for each way
@pytest.mark.parametrize(
    ("app", "way"),
    [
        ("deno_serve", "fresh"),
        ("express5", "fresh"),
        ("express4", "server"),
        ("node", "reuse"),
        ("fastify", "server"),
        ("koa", "reuse"),
        ("hono_node", "server"),
        ("deno_serve", "server"),
    ],
    indirect=["way"],
)
async def test_an_app_answers_unchanged(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, app: str
) -> None:
    async with make_runtime(FOLDER, f"{app}.handler", DENO_DIR=deno_dir) as runtime:
        await check(api)
        # Express logs it in a later turn of the event loop; the others' way is theirs.
        assert app in QUIET or runtime.log.count("TypeError: the route threw") == 1


@pytest.mark.cases(1)
@pytest.mark.parametrize("app", ["deno_serve", "fastify"])
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


@pytest.mark.cases(1)
@pytest.mark.skipif(library_path() is None, reason="make native builds the library")
@pytest.mark.parametrize("file", ["deno_serve.ts", "node.js"])
async def test_a_process_with_an_app_can_be_copied(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, file: str
) -> None:
    source = (FOLDER / file).read_text(encoding="utf-8")
    async with make_runtime(
        {f"function.{file.rpartition('.')[2]}": source},
        LAMBDA_DENO_START="auto",
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_WARM="ready",
    ) as runtime:
        await check(api)
        starts = {report["start"] for report in reports(runtime.log)}
        assert "fork" in starts, runtime.log


UPGRADE = {
    "headers": {
        "host": "api.example.com",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
}
DENO_ODD = """
const found: string[] = [];
const app = (request: Request, info: any): any => {
  switch (new URL(request.url).pathname) {
    case "/upgrade":
      return Deno.upgradeWebSocket(request).response;
    case "/wrong":
      return "text";
    case "/waits":
      return new Promise(() => {});
  }
  return Response.json({ found, path: info.event.rawPath });
};
// No user but root may use this port, and no process the next one twice.
Deno.serve({ port: 80, onListen: ({ port }) => found.push(`port ${port}`) }, app);
try {
  Deno.serve({ port: 80 }, app);
} catch (error) {
  found.push((error as Error).name);
}
Deno.serve({ port: 9090 }, () => new Response("another app"));
"""


async def test_what_is_odd_with_deno_serve_is_answered_without_permissions(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.ts": DENO_ODD}
    async with make_runtime(files, LAMBDA_DENO_PERMISSIONS="none") as runtime:
        result = (await api.invoke(v2("/upgrade") | UPGRADE)).json()
        assert (result["statusCode"], "one HTTP response" in result["body"]) == (
            501,
            True,
        )
        result = (await api.invoke(v2("/wrong"))).json()
        assert (result["statusCode"], result["body"]) == (500, "Internal Server Error")
        result = (await api.invoke(v2("/waits"))).json()
        assert result["errorType"] == "Runtime.HandlerNeverSettled"
        result = (await api.invoke({"Records": []})).json()
        assert result["errorType"] == "Runtime.UnsupportedEvent"
        result = (await api.invoke(v2("/facts"))).json()
        assert json.loads(result["body"]) == {
            "found": ["port 80", "AddrInUse"],
            "path": "/facts",
        }
        await api.wait_for_next()
        assert "Cannot upgrade to a WebSocket" in runtime.log
        assert "Return value from serve handler must be a response" in runtime.log
        assert "port 80, which gets the events, and on 9090" in runtime.log


NODE_ODD = """
const { createServer } = require("node:http");
const app = createServer((request, response) => {
  switch (request.url) {
    case "/destroys":
      return request.socket.destroy();
    case "/throws":
      throw new RangeError("the listener threw");
    case "/rejects":
      return Promise.reject(new RangeError("the listener rejected"));
    case "/waits":
      return;
  }
  response.on("finish", () => console.log("finished", request.url));
  response.end("plain");
});
app.on("upgrade", (request, socket) => socket.destroy());
// Restify's servers pass on every event, those of node:https too.
app.on("secureConnection", () => {});
// It is told to listen by whatever starts it.
module.exports = app;
"""


async def test_what_is_odd_with_a_server_of_node_is_answered(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.cjs": NODE_ODD}) as runtime:
        assert (await api.invoke(v2("/upgrade") | UPGRADE)).json()["statusCode"] == 501
        failed = (await api.invoke(v2("/destroys"))).json()
        assert "closed the connection before" in failed["errorMessage"]
        for path, message in (
            ("/throws", "the listener threw"),
            ("/rejects", "RangeError: the listener rejected"),
        ):
            failed = (await api.invoke(v2(path))).json()
            assert failed["errorMessage"] == message
        failed = (await api.invoke(v2("/waits"))).json()
        assert failed["errorType"] == "Runtime.HandlerNeverSettled"
        assert "can never end its response" in failed["errorMessage"]
        assert (await api.invoke(v2("/plain"))).json()["statusCode"] == 200
        await api.wait_for_next()
        assert runtime.log.count("finished /plain") == 1


async def test_servers_beside_a_handler_listen(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    ports = [free_port()]
    while len(set(ports)) < 2:
        ports = [free_port(), free_port()]
    source = f"""
    import {{ createServer }} from "node:http";
    const options = {{ port: {ports[0]}, hostname: "127.0.0.1", onListen() {{}} }};
    Deno.serve(options, () => new Response("deno"));
    createServer((_, response) => response.end("node")).listen({ports[1]});
    export async function handler() {{
      const answers = {ports}.map((port) => fetch(`http://127.0.0.1:${{port}}/`));
      const texts = (await Promise.all(answers)).map((answer) => answer.text());
      return await Promise.all(texts);
    }}
    """
    async with make_runtime({"function.mjs": source}):
        assert (await api.invoke(v2("/"))).json() == ["deno", "node"]
        await api.wait_for_next()
