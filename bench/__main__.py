"""Run the benchmarks: ``python -m bench [name ...] [--events N] [-o json]``.

Prints a table with each value, its target and whether it is met; exits with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench import (
    coldstart,
    cpu,
    firststart,
    forms,
    latency,
    memory,
    sizes,
    throughput,
    ways,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bench.figures import Figure

BENCHMARKS: dict[str, Callable[[int | None, Path], Awaitable[list[Figure]]]] = {
    "latency": latency.run,
    "cpu": cpu.run,
    "coldstart": coldstart.run,
    "memory": memory.run,
    "forms": forms.run,
    "firststart": firststart.run,
    "sizes": sizes.run,
    "ways": ways.run,
    "throughput": throughput.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"{', '.join(BENCHMARKS)}; default: all",
    )
    parser.add_argument(
        "--events", type=int, metavar="N", help="repetitions, instead of each default"
    )
    parser.add_argument("-o", choices=("table", "json"), default="table", dest="output")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.events is not None and options.events < 1:
        parser.error("--events must be 1 or more")
    figures = asyncio.run(_measure(options.names or list(BENCHMARKS), options.events))
    if options.output == "json":
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        # Without a terminal, do not limit the width.
        Console(width=None if sys.stdout.isatty() else 120).print(_table(figures))
    return 1 if any(figure.is_missed for figure in figures) else 0


async def _measure(names: Sequence[str], events: int | None) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            figures += await BENCHMARKS[name](events, Path(scratch))
    return figures


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
