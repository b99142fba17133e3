"""All benchmarks by name, and how they are run."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    building,
    coldstart,
    cpu,
    devurl,
    firststart,
    fork,
    forms,
    latency,
    managed,
    memory,
    sizes,
    throughput,
    ways,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Awaitable, Callable, Sequence

    from bench.figures import Figure

BENCHMARKS: dict[str, Callable[[int | None, Path], Awaitable[list[Figure]]]] = {
    "latency": latency.run,
    "fork": fork.run,
    "cpu": cpu.run,
    "coldstart": coldstart.run,
    "memory": memory.run,
    "forms": forms.run,
    "firststart": firststart.run,
    "building": building.run,
    "sizes": sizes.run,
    "ways": ways.run,
    "throughput": throughput.run,
    "managed": managed.run,
    "devurl": devurl.run,
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that choose benchmarks."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"{', '.join(BENCHMARKS)}; default: all",
    )
    parser.add_argument(
        "--events", type=int, metavar="N", help="repetitions, instead of each default"
    )


def check_arguments(parser: ArgumentParser, options: Namespace) -> None:
    """Exit with a message if they choose nothing that can be run."""
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.events is not None and options.events < 1:
        parser.error("--events must be 1 or more")


async def measure(names: Sequence[str], events: int | None) -> list[Figure]:
    """Run the named benchmarks, all if none is named."""
    figures: list[Figure] = []
    for name in names or BENCHMARKS:
        print(f"measuring {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            figures += await BENCHMARKS[name](events, Path(scratch))
    return figures
