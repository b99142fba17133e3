"""How long an invocation may take.

Decision 0004 (who kills when).
"""

from __future__ import annotations

import asyncio


class TimeLimit:
    """Cancels the task that entered it after a time; raises TimeoutError then.

    As ``asyncio.timeout``, but nothing is on the event's way: the clock is set once the
    task waits, and by then the worker has its event (decision 0022).
    """

    def __init__(self, limit_s: float) -> None:
        """Take the time from now."""
        self._loop = asyncio.get_running_loop()
        self._end_s = self._loop.time() + limit_s
        self._is_over = False

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        self._handle: asyncio.Handle = self._loop.call_soon(self._set_clock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """End; what cancelled the task, if not the clock, goes on."""
        self._handle.cancel()
        if (
            self._is_over
            and self._task.uncancel() <= self._cancels_before
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _set_clock(self) -> None:
        self._handle = self._loop.call_at(self._end_s, self._expire)

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()
