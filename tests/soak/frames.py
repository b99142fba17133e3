"""Fuzzed byte streams for the frame decoder.

A stream is a possible conversation of a worker, perhaps damaged in one of many ways,
and split into reads at random. Each is decoded twice, with different reads; both
results must be equal. Frames are written by hand here, independently of the runtime.
"""

from __future__ import annotations

import json
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import WorkerProtocolError
from lambda_deno_spawn.invocation import Failure, Invocation, Success
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    Event,
    Ready,
    State,
    Stray,
    StreamBegun,
    StreamEnded,
    WorkerConnection,
)
from tests.soak.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

MARKER = "0123456789abcdef0123456789abcdef"
MARK = MARKER.encode()
# Limit of CPU time for one stream; the longest ones take some milliseconds.
LIMIT_S = 60.0
# Limits: a frame, one read, and the parts of a response.
BUFFER_LIMIT_BYTES = 2 * (6_291_556 + 1024 * 1024) + 128 * 1024
KINDS = ["READY", "PART", "RESULT", "STREAM", "CHUNK", "END", "ERROR", "DONE"]
SHORT = {
    "does not end where": "torn",
    "header does not end": "endless header",
    "header is malformed": "malformed header",
    "length is out of range": "length out of range",
    "is not allowed while": "not allowed in this state",
    "follows parts": "not allowed after a part",
    "too large together": "parts too large",
    "error type is not": "error type no text",
    "content type cannot": "content type no field",
}
INVOCATION = Invocation("id", 1_542_409_706_888, "arn", b'{"key":1}')


class HangError(BaseException):
    """A stream took too long; not an Exception, so that no handler can catch it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Result of decoding a stream.

    Attributes:
        events: The events, with adjacent strays joined.
        problem: Why the connection failed, without the quoted bytes.
        state: State at the end.
        stray: Bytes left over at the end.
    """

    events: list[Event]
    problem: str
    state: State
    stray: bytes


def run(count: int, seed: int, start: int = 0) -> Report:
    """Decode ``count`` streams."""
    report = Report("frames", seed, start)
    previous = signal.signal(signal.SIGVTALRM, _hang)
    try:
        for number in range(start, start + count):
            _one(random.Random(f"{seed}/{number}"), number, report)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    return report.finish()


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def _one(rng: random.Random, number: int, report: Report) -> None:
    name = rng.choice(list(DAMAGES))
    frames, expected = conversation(rng)
    stream = DAMAGES[name](rng, frames)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        first = decode(stream, reads(rng, len(stream)))
        second = decode(stream, reads(rng, len(stream)))
    except HangError:
        report.violate(f"stream {number} ({name}): no end after {LIMIT_S} s")
        report.add(name, "hang")
        return
    except Exception as error:
        report.violate(f"stream {number} ({name}): {type(error).__name__}: {error}")
        report.add(name, type(error).__name__)
        return
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if first != second:
        report.violate(f"stream {number} ({name}): the reads decide what comes of it")
    for event in first.events:
        match event:
            case Answered(Failure() as failure) | StreamEnded(Failure() as failure):
                _describe(failure, f"stream {number} ({name})", report)
    if name == "none" and [e for e in first.events if type(e) is not Stray] != expected:
        report.violate(f"stream {number} ({name}): {first.events} for {expected}")
    outcome = next(
        (short for text, short in SHORT.items() if text in first.problem), ""
    )
    report.add(name, outcome or f"{first.problem or 'in order'}, {first.state}")


def _describe(failure: Failure, where: str, report: Report) -> None:
    """Format the headers for reporting an error."""
    try:
        cause = failure.xray_cause("/var/task")
        written = [failure.function_error_type, *([] if cause is None else [cause])]
        assert all(text.isascii() and text.isprintable() for text in written)
    except Exception as error:
        report.violate(f"{where}: headers: {type(error).__name__}: {error}")


