"""Remote invocations and logs.

moto runs no functions: a server answers like Lambda's API, with literals from the
Lambda API reference, "Invoke", and the Developer Guide. Logs are moto's.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import typer

from lambda_deno_spawn.dev.aws.remote_logs import follow_log
from lambda_deno_spawn.dev.aws.session import Aws
from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.remote import invoke_remote
from tests.fixtures.cloud import REGION, Cloud, Finished, Relay, Reply
from tests.fixtures.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

INVOKE = "POST /2015-03-31/functions/fn/invocations"
CONFIGURATION = "GET /2015-03-31/functions/fn/configuration"
REQUEST_ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
LOG = (
    f"START RequestId: {REQUEST_ID} Version: $LATEST\n"
    f"END RequestId: {REQUEST_ID}\n"
    f"REPORT RequestId: {REQUEST_ID}\tDuration: 2.72 ms\tBilled Duration: 3 ms\t"
    "Memory Size: 128 MB\tMax Memory Used: 63 MB\tInit Duration: 166.91 ms\t\n"
)
HEADERS = {
    "x-amzn-RequestId": REQUEST_ID,
    "X-Amz-Executed-Version": "$LATEST",
    "X-Amz-Log-Result": base64.b64encode(LOG.encode()).decode(),
}


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    return empty_cloud


@pytest.fixture
def api(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """Lambda's API: it knows the function ``fn`` with a timeout of 7 s."""
    with Relay(None) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", relay.url)
        relay.answers(CONFIGURATION, Reply(200, {"Timeout": 7}))
        yield relay


def invoke(name: str = "fn", event: bytes = b"{}", **options: Any) -> Finished:
    stdout, stderr = _bytes_stream(), _bytes_stream()
    exit_code = 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            with exit_codes(is_verbose=False):
                invoke_remote(name, event, **options)
        except typer.Exit as end:
            exit_code = end.exit_code
    return Finished(exit_code, _text(stdout), _text(stderr))


def _bytes_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    content: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode()


def test_the_answer_is_on_stdout_and_the_log_on_stderr(api: Relay) -> None:
    api.answers(INVOKE, Reply(200, b'{"a": 1.0}', headers=HEADERS))
    finished = invoke(event=b'{"n": 1.0}')
    assert finished.exit_code == 0
    assert finished.stdout == '{"a": 1.0}\n'
    assert finished.stderr == LOG
    assert api.seen[-1] == (INVOKE, b'{"n": 1.0}')


def test_a_function_error_is_told_as_the_local_invocation_tells_it(api: Relay) -> None:
    error = {"errorMessage": "no\nmore", "errorType": "TypeError", "trace": []}
    headers = {**HEADERS, "X-Amz-Function-Error": "Unhandled"}
    api.answers(INVOKE, Reply(200, error, headers=headers))
    finished = invoke()
    assert finished.exit_code == 1
    assert json.loads(finished.stdout) == error
    assert finished.stderr == f"{LOG}The function failed: TypeError: no\nmore\n"


def test_a_streamed_http_response_is_shown_as_its_caller_sees_it(api: Relay) -> None:
    """The prelude and eight zeros were printed as they are."""
    head = b'{"statusCode": 201, "headers": {"x-a": "b"}}' + b"\0" * 8
    api.answers(INVOKE, Reply(200, head + b"hello", headers=HEADERS, times=2))
    finished = invoke()
    assert finished.stdout == "hello\n"
    assert finished.stderr == f"{LOG}HTTP 201; x-a: b\n"
    api.answers(CONFIGURATION, Reply(200, {"Timeout": 7}))
    fields = invoke(output=Output.JSON).json
    assert (fields["result"], fields["http"]["statusCode"]) == ("hello", 201)


def test_reserved_concurrency_that_is_used_up_is_said(api: Relay) -> None:
    """Waiting does not help a function that is stopped."""
    body = {
        "Message": "Rate Exceeded.",
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
    }
    api.answers(INVOKE, Reply(429, body, "TooManyRequestsException", times=9))
    finished = invoke()
    assert finished.exit_code == 3
    assert "all of the function's reserved concurrency is in use" in finished.stderr
    assert "0 stops the function" in finished.stderr


