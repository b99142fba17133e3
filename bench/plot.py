"""Draws the results of the benchmarks: ``python -m bench.plot FIGURES.json FOLDER``.

``performance.svg``: the time from event to response, as the caller sees it.
``choosing.svg``: the same for each way to serve events, with its CPU time and memory.
Reads the JSON of ``python -m bench -o json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.bench.picture import (
    CONTRAST,
    OURS,
    THEIRS,
    Panel,
    Row,
    bars,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS = {
    "poller": Row("one long-lived process that polls by itself", THEIRS),
    "ready": Row("a fresh process, waiting (ready, the default)", OURS),
    "fork": Row("a fresh process, copied and waiting (fork)", OURS),
    "off": Row("a fresh process, started at the event (off)", CONTRAST),
}
WAYS = {
    "off": Row("fresh, off"),
    "background": Row("fresh, background"),
    "ready": Row("fresh, ready"),
    "fork": Row("fresh, fork"),
    "reuse": Row("fresh, reuse"),
    "server": Row("server"),
    "poller": Row("a process that polls by itself", THEIRS),
}
PANELS = (
    ("latency: {}, p50", "event to response, ms"),
    ("ways: {}, CPU per event", "CPU time per event, ms"),
    ("ways: {}, memory", "memory while it waits, MiB"),
)
WIDE = 420


def main() -> None:
    """Draw the figures."""
    source, folder = (Path(argument) for argument in sys.argv[1:3])
    measured = {
        figure["name"]: figure["measured"] for figure in json.loads(source.read_text())
    }
    (folder / "performance.svg").write_text(performance(measured), encoding="utf-8")
    (folder / "choosing.svg").write_text(choosing(measured), encoding="utf-8")


def performance(measured: Mapping[str, float]) -> str:
    """Draw the latency of the ways that this run has."""
    names = {name: f"latency: {name}, p50" for name in ROWS}
    values = {
        name: measured[figure] for name, figure in names.items() if figure in measured
    }
    panel = Panel(
        "event to response, median, environment frozen in between",
        list(values.values()),
        [f"{value:.2f} ms" for value in values.values()],
    )
    return bars([ROWS[name] for name in values], [panel], panel_width=WIDE)


def choosing(measured: Mapping[str, float]) -> str:
    """Draw latency, CPU time and memory of the ways that this run has."""
    names = [name for name in WAYS if PANELS[0][0].format(name) in measured]
    panels = []
    for figure, title in PANELS:
        values = [measured[figure.format(name)] for name in names]
        panels.append(Panel(title, values, [f"{value:.3g}" for value in values]))
    return bars([WAYS[name] for name in names], panels)


if __name__ == "__main__":
    main()
