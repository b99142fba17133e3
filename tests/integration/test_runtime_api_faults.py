"""What the Runtime API, or whatever stands in its place, can do wrong.

Two rules decide every case. Without an event nothing can go on: a ``next`` that fails
ends the runtime with exit code 1 and a line that says why. An answer that fails is a
matter of its own invocation: logged, never sent twice, and the next one is served; 500
alone ends the runtime. Where AWS is silent the case says what we made of it.

A fault is the peer's part of one exchange, spelled out byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.invocation import Success
from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
from tests.doubles import FakeRuntimeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.doubles import Answer, Fault
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.as_lambda

MIB = 1024 * 1024
SOURCE = {
    "function.ts": """
export function handler(event: any) {
  if (event.fails) throw new RangeError("as told");
  return event.bytes ? "x".repeat(event.bytes) : event;
}
"""
}
NEXT = b"HTTP/1.1 200 OK\r\n"
FIELDS = (
    b"Lambda-Runtime-Aws-Request-Id: request-x\r\n"
    b"Lambda-Runtime-Deadline-Ms: 9999999999999\r\n"
    b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:x\r\n"
)
ERROR_BODY = b'{"errorType":"SomeType","errorMessage":"as told"}'
HTTP_2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def answer(status: int, body: bytes = ERROR_BODY, length: int | None = None) -> bytes:
    """Spell an answer; its Content-Length may lie."""
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def sends(data: bytes) -> Fault:
    """Write and close."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return False

    return fault


def keeps(data: bytes) -> Fault:
    """Write and leave the connection open for what comes next."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        return True

    return fault


def resets(data: bytes = b"") -> Fault:
    """Write and break the connection."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        reset(writer)
        return False

    return fault


def holds(data: bytes) -> Fault:
    """Write, then neither read nor close: the runtime has to hang up by itself."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await asyncio.Event().wait()  # until the server is closed
        return False

    return fault


def drips(data: bytes) -> Fault:
    """Write one byte at a time, each in a packet of its own; keep the connection."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        return True

    return fault


def floods(head: bytes, piece: bytes) -> Fault:
    """Write without end, until the runtime hangs up."""

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
        return False

    return fault


def reads_some_then(fault: Fault) -> Fault:
    """Take a little of the body, then go on with another fault."""

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1000)
        return await fault(reader, writer)

    return both


