"""Ratios of the benchmarks, and how they compare with the recorded ones.

Knows ``bench/ratios.json`` and what is tolerated. Does not know how ratios are
measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.cli.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

# Ratios of medians of one run repeat within a tenth on a quiet machine, and within a
# quarter beside other work. A 99th percentile is made by the few slowest events.
TOLERANCE, TOLERANCE_OF_P99 = 0.25, 1.0


class Verdict(StrEnum):
    """How a ratio compares with the recorded one; smaller is better."""

    OK = "ok"
    WORSE = "WORSE"
    BETTER = "better"  # by more than is tolerated: worth a new record
    NEW = "not recorded"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A ratio, and which part of it a new one may be more than it."""

    ratio: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ratio that was measured, and the recorded one."""

    name: str
    measured: float
    recorded: Recorded | None

    @property
    def verdict(self) -> Verdict:
        """Whether it is worse than is tolerated."""
        if self.recorded is None:
            return Verdict.NEW
        margin = self.recorded.ratio * self.recorded.tolerance
        if self.measured > self.recorded.ratio + margin:
            return Verdict.WORSE
        if self.measured < self.recorded.ratio - margin:
            return Verdict.BETTER
        return Verdict.OK


def compare(
    measured: Mapping[str, float], recorded: Mapping[str, Recorded]
) -> list[Comparison]:
    """Pair each ratio that was measured with the recorded one."""
    return [
        Comparison(name, ratio, recorded.get(name)) for name, ratio in measured.items()
    ]


def report(comparisons: Sequence[Comparison], stream: TextIO) -> int:
    """Write what is not as recorded; return the exit code."""
    different = [one for one in comparisons if one.verdict is not Verdict.OK]
    worse = [one for one in different if one.verdict is Verdict.WORSE]
    different.sort(key=lambda one: one.verdict is not Verdict.WORSE)
    if different:
        headings = ["ratio", "measured", "recorded", "tolerated", ""]
        write_table(headings, [_cells(one) for one in different], stream)
    summary = f"{len(comparisons)} ratios, {len(worse)} worse than recorded"
    stream.write(f"\n{summary}\n" if different else f"{summary}\n")
    return 1 if worse else 0


def _cells(one: Comparison) -> list[str]:
    if one.recorded is None:
        return [one.name, f"{one.measured:.3g}", "", "", one.verdict.value]
    ratio, tolerance = one.recorded.ratio, one.recorded.tolerance
    return [
        one.name,
        f"{one.measured:.3g}",
        f"{ratio:.3g}",
        f"{ratio * (1 + tolerance):.3g}",
        one.verdict.value,
    ]


def read(file: Path) -> dict[str, Recorded]:
    """Return the recorded ratios; none if there is no such file."""
    if not file.exists():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {name: Recorded(**entry) for name, entry in content.items()}


def updated(
    recorded: Mapping[str, Recorded], measured: Mapping[str, float]
) -> dict[str, Recorded]:
    """Return the record with what was measured, and the tolerances that it had."""
    new = {}
    for name, ratio in measured.items():
        default = TOLERANCE_OF_P99 if "p99" in name else TOLERANCE
        before = recorded.get(name)
        tolerance = default if before is None else before.tolerance
        new[name] = Recorded(round(ratio, 4), tolerance)
    return {**recorded, **new}


def write(file: Path, ratios: Mapping[str, Recorded]) -> None:
    """Write the record, one line for each ratio."""
    lines = [
        f"  {json.dumps(name)}: "
        f'{{ "ratio": {one.ratio}, "tolerance": {one.tolerance} }}'
        for name, one in ratios.items()
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
