"""The Runtime API's side: every header, every status, broken connections, the end."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import ConfigError, RefusedError, RuntimeApiError
from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
from tests.doubles import FakeRuntimeApi, Refusal
from tests.integration.harness import LIMIT_S, wait_for_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.as_lambda

SOURCE = """
export function handler(event: any) {
  if (event.fails) throw new Error(event.fails);
  return event;
}
"""


@pytest.fixture
async def client(api: FakeRuntimeApi) -> AsyncIterator[RuntimeApiClient]:
    """The real client for the fake server."""
    client = RuntimeApiClient(api.address, "/var/task")
    yield client
    await client.aclose()


async def test_next_returns_what_the_headers_and_the_body_say(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.deliver(
        b'{"a":\x201}',
        request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        headers={
            "lambda-runtime-trace-id": "Root=1-5bef4de7;Parent=9a;Sampled=1",
            "LAMBDA-RUNTIME-CLIENT-CONTEXT": '{"env":{}}',
            "Lambda-Runtime-Cognito-Identity": "",
            "Lambda-Runtime-Aws-Tenant-Id": "blue",
            "Lambda-Runtime-Invocation-Id": "opaque/1",
        },
    )
    invocation = await client.next()
    assert invocation.event == b'{"a":\x201}'
    assert invocation.request_id == "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    assert invocation.trace_id == "Root=1-5bef4de7;Parent=9a;Sampled=1"
    assert invocation.client_context == '{"env":{}}'
    assert invocation.cognito_identity is None
    assert invocation.tenant_id == "blue"
    assert invocation.invocation_id == "opaque/1"
    [agent] = api.user_agents
    assert agent.startswith("lambda-deno-spawn/")
    assert "python/3." in agent


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 65_536, 6_000_000])
async def test_an_event_of_any_size_arrives_in_either_encoding(
    api: FakeRuntimeApi, client: RuntimeApiClient, size: int, is_chunked: bool
) -> None:
    event = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    api.deliver(event, is_chunked=is_chunked)
    assert (await client.next()).event == event


async def test_answers_echo_the_invocation_id_only_if_there_was_one(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.deliver(b"{}", headers={"Lambda-Runtime-Invocation-Id": "opaque=1"})
    await client.post_response(await client.next(), Success(b"1"))
    answer = await api.answer()
    assert answer.headers["lambda-runtime-invocation-id"] == "opaque=1"
    assert answer.headers["content-type"] == "application/json"
    assert "lambda-runtime-function-response-mode" not in answer.headers
    api.deliver(b"{}")
    await client.post_error(await client.next(), Failure.of("TypeError", "no"))
    answer = await api.answer()
    assert "lambda-runtime-invocation-id" not in answer.headers
    assert answer.headers["lambda-runtime-function-error-type"] == "Function.TypeError"
    assert answer.json() == {
        "errorType": "TypeError",
        "errorMessage": "no",
        "stackTrace": [],
    }
    assert api.connections == 1


async def test_a_request_id_is_percent_encoded_in_the_path(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.deliver(b"{}", request_id="a/b c%")
    await client.post_response(await client.next(), Success(b"1"))
    assert (await api.answer()).request_id == "a%2Fb%20c%25"


@pytest.mark.parametrize("status", [400, 403, 410, 413])
async def test_a_refused_answer_concerns_one_invocation(
    api: FakeRuntimeApi, client: RuntimeApiClient, status: int
) -> None:
    api.refusals.append(Refusal(status, "SomeType"))
    api.deliver(b"{}")
    with pytest.raises(RefusedError) as caught:
        await client.post_response(await client.next(), Success(b"1"))
    assert caught.value.status == status
    assert f"HTTP status {status}" in str(caught.value)
    assert "SomeType: for the test" in str(caught.value)
    await api.answer()
    api.deliver(b"{}")
    await client.post_response(await client.next(), Success(b"2"))
    assert (await api.answer()).body == b"2"
    assert api.answers.empty(), "a refused response is not followed by an error"


async def test_a_container_error_is_a_refusal_too(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.refusals.append(Refusal(500))
    api.deliver(b"{}")
    with pytest.raises(RefusedError) as caught:
        await client.post_response(await client.next(), Success(b"1"))
    assert (caught.value.call, caught.value.status) == ("response", 500)


@pytest.mark.parametrize("status", [403, 500, None])
async def test_a_next_that_is_refused_or_lost_twice_raises(
    api: FakeRuntimeApi, client: RuntimeApiClient, status: int | None
) -> None:
    api.next_refusals += [Refusal(status)] * 2
    with pytest.raises(RuntimeApiError) as caught:
        await client.next()
    assert (caught.value.call, caught.value.status) == ("next", status)
    assert isinstance(caught.value, RefusedError) == (status is not None)


async def test_an_address_that_nothing_listens_at_is_named() -> None:
    client = RuntimeApiClient("127.0.0.1:1", "/")
    with pytest.raises(RuntimeApiError, match=r"cannot connect to 127\.0\.0\.1:1"):
        await client.next()


async def test_a_connection_closed_while_idle_is_replaced(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.closes_after_next = True
    api.deliver(b"{}")
    invocation = await client.next()
    # The end of the connection is there to be read before the answer is sent.
    async with asyncio.timeout(60):
        while client._transport.is_idle:  # noqa: ASYNC110 - until the loop has seen it
            await asyncio.sleep(0)
    await client.post_response(invocation, Success(b"1"))
    assert (await api.answer()).body == b"1"
    assert api.connections == 2
    api.next_refusals.append(Refusal(None))
    api.deliver(b"2")
    assert (await client.next()).event == b"2", "a poll may be repeated"
    assert api.connections == 3


async def test_an_answer_is_never_sent_twice(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.deliver(b"{}")
    invocation = await client.next()
    api.refusals.append(Refusal(None))  # it was taken, but the connection breaks
    with pytest.raises(RuntimeApiError, match="call 'response': no answer") as caught:
        await client.post_response(invocation, Success(b"1"))
    assert not isinstance(caught.value, RefusedError)
    assert (await api.answer()).body == b"1"
    assert api.answers.empty()
    assert api.connections == 1


async def test_texts_of_the_caller_are_utf_8_and_opaque_ids_go_back_as_they_came(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    def as_latin_1(text: str) -> str:
        return text.encode().decode("latin-1")

    api.deliver(
        b"{}",
        headers={
            "Lambda-Runtime-Client-Context": as_latin_1('{"custom":{"a":"é漢"}}'),
            "Lambda-Runtime-Aws-Tenant-Id": as_latin_1("tenant é"),
            "Lambda-Runtime-Invocation-Id": as_latin_1("é日"),
        },
    )
    invocation = await client.next()
    assert invocation.client_context == '{"custom":{"a":"é漢"}}'
    assert invocation.tenant_id == "tenant é"
    await client.post_response(invocation, Success(b"1"))
    answer = await api.answer()
    assert answer.headers["lambda-runtime-invocation-id"] == as_latin_1("é日")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":1", "127.0.0.1:99999", "::1:9001", "höst:80", "a:b"]
)
def test_an_address_that_is_none_is_a_setting_that_cannot_be_used(address: str) -> None:
    with pytest.raises(ConfigError, match="AWS_LAMBDA_RUNTIME_API"):
        RuntimeApiClient(address, "/")


async def test_long_header_fields_are_taken(
    api: FakeRuntimeApi, client: RuntimeApiClient
) -> None:
    api.deliver(b"{}", headers={"Lambda-Runtime-Trace-Id": "x" * 100_000})
    assert len((await client.next()).trace_id or "") == 100_000


@pytest.mark.deno
async def test_a_proxy_in_the_environment_is_ignored(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    nowhere = "http://127.0.0.1:1"
    async with make_runtime(
        {"function.ts": SOURCE},
        HTTP_PROXY=nowhere,
        http_proxy=nowhere,
        ALL_PROXY=nowhere,
    ):
        assert (await api.invoke({"n": 1})).json() == {"n": 1}
        await api.wait_for_next()


@pytest.mark.deno
@pytest.mark.parametrize("status", [400, 403, 410, 413, None])
async def test_the_runtime_goes_on_after_a_refused_answer(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, status: int | None
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        api.refusals.append(Refusal(status))
        await api.invoke({"n": 1})
        await runtime.logged("\tERROR\tCannot complete Runtime API call 'response'")
        assert (await api.invoke({"n": 2})).json() == {"n": 2}
        await api.wait_for_next()
        assert api.answers.empty()


@pytest.mark.deno
async def test_the_runtime_ends_when_the_platform_says_so(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        api.refusals.append(Refusal(500))
        await api.invoke({"n": 1})
        assert await runtime.wait() == 1
        assert "HTTP status 500" in runtime.log


@pytest.mark.deno
async def test_the_runtime_ends_when_next_is_refused(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.next_refusals.append(Refusal(403))
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        assert await runtime.wait() == 1
        assert "Cannot complete Runtime API call 'next': HTTP status 403" in runtime.log


@pytest.mark.deno
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_exit_code_0(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, number: signal.Signals
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        await api.invoke({"n": 1})
        await api.wait_for_next()
        assert await runtime.stop(number) == 0


@pytest.mark.deno
async def test_a_signal_in_the_middle_of_an_invocation_leaves_nothing_behind(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler() {
  console.log("here");
  for (;;);
}
"""
    async with make_runtime({"function.ts": source}) as runtime:
        await api.wait_for_next()
        api.deliver(b"{}")
        await runtime.logged("here")
        assert await runtime.stop() == 0