def test_json_holds_result_and_report(api: Relay) -> None:
    api.answers(INVOKE, Reply(200, b"[1]", headers=HEADERS))
    assert invoke(output=Output.JSON).json == {
        "ok": True,
        "requestId": REQUEST_ID,
        "result": [1],
        "error": None,
        "status": 200,
        "version": "$LATEST",
        "report": {
            "durationMs": 2.72,
            "billedDurationMs": 3.0,
            "initDurationMs": 166.91,
            "memorySizeMb": 128.0,
            "maxMemoryUsedMb": 63.0,
        },
    }


# Lambda Developer Guide, "Telemetry API Event schema reference", platform.report.
JSON_REPORT = (
    '{"time":"2025-01-01T00:00:00.000Z","type":"platform.report","record":{'
    f'"requestId":"{REQUEST_ID}","metrics":{{"durationMs":101.51,'
    '"billedDurationMs":300,"memorySizeMB":512,"maxMemoryUsedMB":33,'
    '"initDurationMs":116.67},"status":"success"}}\n'
)
JSON_FIGURES = {
    "durationMs": 101.51,
    "billedDurationMs": 300.0,
    "initDurationMs": 116.67,
    "memorySizeMb": 512.0,
    "maxMemoryUsedMb": 33.0,
}


@pytest.mark.parametrize(
    ("log", "report"),
    [
        pytest.param(JSON_REPORT, JSON_FIGURES, id="json"),
        pytest.param(
            f'uestId":"x","metrics":{{}}}}}}\n["a"]\n{{"level":"INFO"}}\n{JSON_REPORT}',
            JSON_FIGURES,
            id="from-the-middle-of-a-line",
        ),
        pytest.param(
            f"{JSON_REPORT}\xff text, no JSON\n", JSON_FIGURES, id="more-after"
        ),
        pytest.param(
            JSON_REPORT.replace(',"initDurationMs":116.67', ""),
            {**JSON_FIGURES, "initDurationMs": None},
            id="without-init",
        ),
        pytest.param(JSON_REPORT[20:], None, id="only-its-end"),
        pytest.param('{"type":"platform.report","record":{}}\n', None, id="no-metrics"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_report_is_found_in_a_log_in_json(
    api: Relay, log: str, report: dict[str, float | None] | None
) -> None:
    encoded = base64.b64encode(log.encode("latin-1")).decode()
    headers = {**HEADERS, "X-Amz-Log-Result": encoded}
    api.answers(INVOKE, Reply(200, b"[1]", headers=headers))
    finished = invoke(output=Output.JSON)
    assert finished.json["report"] == report


def test_an_asynchronous_invocation_gives_its_request_id(api: Relay) -> None:
    api.answers(INVOKE, Reply(202, b"", headers={"x-amzn-RequestId": REQUEST_ID}))
    finished = invoke(is_async=True)
    assert finished.stdout == f"{REQUEST_ID}\n"
    assert [line for line, _ in api.seen] == [INVOKE]


def test_an_invocation_is_never_repeated(api: Relay) -> None:
    api.answers(INVOKE, Reply(500, {"Message": "later"}, "ServiceException", times=9))
    finished = invoke()
    assert finished.exit_code == 3
    assert "AWS says ServiceException, later; the function may have run anyway" in (
        finished.stderr
    )
    assert [line for line, _ in api.seen].count(INVOKE) == 1


def test_an_answer_that_is_lost_may_have_been_an_invocation(api: Relay) -> None:
    api.answers(INVOKE, Reply(status=0, times=9))
    finished = invoke()
    assert finished.exit_code == 3
    assert "the function may have run anyway" in finished.stderr
    assert [line for line, _ in api.seen].count(INVOKE) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "TooManyRequestsException"), (403, "AccessDeniedException")],
)
def test_what_lambda_refused_has_not_run(api: Relay, status: int, code: str) -> None:
    api.refuses(INVOKE, code, "no", status)
    finished = invoke()
    assert finished.exit_code == 3
    assert f"arn:aws:lambda:{REGION}:*:function:fn" in finished.stderr
    assert "may have run" not in finished.stderr


