"""The log of a function in AWS: past events, and new ones as they arrive.

Knows the log group of a function, how to read its events, and that these become visible
late and out of order. Does not know how they are printed. Specification: CloudWatch
Logs API reference, FilterLogEvents.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Call
from lambda_deno_spawn.dev.aws.read import read_function
from lambda_deno_spawn.dev.aws.wanted import check_name, default_log_group
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_deno_spawn.dev.aws.session import Aws

POLL_PAUSE_S = 2.0  # FilterLogEvents allows 5 to 10 calls per second and account
# An event may become visible this much later than others with the same time: most take
# seconds, a delayed ingestion takes minutes.
LATE_MS = 180_000
# AWS accepts signatures from a machine whose clock is wrong by up to 5 minutes.
CLOCK_MS = 300_000
REMEMBERED = 100_000  # ids of events already seen, about 15 MB
# Pauses after temporary failures; the same request is repeated until it succeeds.
FIRST_PAUSE_S = 4.0
LONGEST_PAUSE_S = 60.0
GIVES_UP_AFTER_S = 600.0
LONGEST_SINCE_S = 3653 * 86_400
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a log.

    Attributes:
        id: Identifies the event; equal in all reads.
        time_epoch_ms: When it was written.
        message: Text without the final newline.
    """

    id: str
    time_epoch_ms: int
    stream: str
    message: str


def parse_since(text: str) -> int:
    """Return the seconds in ``10m``, ``90s``, ``2h`` or ``1d``.

    Raises:
        UsageError: The text does not have this form.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text, re.ASCII)
    if match is None:
        raise UsageError(
            f"Cannot use --since {text!r}: expected a number and s, m, h or d, such as "
            "10m"
        )
    seconds = int(match[1][:12]) * UNITS_S[match[2]]
    if seconds > LONGEST_SINCE_S:
        raise UsageError(
            f"Cannot use --since {text!r}: CloudWatch keeps logs for ten years at "
            f"most; give up to {LONGEST_SINCE_S // UNITS_S['d']}d"
        )
    return seconds


def filter_pattern(pattern: str | None, request_id: str | None) -> str | None:
    """Return the filter pattern for CloudWatch.

    Raises:
        UsageError: Both are given, and CloudWatch accepts one pattern; or the request
            id is malformed.
    """
    if pattern is not None and request_id is not None:
        raise UsageError(
            "Cannot use --filter and --request-id together: CloudWatch accepts one "
            "pattern; leave out one of them"
        )
    if request_id is None:
        return pattern
    if not re.fullmatch(r"[0-9A-Za-z-]+", request_id):
        raise UsageError(
            f"Cannot use --request-id {request_id!r}: expected a request id such as "
            "8f507cfc-0f4e-4b9c-8d1b-2b0f8f3f3f3f"
        )
    return f'"{request_id}"'


def find_log_group(aws: Aws, name: str) -> str:
    """Return the log group of a function, even of a deleted one."""
    check_name(name)
    try:
        function = read_function(aws, name)
    except AwsError as error:
        if not error.is_denied:
            raise
        function = None  # a caller who may only read logs gets the default group
    return default_log_group(name) if function is None else function.log_group


def read_log(
    aws: Aws,
    log_group: str,
    *,
    since_epoch_ms: int,
    pattern: str | None = None,
) -> Iterator[LogEvent]:
    """Yield the events since a point in time, in CloudWatch's order.

    Raises:
        DeployError: There is no such log group, or AWS refused the call.
    """
    parameters: dict[str, Any] = {
        "logGroupName": log_group,
        "startTime": int(since_epoch_ms),
    }
    if pattern is not None:
        parameters["filterPattern"] = pattern
    arn = f"{aws.place.log_group(log_group)}:*"
    try:
        call = Call("logs", "FilterLogEvents", arn, parameters)
        for event in aws.items(call, "events", may_break_off=True):
            yield LogEvent(
                event["eventId"],
                int(event["timestamp"]),
                event.get("logStreamName", ""),
                event["message"].rstrip("\n"),
            )
    except AwsError as error:
        if not error.is_not_found:
            raise
        raise DeployError(
            f"Cannot read the log: there is no log group {log_group!r} in "
            f"{aws.region}; deploy or invoke the function first, or check --region "
            "and --profile"
        ) from error


class LogWindow:
    """The part of a growing log to read again, and the events already seen in it.

    Attributes:
        since_epoch_ms: Start of that part; earlier events are not read again.
    """

    def __init__(self, since_epoch_ms: int, remembered: int = REMEMBERED) -> None:
        """Begin at a point in time.

        Args:
            since_epoch_ms: The point in time.
            remembered: How many ids of events to keep between reads.
        """
        self.since_epoch_ms = since_epoch_ms
        self._remembered = remembered
        self._seen: dict[str, int] = {}

    def is_new(self, event: LogEvent) -> bool:
        """Return whether an event has not been seen before, and remember it."""
        if event.id in self._seen:
            return False
        self._seen[event.id] = event.time_epoch_ms
        if len(self._seen) > 2 * self._remembered:  # not each time: it sorts
            self._forget()
        return True

    def move(self, now_epoch_ms: int) -> None:
        """Drop the part in which no more events can appear, after reading up to now."""
        newest = max(self._seen.values(), default=0)
        self._begin(
            max(
                # A log may contain events with a time in the future.
                min(newest, now_epoch_ms) - LATE_MS,
                now_epoch_ms - LATE_MS - CLOCK_MS,
            )
        )
        if len(self._seen) > self._remembered:
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest events, and begin after them: they are not read again."""
        times = sorted(self._seen.values())
        self._begin(times[-self._remembered - 1] + 1)

    def _begin(self, since_epoch_ms: int) -> None:
        since = self.since_epoch_ms = max(self.since_epoch_ms, since_epoch_ms)
        self._seen = {id: when for id, when in self._seen.items() if when >= since}


def follow_log(
    aws: Aws,
    log_group: str,
    *,
    since_epoch_ms: int,
    pattern: str | None = None,
    warn: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Iterator[LogEvent]:
    """Yield each event once, as it becomes visible; never ends by itself.

    Args:
        aws: Region and account.
        log_group: Name of the log group.
        since_epoch_ms: Time of the first event to yield.
        pattern: CloudWatch's filter pattern, or None.
        warn: Called with a text when AWS stops responding; once until it responds
            again.
        sleep: Waits for some seconds.
        clock: Returns the time since the epoch, in seconds.

    Raises:
        DeployError: AWS refused the call, there is no such log group, or AWS has not
            responded for ten minutes.
    """
    window = LogWindow(since_epoch_ms)
    pause_s, waited_s = FIRST_PAUSE_S, 0.0
    while True:
        begun_epoch_ms = round(clock() * 1000)
        since_epoch_ms = window.since_epoch_ms
        try:
            for event in read_log(
                aws, log_group, since_epoch_ms=since_epoch_ms, pattern=pattern
            ):
                if window.is_new(event):
                    yield event
        except AwsError as error:
            if not error.is_passing or waited_s >= GIVES_UP_AFTER_S:
                raise
            if not waited_s:
                warn(f"{error}; continuing as soon as AWS responds")
            sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            window.move(begun_epoch_ms)
            pause_s, waited_s = FIRST_PAUSE_S, 0.0
            sleep(POLL_PAUSE_S)
