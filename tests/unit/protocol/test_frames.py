"""Frames and states: every pair of the table, any read size, any damage.

Frames are spelled by hand here: this file is a witness against both ends.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lambda_deno_spawn.errors import WorkerProtocolError
from lambda_deno_spawn.invocation import Failure, Invocation, Success
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    Event,
    FrameKind,
    LastWords,
    Ready,
    State,
    Stray,
    StreamBegun,
    StreamEnded,
    WorkerConnection,
)
from lambda_deno_spawn.protocol.hello import hello, resume

# It repeats itself as far as it can without containing its own beginning at its end.
MARKER = "00000000000000010000000000000002"
MARKER_AS_BYTES = b"00000000000000010000000000000002"
INVOCATION = Invocation(
    request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    deadline_epoch_ms=1_542_409_706_888,
    function_arn="arn:aws:lambda:us-east-2:123456789012:function:custom-runtime",
    event=b'{"key":1}',
)
STEPS = pytest.mark.parametrize("step", [1, 7, 65_536], ids="reads-of-{}-bytes".format)
# Of a result, as AWS says in its 413 answer.
RESULT_LIMIT_BYTES = 6_291_556
ERROR_LIMIT_BYTES = 262_144

READY = b'00000000000000010000000000000002{"kind":"READY","bytes":0}\n'
READY += b"00000000000000010000000000000002\n"
DONE = b'00000000000000010000000000000002{"kind":"DONE","bytes":0}\n'
DONE += b"00000000000000010000000000000002\n"


def frame(kind: str, body: bytes = b"", more: str = "") -> bytes:
    """Spell one frame; ``more`` are further header members, each after a comma."""
    head = f'{{"kind":"{kind}","bytes":{len(body)}{more}}}\n'
    return MARKER_AS_BYTES + head.encode() + body + MARKER_AS_BYTES + b"\n"


def feed(connection: WorkerConnection, data: bytes, step: int = 65_536) -> list[Event]:
    """Feed in pieces; strays that belong together are joined again."""
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += connection.receive_data(data[start : start + step])
    return join_strays(events)


def join_strays(events: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in events:
        if joined and isinstance(event, Stray) and isinstance(joined[-1], Stray):
            joined[-1] = Stray(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


def connection_in(state: State) -> WorkerConnection:
    """Drive a connection into a state by what a worker would send."""
    connection = WorkerConnection(MARKER)
    if state is State.FAILED:
        with pytest.raises(WorkerProtocolError):
            feed(connection, frame("DONE"))
        return connection
    if state is not State.STARTING:
        feed(connection, READY)
    if state not in (State.STARTING, State.IDLE):
        connection.invoke(INVOCATION, 0)
    if state is State.STREAMING:
        feed(connection, frame("STREAM"))
    if state in (State.FINISHING, State.DONE):
        feed(connection, frame("RESULT", b"1"))
    if state is State.DONE:
        feed(connection, DONE)
    assert connection.state is state
    return connection


LEGAL: dict[tuple[str, str], tuple[str, list[Event]]] = {
    ("STARTING", "READY"): ("IDLE", [Ready()]),
    ("STARTING", "ERROR"): ("FINISHING", [Answered(Failure("E", b"{}"))]),
    ("STARTING", "PART"): ("STARTING", []),
    ("BUSY", "PART"): ("BUSY", []),
    ("STREAMING", "PART"): ("STREAMING", []),
    ("BUSY", "RESULT"): ("FINISHING", [Answered(Success(b"{}"))]),
    ("BUSY", "ERROR"): ("FINISHING", [Answered(Failure("E", b"{}"))]),
    ("BUSY", "STREAM"): ("STREAMING", [StreamBegun("text/html")]),
    ("STREAMING", "CHUNK"): ("STREAMING", [Chunk(b"{}")]),
    ("STREAMING", "END"): ("FINISHING", [StreamEnded(None)]),
    ("STREAMING", "ERROR"): ("FINISHING", [StreamEnded(Failure("E", b"{}"))]),
    ("FINISHING", "DONE"): ("DONE", [Done()]),
    ("IDLE", "LAST"): ("IDLE", [LastWords()]),
    ("BUSY", "LAST"): ("BUSY", [LastWords()]),
    ("STREAMING", "LAST"): ("STREAMING", [LastWords()]),
    ("FINISHING", "LAST"): ("FINISHING", [LastWords()]),
    ("DONE", "LAST"): ("DONE", [LastWords()]),
}
FRAMES = {
    "READY": READY,
    "PART": frame("PART", b"{}"),
    "RESULT": frame("RESULT", b"{}"),
    "STREAM": frame("STREAM", b"", ',"contentType":"text/html"'),
    "CHUNK": frame("CHUNK", b"{}"),
    "END": frame("END"),
    "ERROR": frame("ERROR", b"{}", ',"errorType":"E"'),
    "LAST": frame("LAST"),
    "DONE": DONE,
}
PAIRS = [
    pytest.param(state, kind, id=f"{kind}-while-{state}")
    for state in State
    for kind in FrameKind
]


def test_states_and_kinds_are_those_of_the_specification() -> None:
    assert [state.value for state in State] == [
        "STARTING", "IDLE", "BUSY", "STREAMING", "FINISHING", "DONE", "FAILED",
    ]  # fmt: skip
    assert [kind.value for kind in FrameKind] == [
        "READY", "PART", "RESULT", "STREAM", "CHUNK", "END", "ERROR", "LAST",
        "DONE",
    ]  # fmt: skip


@pytest.mark.parametrize(("state", "kind"), PAIRS)
@STEPS
def test_each_state_takes_the_frames_of_the_table_and_no_others(
    state: State, kind: FrameKind, step: int
) -> None:
    connection = connection_in(state)
    if state is State.FAILED:
        assert feed(connection, FRAMES[kind], step) == []
        assert connection.state is State.FAILED
    elif (state.value, kind.value) in LEGAL:
        expected_state, expected_events = LEGAL[state.value, kind.value]
        assert feed(connection, FRAMES[kind], step) == expected_events
        assert connection.state.value == expected_state
    else:
        with pytest.raises(
            WorkerProtocolError, match=f"frame {kind} is not allowed while {state}"
        ):
            feed(connection, FRAMES[kind], step)
        assert connection.state.value == "FAILED"


@pytest.mark.parametrize("state", State)
def test_invoke_is_for_an_idle_worker_only(state: State) -> None:
    connection = connection_in(state)
    if state is State.IDLE:
        connection.invoke(INVOCATION, 0)
        assert connection.state.value == "BUSY"
        return
    with pytest.raises(
        WorkerProtocolError, match=f"Cannot send an invocation: the worker is {state}"
    ):
        connection.invoke(INVOCATION, 0)
    assert connection.state is state


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_marker_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="not 32 long"):
        WorkerConnection("a" * length)


# What we send.


def test_hello_is_one_line_with_version_marker_and_facts() -> None:
    facts = {"export": "handler", "context": {"functionName": "f"}}
    assert hello(MARKER, facts) == (
        b'{"version":3,"marker":"00000000000000010000000000000002",'
        b'"export":"handler","context":{"functionName":"f"}}\n'
    )


def test_invoke_sends_one_line_and_the_event_as_it_came() -> None:
    event = b'{ "a" : 1.00,\n "b": "\xff" }'
    connection = connection_in(State.IDLE)
    invocation = Invocation(
        request_id="r-1",
        deadline_epoch_ms=1_542_409_706_888,
        function_arn="arn:f",
        event=event,
        trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        client_context='{"custom":{"a":"é"}}',
        cognito_identity='{"cognitoIdentityId":"i"}',
        tenant_id="blue",
        invocation_id="not for the worker",
    )
    head, body = connection.invoke(invocation, 1_542_409_706_488)
    assert head.decode() == (
        '{"eventBytes":25,"requestId":"r-1","deadlineEpochMs":1542409706888,'
        '"abortEpochMs":1542409706488,"functionArn":"arn:f",'
        '"traceId":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",'
        '"clientContext":"{\\"custom\\":{\\"a\\":\\"é\\"}}",'
        '"identity":"{\\"cognitoIdentityId\\":\\"i\\"}","tenantId":"blue"}\n'
    )
    assert body is event


def test_invoke_sends_null_for_what_is_absent() -> None:
    head, body = connection_in(State.IDLE).invoke(INVOCATION, 5)
    assert head == (
        b'{"eventBytes":9,"requestId":"8476a536-e9f4-11e8-9739-2dfe598c3fcd",'
        b'"deadlineEpochMs":1542409706888,"abortEpochMs":5,"functionArn":'
        b'"arn:aws:lambda:us-east-2:123456789012:function:custom-runtime",'
        b'"traceId":null,"clientContext":null,"identity":null,"tenantId":null}\n'
    )
    assert body == b'{"key":1}'


# What a worker sends.


@STEPS
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"null", id="short"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"a":"b"}\n' * 20_000, id="larger-than-a-read"),
        pytest.param(MARKER_AS_BYTES + b"\n", id="the-marker-itself"),
        pytest.param(READY, id="a-frame"),
        pytest.param(b"\xff\x00\r\n", id="no-text"),
    ],
)
def test_a_result_survives_any_read_size(body: bytes, step: int) -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("RESULT", body) + DONE, step) == [
        Answered(Success(body, "application/json")),
        Done(),
    ]


@STEPS
@pytest.mark.parametrize("length", ["02", "+2", "2.0", "2e0", '"2"', "-2", "99999999"])
def test_a_length_is_a_number_whether_a_result_comes_whole_or_in_pieces(
    length: str, step: int
) -> None:
    connection = connection_in(State.BUSY)
    data = frame("RESULT", b"42").replace(b'"bytes":2', f'"bytes":{length}'.encode())
    with pytest.raises(WorkerProtocolError, match=r"malformed|out of range"):
        feed(connection, data + DONE, step)


@STEPS
@pytest.mark.parametrize("behind", [b"", b"{}", DONE[:-1], DONE + b"x", DONE + DONE])
def test_what_stands_behind_a_result_is_read_the_same_in_any_pieces(
    behind: bytes, step: int
) -> None:
    whole, pieces = connection_in(State.BUSY), connection_in(State.BUSY)
    data = frame("RESULT", b"42") + behind
    results: list[object] = []
    for connection, size in ((whole, len(data)), (pieces, step)):
        events: list[Event] = []
        try:
            for start in range(0, len(data), size):
                events += connection.receive_data(data[start : start + size])
        except WorkerProtocolError as error:
            results.append(str(error).partition(";")[0])
        results.append((join_strays(events), connection.state))
        rest = connection.receive_eof()
        results.append(rest)
    assert results[: len(results) // 2] == results[len(results) // 2 :]


@STEPS
def test_parts_are_joined_in_front_of_the_result(step: int) -> None:
    connection = connection_in(State.BUSY)
    data = frame("PART", b'{"a":') + frame("PART", b"[1,2") + frame("RESULT", b"]}")
    assert feed(connection, data + DONE, step) == [
        Answered(Success(b'{"a":[1,2]}')),
        Done(),
    ]


def test_parts_cost_what_they_hold_however_small_they_are() -> None:
    """Each was kept as an object of its own: 40 bytes for one, and none was counted."""
    connection = connection_in(State.BUSY)
    pieces = (frame("PART", b"x") + frame("PART")) * 1000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            assert feed(connection, pieces) == []
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * 20_000
    assert feed(connection, frame("RESULT")) == [Answered(Success(b"x" * 20_000))]


def test_an_error_may_come_in_parts_too() -> None:
    connection = connection_in(State.BUSY)
    data = frame("PART", b'{"a"') + frame("ERROR", b":1}", ',"errorType":"RangeError"')
    assert feed(connection, data) == [Answered(Failure("RangeError", b'{"a":1}'))]


@pytest.mark.parametrize(
    ("state", "kind"),
    [(State.STARTING, "READY"), (State.BUSY, "STREAM"), (State.STREAMING, "CHUNK"),
     (State.STREAMING, "END")],
)  # fmt: skip
def test_parts_are_followed_by_the_rest_of_an_answer_only(
    state: State, kind: str
) -> None:
    for part in (b"[1", b""):
        connection = connection_in(state)
        with pytest.raises(WorkerProtocolError, match="follows parts of an answer"):
            feed(connection, frame("PART", part) + frame(kind))


@pytest.mark.parametrize("more", ["", ',"errorType":""'], ids=["absent", "empty"])
def test_an_error_without_a_type_is_an_error(more: str) -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("ERROR", b"{}", more)) == [
        Answered(Failure("Error", b"{}"))
    ]


STREAM_EVENTS = [
    StreamBegun("text/event-stream; charset=utf-8"),
    Chunk(b"data: 1\n\n"),
    Chunk(b""),
    Chunk(READY),
]
STREAM = frame("STREAM", b"", ',"contentType":"text/event-stream; charset=utf-8"')
STREAM += frame("CHUNK", b"data: 1\n\n") + frame("CHUNK") + frame("CHUNK", READY)


@STEPS
def test_a_streamed_answer_comes_out_piece_by_piece(step: int) -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, STREAM + frame("END") + DONE, step) == [
        *STREAM_EVENTS,
        StreamEnded(None),
        Done(),
    ]


@STEPS
def test_a_streamed_answer_may_break_off_with_an_error(step: int) -> None:
    connection = connection_in(State.BUSY)
    error = frame("ERROR", b"{}", ',"errorType":"RangeError"')
    assert feed(connection, STREAM + error + DONE, step) == [
        *STREAM_EVENTS,
        StreamEnded(Failure("RangeError", b"{}")),
        Done(),
    ]


def test_an_error_without_a_type_ends_a_stream_as_an_error() -> None:
    connection = connection_in(State.STREAMING)
    assert feed(connection, frame("ERROR", b"{}")) == [
        StreamEnded(Failure("Error", b"{}"))
    ]


def test_a_stream_without_a_media_type_is_bytes() -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("STREAM")) == [
        StreamBegun("application/octet-stream")
    ]


@pytest.mark.parametrize(
    "content_type",
    ["a", "text/plain", 'multipart/mixed; boundary="a b~!"'],
    ids=repr,
)
def test_a_media_type_of_printable_ascii_is_taken(content_type: str) -> None:
    more = f',"contentType":{json.dumps(content_type)}'
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("STREAM", b"", more)) == [StreamBegun(content_type)]


@pytest.mark.parametrize(
    "content_type",
    [
        "", " ", " text/plain", "text/plain ", "text/plain\r\nX: y", "text/plain\n",
        "text/\t", "text/\x7f", "text/\N{LATIN SMALL LETTER E WITH ACUTE}",
        "text/\N{GREEK SMALL LETTER PI}", 5, None, ["text/plain"],
    ],
    ids=ascii,
)  # fmt: skip
def test_a_media_type_that_is_no_header_field_breaks_the_protocol(
    content_type: object,
) -> None:
    """A handler chooses it: what is not Latin-1 ended the runtime when it was sent."""
    more = f',"contentType":{json.dumps(content_type)}'
    connection = connection_in(State.BUSY)
    with pytest.raises(WorkerProtocolError, match="cannot be a header field"):
        feed(connection, frame("STREAM", b"", more))


def test_members_of_a_header_that_are_not_known_are_ignored() -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("RESULT", b"1", ',"later":[true]')) == [
        Answered(Success(b"1"))
    ]


@STEPS
def test_stray_bytes_around_frames_spoil_nothing(step: int) -> None:
    connection = WorkerConnection(MARKER)
    assert feed(connection, b"before\n" + READY + b"between", step) == [
        Stray(b"before\n"),
        Ready(),
        Stray(b"between"),
    ]
    connection.invoke(INVOCATION, 0)
    data = b"\x00\xff" + frame("RESULT", b"[1]") + b"{}\n" + DONE + b"after"
    assert feed(connection, data, step) == [
        Stray(b"\x00\xff"),
        Answered(Success(b"[1]")),
        Stray(b"{}\n"),
        Done(),
        Stray(b"after"),
    ]


def test_stray_bytes_come_out_as_soon_as_they_cannot_be_a_frame() -> None:
    connection = WorkerConnection(MARKER)
    assert list(connection.receive_data(b"a line\n0000000000000")) == [
        Stray(b"a line\n")
    ]
    assert list(connection.receive_data(b"!\n")) == [Stray(b"0000000000000!\n")]


def test_a_marker_may_begin_inside_what_looked_like_a_marker() -> None:
    connection = WorkerConnection(MARKER)
    first = MARKER_AS_BYTES[:20]
    assert list(connection.receive_data(first)) == []
    # 20 bytes of a marker, and a whole one that begins at the 16th of them.
    assert list(connection.receive_data(READY[4:])) == [
        Stray(b"0000000000000001"),
        Ready(),
    ]


def test_the_beginning_of_a_marker_is_a_stray_if_nothing_follows() -> None:
    connection = WorkerConnection(MARKER)
    assert list(connection.receive_data(b"x" + MARKER_AS_BYTES[:31])) == [Stray(b"x")]
    assert connection.receive_eof() == Stray(b"0000000000000001000000000000000")


def test_the_marker_of_another_worker_is_a_stray() -> None:
    other = READY.replace(MARKER_AS_BYTES, b"f" * 32)
    assert feed(WorkerConnection(MARKER), other) == [Stray(other)]


HEADERS = [
    pytest.param(b"", "a frame header is malformed", id="empty"),
    pytest.param(b"kind=READY", "a frame header is malformed", id="not-json"),
    pytest.param(b"\xff{}", "a frame header is malformed", id="not-text"),
    pytest.param(b"[]", "a frame header is malformed", id="an-array"),
    pytest.param(b"1", "a frame header is malformed", id="a-number"),
    pytest.param(b'"x"', "a frame header is malformed", id="a-string"),
    pytest.param(b"null", "a frame header is malformed", id="null"),
    pytest.param(b"{}", "a frame header is malformed", id="no-members"),
    pytest.param(b'{"kind":"READY"}', "header is malformed", id="no-length"),
    pytest.param(b'{"bytes":0}', "header is malformed", id="no-kind"),
    pytest.param(b'{"kind":"HELLO","bytes":0}', "malformed", id="unknown-kind"),
    pytest.param(b'{"kind":"ready","bytes":0}', "malformed", id="lower-case-kind"),
    pytest.param(b'{"kind":[],"bytes":0}', "malformed", id="kind-is-an-array"),
    pytest.param(b'{"kind":{},"bytes":0}', "malformed", id="kind-is-an-object"),
    pytest.param(b'{"kind":null,"bytes":0}', "malformed", id="kind-is-null"),
    pytest.param(b'{"kind":"READY","bytes":-1}', "out of range", id="negative-length"),
    pytest.param(b'{"kind":"READY","bytes":7340133}', "out of range", id="too-large"),
    pytest.param(
        b'{"kind":"READY","bytes":99999999999999999999}', "out of range", id="huge"
    ),
    pytest.param(b'{"kind":"READY","bytes":1e999}', "malformed", id="infinite"),
    pytest.param(b'{"kind":"READY","bytes":0.0}', "out of range", id="float-length"),
    pytest.param(b'{"kind":"READY","bytes":"0"}', "out of range", id="text-length"),
    pytest.param(b'{"kind":"READY","bytes":true}', "out of range", id="bool-length"),
    pytest.param(b'{"kind":"READY","bytes":null}', "out of range", id="null-length"),
    pytest.param(
        b'{"kind":"ERROR","bytes":0,"errorType":7}',
        "a frame's error type is not text",
        id="error-type-is-a-number",
    ),
    pytest.param(
        b'{"kind":"ERROR","bytes":0,"errorType":"\\ud800"}',
        "a frame header is malformed",
        id="half-a-surrogate-pair",
    ),
]


@STEPS
@pytest.mark.parametrize(("header", "problem"), HEADERS)
def test_a_broken_header_breaks_the_protocol(
    header: bytes, problem: str, step: int
) -> None:
    connection = WorkerConnection(MARKER)
    with pytest.raises(WorkerProtocolError) as caught:
        feed(connection, MARKER_AS_BYTES + header + b"\n", step)
    assert str(caught.value).startswith(
        "Cannot read the worker's output while STARTING"
    )
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"; it begins with {header[:64]!r}")
    assert connection.state is State.FAILED


# What each kind of frame may carry at the most, and a state in which it may come.
LONGEST = [
    ("READY", State.STARTING, 0),
    ("PART", State.STARTING, ERROR_LIMIT_BYTES),
    ("ERROR", State.STARTING, ERROR_LIMIT_BYTES),
    ("PART", State.BUSY, RESULT_LIMIT_BYTES),
    ("RESULT", State.BUSY, RESULT_LIMIT_BYTES),
    ("ERROR", State.BUSY, ERROR_LIMIT_BYTES),
    ("STREAM", State.BUSY, 0),
    ("PART", State.STREAMING, ERROR_LIMIT_BYTES),
    ("CHUNK", State.STREAMING, 65_536),
    ("ERROR", State.STREAMING, ERROR_LIMIT_BYTES),
    ("END", State.STREAMING, 0),
    ("LAST", State.FINISHING, 0),
    ("DONE", State.FINISHING, 0),
]
EACH_LONGEST = pytest.mark.parametrize(
    ("kind", "state", "limit"),
    LONGEST,
    ids=[f"{kind}-while-{state}" for kind, state, _ in LONGEST],
)


@EACH_LONGEST
def test_the_longest_frame_of_each_kind_is_taken(
    kind: str, state: State, limit: int
) -> None:
    connection = connection_in(state)
    body = bytes(limit)
    feed(connection, frame(kind, body), RESULT_LIMIT_BYTES)
    assert connection.state is not State.FAILED
    if kind == "PART":
        last = "RESULT" if state is State.BUSY else "ERROR"
        [event] = feed(connection, frame(last))
        assert event in (
            Answered(Success(body)),
            Answered(Failure("Error", body)),
            StreamEnded(Failure("Error", body)),
        )


@EACH_LONGEST
def test_a_longer_one_is_refused_before_any_of_its_body_has_come(
    kind: str, state: State, limit: int
) -> None:
    """An error was taken, and read, if it was as long as a result: 200 MB of memory."""
    connection = connection_in(state)
    head = MARKER_AS_BYTES + f'{{"kind":"{kind}","bytes":{limit + 1}}}\n'.encode()
    with pytest.raises(
        WorkerProtocolError, match=f"length is out of range: {kind} takes {limit} bytes"
    ):
        feed(connection, head)


def test_a_result_that_comes_whole_is_bounded_too() -> None:
    connection = connection_in(State.BUSY)
    data = frame("RESULT", bytes(RESULT_LIMIT_BYTES + 1)) + DONE
    with pytest.raises(WorkerProtocolError, match="length is out of range"):
        feed(connection, data, len(data))


def test_a_length_without_bounds_is_refused() -> None:
    connection = connection_in(State.BUSY)
    head = MARKER_AS_BYTES + b'{"kind":"RESULT","bytes":%b}\n' % (b"9" * 900)
    with pytest.raises(WorkerProtocolError, match=r"out of range|malformed"):
        feed(connection, head)


def test_many_small_frames_that_come_together_cost_what_they_hold() -> None:
    """Each copied all that came behind it: 300 MB for what one read of a socket holds.

    Counted in bytes, by a buffer that counts: how long it takes says nothing.
    """
    copied = 0

    class Counting(bytearray):
        def __getitem__(self, key: Any) -> Any:
            nonlocal copied
            piece = super().__getitem__(key)
            copied += len(piece) if isinstance(piece, bytearray) else 1
            return piece

    connection = connection_in(State.STREAMING)
    connection._buffer = Counting()
    data = frame("CHUNK", b"x") * 2_000
    assert feed(connection, data, len(data)) == [Chunk(b"x")] * 2_000
    assert type(connection._buffer) is Counting, "the same one, so all was counted"
    assert copied < 2 * len(data)


@STEPS
@pytest.mark.parametrize(
    ("padding", "is_legal"),
    [(999, True), (1000, False), (70_000, False)],
    ids=["1023-bytes-and-newline", "1024-bytes", "no-end-in-sight"],
)
def test_a_header_has_to_end_within_its_limit(
    padding: int, is_legal: bool, step: int
) -> None:
    header = b'{"kind":"READY","bytes":0' + b" " * (padding - 2) + b"}"
    assert len(header) == 24 + padding
    connection = WorkerConnection(MARKER)
    data = MARKER_AS_BYTES + header + b"\n" + MARKER_AS_BYTES + b"\n"
    if is_legal:
        assert feed(connection, data, step) == [Ready()]
        return
    with pytest.raises(WorkerProtocolError, match="a frame header does not end"):
        feed(connection, data, step)


@STEPS
@pytest.mark.parametrize(
    ("damaged", "evidence"),
    [
        pytest.param(
            frame("RESULT", b"[1,2]").replace(b"[1,2]", b"[1,stray!2]"),
            b"ray!2]000000000000000100000000000",
            id="in-the-body",
        ),
        pytest.param(
            frame("RESULT", b"[1]").replace(b"[1]", b"[1]stray line\n"),
            b"stray line\n0000000000000001000000",
            id="before-the-trailer",
        ),
        pytest.param(
            frame("RESULT", b"[1]")[:-20] + b"stray line" + MARKER_AS_BYTES,
            b"0000000000000stray line",
            id="in-the-trailer",
        ),
        pytest.param(
            frame("RESULT", b"[1]")[:-1] + b"stray line",
            b"00000000000000010000000000000002s",
            id="before-the-last-newline",
        ),
        pytest.param(
            frame("RESULT", b"[1]").replace(b"[1]", b"[]"),
            b"0000000000000010000000000000002\n",
            id="body-shorter-than-announced",
        ),
    ],
)
def test_bytes_inside_a_frame_break_the_protocol_and_are_shown(
    damaged: bytes, evidence: bytes, step: int
) -> None:
    connection = connection_in(State.BUSY)
    with pytest.raises(WorkerProtocolError) as caught:
        feed(connection, damaged + DONE, step)
    message = str(caught.value)
    assert "while BUSY: frame RESULT of" in message
    assert "another program wrote into it" in message
    assert f"it begins with {evidence!r}"[:-1] in message


def test_bytes_inside_a_header_break_the_protocol_and_are_shown() -> None:
    connection = connection_in(State.BUSY)
    data = frame("RESULT", b"[1]").replace(b'"bytes"', b"stray line\n")
    with pytest.raises(WorkerProtocolError) as caught:
        feed(connection, data)
    assert str(caught.value) == (
        "Cannot read the worker's output while BUSY: a frame header is malformed; "
        'it begins with b\'{"kind":"RESULT",stray line\''
    )


def test_bytes_inside_a_marker_break_the_protocol_at_the_trailer() -> None:
    connection = connection_in(State.BUSY)
    torn = frame("RESULT", b"[1]")
    events: list[Event] = []
    with pytest.raises(WorkerProtocolError, match="a frame header is malformed"):
        events.extend(connection.receive_data(torn[:10] + b"stray" + torn[10:]))
    assert connection.state is State.FAILED


def test_evidence_is_bounded() -> None:
    connection = WorkerConnection(MARKER)
    with pytest.raises(WorkerProtocolError) as caught:
        feed(connection, MARKER_AS_BYTES + b"x" * 500 + b"\n")
    assert str(caught.value).endswith(f"b'{'x' * 64}'")


def test_strays_before_a_broken_frame_still_come_out() -> None:
    connection = WorkerConnection(MARKER)
    events = connection.receive_data(b"a line\n" + frame("DONE"))
    assert next(events) == Stray(b"a line\n")
    with pytest.raises(WorkerProtocolError):
        next(events)


@pytest.mark.parametrize(
    ("state", "last", "limit"),
    [
        (State.STARTING, "ERROR", ERROR_LIMIT_BYTES),
        (State.BUSY, "RESULT", RESULT_LIMIT_BYTES),
        (State.BUSY, "ERROR", ERROR_LIMIT_BYTES),
        (State.STREAMING, "ERROR", ERROR_LIMIT_BYTES),
    ],
)
@pytest.mark.parametrize("has_more", [False, True])
def test_parts_are_bounded_together_by_what_follows_them(
    state: State, last: str, limit: int, has_more: bool
) -> None:
    connection = connection_in(state)
    half = frame("PART", bytes(limit // 2))
    assert feed(connection, half + half, limit) == []
    if has_more:
        with pytest.raises(WorkerProtocolError, match="too large together"):
            feed(connection, frame(last, b"!"))
    else:
        [event] = feed(connection, frame(last))
        assert isinstance(event, Answered | StreamEnded)


def test_parts_are_not_kept_beyond_what_can_follow_them() -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, frame("PART", bytes(RESULT_LIMIT_BYTES))) == []
    with pytest.raises(WorkerProtocolError, match="too large together"):
        feed(connection, frame("PART", b"!"))


@pytest.mark.parametrize("length", [128, 129])
def test_an_error_type_is_short_as_it_becomes_a_header_field(length: int) -> None:
    connection = connection_in(State.BUSY)
    data = frame("ERROR", b"{}", f',"errorType":"{"E" * length}"')
    if length == 128:
        assert feed(connection, data) == [Answered(Failure("E" * length, b"{}"))]
        return
    with pytest.raises(WorkerProtocolError, match="not text of up to 128 characters"):
        feed(connection, data)


@pytest.mark.parametrize("length", [256, 257])
def test_a_media_type_is_short_as_it_becomes_a_header_field(length: int) -> None:
    content_type = "a/" + "b" * (length - 2)
    connection = connection_in(State.BUSY)
    data = frame("STREAM", b"", f',"contentType":"{content_type}"')
    if length == 256:
        assert feed(connection, data) == [StreamBegun(content_type)]
        return
    with pytest.raises(WorkerProtocolError, match="cannot be a header field"):
        feed(connection, data)


def test_nothing_is_accepted_after_a_failure() -> None:
    connection = connection_in(State.FAILED)
    assert feed(connection, b"stray" + READY + MARKER_AS_BYTES + b"broken\n", 7) == []
    assert connection.receive_eof() is None
    assert connection.state is State.FAILED


@pytest.mark.parametrize("state", State)
def test_end_of_file_leaves_the_state_and_nothing_over(state: State) -> None:
    connection = connection_in(state)
    assert connection.receive_eof() is None
    assert connection.state is state


# Of a result only its size: it is nobody's but the caller's.
CUT = b"%d of 5 bytes of frame RESULT were dropped: the rest never came"


@pytest.mark.parametrize(
    ("received", "left_over"),
    [
        pytest.param(MARKER_AS_BYTES[:5], b"00000", id="in-a-marker"),
        pytest.param(
            MARKER_AS_BYTES + b'{"kind":"RES',
            MARKER_AS_BYTES + b'{"kind":"RES',
            id="in-a-header",
        ),
        pytest.param(frame("RESULT", b"[1,2]")[:-35], CUT % 3, id="in-a-body"),
        pytest.param(frame("RESULT", b"[1,2]")[:-34], CUT % 4, id="later-in-a-body"),
        pytest.param(frame("RESULT", b"[1,2]")[:-30], CUT % 8, id="in-a-trailer"),
    ],
)
def test_what_end_of_file_cuts_off_is_a_stray(
    received: bytes, left_over: bytes
) -> None:
    connection = connection_in(State.BUSY)
    assert feed(connection, received) == []
    assert connection.receive_eof() == Stray(left_over)
    assert connection.receive_eof() is None
    assert connection.state is State.BUSY


# Properties.

BODIES = st.binary(max_size=200) | st.sampled_from(
    [MARKER_AS_BYTES, READY, DONE, MARKER_AS_BYTES[:-1], MARKER_AS_BYTES + b"\n"]
)
# Prefixes of the marker are what a decoder gets wrong.
STRAYS = st.lists(
    st.binary(max_size=20)
    | st.integers(1, 31).map(lambda length: MARKER_AS_BYTES[:length]),
    max_size=3,
).map(b"".join)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def conversation(bodies: list[bytes], kind: str) -> tuple[list[bytes], list[Event]]:
    """Spell a worker's frames after INVOKE, and the events they stand for."""
    *pieces, last = bodies
    error = frame("ERROR", last, ',"errorType":"E"')
    if kind in ("RESULT", "ERROR"):
        is_error = kind == "ERROR"
        frames = [frame("PART", piece) for piece in pieces]
        frames.append(error if is_error else frame("RESULT", last))
        whole = b"".join(bodies)
        outcome = Failure("E", whole) if is_error else Success(whole)
        return [*frames, DONE], [Answered(outcome), Done()]
    frames = [frame("STREAM", b"", ',"contentType":"a/b"')]
    frames += [frame("CHUNK", piece) for piece in pieces]
    frames.append(frame("END") if kind == "END" else error)
    failure = None if kind == "END" else Failure("E", last)
    chunks = [Chunk(piece) for piece in pieces]
    end = StreamEnded(failure)
    return [*frames, DONE], [StreamBegun("a/b"), *chunks, end, Done()]


