"""The environments of one function, and the requests that wait for them.

Knows which environment gets which request, when another one is started, and how the
function's code is replaced: running requests finish on the old code, the next one runs
the new. Does not know how an environment works. As on Lambda, an environment serves one
tenant only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.environments import Environment, Place, platform
from lambda_deno_spawn.dev.devserver.journal import Notice
from lambda_deno_spawn.dev.local.environment import OutcomeKind
from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_deno_spawn.dev.devserver.functions import ServedFunction
    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.journal import Journal

WAITING_LIMIT = 1000  # requests of a function; more are refused, as by Lambda's quota
# How long a request waits for an environment that has just answered, and only ends its
# process, before another one is started for it.
PATIENCE_S = 0.5
IDLE_LIMIT_S = 300.0  # Lambda ends idle environments too, after minutes
TAKES_LIMIT = 3  # of a request by environments that end before they serve it


class TooManyRequestsError(LambdaDenoSpawnError):
    """Too many requests of a function wait already."""


def count_to_start(
    *, waiting: int, impatient: int, starting: int, finishing: int, room: int
) -> int:
    """Return how many environments are to be started.

    Args:
        waiting: Requests without an environment.
        impatient: Those of them that have waited for long.
        starting: Events that environments will take which are being started.
        finishing: Environments that are free soon.
        room: How many more there may be.
    """
    wanted = max(waiting - starting - finishing, impatient - starting)
    return max(0, min(wanted, room))


class Fleet:
    """The environments of one function.

    Attributes:
        function: The function, as its project file says now.
        arn: Its ARN.
        code: Counts the versions of its code, from 1.
    """

    def __init__(
        self,
        function: ServedFunction,
        arn: str,
        environ: Mapping[str, str],
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing before the first request."""
        self.function = function
        self.arn = arn
        self.code = 1
        self._environ = environ
        self._journal = journal
        self._clock = clock
        self._waiting: deque[Job] = deque()
        self._environments: list[Environment] = []
        self._running: dict[Environment, asyncio.Task[None]] = {}
        self._count = 0
        self._is_closing = False
        self._has_been_used = False
        self._is_idle_watched = False
        self._is_patience_watched = False
        self._told: set[str] = set()

    @property
    def environments(self) -> list[Environment]:
        """The environments that are alive."""
        return list(self._environments)

    @property
    def waiting(self) -> int:
        """Requests that wait for an environment."""
        return len(self._waiting)

    def check_room(self) -> None:
        """Reject a request if too many wait already.

        Raises:
            TooManyRequestsError: Too many do.
        """
        if len(self._waiting) >= WAITING_LIMIT:
            raise TooManyRequestsError(
                f"Cannot take another request for {self.function.name!r}: "
                f"{WAITING_LIMIT} wait already; raise --environments"
            )

    def submit(self, job: Job) -> None:
        """Give a request to an environment, at once or as soon as one is free."""
        self._has_been_used = True
        job.code = self.code
        self._waiting.append(job)
        self._dispatch()
        if self._waiting and not self._is_patience_watched:
            self._watch_patience(PATIENCE_S)
        if not self._is_idle_watched:
            self._is_idle_watched = True
            loop = asyncio.get_running_loop()
            loop.call_later(IDLE_LIMIT_S, self._retire_idle)

    def reload(self, function: ServedFunction) -> None:
        """Use new code, or new settings, from the next request on."""
        if self._is_closing:
            return
        self.function = function
        self.code += 1
        self._told.clear()
        # One that is being started for a request which came before: while files are
        # saved faster than code loads, the request would never be served.
        starting = (each for each in self._environments if each.is_starting)
        kept = next(filter(self._is_awaited, starting), None)
        for environment in self._environments:
            if environment is not kept:
                environment.retire()
        if self._has_been_used:
            self._start()  # while the developer's hand goes from one window to another
        self._dispatch()

    def retire(self) -> None:
        """End all environments after the requests that they have."""
        for environment in self._environments:
            environment.retire()

    async def aclose(self) -> None:
        """End all environments now."""
        self._is_closing = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for job in self._waiting:
            self._refuse(job, "dev has ended")
        self._waiting.clear()

    def _watch_patience(self, delay_s: float) -> None:
        # One timer for all: with one for each request there would be hundreds.
        self._is_patience_watched = True
        asyncio.get_running_loop().call_later(delay_s, self._lose_patience)

    def _lose_patience(self) -> None:
        """Look at the waiting requests again, as one has waited for long."""
        self._is_patience_watched = False
        self._dispatch()
        limit_s = self._clock() - PATIENCE_S
        patient = [j.received_s for j in self._waiting if j.received_s > limit_s]
        if patient:
            self._watch_patience(min(patient) - limit_s)

    def _retire_idle(self) -> None:
        """End environments that have had no request for long, but for one."""
        self._is_idle_watched = False
        if self._is_closing:
            return
        limit_s = self._clock() - IDLE_LIMIT_S
        idle = [each for each in self._environments if each.is_idle]
        old = [each for each in idle if each.used_s <= limit_s]
        for environment in old if len(idle) > len(old) else old[1:]:
            environment.retire()
        if len(self._environments) > 1:
            self._is_idle_watched = True
            loop = asyncio.get_running_loop()
            loop.call_later(IDLE_LIMIT_S, self._retire_idle)

    def _dispatch(self) -> None:
        """Hand waiting requests to environments, and start those that are missing."""
        if self._is_closing:
            return
        for environment in self._environments:
            if environment.code != self.code and not self._is_awaited(environment):
                environment.retire()
        if not self._waiting:
            return
        left: deque[Job] = deque()
        while self._waiting:
            job = self._waiting.popleft()
            found = self._environment_for(job)
            if found is None:
                left.append(job)
            else:
                found.take(job)
        self._waiting = left
        if not left:
            return
        now_s = self._clock()
        current = [each for each in self._environments if each.code == self.code]
        capacity = self.function.overrides.concurrency or 1
        missing = count_to_start(
            waiting=len(left),
            impatient=sum(now_s - job.received_s >= PATIENCE_S for job in left),
            starting=capacity * sum(each.is_starting for each in self._environments),
            finishing=sum(each.is_finishing for each in current),
            room=self.function.overrides.environments - len(current),
        )
        if missing:
            for _ in range(-(-missing // capacity)):
                self._start()
        elif len(current) >= self.function.overrides.environments:
            # One that serves another tenant makes room.
            idle = next((each for each in current if each.is_idle), None)
            if idle is not None:
                idle.retire()

    def _environment_for(self, job: Job) -> Environment | None:
        tenant_id = job.record.facts.tenant_id
        for environment in self._environments:
            is_same = environment.tenant_id == tenant_id or not environment.has_served
            if is_same and environment.is_ready and environment.code >= job.code:
                return environment
        return None

    def _is_awaited(self, environment: Environment) -> bool:
        """Return whether a request waits that came before newer code than this one."""
        return any(job.code <= environment.code for job in self._waiting)

    def _start(self) -> None:
        self._count += 1
        place = Place(
            arn=self.arn,
            environ=self._environ,
            journal=self._journal,
            on_change=self._dispatch,
            on_failure=self._fail,
            say=self._say,
            give_back=self._give_back,
        )
        environment = Environment(self.function, self._count, self.code, place)
        self._environments.append(environment)
        task = asyncio.create_task(self._run(environment))
        self._running[environment] = task
        task.add_done_callback(lambda _: self._running.pop(environment, None))

    async def _run(self, environment: Environment) -> None:
        try:
            await environment.run()
        except Exception as error:
            # No process, no folder, no Deno, or a fault in dev: a waiting request
            # is told, instead of waiting until the next environment fails too.
            environment.failure = platform(
                OutcomeKind.INIT_ERROR, "Runtime.Unknown", str(error)
            )
            self._fail(environment)
        finally:
            self._environments.remove(environment)
        self._dispatch()

    def _fail(self, environment: Environment) -> None:
        """Give the error of an environment that did not start to a waiting request."""
        failure = environment.failure
        if failure is None or environment.code != self.code:
            return
        text = failure.body.decode(errors="replace")
        if text not in self._told:  # once for each version of the code
            self._told.add(text)
            self._journal.notice(
                Notice(time.time() * 1000, "error", text, self.function.name)
            )
        if self._waiting:
            job = self._waiting.popleft()
            self._journal.assign(
                job.record, job.now_ms(), environment.number, environment.code
            )
            job.answer(failure)
            job.end(None, "")
        self._dispatch()

    def _give_back(self, job: Job) -> None:
        if self._is_closing:
            self._refuse(job, "dev has ended")
        elif job.takes >= TAKES_LIMIT or job.record.times.delivered_ms is not None:
            self._refuse(job, "its environments ended before they could serve it")
        else:
            self._waiting.appendleft(job)

    def _refuse(self, job: Job, why: str) -> None:
        text = f"RequestId: {job.record.id} Error: Cannot serve the request: {why}"
        job.answer(platform(OutcomeKind.EXIT, "Runtime.ExitError", text))
        job.end(None, "")

    def _say(self, text: str) -> None:
        self._journal.notice(
            Notice(time.time() * 1000, "log", text, self.function.name)
        )
