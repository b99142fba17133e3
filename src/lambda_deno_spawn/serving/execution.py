"""One invocation from its event to its end, in a worker that a strategy gives.

Knows how long an invocation may take, what the failure of a worker means to the
caller, what follows an answer, and what is measured. Refuses to know where workers come
from, and the Runtime API. Decision 0004 (who kills when).
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.config import Metrics
from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerExitedError,
    WorkerTimeoutError,
    WorkerUnreachedError,
)
from lambda_deno_spawn.invocation import Failure, Streaming, Success, stop_margin_s
from lambda_deno_spawn.log.writer import log_context, logger, utc_timestamp
from lambda_deno_spawn.serving.deadline import TimeLimit
from lambda_deno_spawn.serving.metrics import SUCCESS, Measures, report_line
from lambda_deno_spawn.serving.streaming import WorkerChunks
from lambda_deno_spawn.worker.exchange import StreamStarted
from lambda_deno_spawn.worker.worker import TERMINATE_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Invocation, Outcome
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.worker.exchange import Exchange
    from lambda_deno_spawn.worker.worker import Worker

# The handler's signal aborts this many stop margins before the deadline: one before the
# worker is stopped.
ABORT_MARGINS = 2
# How often an event that a process has not read goes to another one. Where others ran
# in it, its end is hardly this one's doing; one without others ends for a reason that
# stays.
UNREACHED_LIMIT = 32
UNREACHED_ALONE_LIMIT = 2
# How often an event whose process was killed while it loaded goes to another one.
KILLED_LIMIT = 1
# Between an invocation and the next, for a log whose reader is slow; it is billed.
LOG_FLUSH_LIMIT_S = 1.0


class Strategy(Protocol):
    """Where workers come from, and what becomes of them."""

    async def take(self) -> Worker:
        """Return a worker for one invocation; it may still be loading.

        Raises:
            WorkerError: None can be started.
        """

    async def stop_for_deadline(
        self, worker: Worker, exchange: Exchange | None, grace_s: float
    ) -> None:
        """End what goes on in a worker that had its time.

        Args:
            worker: It.
            exchange: What goes on; None: it is still loading.
            grace_s: Between SIGTERM and SIGKILL.
        """

    async def give_back(
        self, worker: Worker, exchange: Exchange | None, limit_s: float
    ) -> None:
        """Take a worker back after an invocation: to be used again, or to be ended.

        Args:
            worker: It.
            exchange: What went on; None: it was never handed over.
            limit_s: Time for the end of it.
        """

    async def prepare(self, limit_s: Callable[[], float]) -> None:
        """Have a worker for the next invocation.

        Args:
            limit_s: Tells how much time is left for it.
        """


class Execution:
    """One invocation as it is executed; ``loop.Execution``."""

    def __init__(
        self,
        settings: Settings,
        strategy: Strategy,
        writer: LogWriter,
        invocation: Invocation,
    ) -> None:
        """Take the invocation, which has just arrived, and where workers come from."""
        self._settings = settings
        self._strategy = strategy
        self._writer = writer
        self._invocation = invocation
        self._worker: Worker | None = None
        self._exchange: Exchange | None = None
        self._was_unread = False
        self._arrived_s = time.monotonic()
        self._answer: Success | Failure | WorkerChunks | None = None

    async def run(self) -> Outcome:
        """Run the invocation and return what came of it, before its deadline.

        The worker goes on with what its handler left to do until ``settle``.
        """
        remaining_s = self._invocation.remaining_s(time.time())
        margin_s = stop_margin_s(remaining_s, self._settings.stop_margin_s)
        outcome = await self._execute(remaining_s - margin_s, margin_s)
        if not isinstance(outcome, Streaming):
            self._answer = outcome
        if isinstance(outcome, Failure) and self._worker is not None:
            self._worker.drain_log()  # what led to the error stands before it
        return outcome

    async def settle(self, refusal: str | None) -> None:
        """Do what follows an answer: finish, clean up, prepare for the next event.

        Lets work handed to ``waitUntil`` end within the deadline, gives the worker back
        and, unless told otherwise, has one ready for the next event.

        Args:
            refusal: Error type of what the caller was told instead; None: nothing else.
        """
        posted_s = time.monotonic()
        worker, exchange = self._worker, self._exchange
        if worker is not None and exchange is not None:
            exchange.abandon_stream()
            await self._finish(worker, exchange)
        finished_s = time.monotonic()
        if worker is not None:
            await self._strategy.give_back(worker, exchange, self._left_s())
        if self._settings.metrics is not Metrics.OFF:
            self._report(
                self._measures(worker, exchange, refusal, posted_s, finished_s)
            )
        await self._strategy.prepare(self._left_s)
        # What is not in the log when the environment is frozen may never be.
        await self._writer.drained(min(LOG_FLUSH_LIMIT_S, self._left_s()))

    async def _execute(self, limit_s: float, margin_s: float) -> Outcome:
        invocation = self._invocation
        abort_epoch_ms = invocation.deadline_epoch_ms - round(
            ABORT_MARGINS * margin_s * 1000
        )
        try:
            with TimeLimit(limit_s):
                outcome = await self._run(abort_epoch_ms)
        except TimeoutError:
            return await self._timed_out(limit_s, margin_s)
        except WorkerError as error:
            return Failure.from_worker_error(error)
        if not isinstance(outcome, StreamStarted):
            return outcome
        remaining_s = invocation.remaining_s(time.time())
        assert self._exchange is not None
        limit_s = remaining_s - margin_s
        chunks = WorkerChunks(self._exchange, limit_s, margin_s, self._stop_late)
        self._answer = chunks
        # Between the two the answer of a worker that was stopped is brought to its end.
        return Streaming(outcome.content_type, chunks, remaining_s - margin_s / 2)

    async def _run(self, abort_epoch_ms: int) -> Success | Failure | StreamStarted:
        alone = killed = 0
        reason: WorkerError
        for _ in range(UNREACHED_LIMIT):
            worker = self._worker = await self._strategy.take()
            is_waiting = worker.started.started_s < self._arrived_s
            if is_waiting and await self._has_not_loaded(worker):
                await self._give_back()
                worker = self._worker = await self._strategy.take()
            try:
                failure = await worker.ready()
            except WorkerExitedError as error:
                # Where memory runs out, the kernel may choose one that has just begun.
                if error.returncode != -signal.SIGKILL or killed == KILLED_LIMIT:
                    raise
                killed += 1
                logger.info("Replacing the process %d: %s", worker.pid, error)
                reason = error
                await self._give_back()
                continue
            if failure is not None:
                return failure
            try:
                self._exchange = await worker.hand_over(
                    self._invocation, abort_epoch_ms
                )
                return await self._exchange.response()
            except WorkerUnreachedError as error:
                alone += worker.handed_over <= (self._exchange is not None)
                if alone == UNREACHED_ALONE_LIMIT:
                    raise await worker.reason_of(error) from error
                logger.info(
                    "Replacing the process %d, which has not read an event: %s",
                    worker.pid,
                    error,
                )
                reason = error
                self._was_unread = True
            await self._give_back()
        raise reason

    async def _give_back(self) -> None:
        """Give a worker back that has not begun this invocation."""
        worker, exchange = self._worker, self._exchange
        self._worker = self._exchange = None
        assert worker is not None
        await self._strategy.give_back(worker, exchange, self._left_s())

    async def _has_not_loaded(self, worker: Worker) -> bool:
        """Wait for a worker that was started for whoever comes; True if it failed.

        What kept it from loading may be over: this event has had no part in it.
        """
        try:
            failure = await worker.ready()
        except WorkerError as error:
            reason: object = error
        else:
            if failure is None:
                return False
            reason = failure.error_type
        logger.info("Replacing the waiting process %d: %s", worker.pid, reason)
        return True

    async def _timed_out(self, limit_s: float, margin_s: float) -> Failure:
        if self._worker is None:
            message = "There was no room for another process in time"
            if self._was_unread:
                message = "The processes that were to serve it ended before they began"
            return Failure.of(WorkerTimeoutError.error_type, message)
        what = "did not answer"
        if self._exchange is None:
            what = "has a module that did not finish loading"
        return await self._stop_late(what, limit_s, margin_s)

    async def _stop_late(self, what: str, limit_s: float, margin_s: float) -> Failure:
        """End a worker that had its time, and say so.

        Args:
            what: What the handler did not do, for the message.
            limit_s: The time it had, in seconds.
            margin_s: The time kept back before the deadline.
        """
        worker = self._worker
        assert worker is not None
        tail = worker.log_tail
        await self._strategy.stop_for_deadline(
            worker, self._exchange, min(TERMINATE_GRACE_S, margin_s / 4)
        )
        error = WorkerTimeoutError(
            f"The handler {what} within {limit_s:.2f} seconds and was stopped "
            f"{margin_s * 1000:.0f} ms before the function's timeout",
            limit_s=limit_s,
            pid=worker.pid,
            stderr_tail=worker.log_tail or tail,
        )
        return Failure.from_worker_error(error)

    async def _finish(self, worker: Worker, exchange: Exchange) -> None:
        invocation = self._invocation
        try:
            if not exchange.has_finished:
                async with asyncio.timeout(self._left_s()):
                    await exchange.finished()
            lost = exchange.lost_work
            if lost is not None:
                logger.warning(
                    "Work handed to waitUntil was lost: %s",
                    lost,
                    extra=log_context(invocation),
                )
        except TimeoutError:
            logger.warning(
                "Work handed to waitUntil did not end before the deadline: stopped",
                extra=log_context(invocation),
            )
            left_s = invocation.remaining_s(time.time())
            grace_s = min(TERMINATE_GRACE_S, left_s / 4)
            await self._strategy.stop_for_deadline(worker, exchange, grace_s)

    def _left_s(self) -> float:
        """Return how long the invocation may still take, its margin kept back."""
        remaining_s = self._invocation.remaining_s(time.time())
        return remaining_s - stop_margin_s(remaining_s, self._settings.stop_margin_s)

    def _report(self, measures: Measures) -> None:
        """Write down what an invocation took, once all of it has ended."""
        now_epoch_s = time.time()
        line = report_line(
            measures,
            self._settings,
            utc_timestamp(now_epoch_s),
            int(now_epoch_s * 1000),
        )
        self._writer.write([line])

    def _measures(
        self,
        worker: Worker | None,
        exchange: Exchange | None,
        refusal: str | None,
        posted_s: float,
        finished_s: float,
    ) -> Measures:
        invocation, answer = self._invocation, self._answer
        match answer:
            case Success():
                failure, answer_bytes = None, len(answer.payload)
            case Failure():
                failure, answer_bytes = answer, len(answer.body)
            case WorkerChunks():
                failure, answer_bytes = answer.failure, answer.sent_bytes
            case _:
                raise AssertionError("settle follows run")
        common = Measures(
            request_id=invocation.request_id,
            tenant_id=invocation.tenant_id,
            status=refusal or (failure.error_type if failure else SUCCESS),
            finish_s=finished_s - posted_s,
            cleanup_s=time.monotonic() - finished_s,
            event_bytes=len(invocation.event),
            answer_bytes=answer_bytes,
        )
        if worker is None:
            return common
        ready_s = worker.ready_s
        handed_s = None if exchange is None else exchange.handed_over_s
        answered_s = posted_s if exchange is None else exchange.responded_s or posted_s
        answered_s = min(answered_s, posted_s)
        exited = worker.exit_status
        # Of a worker that goes on, all that was before is not this invocation's.
        is_first = exchange.number == 1 if exchange else not worker.handed_over
        return replace(
            common,
            is_warm=worker.started.started_s < self._arrived_s,
            spawn_s=worker.started.spawn_s if is_first else None,
            ready_s=_between(worker.started.started_s, ready_s) if is_first else None,
            idle_s=_between(ready_s, max(self._arrived_s, ready_s or 0.0))
            if is_first
            else None,
            wait_s=_between(self._arrived_s, handed_s),
            handler_s=_between(handed_s, answered_s),
            post_s=posted_s - answered_s,
            user_s=exited.user_s if exited else None,
            system_s=exited.system_s if exited else None,
            peak_bytes=exited.peak_bytes if exited else None,
            left_processes=worker.left_processes,
            left_files=worker.left_files,
        )


def _between(begin_s: float | None, end_s: float | None) -> float | None:
    return None if begin_s is None or end_s is None else end_s - begin_s
