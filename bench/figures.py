"""The result of a benchmark: a measured value and its target.

Knows when a target is missed. Does not know how values are
measured or printed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        name: ``benchmark: subject``.
        measured: The value, in ``unit``.
        unit: ``x`` for a ratio, otherwise the unit of both values.
        target: The largest acceptable value; None: only for information.
        n: Number of samples.
        detail: The values that it was computed from.
    """

    name: str
    measured: float
    unit: str
    target: float | None
    n: int
    detail: str = ""

    @property
    def is_missed(self) -> bool:
        """True if the value exceeds its target."""
        return self.target is not None and self.measured > self.target
