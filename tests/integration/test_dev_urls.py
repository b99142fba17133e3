"""``dev``: function URLs with AuthType and CORS, odd requests, and events that fail."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fixtures.command import run_command
from tests.integration.dev_server import LIMIT_S, DevServer, write

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deno

SITE = "https://example.com"
FRONT_END = "http://localhost:5173"
EVIL = "https://evil.example"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:failed"
ECHO = """
export async function handler(event: any, context: any) {
  if (event.rawPath === "/big") return "x".repeat(6 * 1024 * 1024 + 100);
  if (event.rawPath === "/twice") {
    return { statusCode: 200, headers: { "Access-Control-Allow-Origin": "*" } };
  }
  if (event.rawPath === "/own") {
    const fields = ["Date", "X-Amzn-RequestId", "Content-Length", "X-Mine"];
    return {
      statusCode: 200,
      headers: Object.fromEntries(fields.map((name) => [name, "own"])),
    };
  }
  if (event.rawPath === "/bytes") {
    return { statusCode: 200, isBase64Encoded: true, body: "/wD+" };
  }
  return event;
}
"""
STREAM = """
export const handler = awslambda.streamifyResponse(async (_event: any, out: any) => {
  out = awslambda.HttpResponseStream.from(out, { statusCode: 200 });
  out.write("one ");
  out.write("two");
  out.end();
});
"""
FAILS = """
export function handler(event: any, context: any) {
  const file = event.file;
  Deno.writeTextFileSync(file, context.awsRequestId + "\\n", { append: true });
  const attempts = Deno.readTextFileSync(file).trim().split("\\n").length;
  if (attempts < event.until) throw new RangeError(`attempt ${attempts}`);
  return attempts;
}
"""
CORS = f"""
[url]
auth = "NONE"
[url.cors]
origins = ["{SITE}"]
methods = ["GET", "PUT"]
headers = ["x-one"]
expose = ["x-two"]
credentials = true
max_age = 60
"""
ANY = """
[url]
auth = "NONE"
[url.cors]
origins = ["*"]
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    folder = write(
        tmp_path_factory.mktemp("functions"),
        {
            "cors/function.ts": ECHO,
            "cors/lambda.toml": CORS,
            "any/function.ts": ECHO,
            "any/lambda.toml": ANY,
            "signed/function.ts": ECHO,
            "signed/lambda.toml": "[url]\n",
            "stream/function.ts": STREAM,
            "stream/lambda.toml": "",
            "fails/function.ts": FAILS,
            "fails/lambda.toml": (
                f'dead_letter = "{QUEUE}"\npermissions = "all"\ntimeout = 60\n'
            ),
        },
    )
    with DevServer(folder, "--no-watch", "--timeout", "60") as server:
        yield server


def preflight(origin: str, method: str = "PUT") -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method}


def allowed(response: httpx.Response) -> list[str]:
    return response.headers.get_list("access-control-allow-origin")


# CORS.


def test_a_preflight_is_answered_without_the_function(dev: DevServer) -> None:
    since = len(dev.changes)
    response = dev.client.options(f"{dev.url}/cors/a", headers=preflight(SITE))
    assert (response.status_code, response.content) == (200, b"")
    names = ("origin", "methods", "headers", "credentials")
    fields = [response.headers[f"access-control-allow-{name}"] for name in names]
    assert fields == [SITE, "GET,PUT", "x-one", "true"]
    assert response.headers["access-control-max-age"] == "60"
    # Without a browser's question it is a request like any other.
    response = dev.client.options(f"{dev.url}/cors/a")
    assert response.json()["requestContext"]["http"]["method"] == "OPTIONS"
    dev.ended(response.headers["x-amzn-requestid"])
    begun = [one for one in dev.changes[since:] if one["kind"] == "begun"]
    assert len(begun) == 1


