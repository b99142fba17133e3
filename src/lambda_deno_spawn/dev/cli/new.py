"""The command ``new``: its arguments, and what it prints.

Knows the options and both forms of output. Refuses to know what a project holds and how
it is written. Specification: docs/project.md, "A new project", and the help text below.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.options import VerboseOption
from lambda_deno_spawn.dev.project.new import TEMPLATES, find_template, write_project
from lambda_deno_spawn.dev.project.project import Arch

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.project.new import NewProject, Template


def new(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the function, and of the folder to write."
        ),
    ],
    *,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            "-t",
            metavar="|".join(TEMPLATES),
            help="; ".join(f"{t.name}: {t.summary}" for t in TEMPLATES.values()) + ".",
        ),
    ] = "event",
    path: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where to make the folder."),
    ] = Path(),
    arch: Annotated[
        Arch | None,
        typer.Option(
            help="Instruction set of the function.  [default: this machine's]",
            show_default=False,
        ),
    ] = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o",
            "--output",
            help="text: the files, and what to do next; json: one object.",
        ),
    ] = Output.TEXT,
) -> None:
    """Write a new project: function, test, events, project file.

    Needs no network. Nothing that is there is overwritten.
    """
    with exit_codes(is_verbose=verbose):
        chosen = find_template(template)
        project = write_project(name, chosen, arch or Arch.here(), path)
        if output is Output.JSON:
            folder = str(project.path.absolute())
            print(json.dumps({"path": folder, "files": project.files}))
        else:
            _show(project, chosen)


def _show(project: NewProject, template: Template) -> None:
    folder = str(project.path)
    print(f"Created {folder}:")
    for file in project.files:
        print(f"  {file}")
    print("\nNext:")
    # After `--`, a name that begins with - is no option.
    separator = "-- " if folder.startswith("-") else ""
    print(f"  cd {separator}{shlex.quote(folder)}")
    print(f"  lambda-deno-spawn invoke . --event @{template.event}")
    print("  deno task test")
