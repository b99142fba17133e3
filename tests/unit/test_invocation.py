"""Headers to an invocation, outcomes to error bodies, and deadline arithmetic.

Header names, patterns and limits are those of AWS's documentation, spelled here again.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_deno_spawn import invocation
from lambda_deno_spawn.errors import (
    ConfigError,
    HandlerError,
    RefusedError,
    RuntimeApiError,
    StreamNotBegunError,
    WorkerError,
    WorkerExitedError,
    WorkerOutOfMemoryError,
    WorkerProtocolError,
    WorkerSpawnError,
    WorkerTimeoutError,
)
from lambda_deno_spawn.invocation import (
    Failure,
    Invocation,
    Success,
)

REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
REQUIRED = {
    "lambda-runtime-aws-request-id": REQUEST_ID,
    "lambda-runtime-deadline-ms": "1542409706888",
    "lambda-runtime-invoked-function-arn": (
        "arn:aws:lambda:us-east-2:123456789012:function:custom-runtime:live"
    ),
}
OPTIONAL = {
    "lambda-runtime-trace-id": (
        "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1"
    ),
    "lambda-runtime-client-context": '{"client":{"app_title":"t"}}',
    "lambda-runtime-cognito-identity": (
        '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}'
    ),
    "lambda-runtime-aws-tenant-id": "blue",
    "lambda-runtime-invocation-id": "opaque==",
}


# From headers.


def test_every_header_of_the_contract_is_read() -> None:
    headers = {"content-type": "application/json", **REQUIRED, **OPTIONAL}
    assert Invocation.from_headers(headers, b"\xff\x00") == Invocation(
        request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        deadline_epoch_ms=1_542_409_706_888,
        function_arn=(
            "arn:aws:lambda:us-east-2:123456789012:function:custom-runtime:live"
        ),
        event=b"\xff\x00",
        trace_id=(
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1"
        ),
        client_context='{"client":{"app_title":"t"}}',
        cognito_identity='{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
        tenant_id="blue",
        invocation_id="opaque==",
    )


@pytest.mark.parametrize(
    "optional",
    [{}, dict.fromkeys(OPTIONAL, "")],
    ids=["not-sent", "sent-empty"],
)
def test_optional_headers_that_hold_nothing_are_absent(
    optional: dict[str, str],
) -> None:
    invocation = Invocation.from_headers({**REQUIRED, **optional}, b"")
    assert invocation.trace_id is None
    assert invocation.client_context is None
    assert invocation.cognito_identity is None
    assert invocation.tenant_id is None
    assert invocation.invocation_id is None


def test_headers_that_are_not_known_are_ignored() -> None:
    headers = {**REQUIRED, "lambda-runtime-new": "x", "x-amzn-anything": ""}
    assert Invocation.from_headers(headers, b"{}") == Invocation.from_headers(
        REQUIRED, b"{}"
    )


def test_an_invocation_without_an_arn_is_served() -> None:
    headers = dict(REQUIRED)
    del headers["lambda-runtime-invoked-function-arn"]
    assert Invocation.from_headers(headers, b"").function_arn == ""


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("lambda-runtime-aws-request-id", None, id="no-request-id"),
        pytest.param("lambda-runtime-aws-request-id", "", id="empty-request-id"),
        pytest.param("lambda-runtime-aws-request-id", "x" * 1025, id="id-is-huge"),
        pytest.param("lambda-runtime-deadline-ms", None, id="no-deadline"),
        pytest.param("lambda-runtime-deadline-ms", "", id="empty-deadline"),
        pytest.param("lambda-runtime-deadline-ms", "soon", id="deadline-is-a-word"),
        pytest.param("lambda-runtime-deadline-ms", "1.5", id="deadline-is-a-fraction"),
        pytest.param("lambda-runtime-deadline-ms", "-1", id="deadline-is-negative"),
        pytest.param("lambda-runtime-deadline-ms", "1_000", id="deadline-is-python"),
        pytest.param("lambda-runtime-deadline-ms", "²", id="deadline-is-superscript"),
        pytest.param("lambda-runtime-deadline-ms", "9" * 16, id="deadline-is-huge"),
    ],
)
def test_a_required_header_that_is_missing_or_malformed_is_refused(
    header: str, value: str | None
) -> None:
    headers = {name: text for name, text in REQUIRED.items() if name != header}
    if value is not None:
        headers[header] = value
    with pytest.raises(RuntimeApiError, match="missing or malformed") as caught:
        Invocation.from_headers(headers, b"")
    assert caught.value.call == "next"
    assert caught.value.status == 200
    assert repr((value or "")[:64]) in str(caught.value)


# Error bodies.


def test_a_success_is_json_unless_it_says_otherwise() -> None:
    assert Success(b"1").content_type == "application/json"


def test_an_error_body_has_the_members_of_the_contract() -> None:
    failure = Failure.of("Runtime.ExitError", "It “ended”", ["at f (a.ts:1:2)"])
    assert failure.error_type == "Runtime.ExitError"
    assert failure.body.decode() == (
        '{"errorType":"Runtime.ExitError","errorMessage":"It “ended”",'
        '"stackTrace":["at f (a.ts:1:2)"]}'
    )


def test_an_error_body_without_a_stack_has_an_empty_one() -> None:
    assert Failure.of("E", "m").body == (
        b'{"errorType":"E","errorMessage":"m","stackTrace":[]}'
    )


def test_what_is_no_unicode_is_replaced_in_an_error_body() -> None:
    failure = Failure.of("E", "a\ud800b", ["at \udfff"], "log \udc80 tail")
    assert failure.body == (
        b'{"errorType":"E","errorMessage":"a?b","stackTrace":["at ?"],'
        b'"logTail":["log ? tail"]}'
    )


def test_a_log_tail_is_bounded_to_its_last_lines() -> None:
    tail = "".join(f"line {number}\n" for number in range(50))
    body = json.loads(Failure.of("E", "m", log_tail=tail).body)
    assert body["logTail"] == [f"line {number}" for number in range(30, 50)]


WORKER_ERRORS = [
    (WorkerError("m", stderr_tail="a\nb"), "Runtime.ExitError"),
    (WorkerSpawnError("m", stderr_tail="a\nb"), "Runtime.InvalidEntrypoint"),
    (
        WorkerExitedError("m", returncode=1, pid=7, stderr_tail="a\nb"),
        "Runtime.ExitError",
    ),
    (
        WorkerOutOfMemoryError("m", returncode=-9, pid=7, stderr_tail="a\nb"),
        "Runtime.OutOfMemory",
    ),
    (
        WorkerTimeoutError("m", limit_s=2.8, pid=7, stderr_tail="a\nb"),
        "Runtime.InvokeTimeout",
    ),
    (WorkerProtocolError("m", stderr_tail="a\nb"), "Runtime.WorkerProtocolError"),
]


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        pytest.param(error, error_type, id=type(error).__name__)
        for error, error_type in WORKER_ERRORS
    ],
)
def test_a_worker_error_becomes_a_failure_with_its_log_tail(
    error: WorkerError, error_type: str
) -> None:
    failure = Failure.from_worker_error(error)
    assert failure.error_type == failure.function_error_type == error_type
    assert json.loads(failure.body) == {
        "errorType": error_type,
        "errorMessage": "m",
        "stackTrace": [],
        "logTail": ["a", "b"],
    }


def test_a_worker_error_without_log_has_no_log_tail() -> None:
    assert b"logTail" not in Failure.from_worker_error(WorkerError("m")).body


def test_worker_errors_keep_what_a_caller_can_act_on() -> None:
    exited = WorkerExitedError("m", returncode=-15, pid=7, stderr_tail="t")
    assert (exited.returncode, exited.pid, exited.stderr_tail) == (-15, 7, "t")
    timeout = WorkerTimeoutError("m", limit_s=2.8, pid=None, stderr_tail="")
    assert (timeout.limit_s, timeout.pid) == (2.8, None)


def test_errors_of_the_init_phase_carry_a_type_and_say_what_is_wrong() -> None:
    config = ConfigError("LAMBDA_DENO_WARM", "hot", "ready or off")
    assert config.error_type == "Runtime.InvalidConfiguration"
    assert str(config) == (
        "Cannot use LAMBDA_DENO_WARM: its value is 'hot'; expected ready or off"
    )
    missing = ConfigError("_HANDLER", None, "file.export")
    assert str(missing) == "Cannot use _HANDLER: it is not set; expected file.export"
    handler = HandlerError("Runtime.ImportModuleError", "Cannot find it")
    assert handler.error_type == "Runtime.ImportModuleError"
    assert str(handler) == "Cannot find it"


@pytest.mark.parametrize(
    ("status", "answer"),
    [(413, "HTTP status 413"), (None, "no answer")],
    ids=["refused", "unreachable"],
)
def test_a_runtime_api_error_names_the_call_and_the_answer(
    status: int | None, answer: str
) -> None:
    error = RuntimeApiError("response", "too large", status=status)
    assert (error.call, error.detail, error.status) == ("response", "too large", status)
    assert str(error) == (
        f"Cannot complete Runtime API call 'response': {answer}, too large"
    )


def test_a_refusal_is_a_runtime_api_error_with_a_status() -> None:
    error = RefusedError("response", 413, "too large")
    assert isinstance(error, RuntimeApiError)
    assert (error.call, error.detail, error.status) == ("response", "too large", 413)
    assert str(error) == (
        "Cannot complete Runtime API call 'response': HTTP status 413, too large"
    )


@pytest.mark.parametrize(
    ("is_exhausted", "error_type"),
    [(True, "Runtime.ResourceExhausted"), (False, "Runtime.StreamUnavailable")],
)
def test_a_stream_without_a_connection_says_whether_the_system_has_room(
    is_exhausted: bool, error_type: str
) -> None:
    error = StreamNotBegunError("cannot connect", is_exhausted=is_exhausted)
    assert (error.call, error.status) == ("response", None)
    assert error.error_type == error_type


# Lambda-Runtime-Function-Error-Type.


@pytest.mark.parametrize(
    ("error_type", "header"),
    [
        ("Runtime.ExitError", "Runtime.ExitError"),
        ("Function.ResponseSizeTooLarge", "Function.ResponseSizeTooLarge"),
        ("TypeError", "Function.TypeError"),
        ("error", "Function.Error"),
        ("My Error-2", "Function.MyError"),
        ("Runtime.exit", "Function.Runtimeexit"),
        ("Runtime.E", "Function.RuntimeE"),
        ("Sandbox.Timedout", "Function.SandboxTimedout"),
        ("Runtime.ExitError\r\nX: y", "Function.RuntimeExitErrorXy"),
        ("Ошибка", "Function.Unknown"),
        ("É", "Function.Unknown"),
        ("E", "Function.Unknown"),
        ("", "Function.Unknown"),
        ("500", "Function.Unknown"),
    ],
    ids=repr,
)
def test_the_error_type_header_has_a_category_and_a_reason(
    error_type: str, header: str
) -> None:
    assert Failure(error_type, b"{}").function_error_type == header


@settings(deadline=None)
@given(st.text())
def test_the_error_type_header_always_fits_the_platform_s_pattern(
    error_type: str,
) -> None:
    header = Failure(error_type, b"{}").function_error_type
    category, _, reason = header.partition(".")
    assert category in ("Runtime", "Function")
    assert len(reason) > 1
    assert reason.isascii()
    assert reason.isalpha()
    assert reason[0].isupper()


# Lambda-Runtime-Function-XRay-Error-Cause.


def cause_of(*stack_trace: object, message: object = "m") -> dict[str, object]:
    body = {"errorType": "E", "errorMessage": message, "stackTrace": stack_trace}
    text = Failure("E", json.dumps(body).encode()).xray_cause("/var/task")
    assert text is not None
    cause = json.loads(text)
    assert isinstance(cause, dict)
    return cause


def test_the_cause_is_one_line_of_json_in_the_form_of_the_contract() -> None:
    failure = Failure.of(
        "RangeError",
        "too far",
        [
            "at inner (file:///var/task/a.ts:3:9)",
            "at async handler (file:///var/task/b.ts:10:21)",
        ],
    )
    assert failure.xray_cause("/var/task") == (
        '{"working_directory":"/var/task","exceptions":[{"type":"RangeError",'
        '"message":"too far","stack":['
        '{"path":"file:///var/task/a.ts","line":3,"label":"inner"},'
        '{"path":"file:///var/task/b.ts","line":10,"label":"async handler"}]}],'
        '"paths":["file:///var/task/a.ts","file:///var/task/b.ts"]}'
    )


@pytest.mark.parametrize(
    ("line", "path", "number", "label"),
    [
        pytest.param(
            "at async fn (file:///x.ts:1:2)", "file:///x.ts", 1, "async fn", id="async"
        ),
        pytest.param("at file:///x.ts:3:4", "file:///x.ts", 3, "", id="top-level"),
        pytest.param(
            "at async file:///x.ts:3:4", "file:///x.ts", 3, "", id="async-top-level"
        ),
        pytest.param(
            "    at new Thing (file:///x.ts:1:2)", "file:///x.ts", 1, "new Thing",
            id="indented-constructor",
        ),
        pytest.param(
            "at Thing.get [as value] (file:///x%20y.ts:12:3)", "file:///x%20y.ts", 12,
            "Thing.get [as value]", id="accessor",
        ),
        pytest.param(
            "at https://deno.land/std/a.ts:7:1", "https://deno.land/std/a.ts", 7, "",
            id="remote",
        ),
        pytest.param(
            "at op (ext:core/01_core.js:247:5)", "ext:core/01_core.js", 247, "op",
            id="deno's-own",
        ),
    ],
)  # fmt: skip
def test_a_frame_of_a_deno_stack_is_read(
    line: str, path: str, number: int, label: str
) -> None:
    cause = cause_of(line)
    frame = {"path": path, "line": number, "label": label}
    assert cause["exceptions"] == [{"type": "E", "message": "m", "stack": [frame]}]
    assert cause["paths"] == [path]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("at Array.map (<anonymous>)", id="native"),
        pytest.param("E: something", id="message"),
        pytest.param("at f (file:///x.ts:99999999999999999999:1)", id="huge-line"),
        pytest.param(f"at f (file:///x.ts:{'9' * 5000}:1)", id="endless-line"),
        pytest.param("at f (file:///x.ts:٣:1)", id="other-digits"),
        pytest.param("at f (file:///x.ts:-3:1)", id="negative-line"),
        pytest.param(
            "at eval (eval at f (file:///x.ts:1:2), <anonymous>:1:1)", id="eval"
        ),
        pytest.param("", id="empty"),
        pytest.param(7, id="number"),
        pytest.param(None, id="null"),
        pytest.param({"path": "x"}, id="object"),
    ],
)
def test_a_line_that_is_no_frame_is_left_out(line: object) -> None:
    """A handler writes its stack itself: a line past 64 bits ended the runtime."""
    cause = cause_of(line, "at f (file:///x.ts:1:2)")
    assert cause["paths"] == ["file:///x.ts"]


def test_a_path_is_named_once() -> None:
    line = "at f (file:///b.ts:1:2)"
    paths = cause_of(line, line, "at g (file:///a.ts:1:2)")["paths"]
    assert paths == ["file:///a.ts", "file:///b.ts"]


def test_what_is_no_printable_ascii_is_escaped_in_the_cause() -> None:
    failure = Failure.of("E", "é 漢 😀 \x7f \n\t\x00", ["at f (file:///tmp/ж.ts:1:2)"])
    text = failure.xray_cause("/tmp/ж")
    assert text is not None
    assert text == (
        '{"working_directory":"/tmp/\\u0436","exceptions":[{"type":"E","message":'
        '"\\u00e9 \\u6f22 \\ud83d\\ude00 \\u007f \\n\\t\\u0000","stack":'
        '[{"path":"file:///tmp/\\u0436.ts","line":1,"label":"f"}]}],'
        '"paths":["file:///tmp/\\u0436.ts"]}'
    )
    exception = json.loads(text)["exceptions"][0]
    assert exception["message"] == "é 漢 😀 \x7f \n\t\x00"


def test_a_working_directory_that_is_no_unicode_is_replaced() -> None:
    text = Failure.of("E", "m").xray_cause("/tmp/\udcff")
    assert text is not None
    assert json.loads(text)["working_directory"] == "/tmp/?"


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        pytest.param("a" * 32_000, True, id="fits"),
        pytest.param("a" * 33_000, False, id="too-large"),
        pytest.param("é" * 6_000, False, id="too-large-once-escaped"),
        pytest.param("a" * 6_000_000, False, id="far-too-large"),
    ],
)
def test_a_cause_that_is_too_large_for_a_header_is_left_out(
    message: str, fits: bool
) -> None:
    cause = Failure.of("E", message).xray_cause("/")
    assert (cause is not None) == fits
    assert cause is None or len(cause) <= 32_768


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="not-json"),
        pytest.param(b"\xff", id="not-text"),
        pytest.param(b'{"errorMessage":"\\ud800"}', id="half-a-surrogate-pair"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="text"),
    ],
)
def test_a_body_that_is_no_json_object_has_no_cause(body: bytes) -> None:
    assert Failure("E", body).xray_cause("/") is None


@pytest.mark.parametrize(
    "stack_trace", ["5", "true", '"at f (a:1:2)"', '{"at f (a:1:2)":1}', "null"]
)
def test_a_stack_that_is_no_array_counts_as_empty(stack_trace: str) -> None:
    text = Failure("E", f'{{"stackTrace":{stack_trace}}}'.encode()).xray_cause("/")
    assert text == (
        '{"working_directory":"/","exceptions":[{"type":"E","message":"","stack":[]}],'
        '"paths":[]}'
    )


def test_a_message_that_is_no_text_is_shown_as_it_is() -> None:
    assert cause_of(message=[1, None])["exceptions"] == [
        {"type": "E", "message": "[1, None]", "stack": []}
    ]


def test_a_message_that_is_nested_too_deep_is_survived() -> None:
    """It ended the supervisor with a RecursionError."""
    deep = "[" * 1020 + "]" * 1020
    text = Failure("E", f'{{"errorMessage":{deep}}}'.encode()).xray_cause("/")
    # How deep is too deep differs between versions of Python.
    if text is not None:
        assert json.loads(text)["exceptions"][0]["message"] in ("", deep)


def test_nor_does_a_python_matter_that_reads_deeper_than_it_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    monkeypatch.setattr(invocation, "loads", lambda _: {"errorMessage": deep})
    assert cause_of()["exceptions"] == [{"type": "E", "message": "", "stack": []}]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
STACK_LINES = st.from_regex(r"\A *at (async )?(\w+ \()?[a-z:/]*:[0-9]*:[0-9]+\)?\Z")


@settings(deadline=None)
@given(
    error_type=st.text(),
    message=JSON_VALUES,
    stack_trace=JSON_VALUES | st.lists(STACK_LINES | JSON_VALUES),
    working_directory=st.text(st.characters(exclude_categories=())),
)
def test_the_cause_of_any_error_is_a_header_value_or_absent(
    error_type: str, message: object, stack_trace: object, working_directory: str
) -> None:
    body = json.dumps({"errorMessage": message, "stackTrace": stack_trace}).encode()
    text = Failure(error_type, body).xray_cause(working_directory)
    if text is not None:
        assert all(" " <= character <= "~" for character in text)
        assert json.loads(text)["exceptions"][0]["type"] == error_type


# What is left of an error where there is little room.


def error_of(message: str, stack: list[str], **more: object) -> Failure:
    body = {"errorType": "E", "errorMessage": message, "stackTrace": stack, **more}
    return Failure("E", json.dumps(body, ensure_ascii=False).encode())


def test_an_error_that_is_short_enough_stays_as_it_is() -> None:
    failure = error_of("m", [], cause={"errorType": "C"})
    assert failure.shortened(len(failure.body)) is failure


def test_an_error_loses_its_causes_and_its_log_first() -> None:
    failure = error_of("m", ["at f", "at g"], cause="c" * 500, logTail=["l" * 500])
    assert json.loads(failure.shortened(300).body) == {
        "errorType": "E",
        "errorMessage": "m",
        "stackTrace": ["at f", "at g", "\u2026 (cut; the whole error is in the log)"],
    }


def test_then_it_loses_the_end_of_its_stack() -> None:
    stack = [f"at f{number} (file:///x.ts:1:1)" for number in range(100)]
    *kept, cut = json.loads(error_of("m", stack).shortened(500).body)["stackTrace"]
    assert cut == "\u2026 (cut; the whole error is in the log)"
    assert kept == stack[: len(kept)]
    assert len(kept) > 5


def test_then_it_loses_the_end_of_its_message() -> None:
    body = error_of("m" * 1_000, ["at f"]).shortened(400).body
    error = json.loads(body)
    match = re.fullmatch(r"(m+)\u2026 \((\d+) characters more\)", error["errorMessage"])
    assert match is not None
    assert len(match[1]) + int(match[2]) == 1_000
    assert error["stackTrace"] == ["\u2026 (cut; the whole error is in the log)"]
    assert 390 < len(body) <= 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"x" * 500, "500 bytes that are not a JSON object"),
        (b"[" + b" " * 498 + b"]", "500 bytes that are not a JSON object"),
        (b'{"errorMessage":5,"stackTrace":5' + b" " * 400 + b"}", ""),
        (b'{"stackTrace":[5,{}]' + b" " * 400 + b"}", ""),
    ],
)
def test_a_body_that_is_no_error_is_named(body: bytes, message: str) -> None:
    error = json.loads(Failure("E", body).shortened(300).body)
    assert error["errorType"] == "E"
    assert error["errorMessage"] == message


@settings(deadline=None)
@given(
    message=st.text(max_size=600),
    stack=st.lists(st.text(max_size=100), max_size=20),
    limit=st.integers(300, 1_500),
)
def test_an_error_always_fits_and_is_valid(
    message: str, stack: list[str], limit: int
) -> None:
    body = error_of(message, stack).shortened(limit).body
    assert len(body) <= limit
    assert json.loads(body.decode("utf-8"))["errorType"] == "E"


@pytest.mark.parametrize(
    "error_type", ["E" * 5_000, "Runtime." + "E" * 5_000], ids=["name", "category"]
)
def test_the_error_type_header_is_bounded(error_type: str) -> None:
    header = Failure(error_type, b"{}").function_error_type
    assert len(header) <= len("Function.") + 128
    assert re.fullmatch(r"Function\.[A-Z][A-Za-z]+", header)


def test_a_body_that_is_too_long_is_not_read_for_a_cause() -> None:
    """It was read first: 7 MB of small objects took 200 MB."""
    small = b'{"errorMessage":"m","stackTrace":[]'
    body = small + b" " * (65_536 - len(small)) + b"}"
    assert Failure("E", body).xray_cause("/") is None
    assert Failure("E", body.replace(b" ", b"", 1)).xray_cause("/") is not None


def test_members_behind_the_body_are_for_the_log_only() -> None:
    answer = b'{"errorType":"E","errorMessage":"m","stackTrace":[]}'
    logged = b'{"errorType":"E","errorMessage":"m","stackTrace":[],"code":"23505"}'
    failure = Failure("E", answer + b"\n" + logged)
    assert failure.answer == answer
    assert failure.log_text == logged.decode()
    assert b"23505" not in failure.shortened(60).answer
    assert "23505" not in (failure.xray_cause("/var/task") or "")
    assert failure.xray_cause("/") is not None
    assert Failure("E", answer).log_text == answer.decode()
    assert Failure("E", answer + b"\n").log_text == answer.decode()
    assert failure.log_value == logged


@pytest.mark.parametrize(
    "logged",
    [
        b"",
        b"{",
        b'{"a":1}\n{"level":"ERROR"}',
        b'"\\ud800"',
        b"NaN",
        b"\xff",
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_json_is_not_logged_as_if_it_were(logged: bytes) -> None:
    assert Failure("E", b"x\n" + logged).log_value is None


def test_an_error_is_logged_on_one_line() -> None:
    assert Failure("E", b'{ "a" : "\xc3\xa4",\r"b":[1] }').log_value == (
        '{"a":"ä","b":[1]}'.encode()
    )
