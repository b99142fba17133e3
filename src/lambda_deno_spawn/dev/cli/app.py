"""The command line: all commands, and the options and output of two of them.

Knows the options of ``invoke`` and ``doctor``, and the output: the result on stdout,
all else on stderr. Does not know how a function is run or a machine is checked. Exit
codes: see ``console``. Specification: README.md and the help texts below.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn import __version__
from lambda_deno_spawn.config import Strategy, Warm
from lambda_deno_spawn.dev.cli.bench import bench
from lambda_deno_spawn.dev.cli.build import build
from lambda_deno_spawn.dev.cli.call import call
from lambda_deno_spawn.dev.cli.console import (
    EXIT_FAILED,
    Output,
    error_text,
    exit_codes,
)
from lambda_deno_spawn.dev.cli.deno import UNPARSED, deno
from lambda_deno_spawn.dev.cli.deploy import delete, deploy
from lambda_deno_spawn.dev.cli.dev import dev
from lambda_deno_spawn.dev.cli.events import check_json, events, read_event, read_file
from lambda_deno_spawn.dev.cli.explain import explain
from lambda_deno_spawn.dev.cli.init import init
from lambda_deno_spawn.dev.cli.layer import layer_app
from lambda_deno_spawn.dev.cli.layer_delete import delete_layers
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.new import new
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
    VerboseOption,
    inspect_options,
    positive_timeout_s,
)
from lambda_deno_spawn.dev.cli.pages import (
    HELP_OPTIONS,
    Commands,
    name_pages,
    page_url,
)
from lambda_deno_spawn.dev.cli.publish import list_layers, publish
from lambda_deno_spawn.dev.cli.remote import invoke_remote, logs
from lambda_deno_spawn.dev.cli.replay import replay
from lambda_deno_spawn.dev.cli.tables import write_checks, write_isolation
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import InvokeOptions, shadowing_note
from lambda_deno_spawn.dev.project.project import (
    load_project,
)
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from lambda_deno_spawn.dev.doctor.checks import Check
    from lambda_deno_spawn.dev.doctor.isolation import IsolationReport
    from lambda_deno_spawn.dev.local.invoke import InvokeResult

CLIENT_CONTEXT_LIMIT_BYTES = 3583  # base64; AWS Lambda API reference, Invoke

# A parameter of `invoke` or `doctor` names the modes that do not ignore it.
LOCAL = Mode("without --remote", "a function on this machine")
REMOTE = Mode("with --remote", "a function in AWS", "leave {} out, or add --remote")
CHECKS = Mode("without --isolation", "the checks of a machine and a function")
ISOLATION = Mode(
    "with --isolation", "the isolation test", "leave {} out, or add --isolation"
)

app = typer.Typer(
    help="Deno on AWS Lambda with a brand-new process for every event.",
    epilog=f"\b\nDocumentation: {page_url('')}",
    cls=Commands,
    context_settings=HELP_OPTIONS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.command()(new)
app.command()(init)
app.command()(build)
app.command()(bench)
app.command()(dev)
app.command()(call)
app.command(add_help_option=False, context_settings=UNPARSED)(deno)
app.command()(events)
app.add_typer(layer_app, name="layer")
layer_app.command("publish")(publish)
layer_app.command("list")(list_layers)
layer_app.command("delete")(delete_layers)
app.command()(deploy)
app.command()(delete)
app.command()(logs)
app.command()(replay)
app.command()(explain)


def main() -> None:
    """Run the command line tool."""
    app(prog_name="lambda-deno-spawn")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"lambda-deno-spawn {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_show_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


@app.command()
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
        typer.Option("--qualifier", "--alias", help="With --remote: alias or version."),
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
        typer.Option("--region", "-r", help="With --remote: AWS region."),
        REMOTE,
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
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
        if record is None:
            result = run(
                options, environ=os.environ, log=sys.stderr.buffer, output=streamed_to
            )
        else:
            result = _run_recorded(options, record, streamed_to)
        _show(result, output)


@app.command()
def doctor(
    context: typer.Context,
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="Check this function too: the handler's file, or its folder.",
        ),
        CHECKS,
    ] = None,
    *,
    stage: Annotated[StageOption, CHECKS] = None,
    handler: Annotated[HandlerOption, CHECKS] = None,
    env: Annotated[EnvOption, CHECKS] = None,
    env_file: Annotated[EnvFileOption, CHECKS] = None,
    isolation: Annotated[
        bool,
        typer.Option(
            "--isolation",
            help="Instead, run a hostile pair of events and show the leaks from the "
            "first to the second.",
        ),
        ISOLATION,
    ] = False,
    strategy: Annotated[
        Strategy | None,
        typer.Option(help="With --isolation: how events reach the handler."),
        ISOLATION,
    ] = None,
    verbose: Annotated[VerboseOption, CHECKS, ISOLATION] = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: a table; json: an object."),
        CHECKS,
        ISOLATION,
    ] = Output.TEXT,
) -> None:
    """Check whether this machine and a function meet the needs of the runtime.

    For an error that has happened, see `explain`. Exit code 0: no problem; 1: a problem
    or a leak.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.doctor.checks import examine
        from lambda_deno_spawn.dev.doctor.isolation import examine_isolation
        from lambda_deno_spawn.dev.local.runtime import run_until_signalled

        if isolation:
            refuse_ignored(context, ISOLATION)
            work = examine_isolation(strategy or Strategy.FRESH, os.environ)
            _show_isolation(run_until_signalled(work), output)
        else:
            refuse_ignored(context, CHECKS)
            options = _doctor_options(
                function, stage, handler, given_variables(env_file, env)
            )
            _show_checks(examine(os.environ, options), output)


