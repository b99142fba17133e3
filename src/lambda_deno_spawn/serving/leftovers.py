"""Files that events have left: removed in slices, between events or beside them.

Does not know how files are removed, or which event left them. Decision 0029.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lambda_deno_spawn.records import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

# Pause between two slices that are removed beside events.
PAUSE_S = 0.01


class Disk(Protocol):
    """The folder with the files; ``processes.state.StateDir``."""

    @property
    def has_leftovers(self) -> bool:
        """True while there is something to remove."""

    def remove_some(self) -> bool:
        """Remove a slice; True if all is gone."""

    def is_short_of_room(self) -> bool:
        """Tell whether little of the disk is free."""


class Leftovers:
    """Removes what events have left."""

    def __init__(self, disk: Disk, *, is_beside_events: bool) -> None:
        """Remove nothing yet.

        Args:
            disk: Where the files are.
            is_beside_events: Nothing is frozen between events, so no event has to wait:
                files are removed beside whatever runs.
        """
        self._disk = disk
        self._is_beside_events = is_beside_events
        self._task: asyncio.Task[None] | None = None

    @property
    def are_there(self) -> bool:
        """True while there is something to remove."""
        return self._disk.has_leftovers

    def begin_removal(self) -> None:
        """Remove them beside whatever goes on, until all are gone or that is ended."""
        is_running = self._task is not None and not self._task.done()
        if self._disk.has_leftovers and not is_running:
            self._task = asyncio.create_task(self._remove())

    async def _remove(self) -> None:
        pause_s = PAUSE_S if self._is_beside_events else 0.0
        is_over = False
        while not is_over:
            is_over = self._disk.remove_some()
            await asyncio.sleep(pause_s)

    async def before_freeze(self, left_s: Callable[[], float]) -> None:
        """Use the time that is left, then stop; if nothing is frozen, do not wait.

        The next event does not wait for what is still there.

        Args:
            left_s: Tells how much time is left.
        """
        if not self._is_beside_events:
            await self.end_removal(left_s())

    async def end_removal(self, limit_s: float) -> None:
        """Continue for this long at most; the rest is removed later."""
        self.begin_removal()
        task, self._task = self._task, None
        if task is not None:
            if limit_s > 0:
                await asyncio.wait([task], timeout=limit_s)
            task.cancel()

    async def make_room(self, limit_s: float | None = None) -> None:
        """Remove them first if the disk is short of room, within a time limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._disk.has_leftovers and self._disk.is_short_of_room():
                    self._disk.remove_some()
                    await asyncio.sleep(0)
