"""How many processes there may be, and how many of them wait for their events.

Decides by what is known of the function and of its processes. Does not know processes,
or when one is started. Decision 0025; sources of the limits: AWS Lambda Developer
Guide, "Lambda quotas" and "Lambda Managed Instances execution environment".
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.limits import MEBIBYTE
from lambda_deno_spawn.records import NamedTuple, Protocol

if TYPE_CHECKING:
    from lambda_deno_spawn.processes.child import Footprint

# Memory of the supervisor and of Deno's program, whose pages all processes share.
RESERVED_BYTES = 160 * MEBIBYTE
# Share of the 1,024 threads and processes per environment that workers may use;
# handlers get the rest.
THREADS = 768
# Measured too early, a process looks smaller than any that has run a handler.
LEAST_PROCESS_BYTES = 24 * MEBIBYTE
LEAST_PROCESS_THREADS = 4
# The sizes of so many processes that have ended predict that of the next one.
SIZES_KEPT = 32


class PoolSize(NamedTuple):
    """How many processes there may be.

    Attributes:
        processes: At once, whatever they do.
        waiting: Of these, started ahead of their events.
    """

    processes: int
    waiting: int


def pool_size(
    concurrency: int, memory_mb: int | None, process_bytes: int, process_threads: int
) -> PoolSize:
    """Return how many processes fit, and how many of them are to wait for events.

    Twice as many as there are invocations are of use: while one half runs, the other
    half loads for those that follow. As many as there may be invocations wait, since
    all of them may arrive at once.

    Args:
        concurrency: How many invocations may run at once.
        memory_mb: Memory of the environment; None: not known, and no bound.
        process_bytes: Memory that each process takes for itself.
        process_threads: Threads of each process.
    """
    fits = 2 * concurrency
    fits = min(fits, THREADS // max(process_threads, LEAST_PROCESS_THREADS))
    if memory_mb is not None:
        room_bytes = memory_mb * MEBIBYTE - RESERVED_BYTES
        fits = min(fits, room_bytes // max(process_bytes, LEAST_PROCESS_BYTES))
    processes = max(1, fits)
    return PoolSize(processes, min(concurrency, processes))


class PoolPolicy(Protocol):
    """Decides how many processes there may be; each note may change it."""

    @property
    def waiting(self) -> int:
        """How many processes are to wait for their events."""

    @property
    def limit(self) -> int | None:
        """How many processes there may be at once, whatever they do.

        None: one event at a time, whose process is gone before the next one starts.
        With a limit, the next process is started as soon as one has its event.
        """

    def note_loaded(self, footprint: Footprint | None) -> str | None:
        """Note what the first process took up once its module was loaded.

        Args:
            footprint: None if it was not measured.

        Returns:
            A warning if there is less room than events may need.
        """

    def note_ended(self, peak_bytes: int) -> str | None:
        """Note how large a process has become; returns what ``note_loaded`` does."""


class Unbounded:
    """One invocation at a time."""

    waiting = 1
    limit = None

    def note_loaded(self, footprint: Footprint | None) -> str | None:
        """Decide nothing by it."""

    def note_ended(self, peak_bytes: int) -> str | None:
        """Decide nothing by it."""


class Bounded:
    """Several invocations at once: as many processes as memory and threads allow."""

    def __init__(self, concurrency: int, memory_mb: int | None) -> None:
        """Allow all that may be of use until a process was measured.

        Args:
            concurrency: How many invocations may run at once.
            memory_mb: Memory of the environment; None: not known, and no bound.
        """
        self.limit = 2 * concurrency
        self.waiting = concurrency
        self._concurrency = concurrency
        self._memory_mb = memory_mb
        self._own_bytes = 0
        self._file_bytes = 0
        self._threads = 0
        self._sizes_bytes: deque[int] = deque(maxlen=SIZES_KEPT)

    def note_loaded(self, footprint: Footprint | None) -> str | None:
        """Count no process as smaller than this."""
        if footprint is not None:
            self._own_bytes, self._file_bytes, self._threads = footprint
        return self._resize()

    def note_ended(self, peak_bytes: int) -> str | None:
        """Count each process as large as the largest of late."""
        self._sizes_bytes.append(peak_bytes - self._file_bytes)
        return self._resize()

    def _resize(self) -> str | None:
        process_bytes = max(self._own_bytes, *self._sizes_bytes, 0)
        before = self.limit
        self.limit, self.waiting = pool_size(
            self._concurrency, self._memory_mb, process_bytes, self._threads
        )
        if self.limit >= min(self._concurrency, before):
            return None
        return (
            f"There is room for {self.limit} processes of "
            f"{process_bytes / MEBIBYTE:.0f} MB each, but up to {self._concurrency} "
            "events may arrive at once: some will wait; give the function more memory, "
            "or a lower concurrency"
        )
