"""Results of a long run, as a table and as JSON."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

# The first ones are enough: a failing run produces thousands.
VIOLATIONS_LIMIT = 50


@dataclass(slots=True)
class Report:
    """Results of one run.

    Attributes:
        name: Name of the run.
        seed: Reproduces the run, together with ``start``.
        start: Number of the first case.
        count: Number of cases.
        kinds: Number of each outcome, by kind of case.
        growth: Resources of the supervisor: at the start, at the baseline, at the end.
        facts: Properties of the environment.
        figures: Other measurements.
        notes: Cases that could not be run here, and why.
        violations: Violated conditions; empty if the run has passed.
        elapsed_s: Duration of the run.
    """

    name: str
    seed: int
    start: int = 0
    count: int = 0
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    growth: dict[str, dict[str, int]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    _begun_s: float = field(default_factory=time.monotonic)

    def add(self, kind: str, outcome: str) -> None:
        """Count a case."""
        self.count += 1
        self.also(kind, outcome)

    def also(self, kind: str, outcome: str) -> None:
        """Count a case under another outcome than before."""
        self.kinds.setdefault(kind, Counter())[outcome] += 1

    def violate(self, text: str) -> None:
        """Record a violation."""
        if len(self.violations) < VIOLATIONS_LIMIT:
            self.violations.append(text)

    def finish(self) -> Report:
        """Record the duration."""
        self.elapsed_s = time.monotonic() - self._begun_s
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the output of ``-o json``."""
        return {
            "name": self.name,
            "seed": self.seed,
            "start": self.start,
            "count": self.count,
            "elapsed_s": round(self.elapsed_s, 1),
            "kinds": {kind: dict(self.kinds[kind]) for kind in sorted(self.kinds)},
            "growth": self.growth,
            "facts": self.facts,
            "figures": self.figures,
            "notes": self.notes,
            "violations": self.violations,
        }

    def tables(self) -> list[Table]:
        """Return the output for a terminal."""
        title = f"{self.name}: {self.count} cases, seed {self.seed}"
        kinds = Table("kind", "count", "outcomes", title=title)
        for kind, outcomes in sorted(self.kinds.items()):
            text = ", ".join(f"{name} * {n}" for name, n in outcomes.most_common())
            kinds.add_row(kind, str(outcomes.total()), text)
        tables = [kinds]
        if self.growth:
            columns = list(next(iter(self.growth.values())))
            growth = Table("", *columns, title="held by the supervisor")
            for when, values in self.growth.items():
                growth.add_row(when, *(str(values[name]) for name in columns))
            tables.append(growth)
        if self.facts or self.figures:
            facts = Table("", "", title="run in", show_header=False)
            for name, text in self.facts.items():
                facts.add_row(name, text)
            for name, number in self.figures.items():
                facts.add_row(name, f"{number:,}")
            tables.append(facts)
        return tables
