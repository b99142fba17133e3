"""One worker: loading, hand-over, log, and every way to its end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import (
    WorkerError,
    WorkerExitedError,
    WorkerOutOfMemoryError,
    WorkerProtocolError,
)
from lambda_deno_spawn.invocation import Invocation, Success
from tests.unit.workers import MARKER, FakeWorker, Machine

if TYPE_CHECKING:
    from lambda_deno_spawn.worker.exchange import Exchange
    from tests.unit.hand_driven import HandDrivenLoop


def invocation(request_id: str = "a", tenant_id: str | None = None) -> Invocation:
    return Invocation(request_id, 10_000, "arn", b"{}", tenant_id=tenant_id)


def started(
    loop: HandDrivenLoop, *, invocations: int = 1, listens: bool = False
) -> tuple[Machine, FakeWorker]:
    machine = Machine(invocations=invocations, listens=listens)
    return machine, loop.call(machine.start)


def loaded(
    loop: HandDrivenLoop, *, invocations: int = 1, listens: bool = False
) -> tuple[Machine, FakeWorker]:
    machine, worker = started(loop, invocations=invocations, listens=listens)
    loop.call(worker.deno.load)
    return machine, worker


def hand_over(loop: HandDrivenLoop, worker: FakeWorker, name: str = "a") -> Exchange:
    return loop.run(worker.hand_over(invocation(name), 9_000))


# Loading.


def test_a_worker_is_ready_once_its_module_is_loaded(loop: HandDrivenLoop) -> None:
    _, worker = started(loop)
    task = loop.begin(worker.ready())
    assert (task.done(), worker.ready_s) == (False, None)
    assert worker.is_usable()
    loop.call(worker.deno.load)
    assert task.result() is None
    assert worker.ready_s is not None
    assert worker.ready_s >= worker.started.started_s
    assert worker.is_usable()


def test_a_module_that_does_not_load_is_told(loop: HandDrivenLoop) -> None:
    _, worker = started(loop)
    loop.call(worker.deno.fail_to_load)
    failure = loop.run(worker.ready())
    assert failure is not None
    assert failure.error_type == "Runtime.ImportModuleError"
    assert not worker.is_usable()


def test_a_process_that_ends_while_it_loads_is_told(loop: HandDrivenLoop) -> None:
    _, worker = started(loop)
    loop.call(worker.deno.log, "the last words\n")
    loop.call(worker.deno.exit, 3)
    with pytest.raises(WorkerExitedError, match="status 3 before loading") as caught:
        loop.run(worker.ready())
    assert caught.value.stderr_tail == "the last words"
    assert not worker.is_usable()


# Hand-over.


def test_an_invocation_is_written_and_its_result_is_its_response(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    assert worker.deno.requests == ["a"]
    assert worker.deno.stdin[-1] == b"{}"
    assert not worker.deno.has_stdin, "there is no other one"
    assert (exchange.number, worker.handed_over) == (1, 1)
    assert not worker.is_usable()
    loop.call(worker.deno.respond, b"1")
    assert loop.run(exchange.response()) == Success(b"1")
    loop.call(worker.deno.finish)
    loop.run(exchange.finished())
    assert not exchange.leaves_worker_usable


def test_an_exchange_is_not_told_of_the_next_one_s_frames(
    loop: HandDrivenLoop,
) -> None:
    """With reuse an ended exchange had the state of the one that followed."""
    _, worker = loaded(loop, invocations=3)
    first = hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(lambda: worker.deno.finish(more=True))
    worker.close_exchange(first)
    state = first.state
    second = hand_over(loop, worker, "b")
    assert (first.number, second.number) == (1, 2)
    loop.call(worker.deno.respond, b"2")
    assert first.state is state
    assert loop.run(first.response()) == Success(b"1")
    assert loop.run(second.response()) == Success(b"2")
    assert worker.deno.has_stdin


def test_a_worker_that_has_had_its_last_event_is_not_used_whatever_it_says(
    loop: HandDrivenLoop,
) -> None:
    """A forged DONE kept a process for the next event, which it could then answer."""
    _, worker = loaded(loop, invocations=1)
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(lambda: worker.deno.finish(more=True))
    assert exchange.leaves_worker_usable
    assert not worker.is_usable()


def test_frames_that_come_after_an_exchange_was_closed_are_dropped(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    worker.close_exchange(exchange)
    loop.call(worker.deno.respond, b"1")
    assert exchange.has_finished
    assert exchange.responded_s is None


# The log.


def test_log_lines_belong_to_the_invocation_that_runs(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop, invocations=2)
    for name, tenant_id, told in (("a", None, ""), ("b", "blue", "TenantId: blue\t")):
        work = worker.hand_over(invocation(name, tenant_id), 9_000)
        exchange = loop.run(work)
        loop.call(worker.deno.log, f"of {name}\n")
        assert f"{name}\tINFO\t{told}of {name}\n".encode() in machine.log.text
        loop.call(worker.deno.respond, b"1")
        loop.call(lambda: worker.deno.finish(more=True))
        worker.close_exchange(exchange)
    assert worker.log_tail == "of b", "what was logged for another is not shown"


def test_what_was_logged_before_the_end_of_an_exchange_is_its_own(
    loop: HandDrivenLoop,
) -> None:
    machine, worker = loaded(loop, invocations=2)
    first = hand_over(loop, worker)
    worker.deno.log("late\n", is_read=False)
    worker.close_exchange(first)
    loop.call(worker.deno.respond, b"1")
    loop.call(lambda: worker.deno.finish(more=True))
    hand_over(loop, worker, "b")
    assert b"a\tINFO\tlate\n" in machine.log.text


def test_of_several_at_once_no_line_and_no_tail_is_attributed(
    loop: HandDrivenLoop,
) -> None:
    machine, worker = loaded(loop, listens=True, invocations=0)
    first = hand_over(loop, worker)
    loop.call(worker.deno.log, "of a\n")
    hand_over(loop, worker, "b")
    loop.call(worker.deno.log, "of both\n")
    assert b"a\tINFO\tof a\n" in machine.log.text
    assert b"\t-\tINFO\tof both\n" in machine.log.text
    assert worker.log_tail == ""
    worker.close_exchange(first)
    assert worker.log_tail == "of both"


def test_a_log_that_is_not_read_makes_its_writer_wait(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop)
    machine.log.is_held_up = True
    loop.call(worker.deno.log, "one\n")
    loop.call(worker.deno.log, "two\n")
    assert b"two" not in machine.log.text
    machine.log.is_held_up = False
    for callback in machine.log.callbacks:
        loop.call(callback)
    assert b"two" in machine.log.text


def test_what_strays_on_stdout_is_logged_and_dropped_if_the_log_is_full(
    loop: HandDrivenLoop,
) -> None:
    machine, worker = loaded(loop)
    loop.call(worker.deno.write, b"stray one\n")
    machine.log.is_held_up = True
    loop.call(worker.deno.write, b"stray two\n")
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    assert loop.run(exchange.response()) == Success(b"1")
    assert b"stray one" in machine.log.text
    assert b"stray two" not in machine.log.text


# How it breaks off.


def test_a_process_that_exits_fails_what_has_not_come(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.exit, 3)
    with pytest.raises(WorkerExitedError, match="status 3 before answering"):
        loop.run(exchange.response())
    assert worker.exit_status is not None
    assert worker.exit_status.returncode == 3


@pytest.mark.parametrize(("kills", "is_oom"), [(0, False), (1, True)])
def test_a_sigkill_that_is_not_ours_is_the_kernel_s_if_it_counted_one(
    loop: HandDrivenLoop, kills: int, is_oom: bool
) -> None:
    machine, worker = loaded(loop)
    machine.reaper.oom_kills.count = kills
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.exit, -signal.SIGKILL)
    with pytest.raises(WorkerExitedError) as caught:
        loop.run(exchange.response())
    assert isinstance(caught.value, WorkerOutOfMemoryError) is is_oom


def test_a_sigkill_of_ours_is_not_the_kernel_s(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop)
    machine.reaper.oom_kills.count = 1
    exchange = hand_over(loop, worker)
    loop.call(worker.kill)
    with pytest.raises(WorkerExitedError) as caught:
        loop.run(exchange.response())
    assert not isinstance(caught.value, WorkerOutOfMemoryError)


def test_a_frame_that_is_not_allowed_fails_the_exchange(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.load)
    with pytest.raises(WorkerProtocolError, match="READY is not allowed") as caught:
        loop.run(exchange.response())
    assert caught.value.pid == worker.pid
    assert exchange.lost_work is None
    assert not worker.is_usable()


def test_work_that_a_broken_frame_ends_is_not_lost_work(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(worker.deno.load)
    assert exchange.has_finished
    assert exchange.lost_work is None


def test_the_end_of_stdout_waits_a_moment_for_the_exit(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    loop.call(worker.stdout_ended)
    loop.advance(0.4)
    assert not exchange.has_finished
    assert not worker.is_usable()
    loop.call(worker.deno.exit, 3)
    with pytest.raises(WorkerExitedError, match="status 3"):
        loop.run(exchange.response())


def test_a_worker_whose_stdout_has_ended_is_not_used(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    loop.call(worker.stdout_ended)
    assert not worker.is_usable()
    loop.run(worker.stop(1.0, lambda _: False))
    loop.settle()
    assert loop.next_timer_in_s is None


def test_stdout_that_is_closed_by_a_process_that_runs_on_is_told(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop)
    exchange = hand_over(loop, worker)
    loop.call(worker.stdout_ended)
    loop.advance(0.6)
    message = "closed its stdout while BUSY and runs on"
    with pytest.raises(WorkerProtocolError, match=message):
        loop.run(exchange.response())


def test_a_process_that_could_not_be_reached_is_asked_for_its_end(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop, listens=True)
    unreached = WorkerError("unreached")
    task = loop.begin(worker.reason_of(unreached))
    loop.call(worker.deno.exit, 3)
    assert isinstance(task.result(), WorkerExitedError)
    _, other = loaded(loop, listens=True)
    assert loop.run(other.reason_of(unreached)) is unreached


# How it is ended.


@pytest.mark.parametrize("obeys", [True, False])
def test_a_worker_is_asked_to_end_before_it_is_killed(
    loop: HandDrivenLoop, obeys: bool
) -> None:
    _, worker = loaded(loop)
    worker.deno.ends_by_sigterm = obeys
    task = loop.begin(worker.terminate(0.05))
    assert task.done() is obeys
    loop.advance(0.05)
    assert task.done()
    assert worker.exit_status is not None
    assert worker.exit_status.returncode == (0 if obeys else -signal.SIGKILL)


def test_a_worker_that_says_it_has_heard_is_not_killed(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    hand_over(loop, worker)
    task = loop.begin(worker.terminate(0.05))
    loop.call(worker.deno.announce)
    assert task.done()
    assert worker.deno.signals == [signal.SIGTERM]
    assert not worker.is_usable(), "whatever it still says"
    heard = loop.begin(worker.hear_out(0.1))
    assert not heard.done()
    loop.call(worker.deno.exit, 0)
    assert heard.result() is True


def test_what_was_said_before_the_signal_does_not_count_as_heard(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop)
    hand_over(loop, worker)
    loop.call(worker.deno.announce)
    task = loop.begin(worker.terminate(0.05))
    assert not task.done()
    loop.advance(0.05)
    assert worker.deno.signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_worker_that_has_last_words_is_told_the_end_and_heard_out(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop, invocations=2)
    exchange = hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(worker.deno.announce)
    loop.call(lambda: worker.deno.finish(more=True))
    worker.close_exchange(exchange)
    assert worker.has_last_words
    assert worker.is_usable()
    worker.deno.ends_by_close = True
    task = loop.begin(worker.hear_out(1.0))
    assert worker.deno.stdin[-1] == b'{"limitMs":700}\n'
    assert not worker.deno.has_stdin
    assert not worker.is_usable()
    assert task.result() is True
    assert worker.deno.signals == []


def test_last_words_have_an_end(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(worker.deno.announce)
    loop.call(worker.deno.finish)
    task = loop.begin(worker.hear_out(1.0))
    loop.advance(0.9)
    assert not task.done()
    loop.advance(0.2)
    assert task.result() is False
    assert worker.deno.signals == [], "what stops it does the rest"


def test_a_worker_without_last_words_is_not_waited_for(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop)
    assert loop.begin(worker.hear_out(1.0)).result() is True


def test_at_the_end_of_all_one_that_ends_already_gets_no_signal(
    loop: HandDrivenLoop,
) -> None:
    _, worker = loaded(loop)
    hand_over(loop, worker)
    loop.call(worker.deno.respond, b"1")
    loop.call(worker.deno.announce)
    loop.call(worker.deno.finish)
    task = loop.begin(worker.close(0.1))
    assert worker.deno.signals == []
    loop.advance(0.1)
    assert task.done()
    assert loop.begin(worker.hear_out(1.0)).result() is True, "it has had its time"


def test_a_worker_that_may_close_is_not_killed(loop: HandDrivenLoop) -> None:
    _, worker = loaded(loop, invocations=2)
    task = loop.begin(worker.close(0.1))
    assert worker.deno.signals == [signal.SIGTERM]
    assert not worker.deno.has_stdin
    loop.advance(0.2)
    assert task.done()
    assert worker.exit_status is None


def test_a_worker_that_is_stopped_leaves_nothing(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop, listens=True)
    machine.state.left_files = 2
    machine.log.is_held_up = True
    loop.call(worker.deno.log, "fills the log\n")
    assert len(machine.log.callbacks) == 1
    worker.deno.log("no newline", is_read=False)
    assert loop.run(worker.stop(1.0, lambda _: False))
    assert worker.is_stopped
    assert worker.deno.is_closed
    assert worker.channel.is_closed
    assert worker.left_files == 2
    assert machine.state.removed == ["/tmp/1", "/tmp/1.socket"]
    assert b"no newline\n" in machine.log.text
    assert machine.log.callbacks == []
    assert loop.run(worker.stop(1.0, lambda _: False)), "once is enough"
    assert machine.state.removed == ["/tmp/1", "/tmp/1.socket"]


def test_a_process_that_the_kernel_holds_is_given_up_and_tried_again(
    loop: HandDrivenLoop,
) -> None:
    machine, worker = loaded(loop)
    worker.deno.is_stuck = True
    assert not loop.run(worker.stop(1.0, lambda _: False))
    assert loop.now_s == pytest.approx(1.0, abs=0.1)
    assert not worker.is_stopped
    assert machine.state.removed == []
    worker.deno.is_stuck = False
    assert loop.run(worker.stop(1.0, lambda _: False))
    assert worker.is_stopped


def test_a_process_that_is_traced_ends_with_its_tracer(
    loop: HandDrivenLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers were ended only once it had ended: so it was held up for ever."""
    machine, worker = loaded(loop)
    worker.deno.is_stuck = True

    async def sweep(_limit_s: float, _spares: object) -> bool:
        worker.deno.exit(-signal.SIGKILL)  # its tracer was a program that it had left
        return True

    monkeypatch.setattr(machine.reaper, "sweep", sweep)
    assert loop.run(worker.stop(5.0, lambda _: False))
    assert worker.is_stopped
    assert loop.now_s < 1.0


def test_what_it_started_and_cannot_be_ended_is_told(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop)
    machine.reaper.holds = True
    assert not loop.run(worker.stop(1.0, lambda _: False))
    assert worker.is_stopped, "the worker itself has ended"


def test_strangers_that_end_from_then_on_were_left_by_it(
    loop: HandDrivenLoop,
) -> None:
    machine, worker = loaded(loop)
    machine.reaper.ended = 5
    loop.call(worker.kill)
    machine.reaper.ended = 7
    loop.run(worker.stop(1.0, lambda _: False))
    assert worker.left_processes == 2


def test_a_log_line_keeps_its_marker_to_itself(loop: HandDrivenLoop) -> None:
    machine, worker = loaded(loop)
    loop.call(worker.deno.log, MARKER + '{"level":"INFO"}\n')
    assert machine.log.text == b'{"level":"INFO"}\n'