@pytest.mark.parametrize(
    "options", [{"timeout_s": 5.0}, {"is_async": True}], ids=["sync", "async"]
)
def test_what_was_never_sent_has_not_run(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    finished = invoke(**options)
    assert finished.exit_code == 3
    assert "nothing answers at http://127.0.0.1:" in finished.stderr
    assert "may" not in finished.stderr


def test_what_fails_before_the_invocation_is_no_invocation(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(None) as api:
        monkeypatch.setenv("AWS_ENDPOINT_URL", api.url)
        # Of these statuses one that botocore does not repeat after a pause.
        api.refuses(CONFIGURATION, "ServiceException", "later", 501)
        finished = invoke()
    assert finished.exit_code == 3
    assert "AWS says ServiceException, later" in finished.stderr
    assert "may have run" not in finished.stderr


def test_arns_in_messages_are_of_the_region_s_partition(api: Relay) -> None:
    api.refuses(INVOKE, "AccessDeniedException", "no", 403)
    finished = invoke(region="cn-north-1")
    assert '"arn:aws-cn:lambda:cn-north-1:*:function:fn"' in finished.stderr


def test_a_timeout_that_may_not_be_read_is_the_longest(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(None) as api:
        monkeypatch.setenv("AWS_ENDPOINT_URL", api.url)
        api.refuses(CONFIGURATION, "AccessDeniedException", "no", 403)
        api.answers(INVOKE, Reply(200, b"1", headers=HEADERS))
        assert invoke().stdout == "1\n"


def test_a_qualifier_reaches_lambda(api: Relay) -> None:
    api.answers(INVOKE, Reply(200, b"1"))
    invoke(qualifier="live", tenant_id="t", client_context='{"custom":{}}')
    assert [line for line, _ in api.seen] == [
        f"{CONFIGURATION}?Qualifier=live",
        f"{INVOKE}?Qualifier=live",
    ]


def test_a_function_that_is_not_there_is_one_sentence(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(None) as api:
        monkeypatch.setenv("AWS_ENDPOINT_URL", api.url)
        api.refuses(
            CONFIGURATION, "ResourceNotFoundException", "Function not found", 404
        )
        finished = invoke(qualifier="live")
    assert finished.exit_code == 3
    assert finished.stderr == (
        "Cannot invoke 'fn:live': there is no such function, version or alias in "
        f"{REGION}; deploy it first, or check --region and --profile\n"
    )


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 6 * 1024 * 1024), ({"is_async": True}, 1024 * 1024)],
    ids=["sync", "async"],
)
def test_an_event_over_the_limit_is_not_sent(
    api: Relay, options: dict[str, Any], limit: int
) -> None:
    finished = invoke(event=b'"' + b"x" * limit + b'"', **options)
    assert finished.exit_code == 2
    assert f"Lambda accepts {limit}" in finished.stderr
    assert api.seen == []


def test_a_client_context_that_lambda_would_drop_is_refused(api: Relay) -> None:
    """Lambda API reference, Invoke: synchronous invocations only."""
    finished = invoke(is_async=True, client_context='{"custom":{}}')
    assert finished.exit_code == 2
    assert "Cannot use --client-context with --async: Lambda passes it to" in (
        finished.stderr
    )
    assert api.seen == []


def test_a_name_with_illegal_characters_is_not_sent(api: Relay) -> None:
    finished = invoke("../fn")
    assert finished.exit_code == 2
    assert "Cannot find function '../fn': there is no such file or folder" in (
        finished.stderr
    )
    assert api.seen == []


@pytest.mark.parametrize("is_deployed", [False, True], ids=["folder", "both"])
def test_a_folder_means_its_function_unless_it_means_two(
    cloud: Cloud, is_deployed: bool
) -> None:
    (cloud.folder / "project").rename(cloud.folder / "orders")  # its name is fn
    if is_deployed:
        role = cloud.client("iam").create_role(
            RoleName="role", AssumeRolePolicyDocument="{}"
        )["Role"]["Arn"]
        code = {"ZipFile": (cloud.folder / cloud.package()).read_bytes()}
        cloud.client("lambda").create_function(
            FunctionName="orders", Runtime="python3.13", Role=role, Handler="a.b",
            Code=code,
        )  # fmt: skip
    with cloud.relay() as relay:
        relay.answers(CONFIGURATION, Reply(200, {"Timeout": 7}, times=2))
        relay.answers(INVOKE, Reply(200, b"1", headers=HEADERS, times=2))
        finished = invoke("orders")
        assert invoke("./orders").stdout == "1\n"
        alias = invoke("orders:live")
    assert finished.exit_code == (2 if is_deployed else 0), finished.stderr
    if not is_deployed:
        assert "Cannot invoke 'fn:live': there is no such" in alias.stderr
    if is_deployed:
        assert "give './orders' with --qualifier live for the first" in alias.stderr
        assert "Cannot tell which function 'orders' means: " in finished.stderr
        assert "give './orders' for the first, arn:aws:lambda:" in finished.stderr


def write_log(cloud: Cloud, *messages: str, name: str = "fn") -> None:
    logs = cloud.client("logs")
    group = f"/aws/lambda/{name}"
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName="s")
    now = round(time.time() * 1000)
    events = [{"timestamp": now, "message": message} for message in messages]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)


