"""The emulator over real HTTP, judged by AWS's documentation.

Nothing here knows the emulator's constants: paths, header names, limits and texts are
written down as the Lambda Developer Guide and AWS's own emulator have them.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from lambda_deno_spawn.dev.local import http_server
from lambda_deno_spawn.dev.local.emulator import Emulator
from lambda_deno_spawn.dev.local.environment import (
    EmulatedInvocation,
    End,
    OutcomeKind,
    Phase,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lambda_deno_spawn.dev.local.http_server import Request, Response

NEXT = "/2018-06-01/runtime/invocation/next"
INIT_ERROR = "/2018-06-01/runtime/init/error"
LIMIT_BYTES = 6_291_556
WAIT_LIMIT_S = 60.0


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    async with asyncio.timeout(5 * WAIT_LIMIT_S):
        yield


@pytest.fixture(name="emulator")
async def _emulator() -> AsyncIterator[Emulator]:
    async with Emulator("arn:aws:lambda:eu-west-1:123456789012:function:f") as emulator:
        yield emulator


@pytest.fixture
async def runtime(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client that does what a runtime does."""
    async with httpx.AsyncClient(
        base_url=f"http://{emulator.address}", timeout=WAIT_LIMIT_S, trust_env=False
    ) as client:
        yield client


def caller() -> httpx.AsyncClient:
    """Return a client of no runtime."""
    return httpx.AsyncClient(timeout=WAIT_LIMIT_S, trust_env=False)


