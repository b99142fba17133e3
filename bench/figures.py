"""What a benchmark hands back: one measured value beside its target.

Knows medians, percentiles and when a target is missed. Refuses to know how anything was
measured and how it is printed.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        name: What was measured, ``benchmark: subject``.
        measured: The value, in ``unit``.
        unit: ``x`` for a quotient, otherwise the unit of both values.
        target: The largest value that is good enough; None: shown for information.
        n: How many samples stand behind it.
        detail: The values it was computed from.
    """

    name: str
    measured: float
    unit: str
    target: float | None
    n: int
    detail: str = ""

    @property
    def is_missed(self) -> bool:
        """Whether the value is beyond its target."""
        return self.target is not None and self.measured > self.target


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the value that ``percent`` of the samples do not exceed (1 to 99)."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]
