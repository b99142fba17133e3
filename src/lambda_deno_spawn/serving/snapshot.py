"""SnapStart: from init, through a snapshot, to the first process after a restore.

Knows what has to be done on both sides of the snapshot and in which order. Does not
know exit codes, or how failures are reported. Decision 0023; the calls are those of
AWS's Python runtime interface client, as the public documentation has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import RuntimeApiError, WorkerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.records import Protocol

if TYPE_CHECKING:
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.start import StartedWorker

BEFORE_SNAPSHOT = "Runtime.BeforeSnapshotError"
# Init may take 130 s or more here (AWS Lambda Developer Guide, "Lambda execution
# environment lifecycle").
LOAD_LIMIT_S = 120.0
# A restored environment has 10 s until its first `next` (the same, "Lambda SnapStart
# runtime hooks"), part of which is over when the runtime is told.
RESTORE_LIMIT_S = 8.0
# A log of init that is not written by then would be written by every clone.
LOG_LIMIT_S = 5.0


class RuntimeApi(Protocol):
    """The calls around a snapshot; ``runtime_api.client``."""

    async def restore_next(self) -> None:
        """Return in a restored environment.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """


class Strategy(Protocol):
    """Starts and ends processes; ``strategy.BaseStrategy``."""

    async def start(
        self, first: StartedWorker | None, limit_s: float
    ) -> Failure | None:
        """Adopt the first process and wait until it is ready."""

    async def clear(self) -> bool:
        """End every process; False: some live on."""


class SnapStart:
    """The steps of a start by snapshot; each returns why it failed, None if not.

    Nothing of a process may be in a snapshot: V8 and Deno draw random numbers from
    seeds that no restore renews, so all clones would draw the same.
    """

    def __init__(
        self,
        api: RuntimeApi,
        strategy: Strategy,
        workers: Workers,
        writer: LogWriter,
        *,
        starts_ahead: bool,
    ) -> None:
        """Do nothing yet.

        Args:
            api: Waits for the snapshot.
            strategy: Adopts and ends processes.
            workers: Starts processes, with credentials.
            writer: The log.
            starts_ahead: A process is started before the first event arrives.
        """
        self._api = api
        self._strategy = strategy
        self._workers = workers
        self._writer = writer
        self._starts_ahead = starts_ahead

    async def load(self) -> Failure | None:
        """Load the module once: it may fail, and it fills caches, the kernel's too.

        Also if processes are not started ahead: no event waits for this one.
        """
        return await self._start(LOAD_LIMIT_S)

    async def suspend(self) -> Failure | None:
        """End everything that must not be in the snapshot, and wait for the restore."""
        if not await self._strategy.clear():
            message = (
                "Cannot take a snapshot: a process of the handler's cannot be ended"
            )
            return Failure.of(BEFORE_SNAPSHOT, message)
        if self._workers.credentials is not None:
            self._workers.credentials.forget()
        await self._writer.drained(LOG_LIMIT_S)
        try:
            await self._api.restore_next()
        except RuntimeApiError as error:
            return Failure.of(BEFORE_SNAPSHOT, str(error))
        return None

    async def resume(self) -> Failure | None:
        """Start a process with random numbers and credentials of its own."""
        logger.info("Restored from a snapshot")
        if not self._starts_ahead:
            return None
        return await self._start(RESTORE_LIMIT_S)

    async def _start(self, limit_s: float) -> Failure | None:
        if self._workers.credentials is not None:
            await self._workers.credentials.refresh(0.0)
        try:
            first = self._workers.launch()
        except WorkerError as error:
            return Failure.from_worker_error(error)
        return await self._strategy.start(first, limit_s)
