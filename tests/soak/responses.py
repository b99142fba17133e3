"""Fuzzed responses of the Runtime API, sent to the real client over a real socket.

Each case is one call of ``RuntimeApiClient``. Its peer responds with bytes that are
correct, damaged, or not HTTP at all, and then keeps, closes or resets the connection.
All cases use the same client, so that a response could affect the next case.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import resource
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import RefusedError, RuntimeApiError
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
from tests.soak.report import Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LIMIT_S = 60.0
# The peer closes the connection after this time, if the client waits for the rest of a
# damaged response.
# Waiting is correct: calls of the Runtime API have no time limit.
PATIENCE_S = 0.02
CALLS = ["next", "next", "next", "response", "error", "init error", "stream"]
ENDS = ["keep", "keep", "close", "reset"]
# Both ends are in this process; each keeps several copies of a body of up to 7 MiB.
GROWTH_LIMIT_KB = 256 * 1024
STATUSES = [100, 103, 199, 200, 202, 204, 301, 304, 400, 403, 404, 410, 413, 500, 503,
            599, 600, 999]  # fmt: skip
REQUEST_LIMIT_BYTES = 4 * 1024 * 1024  # trailers contain a complete error body
EVENT = b'{"key": "value"}'
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@dataclass(slots=True)
class Plan:
    """The responses of the peer in one case.

    Attributes:
        answers: One per request; the last one is repeated.
        end: What happens to the connection after a response.
        is_early: Respond before reading the body of the request.
        posts: Number of received requests with a body.
    """

    rng: random.Random
    answers: list[bytes]
    end: str
    is_early: bool
    posts: int = 0

    def next_answer(self) -> bytes:
        """Return the next response."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Peer:
    """The server, which follows the plan of the current case."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.was_right = False
        self.address = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=REQUEST_LIMIT_BYTES
        )
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def lose_patience(self) -> None:
        """Keep closing connections: the client may repeat a poll."""
        while True:
            await asyncio.sleep(PATIENCE_S)
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(
                OSError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        plan = self.plan
        assert plan is not None
        is_post = head.startswith(b"POST")
        plan.posts += is_post
        if is_post and not plan.is_early:
            await _read_body(reader, head)
        for piece in _pieces(plan.rng, plan.next_answer()):
            writer.write(piece)
            await writer.drain()
        if plan.end == "reset":
            linger = struct.pack("ii", 1, 0)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        if is_post and plan.is_early and plan.end == "keep":
            await _read_body(reader, head)
        return plan.end == "keep"


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            await reader.readexactly(int(value))
        elif name == b"transfer-encoding":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            while await reader.readline() not in (b"\r\n", b""):
                pass


def _pieces(rng: random.Random, answer: bytes) -> list[bytes]:
    if rng.random() < 0.7 or len(answer) > 5000:
        return [answer]
    size = rng.choice([1, 2, 16, 100])
    return [answer[at : at + size] for at in range(0, len(answer), size)]


@dataclass(slots=True)
class Pieces:
    """A streamed response of a few pieces."""

    pieces: list[bytes]
    failure: Failure | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces, and let the peer run in between."""
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece


def run(count: int, seed: int, start: int = 0) -> Report:
    """Make ``count`` calls."""
    return asyncio.run(fuzz(count, seed, start))


async def fuzz(count: int, seed: int, start: int) -> Report:
    """Make ``count`` calls, in the running event loop."""
    report = Report("responses", seed, start)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    escaped: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: escaped.append(str(context)))
    async with Peer() as peer:
        client = RuntimeApiClient(peer.address, "/var/task")
        for number in range(start, start + count):
            rng = random.Random(f"{seed}/{number}")
            await _one(rng, number, client, peer, report)
            if escaped:
                report.violate(f"case {number}: in the event loop: {escaped}")
                escaped.clear()
        await client.aclose()
    growth_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    report.notes.append(f"memory grew by at most {growth_kb} KB")
    if growth_kb > GROWTH_LIMIT_KB:
        report.violate(f"memory grew by {growth_kb} KB")
    return report.finish()


