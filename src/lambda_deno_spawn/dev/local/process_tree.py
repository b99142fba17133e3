"""The processes of a local runtime: their memory, and their end.

Knows how to find every process that a runtime started, including those that left its
group or lost their parent, and how to end them all. Does not know what they are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

# An orphan may start another one during the search, and ends late on a busy processor.
KILL_ROUNDS = 100
KILL_ROUND_S = 0.01
EXEC_ROUNDS = 5  # rounds until a program that is being started has its environment
SAMPLE_INTERVAL_S = 0.05  # one sample takes 1-2 ms for two processes
# Between events that are shorter than the interval: of many per second, samples would
# take more of the processor than the events.
BRIEF_INTERVAL_S = 1.0
SEEN_LIMIT = 200  # processes, before those that have ended are forgotten


class ProcessTree:
    """A runtime and every process it started.

    Attributes:
        peak_bytes: Most memory seen at once. Proportional set size where the system
            tells it (Linux), else resident size, which counts shared pages twice.
        held_s: How long the runtime was kept waiting while samples were taken.
    """

    def __init__(
        self, mark: str, on_sample: Callable[[int], None] = lambda _: None
    ) -> None:
        """Watch nothing yet.

        Args:
            mark: Part of an environment variable of every process. It identifies those
                that were never seen as children, because their parent ended too soon.
            on_sample: Called with the memory of the tree, each time it was measured.
        """
        self._mark = mark
        self._on_sample = on_sample
        self.peak_bytes = 0
        self.held_s = 0.0
        self._active = asyncio.Event()
        self._active.set()
        self._periods = 0  # of activity
        # The system counts from its start, in ticks of 10 ms.
        self._since_epoch_s = time.time() - 1.0
        self._root: psutil.Process | None = None
        self._seen: set[psutil.Process] = set()
        self._known: dict[int, psutil.Process] = {}  # below the root, last time

    def watch(self, pid: int) -> None:
        """Make a process the root of the tree."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            self._root = psutil.Process(pid)

    def sample(self) -> None:
        """Measure the memory of the tree once."""
        used_bytes = sum(memory_bytes(member) for member in self._members())
        self.peak_bytes = max(self.peak_bytes, used_bytes)
        self._on_sample(used_bytes)

    def sample_while_held(self) -> None:
        """Measure while the runtime waits for us, and add the time to ``held_s``."""
        started_s = time.monotonic()
        self.sample()
        self.held_s += time.monotonic() - started_s

    def work(self) -> None:
        """Have ``keep_sampling`` go on."""
        if not self._active.is_set():
            self._periods += 1
            self._active.set()

    def rest(self) -> None:
        """Have ``keep_sampling`` pause."""
        self._active.clear()

    async def keep_sampling(self) -> None:
        """Measure again and again, until cancelled."""
        interval_s = SAMPLE_INTERVAL_S
        sampled_s = time.monotonic()
        while True:
            await self._active.wait()
            period = self._periods
            await asyncio.sleep(interval_s)
            is_same = self._active.is_set() and self._periods == period
            started_s = time.monotonic()
            if is_same or started_s - sampled_s >= BRIEF_INTERVAL_S:
                self.sample()
                # With thousands of processes on the machine a sample takes longer.
                sampled_s = time.monotonic()
                cost_s = sampled_s - started_s
                interval_s = max(SAMPLE_INTERVAL_S, 10 * cost_s)

    def suspend(self) -> None:
        """Stop every process, as Lambda freezes an environment."""
        import psutil

        # A stopped process cannot start another one meanwhile.
        known: set[psutil.Process] = set()
        while new := set(self._members()) - known:
            known |= new
            for process in new:
                with contextlib.suppress(psutil.Error):
                    process.suspend()

    def resume(self) -> None:
        """Let every process run again."""
        import psutil

        for process in self._members():
            with contextlib.suppress(psutil.Error):
                process.resume()

    def kill(self) -> None:
        """Kill every process, including those that left the runtime's process group."""
        import psutil

        self.suspend()
        if self._root is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._root.pid, signal.SIGKILL)
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for count in range(KILL_ROUNDS):
            orphans, is_certain = self._orphans()
            if not orphans and (is_certain or count >= EXEC_ROUNDS):
                break
            for process in orphans:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(KILL_ROUND_S)

    def _orphans(self) -> tuple[list[psutil.Process], bool]:
        """Find the processes with the mark.

        Returns:
            The processes, and whether the list is certain to be complete: while a
            program is being started its process has no environment, for a moment that
            is longer on a busy processor.
        """
        import psutil

        orphans = []
        is_certain = True
        for process in psutil.process_iter():
            # Other users' processes cannot be inspected; those we started can.
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                if any(self._mark in value for value in environ.values()):
                    orphans.append(process)
                elif not environ and process.create_time() >= self._since_epoch_s:
                    # Kernel threads have no environment either, and no program.
                    is_certain = is_certain and not process.exe()
        return orphans, is_certain

    def _processes(self, pids: list[int]) -> list[psutil.Process]:
        """Return processes, without those that have ended meanwhile.

        One that was there last time is taken for the same.
        """
        import psutil

        known: dict[int, psutil.Process] = {}
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                known[pid] = self._known.get(pid) or psutil.Process(pid)
        self._known = known
        return list(known.values())

    def _members(self) -> list[psutil.Process]:
        import psutil

        if self._root is None:
            return []
        try:
            below = _pids_below(self._root.pid)
            if below is None:
                members = [self._root, *self._root.children(recursive=True)]
            else:
                members = [self._root, *self._processes(below)]
        except psutil.Error:
            return []
        self._seen.update(members)
        if len(self._seen) > SEEN_LIMIT:
            self._seen = {process for process in self._seen if process.is_running()}
        return members


def _pids_below(pid: int) -> list[int] | None:
    """Return the descendants of a process; None where the kernel does not list them.

    Nothing but the tree is read, however many processes the machine has.
    """
    found: list[int] = []
    above = [pid]
    while above:
        folder = f"/proc/{above.pop()}/task"
        try:
            with os.scandir(folder) as entries:
                threads = [entry.path for entry in entries]
        except OSError:
            if above or found:
                continue  # it has ended
            return None
        for thread in threads:
            try:
                children = _read(f"{thread}/children").split()
            except OSError:
                if not found and os.access(f"{thread}/stat", os.R_OK):
                    return None  # the kernel does not have this file
                continue
            pids = [int(child) for child in children]
            found += pids
            above += pids
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


def memory_bytes(process: psutil.Process) -> int:
    """Return a process's share of memory, its resident size if that is not known."""
    import psutil

    try:
        memory = process.memory_full_info()
        # Some container runtimes do not support it and report zero.
        return int(getattr(memory, "pss", 0) or memory.rss)
    except psutil.AccessDenied:
        pass
    except (psutil.Error, OSError):
        return 0
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0
