"""The emulator's state: what each Runtime API call does, without any HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from lambda_deno_spawn.dev.local.environment import (
    EmulatedInvocation,
    End,
    OutcomeKind,
    Phase,
    RefusedCallError,
    RuntimeApiState,
)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def state(clock: Clock) -> RuntimeApiState:
    return RuntimeApiState(clock, lambda: 1_700_000_000.25)


def deliver(state: RuntimeApiState, event: bytes = b"{}") -> EmulatedInvocation:
    state.queue(event, timeout_s=3, invocation_id="i-1")
    state.poll()
    return state.deliver()


def respond(
    state: RuntimeApiState, invocation: EmulatedInvocation, body: bytes = b"1"
) -> None:
    state.begin_response(invocation.request_id, "i-1", None, "application/json")
    assert state.receive(invocation, body)
    state.complete_response(invocation)


def stream(
    state: RuntimeApiState, invocation: EmulatedInvocation, *chunks: bytes
) -> None:
    state.begin_response(invocation.request_id, "i-1", "streaming", "text/plain")
    for chunk in chunks:
        assert state.receive(invocation, chunk)


def body_of(invocation: EmulatedInvocation) -> object:
    assert invocation.outcome is not None
    return json.loads(invocation.outcome.body)


def fail(state: RuntimeApiState, request_id: str) -> None:
    state.fail(
        request_id, None, b"{}", content_type="application/json", error_type=None
    )


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(RefusedCallError) as caught:
        call()
    return caught.value.status, caught.value.error_type


def test_queued_invocation_has_a_uuid4_and_waits(state: RuntimeApiState) -> None:
    invocation = state.queue(b"{}", timeout_s=3)
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid4, invocation.request_id)
    assert invocation.phase is Phase.QUEUED
    assert invocation.deadline_epoch_ms is None
    assert state.has_event()


def test_first_poll_ends_init(state: RuntimeApiState, clock: Clock) -> None:
    assert state.init_finished_s is None
    state.poll()
    clock.now_s = 105.0
    state.poll()
    assert state.init_finished_s == 100.0


def test_deadline_is_a_point_in_unix_time(state: RuntimeApiState) -> None:
    assert deliver(state).deadline_epoch_ms == 1_700_000_003_250


def test_events_are_delivered_in_order(state: RuntimeApiState) -> None:
    first = state.queue(b"1", timeout_s=3)
    second = state.queue(b"2", timeout_s=3)
    state.poll()
    assert state.deliver() is first
    state.begin_response(first.request_id, None, None)
    state.complete_response(first)
    state.poll()
    assert state.deliver() is second


def test_unanswered_event_is_delivered_again_unchanged(
    state: RuntimeApiState, clock: Clock
) -> None:
    invocation = deliver(state)
    state.queue(b"2", timeout_s=3)
    deadline_epoch_ms = invocation.deadline_epoch_ms
    clock.now_s = 101.0
    state.poll()
    assert state.deliver() is invocation
    assert invocation.deliveries == 2
    assert invocation.delivered_s == 100.0
    assert invocation.deadline_epoch_ms == deadline_epoch_ms


def test_times_of_an_invocation_are_recorded(
    state: RuntimeApiState, clock: Clock
) -> None:
    invocation = deliver(state)
    clock.now_s = 101.0
    respond(state, invocation, b'"x"')
    clock.now_s = 102.0
    assert invocation.end is None
    state.poll()
    times_s = (invocation.delivered_s, invocation.answered_s, invocation.ended_s)
    assert times_s == (100.0, 101.0, 102.0)
    assert invocation.end is End.NEXT
    assert invocation.phase is Phase.ENDED
    assert not state.has_event()


def test_response_is_kept_byte_for_byte(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, "i-1", "streaming", "image/png")
    assert state.receive(invocation, b"\x00")
    assert state.receive(invocation, b"\xff")
    state.complete_response(invocation, {})
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.kind is OutcomeKind.RESPONSE
    assert (outcome.body, outcome.content_type) == (b"\x00\xff", "image/png")
    assert outcome.is_streamed


def test_error_is_kept_with_its_header(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.fail(
        invocation.request_id,
        "i-1",
        b'{"errorType":"E"}',
        content_type="application/json",
        error_type="Function.E",
    )
    outcome = invocation.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.error_type) == (OutcomeKind.ERROR, "Function.E")
    assert outcome.body == b'{"errorType":"E"}'
    assert invocation.end is None


@pytest.mark.parametrize("answer", ["response", "error"])
def test_answer_to_an_unknown_request_id_is_refused(
    state: RuntimeApiState, answer: str
) -> None:
    deliver(state)
    calls = {
        "response": lambda: state.begin_response("nobody", None, None),
        "error": lambda: fail(state, "nobody"),
    }
    assert refused(calls[answer]) == (400, "InvalidRequestID")


def test_answer_before_delivery_is_refused(state: RuntimeApiState) -> None:
    invocation = state.queue(b"{}", timeout_s=3)
    call = lambda: state.begin_response(invocation.request_id, None, None)  # noqa: E731
    assert refused(call) == (400, "InvalidRequestID")


@pytest.mark.parametrize("second", ["response", "error"])
def test_second_answer_is_refused(state: RuntimeApiState, second: str) -> None:
    invocation = deliver(state)
    respond(state, invocation)
    calls = {
        "response": lambda: state.begin_response(invocation.request_id, None, None),
        "error": lambda: fail(state, invocation.request_id),
    }
    assert refused(calls[second]) == (403, "InvalidStateTransition")
    assert body_of(invocation) == 1


def test_answer_after_the_next_poll_is_refused(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    respond(state, invocation)
    state.poll()
    call = lambda: fail(state, invocation.request_id)  # noqa: E731
    assert refused(call) == (400, "InvalidRequestID")


def test_error_after_the_response_began_is_refused(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, "streaming")
    call = lambda: fail(state, invocation.request_id)  # noqa: E731
    assert refused(call) == (403, "InvalidStateTransition")


def test_poll_in_the_middle_of_a_response_is_refused(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, "streaming")
    assert refused(state.poll) == (403, "InvalidStateTransition")


def test_stale_invocation_id_is_refused_and_does_no_harm(
    state: RuntimeApiState,
) -> None:
    invocation = deliver(state)
    call = lambda: state.begin_response(invocation.request_id, "i-0", None)  # noqa: E731
    assert refused(call)[0] == 410
    assert invocation.phase is Phase.IN_FLIGHT
    respond(state, invocation)
    assert body_of(invocation) == 1


def test_missing_invocation_id_is_accepted(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, None)
    assert invocation.phase is Phase.RESPONDING


def test_unknown_response_mode_fails_the_invocation(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    call = lambda: state.begin_response(  # noqa: E731
        invocation.request_id, None, "Streaming"
    )
    assert refused(call) == (400, "InvalidFunctionResponseMode")
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Runtime.InvalidResponseModeHeader"


def test_oversized_response_fails_the_invocation(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, None)
    assert state.receive(invocation, b"x" * 6_291_556)
    assert not state.receive(invocation, b"x")
    assert not state.receive(invocation, b"")
    with pytest.raises(RefusedCallError) as caught:
        state.complete_response(invocation)
    assert caught.value.status == 413
    assert caught.value.error_type == "RequestEntityTooLarge"
    assert str(caught.value) == (
        "Exceeded maximum allowed payload size (6291556 bytes)."
    )
    assert body_of(invocation) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size "
        "(6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
    call = lambda: fail(state, invocation.request_id)  # noqa: E731
    assert refused(call) == (403, "InvalidStateTransition")


def test_stream_may_be_larger_than_a_buffered_response(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    stream(state, invocation, b"x" * 6_291_556, b"x")
    state.complete_response(invocation)
    assert invocation.outcome is not None
    assert len(invocation.outcome.body) == 6_291_557


TYPE = "lambda-runtime-function-error-type"
BODY = "lambda-runtime-function-error-body"


@pytest.mark.parametrize("chunks", [(), (b"a", b"b")], ids=["at once", "later"])
def test_error_in_the_trailers_breaks_a_stream_off(
    state: RuntimeApiState, clock: Clock, chunks: tuple[bytes, ...]
) -> None:
    invocation = deliver(state)
    stream(state, invocation, *chunks)
    clock.now_s = 101.0
    trailers = {TYPE: "Function.E", BODY: "eyJlcnJvclR5cGUiOiJFIn0="}
    state.complete_response(invocation, trailers)
    outcome = invocation.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.error_type) == (OutcomeKind.ERROR, "Function.E")
    assert outcome.body == b'{"errorType":"E"}'
    assert outcome.partial == b"".join(chunks)
    assert (outcome.is_streamed, outcome.content_type) == (True, "text/plain")
    assert (invocation.answered_s, invocation.end) == (101.0, None)
    state.poll()
    assert invocation.end is End.NEXT


@pytest.mark.parametrize(
    "trailers",
    [{TYPE: "Function.E"}, {TYPE: "Function.E", BODY: "no base64!"}],
    ids=["missing", "malformed"],
)
def test_error_in_the_trailers_needs_no_body(
    state: RuntimeApiState, trailers: dict[str, str]
) -> None:
    invocation = deliver(state)
    stream(state, invocation, b"a")
    state.complete_response(invocation, trailers)
    assert invocation.outcome is not None
    assert invocation.outcome.error_type == "Function.E"
    assert body_of(invocation) == {"errorType": "Function.E"}


@pytest.mark.parametrize(
    "trailers",
    [{}, {TYPE: ""}, {BODY: "e30="}, {"checksum": "1"}],
    ids=["none", "empty type", "body alone", "another"],
)
def test_other_trailers_leave_a_stream_complete(
    state: RuntimeApiState, trailers: dict[str, str]
) -> None:
    invocation = deliver(state)
    stream(state, invocation, b"a")
    state.complete_response(invocation, trailers)
    outcome = invocation.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.body) == (OutcomeKind.RESPONSE, b"a")
    assert (outcome.error_type, outcome.partial) == (None, b"")


def test_trailers_of_a_buffered_response_mean_nothing(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, None)
    state.complete_response(invocation, {TYPE: "Function.E"})
    assert invocation.outcome is not None
    assert invocation.outcome.kind is OutcomeKind.RESPONSE


def test_truncated_response_fails_the_invocation(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    stream(state, invocation, b"a", b"b")
    state.truncate(invocation)
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.error_type == "Runtime.TruncatedResponse"
    assert (outcome.partial, outcome.is_streamed) == (b"ab", True)


def test_truncated_buffered_response_is_no_stream(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.begin_response(invocation.request_id, None, None)
    assert state.receive(invocation, b"a")
    state.truncate(invocation)
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.error_type == "Runtime.TruncatedResponse"
    assert (outcome.partial, outcome.is_streamed) == (b"", False)


@pytest.mark.parametrize("end", ["timeout", "exit"])
def test_whatever_ends_a_stream_the_caller_keeps_what_came(
    state: RuntimeApiState, end: str
) -> None:
    invocation = deliver(state)
    stream(state, invocation, b"a", b"b")
    if end == "timeout":
        state.time_out(invocation)
    else:
        state.record_exit(1)
    outcome = invocation.outcome
    assert outcome is not None
    assert outcome.kind in (OutcomeKind.TIMEOUT, OutcomeKind.EXIT)
    assert (outcome.partial, outcome.is_streamed) == (b"ab", True)
    state.truncate(invocation)  # its connection ends afterwards
    assert invocation.outcome is outcome


def test_init_error_reaches_the_waiting_caller(state: RuntimeApiState) -> None:
    invocation = state.queue(b"{}", timeout_s=3)
    state.fail_init(b'{"errorType":"R"}', content_type="", error_type="Runtime.R")
    assert invocation.outcome is not None
    assert invocation.outcome.kind is OutcomeKind.INIT_ERROR
    assert invocation.outcome.body == b'{"errorType":"R"}'
    assert invocation.end is End.INIT_ERROR
    assert refused(state.poll) == (403, "InvalidStateTransition")


@pytest.mark.parametrize("before", ["next", "init error"])
def test_init_error_is_refused_when_init_is_over(
    state: RuntimeApiState, before: str
) -> None:
    if before == "next":
        state.poll()
    else:
        state.fail_init(b"{}", content_type="", error_type=None)
    call = lambda: state.fail_init(b"{}", content_type="", error_type=None)  # noqa: E731
    assert refused(call) == (403, "InvalidStateTransition")


def test_timeout_is_told_in_the_platforms_words(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    state.time_out(invocation)
    assert body_of(invocation) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {invocation.request_id} Error: "
        "Task timed out after 3.00 seconds",
    }
    assert invocation.end is End.TIMEOUT


@pytest.mark.parametrize("began", [False, True], ids=["before", "in the middle"])
def test_answer_after_the_timeout_is_gone(state: RuntimeApiState, began: bool) -> None:
    invocation = deliver(state)
    if began:
        state.begin_response(invocation.request_id, None, None)
    state.time_out(invocation)
    late = {
        False: lambda: fail(state, invocation.request_id),
        True: lambda: state.complete_response(invocation),
    }
    assert not state.receive(invocation, b"late")
    assert refused(late[began]) == (410, "InvokeTimeout")


def test_timeout_after_the_response_leaves_the_response(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    respond(state, invocation)
    state.time_out(invocation)
    assert body_of(invocation) == 1
    assert invocation.end is End.TIMEOUT


def test_timeout_of_an_ended_invocation_has_no_effect(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    respond(state, invocation)
    state.poll()
    state.time_out(invocation)
    assert invocation.end is End.NEXT


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "Runtime exited without providing a reason"),
        (1, "Runtime exited with error: exit status 1"),
        (-9, "Runtime exited with error: signal: killed"),
        (-64, "Runtime exited with error: signal: signal 64"),
    ],
)
@pytest.mark.parametrize("phase", ["init", "invoke"])
def test_exit_is_told_in_the_platforms_words(
    state: RuntimeApiState, returncode: int, text: str, phase: str
) -> None:
    if phase == "invoke":
        invocation = deliver(state)
    else:
        invocation = state.queue(b"{}", timeout_s=3)
    state.record_exit(returncode)
    assert body_of(invocation) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {invocation.request_id} Error: {text}",
    }
    assert invocation.end is End.EXIT


def test_exit_after_the_response_leaves_the_response(state: RuntimeApiState) -> None:
    invocation = deliver(state)
    respond(state, invocation)
    state.record_exit(1)
    assert body_of(invocation) == 1
    assert invocation.end is End.EXIT


def test_exit_while_idle_leaves_waiting_events_to_the_next_runtime(
    state: RuntimeApiState,
) -> None:
    state.poll()
    invocation = state.queue(b"{}", timeout_s=3)
    state.record_exit(1)
    assert invocation.outcome is None
    assert state.init_finished_s is None
    state.poll()
    assert state.deliver() is invocation


def test_exit_after_an_init_error_fails_nobody_else(state: RuntimeApiState) -> None:
    state.queue(b"1", timeout_s=3)
    second = state.queue(b"2", timeout_s=3)
    state.fail_init(b"{}", content_type="", error_type=None)
    state.record_exit(1)
    assert second.outcome is None
    state.poll()
    assert state.deliver() is second


def test_every_change_is_announced(clock: Clock) -> None:
    changes: list[None] = []
    state = RuntimeApiState(clock, clock, lambda: changes.append(None))
    calls: list[Callable[[], object]] = [
        lambda: state.queue(b"{}", timeout_s=3),
        state.poll,
        state.deliver,
    ]
    for call in calls:
        before = len(changes)
        call()
        assert len(changes) > before
