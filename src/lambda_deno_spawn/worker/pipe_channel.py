"""Invocations through a worker's stdin and stdout, one at a time.

Normative text: docs/protocol.md; ``js/runtime.js`` is the other end.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from lambda_deno_spawn.worker.exchange import Exchange

if TYPE_CHECKING:
    from lambda_deno_spawn.errors import WorkerError
    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.processes.child import ChildProcess
    from lambda_deno_spawn.protocol.frames import WorkerConnection

# Tells the worker that the caller of its stream has left; runtime.js listens for it.
CALLER_GONE_SIGNAL = signal.SIGUSR2


class PipeChannel:
    """The pipes of one worker; see ``channel.Channel``.

    It is also the source of its exchange's frames (``exchange.Source``).
    """

    def __init__(
        self, process: ChildProcess, connection: WorkerConnection, limit: int
    ) -> None:
        """Use pipes that are open already.

        Args:
            process: The process they belong to.
            connection: State and framing of both pipes.
            limit: How many invocations the worker serves; 0: any number.
        """
        self.handed_over = 0
        self.on_stdout: Exchange | None = None
        self.is_reachable = True
        self._process = process
        self._connection = connection
        self._limit = limit

    @property
    def open_exchanges(self) -> int:
        """How many were handed over and not closed: at most one."""
        return 0 if self.on_stdout is None else 1

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Write an event to stdin, and close stdin behind the last one."""
        self.handed_over += 1
        # Written first, to save time: no frame is read before this function returns.
        buffers = self._connection.invoke(invocation, abort_epoch_ms)
        is_last = self.handed_over == self._limit
        self._process.write_all(buffers, ends=is_last)
        # Even if the worker claims to serve more: a handler can forge its frames.
        self.is_reachable = not is_last
        self.on_stdout = Exchange(self.handed_over, self)
        return self.on_stdout

    def has_read_another(self, exchange: Exchange) -> bool:
        """Tell whether the worker has an invocation besides."""
        return self.on_stdout not in (None, exchange)

    def close_exchange(self, exchange: Exchange) -> None:
        """Drop what still comes of it."""
        if self.on_stdout is exchange:
            self.on_stdout = None
        exchange.close()

    def fail(self, error: WorkerError) -> None:
        """Fail the open exchange."""
        if self.on_stdout is not None:
            self.on_stdout.state = self._connection.state
            self.on_stdout.fail(error)

    def close(self) -> None:
        """Do nothing: the pipes are the process's."""

    # exchange.Source

    def pause_reading(self) -> None:
        """Leave frames in the pipe."""
        self._process.hold_stdout()

    def resume_reading(self) -> None:
        """Read frames again."""
        self._process.release_stdout()

    def notify_caller_gone(self, number: int) -> None:
        """Send the signal that means so; there is one exchange it can mean."""
        self._process.signal(CALLER_GONE_SIGNAL)
