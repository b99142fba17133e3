"""The relay of a worker's lines to the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_deno_spawn.config import LogFormat, LogLevel
from lambda_deno_spawn.log.relay import Relay
from lambda_deno_spawn.log.writer import LogWriter
from tests.unit.log.pipe import (
    Pipe,
    json_records,
    json_writer,
    text_records,
    text_writer,
)

pytestmark = pytest.mark.as_lambda

MARKER = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def relay(pipe: Pipe) -> Relay:
    relay = Relay(text_writer(pipe), MARKER)
    relay.request_id = "request-1"
    return relay


def test_lines_become_records_when_they_are_complete(pipe: Pipe, relay: Relay) -> None:
    relay.feed(b"one\ntw")
    assert text_records(pipe) == ["request-1\tINFO\tone"]
    relay.feed(b"o\n\n  \nthree\r\n")
    assert text_records(pipe) == ["request-1\tINFO\ttwo", "request-1\tINFO\tthree"]


def test_the_blanks_of_a_line_are_kept(pipe: Pipe, relay: Relay) -> None:
    relay.feed(b"  indented  \r\n")
    assert text_records(pipe) == ["request-1\tINFO\t  indented  "]


def test_stack_lines_of_the_runtime_are_left_out(pipe: Pipe) -> None:
    relay = Relay(text_writer(pipe), MARKER, b"/opt/js/")
    relay.feed(
        b"Error: m\n"
        b"    at handler (/var/task/function.ts:1:1)\n"
        b"    at run (/opt/js/runtime.js:1:1)\n"
        b"\x1b[90m    at \x1b[39masync start (file:///opt/js/runtime.js:1:1)\n"
        b"read /opt/js/runtime.js\n"
    )
    assert text_records(pipe) == [
        "-\tINFO\tError: m",
        "-\tINFO\t    at handler (/var/task/function.ts:1:1)",
        "-\tINFO\tread /opt/js/runtime.js",
    ]


def test_flush_writes_the_line_that_never_ended_once(pipe: Pipe, relay: Relay) -> None:
    relay.feed(b"half a line")
    assert pipe.take() == b""
    relay.flush()
    relay.flush()
    assert text_records(pipe) == ["request-1\tINFO\thalf a line"]


def test_bytes_that_are_no_text_are_replaced(pipe: Pipe, relay: Relay) -> None:
    relay.feed(b"a\xffb\n")
    assert text_records(pipe) == ["request-1\tINFO\ta\N{REPLACEMENT CHARACTER}b"]


def test_a_marked_record_passes_without_its_marker(pipe: Pipe, relay: Relay) -> None:
    record = b"2026-11-23T11:45:39.362Z\trequest-1\tINFO\tfrom the console"
    relay.feed(MARKER.encode() + record + b"\n")
    assert pipe.take() == record + b"\n"


def test_a_record_behind_an_open_line_is_found(pipe: Pipe, relay: Relay) -> None:
    relay.feed(b"progress ..." + MARKER.encode() + b"the record\n")
    line, record = pipe.lines()
    assert line.endswith(b"Z\trequest-1\tINFO\tprogress ...")
    assert record == b"the record"


def test_a_marker_fed_in_pieces_is_found(pipe: Pipe, relay: Relay) -> None:
    for byte in MARKER.encode() + b"the record\n":
        relay.feed(bytes([byte]))
    assert pipe.take() == b"the record\n"


def test_lines_in_json_format_tell_request_and_tenant(pipe: Pipe) -> None:
    relay = Relay(json_writer(pipe), MARKER)
    relay.feed(b"before\n")
    relay.request_id, relay.tenant_id = "request-1", "blue"
    relay.feed(b"during\n")
    assert json_records(pipe) == [
        {"level": "INFO", "message": "before"},
        {
            "level": "INFO",
            "requestId": "request-1",
            "tenantId": "blue",
            "message": "during",
        },
    ]


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_json_object_passes_as_it_is(pipe: Pipe, log_format: LogFormat) -> None:
    relay = Relay(LogWriter(log_format, LogLevel.FATAL, pipe.fd), MARKER)
    relay.feed(b'{ "level":"DEBUG", "a":1.0 }\n')
    assert pipe.take() == b'{ "level":"DEBUG", "a":1.0 }\n'


def test_a_text_record_of_the_invocation_passes_as_it_is(
    pipe: Pipe, relay: Relay
) -> None:
    """pino-lambda and others write them, and they were wrapped once more."""
    time = b"2026-01-02T03:04:05.678Z\t"
    own = time + b'request-1\tWARN\thi\t{"a":"\xc3\xa4\xff"}'
    others = [time + b"request-2\tWARN\thi", time + b"-\tWARN\thi", time + b"request-1"]
    relay.feed(b"\n".join([own + b"\r", *others, b""]))
    lines = [line.decode() for line in pipe.lines()]
    assert lines[0] == own.decode("utf-8", "replace")
    assert [line.split("\t", 3)[3] for line in lines[1:]] == [
        line.decode() for line in others
    ]
    relay.tenant_id = "blue"
    relay.feed(own + b"\n")
    assert b"\tINFO\tTenantId: blue\t2026-" in pipe.lines()[0]


@pytest.mark.parametrize(
    "line", ["{not json}", "{", '{"a":1} tail', '["a"]', "{}x{}", '"{}"'], ids=repr
)
def test_what_only_looks_like_a_json_object_is_wrapped(
    pipe: Pipe, relay: Relay, line: str
) -> None:
    relay.feed(line.encode() + b"\n")
    assert text_records(pipe) == [f"request-1\tINFO\t{line}"]


def test_a_line_that_never_ends_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"  # it takes more than a pipe holds
    with path.open("wb") as file:
        relay = Relay(LogWriter(fd=file.fileno()), MARKER)
        relay.feed(b"x" * 1_048_575)
        assert path.read_bytes() == b""
        relay.feed(b"y")
        cut = b"x" * 1_048_575 + b"y\n"
        assert path.read_bytes().endswith(b"Z\t-\tINFO\t" + cut)
        relay.feed(b"the rest\n")
        assert path.read_bytes().endswith(b"Z\t-\tINFO\tthe rest\n")


def test_the_tail_is_the_last_lines_and_the_open_one(relay: Relay) -> None:
    relay.feed(b"one\n" + MARKER.encode() + b"two\nthree\xff\nfo")
    assert relay.tail == "one\ntwo\nthree\N{REPLACEMENT CHARACTER}\nfo"
    relay.flush()
    assert relay.tail == "one\ntwo\nthree\N{REPLACEMENT CHARACTER}\nfo"


def test_the_tail_of_nothing_is_empty(relay: Relay) -> None:
    assert relay.tail == ""


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        pytest.param(b"x" * 9_000 + b"end\n", "x" * 4093 + "end", id="one-long-line"),
        pytest.param(b"x" * 9_000 + b"end", "x" * 4093 + "end", id="one-open-line"),
        pytest.param(
            b"".join(b"%04d\n" % number for number in range(5000)),
            "\n".join(f"{number:04d}" for number in range(4181, 5000)),
            id="many-short-lines",
        ),
        pytest.param(b"x" * 4_000 + b"\n" + b"y" * 100 + b"\n", "y" * 100, id="two"),
    ],
)
def test_the_tail_is_bounded(data: bytes, tail: str) -> None:
    with Path(os.devnull).open("wb") as file:
        relay = Relay(LogWriter(fd=file.fileno()), MARKER)
        relay.feed(data)
        assert relay.tail == tail


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)),
    cuts=st.lists(st.integers(0, 500), max_size=10),
)
def test_any_split_of_marked_records_passes_them_all(
    lines: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(MARKER.encode() + line + b"\n" for line in lines)
    ends = sorted({cut % (len(data) + 1) for cut in cuts})
    pipe = Pipe()
    try:
        relay = Relay(text_writer(pipe), MARKER)
        for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
            relay.feed(data[start:end])
        assert pipe.lines() == lines
    finally:
        pipe.close()


def test_a_line_is_not_read_as_json_if_that_would_take_much_memory(
    tmp_path: Path,
) -> None:
    """A line of a mebibyte of small objects takes thirty times as much, once read."""
    longest = b'{"a":"' + b"x" * (262_144 - 8) + b'"}'
    with (tmp_path / "log").open("wb", buffering=0) as file:
        relay = Relay(LogWriter(LogFormat.TEXT, LogLevel.INFO, file.fileno()), MARKER)
        relay.feed(longest + b"\n" + longest.replace(b"a", b"aa") + b"\n")
    kept, wrapped, _ = (tmp_path / "log").read_bytes().split(b"\n")
    assert kept == longest
    assert wrapped.startswith(b"20"), "a record as of any other text"
    assert wrapped.endswith(longest.replace(b"a", b"aa"))
