"""Every example runs through the real runtime, as its README says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import orjson
import pytest

from tests.fixtures.aws import aws_stand_in
from tests.fixtures.command import run_command
from tests.fixtures.packages import DENO_DIR, download

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def deno_dir() -> str:
    """Deno's cache with the packages of all examples in it."""
    for lock in EXAMPLES.glob("*/deno.lock"):
        download(lock.parent)
    return str(DENO_DIR)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Variables that lead to a stand-in for S3, where the CSV file has arrived."""
    with aws_stand_in() as environ:
        client = s3_client(environ)
        location = {"LocationConstraint": environ["AWS_REGION"]}
        client.create_bucket(Bucket="reports", CreateBucketConfiguration=location)
        csv = (EXAMPLES / "s3-thumbnail-or-csv/sales.csv").read_bytes()
        client.put_object(Bucket="reports", Key="2026/sales north.csv", Body=csv)
        yield environ


def s3_client(environ: dict[str, str]) -> Any:
    """Return boto3's client, to look from outside."""
    return boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL_S3"],
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


def event(path: str) -> object:
    """Read an example's event."""
    return orjson.loads((EXAMPLES / path).read_bytes())


async def test_hello_greets_and_has_served_nobody_before(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "hello") as runtime:
        for _ in range(2):
            answer = await api.invoke(event("hello/event.json"))
            assert answer.json() == {
                "message": "Hello Lambda",
                "servedByThisProcess": 1,
                "requestId": answer.request_id,
            }
        await api.wait_for_next()
        assert runtime.log.count("Greeting Lambda") == 2


async def test_inventory_lists_reserves_and_fails_with_its_cause(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "inventory"):
        listed = (await api.invoke(event("inventory/events/list.json"))).json()
        assert [item["sku"] for item in listed["items"]] == ["lamp-01", "chair-02"]
        order = (await api.invoke(event("inventory/events/order.json"))).json()
        assert order["total"] == 636
        assert [line["left"] for line in order["lines"]] == [10, 0]
        failed = await api.invoke(event("inventory/events/out-of-stock.json"))
        assert failed.call == "error"
        body = failed.json()
        assert body["errorMessage"] == "The order cannot be fulfilled"
        assert body["cause"]["errorType"] == "OutOfStockError"
        assert body["cause"]["errorMessage"] == "Cannot reserve 1 of mug-03: 0 left"
        assert "/lib/stock.ts:" in body["cause"]["stackTrace"][0]
        again = (await api.invoke(event("inventory/events/list.json"))).json()
        assert again == listed, "what one event took is there for the next"
        await api.wait_for_next()


async def test_hono_api_routes_checks_and_sets_cookies(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(EXAMPLES / "hono-api", DENO_DIR=deno_dir) as runtime:

        async def answer(name: str) -> tuple[int, Any, dict[str, Any]]:
            sent = event(f"hono-api/events/{name}.json")
            result = (await api.invoke(sent)).json()
            return result["statusCode"], orjson.loads(result["body"]), result

        status, body, _ = await answer("search")
        assert status == 200
        assert [book["title"] for book in body["books"]] == ["Pride and Prejudice"]
        status, body, result = await answer("book")
        assert (status, body["title"], body["seen"]) == (200, "Jane Eyre", 3)
        assert result["cookies"] == [
            "seen=3; Path=/; HttpOnly; Secure",
            "last=9780141441146; Path=/",
        ]
        status, body, result = await answer("rest-api")
        assert (status, body["title"], body["seen"]) == (200, "Wuthering Heights", 5)
        assert len(result["multiValueHeaders"]["set-cookie"]) == 2
        status, body, result = await answer("order")
        assert (status, body["total"]) == (201, 19.98)
        assert result["headers"]["location"] == f"/orders/{body['id']}"
        status, body, _ = await answer("bad-order")
        assert status == 400
        assert sorted(body["error"]["fieldErrors"]) == ["isbn", "quantity"]
        await api.wait_for_next()
        assert runtime.log.count("2 of 9780141441146") == 1


async def test_express_answers_although_it_knows_nothing_of_lambda(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str
) -> None:
    async with make_runtime(EXAMPLES / "express", DENO_DIR=deno_dir):
        added = (await api.invoke(event("express/events/add.json"))).json()
        assert (added["statusCode"], added["headers"]["location"]) == (201, "/tasks/2")
        listed = (await api.invoke(event("express/events/tasks.json"))).json()
        assert [task["id"] for task in orjson.loads(listed["body"])] == [1]
        await api.wait_for_next()


async def test_stream_sends_each_token_as_it_is_made(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "stream"):
        answer = await api.invoke(event("stream/events/prompt.json"))
    assert answer.body.startswith(b"You asked: Why does an event")
    assert answer.body.endswith(b"is left behind.")
    assert len(answer.chunks) == len(answer.body.split())
    assert answer.chunks[-1][0] - answer.chunks[0][0] > 0.3, "it trickled"


async def test_stream_answers_as_http_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "stream", "http.handler"):
        answer = await api.invoke(event("stream/events/http.json"))
    prelude, _, body = answer.body.partition(b"\0" * 8)
    assert orjson.loads(prelude) == {
        "statusCode": 200,
        "headers": {"content-type": "text/event-stream", "cache-control": "no-store"},
    }
    assert body.startswith(b'data: "You "\n\ndata: "asked: "\n\n')
    assert body.endswith(b"event: done\ndata: {}\n\n")
    assert len(answer.chunks) > 10