def decode(stream: bytes, sizes: list[int]) -> Decoded:
    """Feed a stream in reads of these sizes, like ``Worker``."""
    connection = WorkerConnection(MARKER)
    events: list[Event] = []
    problem = ""
    at = 0
    for size in sizes:
        was_failed = connection.state is State.FAILED
        try:
            for event in connection.receive_data(stream[at : at + size]):
                assert not was_failed, "a failed connection is silent"
                if isinstance(event, Ready):
                    connection.invoke(INVOCATION, 0)
                last = events[-1] if events else None
                if isinstance(event, Stray) and isinstance(last, Stray):
                    events[-1] = Stray(last.data + event.data)
                else:
                    events.append(event)
        except WorkerProtocolError as error:
            assert connection.state is State.FAILED
            assert not was_failed
            problem, _, _ = str(error).partition("; it begins")
        held = [connection._buffer, connection._parts or b"", *connection._pieces]
        assert sum(map(len, held)) <= BUFFER_LIMIT_BYTES
        at += size
    left = connection.receive_eof()
    stray = b"" if left is None else left.data
    given = sum(len(event.data) for event in events if isinstance(event, Stray | Chunk))
    assert given + len(stray) <= len(stream), "no byte comes out twice"
    return Decoded(events, problem, connection.state, stray)