@settings(deadline=None)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=4),
    strays=st.lists(STRAYS, min_size=7, max_size=7),
    cuts=st.lists(st.integers(0, 5000), max_size=20),
    kind=st.sampled_from(["RESULT", "ERROR", "END", "END by ERROR"]),
)
def test_any_split_gives_the_same_events_and_loses_no_byte(
    bodies: list[bytes], strays: list[bytes], cuts: list[int], kind: str
) -> None:
    frames, expected = conversation(bodies, kind)
    between = strays[1 : len(frames)]
    data = strays[0] + frames[0]
    data += b"".join(a + b for a, b in zip(between, frames[1:], strict=True))
    data += strays[len(frames)]
    expected_strays = b"".join(strays[: len(frames) + 1])
    assume(MARKER_AS_BYTES not in expected_strays)
    connection = connection_in(State.BUSY)
    events = [
        event for piece in split(data, cuts) for event in connection.receive_data(piece)
    ]
    rest = connection.receive_eof()
    found = [event for event in events if not isinstance(event, Stray)]
    assert found == expected
    lost = b"".join(event.data for event in events if isinstance(event, Stray))
    assert lost + (rest.data if rest else b"") == expected_strays
    assert connection.state is State.DONE


def events_or_failure(
    state: State, pieces: list[bytes]
) -> tuple[list[Event], str | None, State]:
    connection = connection_in(state)
    events: list[Event] = []
    problem = None
    for piece in pieces:
        try:
            events.extend(connection.receive_data(piece))
        except WorkerProtocolError as error:
            problem = str(error).partition("; it begins with")[0]
    rest = connection.receive_eof()
    return (
        join_strays([*events, *([] if rest is None else [rest])]),
        problem,
        connection.state,
    )


