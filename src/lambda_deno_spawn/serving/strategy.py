"""What every strategy does: load at init, keep a worker ready, close.

Does not know which worker serves an invocation.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import WorkerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.serving.workers import SWEEP_LIMIT_S

if TYPE_CHECKING:
    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.worker import Worker

# Init ends after 10 s on classic Lambda and is then repeated under the function's
# timeout (AWS Lambda Developer Guide, "Lambda execution environment lifecycle"). Asking
# for the first event before that keeps a slowly loading module from starting twice.
INIT_LIMIT_S = 9.0
# On Managed Instances it is 130 s or more.
MANAGED_INIT_LIMIT_S = 120.0
# Credentials that a process was started with have to last for the longest invocation
# (AWS "Lambda quotas"), and a minute for clocks that differ.
NEEDED_S = 15 * 60 + 60
# Between two events they are renewed earlier, so that none has to wait for that.
RENEW_BEFORE_S = 30 * 60
# Between two slices of what is removed beside events.
CLEAN_PAUSE_S = 0.01
# On the way out: SIGTERM leaves the runtime little time; ending takes a few ms.
CLOSE_LIMIT_S = 1.0


class BaseStrategy:
    """What both strategies do: load at init, and wait for what loads."""

    def __init__(self, settings: Settings, workers: Workers) -> None:
        self._settings = settings
        self._workers = workers

    async def _load(self, worker: Worker, limit_s: float) -> Failure | None:
        """Wait in the init phase until a worker is ready."""
        if self._settings.is_managed_instance:
            limit_s = MANAGED_INIT_LIMIT_S
        # Of what supervisors have left that were killed.
        self._begin_to_clean()
        try:
            async with asyncio.timeout(limit_s):
                return await worker.ready()
        except TimeoutError:
            logger.warning(
                "The handler's module is still loading after %.0f s; "
                "the first invocation will wait for it",
                limit_s,
            )
            return None
        except WorkerError as error:
            return Failure.from_worker_error(error)
        finally:
            if not self._settings.is_managed_instance:
                await self._workers.clean(0.0)

    def _begin_to_clean(self) -> None:
        """Remove what events have left beside what follows."""
        is_beside = self._settings.is_managed_instance
        self._workers.begin_to_clean(CLEAN_PAUSE_S if is_beside else 0.0)

    async def _make_room(self, limit_s: float) -> None:
        """Let what is started find room on the disk, if there is time for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._workers.make_room()

    async def _clean(self, limit_s: float) -> None:
        """Remove what events have left, for so long.

        The next event does not wait for the rest: it follows after that one, or, where
        nothing is frozen, beside it.
        """
        if not self._settings.is_managed_instance:
            await self._workers.clean(limit_s)

    def _start_next(self) -> Worker | None:
        """Start a worker before its event has come, if that can be done."""
        try:
            return self._workers.start()
        except WorkerError as error:
            logger.warning("Cannot start the next process: %s", error)
            return None

    async def _wait_until_ready(self, worker: Worker, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                failure = await worker.ready()
        except TimeoutError:
            return  # it goes on loading in the next invocation's time
        except WorkerError as error:
            logger.warning("The next process ended while it loaded: %s", error)
        else:
            if failure is not None:
                logger.warning(
                    "The next process could not load: %s", failure.error_type
                )

    def _problem_of(self, worker: Worker) -> str | None:
        """Return why a waiting worker cannot serve; it may still be loading."""
        if not worker.is_usable() or self._is_too_old(worker):
            return "it ended or was too old"
        if self._workers.is_outdated(worker, NEEDED_S):
            return "its credentials are about to expire"
        return None

    def _is_too_old(self, worker: Worker) -> bool:
        limit_s = self._settings.warm_max_age_s
        return (
            limit_s is not None
            and time.monotonic() - worker.started.started_s > limit_s
        )

    def _forget_all(self) -> None:
        """Use none of the workers any more."""

    async def clear(self) -> bool:
        """End every worker; others can be started afterwards. False: some live on."""
        self._forget_all()
        await self._workers.stop_all_but(set(), SWEEP_LIMIT_S)
        await self._workers.clean(SWEEP_LIMIT_S)
        return self._workers.is_empty

    async def aclose(self) -> None:
        """End every worker, also one whose end was interrupted."""
        await self._workers.clean(0.0)
        await self._workers.close_all(self._settings.close_grace_s)
        await self._workers.stop_all_but(set(), CLOSE_LIMIT_S)
