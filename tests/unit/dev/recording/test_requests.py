"""Which requests are recorded, while many end at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lambda_deno_spawn.dev.devserver.journal import Facts, Journal, Source
from lambda_deno_spawn.dev.recording.requests import KEEPING_LIMIT, RequestRecorder

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.devserver.journal import Record
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda


class Local:
    """The part of it that a recorder uses."""

    def __init__(self) -> None:
        self.journal = Journal()


class SlowRecorder(RequestRecorder):
    """Writes nothing before it may."""

    may_write = threading.Event()

    def write(self, record: Record) -> Path:
        assert self.may_write.wait(20)
        return Path(record.id)


async def test_a_load_cannot_pile_up_what_is_not_written_yet() -> None:
    local = Local()
    journal = local.journal
    recorder = SlowRecorder(cast("LocalLambda", local), {})
    recorder.listen(only_failures=False)
    for number in range(KEEPING_LIMIT + 5):
        facts: Any = {"function": "f", "source": Source.URL, "event": b"{}"}
        record = journal.begin(
            Facts(request_id=f"{number:08}", received_epoch_ms=0.0, **facts)
        )
        journal.end(record, 1.0, None, "")
    with journal.subscribe() as notices:
        SlowRecorder.may_write.set()
        told = []
        async for change in notices:
            assert change.notice is not None
            told.append(change.notice.text)
            if "not recorded" in told[-1]:
                break
    assert len(told) == KEEPING_LIMIT + 1
    assert told[-1].startswith("5 requests are not recorded: ")
