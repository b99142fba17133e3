"""The command ``deno``: runs the same Deno as all other commands.

Knows how that Deno replaces this program. Does not know Deno's own options, which are
passed on as they are. Specification: docs/project.md, "A new project".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from lambda_deno_spawn.dev.cli.console import exit_codes
from lambda_deno_spawn.dev.local.runtime import deno_binary

# For Typer: every argument is Deno's, --help included.
SETTINGS = {
    "add_help_option": False,
    "context_settings": {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
}


def deno(context: typer.Context) -> None:
    """Run Deno with any arguments: `deno task test`, `deno fmt`.

    Runs the Deno that `invoke` and `build` use, which need not be on PATH.
    """
    with exit_codes(is_verbose=False):
        binary = deno_binary(os.environ)
        folder = str(Path(binary).parent)
        # Tasks and programs of the project call `deno`, too.
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PATH")]))
        sys.stdout.flush()
        os.execve(binary, ["deno", *context.args], {**os.environ, "PATH": path})
