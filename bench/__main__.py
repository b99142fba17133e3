"""Run the benchmarks: ``python -m bench [name ...] [--events N] [-o json]``.

Prints a table with each value, its target and whether it is met; exits with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.benchmarks import add_arguments, check_arguments, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.figures import Figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add_arguments(parser)
    parser.add_argument("-o", choices=("table", "json"), default="table", dest="output")
    options = parser.parse_args(arguments)
    check_arguments(parser, options)
    figures = asyncio.run(measure(options.names, options.events))
    if options.output == "json":
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        # Without a terminal, do not limit the width.
        Console(width=None if sys.stdout.isatty() else 120).print(_table(figures))
    return 1 if any(figure.is_missed for figure in figures) else 0


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "measured", "target", "verdict", "n", "from")
    for figure in figures:
        target = (
            "" if figure.target is None else f"<= {figure.target:.4g} {figure.unit}"
        )
        if figure.target is None:
            verdict = ""
        else:
            verdict = "[red]MISSED[/]" if figure.is_missed else "[green]ok[/]"
        measured = f"{figure.measured:.4g} {figure.unit}"
        table.add_row(
            figure.name, measured, target, verdict, str(figure.n), figure.detail
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