def test_a_log_is_printed_with_its_times(cloud: Cloud) -> None:
    write_log(cloud, "one\n", "two")
    lines = cloud.run("logs", "fn").stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two"]
    assert lines[0][:2] == "20"
    assert lines[0].split(" ")[0].endswith("Z")


def test_the_errors_in_a_log_in_aws_are_explained(cloud: Cloud) -> None:
    write_log(cloud, "all is well", "2026 x Task timed out after 3.00 seconds")
    finished = cloud.run("explain", "--logs", "fn", "--since", "10m")
    assert finished.exit_code == 0, finished.stderr
    assert "set: timeout" in finished.stdout
    missing = cloud.run("explain", "--logs", "other")
    assert missing.exit_code == 3
    assert "no log group" in missing.stderr


def test_a_log_without_entries_is_named(cloud: Cloud) -> None:
    write_log(cloud, "one")
    finished = cloud.run("logs", "fn", "--filter", "two", "--since", "5m")
    assert (finished.exit_code, finished.stdout) == (0, "")
    group = "'/aws/lambda/fn'"
    assert f"no entries that match in {group} of the last 5m" in finished.stderr
    cloud.client("logs").create_log_group(logGroupName="/aws/lambda/new")
    assert "no entries in" in cloud.run("logs", "new").stderr
    assert "no entries in" in cloud.run("explain", "--logs", "new").stderr


def test_a_log_can_be_filtered_and_read_as_json(cloud: Cloud) -> None:
    write_log(cloud, f"INFO {REQUEST_ID} a", "INFO other b")
    finished = cloud.run("logs", "fn", "--request-id", REQUEST_ID, "-o", "json")
    (line,) = finished.stdout.splitlines()
    event = json.loads(line)
    assert (event["message"], event["stream"]) == (f"INFO {REQUEST_ID} a", "s")


def test_following_gives_each_event_once(cloud: Cloud) -> None:
    write_log(cloud, "one")
    rounds = iter(["two", "three"])

    def write_more(pause_s: float) -> None:
        assert pause_s == 2.0
        write_log(cloud, next(rounds))

    events = follow_log(
        Aws(REGION),
        "/aws/lambda/fn",
        since_epoch_ms=0,
        warn=pytest.fail,
        sleep=write_more,
    )
    found = [next(events).message for _ in range(3)]
    assert found == ["one", "two", "three"]


def test_following_ends_after_as_many_as_are_wanted(cloud: Cloud) -> None:
    write_log(cloud, "one", "two", "three")
    finished = cloud.run("logs", "fn", "--follow", "--limit", "2")
    assert finished.exit_code == 0
    assert len(finished.stdout.splitlines()) == 2


def test_a_log_is_found_by_who_may_not_read_the_function(cloud: Cloud) -> None:
    write_log(cloud, "one")
    with cloud.relay() as relay:
        relay.refuses("GET .*/functions/fn", "AccessDeniedException", "no", 403)
        finished = cloud.run("logs", "fn")
    assert finished.exit_code == 0
    assert finished.stdout.endswith(" one\n")


def test_a_log_that_is_not_there_is_one_sentence(cloud: Cloud) -> None:
    finished = cloud.run("logs", "fn")
    assert finished.exit_code == 3
    assert finished.stderr == (
        f"Cannot read the log: there is no log group '/aws/lambda/fn' in {REGION}; "
        "deploy or invoke the function first, or check --region and --profile\n"
    )


def test_a_duration_that_is_none_is_one_sentence(cloud: Cloud) -> None:
    finished = cloud.run("logs", "fn", "--since", "yesterday")
    assert finished.exit_code == 2
    assert "expected a number and s, m, h or d" in finished.stderr
