"""One long-lived process that all invocations go to, several at a time.

Decisions 0021 (processes that serve more than one), 0029 (what was not handed over goes
to another process).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.serving.strategy import RENEW_BEFORE_S, BaseStrategy
from lambda_deno_spawn.serving.workers import SWEEP_LEAST_S

if TYPE_CHECKING:
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.strategy import Lease, WarmPolicy
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.worker import Worker


class _Use:
    """How a server is used.

    Attributes:
        now: Leases that are not given back.
        ever: Leases so far.
    """

    def __init__(self) -> None:
        self.now = 0
        self.ever = 0


class SharedServer(BaseStrategy):
    """Lends the same worker to all invocations, until it has to be replaced."""

    def __init__(
        self,
        workers: Workers,
        leftovers: Leftovers,
        warm: WarmPolicy,
        *,
        max_invocations: int | None,
        concurrency: int,
    ) -> None:
        """Start no worker yet.

        Args:
            workers: Starts them, and knows all of them.
            leftovers: Removes what events have left.
            warm: When a worker is started.
            max_invocations: A server that was lent so often is replaced; None: never.
            concurrency: How many invocations may run at once.
        """
        super().__init__(workers, leftovers, warm)
        self._max_invocations = max_invocations
        self._concurrency = concurrency
        self._server: Worker | None = None
        # No new invocations go to these; each ends with its last lease.
        self._retired: set[Worker] = set()
        # Those of the retired that were still loading at the deadline of an event.
        self._late: set[Worker] = set()
        # Counted by leases: an invocation that is about to be handed over does not show
        # in the worker itself yet.
        self._uses: dict[Worker, _Use] = {}

    async def assign(self) -> Worker:
        """Return the server, or a new one if it cannot serve this invocation."""
        if self._workers.credentials is not None or self._leftovers.are_there:
            await self._ready_to_start()
        self._take_back_loaded()
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

    async def stop(self, lease: Lease, grace_s: float) -> None:
        """End the server, or if others are served by it, this exchange alone.

        What a handler still does after its time is over cannot be stopped from outside,
        so the server gets no other invocations.
        """
        worker, exchange = lease.worker, lease.exchange
        use = self._uses.get(worker)
        if exchange is None and self._concurrency > 1:
            # Others may wait for the same module, and have more time; it ends with the
            # last of them. But it may load for ever, so new ones go to another.
            if worker.ready_s is None:
                self._retire(worker)
                self._late.add(worker)
            return
        self._retire(worker)
        if exchange is None or use is None or use.now < 2:
            await worker.terminate(grace_s)
            return
        is_stuck = not worker.has_read_another(exchange)
        worker.close_exchange(exchange)
        if is_stuck:
            # It has read none of the others' events. They go to another process instead
            # of waiting for it; killed at once, before it can begin one.
            worker.kill()

    def take_back(self, lease: Lease) -> None:
        """Retire the server if this exchange leaves it in doubt, or was the last."""
        worker, exchange = lease.worker, lease.exchange
        if worker in self._uses:
            self._uses[worker].now -= 1
        if exchange is None:
            if not worker.is_usable():
                self._retire(worker)
            return
        worker.close_exchange(exchange)
        # Now, so that the next one does not start while an event waits.
        if (
            not exchange.leaves_worker_usable
            or self._is_spent(worker)
            or self._workers.is_outdated(worker, RENEW_BEFORE_S)
        ):
            self._retire(worker)

    async def end_unused(self, lease: Lease, limit_s: float) -> None:
        """End each retired server whose last lease was given back."""
        for retired in [one for one in self._retired if not self._is_used(one)]:
            if self._workers.is_stopping(retired):
                continue
            await self._workers.stop(retired, max(limit_s, SWEEP_LEAST_S), limit_s)
            if retired.is_stopped:  # else it is tried again after the next event
                self._retired.discard(retired)
                self._late.discard(retired)
                self._uses.pop(retired, None)

    def _used(self, worker: Worker) -> Worker:
        use = self._uses.setdefault(worker, _Use())
        use.now += 1
        use.ever += 1
        return worker

    def _is_used(self, worker: Worker) -> bool:
        use = self._uses.get(worker)
        return use is not None and use.now > 0

    def _is_spent(self, server: Worker) -> bool:
        limit, use = self._max_invocations, self._uses.get(server)
        return limit is not None and use is not None and use.ever >= limit

    def _take_back_loaded(self) -> None:
        """Prefer a server that has loaded at last to one that has not.

        A module that takes longer than an event may take would otherwise never serve:
        each server would be retired before it has loaded.
        """
        if self._server is not None and self._server.ready_s is not None:
            return
        for worker in self._late:
            if worker.ready_s is not None and worker.is_usable():
                if self._server is not None:
                    self._retire(self._server)
                    self._late.add(self._server)
                self._retired.discard(worker)
                self._late.discard(worker)
                self._server = worker
                return

    def _retire(self, worker: Worker) -> None:
        if worker is self._server:
            self._server = None
        self._retired.add(worker)
        self._late.discard(worker)

    def _keep(self, worker: Worker) -> None:
        self._server = worker

    def _loaded(self, worker: Worker | None) -> None:
        """There is nothing to be measured."""

    def _refill(self) -> Worker | None:
        if self._server is not None:
            return None
        self._server = self._start_next()
        return self._server

    def _forget_all(self) -> None:
        self._server = None
        self._retired.clear()
        self._late.clear()
        self._uses.clear()
