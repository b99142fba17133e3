"""Log records, written to a pipe of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lambda_deno_spawn.config import LogFormat, LogLevel, Settings
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log import writer as log_writer
from lambda_deno_spawn.log.writer import (
    LogWriter,
    SupervisorHandler,
    utc_timestamp,
)
from tests.unit.log.pipe import (
    TIMESTAMP,
    Pipe,
    json_records,
    json_writer,
    text_records,
    text_writer,
)

pytestmark = pytest.mark.as_lambda


@pytest.mark.parametrize(
    ("epoch_s", "timestamp"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
        (1_709_164_799.0, "2024-02-28T23:59:59.000Z"),
        (1_709_164_800.0, "2024-02-29T00:00:00.000Z"),
    ],
    ids=str,
)
def test_a_timestamp_is_utc_with_milliseconds(epoch_s: float, timestamp: str) -> None:
    assert utc_timestamp(epoch_s) == timestamp


# Records.


def test_a_text_record_has_time_request_level_and_message(pipe: Pipe) -> None:
    text_writer(pipe).record(LogLevel.WARN, "tea\tis über", "request-1", "blue")
    assert text_records(pipe) == ["request-1\tWARN\tTenantId: blue\ttea\tis über"]


def test_a_text_record_outside_an_invocation_has_a_dash(pipe: Pipe) -> None:
    text_writer(pipe).record(LogLevel.INFO, "hello")
    assert text_records(pipe) == ["-\tINFO\thello"]


def test_the_lines_of_a_text_record_stay_together(pipe: Pipe) -> None:
    text_writer(pipe).record(LogLevel.ERROR, "first\nsecond\n  third")
    assert text_records(pipe) == ["-\tERROR\tfirst\rsecond\r  third"]


def test_a_json_record_has_the_members_of_lambda_s(pipe: Pipe) -> None:
    writer = json_writer(pipe)
    writer.record(LogLevel.ERROR, "a\n“b”\t\x00", "request-1", "blue")
    line = pipe.take().decode()
    assert re.fullmatch(
        rf'\{{"timestamp":"{TIMESTAMP}","level":"ERROR","requestId":"request-1",'
        r'"tenantId":"blue","message":"a\\n“b”\\t\\u0000"\}\n',
        line,
    )


def test_a_json_record_leaves_out_what_is_absent(pipe: Pipe) -> None:
    json_writer(pipe).record(LogLevel.INFO, "hello")
    assert json_records(pipe) == [{"level": "INFO", "message": "hello"}]


@pytest.mark.parametrize("log_format", LogFormat)
def test_what_is_no_unicode_is_replaced_in_a_record(
    pipe: Pipe, log_format: LogFormat
) -> None:
    LogWriter(log_format, LogLevel.INFO, pipe.fd).record(LogLevel.INFO, "a\ud800b")
    assert b"a?b" in pipe.take()


LEVELS = [
    LogLevel.TRACE,
    LogLevel.DEBUG,
    LogLevel.INFO,
    LogLevel.WARN,
    LogLevel.ERROR,
    LogLevel.FATAL,
]


@pytest.mark.parametrize("least", LEVELS)
def test_json_records_below_the_least_level_are_dropped(
    pipe: Pipe, least: LogLevel
) -> None:
    writer = json_writer(pipe, least)
    for level in LEVELS:
        writer.record(level, "m")
    found = [record["level"] for record in json_records(pipe)]
    assert found == [level.value for level in LEVELS[LEVELS.index(least) :]]


def test_text_records_are_written_whatever_the_level(pipe: Pipe) -> None:
    writer = text_writer(pipe, LogLevel.FATAL)
    for level in LEVELS:
        writer.record(level, "m")
    assert text_records(pipe) == [f"-\t{level.value}\tm" for level in LEVELS]


def test_a_writer_writes_text_from_info_up_unless_told_otherwise(pipe: Pipe) -> None:
    writer = LogWriter(fd=pipe.fd)
    assert writer.log_format is LogFormat.TEXT
    writer.write([b"\xff as it is"])
    assert pipe.take() == b"\xff as it is\n"


def test_a_descriptor_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.fd, False)
    os.set_blocking(pipe.reader, True)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(pipe.fd, b"-" * 4096)
    line = b"0123456789abcdef" * 20_000
    received = bytearray()
    is_written = threading.Event()
    is_draining = threading.Event()

    def drain() -> None:
        # Not before the writer has found the pipe full: nothing else makes it block.
        while not (os.get_blocking(pipe.fd) or is_written.is_set()):
            os.sched_yield()
        is_draining.set()
        while data := os.read(pipe.reader, 65_536):
            received.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    text_writer(pipe).write([line])
    is_written.set()
    is_draining.wait()
    pipe.close_writer()
    reader.join()
    assert received == b"-" * filled + line + b"\n"


def test_a_log_that_nobody_reads_stops_nothing(pipe: Pipe) -> None:
    pipe.close_reader()
    text_writer(pipe).record(LogLevel.INFO, "lost")


# A writer in an event loop: the reader may be slow, or not there at all.


@pytest.fixture
async def attached(pipe: Pipe) -> AsyncIterator[LogWriter]:
    writer = text_writer(pipe)
    writer.attach(asyncio.get_running_loop())
    yield writer
    writer.detach(0)


async def read_until(pipe: Pipe, end: bytes) -> bytes:
    """Read until the log ends so, and let the writer go on meanwhile."""
    data = b""
    async with asyncio.timeout(60):
        while not data.endswith(end):
            data += pipe.take()
            await asyncio.sleep(0)
    return data


async def test_what_a_full_pipe_does_not_take_follows_in_order(
    pipe: Pipe, attached: LogWriter
) -> None:
    lines = [b"%06d %s" % (number, b"x" * 93) for number in range(2_000)]
    for line in lines:
        attached.write([line])
    attached.write([b"a line that is longer than a pipe " + b"y" * 100_000])
    attached.write([b"end"])
    data = await read_until(pipe, b"\nend\n")
    assert data.split(b"\n")[: len(lines)] == lines
    assert data.count(b"y") == 100_000


async def test_a_backlog_is_full_until_it_is_read(
    pipe: Pipe, attached: LogWriter
) -> None:
    is_drained = asyncio.Event()
    attached.when_drained(is_drained.set)
    assert is_drained.is_set(), "at once, if nothing waits"
    is_drained.clear()
    while not attached.is_full:
        attached.write([b"x" * 999])
    for _ in range(2):
        attached.when_drained(is_drained.set)
    await asyncio.sleep(0)
    assert not is_drained.is_set()
    attached.write([b"end"])
    await read_until(pipe, b"end\n")
    assert is_drained.is_set()
    assert not attached.is_full
    await attached.drained(10)


async def test_records_nobody_reads_are_dropped_and_counted(
    pipe: Pipe, attached: LogWriter
) -> None:
    written = 3_000
    for number in range(written):
        attached.write([b"%06d %s" % (number, b"x" * 992)])
    data = await read_until(pipe, b"the log was not read\n")
    *kept, last = data.split(b"\n")[:-1]
    match = re.search(rb"\tWARN\t(\d+) log records were dropped", last)
    assert match is not None
    assert len(kept) + int(match[1]) == written
    assert 2_000 < len(kept) < written, "two mebibytes are kept"
    numbers = [int(line[:6]) for line in kept]
    assert numbers == list(range(len(kept))), "the first ones, each of them whole"
    attached.write([b"and on"])
    assert await read_until(pipe, b"on\n") == b"and on\n"


async def test_waiting_for_a_reader_who_is_gone_is_not_repeated(
    pipe: Pipe, attached: LogWriter
) -> None:
    attached.write([b"x" * 200_000])
    async with asyncio.timeout(60):
        await attached.drained(0.001)
        await attached.drained(3_600)
    attached.write([b"end"])
    await read_until(pipe, b"end\n")
    await attached.drained(3_600)


async def test_what_is_left_is_written_on_the_way_out_within_its_time(
    pipe: Pipe, attached: LogWriter
) -> None:
    attached.write([b"x" * 100_000])
    attached.detach(0)
    assert len(pipe.take()) == 65_536, "what a pipe holds"
    attached.write([b"blocking from now on"])


async def test_a_reader_who_closed_the_log_stops_nothing(
    pipe: Pipe, attached: LogWriter
) -> None:
    attached.write([b"x" * 100_000])
    is_drained = asyncio.Event()
    attached.when_drained(is_drained.set)
    pipe.close_reader()
    async with asyncio.timeout(60):
        await is_drained.wait()
    attached.write([b"lost"])
    assert not attached.is_full


async def test_a_file_takes_everything_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LogWriter(fd=file.fileno())
        writer.attach(asyncio.get_running_loop())
        writer.write([b"x" * 1_000_000])
        assert path.stat().st_size == 1_000_001


# The descriptor that managed runtimes are given; values from AWS's own clients.


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = int.from_bytes(data[:4]), int.from_bytes(data[4:8])
        year = time.gmtime(int.from_bytes(data[8:16]) / 1_000_000).tm_year
        assert year >= 2026
        found.append((kind, data[16 : 16 + length]))
        data = data[16 + length :]
    return found


def test_records_on_the_telemetry_descriptor_are_framed_with_their_level(
    pipe: Pipe,
) -> None:
    text = LogWriter(LogFormat.TEXT, LogLevel.TRACE, pipe.fd, is_framed=True)
    text.record(LogLevel.ERROR, "one\ntwo", "request-1")
    text.write([b'{"a": 1}', b""])
    (error, record), *others = frames(pipe.take())
    assert error == 0xA55A0017
    assert record.endswith(b"Z\trequest-1\tERROR\tone\ntwo\n")
    assert others == [(0xA55A000F, b'{"a": 1}\n'), (0xA55A000F, b"\n")]
    values = LogWriter(LogFormat.JSON, LogLevel.TRACE, pipe.fd, is_framed=True)
    for level in LEVELS:
        values.record(level, "a\nb")
    values.write([b'{"user": "written"}'])
    found = frames(pipe.take())
    assert [kind for kind, _ in found] == [
        0xA55A0006, 0xA55A000A, 0xA55A000E, 0xA55A0012, 0xA55A0016, 0xA55A001A,
        0xA55A000E,
    ]  # fmt: skip
    assert json.loads(found[0][1])["message"] == "a\nb"
    assert found[-1][1] == b'{"user": "written"}'


@pytest.mark.parametrize("is_open", [True, False])
def test_the_telemetry_descriptor_is_used_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe, is_open: bool
) -> None:
    monkeypatch.setattr(log_writer, "logger", logging.Logger("test"))
    number = pipe.fd
    if not is_open:
        pipe.close_writer()
        # Nothing is written in this test: stderr is pytest's.
    log_writer.configure_log(Settings("a:1", "f.h", "/", telemetry_fd=number))
    if is_open:
        log_writer.logger.error("framed")
        [(kind, record)] = frames(pipe.take())
        assert kind == 0xA55A0017
        assert record.endswith(b"ERROR\tframed\n")


# The supervisor's own records.


@pytest.fixture
def supervisor_log() -> Iterator[logging.Logger]:
    """A logger of the test's own; ``log_writer.logger`` belongs to the process."""
    logger = logging.Logger("test")
    yield logger
    logger.handlers.clear()


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (logging.DEBUG, "DEBUG"),
        (logging.INFO, "INFO"),
        (logging.WARNING, "WARN"),
        (logging.ERROR, "ERROR"),
        (logging.CRITICAL, "FATAL"),
        (25, "INFO"),
    ],
)
def test_levels_of_python_become_those_of_lambda(
    pipe: Pipe, supervisor_log: logging.Logger, number: int, level: str
) -> None:
    supervisor_log.addHandler(SupervisorHandler(text_writer(pipe)))
    supervisor_log.log(number, "%d of %d", 1, 2)
    assert text_records(pipe) == [f"-\t{level}\t1 of 2"]


