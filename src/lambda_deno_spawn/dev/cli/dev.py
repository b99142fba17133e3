"""The command ``dev``: its options, and what it shows while it runs.

Knows the options and the output: the log of the functions on stderr, with ``-o json``
all changes on stdout. Does not know how requests are served. Specification: docs/dev.md
and the help texts below.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.config import Warm
from lambda_deno_spawn.dev.aws.credentials import function_environ
from lambda_deno_spawn.dev.cli.console import (
    Output,
    error_text,
    exit_codes,
    print_note,
)
from lambda_deno_spawn.dev.cli.options import (
    EnvFileOption,
    EnvOption,
    InspectBrkOption,
    InspectOption,
    InspectPortOption,
    Recorded,
    RecordOption,
    StageOption,
    VerboseOption,
    inspect_options,
    positive_timeout_s,
)
from lambda_deno_spawn.dev.devserver.functions import (
    DEFAULT_ENVIRONMENTS,
    EventForm,
    InvokeMode,
    Overrides,
)
from lambda_deno_spawn.dev.local.runtime import deno_binary, run_until_signalled
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import shadowing_note
from lambda_deno_spawn.dev.project.quotas import (
    MEMORY_MAX_MB,
    MEMORY_MIN_MB,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lambda_deno_spawn.dev.devserver.journal import Change, Notice, Record
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda
    from lambda_deno_spawn.dev.devserver.server import Listener
    from lambda_deno_spawn.dev.devserver.type_check import TypeChecker

DEFAULT_PORT = 3000
WRITE_DELAY_S = 0.01
ORIGIN = re.compile(r"\*|https?://[^/\s]+|[a-z][a-z0-9+.-]*://[^/\s]+")
PLATFORM_LINES = ("START RequestId: ", "END RequestId: ", "REPORT RequestId: ")
# Records of the runtime about errors that are shown here in a form for people.
ERROR_LINE = re.compile(r"[^\t]*\t[^\t]*\tERROR\t(?:Invoke|Init) Error\t")
RECORD_HEAD = re.compile(r"\d{4}-\d\d-\d\dT([\d:]+)[\d.]*Z\t([^\t]*)\t")


def dev(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Functions, or folders with functions.  [default: this folder]",
            show_default=False,
        ),
    ] = None,
    *,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            "-p",
            metavar="PORT",
            min=0,
            max=65535,
            help="Port on 127.0.0.1; 0: any free port.",
        ),
    ] = DEFAULT_PORT,
    events: Annotated[
        EventForm,
        typer.Option(
            help="What an HTTP request becomes: the event of a function URL, of API "
            "Gateway (v2: HTTP API, v1: REST API), or of a load balancer."
        ),
    ] = EventForm.URL,
    invoke_mode: Annotated[
        InvokeMode,
        typer.Option(
            help="How function URLs respond. auto: as the function does; buffered and "
            "stream: as a URL with this InvokeMode, even if the function does not fit."
        ),
    ] = InvokeMode.AUTO,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            max=TIMEOUT_LIMIT_S,
            help="Timeout of every function; fractions allowed.  [default: from "
            "lambda.toml, else 3]",
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            min=MEMORY_MIN_MB,
            max=MEMORY_MAX_MB,
            help="Memory size of every function.  [default: from lambda.toml, else "
            "512]",
        ),
    ] = None,
    stage: StageOption = None,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    warm: Annotated[
        Warm | None,
        typer.Option(help="When to start the process for the next event."),
    ] = None,
    environments: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Maximum number of execution environments per function; further "
            "requests wait.",
        ),
    ] = DEFAULT_ENVIRONMENTS,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Events that an environment serves at once, like a Managed Instance.",
        ),
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze", help="Stop environments between events, as Lambda does."
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch/--no-watch", help="Run new code when a file is saved."),
    ] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the types of TypeScript functions, at the start and after a "
            "save. They run even with errors, as on Lambda.",
        ),
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin call functions, such as "
            "http://localhost:5173; *: all pages. May be repeated.",
        ),
    ] = None,
    inspect: InspectOption = False,
    inspect_brk: InspectBrkOption = False,
    inspect_port: InspectPortOption = None,
    record: RecordOption = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o",
            "--output",
            help="text: the functions' log; json: each change as an object on stdout.",
        ),
    ] = Output.TEXT,
) -> None:
    """Serve functions on this machine, as Lambda would.

    Function URLs at / (one function) or /NAME/, and the Lambda API for AWS's SDKs and
    command line, on one port. Each function runs in the real runtime.
    """
    with exit_codes(is_verbose=verbose):
        debugger = inspect_options(inspect, inspect_brk, inspect_port)
        if debugger is not None and concurrency is not None:
            raise UsageError(
                "Cannot use --concurrency with a debugger: it attaches to the process "
                "of one event; leave out one of them"
            )
        overrides = Overrides(
            timeout_s=None if timeout is None else positive_timeout_s(timeout),
            memory_mb=memory,
            variables=given_variables(env_file, env),
            stage=stage,
            warm=None if warm is None else warm.value,
            # The port belongs to one process at a time.
            environments=environments if debugger is None else 1,
            inspect=debugger,
            concurrency=concurrency,
            is_frozen=freeze,
            is_verbose=verbose,
        )
        origins = [check_origin(each) for each in allow_origin or []]
        work = _serve(
            paths or [Path()],
            overrides,
            env_file or [],
            env or [],
            port=port,
            form=events,
            mode=invoke_mode,
            is_watching=watch,
            is_checking=check,
            origins=origins,
            record=record,
            output=output,
        )
        run_until_signalled(work)


def check_origin(text: str) -> str:
    """Return an origin as browsers send it.

    Raises:
        UsageError: It is not one.
    """
    if not ORIGIN.fullmatch(text):
        raise UsageError(
            f"Cannot use --allow-origin {text!r}: expected scheme, host and port, such "
            "as http://localhost:5173, without a path"
        )
    return text.lower()


async def _serve(
    paths: Sequence[Path],
    overrides: Overrides,
    env_files: Sequence[Path],
    assignments: Sequence[str],
    *,
    port: int,
    form: EventForm,
    mode: InvokeMode,
    is_watching: bool,
    is_checking: bool,
    origins: Collection[str],
    record: Recorded | None,
    output: Output,
) -> None:
    """Serve until cancelled; leave nothing behind."""
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.devserver.api import LambdaApi
    from lambda_deno_spawn.dev.devserver.console import Console
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda
    from lambda_deno_spawn.dev.devserver.server import Listener, application
    from lambda_deno_spawn.dev.devserver.type_check import TypeChecker
    from lambda_deno_spawn.dev.devserver.urls import FunctionUrls
    from lambda_deno_spawn.dev.recording.requests import RequestRecorder

    deno = deno_binary(os.environ)  # a lack is said now, not with the first request
    environ = function_environ(os.environ, print_note)
    local = LocalLambda(paths, overrides, environ=environ)
    listener = Listener(port)
    local.serve_at(listener.url)
    try:
        urls = FunctionUrls(local, form, mode)
        recorder = RequestRecorder(local, os.environ)
        if record is not None:
            recorder.listen(only_failures=record is Recorded.FAILURES)
        app = application(
            LambdaApi(local).routes(),
            urls,
            Console(local, recorder.write).routes(),
            allowed_origins=origins,
            on_error=local.tell_mistake,
            origins_for=urls.allowed_origins,
        )
        checker = TypeChecker(deno, os.environ, local.journal) if is_checking else None
        screen = JsonScreen() if output is Output.JSON else TextScreen()
        local.journal.listen(screen.show)
        async with listener.serve(app), asyncio.TaskGroup() as tasks:
            try:
                if is_watching:
                    watching = _watch(local, checker, env_files, assignments)
                    tasks.create_task(watching)
                    await asyncio.sleep(0)  # it watches when it first waits
                screen.begin(local, listener)
                if checker is not None:
                    for fleet in local.fleets.values():
                        checker.check(fleet.function)
                await asyncio.Event().wait()  # until a signal cancels it
            finally:
                if checker is not None:
                    await checker.aclose()
                # Before the port is closed, so that waiting callers get a response.
                await local.aclose()
                screen.flush()
    finally:
        listener.close()


async def _watch(
    local: LocalLambda,
    checker: TypeChecker | None,
    env_files: Sequence[Path],
    assignments: Sequence[str],
) -> None:
    """Reload the functions whose files change, until cancelled."""
    from lambda_deno_spawn.dev.devserver.watcher import affected, changes

    # A pipe, such as from a program that decrypts the file, can be read once only.
    is_readable = all(path.is_file() for path in env_files)
    files = {path.resolve() for path in env_files if is_readable}
    async for saved in changes(local.folders, local.tell_mistake, files):
        paths = saved - files
        if saved & files:
            try:
                local.set_variables(given_variables(env_files, assignments))
            except UsageError as error:
                # Half-written: the variables before serve until it is repaired.
                local.tell_mistake(str(error))
        if not paths:
            continue
        folders = {n: fleet.function.folder for n, fleet in local.fleets.items()}
        names: set[str] = set()
        is_unknown = False
        for path in paths:
            found = affected(path, folders)
            # The first files in a new folder may be written before it is watched.
            is_new = found is None or path.is_dir()
            is_unknown = is_unknown or is_new
            names |= found or set()
        gone = {name for name in names if not folders[name].is_dir()}
        if is_unknown or gone:
            local.rescan()
        changed = sorted(names & set(local.fleets))
        local.reload(changed)
        if checker is not None:
            for name in set(changed) & set(local.fleets):
                checker.check(local.fleets[name].function)


class JsonScreen:
    """Writes each change of the journal as a line of JSON to stdout."""

    def flush(self) -> None:
        """Do nothing: each line is written at once."""

    def begin(self, local: LocalLambda, listener: Listener) -> None:
        """Name the functions that are served."""
        functions = {
            name: {"arn": fleet.arn, "folder": str(fleet.function.folder)}
            for name, fleet in local.fleets.items()
        }
        fields = {"kind": "listening", "url": listener.url, "functions": functions}
        print(json.dumps(fields), flush=True)

    def show(self, change: Change) -> None:
        """Write a change."""
        _write(sys.stdout, json.dumps(change.to_json()))


class TextScreen:
    """Writes the functions' logs, and a line for each request, to stderr."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._width = 0
        self._lines: list[str] = []  # to be written

    def begin(self, local: LocalLambda, listener: Listener) -> None:
        """Name the functions that are served, and how to call them."""
        lines = []
        self._width = max(map(len, local.fleets), default=0)
        only = local.only()
        for name, fleet in sorted(local.fleets.items()):
            url = f"{listener.url}/" if only else f"{listener.url}/{name}/"
            lines.append(
                f"  {name:{self._width}}  {url}  {_shown(fleet.function.folder)}"
            )
            note = shadowing_note(fleet.function.project.function, name)
            if note:
                lines.append(f"  {note}")
            inspect = fleet.function.overrides.inspect
            if inspect is not None:
                lines.append(
                    f"  {'':{self._width}}  its events wait for a debugger at "
                    f"{inspect.address}; the timeout is suspended"
                )
        count = len(local.fleets)
        what = "1 function" if count == 1 else f"{count} functions"
        lines += [
            f"Lambda API for SDKs: AWS_ENDPOINT_URL_LAMBDA={listener.url}",
            f"Console: {listener.url}/_/",
            "Save a file to run new code; Ctrl-C ends.",
        ]
        self._say(f"Serving {what} at {listener.url}", *lines)

    def show(self, change: Change) -> None:
        """Write a change, if it is one for people."""
        if change.notice is not None:
            self._show_notice(change.notice)
        elif change.line is not None and change.record is not None:
            text = change.line.text
            if not text.startswith(PLATFORM_LINES) and not ERROR_LINE.match(text):
                self._show_line(change.record, text)
        elif change.kind == "ended" and change.record is not None:
            self._show_end(change.record)

    def _show_notice(self, notice: Notice) -> None:
        name = notice.function or "dev"
        text = notice.text
        if ERROR_LINE.match(text):
            return  # an error notice follows
        if notice.level == "error":
            text = _explained(text)
        head = f"{name:{self._width}} |"
        self._say(*(f"{head} {line}" for line in _short(text)))

    def _show_line(self, record: Record, text: str) -> None:
        head = f"{record.facts.function:{self._width}} {record.id[:8]} |"
        self._say(*(f"{head} {line}" for line in _short(text)))

    def _show_end(self, record: Record) -> None:
        facts = record.facts
        what = (
            f"{facts.method} {facts.target}"
            if facts.method is not None
            else f"{facts.source} event"
        )
        outcome = "" if record.status is None else f" {record.status}"
        if not record.is_ok:
            outcome += f" {record.error_type or record.outcome}"
        answered_ms = record.times.answered_ms or 0.0
        parts = [f"{answered_ms:.1f} ms"]
        if record.init_ms is not None:
            parts.append(f"init {record.init_ms:.0f} ms")
        if record.max_memory_mb is not None:
            parts.append(f"{record.max_memory_mb} MB")
        left = (record.measures or {}).get("leftoverProcesses")
        if left:
            parts.append(f"{left} leftover processes ended")
        head = f"{facts.function:{self._width}} {record.id[:8]} >"
        arrow = f" ->{outcome}" if outcome else ""
        lines = [f"{head} {what}{arrow} in {', '.join(parts)}"]
        # An init error is a notice, once for each version of the code.
        if record.error is not None and record.outcome != "init error":
            text = _explained(record.error.decode(errors="replace"))
            lines += [f"{head} {line}" for line in text.splitlines()]
        self._say(*lines)

    def flush(self) -> None:
        """Write what has not been written yet."""
        lines, self._lines = self._lines, []
        if lines:
            _write(sys.stderr, "\n".join(lines))

    def _say(self, *lines: str) -> None:
        # Together: under load, a write for each request takes as long as a request.
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITE_DELAY_S, self.flush)
        self._lines += lines


