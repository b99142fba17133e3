"""The command ``explain``: its argument, and how explanations are shown.

Knows the forms of the argument and the output. Does not know any error.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import EXIT_FAILED, Output, exit_codes
from lambda_deno_spawn.dev.cli.events import read_text
from lambda_deno_spawn.dev.cli.options import VerboseOption
from lambda_deno_spawn.dev.cli.pages import DOCUMENTATION
from lambda_deno_spawn.dev.doctor.explain import explain as explained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from lambda_deno_spawn.dev.doctor.explain import Explanation


def explain(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|@FILE|-",
            help="An error, or a log from a file or from stdin.",
        ),
    ] = "-",
    *,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: for people; json: an object."),
    ] = Output.TEXT,
) -> None:
    """Say what the errors in a text mean, and what to do about them.

    Exit code 0: at least one of them is known; 1: none is.
    """
    with exit_codes(is_verbose=verbose):
        found = explained(read_text(text, "TEXT"))
        if output is Output.JSON:
            fields = [{"seen": each.seen, **asdict(each.entry)} for each in found]
            print(json.dumps({"ok": bool(found), "explanations": fields}))
        else:
            write_explanations(found, sys.stdout)
        sys.stdout.flush()
        if not found:
            raise typer.Exit(EXIT_FAILED)


def write_explanations(found: Sequence[Explanation], stream: TextIO) -> None:
    """Write what each error in a text means, and what to do about it."""
    for each in found:
        entry = each.entry
        page = f"{DOCUMENTATION}/{entry.page.removesuffix('.md')}/"
        stream.write(
            f"{each.seen}\n  why: {entry.why}\n  do:  {entry.do}\n  see: {page}\n\n"
        )
    if not found:
        page = f"{DOCUMENTATION}/troubleshooting/"
        stream.write(f"No error in this text is known. Those that are: {page}\n")
