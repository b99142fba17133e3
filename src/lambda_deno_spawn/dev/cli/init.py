"""The command ``init``: parses its options, and prints what it did with each file.

Knows the options and the output. Does not know how the app of a folder is found, or
how files are changed. Specification: docs/project.md, "A folder that exists", and the
help text below.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.new import machine_runtime, own_command
from lambda_deno_spawn.dev.cli.options import HandlerOption, VerboseOption
from lambda_deno_spawn.dev.project.adopt import State, carry_out, plan_adoption
from lambda_deno_spawn.dev.project.project import Arch

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.project.adopt import Adoption

DONE = {
    State.WRITTEN: "wrote",
    State.CHANGED: "added to",
    State.KEPT: "kept",
    State.NEEDED: "to do",
}
PLANNED = {
    **DONE,
    State.WRITTEN: "would write",
    State.CHANGED: "would add to",
    State.KEPT: "would keep",
}


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with the app.")
    ] = Path(),
    *,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the function.  [default: from the folder's name]",
        ),
    ] = None,
    handler: HandlerOption = None,
    arch: Annotated[
        Arch | None,
        typer.Option(
            help="Instruction set of the function.  [default: that of this machine]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o", "--output", help="text: a line for each file; json: an object."
        ),
    ] = Output.TEXT,
) -> None:
    """Turn an existing app into a function: project file, types, an event.

    Finds the handler with deno.json, package.json and file names. Keeps what exists:
    files are created or added to, and a second run changes nothing. Works without
    network.
    """
    with exit_codes(is_verbose=verbose):
        adoption = plan_adoption(
            folder,
            arch or Arch.here(),
            name=name,
            handler=handler,
            runtime=machine_runtime(os.environ),
        )
        if not dry_run:
            carry_out(adoption)
        if output is Output.JSON:
            print(json.dumps(_as_json(adoption)))
        else:
            _show(adoption, is_planned=dry_run)


def _as_json(adoption: Adoption) -> dict[str, object]:
    return {
        "path": str(adoption.folder.absolute()),
        "handler": adoption.app.handler,
        "note": adoption.app.note,
        "files": [
            {"file": step.file, "state": step.state, "detail": step.detail}
            for step in adoption.steps
        ],
    }


def _show(adoption: Adoption, *, is_planned: bool) -> None:
    app = adoption.app
    kind = " (an app that listens)" if app.listens else ""
    print(f"Handler: {app.handler} in {app.file}{kind}, found by {app.found_by}\n")
    if app.note is not None:
        print(f"Note: {app.note}\n", file=sys.stderr)
    words = PLANNED if is_planned else DONE
    width = max(map(len, words.values()))
    for step in adoption.steps:
        detail = f": {step.detail}" if step.detail else ""
        print(f"  {words[step.state]:{width}}  {step.file}{detail}")
    if all(step.state is State.KEPT for step in adoption.steps):
        print("\nNothing to do.")
    if is_planned:
        return
    print("\nNext:")
    place = str(adoption.folder)
    if place != ".":
        separator = "-- " if place.startswith("-") else ""
        print(f"  cd {separator}{shlex.quote(place)}")
    command = own_command(sys.argv[0])
    print(f"  {command} invoke . --event @{shlex.quote(adoption.event)}")
    print(f"  {command} doctor .")
