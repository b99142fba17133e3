"""What differs between two runs, and what does not count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambda_deno_spawn.dev.recording.compare import compare, log_lines


def run(
    payload: object = None,
    *,
    status: str = "success",
    log: str | None = None,
    request_id: str = "r",
    **outcome: Any,
) -> dict[str, Any]:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return {
        "requestId": request_id,
        "log": log,
        "outcome": {
            "kind": "response" if status == "success" else "error",
            "status": status,
            "payload": {"text": text},
            "payloadBytes": len(text),
            "http": None,
            **outcome,
        },
    }


def error(kind: str, message: str, **more: object) -> dict[str, Any]:
    body = {"errorType": kind, "errorMessage": message, **more}
    return run(body, status=kind)


def found(old: dict[str, Any], new: dict[str, Any], **options: bool) -> list[str]:
    return [
        f"{one.what}: {one.recorded} -> {one.replayed}"
        for one in compare(old, new, **options)
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": 2}, ["result.a: 1 -> 2"]),
        ({"a": 1}, {"a": True}, ["result.a: 1 -> true"]),
        ({"a": 1}, {}, ["result.a: 1 -> (nothing)"]),
        ({}, {"a": "x"}, ["result.a: (nothing) -> x"]),
        ([1, 2], [1, 3, 4], ["result[1]: 2 -> 3", "result[2]: (nothing) -> 4"]),
        ({"body": '{"n":1}'}, {"body": '{ "n": 2 }'}, ["result.body.n: 1 -> 2"]),
        ({"body": '{"n":1}'}, {"body": '{ "n": 1 }'}, []),
        ({"statusCode": 200}, {"statusCode": 500}, ["HTTP status: 200 -> 500"]),
        ({"t": "[redacted]"}, {"t": "[redacted]"}, []),
        ({"t": "a [redacted]"}, {"t": "a b"}, []),
        (None, {"a": 1}, ['result: none -> {"a": 1}']),
        ("plain \x1b[31m", "other", ["result: plain \ufffd[31m -> other"]),
    ],
)
def test_results_are_compared_member_by_member(
    old: object, new: object, expected: list[str]
) -> None:
    assert found(run(old), run(new)) == expected


def test_errors_differ_by_type_and_message_and_not_by_their_stack() -> None:
    old = error("TypeError", "no", stackTrace=["at a"], logTail=["x"])
    assert found(old, error("TypeError", "no", stackTrace=["at b"])) == []
    assert found(old, error("RangeError", "no")) == [
        "error type: TypeError -> RangeError"
    ]
    assert found(old, error("TypeError", "yes")) == ["error.errorMessage: no -> yes"]
    assert found(run(1), error("TypeError", "no")) == [
        "outcome: response -> error",
        "error type: none -> TypeError",
        "error message: none -> no",
    ]


def test_a_result_that_was_not_kept_is_compared_by_its_size() -> None:
    old = run("")
    old["outcome"]["payloadBytes"] = 10
    old["outcome"]["payload"] = None
    new = run("1234567890")
    assert found(old, new) == []
    new["outcome"]["payloadBytes"] = 11
    assert found(old, new) == ["bytes of the result: 10 -> 11"]


def test_http_of_a_stream_is_compared() -> None:
    old = run("x", http={"statusCode": 200, "headers": {"a": "1"}})
    new = run("x", http={"statusCode": 404, "headers": {"a": "2"}})
    assert found(old, new) == ["HTTP status: 200 -> 404", "HTTP.headers.a: 1 -> 2"]


def test_logs_are_compared_on_request_without_times_and_ids() -> None:
    old = run(log="START r1\n2026-11-28T13:00:00.000Z\tr1\tINFO\thi\n", request_id="r1")
    new = run(log="2026-11-29T14:00:00.123Z\tr2\tINFO\thi\n", request_id="r2")
    assert found(old, new) == []
    assert found(old, new, with_log=True) == []
    new["log"] += "2026-11-29T14:00:00.123Z\tr2\tWARN\tmore\n"
    assert found(old, new, with_log=True) == [
        "log line 2: (nothing) -> WARN more",
    ]
    assert log_lines("END RequestId: x\nREPORT RequestId: x\n\na", "x") == ["a"]


def test_no_more_than_a_few_differences_are_told_and_each_is_short() -> None:
    old, new = run(list(range(100))), run(list(range(1, 101)))
    assert len(compare(old, new)) == 20
    (one,) = compare(run("a" * 10_000), run("b"))
    assert len(one.recorded) < 300


def test_results_that_nest_as_deeply_as_json_may_are_compared() -> None:
    def deep(inner: str) -> str:
        return "[" * 900 + inner + "]" * 900

    assert found(run(deep("1")), run(deep("1"))) == []
    assert len(compare(run(deep("1")), run(deep("2")))) == 1
