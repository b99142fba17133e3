"""``dev``: functions behind one port, judged by boto3, curl and HTTP itself."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from lambda_deno_spawn.dev.devserver.memory_group import MemoryGroup
from tests.cgroups import unavailable
from tests.fixtures.command import run_command
from tests.integration.dev_server import LIMIT_S, DevServer, write
from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deno

ECHO = """
const pause = () => new Promise((done) => setTimeout(done, 10));
function exists(path: string) {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
export async function handler(event: any, context: any) {
  console.log("seen", event.word ?? event.rawPath ?? "nothing");
  if (event.fail) throw new TypeError("no luck");
  if (event.hang) await new Promise(() => setInterval(() => {}, 1000));
  if (event.fill) {
    const all = [];
    for (;;) all.push(new Uint8Array(50_000_000).fill(1));
  }
  while (event.until && !exists(event.until)) await pause();
  if (event.rawPath === "/html") {
    return {
      statusCode: 201,
      headers: { "Content-Type": "text/html", "X-Kind": "page" },
      cookies: ["a=1", "b=2"],
      body: btoa("<p>hi</p>"),
      isBase64Encoded: true,
    };
  }
  if (event.rawPath === "/none") return { statusCode: 204 };
  if (event.rawPath === "/odd") return { statusCode: 200, headers: { "a b": "c" } };
  return { event, arn: context.invokedFunctionArn, tenant: context.tenantId,
    client: context.clientContext, id: context.awsRequestId };
}
"""
STREAM = """
export const handler = awslambda.streamifyResponse(async (event: any, out: any) => {
  const path = event.rawPath ?? event.path;
  out = awslambda.HttpResponseStream.from(out, {
    statusCode: 202, headers: { "x-kind": "stream" }, cookies: ["c=3"],
  });
  out.write("one ");
  if (path === "/cut") throw new RangeError("cut off");
  if (path === "/long") {
    for (let i = 0; i < 200; i++) {
      if (!out.write("x".repeat(65_536))) {
        await new Promise((done) => out.once("drain", done));
      }
    }
    console.log("wrote all of it");
  }
  out.write("two");
  out.end();
});
"""
CALLER = """
const { host } = new URL(Deno.env.get("AWS_ENDPOINT_URL_LAMBDA")!);
export async function handler(event: unknown) {
  const path = "/2015-03-31/functions/echo/invocations";
  const response = await fetch(`http://${host}${path}`, {
    method: "POST", body: JSON.stringify(event),
  });
  return { inner: await response.json() };
}
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three functions."""
    return write(
        tmp_path_factory.mktemp("functions"),
        {
            "echo/function.ts": ECHO,
            "stream/function.ts": STREAM,
            "other/function.ts": CALLER,
            "other/lambda.toml": 'name = "caller"\n',
            "echo/lambda.toml": "",
            "stream/lambda.toml": "",
        },
    )


@pytest.fixture(scope="module")
def dev(functions: Path) -> Iterator[DevServer]:
    """Three functions, served for all tests of the file."""
    with DevServer(functions, "--timeout", "60", "--no-watch") as server:
        yield server


@pytest.fixture(scope="module")
def aws(dev: DevServer) -> Any:
    """boto3's client for the server."""
    return dev.lambda_client()


def refused(call: Any, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    return status, response["Error"]["Code"], response["Error"]["Message"]


# The Lambda API, as boto3 sees it.


def test_an_event_is_answered_with_log_and_version(aws: Any) -> None:
    client_context = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
    response = aws.invoke(
        FunctionName="echo",
        Payload=b'{"word": 1.0}',
        LogType="Tail",
        ClientContext=client_context,
        TenantId="blue",
    )
    result = json.loads(response["Payload"].read())
    assert response["StatusCode"] == 200
    assert response["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in response
    assert result["event"] == {"word": 1}
    assert result["tenant"] == "blue"
    assert result["client"]["custom"] == {"k": "v"}
    assert result["id"] == response["ResponseMetadata"]["RequestId"]
    log = base64.b64decode(response["LogResult"]).decode()
    lines = log.splitlines()
    assert lines[0] == f"START RequestId: {result['id']} Version: $LATEST"
    assert "seen 1" in lines[1]
    assert lines[-2] == f"END RequestId: {result['id']}"
    assert lines[-1].startswith(f"REPORT RequestId: {result['id']}\tDuration: ")


@pytest.mark.parametrize(
    ("name", "qualifier", "suffix"),
    [
        ("echo", None, ""),
        ("echo:live", None, ":live"),
        ("echo", "live", ":live"),
        ("arn:aws:lambda:us-east-1:000000000000:function:echo", None, ""),
        ("arn:aws:lambda:us-east-1:000000000000:function:echo:3", "3", ":3"),
        ("000000000000:function:echo", None, ""),
    ],
)
def test_a_function_has_many_names(
    aws: Any, name: str, qualifier: str | None, suffix: str
) -> None:
    given = {} if qualifier is None else {"Qualifier": qualifier}
    response = aws.invoke(FunctionName=name, **given)
    result = json.loads(response["Payload"].read())
    assert result["arn"].endswith(f":function:echo{suffix}")
    assert result["event"] == {}, "no payload is an empty object"


def test_an_error_of_the_function_is_a_function_error(aws: Any) -> None:
    response = aws.invoke(FunctionName="echo", Payload=b'{"fail":true}')
    error = json.loads(response["Payload"].read())
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert (error["errorType"], error["errorMessage"]) == ("TypeError", "no luck")


def test_an_event_without_a_caller_runs_and_is_in_the_journal(
    dev: DevServer, aws: Any
) -> None:
    response = aws.invoke(
        FunctionName="echo", InvocationType="Event", Payload=b'{"word":"later"}'
    )
    assert (response["StatusCode"], response["Payload"].read()) == (202, b"")
    record = dev.ended(response["ResponseMetadata"]["RequestId"])
    assert (record["source"], record["ok"], record["status"]) == ("async", True, 202)
    assert record["measures"]["status"] == "success"
    times = record["times"]
    order = ["assignedMs", "deliveredMs", "firstByteMs", "answeredMs", "endedMs"]
    assert [times[name] for name in order] == sorted(times.values())


def test_a_dry_run_runs_nothing(dev: DevServer, aws: Any) -> None:
    before = len(dev.changes)
    response = aws.invoke(FunctionName="echo", InvocationType="DryRun")
    assert response["StatusCode"] == 204
    assert [c for c in dev.changes[before:] if c["kind"] == "begun"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "code", "message"),
    [
        (
            {"FunctionName": "ecco"},
            404,
            "ResourceNotFoundException",
            "Function not found: arn:aws:lambda:us-east-1:000000000000:function:ecco; "
            "dev serves caller, echo, stream",
        ),
        (
            {"FunctionName": "echo", "Payload": b'{"a":'},
            400,
            "InvalidRequestContentException",
            "Could not parse request body into json: ",
        ),
        (
            {"FunctionName": "echo", "Payload": b'"' + b"x" * 6_291_456 + b'"'},
            413,
            "RequestTooLargeException",
            "Request must be smaller than 6291456 bytes for the InvokeFunction",
        ),
        (
            {
                "FunctionName": "echo",
                "InvocationType": "Event",
                "Payload": b'"' + b"x" * 1_048_576 + b'"',
            },
            413,
            "RequestTooLargeException",
            "Request must be smaller than 1048576 bytes",
        ),
        (
            {"FunctionName": "echo", "InvocationType": "Sometimes"},
            400,
            "InvalidParameterValueException",
            "[Event, RequestResponse, DryRun]",
        ),
        (
            {"FunctionName": "echo", "ClientContext": "bm90IGpzb24="},
            400,
            "InvalidRequestContentException",
            "Client context must be a valid Base64-encoded JSON object",
        ),
        (
            {"FunctionName": "echo:a", "Qualifier": "b"},
            400,
            "InvalidParameterValueException",
            "does not match the specified qualifier",
        ),
    ],
    ids=["name", "json", "size", "async size", "type", "context", "qualifier"],
)
def test_a_call_is_refused_as_lambda_would(
    aws: Any, arguments: dict[str, Any], status: int, code: str, message: str
) -> None:
    seen = refused(aws.invoke, **arguments)
    assert seen[:2] == (status, code)
    assert message in seen[2]


def test_calls_that_dev_does_not_have_say_so(aws: Any) -> None:
    for call in (aws.get_policy, aws.get_function_concurrency):
        status, code, message = refused(call, FunctionName="echo")
        assert (status, code) == (404, "UnknownOperationException")
        assert "it invokes functions" in message


def test_functions_are_listed(aws: Any) -> None:
    functions = aws.list_functions()["Functions"]
    assert {each["FunctionName"] for each in functions} == {"echo", "stream", "caller"}
    assert aws.get_function_configuration(FunctionName="echo")["Timeout"] == 60


def test_a_stream_arrives_as_events(aws: Any) -> None:
    response = aws.invoke_with_response_stream(FunctionName="stream", LogType="Tail")
    events = list(response["EventStream"])
    chunks = [each["PayloadChunk"]["Payload"] for each in events[:-1]]
    prelude, body = b"".join(chunks).split(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 202
    assert body == b"one two"
    complete = events[-1]["InvokeComplete"]
    assert set(complete) == {"LogResult"}
    assert b"REPORT" in base64.b64decode(complete["LogResult"])


def test_a_stream_that_breaks_off_ends_with_the_error(aws: Any) -> None:
    response = aws.invoke_with_response_stream(
        FunctionName="stream", Payload=b'{"path":"/cut"}'
    )
    events = list(response["EventStream"])
    assert b"one " in events[0]["PayloadChunk"]["Payload"]
    complete = events[-1]["InvokeComplete"]
    assert complete["ErrorCode"] == "Unhandled"
    assert json.loads(complete["ErrorDetails"])["errorType"] == "RangeError"


def test_a_whole_result_is_one_chunk_and_an_error_none(aws: Any) -> None:
    invoke = aws.invoke_with_response_stream
    first, last = invoke(FunctionName="echo")["EventStream"]
    assert json.loads(first["PayloadChunk"]["Payload"])["event"] == {}
    assert last == {"InvokeComplete": {}}
    (only,) = invoke(FunctionName="echo", Payload=b'{"fail":1}')["EventStream"]
    assert only["InvokeComplete"]["ErrorCode"] == "Unhandled"
    assert refused(invoke, FunctionName="nix")[:2] == (404, "ResourceNotFoundException")


def test_one_function_calls_another(aws: Any) -> None:
    response = aws.invoke(FunctionName="caller", Payload=b'{"word":"from caller"}')
    result = json.loads(response["Payload"].read())
    assert result["inner"]["event"] == {"word": "from caller"}


def at_once(dev: DevServer, aws: Any, name: str, folder: Path) -> list[str]:
    """Run three requests, none of which ends before all have begun; return their ids.

    Args:
        dev: The server.
        aws: boto3's client for it.
        name: The function.
        folder: Its folder, in which it may read.
    """
    gate = folder / "gate.log"
    payload = json.dumps({"word": "together", "until": str(gate)}).encode()

    def have_begun(_: dict[str, Any]) -> bool:
        return sum("seen together" in str(c.get("line")) for c in dev.changes) >= 3

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        running = threads.map(
            lambda _: aws.invoke(FunctionName=name, Payload=payload), "abc"
        )
        try:
            dev.wait_for(have_begun)
        finally:
            gate.touch()
        answers = list(running)
    return [answer["ResponseMetadata"]["RequestId"] for answer in answers]


def test_requests_at_once_get_environments_of_their_own(
    dev: DevServer, aws: Any, functions: Path
) -> None:
    ids = at_once(dev, aws, "echo", functions / "echo")
    assert len({dev.ended(each)["environment"] for each in ids}) == 3


def test_an_environment_serves_one_tenant_only(dev: DevServer, aws: Any) -> None:
    def environment(tenant: str) -> int:
        response = aws.invoke(FunctionName="echo", TenantId=tenant)
        record = dev.ended(response["ResponseMetadata"]["RequestId"])
        return int(record["environment"])

    seen = [environment(tenant) for tenant in ("red", "green", "red")]
    assert seen[0] == seen[2] != seen[1]


# HTTP.


def test_a_request_becomes_the_event_of_a_function_url(dev: DevServer) -> None:
    response = dev.client.post(
        f"{dev.url}/echo/a%20b/c?x=1&x=2&y=%C3%A4",
        content="grüße",
        headers={"Content-Type": "text/plain", "Cookie": "s=1; t=2", "X-Two": "1"},
    )
    assert response.status_code == 200
    event = response.json()["event"]
    assert event["rawPath"] == "/a%20b/c"
    assert event["rawQueryString"] == "x=1&x=2&y=%C3%A4"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "ä"}
    assert event["cookies"] == ["s=1", "t=2"]
    assert "cookie" not in event["headers"]
    assert (event["body"], event["isBase64Encoded"]) == ("grüße", False)
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["requestId"] == response.json()["id"]
    assert response.headers["x-amzn-requestid"] == response.json()["id"]


def test_bytes_that_are_no_text_arrive_in_base64(dev: DevServer) -> None:
    response = dev.client.post(f"{dev.url}/echo/", content=b"\xff\0")
    event = response.json()["event"]
    assert (event["body"], event["isBase64Encoded"]) == ("/wA=", True)


def test_a_result_becomes_a_response(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/echo/html")
    assert (response.status_code, response.text) == (201, "<p>hi</p>")
    assert response.headers["content-type"] == "text/html"
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert dev.client.head(f"{dev.url}/echo/html").text == ""
    assert dev.client.get(f"{dev.url}/echo/none").status_code == 204


def test_a_failure_tells_the_developer_what_the_caller_is_not_told(
    dev: DevServer,
) -> None:
    response = dev.client.get(f"{dev.url}/echo/odd")
    assert response.status_code == 502
    assert "'a b' is not the name of a header" in response.text


def test_a_stream_arrives_with_status_and_headers(dev: DevServer) -> None:
    response = dev.client.get(f"{dev.url}/stream/")
    assert (response.status_code, response.text) == (202, "one two")
    assert response.headers["x-kind"] == "stream"
    assert response.headers["set-cookie"] == "c=3"
    assert response.headers["transfer-encoding"] == "chunked"


def test_a_stream_that_breaks_off_is_seen_to_be_incomplete(dev: DevServer) -> None:
    with dev.client.stream("GET", f"{dev.url}/stream/cut") as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"one "
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            next(pieces)


def test_a_function_runs_on_when_its_client_hangs_up(dev: DevServer) -> None:
    with dev.client.stream("GET", f"{dev.url}/stream/long") as response:
        request_id = response.headers["x-amzn-requestid"]
        next(response.iter_bytes())
    record = dev.ended(request_id)
    assert record["ok"], record
    assert record["resultBytes"] > 200 * 65_536


def test_paths_lead_to_functions(dev: DevServer) -> None:
    redirect = dev.client.get(f"{dev.url}/echo?a=1")
    assert (redirect.status_code, redirect.headers["location"]) == (308, "/echo/?a=1")
    unknown = dev.client.get(f"{dev.url}/ecco/")
    assert unknown.status_code == 404
    assert set(unknown.json()["functions"]) == {"echo", "stream", "caller"}
    port = httpx.URL(dev.url).port
    named = dev.client.get(
        f"{dev.url}/2015-03-31/x", headers={"Host": f"echo.localhost:{port}"}
    )
    assert named.json()["event"]["rawPath"] == "/2015-03-31/x"


def test_a_request_that_is_too_large_is_refused(dev: DevServer) -> None:
    response = dev.client.post(f"{dev.url}/echo/", content=b"x" * 7_000_000)
    assert response.status_code == 413
    assert "6291456" in response.json()["Message"]


# Who may call.


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:5173"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
@pytest.mark.parametrize(
    "path", ["/echo/", "/2015-03-31/functions/echo/invocations", "/_/"]
)
def test_pages_of_other_origins_invoke_nothing(
    dev: DevServer, path: str, headers: dict[str, str]
) -> None:
    before = len(dev.changes)
    response = dev.client.post(f"{dev.url}{path}", headers=headers)
    assert response.status_code == 403
    assert response.text.startswith("Cannot ")
    assert [c for c in dev.changes[before:] if c["kind"] == "begun"] == []


def test_its_own_pages_and_followed_links_may_call(dev: DevServer) -> None:
    own = {"Origin": dev.url, "Sec-Fetch-Site": "same-origin"}
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert dev.client.post(f"{dev.url}/echo/", headers=own).status_code == 200
    assert dev.client.get(f"{dev.url}/echo/", headers=link).status_code == 200
    assert dev.client.post(f"{dev.url}/echo/", headers=link).status_code == 403


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_curl_sees_a_stream_and_sends_large_bodies(dev: DevServer) -> None:
    def curl(*arguments: str) -> bytes:
        command = ["curl", "-sS", "--noproxy", "*", *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout

    assert curl("-N", f"{dev.url}/stream/") == b"one two"
    # Asks for 100 Continue first.
    answer = curl("--data-binary", "x" * 2000, f"{dev.url}/echo/")
    assert json.loads(answer)["event"]["isBase64Encoded"] is True


# Limits, forms and modes; each of these is a server of its own.


def test_timeout_and_memory_are_kept_and_the_environment_goes_on(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "f", {"function.ts": ECHO})
    options = ["--timeout", "8", "--memory", "256", "--freeze", "--no-watch"]
    # Time to be told of the timeout before it is there, on a busy machine too.
    margin = {"LAMBDA_DENO_STOP_MARGIN_MS": "4000"}
    with DevServer(folder, *options, environ=margin) as dev:
        aws = dev.lambda_client()

        def error_type(payload: bytes) -> str:
            response = aws.invoke(FunctionName="f", Payload=payload)
            assert response["FunctionError"] == "Unhandled"
            return str(json.loads(response["Payload"].read())["errorType"])

        assert error_type(b'{"hang":1}') == "Runtime.InvokeTimeout"
        assert error_type(b'{"fill":1}') in ("Runtime.ExitError", "Runtime.OutOfMemory")
        response = dev.client.get(dev.url)
        assert response.json()["event"]["rawPath"] == "/"
        # Thawed for each event, and with its end even while it is frozen.
        assert dev.client.get(dev.url).status_code == 200
        dev.ended(dev.client.get(dev.url).headers["x-amzn-requestid"])


@pytest.mark.root
@pytest.mark.skipif(bool(unavailable("memory")), reason="no control group for memory")
def test_the_kernel_keeps_the_memory_of_a_group() -> None:
    group = MemoryGroup.create(64 * 1024 * 1024)
    assert group is not None
    try:
        code = "x = b'1' * (200 * 1024 * 1024)"
        command = group.command([sys.executable, "-c", code])
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert subprocess.run(group.command(["true"]), check=False).returncode == 0
    finally:
        group.remove()
    assert not group.path.exists()


def test_a_managed_instance_takes_several_events_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", {"function.ts": ECHO})
    options = ["--concurrency", "3", "--timeout", "60", "--no-watch"]
    with DevServer(folder, *options) as dev:
        aws = dev.lambda_client()
        aws.invoke(FunctionName="f")
        ids = at_once(dev, aws, "f", folder)
        assert {dev.ended(each)["environment"] for each in ids} == {1}


def test_requests_take_other_forms(tmp_path: Path) -> None:
    code = """
    export default {
      fetch(request: Request, context: any) {
        return Response.json({ url: request.url, event: context.event });
      },
    };
    """
    folder = write(tmp_path / "f", {"function.ts": code})
    with DevServer(folder, "--events", "v1", "--no-watch") as dev:
        seen = dev.client.get(f"{dev.url}/a%20b?c=d").json()
        assert seen["url"] == f"{dev.url}/a%20b?c=d"


def test_a_signal_ends_everything_while_a_request_runs(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", {"function.ts": ECHO})
    with DevServer(folder, "--timeout", "60", "--no-watch") as dev:
        aws = dev.lambda_client()
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            payload = b'{"hang":1,"word":"hanging"}'
            answer = threads.submit(aws.invoke, FunctionName="f", Payload=payload)
            dev.wait_for(lambda c: c["kind"] == "log" and "hanging" in str(c["line"]))
            dev.stop(signal.SIGTERM)
            with contextlib.suppress(BotoCoreError):  # it may be told, or cut off
                assert answer.result(LIMIT_S)["FunctionError"] == "Unhandled"
        assert dev.code == 143
        assert dev.survivors() == set()
        dev.code = 130


def test_ctrl_c_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", {"function.ts": ECHO})
    with DevServer(folder, "--no-watch") as dev:
        aws = dev.lambda_client()
        aws.invoke(FunctionName="f", InvocationType="Event")
        # Its environment is being started; the second one comes while it is ended.
        dev.process.send_signal(signal.SIGINT)


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    def stderr(*arguments: str | Path) -> str:
        done = run_command("dev", *arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        return done.stderr.decode()

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Cannot find a function in" in stderr(empty)
    twins = {"a/f/function.ts": ECHO, "b/f/function.ts": ECHO}
    message = stderr(write(tmp_path / "twins", twins))
    assert "Cannot serve two functions called 'f'" in message
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = stderr(write(tmp_path / "f", {"function.ts": ECHO}), "-p", str(port))
        assert f"Cannot listen on port {port}: another program" in message
    assert "Cannot use --allow-origin" in stderr(
        "--allow-origin", "localhost", tmp_path
    )


def test_people_see_a_line_for_each_request(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", {"function.ts": ECHO})
    mark = os.urandom(8).hex()
    process = subprocess.Popen(
        [sys.executable, "-m", "lambda_deno_spawn", "dev", folder, "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "LDS_DEV_SCREEN": mark},
        start_new_session=True,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        try:
            url = process.stderr.readline().split()[-1]
            with httpx.Client(timeout=LIMIT_S, trust_env=False) as client:
                client.get(f"{url}/html?x=1")
            shown = ""
            while " > " not in shown:
                shown += process.stderr.readline()
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        assert process.stdout.read() == ""
    assert process.returncode == 130, rest
    assert "INFO seen /html" in shown
    assert "> GET /html?x=1 -> 201 in " in shown
    assert "START" not in shown
    assert marked(f"LDS_DEV_SCREEN={mark}") == set()
