"""The function's log: records as text, JSON or frames, written to one descriptor.

Knows the forms of a record and how to write without blocking. Does not know processes
or where records come from. Forms: AWS Lambda Developer Guide, "Log formats" and
"Log-level filtering"; decisions 0010 and 0017.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import stat
import struct
import time
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import LogFormat, LogLevel
from lambda_deno_spawn.strict_json import dumps

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Failure, Invocation

LOG_FD = 2
# A frame on the telemetry descriptor, which managed runtimes are given: four bytes of
# type, to which the level is added, four of length, eight of Unix time in microseconds,
# then the record (telemetry-logger.ts of AWS's Node.js runtime client).
FRAME_HEADER = struct.Struct(">IIQ")
FRAME_TEXT = 0xA55A0003
FRAME_JSON = 0xA55A0002
# Kept for a slow reader of the log; when it is full, workers are made to wait.
BACKLOG_BYTES = 256 * 1024
# Least that a piece of the backlog counts for: lines may arrive one by one, and each is
# a Python object.
PIECE_LEAST_BYTES = 256
# Most that is kept: the pipes of workers that ended are emptied into it even when it is
# full. Beyond this size the log has no reader, and records are dropped and counted.
BACKLOG_LIMIT_BYTES = 2 * 1024 * 1024
_SEVERITY = {level: number for number, level in enumerate(LogLevel)}
_FRAME_LEVELS = {
    level.encode(): (number + 1) << 2 for level, number in _SEVERITY.items()
}
_JSON_LEVEL = re.compile(rb'\{"timestamp":"[^"]*","level":"([A-Z]+)"')
_LEVELS = {
    logging.DEBUG: LogLevel.DEBUG,
    logging.INFO: LogLevel.INFO,
    logging.WARNING: LogLevel.WARN,
    logging.ERROR: LogLevel.ERROR,
    logging.CRITICAL: LogLevel.FATAL,
}

logger = logging.getLogger("lambda_deno_spawn")


class LogWriter:
    """Writes whole records to a descriptor, in the function's log format and order.

    Attached to an event loop it never blocks: bytes that the descriptor cannot take yet
    are kept and written later, and ``is_full`` asks callers to wait.
    """

    def __init__(
        self,
        log_format: LogFormat = LogFormat.TEXT,
        level: LogLevel = LogLevel.INFO,
        fd: int = LOG_FD,
        *,
        is_framed: bool = False,
    ) -> None:
        """Write to a descriptor.

        Args:
            log_format: Form of the records.
            level: Least level of JSON records; text records are all written.
            fd: The descriptor.
            is_framed: It is the telemetry descriptor.
        """
        self.log_format = log_format
        self._is_framed = is_framed
        self._least = _SEVERITY[level]
        self._fd = fd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poll = select.poll()
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._is_waiting = False
        self._is_stuck = False
        self._dropped = 0
        self._waiters: set[Callable[[], None]] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do not block from now on; regular files never do."""
        # A file takes everything at once, and cannot be waited for.
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                return
        self._poll.register(self._fd, select.POLLOUT)
        self._loop = loop

    def detach(self, limit_s: float) -> None:
        """Block again; first write the backlog, for as long as the limit allows."""
        if self._loop is None:
            return
        self._stop_waiting()
        self._loop = None
        give_up_s = time.monotonic() + limit_s
        while self._backlog:
            left_s = max(0.0, give_up_s - time.monotonic())
            if not self._poll.poll(left_s * 1000) or not self._write_some():
                # A record may be half written: another one must not follow it.
                self._fd = -1
                return
        self._tell_of_dropped()

    @property
    def is_full(self) -> bool:
        """True while the backlog is so large that callers should wait."""
        return self._backlog_bytes >= BACKLOG_BYTES

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back when everything is written, once however often it is asked for."""
        if self._backlog:
            self._waiters.add(callback)
        else:
            callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Cancel a callback of ``when_drained``."""
        self._waiters.discard(callback)

    def drop(self, records: int) -> None:
        """Count records that are not written because the log has no reader."""
        self._dropped += records

    async def drained(self, limit_s: float) -> None:
        """Wait until everything is written, at most for ``limit_s``.

        Returns at once if the last wait timed out and nothing was read since.
        """
        if not self._backlog or self._is_stuck:
            return
        import asyncio

        done = asyncio.Event()
        self.when_drained(done.set)
        left_bytes = self._backlog_bytes
        try:
            async with asyncio.timeout(limit_s):
                await done.wait()
        except TimeoutError:
            self._is_stuck = self._backlog_bytes >= left_bytes

    def write(self, lines: Iterable[bytes]) -> None:
        """Write complete lines, given without their newlines."""
        self.write_block(b"".join(line + b"\n" for line in lines))

    def write_block(self, data: bytes) -> None:
        """Write complete lines, each with its newline."""
        if not data:
            return
        records = data.count(b"\n")
        if self._is_framed:
            data = self._frames(data)
        if self._loop is None:
            self._write_blocking(memoryview(data))
            return
        if self._backlog and self._backlog_bytes + len(data) > BACKLOG_LIMIT_BYTES:
            self.drop(records)
            return
        piece = memoryview(data)
        self._backlog.append(piece)
        self._backlog_bytes += len(data) + _surcharge(piece)
        if not self._is_waiting:
            self._flush()

    def _frames(self, data: bytes) -> bytes:
        now_us = time.time_ns() // 1000
        frames: list[bytes] = []
        for line in data.split(b"\n")[:-1]:
            if self.log_format is LogFormat.JSON:
                match = _JSON_LEVEL.match(line)
                frame_type, level = FRAME_JSON, match[1] if match else b""
                record = line
            else:
                fields = line.split(b"\t", 3)
                frame_type, level = FRAME_TEXT, fields[2] if len(fields) > 2 else b""
                # In a frame a record may have several lines.
                record = line.replace(b"\r", b"\n") + b"\n"
            frame_type |= _FRAME_LEVELS.get(level, _FRAME_LEVELS[b"INFO"])
            frames += [FRAME_HEADER.pack(frame_type, len(record), now_us), record]
        return b"".join(frames)

    def _write_blocking(self, data: memoryview) -> None:
        while data:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:  # set by another process that shares it
                os.set_blocking(self._fd, True)
                continue
            except OSError:  # the log has no reader; the invocation matters more
                return
            data = data[written:]

    def _flush(self) -> None:
        """Write what the descriptor takes now, and wait to write the rest."""
        while self._backlog:
            if not self._poll.poll(0) or not self._write_some():
                self._wait()
                return
        self._stop_waiting()
        self._tell_of_dropped()
        waiters, self._waiters = self._waiters, set()
        for callback in waiters:
            callback()

    def _tell_of_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped} log records were dropped: the log was not read"
            self.record(LogLevel.WARN, message)

    def _write_some(self) -> bool:
        """Write a piece; False if the descriptor does not take it after all."""
        piece = self._backlog[0]
        try:
            # A pipe that has room takes this much without blocking (pipe(7)).
            written = os.write(self._fd, piece[: select.PIPE_BUF])
        except BlockingIOError:  # another process writes to it too
            return False
        except OSError:  # the log has no reader; the invocation matters more
            self._backlog.clear()
            self._backlog_bytes = 0
            return True
        self._is_stuck = False
        self._backlog_bytes -= written
        if written == len(piece):
            self._backlog.popleft()
            self._backlog_bytes -= _surcharge(piece)
        else:
            self._backlog[0] = piece[written:]
        return True

    def _wait(self) -> None:
        if self._loop is not None and not self._is_waiting:
            self._is_waiting = True
            self._loop.add_writer(self._fd, self._flush)

    def _stop_waiting(self) -> None:
        if self._loop is not None and self._is_waiting:
            self._is_waiting = False
            self._loop.remove_writer(self._fd)

    def record(
        self,
        level: LogLevel,
        message: str,
        request_id: str = "",
        tenant_id: str | None = None,
        value: bytes | None = None,
    ) -> None:
        """Write one record; its inner newlines do not split it.

        Args: As for ``format``, and
            value: JSON on one line that takes the place of the message in JSON format.
        """
        timestamp = utc_timestamp(time.time())
        if value is not None and self.log_format is LogFormat.JSON:
            head = self._json_head(timestamp, level, request_id, tenant_id)
            line = None if head is None else head + value + b"}"
        else:
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
        """Return a record as a line, None if its level is filtered out.

        Args:
            timestamp: See ``utc_timestamp``.
            level: Its severity; below the least level it is dropped in JSON format.
            message: Text; invalid Unicode is replaced.
            request_id: Invocation it belongs to, empty outside of one.
            tenant_id: Tenant of that invocation.
        """
        wrap = self.wrapper(timestamp, level, request_id, tenant_id)
        return None if wrap is None else wrap(message.encode("utf-8", "replace"))

    def wrapper(
        self,
        timestamp: str,
        level: LogLevel,
        request_id: str,
        tenant_id: str | None,
    ) -> Callable[[bytes], bytes] | None:
        """Return a function that turns messages into records with the same fields.

        Args: As for ``format``.

        Returns:
            A function from a message to a line; None if the level is filtered out.
        """
        if self.log_format is LogFormat.TEXT:
            tenant = f"TenantId: {tenant_id}\t" if tenant_id is not None else ""
            fields = f"{timestamp}\t{request_id or '-'}\t{level}\t{tenant}"
            head = fields.encode()

            def as_text(message: bytes) -> bytes:
                return head + _as_utf8(message).replace(b"\n", b"\r")

            return as_text
        start = self._json_head(timestamp, level, request_id, tenant_id)
        if start is None:
            return None

        def as_json(message: bytes) -> bytes:
            return start + dumps(message.decode("utf-8", "replace")) + b"}"

        return as_json

    def _json_head(
        self, timestamp: str, level: LogLevel, request_id: str, tenant_id: str | None
    ) -> bytes | None:
        """Return what precedes a message in JSON; None if the level is filtered out."""
        if _SEVERITY[level] < self._least:
            return None
        record: dict[str, object] = {"timestamp": timestamp, "level": level}
        if request_id:
            record["requestId"] = request_id
        if tenant_id is not None:
            record["tenantId"] = tenant_id
        return dumps(record)[:-1] + b',"message":'