NOISE = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            MARKER_AS_BYTES,
            MARKER_AS_BYTES + b"\n",
            MARKER_AS_BYTES + b'{"kind":"',
            b'{"kind":"READY","bytes":0}\n',
            b'{"kind":"RESULT","bytes":3}\n',
            b'{"kind":"PART","bytes":99999999999999999999}\n',
            b"\n",
            b" " * 1024,
            READY,
            DONE,
            frame("PART", b"[1"),
            frame("RESULT", b"[1]"),
            frame("STREAM"),
            frame("CHUNK", b"[1]"),
            frame("END"),
            frame("ERROR", b"{}", ',"errorType":"E"'),
        ]
    ),
    max_size=12,
).map(b"".join)


@settings(deadline=None)
@given(
    state=st.sampled_from([state for state in State if state is not State.FAILED]),
    data=NOISE,
    cuts=st.lists(st.integers(0, 5000), max_size=20),
)
def test_any_stream_raises_nothing_but_a_protocol_error(
    state: State, data: bytes, cuts: list[int]
) -> None:
    whole = events_or_failure(state, [data])
    assert events_or_failure(state, split(data, cuts)) == whole
    if whole[1] is not None:
        assert whole[2] is State.FAILED


VALID = frame("PART", b'{"a":[1') + frame("RESULT", b",2]}") + DONE


