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

from lambda_deno_spawn.dev.aws import AwsError
from lambda_deno_spawn.dev.deployment import read_function
from lambda_deno_spawn.dev.plan import Call
from lambda_deno_spawn.dev.wanted import check_name, default_log_group
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_deno_spawn.dev.aws import Aws

POLL_PAUSE_S = 2.0  # FilterLogEvents is limited to 5 to 10 calls a second per account
# Events of one moment may become visible this much later than their neighbours.
LATE_MS = 60_000
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


def follow_log(
    aws: Aws,
    log_group: str,
    *,
    since_epoch_ms: int,
    pattern: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[LogEvent]:
    """Return events, each once, as they become visible; never ends by itself."""
    seen: dict[str, int] = {}
    while True:
        for event in read_log(
            aws, log_group, since_epoch_ms=since_epoch_ms, pattern=pattern
        ):
            if event.id not in seen:
                seen[event.id] = event.time_epoch_ms
                yield event
        if seen:
            # Asked for again from here on, in case some come late.
            since_epoch_ms = max(since_epoch_ms, max(seen.values()) - LATE_MS)
            seen = {id: when for id, when in seen.items() if when >= since_epoch_ms}
        sleep(POLL_PAUSE_S)
