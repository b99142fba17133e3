"""The measurements as statistics, ratios and dollars.

Pure: knows samples, percentiles and Lambda's prices. Does not know how samples are
taken or how a report is laid out. Specification: docs/bench.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.bench.ways import DESCRIPTIONS, Way

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# AWS, "AWS Lambda Pricing" (aws.amazon.com/lambda/pricing): on demand, US East (N.
# Virginia), first tier, without the free tier; as of 2026-05.
PRICES_SOURCE = "aws.amazon.com/lambda/pricing, US East (N. Virginia), first tier"
PRICES_DATE = "2026-05"
DOLLARS_PER_GB_S: Mapping[str, float] = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
DOLLARS_PER_MILLION_REQUESTS = 0.20
MB_PER_GB = 1024
MILLION = 1_000_000
# AWS Lambda Developer Guide, "Configure Lambda function memory": with this much, a
# function has the equivalent of one vCPU; with less, a share in proportion.
ONE_VCPU_MB = 1769
MEMORY_SIZES_MB = (128, 512, ONE_VCPU_MB)


@dataclass(frozen=True, slots=True)
class Sample:
    """The durations of one event, in seconds.

    Attributes:
        latency_s: From the event to the last byte of the response.
        billed_s: From the event to the following ``next``.
        cpu_s: Processor time of all processes meanwhile.
    """

    latency_s: float
    billed_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one way.

    Attributes:
        samples: One for each event.
        peak_bytes: Most memory that all its processes had together.
        first_next_s: From each start to the first ``next``; empty for ``bare``.
        first_answer_s: From each start to the response to the first event.
        note: What has to be said about it; None: nothing.
    """

    way: Way
    samples: Sequence[Sample]
    peak_bytes: int
    first_next_s: Sequence[float]
    first_answer_s: Sequence[float]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A way that could not be measured.

    Attributes:
        reason: Why.
        is_of_function: The handler failed.
    """

    way: Way
    reason: str
    is_of_function: bool = False


@dataclass(frozen=True, slots=True)
class Results:
    """All ways of one run.

    Attributes:
        events: How many were measured for each way.
        warm_up: How many were sent before.
        starts: How many cold starts of each way were measured.
        freezer: ``cgroup`` or ``signals``; empty if nothing was frozen.
        cores: Processor cores of this machine.
        load: How many processes wanted one, in the minute before the run.
    """

    events: int
    warm_up: int
    starts: int
    freezer: str
    cores: int
    load: float
    measured: Sequence[Measured]
    refused: Sequence[Refused]

    @property
    def is_disturbed(self) -> bool:
        """True if other programs kept half of the cores or more busy."""
        return self.load > self.cores / 2


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of some times, in milliseconds."""

    p50: float
    p99: float
    mean: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarise times in seconds; there must be at least one."""
        import statistics  # slow to import, for every command

        ms = [value * 1000 for value in seconds]
        return cls(statistics.median(ms), percentile(ms, 99), statistics.fmean(ms))


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars for a million events at one memory size.

    Attributes:
        measured: With the durations that were measured, whatever the memory size.
        throttled: If the processor time of each event took as much longer as Lambda's
            share of a vCPU at this size is smaller.
    """

    memory_mb: int
    measured: float
    throttled: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one way, for a reader.

    Attributes:
        latency: From the event to the last byte of its response.
        after: From there to the following ``next``.
        billed: Both.
        cpu_ms: Mean processor time per event.
        memory_mib: Peak of all processes together.
        first_next_ms: Median, None for ``bare``.
        first_answer_ms: Median.
    """

    way: Way
    latency: Spread
    after: Spread
    billed: Spread
    cpu_ms: float
    memory_mib: float
    first_next_ms: float | None
    first_answer_ms: float
    costs: Sequence[Cost]
    note: str | None


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile of the samples; ``percent`` is from 1 to 99."""
    if len(samples) == 1:
        return samples[0]
    import statistics

    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def summarise(measured: Measured, arch: str) -> Summary:
    """Return the figures of one way.

    Args:
        measured: What was measured.
        arch: ``x86_64`` or ``arm64``, for the price.
    """
    import statistics

    samples = measured.samples
    first_next = measured.first_next_s
    return Summary(
        way=measured.way,
        latency=Spread.of([one.latency_s for one in samples]),
        after=Spread.of([one.billed_s - one.latency_s for one in samples]),
        billed=Spread.of([one.billed_s for one in samples]),
        cpu_ms=statistics.fmean(one.cpu_s for one in samples) * 1000,
        memory_mib=measured.peak_bytes / 2**20,
        first_next_ms=statistics.median(first_next) * 1000 if first_next else None,
        first_answer_ms=statistics.median(measured.first_answer_s) * 1000,
        costs=[cost(samples, memory_mb, arch) for memory_mb in MEMORY_SIZES_MB],
        note=measured.note,
    )


