"""SnapStart: from init, through a snapshot, to the first process of what is restored.

Knows what has to be done on both sides of the snapshot and in which order. Refuses to
know exit codes, and how failures are reported. Decision 0023; the calls are those of
AWS's Python runtime interface client, as the public documentation has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.errors import RuntimeApiError, WorkerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log.writer import logger

if TYPE_CHECKING:
    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.start import StartedWorker

BEFORE_SNAPSHOT = "Runtime.BeforeSnapshotError"
# Init may take 130 s or more here (AWS Lambda Developer Guide, "Lambda execution
# environment lifecycle").
LOAD_LIMIT_S = 120.0
# A restored environment has 10 s until its first `next` (the same, "Lambda SnapStart
# runtime hooks"), part of which is gone when we hear of it.
RESTORE_LIMIT_S = 8.0
# What init has logged and is not written yet would be written by every clone.
LOG_FLUSH_LIMIT_S = 5.0


class RuntimeApi(Protocol):
    """Where the snapshot is waited for."""

    async def restore_next(self) -> None:
        """Return in a restored environment.

        Raises:
            RuntimeApiError: No snapshot can be taken.
        """


class Strategy(Protocol):
    """What starts and ends processes."""

    async def start(
        self, first: StartedWorker | None, limit_s: float
    ) -> Failure | None:
        """Take over the first process and wait until it is ready."""

    async def clear(self) -> bool:
        """End every process; False: some live on."""


class SnapStart:
    """The steps of a start by snapshot; each returns why it failed, None if not.

    Nothing of a process may be in a snapshot: V8 and Deno draw random numbers from
    seeds that no restore renews, so all clones would draw the same.
    """

    def __init__(
        self,
        settings: Settings,
        api: RuntimeApi,
        strategy: Strategy,
        workers: Workers,
        writer: LogWriter,
        credentials: CredentialsKeeper | None,
    ) -> None:
        """Take what there is before the first process; does nothing yet."""
        self._settings = settings
        self._api = api
        self._strategy = strategy
        self._workers = workers
        self._writer = writer
        self._credentials = credentials

    async def load(self) -> Failure | None:
        """Load the module once: it may fail, and it fills caches, the kernel's too.

        Also with ``off``, as no event waits for it and no caller pays.
        """
        return await self._start(LOAD_LIMIT_S)

    async def suspend(self) -> Failure | None:
        """End what is not to be in the snapshot, and wait for that and the restore."""
        if not await self._strategy.clear():
            message = (
                "Cannot take a snapshot: a process of the handler's cannot be ended"
            )
            return Failure.of(BEFORE_SNAPSHOT, message)
        if self._credentials is not None:
            self._credentials.forget()
        await self._writer.drained(LOG_FLUSH_LIMIT_S)
        try:
            await self._api.restore_next()
        except RuntimeApiError as error:
            return Failure.of(BEFORE_SNAPSHOT, str(error))
        return None

    async def resume(self) -> Failure | None:
        """Start a process with random numbers and credentials of its own."""
        logger.info("Restored from a snapshot")
        if self._settings.warm is Warm.OFF:
            return None
        return await self._start(RESTORE_LIMIT_S)

    async def _start(self, limit_s: float) -> Failure | None:
        if self._credentials is not None:
            await self._credentials.refresh(0.0)
        try:
            first = self._workers.launch()
        except WorkerError as error:
            return Failure.from_worker_error(error)
        return await self._strategy.start(first, limit_s)
