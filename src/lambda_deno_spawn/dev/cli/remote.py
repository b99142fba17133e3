"""The commands ``logs`` and ``invoke --remote``: their options and output.

Knows the options and the output: the result on stdout, all else on stderr. Does not
know how a log is read or a function is invoked. Specification: docs/deploy.md
and the help texts below.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lambda_deno_spawn.dev.cli.console import (
    EXIT_FAILED,
    Output,
    error_text,
    exit_codes,
)
from lambda_deno_spawn.dev.cli.options import (
    FunctionArgument,
    NameOption,
    ProfileOption,
    RegionOption,
    StageOption,
    VerboseOption,
    whole_function,
)
from lambda_deno_spawn.dev.project.target import find_target

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.remote import RemoteResult
    from lambda_deno_spawn.dev.aws.remote_logs import LogEvent
    from lambda_deno_spawn.dev.local.response_stream import HttpPrelude


def logs(
    function: FunctionArgument = None,
    *,
    name: NameOption = None,
    stage: StageOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue as the log grows.")
    ] = False,
    since: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How far back: 90s, 10m, 2h, 1d."),
    ] = "10m",
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="PATTERN", help="Filter pattern of CloudWatch."
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this invocation.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N events.")
    ] = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o", "--output", help="text: time and message; json: an object per line."
        ),
    ] = Output.TEXT,
) -> None:
    """Print a function's log."""
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.remote_logs import (
            filter_pattern,
            find_log_group,
            follow_log,
            parse_since,
            read_log,
        )
        from lambda_deno_spawn.dev.aws.session import Aws
        from lambda_deno_spawn.dev.aws.target import check_account, check_ambiguity

        target = whole_function("logs", function, name, stage)
        since_epoch_ms = round((time.time() - parse_since(since)) * 1000)
        pattern = filter_pattern(filter_, request_id)
        aws = Aws(target.choose_region(region), profile)
        check_account(aws, target)
        check_ambiguity(aws, target, has_name_option=True)
        log_group = find_log_group(aws, target.name)
        read = partial(follow_log, warn=_warn) if follow else read_log
        events = read(aws, log_group, since_epoch_ms=since_epoch_ms, pattern=pattern)
        count = 0
        for count, event in enumerate(events, 1):
            _show_event(event, output)
            if count == limit:
                break
        if count == 0:
            matching = "" if pattern is None else " that match"
            _warn(
                f"There are no entries{matching} in {log_group!r} of the last {since}; "
                "--since 1d looks further back"
            )


def invoke_remote(
    function: str,
    event: bytes,
    *,
    stage: str | None = None,
    qualifier: str | None = None,
    is_async: bool = False,
    tenant_id: str | None = None,
    client_context: str | None = None,
    timeout_s: float | None = None,
    region: str | None = None,
    profile: str | None = None,
    output: Output = Output.TEXT,
) -> None:
    """Invoke a function in AWS and print the result.

    Args:
        function: Name or ARN, with or without a qualifier, or a local folder.
        event: Passed on byte for byte.
        stage: Stage of a local project.
        qualifier: Version or alias.
        is_async: Queue the event without waiting for the result.
        tenant_id: Tenant id in the context.
        client_context: JSON text.
        timeout_s: How long to wait; None: as long as the function may run.
        region: None: the region in the ARN, else that of the profile.
        profile: Profile in the AWS configuration files.
        output: Format of the result.

    Raises:
        typer.Exit: The function failed.
        UsageError: Lambda does not accept the event or the options.
        DeployError: The function did not run, or its response was lost.
    """
    from lambda_deno_spawn.dev.aws.remote import RemoteOptions, invoke
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.target import check_ambiguity

    target = find_target(function, stage=stage)
    options = RemoteOptions(
        name=target.lambda_name,
        event=event,
        qualifier=qualifier,
        is_async=is_async,
        tenant_id=tenant_id,
        client_context=client_context,
        reads_for_s=timeout_s,
    )
    aws = Aws(target.choose_region(region), profile)
    check_ambiguity(aws, target)
    result = invoke(aws, options)
    _show_remote(result, output, is_async=is_async)


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_event(event: LogEvent, output: Output) -> None:
    moment = datetime.fromtimestamp(event.time_epoch_ms / 1000, UTC)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if output is Output.JSON:
        fields = {
            "time": text,
            "stream": event.stream,
            "message": event.message,
            "id": event.id,
        }
        print(json.dumps(fields), flush=True)
    else:
        print(f"{text} {event.message}", flush=True)


