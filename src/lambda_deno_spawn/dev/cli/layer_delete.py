"""The command ``layer delete``: its options and output.

Knows the options and the output: the result on stdout, all else on stderr. Does not
know which versions may be deleted. Specification: docs/layers.md, "Deleting".
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.deploy import carry_out
from lambda_deno_spawn.dev.cli.options import (
    DryRunOption,
    OutputOption,
    ProfileOption,
    RegionOption,
    VerboseOption,
    YesOption,
)


def delete_layers(
    layers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LAYER...",
            help="NAME:VERSION, or NAME with --keep; or ARNs.  [default: with --keep, "
            "all layers of the runtime]",
            show_default=False,
        ),
    ] = None,
    *,
    keep: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Delete all but the newest N versions of a layer."
        ),
    ] = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete versions of the runtime's layers.

    A version that a function still uses is not deleted.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.layer_removal import (
            parse_layer_name,
            read_removal,
            region_of,
        )
        from lambda_deno_spawn.dev.aws.session import Aws

        names = [parse_layer_name(text) for text in layers or ()]
        aws = Aws(region_of(names, region), profile)
        plan = read_removal(aws, names, keep)
        executor = carry_out(
            aws, plan, "delete layers", output, is_dry=dry_run, is_sure=yes
        )
        if executor is None:
            return
        deleted = [change.before for change in plan.changes]
        if output is Output.JSON:
            print(json.dumps({"deleted": deleted, "notes": list(plan.notes)}))
        elif deleted:
            for arn in deleted:
                print(f"deleted {arn}")
        else:
            print("Nothing to do.", file=sys.stderr)
        sys.stdout.flush()
