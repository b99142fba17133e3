"""Events without a caller: run again after an error, and given up in the end.

Knows how often Lambda tries an asynchronous event, and what it does with one that has
failed for good. Does not know how an event came in, or how a function is run.
Specification: AWS Lambda Developer Guide, "How Lambda handles errors and retries with
asynchronous invocation".
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.journal import Notice
from lambda_deno_spawn.dev.local.environment import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.journal import Journal

# Before the second and the third attempt. Lambda waits one minute, then two.
DELAYS_S = (1.0, 2.0)


class Retries:
    """Asynchronous events, from their first attempt to their last."""

    def __init__(self, journal: Journal, delays_s: Sequence[float] = DELAYS_S) -> None:
        """Follow no event yet.

        Args:
            journal: Where the end of an event is noted.
            delays_s: Time before each further attempt.
        """
        self._journal = journal
        self._delays_s = delays_s
        self._following: set[asyncio.Task[None]] = set()

    def follow(
        self,
        job: Job,
        again: Callable[[int], Job | None],
        dead_letter: Callable[[], str | None],
    ) -> None:
        """Run an event again if it fails.

        Args:
            job: Its first attempt.
            again: Begins another attempt, of this number; None: it cannot be run.
            dead_letter: Returns the ARN of the queue or topic for events that failed.
        """
        task = asyncio.create_task(self._follow(job, again, dead_letter))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def aclose(self) -> None:
        """Run nothing again from now on."""
        tasks = list(self._following)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _follow(
        self,
        job: Job,
        again: Callable[[int], Job | None],
        dead_letter: Callable[[], str | None],
    ) -> None:
        for attempt, delay_s in enumerate((*self._delays_s, None), 1):
            job.hang_up()  # there is no caller
            await job.over()
            assert job.outcome is not None
            if job.outcome.kind is OutcomeKind.RESPONSE:
                return
            if delay_s is None:
                target = dead_letter()
                end = "discards it; dead_letter in lambda.toml would keep it"
                if target is not None:
                    end = f"sends it to {target}"
                self._tell(job, f"failed {attempt} times: now Lambda {end}")
                return
            self._tell(
                job,
                f"failed, attempt {attempt} of {len(self._delays_s) + 1}: the next one "
                f"follows in {delay_s:g} s (on Lambda in {attempt} min)",
            )
            await asyncio.sleep(delay_s)
            next_job = again(attempt + 1)
            if next_job is None:
                self._tell(job, "is not run again: its function is not served any more")
                return
            job = next_job

    def _tell(self, job: Job, what: str) -> None:
        facts = job.record.facts
        text = f"asynchronous event {facts.request_id} {what}"
        self._journal.notice(Notice(time.time() * 1000, "info", text, facts.function))
