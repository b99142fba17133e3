"""Compare this machine's ratios with the recorded ones: ``python -m bench.check``.

``bench/ratios.json`` has each ratio of the benchmarks and how much more is tolerated.
Milliseconds are not compared, as they depend on the machine. Prints a table of what is
worse, and exits with 1 if anything is. ``--record`` writes what was measured into the
file instead, and keeps the tolerances; ``--from`` takes the output of ``python -m bench
-o json`` instead of measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.benchmarks import add_arguments, check_arguments, measure
from bench.ratios import compare, read, report, updated, write

if TYPE_CHECKING:
    from collections.abc import Sequence

RATIOS = Path(__file__).with_name("ratios.json")
RATIO_UNIT = "x"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare or record; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--record", action="store_true", help="write the ratios")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="do not measure"
    )
    parser.add_argument(
        "--ratios", type=Path, default=RATIOS, metavar="FILE", help="the recorded ones"
    )
    options = parser.parse_args(arguments)
    check_arguments(parser, options)
    if options.source is not None and (options.names or options.events):
        parser.error("--from takes what was measured; leave out names and --events")
    recorded = read(options.ratios)
    if options.source is None:
        figures = asyncio.run(measure(options.names, options.events))
        measured = {one.name: one.measured for one in figures if one.unit == RATIO_UNIT}
    else:
        try:
            content = json.loads(options.source.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            parser.error(f"cannot read {str(options.source)!r}: {error}")
        measured = {
            one["name"]: one["measured"] for one in content if one["unit"] == RATIO_UNIT
        }
    if not measured:
        parser.error("nothing to compare: these benchmarks have no ratio")
    if options.record:
        write(options.ratios, updated(recorded, measured))
        print(f"{len(measured)} ratios written to {options.ratios}", file=sys.stderr)
        return 0
    if not options.names and (missing := recorded.keys() - measured.keys()):
        print(f"not measured: {', '.join(sorted(missing))}", file=sys.stderr)
    return report(compare(measured, recorded), sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
