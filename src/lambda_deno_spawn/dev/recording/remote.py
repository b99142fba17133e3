"""A recording in the log of a function in AWS.

Knows how its lines are found and put together, and that the rest of the log of the
invocation belongs to it. Does not know the content of a recording. Specification:
docs/replay.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.remote_logs import (
    filter_pattern,
    find_log_group,
    read_log,
)
from lambda_deno_spawn.dev.recording.store import parse
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.recording.form import Parts
from lambda_deno_spawn.recording.redaction import Redactor

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.session import Aws

LOG_LIMIT = 1024 * 1024  # characters


def fetch(aws: Aws, name: str, request_id: str, since_epoch_ms: int) -> dict[str, Any]:
    """Return the recording of an invocation of a function in AWS.

    Args:
        aws: Region and account.
        name: Name of the function.
        request_id: Of the invocation.
        since_epoch_ms: The log is read from then on; Unix time.

    Raises:
        UsageError: There is none in the log, or it cannot be used.
        DeployError: The log cannot be read.
    """
    pattern = filter_pattern(None, request_id)
    group = find_log_group(aws, name)
    parts = Parts(request_id)
    lines: list[str] = []
    kept = 0
    for event in read_log(aws, group, since_epoch_ms=since_epoch_ms, pattern=pattern):
        if not parts.take(event.message) and kept < LOG_LIMIT:
            lines.append(event.message)
            kept += len(event.message)
    if parts.missing is None:
        seen = (
            f"the log has {len(lines)} lines of it, and no recording"
            if lines
            else "the log has nothing of it"
        )
        raise UsageError(
            f"Cannot find the recording of {request_id} in {group!r}: {seen}; look "
            "further back with --since, and set LAMBDA_DENO_RECORD=failures or all for "
            "the function"
        )
    source = f"of {request_id} in {group!r}"
    try:
        data = parts.whole()
    except ValueError as error:
        raise UsageError(
            f"Cannot use the recording {source}: {error}; if it is seconds old, try "
            "again, because CloudWatch shows lines late"
        ) from error
    form = parse(data, source)
    form["log"] = Redactor().text("\n".join(lines)[:LOG_LIMIT], "log")
    return form
