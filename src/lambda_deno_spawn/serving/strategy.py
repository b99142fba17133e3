"""The part that strategies share: lend workers, load at init, prepare, close.

A lease is the only way to a worker: the worker is in use from the moment it is assigned
until the lease is given back, and what is measured of it is fixed meanwhile. Does not
know which worker serves an invocation, or how long that may take.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.errors import WorkerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.serving.workers import SWEEP_LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.processes.reaper import ExitStatus
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.start import StartedWorker
    from lambda_deno_spawn.worker.worker import Worker

# Init ends after 10 s on classic Lambda and is then repeated under the function's
# timeout (AWS Lambda Developer Guide, "Lambda execution environment lifecycle"). Asking
# for the first event before that keeps a slowly loading module from starting twice.
INIT_LIMIT_S = 9.0
# On Managed Instances init may take 130 s or more.
MANAGED_INIT_LIMIT_S = 120.0
# Credentials that a process was started with have to last for the longest invocation
# (AWS "Lambda quotas"), and a minute for clocks that differ.
NEEDED_S = 15 * 60 + 60
# Between two events they are renewed earlier, so that no event has to wait for that.
RENEW_BEFORE_S = 30 * 60
# On the way out: SIGTERM leaves the runtime little time; ending takes a few ms.
CLOSE_LIMIT_S = 1.0


class WarmPolicy(NamedTuple):
    """When a worker is started.

    Attributes:
        when: Before its event, and whether that is waited for.
        max_age_s: A waiting worker that is older is replaced; None: no limit.
    """

    when: Warm
    max_age_s: float | None = None


class Facts(NamedTuple):
    """Facts about a worker, fixed when it was handed its invocation.

    Attributes:
        why_not_forked: Why the worker is not a copy of a loaded process; None: it is.
        number: Position of the invocation in its worker, from 1; 0: not handed over.
        is_first: No other invocation was handed to the worker before.
        started_s: When the worker was started; this and the next two: monotonic clock.
        spawn_s: How long the system call took that started it.
        ready_s: When its module was loaded; None: it was not.
        handed_over_s: When it got the event; None: it did not.
    """

    why_not_forked: str | None
    number: int
    is_first: bool
    started_s: float
    spawn_s: float
    ready_s: float | None
    handed_over_s: float | None


class Usage(NamedTuple):
    """Leftovers of an invocation, and the exit of its worker if that has ended.

    Attributes:
        exited: How the process ended and what it used; None: it runs on.
        left_processes: Programs that it left running.
        left_files: Files that it left in its folder.
    """

    exited: ExitStatus | None
    left_processes: int
    left_files: int


class Lease:
    """The use of a worker for one invocation: ``async with strategy.lease(...)``.

    ``acquire`` and ``release`` are for an owner whose work is not one block.

    Attributes:
        worker: Once it is acquired; it may still be loading.
        exchange: The invocation in the worker; None: it was not handed over.
    """

    worker: Worker

    def __init__(self, strategy: BaseStrategy, left_s: Callable[[], float]) -> None:
        """Have no worker yet.

        Args:
            strategy: Assigns the worker and takes it back.
            left_s: Tells how much time is left for the end of the worker.
        """
        self.exchange: Exchange | None = None
        self._strategy = strategy
        self._left_s = left_s
        self._is_held = False
        self._was_first = False

    async def __aenter__(self) -> Self:
        """Acquire."""
        return await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        """Release."""
        await self.release()

    @property
    def is_alone(self) -> bool:
        """True if no other invocation was ever handed to the worker."""
        return self.worker.handed_over <= (self.exchange is not None)

    @property
    def facts(self) -> Facts:
        """Facts about the worker at the hand-over.

        Without a hand-over: when the lease was given back.
        """
        worker, exchange = self.worker, self.exchange
        number = 0 if exchange is None else exchange.number
        return Facts(
            self._strategy.why_not_forked(worker),
            number,
            self._was_first if exchange is None else number == 1,
            worker.started.started_s,
            worker.started.spawn_s,
            worker.ready_s,
            None if exchange is None else exchange.handed_over_s,
        )

    @property
    def usage(self) -> Usage:
        """Leftovers of the invocation; complete once the lease is released."""
        worker = self.worker
        return Usage(worker.exit_status, worker.left_processes, worker.left_files)

    async def acquire(self) -> Self:
        """Wait for a worker; it is in use from this moment.

        Raises:
            WorkerError: None can be started.
        """
        self.worker = await self._strategy.assign()
        self._is_held = True
        return self

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Hand over the invocation to the worker, which must be ready.

        Args:
            invocation: Event and facts.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.

        Raises:
            WorkerUnreachedError: The worker cannot be reached.
            WorkerSpawnError: The system has nothing left to reach it with.
        """
        exchange = await self.worker.hand_over(invocation, abort_epoch_ms)
        self.exchange = exchange
        return exchange

    async def stop(self, grace_s: float) -> None:
        """Stop the work in the worker for this invocation: its time is over.

        Args:
            grace_s: Time between SIGTERM and SIGKILL.
        """
        await self._strategy.stop(self, grace_s)

    async def release(self) -> None:
        """Give the worker back, and end it if it serves no more; once."""
        if self._is_held:
            self.give_back()
            await self._strategy.end_unused(self, self._left_s())

    def give_back(self) -> None:
        """Count the worker as free, at once and once.

        Its end is left to the next release, or to ``BaseStrategy.aclose``: for an owner
        that is cancelled because the runtime ends.
        """
        if self._is_held:
            self._is_held = False
            if self.exchange is None:  # others may be handed over later
                self._was_first = not self.worker.handed_over
            self._strategy.take_back(self)


