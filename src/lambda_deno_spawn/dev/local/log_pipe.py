"""The log of a local runtime: one pipe, passed on line by line."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from typing import BinaryIO

LOG_LINE_LIMIT_BYTES = 256 * 1024  # a longer line is split, as CloudWatch splits it
LOG_READ_LIMIT_BYTES = 64 * 1024  # all that a pipe holds, unless enlarged (pipe(7))


class LogPipe:
    """One pipe for everything a runtime prints, passed on line by line.

    Stdout and stderr share it, which keeps their order. Lines of our own follow
    everything that was printed before them.

    Attributes:
        writer: The end that a runtime is given; -1 once our copy is closed.
    """

    def __init__(self, sink: BinaryIO) -> None:
        """Open the pipe; its lines go to ``sink``."""
        self._sink = sink
        self._partial = bytearray()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> LogPipe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._reader)
        self.close_writer()
        self._pump()
        self._write(bytes(self._partial))
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

    def say(self, line: str) -> None:
        """Write a line of our own."""
        self._pump()
        self._write(bytes(self._partial))
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
        self._write(bytes(self._partial[:end]))
        del self._partial[:end]

    def _write(self, text: bytes) -> None:
        if not text:
            return
        # A log without a reader must not make the invocation fail.
        with contextlib.suppress(BrokenPipeError):
            self._sink.write(text if text.endswith(b"\n") else text + b"\n")
            self._sink.flush()
