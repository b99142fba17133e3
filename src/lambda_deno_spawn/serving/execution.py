"""One invocation from its event to its end, in a worker that a strategy lends.

Knows what the failure of a worker means to the caller, what follows a response, and
when an event goes to another worker. Does not know where workers come from, or the
Runtime API. Decisions 0004 (who kills when), 0029 (what goes to another worker).
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerExitedError,
    WorkerTimeoutError,
    WorkerUnreachedError,
)
from lambda_deno_spawn.invocation import Failure, Streaming
from lambda_deno_spawn.log.writer import log_context, logger, utc_timestamp
from lambda_deno_spawn.protocol.frames import State
from lambda_deno_spawn.records import Protocol
from lambda_deno_spawn.serving.deadline import Deadline, TimeLimit
from lambda_deno_spawn.serving.metrics import Measures, Times, report_line
from lambda_deno_spawn.serving.streaming import WorkerChunks
from lambda_deno_spawn.worker.exchange import StreamStarted
from lambda_deno_spawn.worker.worker import TERMINATE_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.invocation import Invocation, Outcome, Success
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.serving.metrics import ReportForm
    from lambda_deno_spawn.serving.recorder import Recorder
    from lambda_deno_spawn.serving.strategy import Lease
    from lambda_deno_spawn.worker.exchange import Exchange

# How often an event that its worker has not read goes to another one. If others ran in
# that worker, they are the likelier cause of its end; a worker without others ends for
# a reason that stays.
UNREACHED_LIMIT = 32
UNREACHED_ALONE_LIMIT = 2
# How often an event whose worker was killed while it loaded goes to another one.
KILLED_LIMIT = 1
# Between an invocation and the next, for a log whose reader is slow; it is billed.
LOG_FLUSH_LIMIT_S = 1.0


class Strategy(Protocol):
    """The source of workers; ``strategy.BaseStrategy``."""

    def lease(self, left_s: Callable[[], float]) -> Lease:
        """Return the use of a worker for one invocation, which is to be acquired."""

    async def prepare(self, left_s: Callable[[], float]) -> None:
        """Have a worker for the next invocation."""


class Execution:
    """One invocation as it is executed; ``loop.Execution``."""

    def __init__(
        self,
        strategy: Strategy,
        writer: LogWriter,
        stop_margin_s: float,
        report_form: ReportForm | None,
        recorder: Recorder | None,
        invocation: Invocation,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start the clock of an invocation that has just arrived.

        Args:
            strategy: Where workers come from.
            writer: The log.
            stop_margin_s: Time kept back before the deadline to stop the worker.
            report_form: How its measures are written to the log; None: they are not.
            recorder: Writes invocations to the log; None: they are not written.
            invocation: Event and facts.
            clock: Tells Unix time in seconds.
        """
        self._arrived_s = time.monotonic()
        self._deadline = Deadline(invocation.deadline_epoch_ms, stop_margin_s, clock)
        self._strategy = strategy
        self._writer = writer
        self._report_form = report_form
        self._recorder = recorder
        self._invocation = invocation
        self._lease: Lease | None = None
        self._was_unread = False
        self._is_late = False
        self._outcome: Success | Failure | WorkerChunks | None = None

    async def run(self) -> Outcome:
        """Run the invocation and return what came of it, before its deadline.

        The worker goes on with what its handler left to do until ``settle``.
        """
        try:
            try:
                with TimeLimit(self._deadline.limit_s):
                    outcome = await self._respond()
            except TimeoutError:
                outcome = await self._time_out()
            except WorkerError as error:
                outcome = Failure.from_worker_error(error)
        except BaseException:  # cancelled: the runtime ends, and ends every worker
            if self._lease is not None:
                self._lease.give_back()
            raise
        if isinstance(outcome, StreamStarted):
            return self._stream(outcome)
        self._outcome = outcome
        if isinstance(outcome, Failure) and self._lease is not None:
            # The lines that led to the error stand before it.
            self._lease.worker.drain_log()
        return outcome

    async def settle(self, refusal: str | None) -> None:
        """Do what follows a response: finish, clean up, prepare for the next event.

        Lets work handed to ``waitUntil`` end within the deadline, gives the worker back
        and, unless told otherwise, has one ready for the next event.

        Args:
            refusal: Error type of what the caller was told instead; None: nothing else.
        """
        posted_s = time.monotonic()
        lease = self._lease
        if lease is not None and lease.exchange is not None:
            try:
                await self._finish(lease, lease.exchange)
            except BaseException:  # as in `run`
                lease.give_back()
                raise
        finished_s = time.monotonic()
        if lease is not None:
            await lease.release()
        if self._report_form is not None:
            self._report(self._report_form, refusal, posted_s, finished_s)
        if self._recorder is not None:
            self._record(self._recorder, refusal)
        await self._strategy.prepare(self._deadline.left_s)
        # A line that is not in the log when the environment is frozen may never be.
        await self._writer.drained(min(LOG_FLUSH_LIMIT_S, self._deadline.left_s()))

    async def _respond(self) -> Success | Failure | StreamStarted:
        """Have a worker respond; one that has not begun the event is replaced.

        Raises:
            WorkerError: The worker broke off, and another one would not do better.
        """
        left_s, abort_epoch_ms = self._deadline.left_s, self._deadline.abort_epoch_ms
        alone = killed = 0
        reason: WorkerError
        for _ in range(UNREACHED_LIMIT):
            lease = self._lease = await self._strategy.lease(left_s).acquire()
            if lease.worker.ready_s is None and await self._failed_while_waiting(lease):
                await self._release(lease)
                lease = self._lease = await self._strategy.lease(left_s).acquire()
            try:
                if lease.worker.ready_s is None:
                    failure = await lease.worker.ready()
                    if failure is not None:
                        return failure
                exchange = await lease.hand_over(self._invocation, abort_epoch_ms)
                return await exchange.response()
            except WorkerUnreachedError as error:
                alone += lease.is_alone
                if alone == UNREACHED_ALONE_LIMIT:
                    raise await lease.worker.reason_of(error) from error
                self._was_unread = True
                reason = error
                message = "Replacing the process %d, which has not read an event: %s"
            except WorkerExitedError as error:
                # When memory runs out, the kernel may choose a process that has just
                # started.
                was_killed = error.returncode == -signal.SIGKILL
                is_loading = lease.exchange is None
                if not (was_killed and is_loading) or killed == KILLED_LIMIT:
                    raise
                killed += 1
                reason = error
                message = "Replacing the process %d: %s"
            logger.info(message, lease.worker.pid, reason)
            await self._release(lease)
        raise reason

    async def _failed_while_waiting(self, lease: Lease) -> bool:
        """Wait for a worker that was started for any event; True if it did not load.

        What kept it from loading may be over: this event has had no part in it.
        """
        worker = lease.worker
        if worker.started.started_s >= self._arrived_s:
            return False
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

    async def _release(self, lease: Lease) -> None:
        """Give back a worker that has not begun this invocation."""
        self._lease = None
        await lease.release()

    async def _time_out(self) -> Failure:
        lease = self._lease
        if lease is None:
            message = "There was no room for another process in time"
            if self._was_unread:
                message = "The processes that were to serve it ended before they began"
            return Failure.of(WorkerTimeoutError.error_type, message)
        what = "did not answer"
        if lease.exchange is None:
            what = "has a module that did not finish loading"
        return await self._stop_late(what, self._deadline.limit_s)

    def _stream(self, started: StreamStarted) -> Streaming:
        margin_s = self._deadline.margin_s
        assert self._lease is not None
        exchange = self._lease.exchange
        assert exchange is not None
        remaining_s = self._deadline.remaining_s()
        chunks = WorkerChunks(exchange, remaining_s - margin_s, self._stop_late)
        self._outcome = chunks
        # The other half of the margin is for sending the end of the response after its
        # worker was stopped.
        return Streaming(started.content_type, chunks, remaining_s - margin_s / 2)

    async def _stop_late(self, what: str, limit_s: float) -> Failure:
        """Stop the worker because its time is over, and say so.

        Args:
            what: What the handler did not do, for the message.
            limit_s: How long it had, in seconds.
        """
        lease, margin_s = self._lease, self._deadline.margin_s
        assert lease is not None
        tail = lease.worker.log_tail
        self._is_late = True
        await lease.stop(min(TERMINATE_GRACE_S, margin_s / 4))
        error = WorkerTimeoutError(
            f"The handler {what} within {limit_s:.2f} seconds and was stopped "
            f"{margin_s * 1000:.0f} ms before the function's timeout",
            limit_s=limit_s,
            pid=lease.worker.pid,
            stderr_tail=lease.worker.log_tail or tail,
        )
        return Failure.from_worker_error(error)

    async def _finish(self, lease: Lease, exchange: Exchange) -> None:
        """Let ``waitUntil`` work end within the deadline."""
        if exchange.state in (State.IDLE, State.DONE):
            return
        exchange.abandon_stream()
        if self._is_late:  # what it still says is not of this invocation
            lease.worker.close_exchange(exchange)
            return
        try:
            if not exchange.has_finished:
                async with asyncio.timeout(self._deadline.left_s()):
                    await exchange.finished()
            lost = exchange.lost_work
            if lost is not None:
                logger.warning(
                    "Work after the response was lost: %s",
                    lost,
                    extra=log_context(self._invocation),
                )
        except TimeoutError:
            logger.warning(
                "Work after the response did not end before the deadline: stopped",
                extra=log_context(self._invocation),
            )
            await lease.stop(min(TERMINATE_GRACE_S, self._deadline.remaining_s() / 4))

    def _report(
        self, form: ReportForm, refusal: str | None, posted_s: float, finished_s: float
    ) -> None:
        """Write what the invocation took, once all of it has ended."""
        lease, outcome = self._lease, self._outcome
        assert outcome is not None
        exchange = None if lease is None else lease.exchange
        times = Times(
            self._arrived_s,
            None if exchange is None else exchange.responded_s,
            posted_s,
            finished_s,
            time.monotonic(),
        )
        measures = Measures.of(self._invocation, outcome, refusal, times)
        if lease is not None:
            measures = measures.in_worker(times, lease.facts, lease.usage)
        now_epoch_s = time.time()
        timestamp, epoch_ms = utc_timestamp(now_epoch_s), int(now_epoch_s * 1000)
        self._writer.write([report_line(measures, form, timestamp, epoch_ms)])

    def _record(self, recorder: Recorder, refusal: str | None) -> None:
        """Write the invocation to the log, so that it can be run again elsewhere."""
        assert self._outcome is not None
        facts = None if self._lease is None else self._lease.facts
        recorded = recorder.lines(
            self._invocation,
            self._outcome,
            refusal,
            self._deadline.limit_s + self._deadline.margin_s,
            facts,
            utc_timestamp(time.time()),
        )
        self._writer.write(recorded)