def _doctor_options(
    function: str | None,
    stage: str | None,
    handler: str | None,
    given: Mapping[str, str],
) -> InvokeOptions | None:
    if function is not None:
        project = load_project(Path(function), handler, stage=stage)
        variables = project.variables_with(given)
        memory_mb = project.memory_mb or DEFAULT_MEMORY_MB
        return InvokeOptions(project.function, memory_mb=memory_mb, variables=variables)
    if handler is not None or stage is not None or given:
        raise UsageError(
            "Cannot use --handler, --stage, --env or --env-file: no function is given; "
            "give one"
        )
    return None


def _show_checks(checks: list[Check], output: Output) -> None:
    """Print the checks; exit with 1 if there is a problem."""
    from lambda_deno_spawn.dev.doctor.checks import Status

    is_ok = not any(check.status is Status.PROBLEM for check in checks)
    if output is Output.JSON:
        fields = [asdict(check) for check in checks]
        print(json.dumps({"ok": is_ok, "checks": fields}))
    else:
        write_checks(checks, sys.stdout)
    sys.stdout.flush()
    if output is Output.TEXT:
        why = "has an error happened? `lambda-deno-spawn explain` says what it means"
        print(f"Note: {why}", file=sys.stderr)
    if not is_ok:
        raise typer.Exit(EXIT_FAILED)


def _show_isolation(report: IsolationReport, output: Output) -> None:
    """Print the leaks; exit with 1 if there are any."""
    if output is Output.JSON:
        counts = {"ok": report.is_ok, "leaked": report.leaked}
        print(json.dumps({**asdict(report), **counts}))
    else:
        write_isolation(report, sys.stdout)
    sys.stdout.flush()
    if not report.is_ok:
        raise typer.Exit(EXIT_FAILED)


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
    options: InvokeOptions, record: Recorded, output: BinaryIO | None
) -> InvokeResult:
    """Run a function once and write a recording of it."""
    from lambda_deno_spawn.dev.recording.rerun import rerun
    from lambda_deno_spawn.dev.recording.store import folder, write

    where = folder(os.environ)
    done = rerun(options, environ=os.environ, log=sys.stderr.buffer, output=output)
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


name_pages(app)  # last, as it needs every command
