"""The command ``replay``: its options and output.

Knows the options and the output: differences on stdout, all else on stderr. Does not
know how an invocation is run again or compared. Specification: docs/replay.md and the
help texts below. Exit codes: 0 the same outcome as recorded, 1 another one, 2 the
recording cannot be used, 3 it cannot be fetched from AWS.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lambda_deno_spawn.dev.aws.credentials import function_environ
from lambda_deno_spawn.dev.cli.console import (
    EXIT_FAILED,
    Output,
    exit_codes,
    print_note,
)
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.options import (
    EnvOption,
    HandlerOption,
    InspectBrkOption,
    InspectOption,
    InspectPortOption,
    ProfileOption,
    RegionOption,
    inspect_options,
)
from lambda_deno_spawn.dev.project.function import parse_variables
from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.project.project import Project
    from lambda_deno_spawn.dev.recording.compare import Difference
    from lambda_deno_spawn.dev.recording.rerun import Rerun
    from lambda_deno_spawn.dev.recording.store import Stored

LISTED = 20
SINCE = "1d"
LIST = Mode("with --list", "the list of recordings")
RUN = Mode("without --list", "a recording that is run again")


def replay(
    context: typer.Context,
    recording: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|REQUEST_ID",
            help="File of a recording, the request id of one (or its beginning), or "
            "'last'.",
        ),
        RUN,
    ] = None,
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="The code to run: the handler's file, or its folder.  [default: the "
            "recorded folder, or the local project with the function's name]",
        ),
        RUN,
    ] = None,
    *,
    list_: Annotated[
        bool, typer.Option("--list", help="List the latest recordings instead."), LIST
    ] = False,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="Fetch the recording of REQUEST_ID from the log of this function in "
            "AWS: its name, its ARN, or its local folder.",
        ),
        RUN,
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help=f"With --remote: how far back: 90s, 10m, 2h, 1d.  [default: {SINCE}]",
        ),
        RUN,
    ] = None,
    region: Annotated[RegionOption, RUN] = None,
    profile: Annotated[ProfileOption, RUN] = None,
    handler: Annotated[HandlerOption, RUN] = None,
    env: Annotated[EnvOption, RUN] = None,
    inspect: Annotated[InspectOption, RUN] = False,
    inspect_brk: Annotated[InspectBrkOption, RUN] = False,
    inspect_port: Annotated[InspectPortOption, RUN] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Compare what was logged, too."), RUN
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Log how the function's processes are started; show the traceback of "
            "an error.",
        ),
        LIST,
        RUN,
    ] = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o", "--output", help="text: a line for each difference; json: an object."
        ),
        LIST,
        RUN,
    ] = Output.TEXT,
) -> None:
    """Run a recorded invocation again, and print the differences.

    Exit code 0: the same outcome, even if it is an error; 1: a different one.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.local.inspector import how_to_attach
        from lambda_deno_spawn.dev.recording import rerun as again
        from lambda_deno_spawn.dev.recording.compare import compare

        if list_:
            refuse_ignored(context, LIST)
            _list(output)
            return
        refuse_ignored(context, RUN)
        stored = _stored(recording, remote, since, region, profile)
        form = stored.form
        project = _project(form, function, remote, handler)
        variables = project.variables_with(parse_variables(env or []))
        options = again.options_of(
            form,
            project.function,
            variables=variables,
            inspect=inspect_options(inspect, inspect_brk, inspect_port),
            is_verbose=verbose,
        )
        notes = again.notes_on(form, project.function, variables)
        _say(
            f"Replaying {form['requestId']} of {form['time']} with the code in "
            f"{str(project.function.task_root)!r}"
        )
        for note in notes:
            _say(f"Note: {note}")
        if options.inspect is not None:
            _say(how_to_attach(options, os.environ))
        environ = function_environ(os.environ, print_note)
        done = again.rerun(options, environ=environ, log=sys.stderr.buffer)
        differences = compare(form, done.form, with_log=log)
        _show(stored, done, differences, notes, output)


