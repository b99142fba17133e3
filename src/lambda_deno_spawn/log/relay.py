"""The relay from one worker's stderr to the function's log.

Knows how a worker marks the records it has formatted itself, and which request a line
belongs to. Does not know processes: bytes are handed in, lines go to a ``LogWriter``.
Decision 0010.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import LogFormat, LogLevel
from lambda_deno_spawn.log.writer import utc_timestamp
from lambda_deno_spawn.strict_json import JsonError, loads

if TYPE_CHECKING:
    from lambda_deno_spawn.log.writer import LogWriter

# CloudWatch takes events of 1 MB; a line without an end must not fill the memory.
LINE_LIMIT_BYTES = 1024 * 1024
# A longer line is not parsed to find out whether it is JSON, which takes thirty times
# its size in memory; CloudWatch would have split it.
JSON_LINE_LIMIT_BYTES = 256 * 1024
# How much of a worker's log is kept for the error message that may follow.
TAIL_LIMIT_BYTES = 4096
# A line of a stack, as loggers print it: indented, and perhaps in colour.
_STACK_LINE = re.compile(rb"[\s\x1b\[0-9;m]*at\b")
# A text record: time, request id, level.
_RECORD = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\t([!-~]+)\t[A-Z]+\t")


class Relay:
    """Passes a worker's stderr on to the log, and keeps its last lines.

    A line that begins with the worker's marker is a record its ``console`` has
    formatted; any other line is wrapped into a record, unless it is a JSON object:
    programs that write structured logs keep them as they are. So do loggers for Lambda
    that write text records of this invocation themselves. Lines of a stack that are in
    the runtime's own files are left out: they are of no use to a handler's author.

    Attributes:
        request_id: Invocation that wrapped lines belong to, empty outside of one.
        tenant_id: Tenant of that invocation.
    """

    def __init__(self, writer: LogWriter, marker: str, own_files: bytes = b"") -> None:
        """Pass lines on to a writer.

        Args:
            writer: Where they are written.
            marker: The worker's.
            own_files: Folder of the runtime's own files, as stacks show it.
        """
        self.request_id = ""
        self.tenant_id: str | None = None
        self._writer = writer
        self._marker = marker.encode("ascii")
        self._own_files = own_files
        self._later_record = b"\n" + self._marker
        self._partial = bytearray()
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Receive bytes; write every line they complete, all at once."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._partial += data
            if len(self._partial) >= LINE_LIMIT_BYTES:
                self.flush()
            return
        block = bytes(self._partial) + data[:end]
        self._partial = bytearray(data[end:])
        records = block.count(self._marker)
        # Most often every line is a record and need not be looked at on its own.
        if (
            records == block.count(b"\n")
            and records == block.count(self._later_record) + 1
            and block.startswith(self._marker)
        ):
            text = block.replace(self._marker, b"")
            self._remember(text)
            self._writer.write_block(text)
        else:
            self._relay(block)

    def flush(self) -> None:
        """Write the last line although it has no newline."""
        if self._partial:
            self._relay(bytes(self._partial) + b"\n")
            self._partial = bytearray()

    def forget(self) -> None:
        """Start a new tail."""
        self._tail = b""

    @property
    def tail(self) -> str:
        """The last lines, at most about ``TAIL_LIMIT_BYTES`` together."""
        text = self._tail + bytes(self._partial[-TAIL_LIMIT_BYTES:])
        lines = [line for line in text.split(b"\n") if line]
        return b"\n".join(lines).decode("utf-8", "replace")

    def _relay(self, block: bytes) -> None:
        """Write lines of any kind, each ended by a newline."""
        self._remember(block.replace(self._marker, b"\n"))
        wrap = self._writer.wrapper(
            utc_timestamp(time.time()),
            LogLevel.INFO,
            self.request_id,
            self.tenant_id,
        )
        written: list[bytes] = []
        for line in block.split(b"\n")[:-1]:
            # A program may not have ended its line: the record behind it must be found.
            before, found, record = line.partition(self._marker)
            if before and not before.isspace() and not self._is_own(before):
                if before[0] == ord("{") and _is_object(before):
                    written.append(before)
                elif self._is_record(before):
                    record_text = before.rstrip(b"\r").decode("utf-8", "replace")
                    written.append(record_text.encode())
                elif wrap is not None:
                    written.append(wrap(before.rstrip(b"\r")))
            if found:
                written.append(record)
        self._writer.write(written)

    def _is_record(self, line: bytes) -> bool:
        """Tell whether a line has the fields of a text record of this invocation."""
        return (
            line[:2] == b"20"
            and self.request_id != ""
            and self.tenant_id is None
            and self._writer.log_format is LogFormat.TEXT
            and (fields := _RECORD.match(line)) is not None
            and fields[1] == self.request_id.encode()
        )

    def _is_own(self, line: bytes) -> bool:
        """Tell whether it is a line of a stack, and in the runtime's own files."""
        return (
            bool(self._own_files)
            and self._own_files in line
            and _STACK_LINE.match(line) is not None
        )

    def _remember(self, text: bytes) -> None:
        """Keep the last lines of a text that ends with a newline, if it has any."""
        self._tail = _last_lines(self._tail + text[-2 * TAIL_LIMIT_BYTES :])


def _last_lines(text: bytes) -> bytes:
    """Return the whole lines at the end of a text, or the end of one long line."""
    # One byte more for the newline at the end.
    limit = TAIL_LIMIT_BYTES + 1
    if len(text) <= limit:
        return text
    start = len(text) - limit
    if text[start - 1 : start] != b"\n":
        newline = text.find(b"\n", start, -1)
        start = newline + 1 if newline >= 0 else start
    return text[start:]


def _is_object(line: bytes) -> bool:
    if len(line) > JSON_LINE_LIMIT_BYTES or not line.endswith(b"}"):
        return False
    try:
        return isinstance(loads(line), dict)
    except JsonError:
        return False