def path_of(request_id: str, answer: str) -> str:
    return f"/2018-06-01/runtime/invocation/{request_id}/{answer}"


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for a part of a response.

    It wakes nothing: ``Emulator.wait_until`` would look again at the end of its limit.
    """
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not is_true():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


async def take(
    emulator: Emulator, runtime: httpx.AsyncClient, event: bytes = b"{}"
) -> EmulatedInvocation:
    invocation = emulator.state.queue(event, timeout_s=3, invocation_id="i-1")
    assert (await runtime.get(NEXT)).status_code == 200
    return invocation


async def test_ping_is_answered(runtime: httpx.AsyncClient) -> None:
    response = await runtime.get("/2018-06-01/ping")
    assert (response.status_code, response.text) == (200, "pong")


async def test_the_runtime_may_register_as_an_extension_that_gets_no_events(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    register = "/2020-01-01/extension/register"
    name = {"Lambda-Extension-Name": "runtime"}
    response = await runtime.post(register, headers=name, json={"events": []})
    assert response.status_code == 200
    identifier = response.headers["lambda-extension-identifier"]
    waiting = asyncio.create_task(
        runtime.get(
            "/2020-01-01/extension/event/next",
            headers={"Lambda-Extension-Identifier": identifier},
        )
    )
    await take(emulator, runtime)
    assert not waiting.done()
    waiting.cancel()
    refused = await runtime.post(register, json={"events": []})
    assert refused.status_code == 403
    assert refused.json()["errorType"] == "Extension.InvalidExtensionName"


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
    """White space at the ends of a header value is not sent, as Go does."""
    emulator.state.queue(b"{}", timeout_s=3, client_context='{"custom":{"k":"ж"}}\n')
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


class Stream:
    """A streamed response, spelled byte by byte: no client library sends trailers."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *chunks: bytes) -> None:
        """Write chunks in one piece."""
        self._writer.write(b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks))

    def end(self, *trailers: str) -> None:
        lines = "".join(f"{trailer}\r\n" for trailer in trailers)
        self._writer.write(f"0\r\n{lines}\r\n".encode())

    async def status(self) -> int:
        """Read one answer, whose body has a length."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search("content-length: ([0-9]+)", head)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        return int(head.split(" ")[1])

    async def cut(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connected(
    emulator: Emulator,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = emulator.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def pieces() -> asyncio.Queue[bytes]:
    """What the caller was handed on, as it came."""
    return asyncio.Queue()


@pytest.fixture
async def streaming(pieces: asyncio.Queue[bytes]) -> AsyncIterator[Emulator]:
    """An emulator whose caller looks at streams as they come."""

    async def hand_on(invocation: EmulatedInvocation, chunk: bytes) -> None:
        assert invocation.phase is Phase.RESPONDING
        pieces.put_nowait(chunk)

    async with Emulator(on_chunk=hand_on) as emulator:
        yield emulator


@asynccontextmanager
async def opened(
    emulator: Emulator, mode: str = "streaming"
) -> AsyncIterator[tuple[Stream, EmulatedInvocation]]:
    """Take an event and begin its response, over one connection."""
    invocation = emulator.state.queue(b"{}", timeout_s=3)
    host, port = emulator.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stream = Stream(reader, writer)
    try:
        writer.write(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await stream.status() == 200
        writer.write(
            f"POST {path_of(invocation.request_id, 'response')} HTTP/1.1\r\n"
            "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n"
            f"Lambda-Runtime-Function-Response-Mode: {mode}\r\n"
            "Trailer: Lambda-Runtime-Function-Error-Type, "
            "Lambda-Runtime-Function-Error-Body\r\n\r\n".encode()
        )
        yield stream, invocation
    finally:
        await stream.cut()


async def test_chunks_are_handed_on_as_they_arrive(
    streaming: Emulator, pieces: asyncio.Queue[bytes]
) -> None:
    async with opened(streaming) as (stream, invocation):
        for piece in (b"one", b"\0\xff", b"x" * 50_000):
            stream.send(piece)  # the next one is sent after this one has come
            got = b""
            while len(got) < len(piece):
                got += await pieces.get()
            assert got == piece
            assert invocation.outcome is None
        stream.end()
        assert await stream.status() == 202
        outcome = invocation.outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.RESPONSE
        assert outcome.body == b"one\0\xff" + b"x" * 50_000
        assert (outcome.is_streamed, outcome.error_type) == (True, None)
        assert pieces.empty()


async def test_chunks_of_a_buffered_response_are_not_handed_on(
    streaming: Emulator, pieces: asyncio.Queue[bytes]
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async with httpx.AsyncClient(
        base_url=f"http://{streaming.address}", timeout=WAIT_LIMIT_S, trust_env=False
    ) as runtime:
        invocation = await take(streaming, runtime)
        path = path_of(invocation.request_id, "response")
        assert (await runtime.post(path, content=chunks())).status_code == 202
    assert pieces.empty()
    assert invocation.outcome is not None
    assert invocation.outcome.body == b"12"


@pytest.mark.parametrize("sent", [[], [b"a"], [b"a", b"b"]], ids=len)
async def test_trailers_break_a_stream_off_with_their_error(
    streaming: Emulator, pieces: asyncio.Queue[bytes], sent: list[bytes]
) -> None:
    async with opened(streaming) as (stream, invocation):
        stream.send(*sent)
        body = '{"errorType":"E","errorMessage":"halfway"}'
        stream.end(
            "Lambda-Runtime-Function-Error-Type: Function.E",
            f"Lambda-Runtime-Function-Error-Body: {b64encode(body.encode()).decode()}",
        )
        assert await stream.status() == 202
        outcome = invocation.outcome
        assert outcome is not None
        assert (outcome.kind, outcome.error_type) == (OutcomeKind.ERROR, "Function.E")
        assert outcome.body == body.encode()
        assert outcome.partial == b"".join(sent)
        assert (outcome.is_streamed, outcome.content_type) == (True, "text/plain")


async def test_trailers_of_one_stream_do_not_reach_the_next(
    streaming: Emulator,
) -> None:
    async with opened(streaming) as (stream, first):
        stream.end("Lambda-Runtime-Function-Error-Type: Function.E")
        assert await stream.status() == 202
        assert first.outcome is not None
        assert first.outcome.kind is OutcomeKind.ERROR
        second = streaming.state.queue(b"{}", timeout_s=3)
        stream._writer.write(
            f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n"
            f"POST {path_of(second.request_id, 'response')} HTTP/1.1\r\nHost: x\r\n"
            "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
        )
        assert [await stream.status() for _ in range(2)] == [200, 202]
        assert second.outcome is not None
        assert second.outcome.kind is OutcomeKind.RESPONSE


async def test_it_does_not_matter_how_requests_are_cut(
    streaming: Emulator, pieces: asyncio.Queue[bytes]
) -> None:
    first = streaming.state.queue(b"1", timeout_s=3)
    second = streaming.state.queue(b"2", timeout_s=3)
    data = (
        f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n"
        f"POST {path_of(first.request_id, 'response')} HTTP/1.1\r\nHost: x\r\n"
        "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\none\r\n0\r\nX: y\r\n\r\n"
        f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n"
        f"POST {path_of(second.request_id, 'error')} HTTP/1.1\r\nHost: x\r\n"
        "Content-Length: 2\r\n\r\n{}"
    ).encode()
    async with connected(streaming) as (reader, writer):
        stream = Stream(reader, writer)
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await asyncio.sleep(0)
        assert [await stream.status() for _ in range(4)] == [200, 202, 200, 202]
    assert first.outcome is not None
    assert first.outcome.body == b"one"
    assert second.outcome is not None
    assert second.outcome.kind is OutcomeKind.ERROR
    assert b"".join(pieces.get_nowait() for _ in range(pieces.qsize())) == b"one"


async def test_trailers_of_1_mib_are_accepted(streaming: Emulator) -> None:
    async with opened(streaming) as (stream, invocation):
        stream.end(
            "Lambda-Runtime-Function-Error-Type: Function.E",
            f"Lambda-Runtime-Function-Error-Body: {'YWFh' * 262_144}",
        )
        assert await stream.status() == 202
        assert invocation.outcome is not None
        assert invocation.outcome.body == b"aaa" * 262_144


@pytest.mark.parametrize("sent", [[], [b"hello"], [b"hello", b" you"]], ids=len)
async def test_stream_that_is_cut_is_truncated_and_nothing_of_it_is_lost(
    streaming: Emulator, pieces: asyncio.Queue[bytes], sent: list[bytes]
) -> None:
    async with opened(streaming) as (stream, invocation):
        stream.send(*sent)
        await stream.cut()
        assert await streaming.wait_until(
            lambda: invocation.outcome is not None, WAIT_LIMIT_S
        )
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.error_type == "Runtime.TruncatedResponse"
    assert (outcome.partial, outcome.is_streamed) == (b"".join(sent), True)
    assert b"".join(pieces.get_nowait() for _ in range(pieces.qsize())) == b"".join(
        sent
    )


async def test_nothing_is_lost_of_a_cut_stream_whose_caller_is_slow() -> None:
    """Bytes that were received together with the end of the connection count too."""
    gate = asyncio.Event()
    got: list[bytes] = []

    emulator: Emulator

    async def hand_on(_: EmulatedInvocation, chunk: bytes) -> None:
        got.append(chunk)
        await gate.wait()

    async with Emulator(on_chunk=hand_on) as emulator:
        async with opened(emulator) as (stream, invocation):
            stream.send(b"first")
            await until(lambda: invocation.received == b"first")
            stream.send(b", second")
            await stream.cut()
            async with httpx.AsyncClient(
                timeout=WAIT_LIMIT_S, trust_env=False
            ) as other:
                # By its answer the server has seen what was sent before.
                await other.get(f"http://{emulator.address}/2018-06-01/ping")
            assert (got, invocation.phase) == ([b"first"], Phase.RESPONDING)
            gate.set()
            assert await emulator.wait_until(
                lambda: invocation.outcome is not None, WAIT_LIMIT_S
            )
        assert got == [b"first", b", second"]
        assert invocation.outcome is not None
        assert invocation.outcome.error_type == "Runtime.TruncatedResponse"
        assert invocation.outcome.partial == b"first, second"


async def test_slow_caller_makes_the_runtime_wait() -> None:
    gate = asyncio.Event()

    emulator: Emulator

    async def hand_on(_: EmulatedInvocation, __: bytes) -> None:
        await gate.wait()

    async with Emulator(on_chunk=hand_on) as emulator:
        async with opened(emulator) as (stream, invocation):
            for _ in range(100):
                stream.send(b"x" * 1_000_000)
            await until(lambda: len(invocation.received) > 0)
            held_bytes = len(invocation.received)
            async with httpx.AsyncClient(
                timeout=WAIT_LIMIT_S, trust_env=False
            ) as other:
                for _ in range(3):
                    await other.get(f"http://{emulator.address}/2018-06-01/ping")
            assert len(invocation.received) == held_bytes < 1_000_000
            gate.set()
            stream.end()
            assert await stream.status() == 202
        assert invocation.outcome is not None
        assert len(invocation.outcome.body) == 100_000_000


async def test_complete_stream_counts_though_its_runtime_has_gone() -> None:
    gate = asyncio.Event()

    emulator: Emulator

    async def hand_on(_: EmulatedInvocation, __: bytes) -> None:
        await gate.wait()

    async with Emulator(on_chunk=hand_on) as emulator:
        async with opened(emulator) as (stream, invocation):
            stream.send(b"all")
            await until(lambda: invocation.received == b"all")
            stream.end()
            await stream.cut()
            async with httpx.AsyncClient(
                timeout=WAIT_LIMIT_S, trust_env=False
            ) as other:
                await other.get(f"http://{emulator.address}/2018-06-01/ping")
            gate.set()
            assert await emulator.wait_until(
                lambda: invocation.outcome is not None, WAIT_LIMIT_S
            )
        assert invocation.outcome is not None
        assert invocation.outcome.kind is OutcomeKind.RESPONSE


async def test_stream_that_is_too_late_is_gone_and_not_handed_on(
    streaming: Emulator, pieces: asyncio.Queue[bytes]
) -> None:
    async with opened(streaming) as (stream, invocation):
        stream.send(b"in time")
        assert await pieces.get() == b"in time"
        streaming.state.time_out(invocation)
        stream.send(b"late")
        stream.end()
        assert await stream.status() == 410
        assert pieces.empty()
        assert invocation.outcome is not None
        assert invocation.outcome.kind is OutcomeKind.TIMEOUT
        assert invocation.outcome.partial == b"in time"


async def test_chunks_behind_an_unknown_mode_are_not_handed_on(
    streaming: Emulator, pieces: asyncio.Queue[bytes]
) -> None:
    async with opened(streaming, mode="Streaming") as (stream, _):
        stream.send(b"a")
        stream.end()
        assert await stream.status() == 400
        assert pieces.empty()


async def test_buffered_response_that_breaks_off_is_truncated(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    host, port = emulator.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    path = path_of(invocation.request_id, "response")
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhello".encode()
    )
    await until(lambda: invocation.phase is Phase.RESPONDING)
    writer.close()
    await writer.wait_closed()
    assert await emulator.wait_until(
        lambda: invocation.outcome is not None, WAIT_LIMIT_S
    )
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.error_type == "Runtime.TruncatedResponse"
    assert (outcome.partial, outcome.is_streamed) == (b"", False)


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


async def test_other_methods_are_not_allowed(runtime: httpx.AsyncClient) -> None:
    refusal = await runtime.post(NEXT)
    assert (refusal.status_code, refusal.headers["allow"]) == (405, "GET")
    assert (await runtime.get(path_of("r", "response"))).status_code == 405
    assert (await runtime.head("/2018-06-01/ping")).status_code == 405
    assert (await runtime.get("/2018-06-01/ping")).status_code == 200


async def test_a_runtime_that_expects_100_continue_is_sent_it(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    """curl, which shell runtimes use, expects it before a body of 1 MB."""
    invocation = await take(emulator, runtime)
    async with connected(emulator) as (reader, writer):
        path = path_of(invocation.request_id, "response")
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 100")
        writer.write(b"1")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202")
    assert invocation.outcome is not None
    assert invocation.outcome.body == b"1"


@pytest.mark.parametrize("request_line", ["HTTP/1.0", "HTTP/1.1\r\nConnection: close"])
async def test_a_connection_is_closed_if_the_runtime_asks_for_it(
    emulator: Emulator, request_line: str
) -> None:
    async with connected(emulator) as (reader, writer):
        writer.write(f"GET /2018-06-01/ping {request_line}\r\nHost: x\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"pong")


@pytest.mark.parametrize(
    "data",
    [
        b"no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 2**21,
    ],
    ids=["not-http", "no-host", "too-long"],
)
async def test_a_malformed_request_is_refused_and_other_connections_are_served(
    emulator: Emulator, runtime: httpx.AsyncClient, data: bytes
) -> None:
    async with connected(emulator) as (reader, writer):
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1][:1] == b"4"
        await reader.read()
    assert (await runtime.get("/2018-06-01/ping")).status_code == 200


async def test_a_malformed_chunk_truncates_the_response(streaming: Emulator) -> None:
    async with opened(streaming) as (stream, invocation):
        stream.send(b"one")
        stream._writer.write(b"no chunk\r\n")
        assert await streaming.wait_until(
            lambda: invocation.outcome is not None, WAIT_LIMIT_S
        )
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Runtime.TruncatedResponse"
    assert invocation.outcome.partial == b"one"


async def test_a_runtime_that_shuts_down_its_side_still_receives_the_response(
    emulator: Emulator, runtime: httpx.AsyncClient
) -> None:
    invocation = await take(emulator, runtime)
    async with connected(emulator) as (reader, writer):
        path = path_of(invocation.request_id, "response")
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode()
        )
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 202")


async def test_many_connections_are_served_at_once() -> None:
    count = 100
    async with (
        Emulator(is_managed_instance=True) as emulator,
        httpx.AsyncClient(
            base_url=f"http://{emulator.address}",
            timeout=WAIT_LIMIT_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=count),
        ) as runtime,
    ):

        async def serve() -> str:
            event = await runtime.get(NEXT)
            request_id: str = event.headers["Lambda-Runtime-Aws-Request-Id"]
            path = path_of(request_id, "response")
            response = await runtime.post(path, content=event.content)
            assert response.status_code == 202
            return request_id

        serving = [asyncio.create_task(serve()) for _ in range(count)]
        made = [
            emulator.state.queue(str(number).encode(), timeout_s=3)
            for number in range(count)
        ]
        served = await asyncio.gather(*serving)
    assert set(served) == {one.request_id for one in made}
    assert [one.outcome and one.outcome.body for one in made] == [
        one.event for one in made
    ]


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


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_poll_of_a_caller_that_has_gone_takes_no_event(
    emulator: Emulator, runtime: httpx.AsyncClient, is_reset: bool
) -> None:
    host, port = emulator.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    if is_reset:
        at_once = struct.pack("ii", 1, 0)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
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


async def test_closing_answers_an_extension_that_waits() -> None:
    has_come = asyncio.Event()

    class Watched(Emulator):
        async def _extension_next(self, request: Request) -> Response:
            has_come.set()
            return await super()._extension_next(request)

    async with caller() as client, Watched() as emulator:
        url = f"http://{emulator.address}"
        waiting = asyncio.create_task(
            client.get(f"{url}/2020-01-01/extension/event/next")
        )
        await has_come.wait()
        await emulator.__aexit__(None, None, None)
        assert (await waiting).status_code == 500


async def test_closing_ends_idle_connections_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "CLOSE_LIMIT_S", 10 * WAIT_LIMIT_S)
    async with Emulator() as emulator, connected(emulator) as (reader, writer):
        writer.write(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"pong")
        async with asyncio.timeout(WAIT_LIMIT_S):
            await emulator.__aexit__(None, None, None)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_closing_does_not_wait_for_a_caller_that_does_not_read() -> None:
    emulator: Emulator

    async def hand_on(_: EmulatedInvocation, __: bytes) -> None:
        await asyncio.Event().wait()

    async with (
        Emulator(on_chunk=hand_on) as emulator,
        opened(emulator) as (stream, invocation),
    ):
        stream.send(b"one")
        await until(lambda: invocation.received == b"one")
        async with asyncio.timeout(WAIT_LIMIT_S):
            await emulator.__aexit__(None, None, None)


async def test_closed_emulator_refuses_connections() -> None:
    async with Emulator() as emulator:
        address = emulator.address
    async with caller() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{address}/2018-06-01/ping")
