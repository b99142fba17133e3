"""The emulator over real HTTP, judged by AWS's documentation.

Nothing here knows the emulator's constants: paths, header names, limits and texts are
written down as the Lambda Developer Guide and AWS's own emulator have them.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from lambda_deno_spawn.dev.emulator import (
    EmulatedInvocation,
    Emulator,
    End,
    OutcomeKind,
    Phase,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEXT = "/2018-06-01/runtime/invocation/next"
INIT_ERROR = "/2018-06-01/runtime/init/error"
LIMIT_BYTES = 6_291_556
WAIT_LIMIT_S = 10.0


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    async with asyncio.timeout(30):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator("arn:aws:lambda:eu-west-1:123456789012:function:f") as emulator:
        yield emulator


@pytest.fixture
async def runtime(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client that does what a runtime does."""
    async with httpx.AsyncClient(
        base_url=f"http://{emulator.address}", timeout=WAIT_LIMIT_S, trust_env=False
    ) as client:
        yield client


def path_of(request_id: str, answer: str) -> str:
    return f"/2018-06-01/runtime/invocation/{request_id}/{answer}"


async def take(
    emulator: Emulator, runtime: httpx.AsyncClient, event: bytes = b"{}"
) -> EmulatedInvocation:
    invocation = emulator.state.queue(event, timeout_s=3, invocation_id="i-1")
    assert (await runtime.get(NEXT)).status_code == 200
    return invocation


async def test_ping_is_answered(runtime: httpx.AsyncClient) -> None:
    response = await runtime.get("/2018-06-01/ping")
    assert (response.status_code, response.text) == (200, "pong")


async def test_next_carries_every_header(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    emulator.state.queue(
        b"{}",
        timeout_s=2.5,
        trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1",
        client_context='{"custom":\n{"k":"v"}}',
        cognito_identity='{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
        tenant_id="blue",
        invocation_id="i-1",
    )
    before_epoch_ms = time.time() * 1000
    response = await runtime.get(NEXT)
    after_epoch_ms = time.time() * 1000
    headers = dict(response.headers)
    request_id = headers.pop("lambda-runtime-aws-request-id")
    deadline_epoch_ms = headers.pop("lambda-runtime-deadline-ms")
    assert response.status_code == 200
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid4, request_id)
    assert re.fullmatch("[0-9]{13}", deadline_epoch_ms)
    earliest_epoch_ms = int(before_epoch_ms) + 2500
    assert earliest_epoch_ms <= int(deadline_epoch_ms) <= after_epoch_ms + 2501
    assert headers == {
        "content-type": "application/json",
        "content-length": "2",
        "lambda-runtime-invoked-function-arn": (
            "arn:aws:lambda:eu-west-1:123456789012:function:f"
        ),
        "lambda-runtime-trace-id": (
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1"
        ),
        "lambda-runtime-client-context": '{"custom": {"k":"v"}}',
        "lambda-runtime-cognito-identity": (
            '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}'
        ),
        "lambda-runtime-aws-tenant-id": "blue",
        "lambda-runtime-invocation-id": "i-1",
    }


async def test_next_leaves_out_optional_headers(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    emulator.state.queue(b"{}", timeout_s=3)
    response = await runtime.get(NEXT)
    assert set(response.headers) == {
        "content-type",
        "content-length",
        "lambda-runtime-aws-request-id",
        "lambda-runtime-deadline-ms",
        "lambda-runtime-invoked-function-arn",
    }


async def test_next_sends_client_context_as_utf_8(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    emulator.state.queue(b"{}", timeout_s=3, client_context='{"custom":{"k":"ж"}}')
    response = await runtime.get(NEXT)
    raw = {name.lower(): value for name, value in response.headers.raw}
    assert raw[b"lambda-runtime-client-context"] == '{"custom":{"k":"ж"}}'.encode()


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b'{ "a" : 1.0,\n"a":2}',
        b"\x00\xff not JSON",
        b'"' + b"x" * 6_000_000 + b'"',
    ],
    ids=["empty", "odd JSON", "binary", "6 MB"],
)
async def test_event_is_delivered_byte_for_byte(
    emulator: Emulator, runtime: httpx.AsyncClient, event: bytes
) -> None:
    emulator.state.queue(event, timeout_s=3)
    response = await runtime.get(NEXT)
    assert response.content == event