def test_a_record_of_the_supervisor_tells_its_request_and_tenant(
    pipe: Pipe, supervisor_log: logging.Logger
) -> None:
    supervisor_log.addHandler(SupervisorHandler(json_writer(pipe)))
    supervisor_log.warning("m", extra={"request_id": "request-1", "tenant_id": "blue"})
    supervisor_log.warning("m")
    assert json_records(pipe) == [
        {
            "level": "WARN",
            "requestId": "request-1",
            "tenantId": "blue",
            "message": "m",
        },
        {"level": "WARN", "message": "m"},
    ]


def test_an_error_is_a_value_in_json_and_text_otherwise(
    pipe: Pipe, supervisor_log: logging.Logger
) -> None:
    supervisor_log.addHandler(SupervisorHandler(json_writer(pipe)))
    supervisor_log.addHandler(SupervisorHandler(text_writer(pipe)))
    for failure in (Failure("E", b'{"errorType":"E"}'), Failure("E", b"{")):
        extra = {"failure": failure}
        supervisor_log.error("Title\t%s", failure.log_text, extra=extra)
    lines = [line.decode() for line in pipe.lines()]
    assert [json.loads(line)["message"] for line in lines[::2]] == [
        {"errorType": "E"},
        "Title\t{",
    ]
    assert lines[1].endswith('\tERROR\tTitle\t{"errorType":"E"}')