def _write(file: object, text: str) -> None:
    # A terminal that is gone, or a full disk, must not make requests fail.
    with contextlib.suppress(OSError, ValueError):
        print(text.encode(errors="replace").decode(), file=file, flush=True)  # type: ignore[call-overload]


def _short(text: str) -> list[str]:
    """Return a record of the log as lines, without date and request id."""
    match = RECORD_HEAD.match(text)
    if match is not None:
        text = f"{match[1]} {text[match.end() :]}".replace("\t", " ", 1)
    elif text.startswith('{"timestamp":'):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            record = json.loads(text)
            message = record["message"]
            shown = message if isinstance(message, str) else json.dumps(message)
            text = f"{record['timestamp'][11:19]} {record['level']} {shown}"
    return text.splitlines() or [""]


def _explained(text: str) -> str:
    """Return an error body as lines: type, message and stack."""
    try:
        error = json.loads(text)
    except (ValueError, RecursionError):
        return text
    lines = [error_text(error, text)]
    stack = error.get("stackTrace") if isinstance(error, dict) else None
    if isinstance(stack, list):
        lines += [f"    {frame}" for frame in stack if str(frame) not in lines[0]]
    return "\n".join(lines)


def _shown(folder: Path) -> str:
    """Return a folder as a person would write it."""
    try:
        return str(folder.relative_to(Path.cwd())) or "."
    except ValueError:
        return str(folder)