def reads(rng: random.Random, length: int) -> list[int]:
    """Return sizes of reads that add up to a length."""
    style = rng.randrange(4)
    if style == 0:
        return [length]
    if style == 1 and length < 2000:
        return [1] * length
    most = rng.choice([2, 7, 64, 4096, 65_536])
    sizes: list[int] = []
    while length > 0:
        sizes.append(min(length, rng.randint(1, max(most, length // 500))))
        length -= sizes[-1]
    return sizes


# Conversations.


def frame(kind: object, body: bytes, more: dict[str, object] | None = None) -> bytes:
    """Return a frame."""
    return raw_frame({"kind": kind, "bytes": len(body), **(more or {})}, body)


def raw_frame(header: object, body: bytes) -> bytes:
    """Return a frame with an arbitrary header."""
    return MARK + json.dumps(header).encode() + b"\n" + body + MARK + b"\n"


def conversation(rng: random.Random) -> tuple[list[bytes], list[Event]]:
    """Return the pieces of a legal stdout, and their meaning."""
    pieces: list[bytes] = []
    events: list[Event] = []

    def say(piece: bytes, event: Event | None) -> None:
        if rng.random() < 0.3:
            pieces.append(stray(rng))
        pieces.append(piece)
        if event is not None:
            events.append(event)

    say(frame("READY", b""), Ready())
    if rng.random() < 0.4:
        say(
            frame("STREAM", b"", {"contentType": "text/html"}), StreamBegun("text/html")
        )
        for _ in range(rng.randrange(6)):
            data = body(rng)
            say(frame("CHUNK", data), Chunk(data))
        if rng.random() < 0.7:
            say(frame("END", b""), StreamEnded(None))
        else:
            data = body(rng)
            ended = StreamEnded(Failure("E", data))
            say(frame("ERROR", data, {"errorType": "E"}), ended)
    else:
        parts = [body(rng) for _ in range(rng.randrange(5))]
        for part in parts:
            say(frame("PART", part), None)
        last = body(rng)
        whole = b"".join([*parts, last])
        if rng.random() < 0.6:
            say(frame("RESULT", last), Answered(Success(whole)))
        else:
            answered = Answered(Failure("E", whole))
            say(frame("ERROR", last, {"errorType": "E"}), answered)
    say(frame("DONE", b""), Done())
    return pieces, events


def body(rng: random.Random) -> bytes:
    """Return a possible body of a frame, often with frames or markers inside."""
    match rng.randrange(8):
        case 0:
            return b""
        case 1:
            return MARK * rng.randrange(1, 4)
        case 2:
            return frame(rng.choice(KINDS), b"x" * rng.randrange(9))
        case 3:
            return MARK[: rng.randrange(32)] + b"\n"
        case 4 if rng.random() < 0.05:
            return rng.randbytes(rng.randrange(100_000))
        case 5:
            return error_body(rng)
        case _:
            return json.dumps({"n": [rng.random()] * rng.randrange(9)}).encode()


def error_body(rng: random.Random) -> bytes:
    """Return a malformed error body."""
    depth = rng.choice([1, 10, 900, 1010, 2000])
    deep = b"[" * depth + b"]" * depth
    values = [
        b'"text"',
        b"1",
        b"null",
        deep,
        b'"\\ud800"',
        b'"\\r\\n: x"',
        b'["\xc3\xa9"]',
        b'["   at f (file:///a.ts:1:2)"]',
        b'["at :999999999:9"]',
    ]
    names = [b"errorMessage", b"stackTrace", b"errorType"]
    members = [b'"%s":%s' % (name, rng.choice(values)) for name in names]
    return b"{" + b",".join(members) + b"}"


def stray(rng: random.Random) -> bytes:
    """Return output that is not a frame, but may begin like one."""
    return rng.choice(
        [
            b"a line\n",
            MARK[: rng.randrange(1, 32)] + b"!",
            b"\xff\xfe\x00",
            MARK[::-1],
            bytes(rng.choices(MARK, k=40)) + b"\n",
        ]
    )


# Damages: from the pieces of a conversation to a stream of bytes.


def _flipped(rng: random.Random, pieces: list[bytes]) -> bytes:
    stream = bytearray(b"".join(pieces))
    for _ in range(rng.randint(1, 8)):
        stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
    return bytes(stream)


def _cut_out(rng: random.Random, pieces: list[bytes]) -> bytes:
    stream = b"".join(pieces)
    start = rng.randrange(len(stream))
    return stream[:start] + stream[start + rng.randint(1, 40) :]


def _torn(rng: random.Random, pieces: list[bytes]) -> bytes:
    """Output of another program in the middle."""
    stream = b"".join(pieces)
    at = rng.randrange(len(stream))
    noise = rng.choice([b"\n", b"rubbish\n", MARK, rng.randbytes(20), stream[:50]])
    return stream[:at] + noise + stream[at:]


def _doubled(rng: random.Random, pieces: list[bytes]) -> bytes:
    stream = b"".join(pieces)
    start = rng.randrange(len(stream))
    end = rng.randint(start, min(len(stream), start + 200))
    return stream[:end] + stream[start:]


def _truncated(rng: random.Random, pieces: list[bytes]) -> bytes:
    stream = b"".join(pieces)
    return stream[: rng.randrange(len(stream))]


def _shuffled(rng: random.Random, pieces: list[bytes]) -> bytes:
    return b"".join(rng.sample(pieces, len(pieces)))


def _mixed(rng: random.Random, _pieces: list[bytes]) -> bytes:
    """Frames of every kind in any order, most of them after READY."""
    pieces = [frame("READY", b"")] if rng.random() < 0.8 else []
    for _ in range(rng.randint(1, 20)):
        more: dict[str, object] = {"errorType": "E"} if rng.random() < 0.2 else {}
        pieces.append(frame(rng.choice(KINDS), body(rng), more))
    return b"".join(pieces)


def _lying(rng: random.Random, pieces: list[bytes]) -> bytes:
    """A header with a wrong length, or without one."""
    length: object = rng.choice(
        [-1, 0, 1, 6, 64, 2**31, 2**63, 10**30, 7_340_132, 7_340_133, 1.5, 1e3, True,
         None, "5", "", [], {}, [5], float("nan")]
    )  # fmt: skip
    header = {"kind": rng.choice(KINDS), "bytes": length}
    return _replaced(rng, pieces, raw_frame(header, body(rng)))


def _odd_header(rng: random.Random, pieces: list[bytes]) -> bytes:
    """A header that is valid JSON, but not a valid header."""
    depth = rng.randint(1, 500)
    deep: object = 1
    for _ in range(depth):
        deep = [deep] if rng.random() < 0.9 else {"k": deep}
    kind: object = rng.choice([*KINDS, "", "ready", None, 1, True, deep, {}, "\ud800"])
    header: object = rng.choice(
        [
            {"kind": kind, "bytes": 0},
            {"kind": "ERROR", "bytes": 0, "errorType": deep},
            {"kind": "ERROR", "bytes": 0, "errorType": "\ud800"},
            {"kind": "STREAM", "bytes": 0, "contentType": deep},
            {"kind": "STREAM", "bytes": 0, "contentType": "a\r\nb: c"},
            {"kind": "STREAM", "bytes": 0, "contentType": "é" * 400},
            {"kind": "RESULT", "bytes": deep},
            {"bytes": 0},
            {"kind": "RESULT"},
            deep,
            [],
            "text",
            None,
        ]
    )
    return _replaced(rng, pieces, raw_frame(header, b""))


def _no_header(rng: random.Random, pieces: list[bytes]) -> bytes:
    """No JSON after the marker, or no end of line."""
    text = rng.choice(
        [
            b"",
            b"{",
            b"[" * rng.choice([10, 500, 1023, 1024, 5000]),
            b'{"a":' * rng.choice([10, 200, 1000]),
            b"\xff\xfe\xfd",
            b'{"kind":"RESULT\xff","bytes":0}',
            b'{"kind":"RESULT","bytes":0}' + b" " * rng.choice([900, 1000, 2000]),
            b'{"kind":"RESULT","bytes":' + b"9" * rng.choice([30, 400, 900]) + b"}",
            b'{"kind":"RESULT","bytes":1e999}',
            b'{"kind":"RESULT","bytes":-0}',
            rng.randbytes(rng.randrange(1, 1500)),
        ]
    )
    end = b"\n" if rng.random() < 0.8 else b""
    return _replaced(rng, pieces, MARK + text + end)


def _replaced(rng: random.Random, pieces: list[bytes], piece: bytes) -> bytes:
    at = rng.randrange(len(pieces) + 1)
    return b"".join([*pieces[:at], piece, *pieces[at + rng.randrange(2) :]])


def _large(rng: random.Random, pieces: list[bytes]) -> bytes:
    """Return a size, sometimes near the limits, otherwise small."""
    if rng.random() < 0.98:
        return b"".join(pieces)
    size = rng.choice([6_291_556, 7_340_131, 7_340_132, 7_340_133])
    opening = frame("READY", b"")
    if rng.random() < 0.5:
        return opening + frame("RESULT", bytes(size))
    half = frame("PART", bytes(size // 2))
    return opening + half + half + frame("PART", b"xy") + frame("RESULT", b"")


def _noise(rng: random.Random, _: list[bytes]) -> bytes:
    return rng.randbytes(rng.randrange(4000))


def _hex(rng: random.Random, _: list[bytes]) -> bytes:
    """Noise that contains parts of a marker."""
    return bytes(rng.choices(MARK + b"\n{", k=rng.randrange(3000)))


def _markers(rng: random.Random, _: list[bytes]) -> bytes:
    ends = [b"", b"\n", b"{}\n", b"\n\n", b"0"]
    return b"".join(MARK + rng.choice(ends) for _ in range(rng.randrange(60)))


DAMAGES: dict[str, Callable[[random.Random, list[bytes]], bytes]] = {
    "none": lambda _, pieces: b"".join(pieces),
    "bits flipped": _flipped,
    "bytes cut out": _cut_out,
    "torn by another writer": _torn,
    "bytes doubled": _doubled,
    "truncated": _truncated,
    "frames shuffled": _shuffled,
    "frames of any kind": _mixed,
    "length that lies": _lying,
    "header of another shape": _odd_header,
    "header that is no JSON": _no_header,
    "near the size limits": _large,
    "noise": _noise,
    "noise in hexadecimal": _hex,
    "markers only": _markers,
}
