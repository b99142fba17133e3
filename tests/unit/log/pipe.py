"""A pipe of the test's own, and the records in it."""

from __future__ import annotations

import json
import os
import re

from lambda_deno_spawn.config import LogFormat, LogLevel
from lambda_deno_spawn.log.writer import LogWriter

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Pipe:
    """A pipe whose content can be taken as long as it fits into it."""

    def __init__(self) -> None:
        self.reader, self.fd = os.pipe()
        os.set_blocking(self.reader, False)

    def take(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""

    def lines(self) -> list[bytes]:
        data = self.take()
        assert data.endswith(b"\n") or not data
        return data.split(b"\n")[:-1]

    def close_writer(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        for fd in (self.reader, self.fd):
            if fd >= 0:
                os.close(fd)


def text_writer(pipe: Pipe, level: LogLevel = LogLevel.INFO) -> LogWriter:
    return LogWriter(LogFormat.TEXT, level, pipe.fd)


def json_writer(pipe: Pipe, level: LogLevel = LogLevel.INFO) -> LogWriter:
    return LogWriter(LogFormat.JSON, level, pipe.fd)


def text_records(pipe: Pipe) -> list[str]:
    """Return the records without their timestamps, the form of which is checked."""
    records = []
    for line in pipe.lines():
        match = re.fullmatch(rf"{TIMESTAMP}\t(.*)", line.decode(), re.DOTALL)
        assert match is not None, line
        records.append(match[1])
    return records


def json_records(pipe: Pipe) -> list[dict[str, object]]:
    records = []
    for line in pipe.lines():
        record = json.loads(line)
        assert re.fullmatch(TIMESTAMP, record.pop("timestamp"))
        records.append(record)
    return records
