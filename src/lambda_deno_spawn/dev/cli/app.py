"""The command line: all commands by name, each imported once it is wanted.

Knows where each command is, and the options of the command line itself. Does not know
the options of any command, nor what it does. Exit codes: see ``console``.
Specification: README.md and the help texts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.cli.pages import HELP_OPTIONS, Commands, page_epilog


class AllCommands(Commands):
    """The commands, in the order of the help."""

    places: ClassVar = {
        "new": "new:new",
        "init": "init:init",
        "build": "build:build",
        "bench": "bench:bench",
        "dev": "dev:dev",
        "call": "call:call",
        "deno": "deno:deno",
        "events": "events:events",
        "deploy": "deploy:deploy",
        "delete": "deploy:delete",
        "logs": "remote:logs",
        "replay": "replay:replay",
        "explain": "explain:explain",
        "invoke": "invoke:invoke",
        "doctor": "doctor:doctor",
    }


class LayerCommands(Commands):
    """The commands of ``layer``."""

    group = "layer"
    places: ClassVar = {
        "build": "layer:build",
        "publish": "publish:publish",
        "list": "publish:list_layers",
        "delete": "layer_delete:delete_layers",
    }


app = typer.Typer(
    help="Deno on AWS Lambda with a brand-new process for every event.",
    epilog=page_epilog(""),
    cls=AllCommands,
    context_settings=HELP_OPTIONS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
layer_app = typer.Typer(
    name=LayerCommands.group,
    help="Build, publish, list and delete the layers of the runtime.",
    epilog=page_epilog(LayerCommands.group),
    cls=LayerCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(layer_app)


@layer_app.callback()
def _layer() -> None:
    # Without a callback, Typer does not see that this is a group.
    pass


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
