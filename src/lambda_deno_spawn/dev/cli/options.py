"""Options that several commands have, and what they do alike.

Knows how an option reads in every command that has it. Refuses to know any command.
Specification: docs/deploy.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.publish import LayerZip

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


def layer_zips(out: Path) -> list[LayerZip]:
    """Return the layers that were built into a folder.

    Raises:
        BuildError: Their list cannot be read.
    """
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.package.layer import read_layers

    return [LayerZip.from_built(built, out) for built in read_layers(out)]
