"""The tables of ``bench``: every way that was measured, and why another was not."""

from __future__ import annotations

import io

from lambda_deno_spawn.dev.bench.report import (
    Measured,
    Refused,
    Results,
    Sample,
    summarise,
)
from lambda_deno_spawn.dev.bench.ways import Way
from lambda_deno_spawn.dev.cli.bench import write_report

ONE = Sample(latency_s=0.001, billed_s=0.004, cpu_s=0.002)
TWO = Sample(latency_s=0.020, billed_s=0.020, cpu_s=0.020)


def report(
    *measured: Measured, refused: tuple[Refused, ...] = (), load: float = 0.3
) -> str:
    results = Results(50, 10, 5, "signals", 2, load, measured, refused)
    stream = io.StringIO()
    write_report(results, [summarise(one, "x86_64") for one in measured], stream)
    return stream.getvalue()


def test_tables_have_figures_ratios_and_dollars() -> None:
    fork = Measured(Way.FORK, [ONE], 30 * 2**20, [0.08], [0.1])
    bare = Measured(Way.BARE, [TWO], 15 * 2**20, [], [0.25])
    text = report(fork, bare)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "fork 1.00 ms 1.00 ms 3.00 ms 4.00 ms 2.00 ms 30 MiB 80.00 ms 100 ms" in rows
    assert "bare 20.00 ms 20.00 ms - 20.00 ms 20.00 ms 15 MiB - 250 ms" in rows
    assert "Over bare: a bare `deno run` of the module for each event" in rows
    assert "fork 0.05 x 0.05 x 0.20 x 0.10 x 2.00 x" in rows
    assert "Over poller" not in text
    # 4 ms, and 2 ms of them fourteen times as long; the other two sizes likewise.
    assert "fork $0.21 $0.26 $0.23 $0.28 $0.32" in rows
    assert "50 events each, after 10 to warm up; 5 cold starts." in rows
    assert "SIGSTOP" in text
    assert "p99 of 50 events is about the slowest of them" in text


def test_a_machine_that_has_other_work_is_noted() -> None:
    one = Measured(Way.EXEC, [ONE], 2**20, [0.1], [0.2])
    note = "The machine had other work (load 1.2 on 2 cores)"
    assert note in report(one, load=1.2)
    assert note[:20] not in report(one, load=1.0)


def test_what_was_not_measured_is_said_with_the_reason() -> None:
    note = "40 of 50 events were served by copies: it has ended"
    text = report(
        Measured(Way.FORK, [ONE], 2**20, [0.1], [0.2], note),
        refused=(Refused(Way.SERVER, "no socket"),),
    )
    assert "server was not measured: no socket\n" in text
    assert f"fork: {note}\n" in text
    assert "Over " not in text