def _stored(
    recording: str | None,
    remote: str | None,
    since: str | None,
    region: str | None,
    profile: str | None,
) -> Stored:
    """Return the recording that the arguments mean."""
    from lambda_deno_spawn.dev.recording.store import Stored, find, folder, write

    if recording is None:
        raise UsageError(
            "Cannot replay: no recording is given; give its file or its request id, "
            "or 'last' (`replay --list` shows them)"
        )
    if remote is None:
        given = {"--since": since, "--region": region, "--profile": profile}
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise UsageError(
                f"Cannot use {' and '.join(names)} without --remote: the recording is "
                "on this machine; leave out what applies to AWS, or add --remote"
            )
        return find(recording, folder(os.environ))
    from lambda_deno_spawn.dev.aws.remote_logs import parse_since
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.target import check_account, check_ambiguity
    from lambda_deno_spawn.dev.project.target import find_target
    from lambda_deno_spawn.dev.recording.remote import fetch

    target = find_target(remote)
    since_epoch_ms = round((time.time() - parse_since(since or SINCE)) * 1000)
    aws = Aws(target.choose_region(region), profile)
    check_account(aws, target)
    check_ambiguity(aws, target)
    form = fetch(aws, target.name, recording, since_epoch_ms)
    # Kept, so that it can be run again without AWS.
    path = write(form, folder(os.environ))
    _say(f"Fetched into {str(path)!r}")
    return Stored(form, path)


def _project(
    form: dict[str, Any], function: str | None, remote: str | None, handler: str | None
) -> Project:
    """Return the code to run, and its settings."""
    from lambda_deno_spawn.dev.project.target import (
        find_project,
        find_target,
        named_target,
    )

    recorded = form["function"]
    where = recorded.get("folder")
    name = recorded.get("name")
    wanted = handler or (recorded.get("handler") if function is None else None)
    if wanted is not None and not isinstance(wanted, str):
        wanted = None
    if function is not None:
        return load_project(Path(function), handler)
    if remote is not None:
        return find_project(find_target(remote), handler)
    if isinstance(where, str) and Path(where).is_dir():
        return load_project(Path(where), wanted)
    try:
        return find_project(named_target(str(name)), handler)
    except UsageError as error:
        raise UsageError(
            f"Cannot replay {form['requestId']}: the code of {name!r} is not here; "
            "give its folder as the second argument"
        ) from error


def _list(output: Output) -> None:
    from lambda_deno_spawn.dev.recording.store import folder, recent

    where = folder(os.environ)
    found = recent(where, LISTED)
    if output is Output.JSON:
        fields = [
            {
                "file": str(s.path),
                **{n: s.form[n] for n in ("requestId", "time")},
                "function": s.form["function"].get("name"),
                "status": s.form["outcome"]["status"],
            }
            for s in found
        ]
        print(json.dumps(fields))
        return
    for stored in found:
        form = stored.form
        name = str(form["function"].get("name"))
        print(
            f"{form['time']}  {form['requestId']}  {name}  {form['outcome']['status']}"
        )
    if not found:
        _say(f"There are none in {str(where)!r}; `invoke --record all` makes one")


def _show(
    stored: Stored,
    done: Rerun,
    differences: list[Difference],
    notes: list[str],
    output: Output,
) -> None:
    """Print the differences; exit with 1 if there are any."""
    before, after = stored.form["outcome"], done.form["outcome"]
    if output is Output.JSON:
        fields = {
            "same": not differences,
            "requestId": stored.form["requestId"],
            "recording": None if stored.path is None else str(stored.path),
            "recorded": {"outcome": before["kind"], "status": before["status"]},
            "replayed": {"outcome": after["kind"], "status": after["status"]},
            "differences": [asdict(one) for one in differences],
            "notes": notes,
            "result": after["payload"],
        }
        print(json.dumps(fields))
    elif differences:
        for one in differences:
            print(f"{one.what}: {one.recorded} \u2192 {one.replayed}")
    else:
        print(f"Same outcome as recorded: {after['status']}")
    sys.stdout.flush()
    if differences:
        _say(
            f"The outcome differs from the recorded one in {len(differences)} places"
            if len(differences) > 1
            else "The outcome differs from the recorded one in one place"
        )
        raise typer.Exit(EXIT_FAILED)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