def cost(samples: Sequence[Sample], memory_mb: int, arch: str) -> Cost:
    """Return what a million such events cost."""
    stretch = max(1.0, ONE_VCPU_MB / memory_mb)
    throttled_s = [
        max(one.billed_s - one.cpu_s, 0.0) + one.cpu_s * stretch for one in samples
    ]
    return Cost(
        memory_mb,
        measured=dollars([one.billed_s for one in samples], memory_mb, arch),
        throttled=dollars(throttled_s, memory_mb, arch),
    )


def dollars(durations_s: Sequence[float], memory_mb: int, arch: str) -> float:
    """Return what a million events of these durations cost.

    Lambda rounds each duration up to a millisecond.
    """
    import statistics

    billed_s = statistics.fmean(
        math.ceil(round(one * 1000, 6)) / 1000 for one in durations_s
    )
    per_second = DOLLARS_PER_GB_S[arch] * memory_mb / MB_PER_GB
    return MILLION * billed_s * per_second + DOLLARS_PER_MILLION_REQUESTS


RATIOS = ("latency p50", "latency p99", "billed", "CPU", "memory")


def ratios(one: Summary, other: Summary) -> dict[str, float]:
    """Return a way's figures over those of another, by the names in ``RATIOS``."""
    pairs = (
        (one.latency.p50, other.latency.p50),
        (one.latency.p99, other.latency.p99),
        (one.billed.mean, other.billed.mean),
        (one.cpu_ms, other.cpu_ms),
        (one.memory_mib, other.memory_mib),
    )
    return {
        name: ours / theirs
        for name, (ours, theirs) in zip(RATIOS, pairs, strict=True)
        if theirs > 0
    }


def as_json(results: Results, arch: str) -> dict[str, object]:
    """Return a run as an object of JSON."""
    summaries = {one.way: summarise(one, arch) for one in results.measured}
    refused = {one.way: one for one in results.refused}
    return {
        "events": results.events,
        "warmUpEvents": results.warm_up,
        "coldStarts": results.starts,
        "freezer": results.freezer,
        "cores": results.cores,
        "loadBefore": _rounded(results.load),
        "prices": {
            "source": PRICES_SOURCE,
            "date": PRICES_DATE,
            "architecture": arch,
            "dollarsPerGbSecond": DOLLARS_PER_GB_S[arch],
            "dollarsPerMillionRequests": DOLLARS_PER_MILLION_REQUESTS,
        },
        "ways": [
            {
                "way": way.value,
                "description": DESCRIPTIONS[way],
                "ok": way in summaries,
                "reason": refused[way].reason if way in refused else None,
                **(_way_json(way, summaries) if way in summaries else {}),
            }
            for way in Way
            if way in summaries or way in refused
        ],
    }


def _way_json(way: Way, summaries: Mapping[Way, Summary]) -> dict[str, object]:
    summary = summaries[way]
    first_next_ms = summary.first_next_ms
    return {
        "note": summary.note,
        "latencyMs": _spread_json(summary.latency),
        "afterResponseMs": _spread_json(summary.after),
        "billedMs": _spread_json(summary.billed),
        "cpuMs": _rounded(summary.cpu_ms),
        "peakMemoryMb": _rounded(summary.memory_mib),
        "firstNextMs": None if first_next_ms is None else _rounded(first_next_ms),
        "firstAnswerMs": _rounded(summary.first_answer_ms),
        "dollarsPerMillion": [
            {
                "memoryMb": one.memory_mb,
                "measured": _rounded(one.measured),
                "throttled": _rounded(one.throttled),
            }
            for one in summary.costs
        ],
        "ratios": {
            other.value: {
                name: _rounded(value)
                for name, value in ratios(summary, summaries[other]).items()
            }
            for other in (Way.BARE, Way.POLLER)
            if other in summaries
        },
    }


def _spread_json(spread: Spread) -> dict[str, float]:
    return {
        "p50": _rounded(spread.p50),
        "p99": _rounded(spread.p99),
        "mean": _rounded(spread.mean),
    }


def _rounded(value: float) -> float:
    return round(value, 4)
