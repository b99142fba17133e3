"""The form of a recording, and its way through a log."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import pytest

from lambda_deno_spawn.recording.form import (
    KIND,
    LINE_BYTES,
    VERSION,
    Parts,
    Result,
    log_lines,
    recording,
)
from lambda_deno_spawn.recording.redaction import Redactor

TIME = "2026-11-28T13:00:00.000Z"


def form(
    event: bytes = b'{"n":1}', result: Result | None = None, limit_bytes: int = 1000
) -> dict[str, Any]:
    return recording(
        request_id="r-1",
        timestamp=TIME,
        origin="lambda",
        function={"name": "f"},
        code="",
        settings={},
        variables={"STAGE": "test", "DB_PASSWORD": "hunter22"},
        context={"traceId": "Root=1", "tenantId": None},
        event=event,
        result=result or Result("success", b'"ok"', 4),
        process={},
        log="Authorization: Bearer abcdefghij",
        redactor=Redactor(),
        limit_bytes=limit_bytes,
    )


def test_members_are_what_is_documented() -> None:
    found = form()
    assert (found["type"], found["version"]) == (KIND, VERSION)
    assert found["event"] == {"text": '{"n":1}'}
    assert found["context"] == {"traceId": "Root=1"}
    assert found["variables"] == {"STAGE": "test", "DB_PASSWORD": "[redacted]"}
    assert "abcdefghij" not in found["log"]
    assert found["outcome"]["kind"] == "response"
    assert found["redacted"] == ["variables.DB_PASSWORD", "log"]
    assert found["cut"] == []


def test_what_is_too_large_is_left_out_and_named() -> None:
    found = form(b"1" * 1001, Result("success", b"2" * 1001, 1001))
    assert found["event"] is None
    assert found["eventBytes"] == 1001
    assert found["outcome"]["payload"] is None
    assert found["outcome"]["payloadBytes"] == 1001
    assert found["cut"] == ["event", "outcome.payload"]


def test_what_is_no_text_is_base64() -> None:
    found = form(result=Result("success", b"\xff", 1))
    assert found["outcome"]["payload"] == {"base64": "/w=="}


def test_http_of_a_stream_is_without_secrets() -> None:
    http = {"statusCode": 200, "headers": {"set-cookie": "a=b"}, "cookies": ["c=d"]}
    found = form(result=Result("success", b"", 0, "text/html", True, http))
    assert found["outcome"]["http"] == {
        "statusCode": 200,
        "headers": {"set-cookie": "[redacted]"},
        "cookies": ["[redacted]"],
    }


def large_form() -> dict[str, Any]:
    noise = base64.b64encode(random.Random(1).randbytes(400_000))
    return form(json.dumps(noise.decode()).encode(), limit_bytes=10**6)


def test_lines_fit_into_the_log_and_can_come_in_any_order() -> None:
    whole = large_form()
    lines = log_lines(whole, TIME)
    assert len(lines) > 2
    assert all(len(line) < 256 * 1024 for line in lines)
    assert all(len(json.loads(line)["data"]) <= LINE_BYTES for line in lines)
    parts = Parts("r-1")
    for line in reversed(lines):
        assert parts.missing != 0
        assert parts.take(line.decode())
    assert json.loads(parts.whole()) == whole


@pytest.mark.parametrize(
    "line",
    [
        "START RequestId: r-1",
        f'{TIME}\tr-1\tINFO\t{{"type":"{KIND}"}}',
        f'{{"type":"{KIND}","requestId":"other","part":1,"parts":1,"data":""}}',
        f'{{"type":"{KIND}"',
        f'{{"type":"{KIND}","requestId":"r-1","part":"1","parts":1,"data":""}}',
    ],
)
def test_other_lines_are_not_taken(line: str) -> None:
    parts = Parts("r-1")
    assert not parts.take(line)
    assert parts.missing is None


def part(number: int, count: int, data: str) -> str:
    fields = {
        "type": KIND, "requestId": "r-1", "part": number, "parts": count, "data": data
    }  # fmt: skip
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([part(1, 2, "")], "parts of it are missing"),
        ([part(1, 1, "!")], "damaged"),
        ([part(1, 1, base64.b64encode(b"no zlib").decode())], "damaged"),
        (
            [part(1, 1, base64.b64encode(zlib.compress(b"x" * 99)[:-5]).decode())],
            "damaged",
        ),
        ([part(1, 10**9, "")], "parts of it are missing"),
    ],
)
def test_an_incomplete_or_damaged_recording_is_told(
    lines: list[str], problem: str
) -> None:
    parts = Parts("r-1")
    for line in lines:
        parts.take(line)
    with pytest.raises(ValueError, match=problem):
        parts.whole()


def test_a_small_recording_that_unpacks_to_very_much_is_refused() -> None:
    compressor = zlib.compressobj(9)
    piece = b"0" * (1024 * 1024)
    data = b"".join([compressor.compress(piece) for _ in range(80)])
    data += compressor.flush()
    parts = Parts("r-1")
    parts.take(part(1, 1, base64.b64encode(data).decode()))
    with pytest.raises(ValueError, match="too large"):
        parts.whole()


def test_an_invocation_that_ran_again_is_the_last_one() -> None:
    first, second = large_form(), form()
    parts = Parts("r-1")
    for line in [*log_lines(first, TIME)[:2], *log_lines(second, TIME)]:
        parts.take(line.decode())
    assert json.loads(parts.whole()) == second
