"""The register of workers: who is ended, together with what, and tried how often."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.invocation import Invocation
from lambda_deno_spawn.serving.credentials import Credentials, CredentialsKeeper
from tests.unit.workers import FakeWorker, Machine

if TYPE_CHECKING:
    from tests.unit.hand_driven import HandDrivenLoop

HOUR_S = 3600.0


class Source:
    """Credentials that expire at a time that a test sets."""

    def __init__(self) -> None:
        self.expiration = "1970-01-01T01:00:00Z"
        self.key = "first"

    async def credentials(self, uri: str, token: str) -> bytes:
        return (
            f'{{"AccessKeyId":"{self.key}","SecretAccessKey":"s","Token":"t",'
            f'"Expiration":"{self.expiration}"}}'
        ).encode()


def start(loop: HandDrivenLoop, machine: Machine) -> FakeWorker:
    loop.call(machine.workers.start)
    return machine.made[-1]


def with_event(loop: HandDrivenLoop, worker: FakeWorker) -> None:
    loop.call(worker.deno.load)
    loop.run(worker.hand_over(Invocation("a", 0, "", b""), 0))


def test_what_is_started_is_ended(loop: HandDrivenLoop) -> None:
    machine = Machine()
    workers = machine.workers
    assert workers.is_empty
    worker = start(loop, machine)
    assert not workers.is_empty
    task = loop.create_task(workers.stop(worker, 1.0))
    loop.settle()
    assert task.done()
    assert worker.is_stopped
    assert workers.is_empty


def test_a_worker_that_cannot_be_started_is_not_known(loop: HandDrivenLoop) -> None:
    machine = Machine()
    machine.refusal = WorkerSpawnError("no process is left")
    with pytest.raises(WorkerSpawnError):
        loop.call(machine.workers.start)
    assert machine.workers.is_empty


def test_what_copies_processes_is_made_when_it_is_needed_and_tried_again(
    loop: HandDrivenLoop, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Machine().workers
    assert workers.find_templates() is None
    assert workers.why_not_fork == "LAMBDA_DENO_START=exec"
    answers: list[str | OSError] = [OSError("Too many open files"), "it has a socket"]

    def make(_: object) -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    workers.make_templates = make
    assert workers.why_not_fork == "there was no loaded process to copy"
    assert workers.find_templates() is None
    assert "Too many open files" in caplog.text
    assert workers.find_templates() is None
    assert workers.why_not_fork == "it has a socket"
    assert workers.find_templates() is None


def test_all_but_those_that_are_kept_are_killed_at_once(loop: HandDrivenLoop) -> None:
    machine = Machine()
    first, second, kept = (start(loop, machine) for _ in range(3))
    for worker in (first, second):
        worker.deno.is_stuck = True
    loop.begin(machine.workers.stop_all_but({kept}, 1.0))
    assert first.deno.signals[:1] == second.deno.signals[:1] == [signal.SIGKILL]
    assert machine.workers.stopping == 1, "they are waited for in turn"
    assert kept.deno.signals == []


def test_a_worker_that_is_being_ended_is_not_ended_twice(loop: HandDrivenLoop) -> None:
    machine = Machine()
    worker = start(loop, machine)
    worker.deno.is_stuck = True
    loop.begin(machine.workers.stop(worker, 1.0))
    assert machine.workers.is_stopping(worker)
    sent = list(worker.deno.signals)
    assert loop.begin(machine.workers.stop_all_but(set(), 1.0)).done()
    assert worker.deno.signals == sent


def test_an_end_that_fails_is_told_once_and_then_tried_for_a_moment_only(
    loop: HandDrivenLoop, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    worker = start(loop, machine)
    worker.deno.is_stuck = True
    with caplog.at_level(logging.ERROR):
        loop.run(machine.workers.stop(worker, 5.0))
        assert loop.now_s == pytest.approx(5.0, abs=0.1)
        loop.run(machine.workers.stop(worker, 5.0))
    assert loop.now_s == pytest.approx(5.2, abs=0.1)
    assert len(caplog.records) == 1
    assert str(worker.pid) in caplog.text
    assert not machine.workers.is_empty
    worker.deno.is_stuck = False
    loop.run(machine.workers.stop(worker, 5.0))
    assert machine.workers.is_empty


def test_a_program_that_cannot_be_ended_keeps_the_register_from_being_empty(
    loop: HandDrivenLoop,
) -> None:
    machine = Machine()
    machine.reaper.holds = True
    loop.run(machine.workers.stop(start(loop, machine), 1.0))
    assert not machine.workers.is_empty
    machine.reaper.holds = False
    loop.run(machine.workers.stop(start(loop, machine), 1.0))
    assert machine.workers.is_empty


def test_an_end_that_is_cancelled_can_be_tried_again(loop: HandDrivenLoop) -> None:
    machine = Machine()
    worker = start(loop, machine)
    worker.deno.is_stuck = True
    task = loop.begin(machine.workers.stop(worker, 1.0))
    task.cancel()
    loop.settle()
    assert not machine.workers.is_stopping(worker)
    worker.deno.is_stuck = False
    loop.run(machine.workers.stop_all_but(set(), 1.0))
    assert machine.workers.is_empty


def test_those_that_have_seen_an_event_may_close_all_at_once(
    loop: HandDrivenLoop,
) -> None:
    machine = Machine(invocations=2)
    idle, *served = (start(loop, machine) for _ in range(3))
    for worker in served:
        with_event(loop, worker)
    task = loop.begin(machine.workers.close_all(0.1))
    assert [worker.deno.signals for worker in served] == [[signal.SIGTERM]] * 2
    assert idle.deno.signals == []
    loop.advance(0.1)
    assert task.done()


def test_one_that_has_last_words_is_heard_out_for_as_long_as_is_left(
    loop: HandDrivenLoop, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    speaks, other = (start(loop, machine) for _ in range(2))
    with_event(loop, speaks)
    loop.call(speaks.deno.respond, b"1")
    loop.call(speaks.deno.announce)
    loop.call(speaks.deno.finish)
    task = loop.begin(machine.workers.stop_all_but(set(), 0.5))
    assert speaks.deno.signals == []
    assert other.deno.signals == [signal.SIGKILL], "it does not wait for the other"
    loop.advance(0.6)
    assert task.done()
    assert speaks.deno.signals == [signal.SIGKILL]
    assert "did not end within 0.50 s: stopped" in caplog.text
    assert machine.workers.is_empty


def test_past_the_deadline_no_program_is_heard_out(loop: HandDrivenLoop) -> None:
    machine = Machine()
    worker = start(loop, machine)
    with_event(loop, worker)
    loop.call(worker.deno.announce)
    task = loop.begin(machine.workers.stop_all_but(set(), 0.0))
    loop.advance(0.001)
    assert worker.deno.signals == [signal.SIGKILL]
    assert task.done()


def test_one_whose_module_did_not_load_is_heard_out_at_the_end(
    loop: HandDrivenLoop,
) -> None:
    machine = Machine()
    worker = start(loop, machine)
    loop.call(worker.deno.fail_to_load)
    loop.call(worker.deno.announce)
    loop.call(worker.deno.finish)
    task = loop.begin(machine.workers.close_all(0.1))
    assert (task.done(), worker.deno.signals) == (False, [])
    loop.call(worker.deno.exit, 1)
    assert task.done()


def test_an_orphan_is_spared_while_the_worker_it_belongs_to_goes_on(
    loop: HandDrivenLoop,
) -> None:
    machine = Machine()
    folders = {7: "/tmp/2", 8: "/tmp/2/deep", 9: "/tmp/20", 10: None}
    machine.workers._private_dir_of = folders.get
    ended, other = start(loop, machine), start(loop, machine)
    loop.run(machine.workers.stop(ended, 1.0))
    [spares] = machine.reaper.spared
    assert [spares(pid) for pid in folders] == [True, True, False, False]
    loop.run(machine.workers.stop(other, 1.0))
    assert not machine.reaper.spared[-1](7), "nothing of it goes on"


def keeper(source: Source) -> CredentialsKeeper:
    return CredentialsKeeper(source, "http://a:1/c", "token", dict, lambda: 0.0)


def test_a_worker_gets_the_credentials_there_are(loop: HandDrivenLoop) -> None:
    machine = Machine(credentials=keeper(Source()))
    start(loop, machine)
    assert machine.variables == {}
    assert machine.workers.credentials is not None
    loop.run(machine.workers.credentials.refresh(0.0))
    start(loop, machine)
    assert machine.variables["AWS_ACCESS_KEY_ID"] == "first"


def test_a_worker_is_outdated_if_another_one_s_credentials_last_longer(
    loop: HandDrivenLoop,
) -> None:
    source = Source()
    machine = Machine(credentials=keeper(source))
    workers, credentials = machine.workers, machine.workers.credentials
    assert credentials is not None
    without = start(loop, machine)
    assert not workers.is_outdated(without, HOUR_S), "there are no others"
    loop.run(credentials.refresh(0.0))
    worker = start(loop, machine)
    assert workers.is_outdated(without, 0.0)
    assert not workers.is_outdated(worker, 2 * HOUR_S), "there are no others"
    source.expiration, source.key = "1970-01-02T00:00:00Z", "second"
    loop.run(credentials.refresh(2 * HOUR_S))
    assert workers.is_outdated(worker, HOUR_S)
    assert not workers.is_outdated(worker, HOUR_S - 1)


def test_without_credentials_no_worker_is_outdated(loop: HandDrivenLoop) -> None:
    machine = Machine()
    assert not machine.workers.is_outdated(start(loop, machine), 1e9)
    assert Credentials({}).lasts(1e9, 0.0)