async def test_s3_csv_is_summarised_beside_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, deno_dir: str, s3: dict[str, str]
) -> None:
    folder = EXAMPLES / "s3-thumbnail-or-csv"
    async with make_runtime(folder, DENO_DIR=deno_dir, **s3) as runtime:
        created = event("s3-thumbnail-or-csv/events/created.json")
        key = "2026/sales north.summary.json"
        assert (await api.invoke(created)).json() == {
            "written": [{"bucket": "reports", "key": key}]
        }
        await api.wait_for_next()
        assert "Summarised 4 rows of reports/2026/sales north.csv" in runtime.log
    written = s3_client(s3).get_object(Bucket="reports", Key=key)
    assert written["ContentType"] == "application/json"
    assert orjson.loads(written["Body"].read()) == {
        "rows": 4,
        "columns": {
            "units": {"min": 1, "max": 40, "sum": 56},
            "revenue": {"min": 189, "max": 567, "sum": 1460},
        },
    }


async def test_sqs_batch_reports_the_messages_that_failed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "sqs-batch") as runtime:
        failures = (await api.invoke(event("sqs-batch/events/batch.json"))).json()
        await api.wait_for_next()
    failed = [item["itemIdentifier"] for item in failures["batchItemFailures"]]
    assert [identifier[:8] for identifier in failed] == ["00000002", "00000004"]
    assert "Booked 1250 cents for ada" in runtime.log
    assert "RangeError: Cannot book -5 cents for grace" in runtime.log


async def test_webhook_answers_at_once_and_works_on(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    secret = "local-secret"
    source = (EXAMPLES / "webhook" / "function.ts").read_text(encoding="utf-8")
    work = "await sleep(200); // stands for the work\n"
    assert work in source
    # The work takes as long as this test wants.
    gate = 'Deno.statSync(new URL("gate", import.meta.url)).isFile'
    waits = f"for (;;) try {{ if ({gate}) break; }} catch {{ await sleep(10); }}\n"
    runtime = make_runtime(
        {"function.ts": source.replace(work, waits)},
        "function.default",
        WEBHOOK_SECRET=secret,
    )
    async with runtime:
        result = (await api.invoke(event("webhook/events/push.json"))).json()
        assert result["statusCode"] == 202
        assert "Deployed" not in runtime.log
        (runtime.task_root / "gate").touch()
        result = (await api.invoke(event("webhook/events/forged.json"))).json()
        assert result["statusCode"] == 401
        await api.wait_for_next()
        assert runtime.log.count("Deployed shop/main at 5d41402") == 1


async def test_webhook_does_not_start_without_its_secret(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "webhook") as runtime:
        failed = await api.answer()
        assert failed.call == "init/error"
        message = "Cannot start without the variable WEBHOOK_SECRET"
        assert failed.json()["errorMessage"] == message
        assert await runtime.wait() == 1


def commands() -> list[str]:
    """Return every command line in the examples' READMEs."""
    found = []
    for readme in sorted(EXAMPLES.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        found += re.findall(r"^ {4}lambda-deno-spawn (.*)$", text, re.MULTILINE)
    return found


@pytest.mark.cases(1)
@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readmes_do_what_they_say(
    request: pytest.FixtureRequest, deno_dir: str, command: str
) -> None:
    # The README says how to start a stand-in for S3 first.
    s3 = request.getfixturevalue("s3") if "s3-" in command else {}
    environ = {**os.environ, "DENO_DIR": deno_dir, **s3}
    done = run_command(*shlex.split(command), cwd=EXAMPLES.parent, environ=environ)
    is_error_path = "out-of-stock" in command
    assert done.returncode == (1 if is_error_path else 0), done.stderr.decode()
    assert b"REPORT RequestId: " in done.stderr
    if "examples/stream" in command:
        assert b"behind." in done.stdout
    else:
        assert ("errorType" in orjson.loads(done.stdout)) == is_error_path
