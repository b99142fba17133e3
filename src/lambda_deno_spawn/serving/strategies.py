"""How an invocation reaches a handler: by a process of its own, or by one for all.

Decides when processes are started, which one serves, and when it is ended. Refuses to
know what an invocation is, and how long it may take. Decisions 0001 (a process per
event), 0005 (when it is started), 0021 (processes that serve more than one), 0025
(several invocations at once).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.errors import WorkerError, WorkerSpawnError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.processes.child import Footprint
from lambda_deno_spawn.processes.descendants import newly_lost
from lambda_deno_spawn.serving.pool import MEBIBYTE, ONE_AT_A_TIME, pool_size
from lambda_deno_spawn.worker.start import start_worker
from lambda_deno_spawn.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.processes.reaper import Reaper
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.serving.credentials import Credentials, CredentialsKeeper
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.start import StartedWorker

# Init ends after 10 s on classic Lambda and is then repeated under the function's
# timeout (AWS Lambda Developer Guide, "Lambda execution environment lifecycle"). Asking
# for the first event before that keeps a slowly loading module from starting twice.
INIT_LIMIT_S = 9.0
# On Managed Instances it is 130 s or more.
MANAGED_INIT_LIMIT_S = 120.0
# To end a worker and what it started takes milliseconds, unless the kernel holds it.
SWEEP_LIMIT_S = 5.0
# Also where the deadline is over, and where it was in vain before.
SWEEP_LEAST_S = 0.2
# Of a process that nobody has measured.
NO_FOOTPRINT = Footprint(0, 0, 0)
# How many processes that have ended tell how large the next ones may become.
SIZES_KEPT = 32
# Credentials that a process was started with have to last for the longest invocation
# (AWS "Lambda quotas"), and a minute for clocks that differ.
NEEDED_S = 15 * 60 + 60
# Between two events they are renewed earlier, so that none has to wait for that.
RENEW_BEFORE_S = 30 * 60
# Between two slices of what is removed beside events.
CLEAN_PAUSE_S = 0.01
# On the way out: SIGTERM leaves the runtime little time; ending takes a few ms.
CLOSE_LIMIT_S = 1.0


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
        closing = [w for w in self._running - self._stopping if w.begun]
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
            f"{folder}/".startswith(f"{other.private_dir}/") for other in others
        )


class _Common:
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
        return limit_s is not None and time.monotonic() - worker.started_s > limit_s

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


class FreshProcess(_Common):
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
            worker.end(exchange)
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


class _Use:
    """How a process is used that serves several invocations.

    Attributes:
        now: By how many, from ``take`` to ``give_back``.
        ever: By how many until now.
    """

    def __init__(self) -> None:
        self.now = 0
        self.ever = 0


class SharedServer(_Common):
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
        is_stuck = not worker.serves_another(exchange)
        worker.end(exchange)
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
            worker.end(exchange)
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