async def _one(
    rng: random.Random,
    number: int,
    client: RuntimeApiClient,
    peer: Peer,
    report: Report,
) -> None:
    call = rng.choice(CALLS)
    damage = rng.choice(list(DAMAGES))
    right = _right(rng, call)
    # A repeated poll gets a correct response.
    answers = [DAMAGES[damage](rng, right), *([right] if rng.random() < 0.2 else [])]
    plan = peer.plan = Plan(rng, answers, rng.choice(ENDS), rng.random() < 0.3)
    name = f"{call}: {damage}"
    is_right = damage == "none" and plan.end == "keep"
    was_right, peer.was_right = peer.was_right, is_right
    patience = asyncio.create_task(peer.lose_patience())
    if is_right:  # the client must not need it
        patience.cancel()
    message = ""
    try:
        async with asyncio.timeout(LIMIT_S):
            outcome = await _call(rng, call, client)
    except TimeoutError:
        report.violate(f"case {number} ({name}): no end after {LIMIT_S} s")
        outcome = "hang"
    except RuntimeApiError as error:
        outcome, message = "lost", str(error)
        if isinstance(error, RefusedError):
            outcome = "refused"
            if error.status == (200 if call == "next" else 202):
                report.violate(f"case {number} ({name}): accepted, and yet {message}")
        if len(message) > 2000:
            report.violate(f"case {number} ({name}): {len(message)} long message")
    except Exception as error:
        report.violate(f"case {number} ({name}): {type(error).__name__}: {error}")
        outcome = type(error).__name__
    finally:
        patience.cancel()
    if plan.posts > 1:
        report.violate(f"case {number} ({name}): posted {plan.posts} times")
    # A connection left by the previous case may break, even with a correct response.
    expected = "event" if call == "next" else "accepted"
    if is_right and was_right and outcome != expected:
        report.violate(f"case {number} ({name}): {outcome} {message}")
    report.add(call, outcome)
    report.also(f"answer: {damage}", outcome)


