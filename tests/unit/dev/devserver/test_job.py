"""A request between its environment and its caller."""

from __future__ import annotations

import asyncio

from lambda_deno_spawn.dev.devserver.job import PIECES_LIMIT, Job
from lambda_deno_spawn.dev.devserver.journal import Facts, Journal, Source
from lambda_deno_spawn.dev.local.environment import EmulatedOutcome, OutcomeKind

RESPONSE = EmulatedOutcome(OutcomeKind.RESPONSE, b"abc", is_streamed=True)


def job() -> Job:
    journal = Journal()
    facts = Facts(
        request_id="id",
        function="f",
        source=Source.URL,
        event=b"{}",
        received_epoch_ms=0.0,
    )
    return Job(journal.begin(facts), journal)


async def test_pieces_arrive_in_order_before_the_outcome() -> None:
    one = job()
    await one.put(b"a", "text/plain")
    await one.begun()
    assert (one.is_streamed, one.content_type) == (True, "text/plain")
    await one.put(b"b", "text/plain")
    one.answer(RESPONSE)
    assert [piece async for piece in one.pieces()] == [b"a", b"b"]
    assert await one.answered() is RESPONSE
    assert bytes(one.record.result) == b"ab", "pieces are not counted twice"


async def test_a_slow_caller_makes_the_runtime_wait() -> None:
    one = job()
    for _ in range(PIECES_LIMIT - 1):
        await one.put(b"x", "")
    writing = asyncio.create_task(one.put(b"x", ""))
    await asyncio.sleep(0)
    assert not writing.done()
    await anext(one.pieces())
    async with asyncio.timeout(5):
        await writing


async def test_a_caller_that_hangs_up_makes_nothing_wait() -> None:
    one = job()
    writing = [asyncio.create_task(one.put(b"x", "")) for _ in range(10)]
    await asyncio.sleep(0)
    one.hang_up()
    async with asyncio.timeout(5):
        await asyncio.gather(*writing)
        await one.put(b"x", "")
    assert one.record.result_bytes == 11


async def test_the_first_outcome_counts() -> None:
    one = job()
    one.answer(RESPONSE)
    one.answer(EmulatedOutcome(OutcomeKind.TIMEOUT, b"{}"))
    assert await one.answered() is RESPONSE
    one.end(64, "REPORT")
    async with asyncio.timeout(5):
        await one.over()