def _surcharge(piece: memoryview) -> int:
    """Return how much a piece counts for beyond its own bytes.

    It depends on the whole piece, so it stays the same while parts are written.
    """
    whole = piece.obj
    assert isinstance(whole, bytes)
    return max(0, PIECE_LEAST_BYTES - len(whole))


class SupervisorHandler(logging.Handler):
    """Sends the supervisor's own log records through a ``LogWriter``.

    A record may carry ``request_id``, ``tenant_id`` and a ``failure`` in its ``extra``.
    """

    def __init__(self, writer: LogWriter) -> None:
        """Send every record to a writer."""
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, its traceback included."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        failure: Failure | None = None
        if self._writer.log_format is LogFormat.JSON:
            failure = getattr(record, "failure", None)
        self._writer.record(
            _LEVELS.get(record.levelno, LogLevel.INFO),
            message,
            getattr(record, "request_id", ""),
            getattr(record, "tenant_id", None),
            None if failure is None else failure.log_value,
        )


def log_context(invocation: Invocation) -> dict[str, str | None]:
    """Return the ``extra`` of a record that belongs to an invocation."""
    return {"request_id": invocation.request_id, "tenant_id": invocation.tenant_id}


def log_failure(invocation: Invocation, failure: Failure) -> None:
    """Write an error to the log as Node's runtime does.

    That is one record: in text a title and the body as JSON, in JSON the body itself.
    """
    extra = {**log_context(invocation), "failure": failure}
    logger.error("Invoke Error\t%s", failure.log_text, extra=extra)


def configure_log(settings: Settings) -> LogWriter:
    """Send the supervisor's records to the function's log and return its writer."""
    is_framed = settings.telemetry_fd is not None
    fd = LOG_FD if settings.telemetry_fd is None else settings.telemetry_fd
    try:
        os.fstat(fd)
    except OSError:  # the process that started us has closed it
        is_framed, fd = False, LOG_FD
    writer = LogWriter(settings.log_format, settings.log_level, fd, is_framed=is_framed)
    logger.handlers[:] = [SupervisorHandler(writer)]
    logger.setLevel(
        logging.DEBUG
        if settings.log_level in (LogLevel.TRACE, LogLevel.DEBUG)
        else logging.INFO
    )
    logger.propagate = False
    return writer


def utc_timestamp(epoch_s: float) -> str:
    """Return ISO 8601 in UTC with milliseconds, as the platform's own records have."""
    whole_s = int(epoch_s)
    milliseconds = int((epoch_s - whole_s) * 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z", time.gmtime(whole_s))


def _as_utf8(text: bytes) -> bytes:
    return text if text.isascii() else text.decode("utf-8", "replace").encode()