async def _call(rng: random.Random, call: str, client: RuntimeApiClient) -> str:
    invocation = Invocation(REQUEST_ID, 9_999_999_999_999, "arn", b"{}")
    size = rng.choice([0, 2, 2, 1000, 70_000, 1_000_000])
    failure = Failure.of("Error", "x" * size)
    match call:
        case "next":
            event = await client.next()
            assert len(event.event) <= 7 * 1024 * 1024
            return "event"
        case "response":
            await client.post_response(invocation, Success(b"x" * size))
        case "error":
            await client.post_error(invocation, failure)
        case "init error":
            await client.post_init_error(failure)
        case "stream":
            pieces = Pieces([b"y" * (size // 4 + 1)] * rng.randrange(1, 5))
            pieces.failure = failure if rng.random() < 0.1 else None
            await client.stream(invocation, Streaming("text/plain", pieces, LIMIT_S))
    return "accepted"


# Correct and damaged responses.


def _right(rng: random.Random, call: str) -> bytes:
    if call != "next":
        return _answer(rng, 202, b'{"status":"OK"}', [])
    return _answer(rng, 200, EVENT, _next_fields())


def _next_fields() -> list[bytes]:
    return [
        b"Lambda-Runtime-Aws-Request-Id: " + REQUEST_ID.encode(),
        b"Lambda-Runtime-Deadline-Ms: 9999999999999",
        b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:x",
    ]


def _answer(rng: random.Random, status: int, body: bytes, fields: list[bytes]) -> bytes:
    if rng.random() < 0.4:
        size = rng.randint(1, max(1, len(body)))
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        body = coded + b"0\r\n\r\n"
        fields = [*fields, b"Transfer-Encoding: chunked"]
    else:
        fields = [*fields, b"Content-Length: %d" % len(body)]
    rng.shuffle(fields)
    head = b"HTTP/1.1 %d Whatever\r\n" % status
    return head + b"".join(line + b"\r\n" for line in fields) + b"\r\n" + body


def _flipped(rng: random.Random, right: bytes) -> bytes:
    data = bytearray(right)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut_out(rng: random.Random, right: bytes) -> bytes:
    at = rng.randrange(len(right))
    return right[:at] + right[at + rng.randint(1, 30) :]


def _inserted(rng: random.Random, right: bytes) -> bytes:
    at = rng.randrange(len(right))
    what = rng.choice([b"\r\n", b"\n", b"\0", b"\xff", b": ", b"\r", rng.randbytes(9)])
    return right[:at] + what + right[at:]


def _truncated(rng: random.Random, right: bytes) -> bytes:
    return right[: rng.randrange(len(right))]


def _other_status(rng: random.Random, right: bytes) -> bytes:
    status = rng.choice(STATUSES)
    body = rng.choice(WORDS)
    return _answer(rng, status, body, _next_fields() if rng.random() < 0.5 else [])


def _other_line(rng: random.Random, right: bytes) -> bytes:
    line = rng.choice(
        [b"HTTP/1.0 200 OK", b"HTTP/2 200", b"HTTP/1.1 200", b"HTTP/1.1  200 OK",
         b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 -20 OK", b"http/1.1 200 OK",
         b"ICY 200 OK", b"", b"200 OK", b"HTTP/1.1 200 " + b"x" * 300_000,
         b"HTTP/1.1 200 \xff\xfe", b"GET / HTTP/1.1"]
    )  # fmt: skip
    return line + right[right.index(b"\r\n") :]


def _other_fields(rng: random.Random, right: bytes) -> bytes:
    """Additional or wrong header fields."""
    odd = [
        b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 0x10",
        b"Content-Length: 1e3", b"Content-Length: " + b"9" * 20,
        b"Content-Length: " + b"9" * 5000, b"Content-Length: 16, 16",
        b"Content-Length: 16, 17", b"Content-Length: 7340033",
        b"Content-Length: \xb2", b"Content-Length:",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity", b"Content-Encoding: gzip",
        b"Content-Encoding: br", b"Content-Encoding: deflate, zstd",
        b"Connection: close", b"Connection: keep-alive, upgrade", b"Upgrade: h2c",
        b"Content-Type: text/plain; charset=nothing", b"Content-Type: \xff",
        b"Lambda-Runtime-Deadline-Ms: 1", b"Lambda-Runtime-Deadline-Ms: soon",
        b"Lambda-Runtime-Deadline-Ms: " + b"1" * 5000,
        b"Lambda-Runtime-Aws-Request-Id:", b"Lambda-Runtime-Aws-Request-Id: \xe9/../..",
        b"Lambda-Runtime-Aws-Request-Id: " + b"x" * rng.choice([1024, 1025, 90_000]),
        b"Lambda-Runtime-Client-Context: \xff\xfe{", b"Lambda-Runtime-Trace-Id:",
        b"Lambda-Runtime-Invocation-Id: \xff\x80", b"X: " + b"y" * 200_000,
        b"no colon", b": no name", b"a b: c", b" folded: x", b"\tfolded", b"X: a\0b",
        b"X: a\x7fb", b"\xc3\xa9: x", b"X: \r", b"X\0: y",
    ]  # fmt: skip
    head, _, rest = right.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    for _ in range(rng.randint(0, 3)):
        if fields:
            fields.pop(rng.randrange(len(fields)))
    for _ in range(rng.randint(1, 4)):
        fields.insert(rng.randrange(len(fields) + 1), rng.choice(odd))
    return b"\r\n".join([status, *fields]) + b"\r\n\r\n" + rest


def _many_fields(rng: random.Random, right: bytes) -> bytes:
    status, _, rest = right.partition(b"\r\n")
    field_ = rng.choice([b"X: y", b"Lambda-Runtime-Trace-Id: x", b"a:" + b"b" * 999])
    size = rng.choice([100, 3000, 300_000])
    return status + b"\r\n" + (field_ + b"\r\n") * (size // len(field_)) + rest


def _other_chunks(rng: random.Random, right: bytes) -> bytes:
    size = rng.choice(
        [b"-1", b"0x5", b"5;", b"5;a=b", b"5 ", b" 5", b"", b"g", b"f" * 20, b"f" * 21,
         b"00005", b"7fffffffffffffff", b"5;" + b"x" * 300_000, b"1_0", b"\xb2"]
    )  # fmt: skip
    fields = [*_next_fields(), b"Transfer-Encoding: chunked"]
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in fields)
    end = rng.choice([b"\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n", b"\r\n",
                      b"\r\n0\r\n" + b"X: y\r\n" * 60_000 + b"\r\n",
                      b"\r\n0\r\n: \r\n\r\n"])  # fmt: skip
    return head + b"\r\n" + size + b"\r\nhello" + end


def _interim(rng: random.Random, right: bytes) -> bytes:
    """Interim responses (1xx) before the response."""
    lines = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n",
             b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n"]  # fmt: skip
    return b"".join(rng.choices(lines, [6, 6, 1], k=rng.randint(1, 50))) + right


def _twice(rng: random.Random, right: bytes) -> bytes:
    return right + rng.choice([right, b"\r\n", b"x", right[:20]])


def _coded(rng: random.Random, right: bytes) -> bytes:
    """A body that is much larger once decoded."""
    coded = gzip.compress(bytes(rng.choice([10, 1_000_000])))
    coding = rng.choice([b"gzip", b"deflate", b"GZIP", b"x-gzip"])
    return _answer(rng, 200, coded, [*_next_fields(), b"Content-Encoding: " + coding])


def _large(rng: random.Random, right: bytes) -> bytes:
    """The correct response, or one in ten times a body at the size limit."""
    if rng.random() < 0.9:
        return right
    size = 7 * 1024 * 1024 + rng.choice([-1, 0, 1, 100_000])
    return _answer(rng, rng.choice([200, 202, 413]), bytes(size), _next_fields())


def _no_length(rng: random.Random, right: bytes) -> bytes:
    fields = b"".join(line + b"\r\n" for line in _next_fields())
    return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + EVENT


def _noise(rng: random.Random, right: bytes) -> bytes:
    return rng.randbytes(rng.randrange(2000))


def _text(rng: random.Random, right: bytes) -> bytes:
    return rng.choice(
        [b"", b"\r\n\r\n", b"\n\n", b"SSH-2.0-OpenSSH\r\n", b"<html></html>\r\n\r\n",
         b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\0\x01", bytes(2000),
         b"A" * 300_000, b"HTTP/1.1 200 OK\n\n", b"HTTP/1.1 200 OK\r\r\n"]
    )  # fmt: skip


WORDS = [
    b"",
    b'{"errorType":"SomeType","errorMessage":"words"}',
    b'{"errorType":' + b"[" * 900 + b"]" * 900 + b',"errorMessage":{}}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b'{"errorType":null,"errorMessage":1e999}',
    b'{"errorType":"' + b"T" * 100_000 + b'","errorMessage":"\\ud800"}',
    b"9" * 5000,
    b"[]",
    b'"text"',
]
DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "none": lambda _, right: right,
    "bits flipped": _flipped,
    "bytes cut out": _cut_out,
    "bytes put in": _inserted,
    "truncated": _truncated,
    "another status": _other_status,
    "another first line": _other_line,
    "other fields": _other_fields,
    "many fields": _many_fields,
    "other chunks": _other_chunks,
    "interim answers": _interim,
    "bytes behind it": _twice,
    "coded body": _coded,
    "near the size limit": _large,
    "no length": _no_length,
    "noise": _noise,
    "something else": _text,
}