@settings(deadline=None)
@given(
    position=st.integers(0, len(VALID)),
    inserted=STRAYS,
    cuts=st.lists(st.integers(0, 1000), max_size=5),
)
def test_what_is_written_into_a_stream_never_changes_the_result(
    position: int, inserted: bytes, cuts: list[int]
) -> None:
    data = VALID[:position] + inserted + VALID[position:]
    events, problem, state = events_or_failure(State.BUSY, split(data, cuts))
    answers = [event for event in events if isinstance(event, Answered)]
    assert answers in ([], [Answered(Success(b'{"a":[1,2]}'))])
    assert (problem is not None) == (state is State.FAILED)


@settings(deadline=None)
@given(
    position=st.integers(0, len(VALID)),
    removed=st.integers(0, 300),
    inserted=NOISE,
    cuts=st.lists(st.integers(0, 1000), max_size=5),
)
def test_a_damaged_stream_gives_at_most_one_answer(
    position: int, removed: int, inserted: bytes, cuts: list[int]
) -> None:
    data = VALID[:position] + inserted + VALID[position + removed :]
    events, problem, state = events_or_failure(State.BUSY, split(data, cuts))
    assert sum(isinstance(event, Answered) for event in events) <= 1
    assert (problem is not None) == (state is State.FAILED)


