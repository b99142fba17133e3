"""Every worker that there is: started, known until its end, and ended for certain.

Does not know which worker serves an invocation, or when one is started.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.processes.descendants import newly_lost
from lambda_deno_spawn.worker.start import start_worker
from lambda_deno_spawn.worker.worker import Worker

if TYPE_CHECKING:
    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.processes.child import Reaper
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.serving.credentials import Credentials, CredentialsKeeper
    from lambda_deno_spawn.worker.start import StartedWorker

# To end a worker and what it started takes milliseconds, unless the kernel holds it.
SWEEP_LIMIT_S = 5.0
# Also where the deadline is over, and where it was in vain before.
SWEEP_LEAST_S = 0.2


class Workers:
    """Every worker that there is: starts them, and ends each for certain."""

    def __init__(
        self,
        command: DenoCommand,
        state: StateDir,
        cache: ModuleCache,
        writer: LogWriter,
        reaper: Reaper,
        credentials: CredentialsKeeper | None = None,
    ) -> None:
        """Take what is needed to start workers; starts none yet.

        Args:
            command: How they are started.
            state: Where their folders are.
            cache: What they have of Deno's cache.
            writer: Where their logs go.
            reaper: Who waits for them.
            credentials: What has to be fetched for them; None: nothing.
        """
        self._command = command
        self._credentials = credentials
        self._started_with: dict[Worker, Credentials | None] = {}
        self._state = state
        self._cache = cache
        self._writer = writer
        self._reaper = reaper
        self._running: set[Worker] = set()
        self._stopping: set[Worker] = set()
        self._is_unswept = False
        self._cleaning: asyncio.Task[None] | None = None

    def start(self) -> Worker:
        """Start one; does not wait for it.

        Raises:
            WorkerError: It cannot be started.
        """
        return self.adopt(self.launch())

    def launch(self) -> StartedWorker:
        """Start a process that is to be adopted at once.

        Raises:
            WorkerError: It cannot be started.
        """
        command = self._command
        if self._credentials is not None:
            command = self._credentials.command(command)
        try:
            return start_worker(command, self._state, self._cache)
        except OSError as error:
            action = f"make a folder for the process in {self._state.path!r}"
            raise WorkerSpawnError.from_os_error(action, error) from error
        finally:
            for lost in newly_lost():
                logger.warning("%s", lost)

    def adopt(self, started: StartedWorker) -> Worker:
        """Take over a process that runs already."""
        loop = asyncio.get_running_loop()
        worker = Worker(
            started, self._writer, loop, self._reaper, self._state, self._cache
        )
        self._running.add(worker)
        if self._credentials is not None:
            self._started_with[worker] = self._credentials.current
        return worker

    @property
    def stopping(self) -> int:
        """How many are being ended."""
        return len(self._stopping)

    def is_stopping(self, worker: Worker) -> bool:
        """Tell whether it is being ended."""
        return worker in self._stopping

    async def renew_credentials(self, needed_s: float) -> None:
        """Have credentials for the next process that last so long, if there are any."""
        if self._credentials is not None:
            await self._credentials.refresh(needed_s)

    def is_outdated(self, worker: Worker, needed_s: float) -> bool:
        """Tell whether its credentials do not last so long, and another's would."""
        if self._credentials is None:
            return False
        own = self._started_with.get(worker)
        if own == self._credentials.current:
            return False
        return own is None or not self._credentials.lasts(own, needed_s)

    @property
    def is_empty(self) -> bool:
        """True if nothing runs that was started here."""
        return not self._running and not self._is_unswept

    async def close_all(self, grace_s: float) -> None:
        """Let those that have seen an event close, all at once; ``stop`` does the rest.

        Args:
            grace_s: How long they may take.
        """
        closing = [w for w in self._running - self._stopping if w.handed_over]
        await asyncio.gather(*(worker.close(grace_s) for worker in closing))

    async def stop(self, worker: Worker, limit_s: float) -> None:
        """End a worker; what could not be ended is tried again with the next one."""
        if self._is_unswept:  # what could not be ended then will hardly be now
            limit_s = min(limit_s, SWEEP_LEAST_S)
        self._stopping.add(worker)
        try:
            is_ended = await worker.stop(limit_s, self._is_of_another)
        finally:
            self._stopping.discard(worker)
        if not is_ended and not self._is_unswept:
            logger.error(
                "Cannot end process %d, or something it has started, within %.1f s: "
                "the kernel holds it; it is tried again after each event",
                worker.pid,
                limit_s,
            )
        self._is_unswept = not is_ended
        if worker.is_stopped:
            self._running.discard(worker)
            self._started_with.pop(worker, None)

    @property
    def has_leftovers(self) -> bool:
        """True while something that events left is to be removed."""
        return self._state.has_leftovers

    def begin_to_clean(self, pause_s: float = 0.0) -> None:
        """Remove what events have left beside whatever goes on, until all is gone.

        Args:
            pause_s: Between two slices.
        """
        is_running = self._cleaning is not None and not self._cleaning.done()
        if self._state.has_leftovers and not is_running:
            self._cleaning = asyncio.create_task(self._clean(pause_s))

    async def _clean(self, pause_s: float) -> None:
        is_over = False
        while not is_over:
            is_over = self._state.remove_some()
            await asyncio.sleep(pause_s)

    async def clean(self, limit_s: float) -> None:
        """Remove what events have left for so long; the rest has its time later."""
        self.begin_to_clean()
        cleaning, self._cleaning = self._cleaning, None
        if cleaning is not None:
            if limit_s > 0:
                await asyncio.wait([cleaning], timeout=limit_s)
            cleaning.cancel()

    async def make_room(self) -> None:
        """Remove what earlier events have left first, if the disk is short of room."""
        while self._state.has_leftovers and self._state.is_short_of_room():
            self._state.remove_some()
            await asyncio.sleep(0)

    async def stop_all_but(self, kept: set[Worker], limit_s: float) -> None:
        """End every worker that is not kept, and that nobody is ending."""
        doomed = self._running - kept
        for worker in doomed - self._stopping:
            worker.kill()  # all at once: each takes its time to end
        for worker in doomed:
            if worker not in self._stopping:
                await self.stop(worker, min(SWEEP_LIMIT_S, max(limit_s, SWEEP_LEAST_S)))

    def _is_of_another(self, pid: int) -> bool:
        """Tell whether a process whose parent is gone stems from one that goes on."""
        others = self._running - self._stopping
        folder = self._state.private_dir_of(pid) if others else None
        return folder is not None and any(
            f"{folder}/".startswith(f"{other.started.private_dir}/") for other in others
        )