def reads_all_after(data: bytes, length: int) -> Fault:
    """Answer at once, then read the body that was meanwhile sent, and go on."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await reader.readexactly(length)
        return True

    return fault


@dataclass(frozen=True)
class Fatal:
    """A ``next`` after which nothing can go on, and a word of the log."""

    name: str
    fault: Fault
    log: str


EVENT = NEXT + FIELDS + b"Content-Length: 10\r\n\r\n"
CHUNKED = NEXT + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"x" * 65_536
SMALL_CHUNKS = (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 64


def event_with(*fields: bytes) -> Fault:
    """Answer ``next`` with these fields only, and keep the connection."""
    return keeps(NEXT + b"".join(fields) + b"Content-Length: 2\r\n\r\n{}")


ID, DEADLINE, _ = FIELDS.splitlines(keepends=True)
FATAL = [
    Fatal("reset", resets(), "the connection broke"),
    Fatal("close", sends(b""), "closed the connection"),
    Fatal("reset-in-the-head", resets(NEXT + b"Lambda-Run"), "the connection broke"),
    Fatal("close-in-the-head", sends(NEXT + b"Lambda-Run"), "unexpectedly closed"),
    Fatal("reset-in-the-body", resets(EVENT + b"{"), "cannot be read"),
    Fatal("close-in-the-body", sends(EVENT + b"{}"), "cannot be read"),
    Fatal("reset-in-a-chunk", resets(CHUNKED + b"5\r\n{}"), "cannot be read"),
    Fatal("chunks-without-end", sends(CHUNKED + b"2\r\n{}\r\n"), "cannot be read"),
    Fatal("negative-chunk", holds(CHUNKED + b"-2\r\n{}\r\n"), "illegal chunk"),
    Fatal("chunk-size-no-number", holds(CHUNKED + b"{}\r\n"), "illegal chunk"),
    Fatal("huge-chunk-size", sends(CHUNKED + b"f" * 20 + b"\r\n{}"), "cannot be read"),
    Fatal("huge-chunk", floods(CHUNKED + b"f" * 15 + b"\r\n", LONG), "longer than"),
    Fatal("many-small-chunks", floods(CHUNKED, SMALL_CHUNKS), "longer than"),
    Fatal(
        "huge-length",
        holds(NEXT + FIELDS + b"Content-Length: 99999999999\r\n\r\n{}"),
        "longer than 7340032 bytes",
    ),
    Fatal(
        "length-no-number",
        holds(NEXT + FIELDS + b"Content-Length: ten\r\n\r\n{}"),
        "bad Content-Length",
    ),
    Fatal(
        "lengths-that-differ",
        holds(EVENT[:-2] + b"Content-Length: 2\r\n\r\n{}"),
        "conflicting Content-Length",
    ),
    Fatal("body-without-end", floods(NEXT + FIELDS + b"\r\n", LONG), "longer than"),
    Fatal("no-http", holds(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "illegal status line"),
    Fatal("noise", holds(bytes(range(256)) * 4 + b"\n\n"), "illegal status line"),
    Fatal("http-2", holds(HTTP_2_PREFACE), "illegal status line"),
    Fatal("endless-header", floods(NEXT + b"X: ", LONG), "Receive buffer too long"),
    Fatal(
        "illegal-header", holds(NEXT + b"x y: " + LONG + b"\r\n\r\n"), "illegal header"
    ),
    Fatal("endless-headers", floods(NEXT, b"X: y\r\n" * 999), "too long"),
    Fatal("switches-protocols", holds(answer(101, b"")), "_SWITCH_UPGRADE"),
    Fatal("no-request-id", event_with(DEADLINE), "request id ''"),
    Fatal("no-deadline", event_with(ID), "deadline ''"),
    Fatal("deadline-a-word", event_with(ID, b"Lambda-Runtime-Deadline-Ms: soon\r\n"),
          "deadline 'soon'"),
    Fatal("deadline-negative", event_with(ID, b"Lambda-Runtime-Deadline-Ms: -1\r\n"),
          "deadline '-1'"),
    Fatal("deadline-a-float", event_with(ID, b"Lambda-Runtime-Deadline-Ms: 1e12\r\n"),
          "deadline '1e12'"),
    Fatal("deadline-too-far", event_with(ID, b"Lambda-Runtime-Deadline-Ms: ",
                                         b"9" * 5000, b"\r\n"), "deadline '9999"),
    Fatal("request-id-too-long", event_with(ID[:-2], b"x" * 70_000, b"\r\n", DEADLINE),
          "request id 'request-xxx"),
    # Answering the wrong one of two invocations would be worse than to end.
    Fatal("two-request-ids", event_with(ID, ID.replace(b"-x", b"-y"), DEADLINE),
          "lambda-runtime-aws-request-id comes more than once"),
    Fatal("two-deadlines", event_with(ID, DEADLINE, DEADLINE.replace(b"9", b"1", 1)),
          "lambda-runtime-deadline-ms comes more than once"),
    *[
        Fatal(f"status-{status}", keeps(answer(status)), f"HTTP status {status}")
        for status in (202, 302, 400, 403, 404, 410, 413, 500, 503, 999)
    ],
    # The status is enough, whatever becomes of the body.
    Fatal("status-403-cut-off", sends(answer(403, length=999)), "HTTP status 403"),
]  # fmt: skip


@pytest.mark.deno
@pytest.mark.parametrize("fatal", FATAL, ids=[fatal.name for fatal in FATAL])
async def test_a_next_that_fails_ends_the_runtime_at_once_and_says_why(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, fatal: Fatal
) -> None:
    api.next_faults.append(fatal.fault)
    async with make_runtime(SOURCE, LAMBDA_DENO_WARM="off") as runtime:
        assert await runtime.wait() == 1
        [line] = runtime.log.splitlines()
        assert "Cannot complete Runtime API call 'next'" in line
        assert fatal.log in line
        assert len(line) < 1000
        assert api.requests == ["GET invocation next"]


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize("warm", ["ready", "background"])
async def test_a_poll_that_breaks_on_a_kept_connection_is_repeated_once(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    """A connection may not outlive a freeze; asking again gives the same event."""
    async with make_runtime(SOURCE, LAMBDA_DENO_WARM=warm) as runtime:
        api.next_faults += [keeps(EVENT + b'{"n":  1}\n'), resets()]
        assert (await api.answer()).request_id == "request-x"
        for _ in range(3):  # the two faults, and the repeated one
            await api.wait_for_next()
        api.deliver(b'{"n":2}')
        assert (await api.answer()).json() == {"n": 2}
        api.next_faults += [resets(), resets()]
        assert await runtime.wait() == 1
        assert "Runtime API call 'next': no answer, the connection br" in runtime.log
        assert len(api.requests) == 7


@pytest.mark.deno
async def test_an_event_that_comes_byte_by_byte_is_that_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.next_faults += [
        drips(EVENT + b'{"n":  1}\n'),
        drips(CHUNKED + b"3\r\n[1,\r\n4;x=y\r\n 2]\n\r\n0\r\nX: y\r\n\r\n"),
    ]
    api.answer_faults += [drips(answer(202)), drips(answer(403))]
    async with make_runtime(SOURCE) as runtime:
        assert (await api.answer()).json() == {"n": 1}
        assert (await api.answer()).json() == [1, 2]
        await runtime.logged("HTTP status 403")
        for _ in range(3):
            await api.wait_for_next()
        assert api.connections == 1


@pytest.mark.deno
async def test_an_event_is_taken_as_it_is_whatever_its_headers_call_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A content coding was undone: an error that nobody caught, or a huge event."""
    async with make_runtime(SOURCE):
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        assert (await api.invoke({"n": 1}, headers=headers)).json() == {"n": 1}
        await api.wait_for_next()


