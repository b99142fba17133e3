"""One long-lived process that all invocations go to, several at a time.

Does not know what an invocation is, or how long it may take. Decisions 0021 (processes
that serve more than one), 0029 (what was not handed over goes to another process).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.serving.strategy import (
    INIT_LIMIT_S,
    NEEDED_S,
    RENEW_BEFORE_S,
    BaseStrategy,
)
from lambda_deno_spawn.serving.workers import SWEEP_LEAST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.start import StartedWorker
    from lambda_deno_spawn.worker.worker import Worker


class _Use:
    """How a process is used that serves several invocations.

    Attributes:
        now: By how many, from ``take`` to ``give_back``.
        ever: By how many until now.
    """

    def __init__(self) -> None:
        self.now = 0
        self.ever = 0


class SharedServer(BaseStrategy):
    """One long-lived process that all invocations go to, several at a time."""

    def __init__(self, settings: Settings, workers: Workers) -> None:
        """Take what starts workers; starts none yet."""
        super().__init__(settings, workers)
        self._server: Worker | None = None
        # No new invocations go to these; they end with their last one.
        self._retired: set[Worker] = set()
        # From the moment a process is assigned: what is about to be handed over to it
        # does not show in the process itself yet.
        self._uses: dict[Worker, _Use] = {}

    async def start(
        self, first: StartedWorker | None, limit_s: float = INIT_LIMIT_S
    ) -> Failure | None:
        """Finish the init phase; as ``FreshProcess.start``."""
        if first is None:
            return None
        self._server = self._workers.adopt(first)
        return await self._load(self._server, limit_s)

    def _forget_all(self) -> None:
        self._server = None
        self._retired.clear()
        self._uses.clear()

    async def take(self) -> Worker:
        """Return the process, or another one if it cannot serve any more."""
        await self._workers.renew_credentials(NEEDED_S)
        await self._workers.make_room()
        server = self._server
        if server is not None:
            problem = self._problem_of(server)
            if problem is None and self._is_spent(server):
                problem = "it serves as many events as it may"
            if problem is None:
                return self._used(server)
            logger.info("Replacing the waiting process %d: %s", server.pid, problem)
            self._retire(server)
        self._server = self._workers.start()
        return self._used(self._server)

    def _used(self, worker: Worker) -> Worker:
        use = self._uses.setdefault(worker, _Use())
        use.now += 1
        use.ever += 1
        return worker

    def _is_used(self, worker: Worker) -> bool:
        use = self._uses.get(worker)
        return use is not None and use.now > 0

    def _is_spent(self, server: Worker) -> bool:
        limit, use = self._settings.max_invocations, self._uses.get(server)
        return limit is not None and use is not None and use.ever >= limit

    def _retire(self, worker: Worker) -> None:
        if worker is self._server:
            self._server = None
        self._retired.add(worker)

    async def stop_for_deadline(
        self, worker: Worker, exchange: Exchange | None, grace_s: float
    ) -> None:
        """End the process, or if others are served by it, what goes on in it.

        What a handler that had its time still does cannot be stopped from outside, so
        the process serves no other one.
        """
        if exchange is None and self._settings.concurrency > 1:
            return  # others may wait for the same module, and have more time
        self._retire(worker)
        use = self._uses.get(worker)
        if exchange is None or use is None or use.now < 2:
            await worker.terminate(grace_s)
            return
        is_stuck = not worker.has_read_another(exchange)
        worker.close_exchange(exchange)
        if is_stuck:
            # It reads none of the others' events, or has had no time to: they are not
            # to wait for it, and go to another process. At once, or it might begin one.
            worker.kill()

    async def give_back(
        self, worker: Worker, exchange: Exchange | None, limit_s: float
    ) -> None:
        """End a process that serves no more, with its last invocation."""
        if worker in self._uses:
            self._uses[worker].now -= 1
        if exchange is None:
            if not worker.is_usable():
                self._retire(worker)
        else:
            worker.close_exchange(exchange)
            # Now, so that the next one does not start while an event waits.
            if (
                not exchange.leaves_worker_usable
                or self._is_spent(worker)
                or self._workers.is_outdated(worker, RENEW_BEFORE_S)
            ):
                self._retire(worker)
        for retired in [one for one in self._retired if not self._is_used(one)]:
            if self._workers.is_stopping(retired):
                continue
            await self._workers.stop(retired, max(limit_s, SWEEP_LEAST_S))
            if retired.is_stopped:  # else it is tried again after the next event
                self._retired.discard(retired)
                self._uses.pop(retired, None)

    async def prepare(self, limit_s: Callable[[], float]) -> None:
        """Start the process again if it had to end."""
        await self._workers.renew_credentials(RENEW_BEFORE_S)
        if self._workers.has_leftovers:
            await self._make_room(limit_s())
            self._begin_to_clean()
        if self._settings.warm is not Warm.OFF and self._server is None:
            self._server = self._start_next()
            if self._server is not None and self._settings.warm is Warm.READY:
                await self._wait_until_ready(self._server, limit_s())
        await self._clean(limit_s())