def test_a_page_that_may_read_the_response_is_told_so(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/cors/", headers={"Origin": SITE})
    assert (response.status_code, allowed(response)) == (200, [SITE])
    assert response.headers["access-control-expose-headers"] == "x-two"
    assert response.headers["vary"] == "Origin"
    assert allowed(dev.client.get(f"{dev.url}/cors/")) == []


def test_headers_of_the_function_are_sent_too_and_the_developer_is_warned(
    dev: DevServer,
) -> None:
    response = dev.client.get(f"{dev.url}/cors/twice", headers={"Origin": SITE})
    assert allowed(response) == ["*", SITE]
    assert dev.notice("two access-control-allow-origin")["function"] == "cors"


@pytest.mark.parametrize(
    ("name", "origin", "status"),
    [
        ("cors", EVIL, 403),
        ("any", EVIL, 403),  # it would be let in on Lambda; dev is on a desk
        ("any", FRONT_END, 200),
        ("cors", FRONT_END, 403),
        ("any", "null", 403),
        ("signed", SITE, 403),
    ],
)
def test_only_pages_that_are_meant_may_call(
    dev: DevServer, name: str, origin: str, status: int
) -> None:
    for method, more in (("GET", {}), ("OPTIONS", preflight(origin))):
        response = dev.client.request(
            method, f"{dev.url}/{name}/", headers={"Origin": origin, **more}
        )
        assert response.status_code == status
    own = dev.client.get(f"{dev.url}/2015-03-31/functions", headers={"Origin": SITE})
    assert own.status_code == 403


# AuthType.


def call(dev: DevServer, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_LAMBDA": dev.url,
    }
    return run_command("call", *arguments, environ=environ)


def test_a_function_for_signed_requests_has_no_others(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/signed/")
    assert response.status_code == 403
    assert response.json()["Message"].startswith("Forbidden")
    assert "lambda-deno-spawn call" in response.json()["Message"]
    # By its name it can be invoked all the same: dev has no IAM.
    invoked = dev.lambda_client().invoke(FunctionName="signed", Payload=b"{}")
    assert invoked["Payload"].read() == b"{}"


@pytest.mark.parametrize("way", ["local", "remote"])
def test_a_signed_call_reaches_the_function(dev: DevServer, way: str) -> None:
    port = str(httpx.URL(dev.url).port)
    place = ["--port", port] if way == "local" else ["--remote"]
    done = call(dev, "signed", "/a%20b?x=1&x=2", *place, "-d", '{"n":1}')
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout)
    assert event["body"] == '{"n":1}'
    assert event["rawPath"].endswith("/a%20b")
    context = event["requestContext"]
    assert context["accountId"] == "000000000000"
    assert context["authorizer"]["iam"]["accessKey"] == "AKIATEST"


def test_a_call_to_aws_needs_no_signature_for_an_open_function(dev: DevServer) -> None:
    done = call(dev, "any", "/x", "--remote")
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout)
    assert "authorization" not in event["headers"]
    assert event["requestContext"]["accountId"] == "anonymous"


# Odd requests.


def event_of(dev: DevServer, method: str, target: str, **more: Any) -> Any:
    response = dev.client.request(method, f"{dev.url}/any{target}", **more)
    assert response.status_code == 200, response.text
    return response.json()


def test_paths_and_queries_arrive_as_they_were_sent(dev: DevServer) -> None:
    for path in ("/a/", "/a//b", "/%2Fa%25", "/%E4%BD%A0", "/a;b=c", "/%ff", "/..%2f"):
        assert event_of(dev, "GET", path)["rawPath"] == path
    event = event_of(dev, "GET", "/?a=1&a=2&b&c=%26&=d&a[]=3")
    assert event["rawQueryString"] == "a=1&a=2&b&c=%26&=d&a[]=3"
    assert event["queryStringParameters"]["a"] == "1,2"
    fields = [("X-Many", "1"), ("X-Many", "2"), ("Cookie", "a=1"), ("Cookie", "b=2")]
    event = event_of(dev, "GET", "/", headers=fields)
    assert event["headers"]["x-many"] == "1,2"
    assert event["cookies"] == ["a=1", "b=2"]


