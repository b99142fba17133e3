"""Log records of the supervisor and lines of its workers.

Knows the text and JSON forms of a record, how a worker marks the records it has
formatted itself, and which request a line belongs to. Refuses to know processes: bytes
are handed in, and written to one descriptor. Forms: AWS Lambda Developer Guide,
"Log formats" and "Log-level filtering"; decision 0010.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING

import orjson

from lambda_deno_spawn.config import LogFormat, LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Invocation

LOG_FD = 2
# CloudWatch takes events of 1 MB; a line that never ends must not pile up.
LINE_LIMIT_BYTES = 1024 * 1024
# What is kept of a worker's log for the error message that may follow.
TAIL_LIMIT_BYTES = 4096
TAIL_LIMIT_LINES = TAIL_LIMIT_BYTES
_SEVERITY = {level: number for number, level in enumerate(LogLevel)}
_LEVELS = {
    logging.DEBUG: LogLevel.DEBUG,
    logging.INFO: LogLevel.INFO,
    logging.WARNING: LogLevel.WARN,
    logging.ERROR: LogLevel.ERROR,
    logging.CRITICAL: LogLevel.FATAL,
}

logger = logging.getLogger("lambda_deno_spawn")


class LogWriter:
    """Writes whole records to a descriptor, in the function's log format."""

    def __init__(
        self,
        log_format: LogFormat = LogFormat.TEXT,
        level: LogLevel = LogLevel.INFO,
        fd: int = LOG_FD,
    ) -> None:
        """Take the format, the least level of JSON records, and the descriptor."""
        self.log_format = log_format
        self._least = _SEVERITY[level]
        self._fd = fd

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines that are complete as they are, without their newlines."""
        data = memoryview(b"".join(line + b"\n" for line in lines))
        while data:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:  # the descriptor is shared and somebody changed it
                os.set_blocking(self._fd, True)
                continue
            except OSError:  # nobody reads the log; the invocation matters more
                return
            data = data[written:]

    def record(
        self,
        level: LogLevel,
        message: str,
        request_id: str = "",
        tenant_id: str | None = None,
    ) -> None:
        """Write one record; inner newlines are kept together with it."""
        timestamp = utc_timestamp(time.time())
        line = self.format(timestamp, level, message, request_id, tenant_id)
        if line is not None:
            self.write([line])

    def format(
        self,
        timestamp: str,
        level: LogLevel,
        message: str,
        request_id: str,
        tenant_id: str | None,
    ) -> bytes | None:
        """Return a record as a line, None if its level is not wanted.

        Args:
            timestamp: See ``utc_timestamp``.
            level: Its severity; below the least level it is dropped in JSON format.
            message: Text; what is not valid Unicode is replaced.
            request_id: Invocation it belongs to, empty outside of one.
            tenant_id: Tenant of that invocation.
        """
        if not message.isascii():
            message = message.encode("utf-8", "replace").decode()
        if self.log_format is LogFormat.TEXT:
            text = message.replace("\n", "\r") if "\n" in message else message
            return f"{timestamp}\t{request_id or '-'}\t{level}\t{text}".encode()
        if _SEVERITY[level] < self._least:
            return None
        record: dict[str, object] = {"timestamp": timestamp, "level": level}
        if request_id:
            record["requestId"] = request_id
        if tenant_id is not None:
            record["tenantId"] = tenant_id
        record["message"] = message
        return orjson.dumps(record)


class SupervisorHandler(logging.Handler):
    """Sends the supervisor's own log records through a ``LogWriter``.

    A record may carry ``request_id`` and ``tenant_id`` in its ``extra``.
    """

    def __init__(self, writer: LogWriter) -> None:
        """Take the writer that every record goes to."""
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, its traceback included."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        self._writer.record(
            _LEVELS.get(record.levelno, LogLevel.INFO),
            message,
            getattr(record, "request_id", ""),
            getattr(record, "tenant_id", None),
        )


def log_context(invocation: Invocation) -> dict[str, str | None]:
    """Return the ``extra`` of a record that belongs to an invocation."""
    return {"request_id": invocation.request_id, "tenant_id": invocation.tenant_id}


def configure(settings: Settings) -> LogWriter:
    """Send the supervisor's log to the function's log and return its writer."""
    writer = LogWriter(settings.log_format, settings.log_level)
    logger.handlers[:] = [SupervisorHandler(writer)]
    logger.setLevel(
        logging.DEBUG
        if settings.log_level in (LogLevel.TRACE, LogLevel.DEBUG)
        else logging.INFO
    )
    logger.propagate = False
    return writer


class Relay:
    """Passes on what one worker writes to stderr, and remembers the end of it.

    A line that begins with the worker's marker is a record its ``console`` has
    formatted; any other line is wrapped into a record, unless it is a JSON object:
    programs that write structured logs keep them as they are.
    """

    def __init__(self, writer: LogWriter, marker: str) -> None:
        """Take the writer for the lines and the worker's marker."""
        self.request_id = ""
        self.tenant_id: str | None = None
        self._writer = writer
        self._marker = marker.encode("ascii")
        self._partial = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take bytes; write out every line they complete, all at once."""
        self._partial += data
        *lines, rest = self._partial.split(b"\n")
        if len(rest) >= LINE_LIMIT_BYTES:
            lines.append(rest)
            rest = bytearray()
        self._partial = rest
        self._relay(lines)

    def flush(self) -> None:
        """Write out the last line although it has no newline."""
        if self._partial:
            self._relay([self._partial])
            self._partial = bytearray()

    @property
    def tail(self) -> str:
        """The last lines, at most about ``TAIL_LIMIT_BYTES`` together."""
        lines = [*self._tail, bytes(self._partial[-TAIL_LIMIT_BYTES:])]
        return b"\n".join(line for line in lines if line).decode("utf-8", "replace")

    def _relay(self, lines: Sequence[bytes | bytearray]) -> None:
        if not lines:
            return
        timestamp = utc_timestamp(time.time())
        written: list[bytes] = []
        remembered: deque[bytes] = deque(maxlen=TAIL_LIMIT_LINES)
        for line in lines:
            # A program that left its line open must not hide the record behind it.
            before, found, record = bytes(line).partition(self._marker)
            if before and not before.isspace():
                remembered.append(before)
                wrapped = self._wrapped(before, timestamp)
                if wrapped is not None:
                    written.append(wrapped)
            if found:
                remembered.append(record)
                written.append(record)
        for line in remembered:
            self._remember(line)
        self._writer.write(written)

    def _wrapped(self, line: bytes, timestamp: str) -> bytes | None:
        if line.startswith(b"{") and line.endswith(b"}") and _is_object(line):
            return line
        text = line.decode("utf-8", "replace").rstrip("\r")
        return self._writer.format(
            timestamp, LogLevel.INFO, text, self.request_id, self.tenant_id
        )

    def _remember(self, line: bytes) -> None:
        line = line[-TAIL_LIMIT_BYTES:]
        self._tail.append(line)
        self._tail_bytes += len(line)
        while self._tail_bytes > TAIL_LIMIT_BYTES and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft())


def utc_timestamp(epoch_s: float) -> str:
    """Return ISO 8601 in UTC with milliseconds, as the platform's own records have."""
    whole_s = int(epoch_s)
    milliseconds = int((epoch_s - whole_s) * 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z", time.gmtime(whole_s))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False
