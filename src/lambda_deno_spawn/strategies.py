"""How an invocation reaches a handler: a fresh Deno process for each.

Decides when processes are started, which one serves an invocation, how long it may
take, and what its failure means to the caller. Refuses to know the Runtime API.
Decisions 0001 (a process per event), 0004 (who kills when), 0005 (when it is started).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Metrics, Warm
from lambda_deno_spawn.errors import WorkerError, WorkerSpawnError, WorkerTimeoutError
from lambda_deno_spawn.invocation import Failure, Streaming, Success, stop_margin_s
from lambda_deno_spawn.logs import log_context, logger, utc_timestamp
from lambda_deno_spawn.metrics import SUCCESS, Measures, report_line
from lambda_deno_spawn.protocol import StreamEnded
from lambda_deno_spawn.spawn import start_worker
from lambda_deno_spawn.worker import TERMINATE_GRACE_S, AnswerBegun, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.deno import DenoCommand
    from lambda_deno_spawn.invocation import Invocation, Outcome
    from lambda_deno_spawn.logs import LogWriter
    from lambda_deno_spawn.process import Reaper
    from lambda_deno_spawn.spawn import StartedWorker
    from lambda_deno_spawn.state import StateDir

# Init ends after 10 s on classic Lambda and is then repeated under the function's
# timeout (AWS Lambda Developer Guide, "Lambda execution environment lifecycle"). Asking
# for the first event before that keeps a slowly loading module from starting twice.
INIT_LIMIT_S = 9.0
# The handler's signal aborts this many stop margins before the deadline: one before the
# worker is stopped.
ABORT_MARGINS = 2
# Between an invocation and the next, for a log whose reader is slow; it is billed.
LOG_FLUSH_LIMIT_S = 1.0
# To end a worker and what it started takes milliseconds, unless the kernel holds it.
SWEEP_LIMIT_S = 5.0
# Also where the deadline is over, and where it was in vain before.
SWEEP_LEAST_S = 0.2
# On the way out: SIGTERM leaves the runtime little time; ending takes a few ms.
CLOSE_LIMIT_S = 1.0


class FreshProcess:
    """Serves each invocation with a Deno process of its own, started ahead of it."""

    def __init__(
        self,
        settings: Settings,
        command: DenoCommand,
        state: StateDir,
        writer: LogWriter,
        reaper: Reaper,
    ) -> None:
        """Take what is needed to start workers; starts none yet."""
        self._settings = settings
        self._command = command
        self._state = state
        self._writer = writer
        self._reaper = reaper
        self._warm: Worker | None = None
        self._serving: Worker | None = None
        self._running: set[Worker] = set()
        self._is_unswept = False
        self._arrived_s = 0.0
        self._answer: Success | Failure | WorkerChunks | None = None

    async def start(self, first: StartedWorker | None) -> Failure | None:
        """Finish the init phase: adopt the first worker and wait until it is ready.

        Args:
            first: Process that was started before the event loop, None for ``off``.

        Returns:
            None, or why no invocation can be served.
        """
        if first is None:
            return None
        self._warm = self._adopt(first)
        try:
            async with asyncio.timeout(INIT_LIMIT_S):
                return await self._warm.ready()
        except TimeoutError:
            logger.warning(
                "The handler's module is still loading after %.0f s; "
                "the first invocation will wait for it",
                INIT_LIMIT_S,
            )
            return None
        except WorkerError as error:
            return Failure.from_worker_error(error)

    async def execute(self, invocation: Invocation) -> Outcome:
        """Run one invocation and return what came of it, before its deadline.

        The worker goes on with what its handler left to do until ``settle``.
        """
        self._arrived_s = time.monotonic()
        remaining_s = invocation.remaining_s(time.time())
        margin_s = stop_margin_s(remaining_s, self._settings.stop_margin_s)
        outcome = await self._execute(invocation, remaining_s - margin_s, margin_s)
        if not isinstance(outcome, Streaming):
            self._answer = outcome
        return outcome

    async def _execute(
        self, invocation: Invocation, limit_s: float, margin_s: float
    ) -> Outcome:
        abort_epoch_ms = invocation.deadline_epoch_ms - round(
            ABORT_MARGINS * margin_s * 1000
        )
        try:
            async with asyncio.timeout(limit_s):
                outcome = await self._run(invocation, abort_epoch_ms)
        except TimeoutError:
            return await self._timed_out(limit_s, margin_s)
        except WorkerError as error:
            return Failure.from_worker_error(error)
        if not isinstance(outcome, AnswerBegun):
            return outcome
        assert self._serving is not None
        remaining_s = invocation.remaining_s(time.time())
        chunks = WorkerChunks(self._serving, remaining_s - margin_s, margin_s)
        self._answer = chunks
        # Between the two the answer of a worker that was stopped is brought to its end.
        return Streaming(outcome.content_type, chunks, remaining_s - margin_s / 2)

    async def settle(self, invocation: Invocation, refusal: str | None) -> None:
        """Do what follows an answer: finish, clean up, start the next worker.

        Lets work handed to ``waitUntil`` end within the deadline, ends the worker and
        everything it started, and, unless told otherwise, has the next one ready.

        Args:
            invocation: What was executed.
            refusal: Error type of what the caller was told instead; None: nothing else.
        """
        posted_s = time.monotonic()
        worker, self._serving = self._serving, None
        if worker is not None:
            worker.abandon_stream()
            await self._finish(worker, invocation)
        finished_s = time.monotonic()
        for ended in self._running - {self._warm}:
            limit_s = min(self._left_s(invocation), SWEEP_LIMIT_S)
            await self._stop(ended, max(limit_s, SWEEP_LEAST_S))
        if self._settings.metrics is not Metrics.OFF:
            self._report(invocation, worker, refusal, (posted_s, finished_s))
        self._answer = None
        await self._prepare(invocation)
        # What is not in the log when the environment is frozen may never be.
        await self._writer.drained(min(LOG_FLUSH_LIMIT_S, self._left_s(invocation)))

    def _left_s(self, invocation: Invocation) -> float:
        """Return how long this invocation may still take, its margin kept back."""
        remaining_s = invocation.remaining_s(time.time())
        return remaining_s - stop_margin_s(remaining_s, self._settings.stop_margin_s)

    async def _prepare(self, invocation: Invocation) -> None:
        """Start the next worker, if one is to wait for its event."""
        if self._settings.warm is Warm.OFF or self._warm is not None:
            return
        try:
            self._warm = self._start_worker()
        except WorkerError as error:
            logger.warning("Cannot start the next process: %s", error)
            return
        if self._settings.warm is Warm.READY:
            await self._wait_until_ready(self._warm, invocation)

    async def aclose(self) -> None:
        """End every worker, also one whose end was interrupted."""
        self._serving = self._warm = None
        for worker in list(self._running):
            await self._stop(worker, CLOSE_LIMIT_S)

    async def _run(
        self, invocation: Invocation, abort_epoch_ms: int
    ) -> Success | Failure | AnswerBegun:
        worker = await self._take_warm()
        if worker is None:
            worker = self._serving = self._start_worker()
        failure = await worker.ready()
        if failure is not None:
            return failure
        return await worker.invoke(invocation, abort_epoch_ms)

    async def _take_warm(self) -> Worker | None:
        """Take the waiting worker if it can serve; one that cannot is replaced.

        A waiting worker has not seen any event, so nothing is lost with it.
        """
        worker, self._warm = self._warm, None
        if worker is None:
            return None
        self._serving = worker
        try:
            if worker.is_usable() and not self._is_too_old(worker):
                if await worker.ready() is None:
                    return worker
                problem = "its module did not load"
            else:
                problem = "it ended or was too old"
        except WorkerError as error:
            problem = str(error)
        logger.info("Replacing the waiting process %d: %s", worker.pid, problem)
        self._serving = None
        worker.kill()  # the rest of its end is left to `settle`: an event waits
        return None

    def _is_too_old(self, worker: Worker) -> bool:
        limit_s = self._settings.warm_max_age_s
        return limit_s is not None and time.monotonic() - worker.started_s > limit_s

    async def _timed_out(self, limit_s: float, margin_s: float) -> Failure:
        worker = self._serving
        if worker is None:  # even its process could not be started in time
            return Failure.of(WorkerTimeoutError.error_type, "There was no time left")
        what = "did not answer"
        if not worker.is_answering:
            what = "has a module that did not finish loading"
        return await stop_for_deadline(worker, what, limit_s, margin_s)

    async def _finish(self, worker: Worker, invocation: Invocation) -> None:
        limit_s = self._left_s(invocation)
        try:
            async with asyncio.timeout(limit_s):
                await worker.finished()
            lost = worker.lost_work
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
            await worker.terminate(min(TERMINATE_GRACE_S, left_s / 4))

    async def _wait_until_ready(self, worker: Worker, invocation: Invocation) -> None:
        try:
            async with asyncio.timeout(self._left_s(invocation)):
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

    def _start_worker(self) -> Worker:
        try:
            return self._adopt(start_worker(self._command, self._state))
        except OSError as error:
            action = f"make a folder for the process in {self._state.path!r}"
            raise WorkerSpawnError.from_os_error(action, error) from error

    def _adopt(self, started: StartedWorker) -> Worker:
        loop = asyncio.get_running_loop()
        worker = Worker(started, self._writer, loop, self._reaper, self._state)
        self._running.add(worker)
        return worker

    async def _stop(self, worker: Worker, limit_s: float) -> None:
        if self._is_unswept:  # what could not be ended then will hardly be now
            limit_s = min(limit_s, SWEEP_LEAST_S)
        is_ended = await worker.stop(limit_s)
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

    def _report(
        self,
        invocation: Invocation,
        worker: Worker | None,
        refusal: str | None,
        times_s: tuple[float, float],
    ) -> None:
        """Write down what an invocation took, once all of it has ended."""
        now_epoch_s = time.time()
        measures = self._measures(invocation, worker, refusal, times_s)
        epoch_ms = int(now_epoch_s * 1000)
        line = report_line(
            measures, self._settings, utc_timestamp(now_epoch_s), epoch_ms
        )
        self._writer.write([line])

    def _measures(
        self,
        invocation: Invocation,
        worker: Worker | None,
        refusal: str | None,
        times_s: tuple[float, float],
    ) -> Measures:
        posted_s, finished_s = times_s
        answer = self._answer
        match answer:
            case Success():
                failure, answer_bytes = None, len(answer.payload)
            case Failure():
                failure, answer_bytes = answer, len(answer.body)
            case WorkerChunks():
                failure, answer_bytes = answer.failure, answer.sent_bytes
            case _:
                raise AssertionError("settle follows execute")
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
        ready_s, handed_s = worker.ready_s, worker.handed_over_s
        answered_s = min(worker.answered_s or posted_s, posted_s)
        exited = worker.exit_status
        return replace(
            common,
            is_warm=worker.started_s < self._arrived_s,
            spawn_s=worker.spawn_s,
            ready_s=_between(worker.started_s, ready_s),
            idle_s=_between(ready_s, max(self._arrived_s, ready_s or 0.0)),
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


class WorkerChunks:
    """A worker's streamed answer, ended in time whatever the worker does."""

    def __init__(self, worker: Worker, limit_s: float, margin_s: float) -> None:
        """Take the worker, the time it has from now, and the margin after that."""
        self.failure: Failure | None = None
        self.sent_bytes = 0
        self._worker = worker
        self._limit_s = limit_s
        self._margin_s = margin_s
        self._end_s = asyncio.get_running_loop().time() + limit_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come."""
        while True:
            try:
                async with asyncio.timeout_at(self._end_s):
                    chunk = await self._worker.next_chunk()
            except TimeoutError:
                self.failure = await stop_for_deadline(
                    self._worker,
                    "did not end its answer",
                    self._limit_s,
                    self._margin_s,
                )
                return
            except WorkerError as error:
                self.failure = Failure.from_worker_error(error)
                return
            if isinstance(chunk, StreamEnded):
                self.failure = chunk.failure
                return
            self.sent_bytes += len(chunk)
            yield chunk


async def stop_for_deadline(
    worker: Worker, what: str, limit_s: float, margin_s: float
) -> Failure:
    """End a worker that had its time, and say so.

    Args:
        worker: Gets SIGTERM, then SIGKILL.
        what: What the handler did not do, for the message.
        limit_s: The time it had, in seconds.
        margin_s: The time kept back before the deadline.
    """
    await worker.terminate(min(TERMINATE_GRACE_S, margin_s / 4))
    error = WorkerTimeoutError(
        f"The handler {what} within {limit_s:.2f} seconds and was stopped "
        f"{margin_s * 1000:.0f} ms before the function's timeout",
        limit_s=limit_s,
        pid=worker.pid,
        stderr_tail=worker.log_tail,
    )
    return Failure.from_worker_error(error)
