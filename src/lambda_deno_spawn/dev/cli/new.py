"""The command ``new``: parses its options, and prints the project it wrote.

Knows the options and the output. Does not know the files of a project, or how they are
written. Specification: docs/project.md, "A new project", and the help text below.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.options import VerboseOption
from lambda_deno_spawn.dev.package.layer import DEFAULT_PYTHON, best_python
from lambda_deno_spawn.dev.project.new import TEMPLATES, find_template, write_project
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.requirements import DISTRIBUTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.project.new import NewProject, Template


def new(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the function and of the new folder."
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
        typer.Option(metavar="FOLDER", help="Parent folder of the new folder."),
    ] = Path(),
    arch: Annotated[
        Arch | None,
        typer.Option(
            help="Instruction set of the function.  [default: that of this machine]",
            show_default=False,
        ),
    ] = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option(
            "-o",
            "--output",
            help="text: the files and the next steps; json: an object.",
        ),
    ] = Output.TEXT,
) -> None:
    """Write a new project: function, test, events, project file.

    Works without network. Existing files are never overwritten. The project file sets
    a runtime if this machine can compile layers only for that one.
    """
    with exit_codes(is_verbose=verbose):
        chosen = find_template(template)
        runtime = machine_runtime(os.environ)
        project = write_project(name, chosen, arch or Arch.here(), path, runtime)
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
    # After `--`, cd does not take a name that begins with - for an option.
    separator = "-- " if folder.startswith("-") else ""
    print(f"  cd {separator}{shlex.quote(folder)}")
    command = own_command(sys.argv[0])
    print(f"  {command} invoke . --event @{template.event}")
    print(f"  {'' if shutil.which('deno') else f'{command} '}deno task test")


def machine_runtime(environ: Mapping[str, str]) -> str | None:
    """Return the runtime that this machine can compile layers for.

    None stands for the default, which needs no line in a project file.
    """
    python = best_python(environ)
    return None if python == DEFAULT_PYTHON else f"python{python}"


def own_command(started_as: str) -> str:
    """Return how this program can be started from another folder.

    Args:
        started_as: How it was started, the first of ``sys.argv``.
    """
    program = Path(started_as).absolute()
    if shutil.which(DISTRIBUTION):
        return DISTRIBUTION
    if program.name == DISTRIBUTION and os.access(program, os.X_OK):
        return shlex.quote(str(program))
    return f"{shlex.quote(sys.executable)} -m lambda_deno_spawn"
