"""The command ``bench``: what a function costs in each way to serve its events.

Knows the options, the tables and the picture. Does not know how anything is measured.
Specification: docs/bench.md, and the help text below.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.bench.picture import OURS, THEIRS, Panel, Row, bars
from lambda_deno_spawn.dev.bench.report import (
    MEMORY_SIZES_MB,
    ONE_VCPU_MB,
    PRICES_DATE,
    PRICES_SOURCE,
    RATIOS,
    as_json,
    ratios,
    summarise,
)
from lambda_deno_spawn.dev.bench.ways import DESCRIPTIONS, Way
from lambda_deno_spawn.dev.cli.console import EXIT_FAILED, exit_codes
from lambda_deno_spawn.dev.cli.events import read_event
from lambda_deno_spawn.dev.cli.options import (
    EnvFileOption,
    EnvOption,
    EventFileOption,
    EventOption,
    HandlerOption,
    MemoryOption,
    StageOption,
    VerboseOption,
    positive_timeout_s,
)
from lambda_deno_spawn.dev.cli.tables import write_table
from lambda_deno_spawn.dev.local.runtime import run_until_signalled
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import shadowing_note
from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from lambda_deno_spawn.dev.bench.report import Results, Summary

DEFAULT_EVENTS = 200
EVENTS_LEAST = 10  # with fewer, a percentile means nothing
EVENTS_FOR_P99 = 100
STARTS_LEAST = 3  # cold starts beside fewer events
FREEZERS = {
    "cgroup": "the kernel's freezer (cgroup v2)",
    "signals": "SIGSTOP and SIGCONT to each process; the kernel's freezer needs root "
    "and cgroup v2",
}
NOTHING = "-"


class Form(StrEnum):
    """Format of the result on stdout."""

    TABLE = "table"
    JSON = "json"


def bench(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="The handler's file, or the folder that contains it.",
        ),
    ],
    *,
    event: EventOption = None,
    event_file: EventFileOption = None,
    events: Annotated[
        int,
        typer.Option(
            metavar="N",
            help=f"How many events to measure for each way; {EVENTS_LEAST} or more.",
        ),
    ] = DEFAULT_EVENTS,
    way: Annotated[
        list[Way] | None,
        typer.Option(help="Measure only this way; may be repeated.  [default: all]"),
    ] = None,
    stage: StageOption = None,
    handler: HandlerOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            max=TIMEOUT_LIMIT_S,
            help="Function timeout; fractions allowed.  [default: from lambda.toml, "
            "else 3]",
        ),
    ] = None,
    memory: MemoryOption = None,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the figures into this file, too."),
    ] = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Form,
        typer.Option("-o", "--output", help="table: tables; json: an object."),
    ] = Form.TABLE,
) -> None:
    """Measure what a function costs with each way of serving its events.

    Runs the function under this runtime (fork, exec, reuse, server), in a Deno process
    that polls for events itself (poller), and with a bare `deno run` for each event
    (bare). The ways take turns, and are frozen between events as on Lambda.
    """
    with exit_codes(is_verbose=verbose):
        if events < EVENTS_LEAST:
            raise UsageError(
                f"Cannot measure {events} events: too few for percentiles; give "
                f"--events {EVENTS_LEAST} or more"
            )
        if svg is not None and not svg.absolute().parent.is_dir():
            raise UsageError(
                f"Cannot write {str(svg)!r}: its folder does not exist; create it first"
            )
        project = load_project(Path(function), handler, stage=stage)
        if note := shadowing_note(project.function, function):
            _say(note)
        # Slow to import, and not needed for a usage error.
        from lambda_deno_spawn.dev.bench.measure import STARTS, BenchOptions, measure

        options = BenchOptions(
            project.function,
            event=read_event(event, event_file),
            events=events,
            ways=[one for one in Way if way is None or one in way],
            memory_mb=memory or project.memory_mb or DEFAULT_MEMORY_MB,
            timeout_s=positive_timeout_s(timeout)
            if timeout is not None
            else project.timeout_s or DEFAULT_TIMEOUT_S,
            variables=project.variables_with(given_variables(env_file, env)),
            starts=STARTS if events >= EVENTS_FOR_P99 else STARTS_LEAST,
        )
        # The path of a socket below it must be short.
        with tempfile.TemporaryDirectory(
            prefix="lds-bench-", ignore_cleanup_errors=True
        ) as scratch:
            work = measure(options, os.environ, Path(scratch), _say)
            results = run_until_signalled(work)
        is_sent = event is not None or event_file is not None
        _show(results, project.arch.value, output, svg, is_sent=is_sent)


def _show(
    results: Results, arch: str, output: Form, svg: Path | None, *, is_sent: bool
) -> None:
    """Print the figures; exit with 1 if the function failed."""
    summaries = [summarise(one, arch) for one in results.measured]
    if output is Form.JSON:
        print(json.dumps(as_json(results, arch), indent=2))
    elif summaries:
        write_report(results, summaries, sys.stdout)
    sys.stdout.flush()
    if svg is not None and summaries:
        _draw(summaries, svg)
    if not summaries:
        for one in results.refused:
            _say(f"Cannot measure {one.way.value}: {one.reason}")
    failed = [
        one for one in results.refused if one.is_of_function and not one.way.is_baseline
    ]
    if failed:
        advice = "" if is_sent else "; the event was {}, give another by --event"
        _say(f"The function failed: {failed[0].reason}{advice}")
    elif not summaries:
        _say("Cannot measure the function: no way could be used")
    if failed or not summaries:
        raise typer.Exit(EXIT_FAILED)


def write_report(
    results: Results, summaries: Sequence[Summary], stream: TextIO
) -> None:
    """Write the tables, and the notes that are needed to read them."""
    stream.write("Each event\n\n")
    headings = [
        "", "response p50", "p99", "until next p50", "billed", "CPU", "memory",
        "first next", "first response",
    ]  # fmt: skip
    write_table(headings, [_cells(one) for one in summaries], stream)
    by_way = {one.way: one for one in summaries}
    for base in (Way.BARE, Way.POLLER):
        if base in by_way and len(summaries) > 1:
            stream.write(f"\nOver {base.value}: {DESCRIPTIONS[base]}\n\n")
            rows = [
                [one.way.value, *_ratio_cells(ratios(one, by_way[base]))]
                for one in summaries
                if one.way is not base
            ]
            write_table(["", *RATIOS], rows, stream)
    stream.write("\nDollars per million events\n\n")
    headings = [""]
    for memory_mb in MEMORY_SIZES_MB:
        headings.append(f"{memory_mb} MB")
        if memory_mb < ONE_VCPU_MB:
            headings.append("throttled")
    write_table(headings, [_cost_cells(one) for one in summaries], stream)
    stream.write("\n")
    for one in results.refused:
        stream.write(f"{one.way.value} was not measured: {one.reason}\n")
    for summary in summaries:
        if summary.note is not None:
            stream.write(f"{summary.way.value}: {summary.note}\n")
    stream.writelines(line + "\n" for line in _remarks(results))


def _remarks(results: Results) -> list[str]:
    lines = [
        f"{results.events} events each, after {results.warm_up} to warm up; "
        f"{results.starts} cold starts."
    ]
    if results.freezer:
        lines.append(f"Frozen between events by {FREEZERS[results.freezer]}.")
    if results.is_disturbed:
        lines.append(
            f"The machine had other work (load {results.load:.1f} on {results.cores} "
            "cores): times are too long, and ratios less certain."
        )
    if results.events < EVENTS_FOR_P99:
        lines.append(
            f"p99 of {results.events} events is about the slowest of them; "
            f"--events {EVENTS_FOR_P99} or more makes it meaningful."
        )
    return [
        *lines,
        f"Prices: {PRICES_SOURCE}, {PRICES_DATE}.",
        "The durations are those of this machine at every memory size; throttled: with "
        "CPU time stretched",
        "to Lambda's share of a vCPU at that size.",
    ]


def _cells(one: Summary) -> list[str]:
    return [
        one.way.value,
        _ms(one.latency.p50),
        _ms(one.latency.p99),
        NOTHING if one.way is Way.BARE else _ms(one.after.p50),
        _ms(one.billed.mean),
        _ms(one.cpu_ms),
        f"{one.memory_mib:.0f} MiB",
        NOTHING if one.first_next_ms is None else _ms(one.first_next_ms),
        _ms(one.first_answer_ms),
    ]


def _ratio_cells(found: Mapping[str, float]) -> list[str]:
    return [f"{found[name]:.2f} x" if name in found else NOTHING for name in RATIOS]


def _cost_cells(one: Summary) -> list[str]:
    cells = [one.way.value]
    for cost in one.costs:
        cells.append(f"${cost.measured:.2f}")
        if cost.memory_mb < ONE_VCPU_MB:
            cells.append(f"${cost.throttled:.2f}")
    return cells


def _draw(summaries: Sequence[Summary], target: Path) -> None:
    def panel(title: str, values: Sequence[float], form: str) -> Panel:
        return Panel(title, values, [form.format(value) for value in values])

    middle = len(summaries[0].costs) // 2
    size_mb = summaries[0].costs[middle].memory_mb
    rows = [
        Row(one.way.value, THEIRS if one.way.is_baseline else OURS) for one in summaries
    ]
    text = bars(
        rows,
        [
            panel("event to response, p50, ms", _p50(summaries), "{:.2f}"),
            panel("CPU per event, ms", [one.cpu_ms for one in summaries], "{:.2f}"),
            panel("memory, MiB", [one.memory_mib for one in summaries], "{:.0f}"),
            panel(
                f"dollars per million, {size_mb} MB",
                [one.costs[middle].measured for one in summaries],
                "{:.2f}",
            ),
        ],
    )
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot write {str(target)!r}: {error.strerror}") from error


def _p50(summaries: Sequence[Summary]) -> list[float]:
    return [one.latency.p50 for one in summaries]


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
