"""Following a log: late events, events out of order, and broken connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Place
from lambda_deno_spawn.dev.aws.remote_logs import LogEvent, LogWindow, follow_log
from lambda_deno_spawn.dev.aws.session import Aws
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_deno_spawn.dev.aws.plan import Call

START_S = 1_800_000_000
START_MS = START_S * 1000
MINUTE_MS = 60_000
THROTTLED = AwsError("throttled", code="ThrottlingException", status=400)
BROKEN = AwsError("broken", is_broken_off=True)
DENIED = AwsError("denied", code="AccessDeniedException", status=403)
NOT_FOUND = AwsError("none", code="ResourceNotFoundException", status=400)


class ScriptedLog(Aws):
    """A scripted CloudWatch: the events of each read, and how it ends.

    Attributes:
        since: Start time of each read.
    """

    def __init__(self, *reads: list[tuple[str, int] | AwsError]) -> None:
        self.region = "eu-central-1"
        self.since: list[int] = []
        self._reads = list(reads)
        self._place = Place(self.region, "123456789012")

    def items(
        self, call: Call, items: str, *, may_break_off: bool = False
    ) -> Iterator[Mapping[str, Any]]:
        assert may_break_off
        assert items == "events"
        self.since.append(call.parameters["startTime"])
        for event in self._reads.pop(0) if self._reads else []:
            if isinstance(event, AwsError):
                raise event
            name, time_ms = event
            if time_ms >= self.since[-1]:
                yield {"eventId": name, "timestamp": time_ms, "message": name}


@dataclass(slots=True)
class Follower:
    """Follows a scripted log, with a clock that only its pauses advance."""

    log: ScriptedLog
    reads: int
    since_ms: int = START_MS
    now_s: float = START_S
    shown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)

    def run(self) -> Follower:
        """Follow the log for a number of reads."""
        try:
            for event in follow_log(
                self.log,
                "/aws/lambda/fn",
                since_epoch_ms=self.since_ms,
                warn=self.warnings.append,
                sleep=self._sleep,
                clock=lambda: self.now_s,
            ):
                self.shown.append(event.message)
        except StopFollowingError:
            return self
        raise AssertionError("a log that is followed does not end")

    def _sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s
        if len(self.pauses_s) == self.reads:
            raise StopFollowingError


class StopFollowingError(Exception):
    """Ends following the log."""


def test_a_silent_log_is_not_read_from_its_beginning_each_time() -> None:
    follower = Follower(ScriptedLog(), 900).run()  # half an hour
    assert follower.log.since == sorted(follower.log.since)
    assert follower.log.since[0] == START_MS
    # 8 minutes: the delay of late events, and the error of a clock.
    assert follower.log.since[-1] == START_MS + (899 - 1) * 2000 - 8 * MINUTE_MS


def test_a_log_that_grows_is_read_from_some_minutes_before_its_newest_event() -> None:
    newest = START_MS + 10 * MINUTE_MS
    follower = Follower(ScriptedLog([("a", newest)]), 2, now_s=START_S + 11 * 60).run()
    assert follower.log.since == [START_MS, newest - 3 * MINUTE_MS]


def test_an_event_of_the_future_does_not_hide_those_of_now() -> None:
    log = ScriptedLog([("future", START_MS + 60 * MINUTE_MS)], [("now", START_MS)])
    assert Follower(log, 2).run().shown == ["future", "now"]


def test_late_events_are_shown_and_none_is_shown_twice() -> None:
    newest = START_MS + 5 * MINUTE_MS
    late = newest - 2 * MINUTE_MS
    log = ScriptedLog(
        [("a", START_MS), ("c", newest)],
        [("b", late), ("c", newest)],
        [("b", late), ("c", newest), ("d", newest)],
    )
    assert Follower(log, 3, now_s=START_S + 300).run().shown == ["a", "c", "b", "d"]


@pytest.mark.parametrize("error", [THROTTLED, BROKEN], ids=str)
def test_a_temporary_failure_is_reported_once_and_waited_for(error: AwsError) -> None:
    log = ScriptedLog(
        [("a", START_MS), error],
        [error],
        [error],
        [("a", START_MS), ("b", START_MS)],
        [error],
        [("b", START_MS), ("c", START_MS)],
    )
    follower = Follower(log, 6).run()
    assert follower.shown == ["a", "b", "c"]
    assert follower.warnings == [f"{error}; continuing as soon as AWS responds"] * 2
    assert follower.pauses_s == [4.0, 8.0, 16.0, 2.0, 4.0, 2.0]
    # A failed read is repeated from the same time, although the clock advances.
    assert log.since[:4] == [START_MS] * 4


def test_a_connection_that_stays_broken_ends_it() -> None:
    reads: list[list[tuple[str, int] | AwsError]] = [[BROKEN]] * 99
    follower = Follower(ScriptedLog(*reads), 99)
    with pytest.raises(AwsError, match="broken"):
        follower.run()
    assert len(follower.warnings) == 1
    assert max(follower.pauses_s) == 60.0
    assert 600 <= sum(follower.pauses_s) < 700


@pytest.mark.parametrize("error", [DENIED, NOT_FOUND], ids=str)
def test_a_refusal_ends_it(error: AwsError) -> None:
    follower = Follower(ScriptedLog([("a", START_MS)], [error]), 9)
    with pytest.raises(DeployError):
        follower.run()
    assert follower.shown == ["a"]
    assert follower.warnings == []


def test_remembered_ids_are_bounded_and_no_event_is_shown_twice() -> None:
    window = LogWindow(0, remembered=10)
    events = [LogEvent(str(n), 1000 + n // 2, "s", "m") for n in range(95)]
    for event in events:
        assert window.is_new(event)
    window.move(2000)
    asked_again = [e for e in events if e.time_epoch_ms >= window.since_epoch_ms]
    assert 0 < len(asked_again) <= 10
    assert not any(map(window.is_new, asked_again))


def test_many_events_of_one_moment_are_not_read_again() -> None:
    window = LogWindow(0, remembered=10)
    for n in range(100):
        assert window.is_new(LogEvent(str(n), 1000, "s", "m"))
    window.move(2000)
    assert window.since_epoch_ms == 1001
