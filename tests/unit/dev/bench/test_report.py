"""Statistics, ratios and dollars, against figures that were worked out by hand."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.bench.report import (
    MEMORY_SIZES_MB,
    Measured,
    Refused,
    Results,
    Sample,
    Spread,
    as_json,
    cost,
    dollars,
    percentile,
    ratios,
    summarise,
)
from lambda_deno_spawn.dev.bench.ways import Way


def measured(way: Way, *samples: Sample, peak_bytes: int = 32 * 2**20) -> Measured:
    return Measured(way, samples, peak_bytes, [0.1, 0.3, 0.2], [0.2, 0.4, 0.6])


def test_percentiles_lie_between_samples() -> None:
    samples = [float(n) for n in range(1, 102)]
    assert percentile(samples, 50) == 51.0
    assert percentile(samples, 99) == 100.0
    assert percentile([7.0], 99) == 7.0


def test_spread_is_in_milliseconds() -> None:
    spread = Spread.of([0.001, 0.002, 0.006])
    assert spread.p50 == pytest.approx(2.0)
    assert spread.mean == pytest.approx(3.0)
    assert 5.9 < spread.p99 <= 6.0


@pytest.mark.parametrize(
    ("durations_s", "memory_mb", "arch", "expected"),
    [
        # 1 GB for 100 ms: 0.1 GB-s each.
        ([0.1], 1024, "x86_64", 0.2 + 1.66667),
        ([0.1], 1024, "arm64", 0.2 + 1.33334),
        ([0.1], 128, "x86_64", 0.2 + 1.66667 / 8),
        # Each is rounded up by itself: 1 ms and 2 ms.
        ([0.0001, 0.0011], 1024, "x86_64", 0.2 + 0.0166667 * 1.5),
        ([0.001, 0.001], 1024, "x86_64", 0.2 + 0.0166667),
    ],
)
def test_dollars_are_lambda_s_prices_for_what_it_would_bill(
    durations_s: list[float], memory_mb: int, arch: str, expected: float
) -> None:
    assert dollars(durations_s, memory_mb, arch) == pytest.approx(expected)


def test_a_small_function_may_wait_for_its_share_of_the_processor() -> None:
    waits, computes = Sample(0.1, 0.1, 0.0), Sample(0.1, 0.1, 0.1)
    one = cost([waits], 128, "x86_64")
    assert one.throttled == pytest.approx(one.measured)
    # All of its 100 ms are processor time, of which it has 128 in 1,769 parts: 1.383 s.
    assert cost([computes], 128, "x86_64").throttled == pytest.approx(
        dollars([0.1 * 1769 / 128], 128, "x86_64")
    )
    whole = cost([computes], 1769, "x86_64")
    assert whole.throttled == pytest.approx(whole.measured)


def test_two_cores_are_not_one_vcpu() -> None:
    parallel = Sample(0.1, 0.1, 0.2)
    one = cost([parallel], 1769, "x86_64")
    assert one.throttled == pytest.approx(dollars([0.2], 1769, "x86_64"))


def test_summary_has_the_figures_of_one_way() -> None:
    samples = [Sample(0.001, 0.003, 0.002), Sample(0.002, 0.006, 0.004)]
    summary = summarise(measured(Way.FORK, *samples), "x86_64")
    assert summary.latency.p50 == pytest.approx(1.5)
    assert summary.after.p50 == pytest.approx(3.0)
    assert summary.billed.mean == pytest.approx(4.5)
    assert summary.cpu_ms == pytest.approx(3.0)
    assert summary.memory_mib == 32.0
    assert summary.first_next_ms == pytest.approx(200.0)
    assert summary.first_answer_ms == pytest.approx(400.0)
    assert [one.memory_mb for one in summary.costs] == list(MEMORY_SIZES_MB)


def test_ratios_leave_out_what_cannot_be_divided() -> None:
    fork = summarise(measured(Way.FORK, Sample(0.001, 0.002, 0.004)), "x86_64")
    bare = measured(Way.BARE, Sample(0.010, 0.020, 0.0), peak_bytes=16 * 2**20)
    found = ratios(fork, summarise(bare, "x86_64"))
    assert found == {
        "latency p50": pytest.approx(0.1),
        "latency p99": pytest.approx(0.1),
        "billed": pytest.approx(0.1),
        "memory": 2.0,
    }


def test_json_has_every_way_and_why_one_is_missing() -> None:
    one = Sample(0.001, 0.002, 0.004)
    results = Results(
        events=1,
        warm_up=5,
        starts=3,
        freezer="cgroup",
        cores=2,
        load=0.25,
        measured=[measured(Way.EXEC, one), measured(Way.BARE, one)],
        refused=[Refused(Way.FORK, "it has a socket")],
    )
    content = as_json(results, "arm64")
    ways = content["ways"]
    assert isinstance(ways, list)
    assert [(way["way"], way["ok"], way["reason"]) for way in ways] == [
        ("fork", False, "it has a socket"), ("exec", True, None), ("bare", True, None),
    ]  # fmt: skip
    assert ways[1]["ratios"]["bare"]["CPU"] == 1.0
    assert "poller" not in ways[1]["ratios"]
    assert (content["freezer"], content["loadBefore"]) == ("cgroup", 0.25)