class BaseStrategy(ABC):
    """Lends workers; subclasses decide which."""

    def __init__(
        self, workers: Workers, leftovers: Leftovers, warm: WarmPolicy
    ) -> None:
        """Start no worker yet.

        Args:
            workers: Starts them, and knows all of them.
            leftovers: Removes what events have left.
            warm: When a worker is started.
        """
        self._workers = workers
        self._leftovers = leftovers
        self._warm = warm

    def lease(self, left_s: Callable[[], float]) -> Lease:
        """Return a lease that is not acquired yet.

        Args:
            left_s: Tells how much time is left for the end of the worker.
        """
        return Lease(self, left_s)

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
            self._loaded(None)
            return None
        worker = self._workers.adopt(first)
        self._keep(worker)
        failure = await self._load(worker, limit_s)
        if failure is None:
            self._loaded(worker)
        return failure

    async def check_fork(self, limit_s: float) -> str | None:
        """Have copies in the place of the first process, or return why not.

        Args:
            limit_s: If loading takes longer, it is found out with the first events.
        """
        templates = self._workers.templates
        if templates is None or not self._workers.are_loaded:
            return None
        # There may be no room for both; without a copy this is an init error.
        self._forget_all()
        await self._workers.stop_all_but(set(), SWEEP_LIMIT_S)
        reason = await templates.check(limit_s)
        if reason is None and self._warm.when is not Warm.OFF:
            started = self._refill()
            if started is not None:
                await self._wait_until_ready(started, limit_s)
        return reason

    def why_not_forked(self, worker: Worker) -> str | None:
        """Return why a worker is not a copy of a loaded process; None: it is one."""
        return None if worker.started.is_forked else self._workers.why_not_fork

    async def prepare(self, left_s: Callable[[], float]) -> None:
        """Have a worker for the next invocation.

        Args:
            left_s: Tells how much time is left for that.
        """
        if self._workers.credentials is not None:
            await self._workers.credentials.refresh(RENEW_BEFORE_S)
        has_leftovers = self._leftovers.are_there
        if has_leftovers:
            await self._leftovers.make_room(left_s())
            self._leftovers.begin_removal()
        templates = self._workers.find_templates()
        if templates is not None:
            if has_leftovers and templates.is_due(NEEDED_S):
                # The process needs time as well, and the memory of leftover files if
                # /tmp is in memory.
                await self._leftovers.before_freeze(lambda: left_s() / 2)
            await templates.prepare(
                NEEDED_S, left_s(), waits=self._warm.when is not Warm.BACKGROUND
            )
        if self._warm.when is not Warm.OFF:
            started = self._refill()
            if started is not None and self._warm.when is Warm.READY:
                await self._wait_until_ready(started, left_s())
                if templates is not None:
                    templates.waiting(started)
        if has_leftovers:
            await self._leftovers.before_freeze(left_s)

    async def clear(self) -> bool:
        """End every worker; others can be started afterwards. False: some live on."""
        self._forget_all()
        self._workers.drop_template()
        await self._workers.stop_all_but(set(), SWEEP_LIMIT_S)
        await self._leftovers.end_removal(SWEEP_LIMIT_S)
        return self._workers.is_empty

    async def aclose(self, grace_s: float) -> None:
        """End every worker, also one whose end was interrupted.

        Args:
            grace_s: How long those that have seen an event may take to close.
        """
        self._workers.drop_template()
        await self._leftovers.end_removal(0.0)
        await self._workers.close_all(grace_s)
        await self._workers.stop_all_but(set(), CLOSE_LIMIT_S)

    # For a lease.

    @abstractmethod
    async def assign(self) -> Worker:
        """Return a worker for one invocation, which is in use from now on.

        It may still be loading.

        Raises:
            WorkerError: None can be started.
        """

    @abstractmethod
    async def stop(self, lease: Lease, grace_s: float) -> None:
        """Stop the work for a lease whose time is over; see ``Lease.stop``."""

    @abstractmethod
    def take_back(self, lease: Lease) -> None:
        """Count the worker of a lease as free."""

    @abstractmethod
    async def end_unused(self, lease: Lease, limit_s: float) -> None:
        """End the workers that serve no more.

        Args:
            lease: The one that was given back.
            limit_s: Time for that.
        """

    # Different in each strategy.

    @abstractmethod
    def _keep(self, worker: Worker) -> None:
        """Keep a worker for the next invocation."""

    @abstractmethod
    def _refill(self) -> Worker | None:
        """Start the workers that wait for events; return the last one started."""

    @abstractmethod
    def _forget_all(self) -> None:
        """Use none of the workers any more."""

    @abstractmethod
    def _loaded(self, worker: Worker | None) -> None:
        """Note that init is over; None: no worker was started."""

    # For both strategies.

    async def _load(self, worker: Worker, limit_s: float) -> Failure | None:
        """Wait in the init phase until a worker is ready."""
        self._leftovers.begin_removal()  # those of supervisors that were killed
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
            await self._leftovers.before_freeze(lambda: 0.0)

    async def _ready_to_start(self) -> None:
        """Have what a worker needs if one has to be started: credentials and room."""
        if self._workers.credentials is not None:
            await self._workers.credentials.refresh(NEEDED_S)
        await self._leftovers.make_room()

    def _start_next(self) -> Worker | None:
        """Start a worker before its event arrives, if that can be done."""
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
        age_s = time.monotonic() - worker.started.started_s
        limit_s = self._warm.max_age_s
        if not worker.is_usable() or (limit_s is not None and age_s > limit_s):
            return "it ended or was too old"
        if self._workers.credentials and self._workers.is_outdated(worker, NEEDED_S):
            return "its credentials are about to expire"
        return None
