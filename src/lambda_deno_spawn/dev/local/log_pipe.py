"""The log of a local runtime: one pipe, passed on line by line."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from typing import BinaryIO

LOG_LINE_LIMIT_BYTES = 256 * 1024  # a longer line is split, as CloudWatch splits it
LOG_READ_LIMIT_BYTES = 64 * 1024  # all that a pipe holds, unless enlarged (pipe(7))
KNOWN_LINES = 1000  # to recognize when the module prints them again
TIME = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z\t")
NEXT_PROCESS = (
    "(The process for the next event is starting. It loads the module again and logs:)"
)


# The runtime's own line on how processes begin.
SERVED_BY = b"Events are served by "
# Records that belong to no invocation and report no problem.
TEXT_RECORD = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z\t-\t(?:INFO|DEBUG|TRACE)\t(.*)")
LEVELS = ("INFO", "DEBUG", "TRACE")


class LogPipe:
    """One pipe for everything a runtime prints, passed on line by line.

    Stdout and stderr share it, which keeps their order. Lines of our own follow
    everything that was printed before them.

    Attributes:
        writer: The end that a runtime is given; -1 once our copy is closed.
    """

    def __init__(
        self, sink: BinaryIO, *, is_brief: bool = False, expects_next: bool = True
    ) -> None:
        """Open the pipe.

        Args:
            sink: Its lines go there.
            is_brief: Leave out the runtime's line on how processes begin, and what the
                next process logs, except problems.
            expects_next: ``expect_next`` will be called.
        """
        self._sink = sink
        self._is_brief = is_brief
        self._expects_next = expects_next
        self._partial = bytearray()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known: set[bytes] = set()
        self._answered: bytes | None = None
        self._has_told = False

    def __enter__(self) -> LogPipe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._reader)
        self.close_writer()
        self._pump()
        self._pass_on(bytes(self._partial))
        os.close(self._reader)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass lines on from now on, as soon as they are printed."""
        self._loop = loop
        loop.add_reader(self._reader, self._pump)

    def close_writer(self) -> None:
        """Close our copy of the runtime's end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def expect_next(self, request_id: str) -> None:
        """Expect the log of the next process, as the invocation has its response.

        That process loads the module, too. Lines that the module has printed before are
        left out, and a line of our own stands above the others.

        Args:
            request_id: Lines that contain it are still of the invocation.
        """
        self._pump()
        self._answered = request_id.encode()

    def catch_up(self) -> None:
        """Pass on the output so far."""
        self._pump()

    def say(self, line: str) -> None:
        """Write a line of our own."""
        self._pump()
        self._pass_on(bytes(self._partial))
        self._partial.clear()
        self._write(line.encode())

    def _pump(self) -> None:
        chunk = b""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._reader, LOG_READ_LIMIT_BYTES)
            if not chunk and self._loop is not None:  # every writer is gone
                self._loop.remove_reader(self._reader)
        self._partial += chunk
        end = self._partial.rfind(b"\n") + 1
        if end == 0 and len(self._partial) > LOG_LINE_LIMIT_BYTES:
            end = len(self._partial)
        self._pass_on(bytes(self._partial[:end]))
        del self._partial[:end]

    def _pass_on(self, text: bytes) -> None:
        """Write lines of the runtime, without those that only repeat earlier ones."""
        if self._answered is None:
            if self._expects_next:
                for line in text.splitlines()[: KNOWN_LINES - len(self._known)]:
                    self._known.add(_without_time(line))
            lines = text.splitlines(keepends=True) if self._is_brief else [text]
            self._write(b"".join(line for line in lines if not self._omits(line)))
            return
        for line in text.splitlines(keepends=True):
            if self._answered not in line:
                if _without_time(line.rstrip(b"\n")) in self._known:
                    continue
                if self._is_brief and _plain_message(line) is not None:
                    continue
                if not self._has_told:
                    self._has_told = True
                    self._write(NEXT_PROCESS.encode())
            self._write(line)

    def _omits(self, line: bytes) -> bool:
        if not self._is_brief or SERVED_BY not in line:
            return False
        return (_plain_message(line) or b"").startswith(SERVED_BY)

    def _write(self, text: bytes) -> None:
        if not text:
            return
        # A log without a reader must not make the invocation fail.
        with contextlib.suppress(BrokenPipeError):
            self._sink.write(text if text.endswith(b"\n") else text + b"\n")
            self._sink.flush()


def _without_time(line: bytes) -> bytes:
    """Return what a line of the log says, whenever it says so."""
    if line.startswith(b"{"):
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            record.pop("timestamp", None)
            return json.dumps(record).encode()
    return TIME.sub(b"", line, count=1)


def _plain_message(line: bytes) -> bytes | None:
    """Return the message of a record without a request and without a problem."""
    if (found := TEXT_RECORD.match(line)) is not None:
        return found[1]
    if line.startswith(b"{"):
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if record.get("level") in LEVELS and not record.get("requestId"):
                return str(record.get("message")).encode()
    return None
