"""Fetch handlers behind every front door, through the real runtime."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [
    pytest.mark.deno,
    pytest.mark.every_way("fresh", "server"),
]

APP = """
export default {
  async fetch(request: Request, context: any): Promise<Response> {
    const url = new URL(request.url);
    switch (url.pathname) {
      case "/echo":
        return new Response(request.body, { headers: request.headers });
      case "/facts":
        return Response.json({
          method: request.method,
          url: request.url,
          cookie: request.headers.get("cookie"),
          requestId: context.awsRequestId,
          raw: context.event.requestContext !== undefined,
          remains: context.getRemainingTimeInMillis() > 0,
          aborted: request.signal.aborted,
        });
      case "/cookies": {
        const headers = new Headers({ "x-a": "1" });
        headers.append("set-cookie", "a=1; Path=/");
        headers.append("set-cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT");
        return new Response("ok", { headers });
      }
      case "/nothing":
        return new Response(null, { status: 204 });
      case "/redirect":
        return Response.redirect("https://example.com/else", 302);
      case "/error":
        return Response.error();
      case "/broken":
        return new Response(new ReadableStream({
          start(controller) {
            controller.enqueue(new Uint8Array([1]));
          },
          pull() {
            throw new RangeError("the body broke");
          },
        }));
      case "/wrong":
        return "no response" as unknown as Response;
      case "/status":
        return new Response("", { status: 999 });
      case "/header":
        return new Response("", { headers: { "x-bad": "control \0 byte" } });
      case "/throws":
        throw new TypeError("fetch threw");
      case "/tokens":
        return new Response(ReadableStream.from((async function* () {
          for (const token of ["one ", "two ", "three"]) {
            yield new TextEncoder().encode(token);
            await new Promise((resolve) => setTimeout(resolve, 30));
          }
        })()), { status: 207, headers: { "content-type": "text/plain" } });
    }
    return new Response("not found", { status: 404 });
  },
};
"""


def v2(
    path: str, method: str = "GET", body: bytes | None = None, **more: Any
) -> dict[str, Any]:
    """Write the event of an HTTP API, format 2.0, or of a function URL."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "abc.lambda-url.us-east-1.on.aws"},
        "requestContext": {
            "domainName": "abc.lambda-url.us-east-1.on.aws",
            "http": {"method": method, "path": path},
        },
        "isBase64Encoded": False,
    }
    if body is not None:
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return event | more


def v1(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    """Write the event of a REST API."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Host": "api.example.com"},
        "multiValueHeaders": {"Host": ["api.example.com"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"stage": "prod", "path": f"/prod{path}"},
        "body": None,
        "isBase64Encoded": False,
    } | more


def alb(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    """Write the event of a load balancer with single-value headers."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": {"host": "lb.example.com", "x-forwarded-proto": "http"},
        "body": "",
        "isBase64Encoded": False,
    } | more


@pytest.mark.parametrize("handler", ["function.handler", "function.default"])
async def test_a_fetch_handler_serves_every_front_door(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, handler: str
) -> None:
    async with make_runtime({"function.ts": APP}, handler):
        event = v2("/facts", rawQueryString="a=1&a=%20", cookies=["x=1", "y=2"])
        answer = await api.invoke(event)
        result = answer.json()
        assert result["statusCode"] == 200
        assert result["headers"]["content-type"] == "application/json"
        assert json.loads(result["body"]) == {
            "method": "GET",
            "url": "https://abc.lambda-url.us-east-1.on.aws/facts?a=1&a=%20",
            "cookie": "x=1; y=2",
            "requestId": answer.request_id,
            "raw": True,
            "remains": True,
            "aborted": False,
        }
        query = {"q": ["a b", "c&d"]}
        event = v1("/facts", multiValueQueryStringParameters=query)
        facts = json.loads((await api.invoke(event)).json()["body"])
        assert facts["url"] in (
            "https://api.example.com/facts?q=a%20b&q=c%26d",
            "https://api.example.com/facts?q=a+b&q=c%26d",
        )
        event = alb("/facts", queryStringParameters={"q": "a%20b"})
        result = (await api.invoke(event)).json()
        assert result["statusDescription"] == "200 OK"
        assert json.loads(result["body"])["url"] == (
            "http://lb.example.com/facts?q=a%20b"
        )
        await api.wait_for_next()