async def test_next_blocks_until_an_event_is_queued(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    polling = asyncio.create_task(runtime.get(NEXT))
    assert await emulator.wait_until(
        lambda: emulator.state.init_finished_s is not None, WAIT_LIMIT_S
    )
    for _ in range(3):  # the server is at work, and still has no answer
        await runtime.get("/2018-06-01/ping")
    assert not polling.done()
    emulator.state.queue(b'"late"', timeout_s=3)
    assert (await polling).content == b'"late"'


async def test_deadline_counts_from_delivery_not_from_queueing(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    first = await take(emulator, runtime)
    second = emulator.state.queue(b"2", timeout_s=3)
    assert second.deadline_epoch_ms is None
    await runtime.post(path_of(first.request_id, "response"), content=b"1")
    await runtime.get(NEXT)
    assert first.deadline_epoch_ms is not None
    assert second.deadline_epoch_ms is not None
    assert second.deadline_epoch_ms >= first.deadline_epoch_ms


async def test_unanswered_event_is_delivered_again(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    emulator.state.queue(b'"first"', timeout_s=3)
    emulator.state.queue(b'"second"', timeout_s=3)
    answers = [await runtime.get(NEXT) for _ in range(2)]
    assert [answer.content for answer in answers] == [b'"first"', b'"first"']
    assert answers[0].headers == answers[1].headers


async def test_response_reaches_the_caller_and_next_ends_it(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    answer = await runtime.post(
        path_of(invocation.request_id, "response"),
        content=b'{ "n" : 1.0 }',
        headers={
            "Content-Type": "application/json",
            "Lambda-Runtime-Invocation-Id": "i-1",
        },
    )
    assert (answer.status_code, answer.json()) == (202, {"status": "OK"})
    outcome = invocation.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.body) == (OutcomeKind.RESPONSE, b'{ "n" : 1.0 }')
    assert outcome.content_type == "application/json"
    assert invocation.end is None
    emulator.state.queue(b"2", timeout_s=3)
    await runtime.get(NEXT)
    assert invocation.end is End.NEXT


async def test_error_reaches_the_caller_byte_for_byte(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    body = b'{"errorType":"E", "errorMessage":"m", "extra":[1]}'
    answer = await runtime.post(
        path_of(invocation.request_id, "error"),
        content=body,
        headers={"Lambda-Runtime-Function-Error-Type": "Function.E"},
    )
    assert (answer.status_code, answer.json()) == (202, {"status": "OK"})
    outcome = invocation.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.body) == (OutcomeKind.ERROR, body)
    assert outcome.error_type == "Function.E"


async def test_error_header_of_32_kib_is_accepted(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    cause = '{"message":"' + "x" * 32_000 + '"}'
    answer = await runtime.post(
        path_of(invocation.request_id, "error"),
        content=b"{}",
        headers={"Lambda-Runtime-Function-XRay-Error-Cause": cause},
    )
    assert answer.status_code == 202


@pytest.mark.parametrize("answer", ["response", "error"])
async def test_unknown_request_id_is_refused(
    emulator: Emulator, runtime: httpx.AsyncClient, answer: str
) -> None:
    await take(emulator, runtime)
    refusal = await runtime.post(path_of("nobody", answer), content=b"1" * 100_000)
    assert refusal.status_code == 400
    assert refusal.json()["errorType"] == "InvalidRequestID"
    assert set(refusal.json()) == {"errorMessage", "errorType"}


@pytest.mark.parametrize("second", ["response", "error"])
async def test_second_answer_is_refused(
    emulator: Emulator, runtime: httpx.AsyncClient, second: str
) -> None:
    invocation = await take(emulator, runtime)
    await runtime.post(path_of(invocation.request_id, "response"), content=b"1")
    refusal = await runtime.post(path_of(invocation.request_id, second), content=b"2")
    assert refusal.status_code == 403
    assert refusal.json()["errorType"] == "InvalidStateTransition"
    assert invocation.outcome is not None
    assert invocation.outcome.body == b"1"


async def test_stale_invocation_id_is_gone(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    refusal = await runtime.post(
        path_of(invocation.request_id, "response"),
        content=b"1",
        headers={"Lambda-Runtime-Invocation-Id": "i-0"},
    )
    assert refusal.status_code == 410
    assert "nvocation" in refusal.json()["errorMessage"]
    assert invocation.phase is Phase.IN_FLIGHT


async def test_late_answer_is_gone(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    emulator.state.time_out(invocation)
    refusal = await runtime.post(
        path_of(invocation.request_id, "response"), content=b"1"
    )
    assert refusal.status_code == 410
    assert refusal.json()["errorType"] == "InvokeTimeout"


async def test_unknown_response_mode_is_refused(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    refusal = await runtime.post(
        path_of(invocation.request_id, "response"),
        content=b"1",
        headers={"Lambda-Runtime-Function-Response-Mode": "buffered"},
    )
    assert refusal.status_code == 400
    assert refusal.json()["errorType"] == "InvalidFunctionResponseMode"
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Runtime.InvalidResponseModeHeader"


async def test_response_at_the_limit_is_accepted(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    answer = await runtime.post(
        path_of(invocation.request_id, "response"), content=b"x" * LIMIT_BYTES
    )
    assert answer.status_code == 202
    assert invocation.outcome is not None
    assert len(invocation.outcome.body) == LIMIT_BYTES


async def test_response_over_the_limit_is_refused_and_the_runtime_goes_on(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    refusal = await runtime.post(
        path_of(invocation.request_id, "response"), content=b"x" * (LIMIT_BYTES + 1)
    )
    assert refusal.status_code == 413
    assert refusal.json() == {
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "RequestEntityTooLarge",
    }
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Function.ResponseSizeTooLarge"
    emulator.state.queue(b'"more"', timeout_s=3)
    assert (await runtime.get(NEXT)).content == b'"more"'


async def test_streamed_response_is_collected_beyond_the_buffered_limit(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"statusCode":200}' + b"\0" * 8
        for _ in range(7):
            yield b"x" * 1_000_000

    invocation = await take(emulator, runtime)
    media_type = "application/vnd.awslambda.http-integration-response"
    answer = await runtime.post(
        path_of(invocation.request_id, "response"),
        content=chunks(),
        headers={
            "Content-Type": media_type,
            "Lambda-Runtime-Function-Response-Mode": "streaming",
        },
    )
    assert answer.status_code == 202
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.is_streamed
    assert outcome.content_type == media_type
    assert outcome.body == b'{"statusCode":200}' + b"\0" * 8 + b"x" * 7_000_000


async def test_response_that_breaks_off_is_truncated(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    host, port = emulator.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    path = path_of(invocation.request_id, "response")
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n"
        "5\r\nhello\r\n".encode()
    )
    assert await emulator.wait_until(
        lambda: invocation.phase is Phase.RESPONDING, WAIT_LIMIT_S
    )
    writer.close()
    await writer.wait_closed()
    assert await emulator.wait_until(
        lambda: invocation.outcome is not None, WAIT_LIMIT_S
    )
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Runtime.TruncatedResponse"


async def test_init_error_is_taken_and_next_is_refused_afterwards(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = emulator.state.queue(b"{}", timeout_s=3)
    answer = await runtime.post(
        INIT_ERROR,
        content=b'{"errorType":"Runtime.HandlerNotFound"}',
        headers={"Lambda-Runtime-Function-Error-Type": "Runtime.HandlerNotFound"},
    )
    assert (answer.status_code, answer.json()) == (202, {"status": "OK"})
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.kind is OutcomeKind.INIT_ERROR
    assert outcome.body == b'{"errorType":"Runtime.HandlerNotFound"}'
    assert outcome.error_type == "Runtime.HandlerNotFound"
    refusal = await runtime.get(NEXT)
    assert refusal.status_code == 403
    assert refusal.json()["errorType"] == "InvalidStateTransition"


async def test_init_error_after_next_is_refused(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    await take(emulator, runtime)
    refusal = await runtime.post(INIT_ERROR, content=b"{}")
    assert refusal.status_code == 403


@pytest.mark.parametrize(
    "path", ["/2018-06-01/runtime/restore/next", "/2018-06-01/runtime", "/"]
)
async def test_other_paths_are_not_found(runtime: httpx.AsyncClient, path: str) -> None:
    assert (await runtime.get(path)).status_code == 404


async def test_one_connection_serves_many_invocations(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    ports = set()
    for number in range(5):
        emulator.state.queue(str(number).encode(), timeout_s=3)
        event = await runtime.get(NEXT)
        request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
        answer = await runtime.post(path_of(request_id, "response"), content=b"1")
        for response in (event, answer):
            stream = response.extensions["network_stream"]
            ports.add(stream.get_extra_info("client_addr"))
    assert len(ports) == 1


async def test_poll_of_a_caller_that_has_gone_takes_no_event(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    host, port = emulator.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert await emulator.wait_until(
        lambda: emulator.state.init_finished_s is not None, WAIT_LIMIT_S
    )
    writer.close()
    await writer.wait_closed()
    await runtime.get("/2018-06-01/ping")  # by its answer the server knows
    invocation = await take(emulator, runtime)
    assert invocation.deliveries == 1


async def test_hooks_run_before_the_runtime_goes_on() -> None:
    calls: list[str] = []
    async with (
        Emulator(
            on_delivery=lambda invocation: calls.append(invocation.event.decode()),
            on_answer=lambda: calls.append("answer"),
        ) as emulator,
        httpx.AsyncClient(
            base_url=f"http://{emulator.address}", timeout=WAIT_LIMIT_S, trust_env=False
        ) as runtime,
    ):
        invocation = await take(emulator, runtime, b'"event"')
        await runtime.get(NEXT)  # the same event: delivered once
        assert calls == ['"event"']
        await runtime.post(path_of(invocation.request_id, "error"), content=b"{}")
        assert calls == ['"event"', "answer"]


async def test_waiting_gives_up_at_its_limit(emulator: Emulator) -> None:
    assert not await emulator.wait_until(lambda: False, 0.01)


async def test_closing_answers_a_waiting_poll() -> None:
    async with Emulator() as emulator:
        client = httpx.AsyncClient(timeout=WAIT_LIMIT_S, trust_env=False)
        polling = asyncio.create_task(client.get(f"http://{emulator.address}{NEXT}"))
        await emulator.wait_until(
            lambda: emulator.state.init_finished_s is not None, WAIT_LIMIT_S
        )
    assert (await polling).status_code == 500
    await client.aclose()


async def test_closed_emulator_refuses_connections() -> None:
    async with Emulator() as emulator:
        address = emulator.address
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{address}/2018-06-01/ping")