def test_a_head_request_has_the_headers_alone(dev: DevServer) -> None:
    response = dev.client.head(f"{dev.url}/any/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 100
    assert dev.client.get(f"{dev.url}/any/bytes").content == b"\xff\0\xfe"


def test_a_response_that_is_too_large_is_a_bad_gateway(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/any/big")
    assert response.status_code == 502
    assert response.json()["error"]["errorType"] == "Function.ResponseSizeTooLarge"


def test_a_websocket_is_refused_in_words(dev: DevServer) -> None:
    response = dev.client.get(
        f"{dev.url}/any/",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert response.status_code == 400
    assert "no WebSockets" in response.json()["Message"]


def test_a_client_that_asks_for_http_2_gets_http_1(dev: DevServer) -> None:
    fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
    assert event_of(dev, "GET", "/", headers=fields)["rawPath"] == "/"


def test_a_request_that_is_cut_off_invokes_nothing(dev: DevServer) -> None:
    since = len(dev.changes)
    url = httpx.URL(dev.url)
    with socket.create_connection((url.host, url.port or 0), LIMIT_S) as sock:
        sock.sendall(b"POST /any/ HTTP/1.1\r\nHost: localhost\r\n")
        sock.sendall(b"Content-Length: 100\r\n\r\nhalf")
    event_of(dev, "GET", "/")
    begun = [one for one in dev.changes[since:] if one["kind"] == "begun"]
    assert [one["record"]["method"] for one in begun] == ["GET"]


def exchanged(dev: DevServer, request: str, *, is_half_closed: bool = False) -> bytes:
    """Send a request; return all bytes until the server closes the connection."""
    url = httpx.URL(dev.url)
    with socket.create_connection((url.host, url.port or 0), LIMIT_S) as sock:
        sock.sendall(request.replace("\n", "\r\n").encode())
        if is_half_closed:
            sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return file.read()


def test_a_client_that_ends_its_side_of_the_connection_is_answered(
    dev: DevServer,
) -> None:
    """As socat and ncat do once they have sent what they were given."""
    request = "GET /any/{} HTTP/1.1\nHost: localhost\n\n"
    seen = exchanged(dev, request.format("one"), is_half_closed=True)
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"rawPath":"/one"' in seen
    both = request.format("one") + request.format("two")
    seen = exchanged(dev, both, is_half_closed=True)
    assert seen.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b'"rawPath":"/two"' in seen


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(dev: DevServer) -> None:
    seen = exchanged(dev, "GET /stream/ HTTP/1.0\nHost: localhost\n\n")
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"\r\ncontent-length: 7" in head
    assert body == b"one two"


def test_a_request_to_two_hosts_is_refused(dev: DevServer) -> None:
    hosts = "Host: localhost\nHost: evil.example\n"
    seen = exchanged(dev, f"GET /any/ HTTP/1.1\n{hosts}Connection: close\n\n")
    assert seen.startswith(b"HTTP/1.1 400 ")


def test_fields_of_the_server_are_sent_once(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/any/own")
    for name in ("date", "x-amzn-requestid", "content-length"):
        assert len(response.headers.get_list(name, split_commas=False)) == 1
    assert "own" not in response.headers["x-amzn-requestid"]
    assert response.headers["x-mine"] == "own"


# Events without a caller.


def test_an_event_that_fails_is_run_again_twice(dev: DevServer, tmp_path: Path) -> None:
    aws = dev.lambda_client()
    file = tmp_path / "attempts"
    for until, end in (
        (2, None),
        (9, f"failed 3 times: now Lambda sends it to {QUEUE}"),
    ):
        file.unlink(missing_ok=True)
        since = len(dev.changes)
        payload = json.dumps({"file": str(file), "until": until})
        answer = aws.invoke(
            FunctionName="fails", InvocationType="Event", Payload=payload
        )
        assert answer["StatusCode"] == 202
        request_id = answer["ResponseMetadata"]["RequestId"]
        if end is not None:
            dev.notice(f"{request_id} {end}", since)
        else:

            def is_it(change: dict[str, Any], wanted: str = request_id) -> bool:
                record = change.get("record", {})
                is_end = change["kind"] == "ended" and record["id"] == wanted
                return bool(is_end and record["attempt"] == 2 and record["ok"])

            dev.wait_for(is_it, since)
        assert file.read_text().split() == [request_id] * min(until, 3)