async def test_bodies_cookies_and_odd_statuses_survive(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": APP}) as runtime:
        binary = bytes(range(256)) * 1000
        event = v2("/echo", "POST", binary)
        event["headers"]["content-type"] = "application/octet-stream"
        result = (await api.invoke(event)).json()
        assert result["isBase64Encoded"] is True
        assert base64.b64decode(result["body"]) == binary
        result = (await api.invoke(v2("/cookies"))).json()
        assert result["cookies"] == [
            "a=1; Path=/",
            "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
        ]
        assert "set-cookie" not in result["headers"]
        result = (await api.invoke(v1("/cookies"))).json()
        assert len(result["multiValueHeaders"]["set-cookie"]) == 2
        result = (await api.invoke(v2("/nothing"))).json()
        assert (result["statusCode"], result["body"]) == (204, "")
        result = (await api.invoke(v2("/redirect"))).json()
        assert (result["statusCode"], result["headers"]["location"]) == (
            302,
            "https://example.com/else",
        )
        assert (await api.invoke(v2("/error"))).json()["statusCode"] == 502
        assert (await api.invoke(v2("/facts", "TRACE"))).json()["statusCode"] == 405
        assert (await api.invoke(v2("/elsewhere"))).json()["statusCode"] == 404
        event = v2("/facts")
        event["headers"]["x-bad"] = "control \x00 byte"
        assert (await api.invoke(event)).json()["statusCode"] == 200
        assert "x-bad" in await runtime.logged("\tWARN\t")
        await api.wait_for_next()


@pytest.mark.parametrize(
    ("event", "error_type", "message"),
    [
        (v2("/broken"), "RangeError", "the body broke"),
        (v2("/throws"), "TypeError", "fetch threw"),
        (v2("/status"), "RangeError", "999"),
        (v2("/header"), "TypeError", "eader"),
        (v2("/wrong"), "Runtime.InvalidResponse", "of type string"),
        ({"Records": []}, "Runtime.UnsupportedEvent", "beside the default export"),
        (v2("/echo", "POST", body=None) | {"body": "!", "isBase64Encoded": True},
         "Runtime.UnmarshalError", "base64"),
    ],
    ids=["body-breaks", "throws", "status-out-of-range", "control-byte-in-header",
         "no-response", "no-http-event", "no-base64"],
)  # fmt: skip
async def test_what_goes_wrong_in_a_fetch_handler_is_named(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    event: dict[str, Any],
    error_type: str,
    message: str,
) -> None:
    async with make_runtime({"function.ts": APP}):
        answer = await api.invoke(event)
        assert answer.call == "error"
        assert answer.json()["errorType"] == error_type
        assert message in answer.json()["errorMessage"]
        await api.wait_for_next()


async def test_an_export_of_the_right_name_and_the_wrong_kind_is_named(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": "export default { fetch: 42 }"}):
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == "Runtime.HandlerNotFound"
        assert "object with a fetch method" in answer.json()["errorMessage"]


async def test_events_of_other_kinds_go_to_the_handler_beside_the_default_export(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = APP + "export const handler = (event: any) => ({ records: event.Records })"
    async with make_runtime({"function.ts": source}, "function.default"):
        assert (await api.invoke(v2("/nothing"))).json()["statusCode"] == 204
        assert (await api.invoke({"Records": [1]})).json() == {"records": [1]}
        await api.wait_for_next()


async def test_an_event_handler_may_return_a_response_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "export const handler = () => new Response('hi', { status: 201 })"
    async with make_runtime({"function.ts": source}):
        result = (await api.invoke(v2("/"))).json()
        assert (result["statusCode"], result["body"]) == (201, "hi")
        failed = (await api.invoke({"no": "http"})).json()
        assert failed["errorType"] == "Runtime.UnsupportedEvent"
        await api.wait_for_next()


async def test_a_response_streams_where_the_function_says_so(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": APP}, LAMBDA_DENO_RESPONSE_MODE="stream"):
        answer = await api.invoke(v2("/tokens"))
        assert answer.headers["content-type"] == (
            "application/vnd.awslambda.http-integration-response"
        )
        prelude, _, body = answer.body.partition(b"\0" * 8)
        assert json.loads(prelude) == {
            "statusCode": 207,
            "headers": {"content-type": "text/plain"},
            "cookies": [],
        }
        assert body == b"one two three"
        assert len(answer.chunks) == 3
        empty = await api.invoke(v2("/nothing"))
        assert json.loads(empty.body[:-8])["statusCode"] == 204
        broken = await api.invoke(v2("/broken"))
        assert broken.trailers["lambda-runtime-function-error-type"] == (
            "Function.RangeError"
        )
        thrown = await api.invoke(v2("/throws"))
        assert thrown.call == "error"
        await api.wait_for_next()
