"""The wait for children: the ones we started, and strangers that became ours.

Knows how to wait for a child of any kind, how to notify its watcher before its process
id can be reused, and how to find and end descendants that left their group. Does not
know pipes, nor what a process is for. Facts used: waitid(2), wait4(2), prctl(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import os

# os.wait4 imports it, and by then there may be no descriptor left to load it with.
import resource  # noqa: F401
import signal
import sys
from typing import TYPE_CHECKING

from lambda_deno_spawn.processes.descendants import (
    ChildList,
    OomKills,
    end_trees,
    ended_child,
    has_ended,
)
from lambda_deno_spawn.records import NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.processes.signals import Signals

# `sweep` looks again after this long even if no stranger's end was reported.
SWEEP_ROUND_S = 0.05
# How long a sweep may hold up the event loop, and every invocation with it.
SLICE_S = 0.005
REAP_BATCH = 16  # children between two looks at the clock
# getrusage(2): the unit of ru_maxrss.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class ExitStatus(NamedTuple):
    """How a process ended, and which resources it had used (wait4(2)).

    Attributes:
        returncode: Exit code; negative: the signal that ended it.
        user_s: Processor time in its own code, with the children it waited for.
        system_s: Processor time in the kernel, likewise.
        peak_bytes: Most resident memory of it or of a child it waited for.
    """

    returncode: int
    user_s: float = 0.0
    system_s: float = 0.0
    peak_bytes: int = 0


class Watcher(Protocol):
    """Receives notice of a child's end, in two steps."""

    def ending(self) -> None:
        """The child has ended and is not reaped: its process id still means it."""

    def exited(self, status: ExitStatus) -> None:
        """The child is reaped."""


class Reaper:
    """Waits for children: watched ones by their id, strangers by sweeping.

    A stranger is a process whose parent ended: it became our child (see
    ``become_subreaper``), and this is how descendants that left their group are found.
    It owns SIGCHLD; one per process.

    Attributes:
        ended: How many strangers have ended so far.
        oom_kills: How many processes the kernel has ended for lack of memory, those of
            other programs included.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, signals: Signals) -> None:
        self.ended = 0
        self.oom_kills = OomKills()
        self._loop = loop
        self._signals = signals
        self._watched: dict[int, Watcher] = {}
        self._is_listening = False
        self._stranger_ended = asyncio.Event()
        self._children = ChildList()

    def close(self) -> None:
        """Stop watching."""
        self._children.close()

    def watch(self, pid: int, watcher: Watcher) -> None:
        """Notify the watcher, later and once, when this child has ended.

        The child must lead a process group of its own.
        """
        self._watched[pid] = watcher
        if not self._is_listening:
            # Not before: a child that is reaped without a watcher cannot be announced.
            self._is_listening = True
            self._signals.handle(signal.SIGCHLD, self._reap)
        self._loop.call_soon(self.poll, pid)

    async def sweep(self, limit_s: float, spares: Callable[[int], bool]) -> bool:
        """End every stranger and its descendants; False if some are left.

        Only our children and their descendants are ever sent a signal.

        Args:
            limit_s: Give up after this long: a process is stuck in the kernel.
            spares: Called with a stranger's process id; True: leave it alone.
        """
        give_up_s = self._loop.time() + limit_s
        while True:
            self._reap()
            # If the children cannot be listed now, there may be some.
            with contextlib.suppress(OSError):
                if await self._end_strangers(give_up_s, spares):
                    return True
            if self._loop.time() > give_up_s:
                return False
            self._stranger_ended.clear()
            await _set_within(SWEEP_ROUND_S, self._stranger_ended)

    async def _end_strangers(
        self, give_up_s: float, spares: Callable[[int], bool]
    ) -> bool:
        """Send SIGKILL to every stranger and its descendants; True if there are none.

        Raises:
            OSError: The children cannot be listed.
        """
        spared: dict[int, bool] = {}  # to ask takes time, and there may be thousands

        def unspared() -> list[int]:
            strangers = self._strangers()
            for pid in strangers:
                if pid not in spared:
                    spared[pid] = spares(pid)
            return [pid for pid in strangers if not spared[pid]]

        if not unspared():
            return True
        clock = self._loop.time
        slice_end_s = clock() + SLICE_S
        for _ in end_trees(unspared, give_up_s - clock(), clock):
            if clock() > slice_end_s:
                await asyncio.sleep(0)
                spared.clear()  # a process id may mean another process now
                slice_end_s = clock() + SLICE_S
        return False

    def poll(self, pid: int) -> None:
        """Look now whether a watched child has ended, before SIGCHLD has arrived."""
        # This look is cheaper for each event than an ordinary wait would be.
        if pid in self._watched and has_ended(pid):
            self._wait(pid)

    def _strangers(self) -> list[int]:
        return [pid for pid in self._children.read() if pid not in self._watched]

    def _reap(self) -> None:
        """Wait for every child that has ended; a stranger, too, takes up a process."""
        slice_end_s = self._loop.time() + SLICE_S
        while self._loop.time() < slice_end_s:
            for _ in range(REAP_BATCH):
                if not self._wait(0):
                    return
        self._loop.call_soon(self._reap)  # others have their turn meanwhile

    def _wait(self, pid: int) -> bool:
        """Wait for a child that has ended, 0 for any; False if there is none."""
        try:
            ended = self._announce(pid)
            if ended == 0:
                return False
            reaped, status, usage = os.wait4(ended, os.WNOHANG)
        except ChildProcessError:
            if pid in self._watched:  # other code in this process waited for it
                self._watched.pop(pid).exited(ExitStatus(0))
            return False
        if reaped == 0:
            return False
        returncode = os.waitstatus_to_exitcode(status)
        watcher = self._watched.pop(reaped, None)
        if watcher is None:
            self.ended += 1
            self._stranger_ended.set()
        else:
            peak_bytes = usage.ru_maxrss * MAXRSS_UNIT_BYTES
            watcher.exited(
                ExitStatus(returncode, usage.ru_utime, usage.ru_stime, peak_bytes)
            )
        return True

    def _announce(self, pid: int) -> int:
        """Notify a child's watcher before the child is reaped.

        Args:
            pid: The child; 0: any.

        Returns:
            The child that has ended; 0 if none has.

        Raises:
            ChildProcessError: There is no such child.
        """
        if not hasattr(os, "waitid"):  # macOS: only `exited` is called
            return pid or -1
        ended = ended_child(pid)
        if ended is None:
            return 0
        if ended in self._watched:
            self._watched[ended].ending()
        return ended


async def _set_within(limit_s: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
