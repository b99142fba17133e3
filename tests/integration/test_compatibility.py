"""npm packages as people have them, unmodified, through the real runtime.

Versions are pinned in tests/fixtures/compatibility; docs/compatibility.md lists them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.aws import aws_stand_in
from tests.fixtures.packages import DENO_DIR, download, install
from tests.integration.test_http import alb, v1, v2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "compatibility"
JSON = {"host": "api.example.com", "content-type": "application/json"}


@pytest.fixture(scope="module")
def deno_dir() -> str:
    """Deno's cache with every package in it."""
    return download(FOLDER)


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """Variables that lead an SDK to a stand-in for AWS."""
    with aws_stand_in() as environ:
        yield environ


def post(path: str, value: object) -> dict[str, Any]:
    """Write the event of a POST with a JSON body."""
    return v2(path, "POST", headers=JSON, body=json.dumps(value).encode())


def split(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take the prelude off a streamed HTTP answer."""
    prelude, _, rest = body.partition(b"\0" * 8)
    return json.loads(prelude), rest


def json_lines(log: str) -> list[dict[str, Any]]:
    """Read a log in which every line is a JSON object, but for ours about forks."""
    ours = "Events are served by"
    return [json.loads(line) for line in log.splitlines() if ours not in line]


@pytest.mark.cases(1)
@pytest.mark.parametrize("export", ["default", "buffered"])
async def test_hono_answers_as_a_fetch_handler_and_by_its_own_adapter(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, export: str
) -> None:
    async with make_runtime(FOLDER, f"hono.{export}", DENO_DIR=deno_dir) as runtime:
        event = v2("/query", rawQueryString="x=1&x=a%20b", cookies=["s=1", "t=2"])
        result = (await api.invoke(event)).json()
        assert result["statusCode"] == 200
        assert result["cookies"] == ["a=1; Path=/", "b=2; Path=/"]
        assert json.loads(result["body"]) == {
            "url": "https://abc.lambda-url.us-east-1.on.aws/query?x=1&x=a%20b",
            "cookies": {"s": "1", "t": "2"},
        }
        result = (await api.invoke(post("/echo", {"ü": [1]}))).json()
        assert (result["statusCode"], result["body"]) == (201, '{"ü":[1]}')
        result = (await api.invoke(v1("/bytes"))).json()
        assert (result["isBase64Encoded"], result["body"]) == (True, "AP8B")
        assert (await api.invoke(alb("/nowhere"))).json()["statusCode"] == 404
        result = (await api.invoke(v2("/tokens"))).json()
        assert result["body"] == "one two three"
        assert (await api.invoke(v2("/throws"))).json()["statusCode"] == 500
        if export == "default":
            event = v2("/client")
            event["requestContext"]["http"]["sourceIp"] = "192.0.2.1"
            result = (await api.invoke(event)).json()
            assert json.loads(result["body"]) == ["192.0.2.1", "192.0.2.1"]
        await api.wait_for_next()
        assert "TypeError: the route threw" in runtime.log


async def test_hono_streams_by_its_own_adapter(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "hono.streamed", DENO_DIR=deno_dir):
        answer = await api.invoke(v2("/tokens"))
        prelude, body = split(answer.body)
        assert prelude["statusCode"] == 200
        assert prelude["headers"]["content-type"] == "text/plain; charset=UTF-8"
        assert body == b"one two three"
        assert len(answer.chunks) == 3
        prelude, _ = split((await api.invoke(v2("/query"))).body)
        assert prelude["cookies"] == ["a=1; Path=/", "b=2; Path=/"]


async def test_graphql_yoga_is_a_function_and_answers(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "yoga.default", DENO_DIR=deno_dir):
        answer = await api.invoke(post("/graphql", {"query": "{ id }"}))
        assert json.loads(answer.json()["body"]) == {"data": {"id": answer.request_id}}


async def test_middy_runs_its_middlewares_around_the_handler(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "middy.handler", DENO_DIR=deno_dir) as runtime:
        answer = await api.invoke(post("/", {"name": "Ada"}))
        assert answer.json() == {"statusCode": 200, "body": "Hello Ada, true"}
        result = (await api.invoke(post("/", {"nome": "Ada"}))).json()
        assert result["statusCode"] == 400
        assert result["body"] == "Event object failed validation"
        event = v2("/", "POST", headers=JSON, body=b'{"name')
        result = (await api.invoke(event)).json()
        assert result["statusCode"] == 422
        await api.wait_for_next()
        assert f"before {answer.request_id}" in runtime.log
        assert "must have required property 'name'" in runtime.log


async def test_middy_streams(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "middy.streamed", DENO_DIR=deno_dir):
        prelude, body = split((await api.invoke(v2("/"))).body)
        headers = {"content-type": "text/plain"}
        assert prelude == {"statusCode": 203, "headers": headers}
        assert body == b"one two"


async def test_middy_can_answer_before_the_deadline(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "middy.early", DENO_DIR=deno_dir):
        answer = await api.invoke({}, timeout_s=5.0)
        assert answer.json() == {"statusCode": 408}


@pytest.mark.cases(1)
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
async def test_powertools_lines_reach_the_log_unchanged(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, log_format: str
) -> None:
    async with make_runtime(
        FOLDER,
        "powertools.handler",
        DENO_DIR=deno_dir,
        AWS_LAMBDA_LOG_FORMAT=log_format,
        AWS_REGION="eu-central-1",
    ) as runtime:
        answer = await api.invoke({})
        await api.wait_for_next()
        accepted, failed, metric = json_lines(runtime.log)
    assert list(accepted)[:4] == ["level", "message", "timestamp", "service"]
    assert accepted["message"] == "accepted"
    assert accepted["order"] == 7
    assert accepted["function_request_id"] == answer.request_id
    assert failed["error"]["name"] == "RangeError"
    assert failed["error"]["location"].endswith("/powertools.ts:15")
    timestamp = metric["_aws"].pop("Timestamp")
    assert isinstance(timestamp, int)
    assert metric == {
        "_aws": {
            "CloudWatchMetrics": [
                {
                    "Namespace": "shop",
                    "Dimensions": [["service", "tier"]],
                    "Metrics": [{"Name": "accepted", "Unit": "Count"}],
                }
            ]
        },
        "service": "orders",
        "tier": "gold",
        "accepted": 1,
    }


@pytest.mark.cases(1)
@pytest.mark.parametrize("export", ["wrapped", "decorated"])
async def test_powertools_works_as_middleware_and_as_decorator(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, export: str
) -> None:
    async with make_runtime(
        FOLDER, f"powertools.{export}", DENO_DIR=deno_dir, AWS_REGION="eu-central-1"
    ) as runtime:
        for _ in range(2):
            assert (await api.invoke({"a": 1})).json() is None
        await api.wait_for_next()
        lines = json_lines(runtime.log)
    messages = [line["message"] for line in lines if "message" in line]
    metrics = [
        metric["Name"]
        for line in lines
        if "_aws" in line
        for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    ]
    if export == "wrapped":
        assert messages == ["Lambda invocation event", "inside"] * 2
        # To Powertools a process is an environment: each event is a cold start.
        assert metrics == ["ColdStart", "wrapped"] * 2
    else:
        assert messages == ["inside"] * 2
        assert metrics == ["decorated"] * 2


async def test_the_sdk_reads_and_writes_objects(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    deno_dir: str,
    aws: dict[str, str],
) -> None:
    async with make_runtime(FOLDER, "aws_sdk.objects", DENO_DIR=deno_dir, **aws):
        assert (await api.invoke({})).json() == {
            "keys": ["bytes", "text/ü"],
            "text": "some text",
            "bytes": [0, 255, 1],
            "missing": "NoSuchKey",
        }


async def test_the_sdk_reads_and_writes_items(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    deno_dir: str,
    aws: dict[str, str],
) -> None:
    async with make_runtime(FOLDER, "aws_sdk.items", DENO_DIR=deno_dir, **aws):
        assert (await api.invoke({})).json() == [
            {"order": "a", "line": line, "tags": ["x"], "nested": {"line": line}}
            for line in (2, 3)
        ]


async def test_express_answers_behind_serverless_http(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "express_app.handler", DENO_DIR=deno_dir):
        event = v2("/items/7", rawQueryString="x=1", queryStringParameters={"x": "1"})
        result = (await api.invoke(event)).json()
        assert result["statusCode"] == 200
        assert result["cookies"] == ["a=1; Path=/", "b=2; Path=/"]
        assert json.loads(result["body"]) == {"id": "7", "query": {"x": "1"}}
        result = (await api.invoke(v1("/items/8"))).json()
        assert json.loads(result["body"]) == {"id": "8", "query": {}}
        result = (await api.invoke(post("/items", {"a": 1}))).json()
        assert (result["statusCode"], result["body"]) == (201, '{"got":{"a":1}}')
        result = (await api.invoke(v2("/bytes"))).json()
        assert (result["isBase64Encoded"], result["body"]) == (True, "AP8B")
        assert (await api.invoke(v2("/pieces"))).json()["body"] == "one two"
        result = (await api.invoke(v2("/throws"))).json()
        assert result["statusCode"] == 500
        assert "TypeError: the route threw" in result["body"]


async def test_zod_parses_the_event_and_its_errors_keep_their_name(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    event = {
        "id": "123e4567-e89b-42d3-a456-426614174000",
        "at": "2026-11-23T12:00:00Z",
        "lines": [{"sku": "lamp", "quantity": "2"}],
    }
    async with make_runtime(FOLDER, "zod.handler", DENO_DIR=deno_dir):
        assert (await api.invoke(event)).json() == {
            "id": event["id"],
            "at": "2026-11-23T12:00:00.000Z",
            "lines": [{"sku": "lamp", "quantity": 2}],
        }
        failed = await api.invoke({**event, "lines": []})
        assert failed.call == "error"
        assert failed.json()["errorType"] == "ZodError"
        issue = json.loads(failed.json()["errorMessage"])[0]
        assert issue["path"] == ["lines"]


async def test_a_package_needs_no_configuration_if_its_specifier_is_complete(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    source = """
import { Hono } from "npm:hono@4.13.19";
const app = new Hono();
app.get("/", (c) => c.text("found"));
export default app;
"""
    files = {"function.ts": source}
    async with make_runtime(files, DENO_DIR=deno_dir) as runtime:
        assert (await api.invoke(v2("/"))).json()["body"] == "found"
        assert [path.name for path in runtime.task_root.iterdir()] == ["function.ts"]


async def test_packages_that_npm_installed_are_found(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    project = install(FIXTURES / "node-project")
    async with make_runtime(project, DENO_DIR=str(DENO_DIR)):
        assert (await api.invoke(v2("/items/7"))).json()["body"] == '{"id":"7"}'


# What follows does not work yet; docs/compatibility.md has the reasons.


async def test_a_commonjs_handler_runs(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    project = install(FIXTURES / "node-project")
    async with make_runtime(project, "commonjs.handler", DENO_DIR=str(DENO_DIR)):
        await api.wait_for_next()
        api.deliver(json.dumps(v2("/items/7")).encode())
        assert (await api.answer()).json()["body"] == '{"id":"7"}'


async def test_no_lock_file_is_written_into_the_task_root(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    files = {
        "function.ts": (FOLDER / "zod.ts").read_text(),
        "deno.json": (FOLDER / "deno.json").read_text(),
    }
    async with make_runtime(files, DENO_DIR=deno_dir) as runtime:
        await api.invoke({})
        assert not (runtime.task_root / "deno.lock").exists()


async def test_hono_has_an_execution_context(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(FOLDER, "hono.default", DENO_DIR=deno_dir) as runtime:
        assert (await api.invoke(v2("/later"))).json()["body"] == "now"
        await api.wait_for_next()
        assert "later work is done" in runtime.log
