"""The command ``invoke``: parses its options, and prints the result of a function.

Knows the options and the output: the result on stdout, all else on stderr. Does not
know how a function is run. Exit codes: see ``console``. Specification: README.md and
the help texts below.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.dev.cli.console import (
    EXIT_FAILED,
    Output,
    error_text,
    exit_codes,
    print_note,
)
from lambda_deno_spawn.dev.cli.events import check_json, read_event, read_file
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.options import (
    EnvFileOption,
    EnvOption,
    EventFileOption,
    EventOption,
    HandlerOption,
    InspectBrkOption,
    InspectOption,
    InspectPortOption,
    MemoryOption,
    Recorded,
    RecordOption,
    SetOption,
    StageOption,
    inspect_options,
    positive_timeout_s,
)
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import InvokeOptions, shadowing_note
from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from lambda_deno_spawn.dev.local.invoke import InvokeResult

CLIENT_CONTEXT_LIMIT_BYTES = 3583  # base64; AWS Lambda API reference, Invoke

# A parameter names the modes that do not ignore it.
LOCAL = Mode("without --remote", "a function on this machine")
REMOTE = Mode("with --remote", "a function in AWS", "leave {} out, or add --remote")


def invoke(
    context: typer.Context,
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="The handler's file, or the folder that contains it.",
        ),
        LOCAL,
    ] = None,
    *,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="Invoke this function in AWS: its name, its ARN, or its local folder.",
        ),
        REMOTE,
    ] = None,
    stage: Annotated[StageOption, LOCAL, REMOTE] = None,
    qualifier: Annotated[
        str | None,
        typer.Option(
            "--qualifier",
            "--alias",
            metavar="NAME",
            help="With --remote: alias or version.",
        ),
        REMOTE,
    ] = None,
    is_async: Annotated[
        bool,
        typer.Option(
            "--async",
            help="With --remote: queue the event; do not wait for the result.",
        ),
        REMOTE,
    ] = False,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", "-r", metavar="REGION", help="With --remote: AWS region."
        ),
        REMOTE,
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="With --remote: profile in the AWS configuration files.",
        ),
        REMOTE,
    ] = None,
    event: Annotated[EventOption, LOCAL, REMOTE] = None,
    event_file: Annotated[EventFileOption, LOCAL, REMOTE] = None,
    set_: Annotated[SetOption, LOCAL, REMOTE] = None,
    handler: Annotated[HandlerOption, LOCAL] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            max=TIMEOUT_LIMIT_S,
            help="Function timeout; fractions allowed. With --remote: how long to wait."
            "  [default: from lambda.toml, else 3]",
        ),
        LOCAL,
        REMOTE,
    ] = None,
    memory: Annotated[MemoryOption, LOCAL] = None,
    warm: Annotated[
        Warm | None,
        typer.Option(help="When to start the process for the next event."),
        LOCAL,
    ] = None,
    env: Annotated[EnvOption, LOCAL] = None,
    env_file: Annotated[EnvFileOption, LOCAL] = None,
    client_context: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE", help="Client context: a JSON object, or @ and a file."
        ),
        LOCAL,
        REMOTE,
    ] = None,
    tenant_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Tenant id in the context."),
        LOCAL,
        REMOTE,
    ] = None,
    inspect: Annotated[InspectOption, LOCAL] = False,
    inspect_brk: Annotated[InspectBrkOption, LOCAL] = False,
    inspect_port: Annotated[InspectPortOption, LOCAL] = None,
    record: Annotated[RecordOption, LOCAL] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Log how the function's processes are started; show the traceback of "
            "an error.",
        ),
        LOCAL,
        REMOTE,
    ] = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o",
            "--output",
            help="text: the bytes of the result, a stream as it arrives; "
            "json: an object with result and report.",
        ),
        LOCAL,
        REMOTE,
    ] = Output.TEXT,
) -> None:
    """Run a function once, with the real runtime, and print its result.

    The function's log and Lambda's START, END and REPORT lines go to stderr.
    """
    with exit_codes(is_verbose=verbose):
        if remote is not None:
            refuse_ignored(context, REMOTE)
            from lambda_deno_spawn.dev.cli.remote import invoke_remote

            invoke_remote(
                remote,
                read_event(event, event_file, set_ or ()),
                stage=stage,
                qualifier=qualifier,
                is_async=is_async,
                tenant_id=tenant_id,
                client_context=_client_context(client_context),
                timeout_s=None if timeout is None else positive_timeout_s(timeout),
                region=region,
                profile=profile,
                output=output,
            )
            return
        refuse_ignored(context, LOCAL)
        from lambda_deno_spawn.dev.aws.credentials import function_environ
        from lambda_deno_spawn.dev.local.inspector import how_to_attach
        from lambda_deno_spawn.dev.local.invoke import run

        if function is None:
            raise UsageError(
                "Cannot invoke: no FUNCTION is given; give the handler's file or its "
                "folder, or --remote with the name of a function in AWS"
            )
        project = load_project(Path(function), handler, stage=stage)
        options = InvokeOptions(
            function=project.function,
            event=read_event(event, event_file, set_ or ()),
            timeout_s=positive_timeout_s(timeout)
            if timeout is not None
            else project.timeout_s or DEFAULT_TIMEOUT_S,
            memory_mb=memory or project.memory_mb or DEFAULT_MEMORY_MB,
            warm=None if warm is None else warm.value,
            variables=project.variables_with(given_variables(env_file, env)),
            client_context=_client_context(client_context),
            tenant_id=tenant_id,
            is_verbose=verbose,
            inspect=inspect_options(inspect, inspect_brk, inspect_port),
        )
        if note := shadowing_note(project.function, function):
            print(note, file=sys.stderr)
        if options.inspect is not None:
            print(how_to_attach(options, os.environ), file=sys.stderr, flush=True)
        streamed_to = sys.stdout.buffer if output is Output.TEXT else None
        environ = function_environ(os.environ, print_note)
        if record is None:
            result = run(
                options, environ=environ, log=sys.stderr.buffer, output=streamed_to
            )
        else:
            result = _run_recorded(options, record, environ, streamed_to)
        _show(result, output)


def _client_context(client_context: str | None) -> str | None:
    """Return the JSON text of the client context, after the same checks as Lambda."""
    if client_context is None:
        return None
    option = "--client-context"
    if client_context.startswith("@"):
        content = read_file(client_context[1:], option)
    else:
        content = client_context.encode(errors="surrogateescape")
    check_json(content, option, "the client context")
    if content.lstrip()[:1] != b"{":
        raise UsageError(
            f"Cannot use {option}: it is JSON, but not an object; "
            'give something like {"custom":{"key":"value"}}'
        )
    size_bytes = len(base64.b64encode(content))
    if size_bytes > CLIENT_CONTEXT_LIMIT_BYTES:
        raise UsageError(
            f"Cannot use {option}: it has {size_bytes} bytes in base64, and Lambda "
            f"accepts {CLIENT_CONTEXT_LIMIT_BYTES}; shorten it, or move data into the "
            "event"
        )
    return content.decode()


def _run_recorded(
    options: InvokeOptions,
    record: Recorded,
    environ: Mapping[str, str],
    output: BinaryIO | None,
) -> InvokeResult:
    """Run a function once and write a recording of it."""
    from lambda_deno_spawn.dev.recording.rerun import rerun
    from lambda_deno_spawn.dev.recording.store import folder, write

    where = folder(os.environ)
    done = rerun(options, environ=environ, log=sys.stderr.buffer, output=output)
    if record is Recorded.ALL or not done.result.is_ok:
        path = write(done.form, where)
        print(f"Recorded in {str(path)!r}", file=sys.stderr)
    return done.result


def _show(result: InvokeResult, output: Output) -> None:
    """Print the part of the result not printed yet; exit with 1 if it is an error."""
    if output is Output.JSON:
        print(json.dumps(_summary(result)))
    elif not result.is_streamed:
        sys.stdout.buffer.write(result.payload)
        if not result.payload.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
    elif sys.stdout.isatty() and not result.payload.endswith(b"\n"):
        print()
    sys.stdout.flush()
    if result.is_ok:
        return
    if result.is_streamed and output is Output.TEXT:
        print((result.error or b"").decode(errors="replace"), file=sys.stderr)
    what = "The response broke off" if result.is_streamed else "The function failed"
    print(f"{what}: {_error_text(result, output)}", file=sys.stderr)
    raise typer.Exit(EXIT_FAILED)


def _summary(result: InvokeResult) -> dict[str, object]:
    report = result.report
    init_ms = report.init_duration_ms
    latency_ms = report.response_latency_ms
    value, is_readable = (_text if result.is_streamed else _parse)(result.payload)
    raw = {} if is_readable else {"base64": base64.b64encode(result.payload).decode()}
    return {
        "ok": result.is_ok,
        "requestId": result.request_id,
        "result": value if result.is_ok or result.is_streamed else None,
        "error": None if result.error is None else _parse(result.error)[0],
        **raw,
        "contentType": result.content_type,
        "streamed": result.is_streamed,
        "http": None if result.http is None else result.http.fields,
        "status": report.status,
        "report": {
            "durationMs": round(report.duration_ms, 2),
            "billedDurationMs": report.billed_duration_ms,
            "responseLatencyMs": None if latency_ms is None else round(latency_ms, 2),
            "initDurationMs": None if init_ms is None else round(init_ms, 2),
            "memorySizeMb": report.memory_size_mb,
            "maxMemoryUsedMb": report.max_memory_used_mb,
        },
    }


def _text(payload: bytes) -> tuple[object, bool]:
    """Return a payload as text, and whether it is UTF-8; else None and False."""
    try:
        return payload.decode(), True
    except UnicodeDecodeError:
        return None, False


def _parse(payload: bytes) -> tuple[object, bool]:
    """Return the value of a payload, and whether it is JSON; else None and False."""
    try:
        return json.loads(payload), True
    except (ValueError, RecursionError):
        return None, False


def _error_text(result: InvokeResult, output: Output) -> str:
    is_above = result.is_streamed and output is Output.TEXT
    error, _ = _parse(result.error or b"")
    return error_text(error, f"its error is {'above' if is_above else 'on stdout'}")
