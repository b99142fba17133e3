"""The results of ``doctor`` and of other commands, as tables of text.

Knows how results are worded and laid out, on a terminal and in a file. Does not know
how they were obtained, or the exit code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.dev.doctor.checks import Check
    from lambda_deno_spawn.dev.doctor.isolation import IsolationReport

GAP = "  "
STRATEGY_NAMES = {"fresh": "fresh process", "server": "shared server"}
STYLES = {
    "ok": "green",
    "no": "green",
    "warning": "yellow",
    "problem": "bold red",
    "LEAKED": "bold red",
}


def write_checks(checks: Sequence[Check], stream: TextIO) -> None:
    """Write the checks of ``doctor``, with advice and a summary."""
    from lambda_deno_spawn.dev.doctor.checks import Status

    rows = []
    for number, check in enumerate(checks):
        is_first = number == 0 or checks[number - 1].group != check.group
        advice = f"\n-> {check.advice}" if check.advice else ""
        group = check.group if is_first else ""
        rows.append([group, check.id, check.status.value, check.found + advice])
    write_table(["", "check", "status", "found"], rows, stream)
    counts = {
        status: sum(check.status is status for check in checks) for status in Status
    }
    summary = ", ".join(
        f"{count} {status.value}{'s' if count > 1 and status is not Status.OK else ''}"
        for status, count in counts.items()
        if count
    )
    stream.write(f"\n{summary}\n")


def write_isolation(report: IsolationReport, stream: TextIO) -> None:
    """Write the leaks in the runtime, beside those in the control."""
    in_control = {True: "leaked", False: "no, proves nothing", None: "not tried"}
    in_runtime = {True: "LEAKED", False: "no", None: "not tried"}
    headings = [
        "planted by the first event",
        "permissions",
        "one process for all events",
        STRATEGY_NAMES.get(report.strategy, report.strategy),
        "fork",
        "seen by the second event",
    ]
    rows = [
        [
            f"{check.id}: {check.planted}",
            check.permissions.value,
            in_control[check.control],
            in_runtime[check.leaked],
            in_runtime[check.forked],
            check.fork_evidence if check.forked else check.evidence,
        ]
        for check in report.checks
    ]
    write_table(headings, rows, stream)
    stream.write("\n")
    survival = [
        [
            c.id,
            c.permissions.value,
            c.start.value,
            "ok" if c.ok else "problem",
            c.evidence,
        ]
        for c in report.survival
    ]
    headings = ["after the first event", "permissions", "start", "", ""]
    write_table(headings, survival, stream)
    stream.write(f"\n{isolation_summary(report)}\n")


def isolation_summary(report: IsolationReport) -> str:
    """Return a sentence with the numbers of leaks and of meaningful checks."""
    proof = sum(check.control is True for check in report.checks)
    count = len(report.checks)
    tried = f"{count} ways tried, {proof} of which leak in one process for all events"
    if report.leaked:
        return f"{report.leaked} leaked: {tried}"
    return f"Nothing leaked: {tried}"


def write_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO
) -> None:
    """Write rows in columns: with rules and colours on a terminal, else plain."""
    if stream.isatty():
        _write_rich(headings, rows, stream)
    else:
        stream.writelines(line + "\n" for line in plain_lines([headings, *rows]))


def plain_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows in columns of any width; a cell may have several lines."""
    split = [[cell.split("\n") for cell in row] for row in rows]
    widths = [
        max(len(line) for cell in column for line in cell)
        for column in zip(*split, strict=True)
    ]
    return [
        GAP.join(
            (cell[number] if number < len(cell) else "").ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in split
        for number in range(max(map(len, row)))
    ]


def _write_rich(
    headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    Console(file=stream).print(table)
