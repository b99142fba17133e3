"""One invocation: its outcome, retries, deadlines, and what follows the response."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.config import Metrics, Warm
from lambda_deno_spawn.errors import WorkerSpawnError, WorkerUnreachedError
from lambda_deno_spawn.invocation import Failure, Invocation, Streaming, Success
from lambda_deno_spawn.serving.execution import Execution
from lambda_deno_spawn.serving.fresh_process import FreshProcess
from lambda_deno_spawn.serving.metrics import ReportForm
from lambda_deno_spawn.serving.pool import Bounded, Unbounded
from lambda_deno_spawn.serving.shared_server import SharedServer
from lambda_deno_spawn.serving.strategy import WarmPolicy
from tests.unit.workers import FakeWorker, Machine
from tests.unit.workers import frame as frame_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable

    from lambda_deno_spawn.invocation import Outcome
    from lambda_deno_spawn.serving.strategy import BaseStrategy
    from tests.unit.hand_driven import HandDrivenLoop

EPOCH_S = 1_795_000_000.0
TIMEOUT_S = 10.0
MARGIN_S = 0.2


@dataclass
class Runtime:
    """Executions, and the workers that they get."""

    loop: HandDrivenLoop
    machine: Machine = field(default_factory=Machine)
    warm: Warm = Warm.BACKGROUND
    is_server: bool = False
    room: int | None = None
    form: ReportForm | None = field(default_factory=lambda: ReportForm(Metrics.JSON))

    def __post_init__(self) -> None:
        if self.is_server:
            self.machine = Machine(invocations=0, listens=True)
        self.strategy: BaseStrategy = self.loop.call(self._strategy)

    def _strategy(self) -> BaseStrategy:
        workers, leftovers = self.machine.workers, self.machine.leftovers
        warm = WarmPolicy(self.warm)
        if self.is_server:
            return SharedServer(
                workers, leftovers, warm, max_invocations=None, concurrency=8
            )
        memory_mb = None if self.room is None else 160 + 24 * self.room
        pool = Unbounded() if memory_mb is None else Bounded(8, memory_mb)
        pool.note_loaded(None)
        return FreshProcess(workers, leftovers, warm, pool)

    @property
    def worker(self) -> FakeWorker:
        """The last one that was started."""
        return self.machine.made[-1]

    def start(self) -> FakeWorker:
        """Have a loaded worker that waits."""
        self.loop.begin(self.strategy.start(self.machine.launch({})))
        self.loop.call(self.worker.deno.load)
        return self.worker

    def arrive(self, name: str = "a", timeout_s: float = TIMEOUT_S) -> Execution:
        deadline_ms = round((EPOCH_S + self.loop.now_s + timeout_s) * 1000)
        invocation = Invocation(name, deadline_ms, "arn", b'{"n":1}', tenant_id="blue")
        return self.loop.call(
            lambda: Execution(
                self.strategy,
                self.machine.log,
                MARGIN_S,
                self.form,
                None,
                invocation,
                lambda: EPOCH_S + self.loop.now_s,
            )
        )

    def run(self, execution: Execution) -> asyncio.Task[Outcome]:
        return self.loop.begin(execution.run())

    def settle(self, execution: Execution, refusal: str | None = None) -> None:
        self.loop.run(execution.settle(refusal))

    @property
    def report(self) -> Any:
        """The measures that were logged last."""
        return json.loads(self.machine.log.text.splitlines()[-1])["record"]


@pytest.fixture
def runtime(loop: HandDrivenLoop) -> Runtime:
    return Runtime(loop)


@pytest.fixture
def server(loop: HandDrivenLoop) -> Runtime:
    return Runtime(loop, is_server=True)


def error_of(outcome: Outcome) -> tuple[str, str]:
    assert isinstance(outcome, Failure), outcome
    return outcome.error_type, json.loads(outcome.body)["errorMessage"]


async def chunks_of(outcome: Outcome) -> list[bytes]:
    assert isinstance(outcome, Streaming)
    chunks: AsyncIterable[bytes] = outcome.chunks
    return [chunk async for chunk in chunks]


# The response.


def test_a_waiting_worker_gets_the_event_at_once(runtime: Runtime) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    assert worker.deno.requests == ["a"]
    assert json.loads(worker.deno.stdin[0])["abortEpochMs"] == round(
        (EPOCH_S + TIMEOUT_S - 2 * MARGIN_S) * 1000
    )
    runtime.loop.call(worker.deno.respond, b"1")
    assert task.result() == Success(b"1")
    runtime.loop.call(worker.deno.finish)
    runtime.settle(execution)
    assert worker.is_stopped
    assert runtime.worker is not worker, "the next one was started"
    report = runtime.report
    assert (report["status"], report["warm"]) == ("success", True)
    assert (report["bytesIn"], report["bytesOut"]) == (7, 1)
    assert report["cpuUserMs"] == 250.0
    assert None not in [report[name] for name in ("spawnMs", "readyMs", "idleMs")]


def test_an_event_waits_for_a_worker_that_is_started_for_it(runtime: Runtime) -> None:
    execution = runtime.arrive()
    task = runtime.run(execution)
    worker = runtime.worker
    assert worker.deno.requests == []
    runtime.loop.call(worker.deno.load)
    runtime.loop.call(worker.deno.respond, b"1")
    assert task.result() == Success(b"1")
    runtime.settle(execution)
    assert runtime.report["warm"] is False


def test_a_failure_that_is_refused_has_the_refusal_s_status(runtime: Runtime) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    worker.deno.log("what led to it\n", is_read=False)
    runtime.loop.call(worker.deno.exit, 3)
    error_type, message = error_of(task.result())
    assert error_type == "Runtime.ExitError"
    assert "status 3" in message
    assert b"what led to it" in runtime.machine.log.text
    runtime.settle(execution, "Function.ResponseSizeTooLarge")
    assert runtime.report["status"] == "Function.ResponseSizeTooLarge"


def test_what_led_to_an_error_is_logged_before_it(runtime: Runtime) -> None:
    worker = runtime.start()
    task = runtime.run(runtime.arrive())
    worker.deno.log("what led to it\n", is_read=False)
    runtime.loop.call(worker.deno.throw)
    assert error_of_type(task) == "RangeError"
    assert b"what led to it" in runtime.machine.log.text


def test_without_a_form_nothing_is_measured(loop: HandDrivenLoop) -> None:
    runtime = Runtime(loop, form=None)
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.call(worker.deno.respond, b"1")
    assert task.result() == Success(b"1")
    runtime.settle(execution)
    assert runtime.machine.log.text == b""


def test_a_worker_that_cannot_be_started_is_told(runtime: Runtime) -> None:
    runtime.machine.refusal = WorkerSpawnError("no process is left")
    execution = runtime.arrive()
    error_type, _ = error_of(runtime.run(execution).result())
    assert error_type == "Runtime.InvalidEntrypoint"
    runtime.settle(execution)
    assert runtime.report["handlerMs"] is None


# Loading.


@pytest.mark.parametrize("fails", ["fail_to_load", "exit"])
def test_a_waiting_worker_that_does_not_load_is_replaced_once(
    runtime: Runtime, fails: str
) -> None:
    loop = runtime.loop
    loop.begin(runtime.strategy.start(runtime.machine.launch({})))
    execution = runtime.arrive()
    task = runtime.run(execution)
    first = runtime.worker.deno
    loop.call(*((first.exit, 3) if fails == "exit" else (first.fail_to_load,)))
    second = runtime.worker
    assert second.deno is not first
    assert not task.done()
    loop.call(second.deno.fail_to_load)
    assert error_of_type(task) == "Runtime.ImportModuleError"
    runtime.settle(execution)
    assert second.is_stopped


def error_of_type(task: asyncio.Task[Outcome]) -> str:
    outcome = task.result()
    assert isinstance(outcome, Failure)
    return outcome.error_type


def test_a_worker_that_is_killed_while_it_loads_is_replaced_once(
    runtime: Runtime,
) -> None:
    loop = runtime.loop
    execution = runtime.arrive()
    task = runtime.run(execution)
    loop.call(runtime.worker.deno.exit, -signal.SIGKILL)
    assert not task.done()
    loop.call(runtime.worker.deno.exit, -signal.SIGKILL)
    assert error_of_type(task) == "Runtime.ExitError"
    assert len(runtime.machine.made) == 2


@pytest.mark.parametrize(
    ("has_loaded", "returncode"), [(False, 3), (True, -signal.SIGKILL)]
)
def test_a_worker_that_ends_otherwise_is_not_replaced(
    runtime: Runtime, has_loaded: bool, returncode: int
) -> None:
    execution = runtime.arrive()
    task = runtime.run(execution)
    if has_loaded:
        runtime.loop.call(runtime.worker.deno.load)
    runtime.loop.call(runtime.worker.deno.exit, returncode)
    assert error_of_type(task) == "Runtime.ExitError"
    assert len(runtime.machine.made) == 1


# Events that were not read.


def test_an_event_that_was_not_read_goes_to_another_worker(server: Runtime) -> None:
    first = server.start()
    others = [server.run(server.arrive(name)) for name in ("a", "b")]
    error = WorkerUnreachedError("it closed the connection unread")
    for exchange in list(first.channel.exchanges):
        server.loop.call(exchange.fail, error)
    first.channel.is_reachable = False
    second = server.worker
    assert second is not first
    server.loop.call(second.deno.load)
    assert sorted(second.channel.exchanges.values()) == ["a", "b"]
    for exchange, name in dict(second.channel.exchanges).items():
        server.loop.call(second.channel.respond, exchange, name.encode())
    assert [task.result() for task in others] == [Success(b"a"), Success(b"b")]


def test_a_worker_that_fails_alone_is_replaced_once(server: Runtime) -> None:
    task = server.run(server.arrive())
    for _ in range(2):
        worker = server.worker
        server.loop.call(worker.deno.load)
        [exchange] = worker.channel.exchanges
        server.loop.call(exchange.fail, WorkerUnreachedError("unread"))
        worker.channel.is_reachable = False
    assert not task.done(), "its end may tell more"
    server.loop.call(worker.deno.exit, 3)
    error_type, message = error_of(task.result())
    assert error_type == "Runtime.ExitError"
    assert "status 3" in message
    assert len(server.machine.made) == 2


def test_events_of_others_make_a_worker_worth_another_try(server: Runtime) -> None:
    """They failed for what another one had done to their process."""
    execution = server.arrive()
    task = server.run(execution)
    for _ in range(5):
        worker = server.worker
        worker.channel.handed_over = 1  # to another one
        server.loop.call(worker.deno.load)
        [exchange] = worker.channel.exchanges
        server.loop.call(exchange.fail, WorkerUnreachedError("unread"))
        worker.channel.is_reachable = False
        assert not task.done()
        # What is no longer of use is ended with its last lease.
        server.loop.settle()
        assert worker.is_stopped
    assert len(server.machine.made) == 6


def test_there_is_an_end_to_trying(server: Runtime) -> None:
    task = server.run(server.arrive())
    while not task.done():
        worker = server.worker
        worker.channel.handed_over = 1
        worker.channel.refusal = WorkerUnreachedError("nobody listens")
        server.loop.call(worker.deno.load)
    assert error_of(task.result())[1] == "nobody listens"
    assert len(server.machine.made) == 32


# Deadlines.


def test_a_handler_that_does_not_respond_is_stopped_before_the_deadline(
    runtime: Runtime,
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.call(worker.deno.log, "the last words\n")
    runtime.loop.advance(TIMEOUT_S - MARGIN_S - 0.01)
    assert worker.deno.signals == []
    runtime.loop.advance(0.02)
    assert worker.deno.signals == [signal.SIGTERM]
    runtime.loop.advance(MARGIN_S / 4)
    outcome = task.result()
    error_type, message = error_of(outcome)
    assert error_type == "Runtime.InvokeTimeout"
    assert message.startswith("The handler did not answer within 9.80 seconds")
    assert isinstance(outcome, Failure)
    assert json.loads(outcome.body)["logTail"] == ["the last words"]
    runtime.settle(execution)
    assert worker.is_stopped
    assert runtime.report["status"] == "Runtime.InvokeTimeout"


def test_the_caller_does_not_wait_for_what_a_stopped_handler_says(
    runtime: Runtime,
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.advance(TIMEOUT_S - MARGIN_S)
    assert worker.deno.signals == [signal.SIGTERM]
    assert not task.done()
    runtime.loop.call(worker.deno.announce)
    assert error_of(task.result())[0] == "Runtime.InvokeTimeout"
    settling = runtime.loop.begin(execution.settle(None))
    runtime.loop.advance(MARGIN_S / 2)
    assert not settling.done()
    # A response that comes too late is not one.
    runtime.loop.call(worker.deno.respond, b"1")
    runtime.loop.call(worker.deno.exit, 0)
    assert settling.done()
    assert worker.deno.signals == [signal.SIGTERM], "it has ended by itself"
    assert runtime.report["status"] == "Runtime.InvokeTimeout"


def test_what_a_stopped_handler_says_ends_before_the_deadline(
    runtime: Runtime,
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.advance(TIMEOUT_S - MARGIN_S)
    runtime.loop.call(worker.deno.announce)
    assert task.done()
    settling = runtime.loop.begin(execution.settle(None))
    runtime.loop.advance(MARGIN_S)
    assert settling.done()
    assert worker.is_stopped
    assert worker.deno.signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_module_that_does_not_load_in_time_is_told(runtime: Runtime) -> None:
    task = runtime.run(runtime.arrive())
    runtime.loop.advance(TIMEOUT_S)
    assert "module that did not finish loading" in error_of(task.result())[1]


def test_an_event_without_room_is_told_at_its_deadline(loop: HandDrivenLoop) -> None:
    runtime = Runtime(loop, room=1)
    first = runtime.run(runtime.arrive("a", timeout_s=60.0))
    second = runtime.run(runtime.arrive("b"))
    loop.advance(TIMEOUT_S)
    error_type, message = error_of(second.result())
    assert error_type == "Runtime.InvokeTimeout"
    assert message == "There was no room for another process in time"
    assert not first.done()


def test_an_event_that_no_worker_has_read_in_time_is_told(server: Runtime) -> None:
    task = server.run(server.arrive())
    worker = server.worker
    worker.channel.handed_over = 1
    worker.channel.refusal = WorkerUnreachedError("nobody listens")
    worker.deno.is_stuck = True
    server.loop.call(worker.deno.load)
    server.loop.advance(TIMEOUT_S)
    message = "The processes that were to serve it ended before they began"
    assert error_of(task.result())[1] == message


def test_one_event_s_deadline_leaves_a_server_to_the_others(server: Runtime) -> None:
    worker = server.start()
    late = server.run(server.arrive("late"))
    other = server.run(server.arrive("other", timeout_s=60.0))
    exchanges = {name: one for one, name in worker.channel.exchanges.items()}
    worker.channel.read |= set(exchanges.values())
    server.loop.advance(TIMEOUT_S)
    assert error_of_type(late) == "Runtime.InvokeTimeout"
    assert worker.deno.signals == []
    server.loop.call(worker.channel.respond, exchanges["other"], b"1")
    assert other.result() == Success(b"1")


# Streams.


def begin_stream(runtime: Runtime) -> tuple[FakeWorker, Execution, Outcome]:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.call(worker.deno.stream, b"one")
    return worker, execution, task.result()


def test_a_stream_is_passed_on_as_it_comes(runtime: Runtime) -> None:
    worker, execution, outcome = begin_stream(runtime)
    assert isinstance(outcome, Streaming)
    assert outcome.content_type == "text/plain"
    assert outcome.limit_s == pytest.approx(TIMEOUT_S - MARGIN_S / 2)
    chunks = runtime.loop.begin(chunks_of(outcome))
    assert not chunks.done()
    runtime.loop.call(worker.deno.end_stream)
    assert chunks.result() == [b"one"]
    assert outcome.chunks.failure is None
    runtime.loop.call(worker.deno.finish)
    runtime.settle(execution)
    report = runtime.report
    assert (report["status"], report["bytesOut"]) == ("success", 3)


def test_a_stream_that_breaks_off_says_why(runtime: Runtime) -> None:
    worker, execution, outcome = begin_stream(runtime)
    assert isinstance(outcome, Streaming)
    runtime.loop.call(worker.deno.exit, 3)
    assert runtime.loop.run(chunks_of(outcome)) == [b"one"]
    failure = outcome.chunks.failure
    assert failure is not None
    assert failure.error_type == "Runtime.ExitError"
    runtime.settle(execution)
    assert runtime.report["status"] == "Runtime.ExitError"


def test_a_stream_that_does_not_end_is_stopped_before_the_deadline(
    runtime: Runtime,
) -> None:
    worker, _, outcome = begin_stream(runtime)
    assert isinstance(outcome, Streaming)
    chunks = runtime.loop.begin(chunks_of(outcome))
    runtime.loop.advance(TIMEOUT_S)
    assert chunks.result() == [b"one"]
    failure = outcome.chunks.failure
    assert failure is not None
    assert "did not end its answer within 9.80 seconds" in failure.body.decode()
    assert worker.exit_status is not None


def test_a_stream_whose_caller_has_left_is_abandoned(runtime: Runtime) -> None:
    worker, execution, _ = begin_stream(runtime)
    settling = runtime.loop.begin(execution.settle("Sandbox.Failure"))
    assert worker.deno.signals == [signal.SIGUSR2]
    assert not settling.done(), "the handler may have something to clean up"
    runtime.loop.call(worker.deno.end_stream)
    runtime.loop.call(worker.deno.finish)
    assert settling.done()


# What follows.


def test_work_after_the_response_has_until_the_deadline(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    runtime.run(execution)
    runtime.loop.call(worker.deno.respond, b"1")
    settling = runtime.loop.begin(execution.settle(None))
    runtime.loop.advance(TIMEOUT_S - MARGIN_S - 0.1)
    assert worker.deno.signals == []
    runtime.loop.advance(0.3)
    assert settling.done()
    assert "did not end before the deadline" in caplog.text
    assert worker.deno.signals[0] == signal.SIGTERM
    assert worker.is_stopped


def test_last_words_follow_the_response_and_come_before_the_next_process(
    runtime: Runtime,
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.call(worker.deno.respond, b"1")
    assert task.result() == Success(b"1"), "the caller does not wait"
    runtime.loop.call(worker.deno.announce)
    runtime.loop.call(worker.deno.finish)
    settling = runtime.loop.begin(execution.settle(None))
    runtime.loop.advance(1.0)
    assert not settling.done()
    assert runtime.worker is worker, "its place is not free yet"
    runtime.loop.call(worker.deno.exit, 0)
    assert settling.done()
    assert worker.deno.signals == []
    assert runtime.worker is not worker


@pytest.mark.parametrize("frame", ["READY", "RESULT", "DONE"])
def test_frames_among_the_last_words_spoil_nothing(
    runtime: Runtime, frame: str
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    task = runtime.run(execution)
    runtime.loop.call(worker.deno.respond, b"1")
    runtime.loop.call(worker.deno.announce)
    runtime.loop.call(worker.deno.finish)
    settling = runtime.loop.begin(execution.settle(None))
    runtime.loop.call(worker.deno.write, frame_of(frame))
    runtime.loop.call(worker.deno.exit, 0)
    assert settling.done()
    assert task.result() == Success(b"1")
    assert runtime.report["status"] == "success"
    assert runtime.worker is not worker


def test_work_that_is_lost_is_told(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    worker = runtime.start()
    execution = runtime.arrive()
    runtime.run(execution)
    runtime.loop.call(worker.deno.respond, b"1")
    runtime.loop.call(worker.deno.exit, 3)
    runtime.settle(execution)
    assert "Work after the response was lost: The process exited" in caplog.text


def test_start_and_waiting_belong_to_the_first_event_of_a_worker(
    server: Runtime,
) -> None:
    """Two that overlapped had neither: the server was asked once both had begun."""
    worker = server.start()
    executions = [server.arrive(name) for name in ("a", "b")]
    tasks = [server.run(execution) for execution in executions]
    for exchange in dict(worker.channel.exchanges):
        server.loop.call(worker.channel.respond, exchange, b"1")
        server.loop.call(worker.channel.finish, exchange)
    measured = []
    for execution, task in zip(executions, tasks, strict=True):
        assert task.result() == Success(b"1")
        server.settle(execution)
        measured.append(server.report)
    for name in ("spawnMs", "readyMs", "idleMs"):
        assert [one[name] is not None for one in measured] == [True, False]
    assert measured[0]["cpuUserMs"] is None, "the process runs on"


def test_an_execution_that_is_cancelled_gives_its_worker_back(server: Runtime) -> None:
    worker = server.start()
    tasks = [server.run(server.arrive(name)) for name in ("a", "b")]
    tasks[0].cancel()
    server.loop.settle()
    assert tasks[0].cancelled()
    assert worker.deno.signals == [], "it may still close in order"
    assert list(worker.channel.exchanges.values()) == ["b"]


def test_an_execution_that_is_cancelled_while_it_retries_gives_back_once(
    runtime: Runtime,
) -> None:
    task = runtime.run(runtime.arrive())
    first = runtime.worker
    first.deno.is_stuck = True
    runtime.loop.call(first.deno.exit, -signal.SIGKILL)
    runtime.loop.call(runtime.worker.deno.load)
    task.cancel()
    runtime.loop.settle()
    assert task.cancelled()
