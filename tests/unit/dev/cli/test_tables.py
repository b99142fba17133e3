"""Tables of checks without a terminal: in files, pipes and reports."""

from __future__ import annotations

import io

from lambda_deno_spawn.dev.cli.tables import (
    isolation_summary,
    plain_lines,
    write_checks,
    write_isolation,
)
from lambda_deno_spawn.dev.doctor.checks import Check, Status
from lambda_deno_spawn.dev.doctor.isolation import (
    IsolationCheck,
    IsolationReport,
    Permissions,
    SurvivalCheck,
)


def check(
    name: str,
    *,
    control: bool | None = True,
    leaked: bool | None = False,
    forked: bool | None = False,
) -> IsolationCheck:
    return IsolationCheck(
        name, Permissions.ALL, "a thing", control, leaked, "seen", forked, "seen there"
    )


def test_columns_are_as_wide_as_their_widest_line() -> None:
    rows = [["a", "bb", "c"], ["aaa", "b", "one\nand two"], ["", "", "end"]]
    assert plain_lines(rows) == [
        "a    bb  c",
        "aaa  b   one",
        "         and two",
        "         end",
    ]


def test_checks_are_written_below_their_group_with_what_to_do() -> None:
    stream = io.StringIO()
    write_checks(
        [
            Check("Deno", "deno-binary", Status.OK, "/opt/bin/deno"),
            Check("Deno", "deno-version", Status.PROBLEM, "1.0", "install another"),
            Check("System", "descriptors", Status.WARNING, "10", "raise it"),
            Check("System", "processes", Status.WARNING, "10", "raise it"),
        ],
        stream,
    )
    assert stream.getvalue().splitlines() == [
        "        check         status   found",
        "Deno    deno-binary   ok       /opt/bin/deno",
        "        deno-version  problem  1.0",
        "                               -> install another",
        "System  descriptors   warning  10",
        "                               -> raise it",
        "        processes     warning  10",
        "                               -> raise it",
        "",
        "1 ok, 2 warnings, 1 problem",
    ]


def test_isolation_is_written_beside_the_control() -> None:
    checks = (
        check("kept"),
        check("lost", leaked=True),
        check("weak", control=False),
        check("odd", control=None, leaked=None, forked=None),
        check("new", forked=True),
    )
    survival = (SurvivalCheck("same-supervisor", Permissions.ALL, True, "process 1"),)
    stream = io.StringIO()
    write_isolation(IsolationReport("fresh", checks, survival), stream)
    lines = [line.split("  ") for line in stream.getvalue().splitlines()]
    words = [[word.strip() for word in line if word.strip()] for line in lines]
    assert words == [
        [
            "planted by the first event", "permissions", "one process for all events",
            "fresh process", "fork", "seen by the second event",
        ],
        ["kept: a thing", "all", "leaked", "no", "no", "seen"],
        ["lost: a thing", "all", "leaked", "LEAKED", "no", "seen"],
        ["weak: a thing", "all", "no, proves nothing", "no", "no", "seen"],
        ["odd: a thing", "all", "not tried", "not tried", "not tried", "seen"],
        ["new: a thing", "all", "leaked", "no", "LEAKED", "seen there"],
        [],
        ["after the first event", "permissions", "start"],
        ["same-supervisor", "all", "exec", "ok", "process 1"],
        [],
        ["2 leaked: 5 ways tried, 3 of which leak in one process for all events"],
    ]  # fmt: skip


def test_summary_says_that_nothing_leaked() -> None:
    report = IsolationReport("fresh", (check("kept"),), ())
    assert isolation_summary(report).startswith("Nothing leaked: 1 ways tried")
