"""What a long run has found, as a table and as JSON."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

# The first ones say what is wrong; a run that goes wrong produces thousands.
VIOLATIONS_LIMIT = 50


@dataclass(slots=True)
class Report:
    """Figures of one run.

    Attributes:
        name: Which run.
        seed: Repeats it, together with ``start``.
        start: Number of the first case.
        count: How many cases there were.
        kinds: For each kind of case how often it came out how.
        growth: What the supervisor held: at the start, at the baseline, at the end.
        facts: What it was run in.
        figures: Whatever else was measured.
        notes: What could not be tried here, and why.
        violations: What must not happen and did; empty if the run has passed.
        elapsed_s: How long it took.
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
        """Count one case."""
        self.count += 1
        self.also(kind, outcome)

    def also(self, kind: str, outcome: str) -> None:
        """Count a case that was counted, under another heading."""
        self.kinds.setdefault(kind, Counter())[outcome] += 1

    def violate(self, text: str) -> None:
        """Keep what went wrong."""
        if len(self.violations) < VIOLATIONS_LIMIT:
            self.violations.append(text)

    def finish(self) -> Report:
        """Stop the clock."""
        self.elapsed_s = time.monotonic() - self._begun_s
        return self

    def as_json(self) -> dict[str, Any]:
        """Return what ``-o json`` prints."""
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
        """Return what is printed on a terminal."""
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
