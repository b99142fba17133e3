"""Run one: ``python -m tests.soak frames|responses|events [--count N] [--seed N]``.

The other options configure the environment of ``events``. Prints a table with the
number of each outcome; exits with 1 if there is a violation.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from tests.soak import events, frames, responses
from tests.soak.environment import PERMISSIONS, STRATEGIES, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.soak.report import Report

RUNS: dict[str, tuple[Callable[[int, int, int], Report], int]] = {
    "frames": (frames.run, 100_000),
    "responses": (responses.run, 10_000),
    "events": (events.run, 10_000),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named soak; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--count", type=int, help="cases; default: the full number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first case, to repeat one"
    )
    parser.add_argument("-o", choices=("table", "json"), default="table", dest="output")
    where = parser.add_argument_group("the environment of events")
    where.add_argument("--memory", type=int, metavar="MB", help="needs root")
    where.add_argument("--concurrency", type=int, default=1, help="events at once")
    where.add_argument("--strategy", choices=STRATEGIES, default="fresh")
    where.add_argument("--fork", action="store_true", help="LAMBDA_DENO_START=fork")
    where.add_argument("--auto", action="store_true", help="LAMBDA_DENO_START=auto")
    where.add_argument("--permissions", choices=PERMISSIONS, default="all")
    where.add_argument("--frozen", action="store_true", help="between events")
    where.add_argument("--unprivileged", action="store_true", help="as Lambda's user")
    where.add_argument(
        "--only", default="", metavar="KIND,...", help="hostile kinds that begin so"
    )
    options = parser.parse_args(arguments)
    run, full = RUNS[options.name]
    count = options.count or full
    if options.name == "events":
        setup = Setup(
            memory_mb=options.memory,
            concurrency=options.concurrency,
            strategy=options.strategy,
            permissions=options.permissions,
            is_forked=options.fork,
            is_auto=options.auto,
            is_frozen=options.frozen,
            is_unprivileged=options.unprivileged,
        )
        if reason := setup.impossible():
            parser.error(reason)
        only = [name for name in options.only.split(",") if name]
        report = events.run(count, options.seed, options.start, setup, only)
    else:
        report = run(count, options.seed, options.start)
    if options.output == "json":
        print(json.dumps(report.as_json(), indent=2))
    else:
        # Without a terminal, do not limit the width.
        console = Console(width=None if sys.stdout.isatty() else 120)
        for table in report.tables():
            console.print(table)
    errors = Console(stderr=True, soft_wrap=True, markup=False)
    for note in report.notes:
        errors.print(f"note: {note}")
    for violation in report.violations:
        errors.print(f"VIOLATION: {violation}")
    verdict = "FAILED" if report.violations else "passed"
    errors.print(f"{options.name}: {verdict} after {report.elapsed_s:.1f} s")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