@pytest.mark.deno
async def test_bytes_behind_an_event_are_no_answer_to_what_is_asked_next(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A Content-Length too small: what it leaves over was read as the next answer."""
    # Forks are announced, once.
    async with make_runtime(SOURCE, LAMBDA_DENO_START="exec") as runtime:
        api.next_faults.append(keeps(EVENT + b'{"n":  1}\n' + answer(500)))
        assert (await api.answer()).json() == {"n": 1}
        # Sent later, while the runtime does not listen: that connection is given up.
        api.answer_faults.append(keeps(answer(202) + answer(202)))
        assert (await api.invoke({"n": 2})).json() == {"n": 2}
        assert (await api.invoke({"n": 3})).json() == {"n": 3}
        await api.wait_for_next()
        assert api.connections == 3
        assert runtime.log == ""


@dataclass(frozen=True)
class Refused:
    """An answer that does not get through.

    Attributes:
        log: A word of the line that says so, empty if it counts as accepted.
        is_early: The fault comes before the body of the answer was read.
    """

    name: str
    fault: Fault
    log: str
    is_early: bool = False


LARGE = 6_000_000
REFUSED = [
    Refused("reset", resets(), "the connection broke"),
    Refused("close", sends(b""), "closed the connection"),
    Refused("reset-in-the-head", resets(b"HTTP/1.1 20"), "the connection broke"),
    Refused("close-in-the-head", sends(b"HTTP/1.1 20"), "unexpectedly closed"),
    Refused("reset-early", resets(), "the connection broke", True),
    Refused("reset-in-the-body", reads_some_then(resets()), "connection broke", True),
    Refused("close-in-the-body", reads_some_then(sends(b"")), "connection", True),
    *[Refused(f"status-{status}", keeps(answer(status)), f"HTTP status {status}")
      for status in (200, 204, 302, 400, 403, 404, 410, 413, 499)],
    # The runtime is still writing when it is told that it need not.
    *[
        Refused(f"{status}-early-and-{name}", fault, f"HTTP status {status}", True)
        for status in (400, 403, 410, 413)
        for name, fault in {
            "close": sends(answer(status)),
            "reset": resets(answer(status)),
            "hold": holds(answer(status)),
            "reset-later": reads_some_then(resets(answer(status))),
        }.items()
    ],
    Refused("no-http", holds(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "illegal status line"),
    Refused("http-2", holds(HTTP_2_PREFACE), "illegal status line"),
    Refused("endless-header", floods(b"HTTP/1.1 202 OK\r\nX: ", LONG), "too long"),
    # From a whole head on the answer is known; what follows are only words.
    Refused("403-cut-off", sends(answer(403, length=999)), "HTTP status 403"),
    Refused("403-without-end", floods(answer(403, length=9**9), LONG), "status 403"),
    Refused("202-cut-off", sends(answer(202, length=999)), ""),
    Refused("202-reset", resets(answer(202, length=999)), ""),
    Refused("202-without-end", floods(answer(202, length=9**9), LONG), ""),
]  # fmt: skip


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize("kind", ["response", "large", "error"])
async def test_an_answer_that_fails_is_logged_never_repeated_and_costs_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, kind: str
) -> None:
    call = "error" if kind == "error" else "response"
    event = {"response": {"n": 1}, "large": {"bytes": LARGE}, "error": {"fails": 1}}
    # Forks are announced, once.
    async with make_runtime(SOURCE, LAMBDA_DENO_START="exec") as runtime:
        for refused in REFUSED:
            # A small answer is written before it can be refused.
            if refused.is_early != (kind == "large"):
                continue
            if refused.is_early:
                api.body_faults.append(refused.fault)
            else:
                api.answer_faults.append(refused.fault)
            await api.wait_for_next()
            runtime.clear_log()
            request_id = api.deliver(json_bytes(event[kind]))
            following = await served_next(api, is_recorded=not refused.is_early)
            assert following.json() == {"follows": True}, refused.name
            assert api.requests.count(f"POST {request_id} {call}") == 1, refused.name
            assert not [r for r in api.requests if r.startswith(f"POST {request_id} ")
                        and r != f"POST {request_id} {call}"], refused.name  # fmt: skip
            lines = [
                line for line in runtime.log.splitlines() if "Invoke Err" not in line
            ]
            if not refused.log:
                assert lines == [], refused.name
                continue
            [line] = lines
            assert f"{request_id}\tERROR\tCannot complete Runtime API call" in line
            assert refused.log in line, refused.name
        await api.wait_for_next()
        assert api.answers.empty()


async def served_next(api: FakeRuntimeApi, *, is_recorded: bool) -> Answer:
    """Let the runtime go on to the event after a fault, and return its answer."""
    if is_recorded:
        await api.answer()
    return await api.invoke({"follows": True})


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.deno
@pytest.mark.parametrize("kind", ["response", "error", "early", "cut-off"])
async def test_status_500_ends_the_runtime_whenever_it_comes(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, kind: str
) -> None:
    if kind == "early":
        api.body_faults.append(holds(answer(500)))
    elif kind == "cut-off":
        api.answer_faults.append(sends(answer(500, length=999)))
    else:
        api.answer_faults.append(keeps(answer(500)))
    async with make_runtime(SOURCE) as runtime:
        await api.wait_for_next()
        large = {"bytes": LARGE}
        api.deliver(
            json_bytes({"early": large, "error": {"fails": 1}}.get(kind, {"n": 1}))
        )
        assert await runtime.wait() == 1
        assert "HTTP status 500" in runtime.log.splitlines()[-1]
        assert len(api.requests) == 2


@pytest.mark.deno
@pytest.mark.parametrize("fault", [resets(), sends(b""), keeps(answer(403)),
                                   holds(b"no HTTP\r\n\r\n")],
                         ids=["reset", "close", "403", "garbage"])  # fmt: skip
async def test_an_init_error_that_nobody_takes_is_in_the_log_and_the_exit_code(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, fault: Fault
) -> None:
    api.answer_faults.append(fault)
    files = {"function.ts": "throw new Error('does not load')"}
    async with make_runtime(files) as runtime:
        assert await runtime.wait() == 1
        assert "Init Error" in runtime.log
        assert "does not load" in runtime.log
        assert "Cannot complete Runtime API call 'init error'" in runtime.log
        assert api.requests == ["POST init error"]


# Streams, which have a connection of their own.

STREAM = {
    "function.ts": """
export async function* handler(event: any, context: any) {
  if (event.n) return yield JSON.stringify(event);
  yield "x".repeat(2000);
  const work = setInterval(() => {}, 1000);
  await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
  console.log("nobody listens");
  clearInterval(work);
}
"""
}
STREAM_REFUSED = [
    *[Refused(f"status-{status}", reads_some_then(holds(answer(status))),
              f"HTTP status {status}") for status in (400, 403, 410, 413)],
    Refused("reset", resets(), "the connection"),
    Refused("reset-later", reads_some_then(resets()), "the connection"),
    Refused("close", sends(b""), "closed the connection"),
    Refused("garbage", holds(b"no HTTP\r\n\r\n"), "illegal status line"),
]  # fmt: skip


@pytest.mark.deno
@pytest.mark.parametrize(
    "refused", STREAM_REFUSED, ids=[refused.name for refused in STREAM_REFUSED]
)
async def test_a_stream_that_is_refused_ends_while_its_handler_still_waits(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, refused: Refused
) -> None:
    """The refusal was read only after the last piece, which here never comes."""
    async with make_runtime(STREAM) as runtime:
        api.body_faults.append(refused.fault)
        await api.wait_for_next()
        request_id = api.deliver(b"{}", timeout_s=50)
        line = await runtime.logged("Cannot complete Runtime API call 'response'")
        assert refused.log in line
        await runtime.logged("nobody listens")
        assert (await api.invoke({"n": 2})).json() == {"n": 2}
        await api.wait_for_next()
        posts = [r for r in api.requests if r.startswith("POST")]
        assert posts[0] == f"POST {request_id} response"
        assert len(posts) == 2


@pytest.mark.deno
async def test_a_stream_without_a_connection_of_its_own_is_an_ordinary_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Nothing had been sent, and yet the caller was never told."""
    async with make_runtime(STREAM) as runtime:
        await api.wait_for_next()
        api.stop_listening()
        api.deliver(b"{}")
        told = await api.answer()
        assert told.call == "error"
        assert told.json()["errorType"] == "Runtime.StreamUnavailable"
        assert "Cannot stream the answer: cannot connect" in told.json()["errorMessage"]
        kind = told.headers["lambda-runtime-function-error-type"]
        assert kind == "Runtime.StreamUnavailable"
        await runtime.logged(f"{told.request_id}\tERROR\tInvoke Error")
        await runtime.logged("nobody listens")
        await api.wait_for_next()


@pytest.mark.deno
async def test_a_stream_for_which_no_descriptor_is_left_is_an_ordinary_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(STREAM) as runtime:
        await api.wait_for_next()
        _, most = resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, (3, most))
        api.deliver(b"{}")
        told = await api.answer()
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, (most, most))
        assert told.call == "error"
        assert told.json()["errorType"] == "Runtime.ResourceExhausted"
        assert "Too many open files" in told.json()["errorMessage"]
        assert (await api.invoke({"n": 2})).json() == {"n": 2}
        await api.wait_for_next()