def test_a_worker_that_takes_more_is_idle_again_and_takes_the_next_event() -> None:
    connection = connection_in(State.FINISHING)
    assert feed(connection, frame("DONE", more=',"more":true')) == [Done()]
    assert connection.state is State.IDLE
    connection.invoke(INVOCATION, 0)
    data = frame("RESULT", b"1") + frame("DONE")
    assert feed(connection, data) == [Answered(Success(b"1")), Done()]
    # The type checker takes the state for what it was before.
    assert str(connection.state) == "DONE"


@pytest.mark.parametrize("more", [',"more":false', ',"more":1', ',"more":"true"'])
def test_only_true_means_more(more: str) -> None:
    connection = connection_in(State.FINISHING)
    assert feed(connection, frame("DONE", more=more)) == [Done()]
    assert connection.state is State.DONE


def test_an_exchange_over_http_begins_with_the_invocation() -> None:
    connection = WorkerConnection(MARKER, State.IDLE)
    connection.invoke(INVOCATION, 0)
    assert feed(connection, frame("RESULT", b"1")) == [Answered(Success(b"1"))]


@pytest.mark.parametrize(
    ("place", "expected"),
    [(None, {"marker": "m", "pid": 7}), (0, {"marker": "m", "pid": 7, "place": 0})],
)
def test_a_fork_is_told_who_it_is_and_which_folder_is_its_own(
    place: int | None, expected: dict[str, object]
) -> None:
    assert json.loads(resume("m", 7, lingers=False, place=place)) == expected
