"""How long an invocation may take, and what of it is kept back to stop its worker.

Decision 0004 (who kills when).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A short timeout must not be used up by the margin, so that is this part of it at most.
MARGIN_PART = 1 / 5
# The handler's signal aborts this many stop margins before the deadline: one before the
# worker is stopped.
ABORT_MARGINS = 2


class Deadline:
    """When the platform stops waiting for an invocation.

    Attributes:
        margin_s: How long before that its worker is stopped.
        limit_s: How long the worker had when the invocation arrived.
        abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.
    """

    def __init__(
        self,
        epoch_ms: int,
        configured_margin_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start at the arrival of the invocation.

        Args:
            epoch_ms: The deadline; Unix time.
            configured_margin_s: The stop margin, unless it is too large a part of the
                time there is.
            clock: Tells Unix time in seconds.
        """
        self._epoch_s = epoch_ms / 1000
        self._configured_margin_s = configured_margin_s
        self._clock = clock
        remaining_s = max(0.0, self._epoch_s - clock())
        self.margin_s = min(configured_margin_s, remaining_s * MARGIN_PART)
        self.limit_s = remaining_s - self.margin_s
        self.abort_epoch_ms = epoch_ms - round(ABORT_MARGINS * self.margin_s * 1000)

    def remaining_s(self) -> float:
        """Return the time until the deadline, never below zero."""
        return max(0.0, self._epoch_s - self._clock())

    def left_s(self) -> float:
        """Return the time until the deadline without the stop margin."""
        remaining_s = max(0.0, self._epoch_s - self._clock())
        return remaining_s - min(self._configured_margin_s, remaining_s * MARGIN_PART)


class TimeLimit:
    """Cancels the task that entered it after a time; raises TimeoutError then.

    Like ``asyncio.timeout``, but it does not delay the event: the timer is set once the
    task waits, and by then the worker has its event (decision 0022).
    """

    def __init__(self, limit_s: float) -> None:
        """Count from now."""
        self._loop = asyncio.get_running_loop()
        self._end_s = self._loop.time() + limit_s
        self._is_over = False

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        self._handle: asyncio.Handle = self._loop.call_soon(self._set_timer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """End; a cancellation that did not come from the timer goes on."""
        self._handle.cancel()
        if (
            self._is_over
            and self._task.uncancel() <= self._cancels_before
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _set_timer(self) -> None:
        self._handle = self._loop.call_at(self._end_s, self._expire)

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()