@pytest.mark.deno
async def test_a_killed_supervisor_takes_its_waiting_process_along(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        await api.wait_for_next()
        assert await runtime.stop(signal.SIGKILL) == -signal.SIGKILL
        await runtime.all_gone()  # its stdin has ended
        runtime.clear_temp_root()


@pytest.mark.deno
async def test_the_next_supervisor_clears_up_after_one_that_was_killed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    # Lambda resets an environment like this: SIGKILL, /tmp kept, the runtime again.
    source = """
export function handler(event: any) {
  console.log("here");
  while (event.hang) { /* busy */ }
  return "served";
}
"""
    first = make_runtime({"function.ts": source})
    async with FakeRuntimeApi() as other:
        first.api = other
        await first.__aenter__()
        await other.wait_for_next()
        other.deliver(b'{"hang":true}', timeout_s=60)
        await first.logged("here")
        await first.stop(signal.SIGKILL)
        [busy] = first.survivors()
    # A folder without a lock, and one that is not ours to judge, are left alone.
    (first.temp_root / "lambda-deno-spawn-unlocked").mkdir()
    async with make_runtime({"function.ts": source}) as runtime:
        assert (await api.invoke({})).json() == "served"
        await api.wait_for_next()
        await wait_for_end(busy, LIMIT_S)
        assert first.survivors() == []
        (first.temp_root / "lambda-deno-spawn-unlocked").rmdir()
        assert len(list(runtime.temp_root.iterdir())) == 1, "its own"


@pytest.mark.deno
async def test_two_supervisors_side_by_side_leave_each_other_alone(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with FakeRuntimeApi() as other:
        first = make_runtime({"function.ts": SOURCE})
        first.api = other
        async with first:
            await other.wait_for_next()
            second = make_runtime({"function.ts": SOURCE})
            await second.__aenter__()
            assert (await api.invoke({"n": 2})).json() == {"n": 2}
            await api.wait_for_next()
            other.deliver(b'{"n":1}')
            assert (await other.answer()).json() == {"n": 1}
            await other.wait_for_next()
            assert await second.stop() == 0


@pytest.mark.deno
async def test_json_logs_have_the_platforms_fields(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
import process from "node:process";
console.info("while loading");
export function handler() {
  console.debug("dropped");
  console.warn({ nested: [1] });
  console.error("it was", new TypeError("bad"));
  console.log("two\\nlines");
  console.table([{ a: 1 }]);
  process.stdout.write('{"own":"json"}\\n');
  process.stdout.write("plain text\\n");
}
"""
    async with make_runtime(
        {"function.ts": source},
        AWS_LAMBDA_LOG_FORMAT="JSON",
        AWS_LAMBDA_LOG_LEVEL="info",
    ) as runtime:
        answer = await api.invoke({}, headers={"Lambda-Runtime-Aws-Tenant-Id": "t1"})
        assert answer.body == b"null"
        await api.wait_for_next()
        records = [json.loads(line) for line in runtime.log.split("\n") if line]
    # What follows is the next process, which loads the module as well.
    loading, warn, error, lines, table, own, plain = records[:7]
    assert {k: loading[k] for k in loading if k != "timestamp"} == {
        "level": "INFO",
        "message": "while loading",
    }
    assert warn["message"] == {"nested": [1]}
    assert (warn["level"], warn["requestId"]) == ("WARN", answer.request_id)
    assert warn["tenantId"] == "t1"
    assert (error["level"], error["errorType"]) == ("ERROR", "TypeError")
    assert error["errorMessage"] == "bad"
    assert error["message"].startswith("it was TypeError: bad\n    at handler")
    assert "runtime.js" not in error["message"]
    assert lines["message"] == "two\nlines"
    assert "│ a │" in table["message"]
    assert own == {"own": "json"}
    assert (plain["message"], plain["requestId"]) == ("plain text", answer.request_id)


@pytest.mark.deno
async def test_text_logs_keep_a_record_on_one_line(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler() {
  console.debug("not filtered in text");
  console.log("a %s of %d", "b", 2);
  console.group("outer");
  console.log("one\\ntwo");
  console.trace("traced");
  console.assert(false, "asserted");
  console.count();
  console.clear();
}
"""
    async with make_runtime(
        {"function.ts": source}, AWS_LAMBDA_LOG_LEVEL="ERROR"
    ) as runtime:
        answer = await api.invoke({})
        await api.wait_for_next()
        lines = runtime.log.split("\n")
    ours = "Events are served by"  # said once, by the runtime
    stamped = [line.split("\t", 2) for line in lines if line and ours not in line]
    assert {line[1] for line in stamped} == {answer.request_id}
    assert [line[2] for line in stamped[:4]] == [
        "DEBUG\tnot filtered in text",
        "INFO\ta b of 2",
        "INFO\touter",
        "INFO\t  one\r  two",
    ]
    assert stamped[4][2].startswith("TRACE\tTrace: traced\r    at ")
    assert "runtime.js" not in stamped[4][2]
    assert [line[2] for line in stamped[5:]] == [
        "ERROR\t  Assertion failed: asserted",
        "INFO\tdefault: 1",
    ]


@pytest.mark.deno
async def test_a_mistyped_setting_is_pointed_out(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE}, LAMBDA_DENO_WRAM="ready"
    ) as runtime:
        assert (await api.invoke({})).json() == {}
        assert "LAMBDA_DENO_WRAM" in await runtime.logged("Unknown settings")
        await api.wait_for_next()


@pytest.mark.deno
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAMBDA_DENO_WARM", "sometimes"),
        ("LAMBDA_DENO_STOP_MARGIN_MS", "-5"),
        ("LAMBDA_DENO_STRATEGY", "magic"),
        ("LAMBDA_DENO_PERMISSIONS", "everything"),
        ("AWS_LAMBDA_LOG_FORMAT", "xml"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, variable: str, value: str
) -> None:
    async with make_runtime({"function.ts": SOURCE}, **{variable: value}) as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == "Runtime.InvalidConfiguration"
        assert f"{variable}: its value is '{value}'" in answer.json()["errorMessage"]
        assert await runtime.wait() == 1


@pytest.mark.deno
async def test_a_signal_while_the_last_process_is_cleaned_up_leaves_nothing_behind(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    # waitUntil work keeps the worker in `settle`; its program hides in a session.
    source = """
export function handler(_: unknown, context: any) {
  new Deno.Command("sh", { args: ["-c", "setsid sleep 300 & echo started >&2; wait"],
    stdin: "null", stdout: "null" }).spawn();
  context.waitUntil(new Promise((resolve) => setTimeout(resolve, 60_000)));
  return "answered";
}
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"
    ) as runtime:
        assert (await api.invoke({}, timeout_s=50)).json() == "answered"
        await runtime.logged("started")
        assert await runtime.stop() == 0
