"""The journal: what is kept of requests, for how long, and what subscribers hear."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.devserver.journal import (
    LOG_LIMIT_LINES,
    RESULT_LIMIT_BYTES,
    Change,
    ChangeKind,
    Facts,
    Journal,
    Notice,
    Phase,
    Source,
)
from lambda_deno_spawn.dev.local.environment import EmulatedOutcome, OutcomeKind

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.devserver.journal import Record


def begin(journal: Journal, name: str, event: bytes = b"{}") -> Record:
    return journal.begin(
        Facts(
            request_id=name,
            function="f",
            source=Source.INVOKE,
            event=event,
            received_epoch_ms=1.0,
        )
    )


def finish(journal: Journal, record: Record, body: bytes = b"1") -> None:
    journal.begin_response(record, 2.0, "application/json", is_streamed=False)
    journal.add_result(record, body)
    journal.answer(record, 3.0, EmulatedOutcome(OutcomeKind.RESPONSE, body))
    journal.end(record, 4.0, 64, "REPORT")


def test_a_request_is_followed_from_its_arrival_to_its_end() -> None:
    journal = Journal()
    record = begin(journal, "one", b'{"a":1}')
    assert record.summary()["phase"] == Phase.WAITING
    journal.assign(record, 0.5, environment=2, code=3)
    journal.deliver(record, 1.0, init_ms=100.0)
    assert record.summary()["phase"] == Phase.RUNNING
    journal.log(record, 1.5, "a line")
    finish(journal, record, b'"\xc3\xa4"')
    journal.measure(record, {"start": "fork"})
    journal.respond(record, 200, [("content-type", "application/json")])
    details = json.loads(json.dumps(record.details()))
    assert details["times"] == {
        "assignedMs": 0.5,
        "deliveredMs": 1.0,
        "firstByteMs": 2.0,
        "answeredMs": 3.0,
        "endedMs": 4.0,
    }
    assert details["event"] == {"text": '{"a":1}'}
    assert details["result"] == {"text": '"ä"'}
    assert details["log"] == [{"number": 1, "atMs": 1.5, "text": "a line"}]
    assert details["measures"] == {"start": "fork"}
    assert (details["phase"], details["ok"], details["status"]) == ("ended", True, 200)
    assert (details["environment"], details["code"]) == (2, 3)
    assert journal.find("one") is record


def test_bytes_that_are_no_text_are_in_base64() -> None:
    journal = Journal()
    record = begin(journal, "one")
    finish(journal, record, b"\xff")
    assert record.details()["result"] == {"base64": "/w=="}


def test_the_oldest_that_has_ended_makes_room() -> None:
    journal = Journal(records_limit=2)
    first, second = begin(journal, "first"), begin(journal, "second")
    finish(journal, second)
    begin(journal, "third")
    assert [record.id for record in journal.records()] == ["first", "third"]
    begin(journal, "fourth")
    assert len(journal.records()) == 3, "nothing that runs is dropped"
    finish(journal, first)
    assert [record.id for record in journal.records()] == ["third", "fourth"]


def test_bytes_are_counted_over_all_records() -> None:
    journal = Journal(bytes_limit=100)
    for number in range(5):
        record = begin(journal, str(number), b"e" * 10)
        journal.log(record, 0.0, "l" * 10)
        finish(journal, record, b"r" * 20)
    assert [record.id for record in journal.records()] == ["3", "4"]


def test_a_long_result_is_cut_but_counted_and_digested() -> None:
    journal = Journal()
    record = begin(journal, "one")
    body = b"x" * (RESULT_LIMIT_BYTES + 1)
    finish(journal, record, body)
    assert len(record.result) == RESULT_LIMIT_BYTES
    assert record.result_bytes == len(body)
    assert record.result_sha256 == hashlib.sha256(body).hexdigest()


def test_a_long_log_is_cut_but_counted() -> None:
    journal = Journal()
    record = begin(journal, "one")
    for _ in range(LOG_LIMIT_LINES + 5):
        journal.log(record, 0.0, "x")
    assert (len(record.log), record.lines_dropped) == (LOG_LIMIT_LINES, 5)
    assert record.summary()["logLines"] == LOG_LIMIT_LINES + 5


def test_a_listener_is_told_everything_in_order() -> None:
    journal = Journal()
    seen: list[ChangeKind] = []
    journal.listen(lambda change: seen.append(change.kind))
    record = begin(journal, "one")
    journal.log(record, 0.0, "x")
    finish(journal, record)
    journal.notice(Notice(1.0, "info", "text"))
    assert seen[0] is ChangeKind.BEGUN
    assert seen[1] is ChangeKind.LOG
    assert seen[-2:] == [ChangeKind.ENDED, ChangeKind.NOTICE]
    assert [notice.text for notice in journal.notices()] == ["text"]


async def test_a_subscriber_reads_changes_until_the_end() -> None:
    journal = Journal()
    with journal.subscribe() as subscription:
        reading = asyncio.create_task(read(subscription))
        await asyncio.sleep(0)
        record = begin(journal, "one")
        journal.log(record, 0.0, "x")
        await asyncio.sleep(0)
        journal.close()
        changes = await reading
    assert [change.kind for change in changes] == [ChangeKind.BEGUN, ChangeKind.LOG]
    assert changes[1].to_json() == {
        "kind": "log",
        "id": "one",
        "line": {"number": 1, "atMs": 0.0, "text": "x"},
    }


async def test_a_slow_subscriber_is_told_that_it_lost_changes() -> None:
    journal = Journal()
    with journal.subscribe(limit=3) as subscription:
        for number in range(5):
            begin(journal, str(number))
        journal.close()
        changes = await read(subscription)
    assert [change.kind for change in changes] == [ChangeKind.LOST, ChangeKind.BEGUN]


async def read(subscription: object) -> list[Change]:
    return [change async for change in subscription]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["plain", "two\nlines", "data: x\n\nevent: y"])
def test_a_message_of_server_sent_events_is_one_line_of_data(text: str) -> None:
    message = Change(ChangeKind.NOTICE, notice=Notice(1.0, "log", text, "f")).sse()
    name, data, *rest = message.decode().split("\n")
    assert (name, rest) == ("event: notice", ["", ""])
    assert json.loads(data.removeprefix("data: "))["notice"]["text"] == text
