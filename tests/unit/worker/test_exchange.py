"""One exchange: what its frames make of it, and which calls they wake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import WorkerError
from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Chunk,
    Done,
    Event,
    State,
    StreamBegun,
    StreamEnded,
)
from lambda_deno_spawn.worker.exchange import Exchange, StreamStarted

if TYPE_CHECKING:
    from tests.unit.hand_driven import HandDrivenLoop

RESULT = (Answered(Success(b"1")), State.FINISHING)
STREAM = (StreamBegun("text/plain"), State.STREAMING)
END = (StreamEnded(None), State.FINISHING)
DONE = (Done(), State.DONE)
MORE = (Done(), State.IDLE)
BROKE = WorkerError("it broke off")


class Source:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.is_paused = False
        self.gone: list[int] = []

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def notify_caller_gone(self, number: int) -> None:
        self.gone.append(number)


def exchange(*frames: tuple[Event, State], source: Source | None = None) -> Exchange:
    made = Exchange(7, source or Source())
    for event, state in frames:
        made.receive(event, state)
    return made


def test_a_response_wakes_the_task_that_waits_for_it(loop: HandDrivenLoop) -> None:
    one = exchange()
    task = loop.begin(one.response())
    assert not task.done()
    assert one.responded_s is None
    one.receive(*RESULT)
    loop.settle()
    assert task.result() == Success(b"1")
    assert one.responded_s is not None
    assert one.responded_s >= one.handed_over_s


def test_an_error_of_the_handler_is_a_response(loop: HandDrivenLoop) -> None:
    failure = Failure.of("RangeError", "thrown")
    one = exchange((Answered(failure), State.FINISHING))
    assert loop.run(one.response()) is failure


def test_a_stream_is_announced_and_its_chunks_come_in_order(
    loop: HandDrivenLoop,
) -> None:
    one = exchange(STREAM)
    assert loop.run(one.response()) == StreamStarted("text/plain")
    task = loop.begin(one.next_chunk())
    for chunk in (b"a", b"b"):
        one.receive(Chunk(chunk), State.STREAMING)
    loop.settle()
    assert task.result() == b"a"
    one.receive(*END)
    assert loop.run(one.next_chunk()) == b"b"
    for _ in range(2):
        assert loop.run(one.next_chunk()) == StreamEnded(None)


def test_a_break_is_raised_for_what_has_not_come_and_not_for_what_has(
    loop: HandDrivenLoop,
) -> None:
    one = exchange(STREAM, (Chunk(b"a"), State.STREAMING))
    one.fail(BROKE)
    one.fail(WorkerError("later"))
    assert loop.run(one.response()) == StreamStarted("text/plain")
    assert loop.run(one.next_chunk()) == b"a"
    with pytest.raises(WorkerError, match="it broke off"):
        loop.run(one.next_chunk())
    loop.run(one.finished())


def test_a_break_wakes_the_task_that_waits_for_the_response(
    loop: HandDrivenLoop,
) -> None:
    one = exchange()
    task = loop.begin(one.response())
    one.fail(BROKE)
    loop.settle()
    assert task.exception() is BROKE


def test_a_call_that_is_cancelled_can_be_made_again(loop: HandDrivenLoop) -> None:
    one = exchange()
    task = loop.begin(one.response())
    task.cancel()
    loop.settle()
    one.receive(*RESULT)
    assert loop.run(one.response()) == Success(b"1")


@pytest.mark.parametrize(
    ("frames", "is_usable", "has_finished", "is_lost"),
    [
        ((), False, True, False),
        ((RESULT,), False, True, True),
        ((RESULT, DONE), False, True, False),
        ((RESULT, MORE), False, True, False),
        ((STREAM,), False, True, False),
        ((STREAM, END), False, True, True),
    ],
    ids=["busy", "result", "done", "more", "streaming", "end-of-stream"],
)
def test_what_a_break_means_depends_on_how_far_it_had_come(
    frames: tuple[tuple[Event, State], ...],
    is_usable: bool,
    has_finished: bool,
    is_lost: bool,
) -> None:
    one = exchange(*frames)
    one.fail(BROKE)
    assert one.leaves_worker_usable is is_usable
    assert one.has_finished is has_finished
    assert (one.lost_work is BROKE) is is_lost


@pytest.mark.parametrize(
    ("frames", "is_usable", "has_finished"),
    [
        ((), False, False),
        ((RESULT,), False, False),
        ((RESULT, DONE), False, True),
        ((RESULT, MORE), True, True),
        ((STREAM, END, MORE), True, True),
    ],
    ids=["busy", "result", "done", "more", "stream"],
)
def test_a_worker_is_usable_after_done_with_more(
    frames: tuple[tuple[Event, State], ...], is_usable: bool, has_finished: bool
) -> None:
    one = exchange(*frames)
    assert one.leaves_worker_usable is is_usable
    assert one.has_finished is has_finished
    assert one.lost_work is None


def test_a_stream_that_is_abandoned_is_told_once_and_read_to_its_end() -> None:
    source = Source()
    one = exchange(STREAM, source=source)
    one.receive(Chunk(b"x" * 300_000), State.STREAMING)
    assert source.is_paused
    one.abandon_stream()
    one.abandon_stream()
    assert source.gone == [7]
    assert not source.is_paused
    one.receive(Chunk(b"x" * 300_000), State.STREAMING)
    assert not source.is_paused, "it is dropped"
    one.receive(*END)
    one.receive(*MORE)
    assert one.has_finished
    assert not one.leaves_worker_usable, "the notice may reach the next one"


@pytest.mark.parametrize("frames", [(), (RESULT,), (STREAM, END)])
def test_what_does_not_stream_is_not_abandoned(
    frames: tuple[tuple[Event, State], ...],
) -> None:
    source = Source()
    exchange(*frames, source=source).abandon_stream()
    assert source.gone == []


def test_an_exchange_that_is_closed_has_finished(loop: HandDrivenLoop) -> None:
    one = exchange(RESULT)
    task = loop.begin(one.finished())
    assert not task.done()
    one.close()
    loop.settle()
    assert task.done()


def test_single_bytes_are_held_back_for_what_they_cost(loop: HandDrivenLoop) -> None:
    """A quarter of a million of them were taken: 11 MB for 256 KiB."""
    source = Source()
    one = exchange(STREAM, source=source)
    count = 0
    while not source.is_paused:
        one.receive(Chunk(b"x"), State.STREAMING)
        count += 1
    assert count < 5_000

    async def read() -> None:
        for _ in range(count):
            assert await one.next_chunk() == b"x"

    loop.run(read())
    assert not source.is_paused
    one.receive(Chunk(b""), State.STREAMING)  # one of no bytes is nothing
    one.receive(Chunk(b"y" * 256 * 1024), State.STREAMING)
    assert source.is_paused
    assert loop.run(one.next_chunk()) == b"y" * 256 * 1024
    assert not source.is_paused
