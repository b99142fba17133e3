"""Events without a caller: how often they are run, and what is said of them."""

from __future__ import annotations

import asyncio

import pytest

from lambda_deno_spawn.dev.devserver.job import Job
from lambda_deno_spawn.dev.devserver.journal import Facts, Journal, Source
from lambda_deno_spawn.dev.devserver.retries import Retries
from lambda_deno_spawn.dev.local.environment import EmulatedOutcome, OutcomeKind

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:failed"


class Events:
    """Attempts, each of which ends as the test says."""

    def __init__(self, *kinds: OutcomeKind, has_function: bool = True) -> None:
        self.journal = Journal()
        self.numbers: list[int] = []
        self._kinds = kinds
        self._has_function = has_function

    def attempt(self, number: int) -> Job | None:
        if number > 1 and not self._has_function:
            return None
        self.numbers.append(number)
        facts = Facts(
            request_id="id",
            function="f",
            source=Source.ASYNC,
            event=b"{}",
            received_epoch_ms=0.0,
            attempt=number,
        )
        job = Job(self.journal.begin(facts), self.journal)
        job.answer(EmulatedOutcome(self._kinds[number - 1], b"{}"))
        job.end(None, "")
        return job

    async def run(self, dead_letter: str | None = None) -> list[str]:
        retries = Retries(self.journal, (0.0, 0.0))
        first = self.attempt(1)
        assert first is not None
        retries.follow(first, self.attempt, lambda: dead_letter)
        async with asyncio.timeout(5):
            while retries._following:
                await asyncio.wait(retries._following)
        return [notice.text for notice in self.journal.notices()]


async def test_an_event_that_succeeds_is_run_once() -> None:
    events = Events(OutcomeKind.RESPONSE)
    assert await events.run() == []
    assert events.numbers == [1]


async def test_an_event_that_fails_is_run_again_under_the_same_id() -> None:
    events = Events(OutcomeKind.ERROR, OutcomeKind.RESPONSE)
    [said] = await events.run()
    assert "id failed, attempt 1 of 3: the next one follows in 0 s" in said
    assert events.numbers == [1, 2]
    [record] = events.journal.records()
    assert (record.facts.attempt, record.is_ok) == (2, True)


@pytest.mark.parametrize(
    ("queue", "end"), [(None, "Lambda discards it"), (QUEUE, f"sends it to {QUEUE}")]
)
async def test_after_the_third_attempt_it_is_said_where_the_event_goes(
    queue: str | None, end: str
) -> None:
    events = Events(*3 * [OutcomeKind.TIMEOUT])
    *_, said = await events.run(queue)
    assert "failed 3 times" in said
    assert end in said
    assert events.numbers == [1, 2, 3]


async def test_a_function_that_is_gone_gets_no_further_attempt() -> None:
    events = Events(OutcomeKind.ERROR, has_function=False)
    *_, said = await events.run()
    assert "its function is not served any more" in said


async def test_nothing_is_run_again_once_dev_ends() -> None:
    events = Events(OutcomeKind.ERROR)
    retries = Retries(events.journal, (60.0,))
    first = events.attempt(1)
    assert first is not None
    retries.follow(first, events.attempt, lambda: None)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await retries.aclose()
    assert events.numbers == [1]


def test_attempts_of_one_event_are_counted_once() -> None:
    events = Events(OutcomeKind.ERROR, OutcomeKind.ERROR)
    for number in (1, 2):
        events.attempt(number)
    assert events.journal._kept_bytes == sum(
        record.kept_bytes for record in events.journal.records()
    )
