"""The log of a function in AWS: what was written, and what is being written.

Knows where a function's log is, how events are asked for, and that they arrive late and
out of order. Refuses to know how they are printed. Specification: CloudWatch Logs API
reference, FilterLogEvents.
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

POLL_PAUSE_S = 2.0  # FilterLogEvents is limited to 5 to 10 calls a second per account
# Events of one moment may become visible this much later than their neighbours: most
# do within seconds, a delayed ingestion takes minutes.
LATE_MS = 180_000
# This machine's clock may be wrong by 5 minutes before AWS refuses its signatures.
CLOCK_MS = 300_000
REMEMBERED = 100_000  # ids of events that were shown, some 15 MB
# After a failure that passes; what is asked for stays until it is answered.
FIRST_PAUSE_S = 4.0
LONGEST_PAUSE_S = 60.0
GIVES_UP_AFTER_S = 600.0
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a log.

    Attributes:
        id: The same for the same event, however often it is read.
        time_epoch_ms: When it was written.
        message: Without the newline at its end.
    """

    id: str
    time_epoch_ms: int
    stream: str
    message: str


def parse_since(text: str) -> int:
    """Return how many seconds ``10m``, ``90s``, ``2h`` or ``1d`` are.

    Raises:
        UsageError: It is none of that form.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise UsageError(
            f"Cannot use --since {text!r}: expected a number and s, m, h or d, such as "
            "10m"
        )
    return int(match[1]) * UNITS_S[match[2]]


def filter_pattern(pattern: str | None, request_id: str | None) -> str | None:
    """Return what CloudWatch is asked to look for.

    Raises:
        UsageError: Both are given: CloudWatch takes one pattern.
    """
    if pattern is not None and request_id is not None:
        raise UsageError(
            "Cannot use --filter and --request-id together: CloudWatch takes one "
            "pattern; leave one out"
        )
    if request_id is None:
        return pattern
    if not re.fullmatch(r"[0-9A-Za-z-]+", request_id):
        raise UsageError(
            f"Cannot use --request-id {request_id!r}: it is no request id, such as "
            "8f507cfc-0f4e-4b9c-8d1b-2b0f8f3f3f3f"
        )
    return f'"{request_id}"'


def find_log_group(aws: Aws, name: str) -> str:
    """Return the log group of a function, also of one that is gone."""
    check_name(name)
    try:
        function = read_function(aws, name)
    except AwsError as error:
        if not error.is_denied:
            raise
        function = None  # who may read logs only still finds the usual place
    return default_log_group(name) if function is None else function.log_group


def read_log(
    aws: Aws,
    log_group: str,
    *,
    since_epoch_ms: int,
    pattern: str | None = None,
) -> Iterator[LogEvent]:
    """Return the events since a moment, as CloudWatch orders them.

    Raises:
        DeployError: There is no such log group, or AWS does not say.
    """
    parameters: dict[str, Any] = {
        "logGroupName": log_group,
        "startTime": int(since_epoch_ms),
    }
    if pattern is not None:
        parameters["filterPattern"] = pattern
    arn = f"{aws.place.log_group(log_group)}:*"
    try:
        for event in aws.pages(
            Call("logs", "FilterLogEvents", arn, parameters), "events"
        ):
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
            f"{aws.region}; it is made by `deploy`, or when the function is first "
            "invoked; see --region and --profile"
        ) from error


class LogWindow:
    """From when on a log that grows is read again, and what of it was seen.

    Attributes:
        since_epoch_ms: Earlier events are not asked for any more.
    """

    def __init__(self, since_epoch_ms: int, remembered: int = REMEMBERED) -> None:
        """Begin at a moment.

        Args:
            since_epoch_ms: The moment.
            remembered: Of how many events the ids are kept, from read to read.
        """
        self.since_epoch_ms = since_epoch_ms
        self._remembered = remembered
        self._seen: dict[str, int] = {}

    def is_new(self, event: LogEvent) -> bool:
        """Return whether an event was not there yet, and remember it."""
        if event.id in self._seen:
            return False
        self._seen[event.id] = event.time_epoch_ms
        if len(self._seen) > 2 * self._remembered:  # seldom, as it sorts
            self._forget()
        return True

    def move(self, now_epoch_ms: int) -> None:
        """Go on to what may still become visible, once all has been read up to now."""
        newest = max(self._seen.values(), default=0)
        self._begin(
            max(
                # Anybody may write events of the future into a log of one's own.
                min(newest, now_epoch_ms) - LATE_MS,
                now_epoch_ms - LATE_MS - CLOCK_MS,
            )
        )
        if len(self._seen) > self._remembered:
            self._forget()

    def _forget(self) -> None:
        """Begin after the oldest events: what is forgotten is not read again."""
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
    """Return events, each once, as they become visible; never ends by itself.

    Args:
        aws: Where.
        log_group: Name of the log group.
        since_epoch_ms: From when on.
        pattern: CloudWatch's, or None.
        warn: Told once that AWS does not answer, each time that this begins.
        sleep: Waits some seconds.
        clock: The time of day, in seconds.

    Raises:
        DeployError: It is refused, there is no such log group, or AWS has not answered
            for ten minutes.
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
                warn(f"{error}; going on as soon as AWS answers")
            sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            window.move(begun_epoch_ms)
            pause_s, waited_s = FIRST_PAUSE_S, 0.0
            sleep(POLL_PAUSE_S)