# The client by itself, where the order of things has to be exact.


@pytest.fixture
async def client(api: FakeRuntimeApi) -> AsyncIterator[RuntimeApiClient]:
    """The real client for the fake server."""
    client = RuntimeApiClient(api.address, "/var/task")
    yield client
    await client.aclose()


@pytest.mark.parametrize("unasked", [b"", answer(500)], ids=["reset", "answer"])
async def test_a_connection_that_broke_or_spoke_while_idle_is_not_used_for_an_answer(
    client: RuntimeApiClient, api: FakeRuntimeApi, unasked: bytes
) -> None:
    """A reset was noticed by the answer only, which then counted as lost."""
    writers: list[asyncio.StreamWriter] = []

    async def fault(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writers.append(writer)
        writer.write(EVENT + b'{"n":  1}\n')
        return True

    api.next_faults.append(fault)
    async with asyncio.timeout(60):
        invocation = await client.next()
        [writer] = writers
        if unasked:
            writer.write(unasked)
        else:
            reset(writer)
        while client._transport.is_idle:  # noqa: ASYNC110 - until the loop has seen it
            await asyncio.sleep(0)
        await client.post_response(invocation, Success(b"1"))
        assert (await api.answer()).body == b"1"
    assert api.connections == 2


async def test_an_early_acceptance_does_not_cut_the_answer_short(
    client: RuntimeApiClient, api: FakeRuntimeApi
) -> None:
    api.deliver(b"{}")
    async with asyncio.timeout(60):
        invocation = await client.next()
        api.body_faults.append(reads_all_after(answer(202), LARGE))
        await client.post_response(invocation, Success(b"x" * LARGE))
        api.deliver(b"2")
        assert (await client.next()).event == b"2"
    assert api.connections == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"errorType":' + b"[" * 900 + b"]" * 900 + b',"errorMessage":"x"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"errorType":"' + b"T" * 99_999 + b'","errorMessage":"x"}',
        b'{"errorType":{"a":1},"errorMessage":"x"}',
    ],
    ids=["deep", "deeper", "no-utf-8", "long", "no-text"],
)
async def test_the_platform_s_words_are_quoted_whatever_they_are(
    client: RuntimeApiClient, api: FakeRuntimeApi, body: bytes
) -> None:
    """Words that are no text were written out, however deep they were nested."""
    api.next_faults.append(sends(answer(403, body)))
    with pytest.raises(RuntimeApiError) as caught:
        await client.next()
    assert caught.value.status == 403
    assert len(str(caught.value)) < 1000
