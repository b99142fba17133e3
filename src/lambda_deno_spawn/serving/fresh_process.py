"""A process of its own for each invocation, or for a few, started ahead of them.

Decisions 0001 (a process per event), 0005 (when it is started), 0021 (reuse), 0025
(several invocations at once).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.serving.strategy import RENEW_BEFORE_S, BaseStrategy

if TYPE_CHECKING:
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.pool import PoolPolicy
    from lambda_deno_spawn.serving.strategy import Lease, WarmPolicy
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.worker import Worker


class FreshProcess(BaseStrategy):
    """Lends each worker to one invocation at a time."""

    def __init__(
        self,
        workers: Workers,
        leftovers: Leftovers,
        warm: WarmPolicy,
        pool: PoolPolicy,
    ) -> None:
        """Start no worker yet; ``pool`` decides how many there may be."""
        super().__init__(workers, leftovers, warm)
        self._pool = pool
        self._waiting: deque[Worker] = deque()
        self._lent: set[Worker] = set()
        # Invocations that wait until there may be one more process.
        self._queued = 0
        self._room_changed = asyncio.Event()

    async def assign(self) -> Worker:
        """Return the worker that has waited longest, else a new one; wait for room."""
        if self._workers.credentials is not None or self._leftovers.are_there:
            await self._ready_to_start()
        while (worker := self._take_waiting() or self._start_if_room()) is None:
            self._room_changed.clear()
            self._queued += 1
            try:
                await self._room_changed.wait()
            finally:
                self._queued -= 1
        if self._pool.limit is not None and self._warm.when is not Warm.OFF:
            # Others may arrive before this one ends; but it is handed over first.
            asyncio.get_running_loop().call_soon(self._refill)
        return worker

    async def stop(self, lease: Lease, grace_s: float) -> None:
        """End the worker: it serves nothing else."""
        await lease.worker.terminate(grace_s)

    def take_back(self, lease: Lease) -> None:
        """Keep the worker if it serves more."""
        worker, exchange = lease.worker, lease.exchange
        if exchange is not None:
            worker.close_exchange(exchange)
            if (
                exchange.leaves_worker_usable
                and worker.is_usable()
                and not self._workers.is_outdated(worker, RENEW_BEFORE_S)
            ):
                self._waiting.appendleft(worker)
        self._lent.discard(worker)
        self._room_changed.set()

    async def end_unused(self, lease: Lease, limit_s: float) -> None:
        """End every worker that neither waits nor is lent, with all it has started."""
        try:
            await self._workers.stop_all_but({*self._waiting, *self._lent}, limit_s)
        finally:
            if self._pool.limit is not None:
                self._note_end_of(lease.worker)
            self._room_changed.set()

    def _take_waiting(self) -> Worker | None:
        """Return the worker that has waited longest, None if there is none."""
        while self._waiting:
            worker = self._waiting.popleft()
            problem = self._problem_of(worker)
            if problem is None:
                self._lent.add(worker)
                if self._workers.templates is not None and worker.ready_s is not None:
                    self._workers.templates.waiting(worker)
                return worker
            logger.info("Replacing the waiting process %d: %s", worker.pid, problem)
            # `end_unused` does the rest: an event waits.
            if not worker.has_last_words:
                worker.kill()
        return None

    def _start_if_room(self) -> Worker | None:
        """Start a worker for an event that waits; None if there are as many as may be.

        Raises:
            WorkerError: It cannot be started.
        """
        if not self._has_room():
            return None
        worker = self._workers.start()
        self._lent.add(worker)
        return worker

    def _keep(self, worker: Worker) -> None:
        self._waiting.append(worker)

    def _loaded(self, worker: Worker | None) -> None:
        if self._pool.limit is None:
            return
        footprint = None if worker is None else worker.footprint()
        self._warn(self._pool.note_loaded(footprint))
        if worker is not None:
            self._refill()

    def _refill(self) -> Worker | None:
        started = None
        # An invocation that waits for room has it first.
        while (
            len(self._waiting) < self._pool.waiting
            and not self._queued
            and self._has_room()
        ):
            started = self._start_next()
            if started is None:
                break
            self._waiting.append(started)
        return started

    def _has_room(self) -> bool:
        limit = self._pool.limit
        if limit is None:
            return True
        return len(self._waiting) + len(self._lent) + self._workers.stopping < limit

    def _note_end_of(self, worker: Worker) -> None:
        if worker.exit_status is not None:
            self._warn(self._pool.note_ended(worker.exit_status.peak_bytes))

    def _warn(self, warning: str | None) -> None:
        if warning is not None:
            logger.warning("%s", warning)

    def _forget_all(self) -> None:
        self._waiting.clear()
        self._lent.clear()
