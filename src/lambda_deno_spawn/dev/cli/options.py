"""Arguments and options that several commands share, and helpers for them.

Knows the help texts of these options. Does not know any command. Specification:
docs/deploy.md.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output
from lambda_deno_spawn.dev.project.function import INSPECT_PORT
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    MEMORY_MAX_MB,
    MEMORY_MIN_MB,
)
from lambda_deno_spawn.dev.project.target import find_target, named_target
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.project.function import Inspect
    from lambda_deno_spawn.dev.project.target import Target


class Recorded(StrEnum):
    """Which invocations are recorded."""

    FAILURES = "failures"
    ALL = "all"


FunctionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FUNCTION",
        help="Folder or file of the function, its name in Lambda, or its ARN.",
    ),
]
ProjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="FUNCTION",
        help="Folder or file of the function, or name or ARN of a local project.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The function's name in Lambda, without looking at local folders.",
    ),
]
HandlerOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.EXPORT", help="Handler.  [default: found by the file's name]"
    ),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Environment variable of the function; may be repeated.",
    ),
]
EnvFileOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        help="File with lines NAME=VALUE, as for `deno run --env-file`; may be "
        "repeated. --env takes precedence, then the last file, then lambda.toml.",
    ),
]
StageOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Stage in lambda.toml, [stage.NAME].  [default: no stage]",
    ),
]
EventOption = Annotated[
    str | None,
    typer.Option(
        "--event",
        "-e",
        metavar="JSON|@FILE|NAME|-",
        help="Event: JSON text, a file (with or without @), the name of a sample event "
        "(see `events`), or - for stdin.  [default: {}]",
    ),
]
EventFileOption = Annotated[
    str | None,
    typer.Option("--event-file", "-F", metavar="FILE", help="File with the event."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set a value in the event, such as Records.0.body=hello; may be repeated.",
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        metavar="MB",
        min=MEMORY_MIN_MB,
        max=MEMORY_MAX_MB,
        help="Memory size; sets the heap limit. Lambda's own default is 128.  "
        f"[default: from lambda.toml, else {DEFAULT_MEMORY_MB}]",
    ),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        "-r",
        metavar="REGION",
        help="AWS region.  [default: that of the profile]",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Profile in the AWS configuration files.",
    ),
]
InspectOption = Annotated[
    bool,
    typer.Option(
        "--inspect",
        help="Wait for a debugger to attach to the function's process; the timeout "
        "is suspended.",
    ),
]
InspectBrkOption = Annotated[
    bool,
    typer.Option(
        "--inspect-brk",
        help="The same, and pause at the first line of the handler's file.",
    ),
]
InspectPortOption = Annotated[
    int | None,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65535,
        help=f"Port for the debugger; 0: any free port.  [default: {INSPECT_PORT}]",
    ),
]
RecordOption = Annotated[
    Recorded | None,
    typer.Option(
        "--record",
        help="Write a recording of each failed invocation, or of all, for `replay`.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(metavar="FOLDER", help="Folder with the built packages and layers."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the changes without making them."),
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Do not ask before removing or replacing anything."
    ),
]
BucketOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Upload through this bucket.  [default: none up to 50 MB, else a new "
        "bucket]",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show the traceback of an error."),
]
OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="text: lines; json: an object."),
]


def whole_function(
    command: str, argument: str | None, name: str | None, stage: str | None = None
) -> Target:
    """Return the function that a command acts on, from its argument or ``--name``.

    Args:
        command: The command, for messages.
        argument: The argument FUNCTION.
        name: Value of ``--name``.
        stage: Value of ``--stage``.

    Raises:
        UsageError: None or both are given, or a version instead of a function.
    """
    if argument is not None and name is not None:
        raise UsageError(
            f"Cannot use --name {name} with {argument!r}: both name the function; "
            "leave out one of them"
        )
    if name is not None and stage is not None:
        raise UsageError(
            f"Cannot use --stage {stage} with --name {name}: a stage belongs to a "
            "project, and --name is the name of a function in AWS; leave out one of "
            "them"
        )
    if name is not None:
        target = named_target(name)
    elif argument is not None:
        target = find_target(argument, stage=stage)
    else:
        raise UsageError(
            f"Cannot run `{command}`: no function is given; give its folder, its name "
            "in Lambda, or its ARN"
        )
    target.refuse_qualifier(command)
    return target


def layer_zips(out: Path) -> list[LayerZip]:
    """Return the layers in a folder, listed in its ``layers.json``.

    Raises:
        BuildError: The list cannot be read.
    """
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.package.layer import read_layers

    return [LayerZip.from_built(built, out) for built in read_layers(out)]


def positive_timeout_s(timeout: float) -> float:
    """Return the value of ``--timeout`` in seconds.

    Raises:
        UsageError: It is not above zero.
    """
    if math.isfinite(timeout) and timeout > 0:
        return timeout
    raise UsageError(
        f"Cannot use --timeout {timeout:g}: expected a number of seconds above zero"
    )


def inspect_options(
    inspects: bool,
    breaks: bool,
    port: int | None,
) -> Inspect | None:
    """Return where a debugger attaches; None: none is wanted.

    Args:
        inspects: ``--inspect`` is given.
        breaks: ``--inspect-brk`` is given.
        port: Value of ``--inspect-port``.

    Raises:
        UsageError: The port is taken, or given without a debugger.
    """
    from lambda_deno_spawn.dev.local.inspector import choose_inspect

    if inspects or breaks:
        return choose_inspect(INSPECT_PORT if port is None else port, breaks=breaks)
    if port is not None:
        raise UsageError(
            "Cannot use --inspect-port: no debugger is asked for; add --inspect or "
            "--inspect-brk"
        )
    return None
