"""A process of its own for each invocation, or for a few, started ahead of them.

Does not know what an invocation is, or how long it may take. Decisions 0001 (a process
per event), 0005 (when it is started), 0025 (several invocations at once).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.processes.child import Footprint
from lambda_deno_spawn.serving.pool import MEBIBYTE, ONE_AT_A_TIME, pool_size
from lambda_deno_spawn.serving.strategy import (
    INIT_LIMIT_S,
    NEEDED_S,
    RENEW_BEFORE_S,
    BaseStrategy,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.start import StartedWorker
    from lambda_deno_spawn.worker.worker import Worker

# Of a process that nobody has measured.
NO_FOOTPRINT = Footprint(0, 0, 0)
# How many processes that have ended tell how large the next ones may become.
SIZES_KEPT = 32


class FreshProcess(BaseStrategy):
    """A process of its own for each invocation, or for a few, started ahead of them."""

    def __init__(self, settings: Settings, workers: Workers) -> None:
        """Take what starts workers; starts none yet."""
        super().__init__(settings, workers)
        self._waiting: deque[Worker] = deque()
        self._serving: set[Worker] = set()
        self._size = ONE_AT_A_TIME
        self._footprint = NO_FOOTPRINT
        self._sizes_bytes: deque[int] = deque(maxlen=SIZES_KEPT)
        # Events that wait until there may be one more process.
        self._queued = 0
        self._has_room = asyncio.Event()

    async def start(
        self, first: StartedWorker | None, limit_s: float = INIT_LIMIT_S
    ) -> Failure | None:
        """Finish the init phase: adopt the first worker and wait until it is ready.

        Args:
            first: Process that was started before the event loop, None for ``off``.
            limit_s: If it takes longer, the first invocation waits for the rest.

        Returns:
            None, or why no invocation can be served.
        """
        if first is None:
            self._resize()
            return None
        worker = self._workers.adopt(first)
        self._waiting.append(worker)
        failure = await self._load(worker, limit_s)
        if failure is None and self._settings.is_managed_instance:
            self._footprint = worker.footprint() or NO_FOOTPRINT
            self._resize()
            self._fill()
        return failure

    def _forget_all(self) -> None:
        self._waiting.clear()
        self._serving.clear()

    async def take(self) -> Worker:
        """Return a waiting worker, or a new one; see ``execution.Strategy``."""
        await self._workers.renew_credentials(NEEDED_S)
        await self._workers.make_room()
        while (worker := self._take_waiting() or self._start_if_room()) is None:
            self._has_room.clear()
            self._queued += 1
            try:
                await self._has_room.wait()
            finally:
                self._queued -= 1
        if self._settings.is_managed_instance and self._settings.warm is not Warm.OFF:
            # Others may come before this one ends; but it has its event first.
            asyncio.get_running_loop().call_soon(self._fill)
        return worker

    async def stop_for_deadline(
        self, worker: Worker, _exchange: Exchange | None, grace_s: float
    ) -> None:
        """End the worker; see ``execution.Strategy``."""
        await worker.terminate(grace_s)

    async def give_back(
        self, worker: Worker, exchange: Exchange | None, limit_s: float
    ) -> None:
        """Keep the worker if it serves more, else end it with all it has started."""
        if exchange is not None:
            worker.close_exchange(exchange)
            if (
                exchange.leaves_worker_usable
                and worker.is_usable()
                and not self._workers.is_outdated(worker, RENEW_BEFORE_S)
            ):
                self._waiting.appendleft(worker)
        self._serving.discard(worker)
        try:
            await self._workers.stop_all_but({*self._waiting, *self._serving}, limit_s)
        finally:
            self._learn_from(worker)
            self._has_room.set()

    async def prepare(self, limit_s: Callable[[], float]) -> None:
        """Start the next worker, if one is to wait for its event."""
        await self._workers.renew_credentials(RENEW_BEFORE_S)
        if self._workers.has_leftovers:
            await self._make_room(limit_s())
            self._begin_to_clean()
        if self._settings.warm is not Warm.OFF:
            started = self._fill()
            if started is not None and self._settings.warm is Warm.READY:
                await self._wait_until_ready(started, limit_s())
        await self._clean(limit_s())

    def _take_waiting(self) -> Worker | None:
        """Return the worker that has waited longest, None if there is none."""
        while self._waiting:
            worker = self._waiting.popleft()
            problem = self._problem_of(worker)
            if problem is None:
                self._serving.add(worker)
                return worker
            logger.info("Replacing the waiting process %d: %s", worker.pid, problem)
            worker.kill()  # the rest of its end is left to `give_back`: an event waits
        return None

    def _start_if_room(self) -> Worker | None:
        """Start a worker for an event that waits; None if there are as many as may be.

        Raises:
            WorkerError: It cannot be started.
        """
        if not self._is_room():
            return None
        worker = self._workers.start()
        self._serving.add(worker)
        return worker

    def _fill(self) -> Worker | None:
        """Start as many as are to wait for their events; return the last one."""
        started = None
        # Who waits for room comes first.
        while (
            len(self._waiting) < self._size.waiting
            and self._is_room()
            and not self._queued
        ):
            started = self._start_next()
            if started is None:
                break
            self._waiting.append(started)
        return started

    def _is_room(self) -> bool:
        there = len(self._waiting) + len(self._serving) + self._workers.stopping
        return there < self._size.processes

    def _learn_from(self, worker: Worker) -> None:
        """Note how large a process became that has ended."""
        exited = worker.exit_status
        if exited is not None and self._settings.is_managed_instance:
            self._sizes_bytes.append(exited.peak_bytes - self._footprint.file_bytes)
            self._resize()

    def _resize(self) -> None:
        """Work out how many processes fit, by the largest of late."""
        if not self._settings.is_managed_instance:
            return
        process_bytes = max(self._footprint.own_bytes, *self._sizes_bytes, 0)
        size = pool_size(
            self._settings.concurrency,
            self._settings.memory_mb,
            process_bytes,
            self._footprint.threads,
        )
        if size.processes < min(self._settings.concurrency, self._size.processes):
            logger.warning(
                "There is room for %d processes of %.0f MB each, and up to %d events "
                "may come at once: some will wait; more memory, or a lower "
                "concurrency of the function, would help",
                size.processes,
                process_bytes / MEBIBYTE,
                self._settings.concurrency,
            )
        self._size = size