def test_a_traceback_is_part_of_its_record(
    pipe: Pipe, supervisor_log: logging.Logger
) -> None:
    supervisor_log.addHandler(SupervisorHandler(text_writer(pipe)))
    try:
        int("nowhere")
    except ValueError:
        supervisor_log.exception("Cannot go on")
    [record] = text_records(pipe)
    head = "-\tERROR\tCannot go on\rTraceback (most recent call last):\r  File "
    assert record.startswith(head)
    assert "\rValueError: invalid literal for int()" in record


@pytest.mark.parametrize(
    ("log_level", "level"),
    [
        (LogLevel.TRACE, logging.DEBUG),
        (LogLevel.DEBUG, logging.DEBUG),
        (LogLevel.INFO, logging.INFO),
        (LogLevel.FATAL, logging.INFO),
    ],
    ids=str,
)
def test_configure_replaces_the_handler_and_keeps_to_itself(
    monkeypatch: pytest.MonkeyPatch, log_level: LogLevel, level: int
) -> None:
    # The process has one logger; the test hands it back as it was.
    monkeypatch.setattr(log_writer, "logger", logging.Logger("test"))
    settings = Settings(
        "a:1", "f.h", "/", log_format=LogFormat.JSON, log_level=log_level
    )
    for _ in range(2):
        writer = log_writer.configure_log(settings)
    assert writer.log_format is LogFormat.JSON
    [handler] = log_writer.logger.handlers
    assert isinstance(handler, SupervisorHandler)
    assert log_writer.logger.level == level
    assert not log_writer.logger.propagate


async def test_lines_that_come_one_by_one_are_kept_for_what_they_cost(
    pipe: Pipe, attached: LogWriter
) -> None:
    """A quarter of a million of them were kept: 50 MB for 256 KiB."""
    written = 0
    while not attached.is_full:
        attached.write_block(b"\n")
        written += 1
    assert written < 100_000, "of which the pipe holds 65,536"
    attached.write([b"end"])
    await read_until(pipe, b"end\n")
    assert not attached.is_full
    assert attached._backlog_bytes == 0