def _show_remote(result: RemoteResult, output: Output, *, is_async: bool) -> None:
    """Print a response; exit with 1 if it is an error."""
    sys.stderr.write(result.log_tail.decode(errors="replace"))
    prelude, body = _http_parts(result.payload)
    if prelude is not None and output is Output.TEXT:
        sys.stderr.write(f"{prelude.line()}\n")
    sys.stderr.flush()
    if output is Output.JSON:
        print(json.dumps(_remote_fields(result)))
    elif is_async:
        print(result.request_id)
    else:
        sys.stdout.buffer.write(body)
        if not body.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()
    if not result.is_ok:
        error, _ = _parse(result.payload)
        text = error_text(error, "its error is on stdout")
        print(f"The function failed: {text}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED)


def _http_parts(payload: bytes) -> tuple[HttpPrelude | None, bytes]:
    """Split the response of a function that streams HTTP into prelude and body.

    JSON has no zeros, so nothing else is taken for a prelude.
    """
    from lambda_deno_spawn.dev.local.response_stream import (
        HTTP_CONTENT_TYPE,
        split_prelude,
    )

    return split_prelude(payload, HTTP_CONTENT_TYPE) or (None, payload)


def _remote_fields(result: RemoteResult) -> dict[str, object]:
    prelude, body = _http_parts(result.payload)
    raw: dict[str, object] = {}
    if prelude is None:
        value, is_readable = _parse(body)
    else:
        value, is_readable = _text(body)
        raw = {"http": prelude.fields}
    if body and not is_readable:
        raw["base64"] = base64.b64encode(body).decode()
    return {
        "ok": result.is_ok,
        "requestId": result.request_id,
        "result": value if result.is_ok else None,
        "error": None if result.is_ok else value,
        **raw,
        "status": result.status,
        "version": result.version,
        "report": _report(result.log_tail.decode(errors="replace")),
    }


def _text(payload: bytes) -> tuple[Any, bool]:
    """Return a payload as text, and whether it is UTF-8; else None and False."""
    try:
        return payload.decode(), True
    except UnicodeDecodeError:
        return None, False


def _parse(payload: bytes) -> tuple[Any, bool]:
    """Return the value of a payload, and whether it is JSON; else None and False."""
    try:
        return json.loads(payload), True
    except (ValueError, RecursionError):
        return None, False


def _report(log: str) -> dict[str, float | None] | None:
    """Return the figures of the report at the end of a log; None: there is no report.

    Args:
        log: End of a log, in text or JSON; may begin in the middle of a line.
    """
    for line in reversed(log.splitlines()):
        if (figures := _text_figures(line) or _json_figures(line)) is not None:
            return figures
    return None


def _text_figures(line: str) -> dict[str, float | None] | None:
    """Return the figures of a REPORT line; None: it is another line."""
    if not line.startswith("REPORT "):
        return None

    def figure(name: str) -> float | None:
        found = re.search(rf"(?:^|\t){name}: ([\d.]+)", line)
        return None if found is None else float(found[1])

    return {
        "durationMs": figure("Duration"),
        "billedDurationMs": figure("Billed Duration"),
        "initDurationMs": figure("Init Duration"),
        "memorySizeMb": figure("Memory Size"),
        "maxMemoryUsedMb": figure("Max Memory Used"),
    }


def _json_figures(line: str) -> dict[str, float | None] | None:
    """Return the figures of a ``platform.report``; None: it is another line.

    Lambda Developer Guide, "Telemetry API Event schema reference".
    """
    match _parse(line.encode())[0]:
        case {"type": "platform.report", "record": {"metrics": {**metrics}}}:
            pass
        case _:
            return None

    def figure(name: str) -> float | None:
        value = metrics.get(name)
        return float(value) if isinstance(value, int | float) else None

    return {
        "durationMs": figure("durationMs"),
        "billedDurationMs": figure("billedDurationMs"),
        "initDurationMs": figure("initDurationMs"),
        "memorySizeMb": figure("memorySizeMB"),
        "maxMemoryUsedMb": figure("maxMemoryUsedMB"),
    }
