"""Options that several commands have, and what they do alike.

Knows how an option reads in every command that has it. Refuses to know any command.
Specification: docs/deploy.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output
from lambda_deno_spawn.dev.project.target import find_target, named_target
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.project.target import Target

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
        help="Folder or file of the function, or the name or ARN of a project here.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The function's name in Lambda, whatever folders are here.",
    ),
]
HandlerOption = Annotated[
    str | None,
    typer.Option(metavar="FILE.EXPORT", help="Handler, if not the one that is found."),
]
RegionOption = Annotated[
    str | None,
    typer.Option(metavar="REGION", help="AWS region.  [default: the profile's]"),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Profile of AWS's configuration files."),
]
OutOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Folder of what was built.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be done; change nothing."),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Remove and replace without asking.")
]
BucketOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Upload by this bucket.  [default: none up to 50 MB, else one of our own]",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show where an unexpected error arose."),
]
OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="text: lines; json: one object."),
]


def whole_function(command: str, argument: str | None, name: str | None) -> Target:
    """Return the function that a command is about, given by argument or ``--name``.

    Raises:
        UsageError: None is given, both are, or only a version of one.
    """
    if argument is not None and name is not None:
        raise UsageError(
            f"Cannot use --name {name} with {argument!r}: both say which function is "
            "meant; leave out one of both"
        )
    if name is not None:
        target = named_target(name)
    elif argument is not None:
        target = find_target(argument)
    else:
        raise UsageError(
            f"Cannot run `{command}`: no function is named; give its folder, its name "
            "in Lambda, or its ARN"
        )
    target.refuse_qualifier(command)
    return target


def layer_zips(out: Path) -> list[LayerZip]:
    """Return the layers that were built into a folder.

    Raises:
        BuildError: Their list cannot be read.
    """
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.package.layer import read_layers

    return [LayerZip.from_built(built, out) for built in read_layers(out)]
