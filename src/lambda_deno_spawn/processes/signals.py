"""Signals as callbacks of an event loop.

Does the same as asyncio's ``add_signal_handler``, which imports ``inspect``, a tenth of
a cold start, to refuse coroutines (decision 0034). One per process: it owns the wake-up
descriptor. Does not know what a signal is for. Fact used: signal.set_wakeup_fd.
"""

from __future__ import annotations

import os
import signal

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

READ_BYTES = 4096


class Signals:
    """Calls back, on the event loop, for each signal that arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let signals wake the loop; none is handled yet."""
        self._loop = loop
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._reader, self._writer = os.pipe()
        for fd in (self._reader, self._writer):
            os.set_blocking(fd, False)
        # Python writes the number of each signal there. A signal handler alone would
        # not do: it runs only once the wait for the next event of the loop is over.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        loop.add_reader(self._reader, self._receive)

    def handle(self, number: signal.Signals, callback: Callable[[], object]) -> None:
        """Call back for each arrival of this signal, in place of what it did before."""
        self._callbacks[number] = callback
        signal.signal(number, _do_nothing)

    def close(self) -> None:
        """Call back no more. The signals have no effect from now on.

        A second SIGTERM would otherwise cut an orderly exit short.
        """
        self._callbacks.clear()
        signal.set_wakeup_fd(-1)
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)

    def _receive(self) -> None:
        for number in os.read(self._reader, READ_BYTES):
            if number in self._callbacks:
                self._loop.call_soon(self._callbacks[number])


def _do_nothing(_number: int, _frame: object) -> None:
    """Stand in for a handler: without one the number would not be written."""
