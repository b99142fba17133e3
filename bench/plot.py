"""Draws the results of the benchmarks: ``python -m bench.plot FIGURES.json FOLDER``.

``performance.svg``: the time from event to response, as the caller sees it.
``choosing.svg``: the same for each way to serve events, with its CPU time and memory.
Reads the JSON of ``python -m bench -o json``; needs the
dependency group ``plot``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

LABELS = {
    "poller": "one long-lived process\nthat polls by itself",
    "ready": "a fresh process, waiting\n(ready, the default)",
    "off": "a fresh process, started\nwhen the event arrives (off)",
}
COLOURS = ("#9aa5b1", "#0b7285", "#e8590c")
WAYS = {
    "off": "fresh, off",
    "background": "fresh, background",
    "ready": "fresh, ready",
    "reuse": "fresh, reuse",
    "server": "server",
    "poller": "a process that\npolls by itself",
}
PANELS = (
    ("latency: {}, p50", "event to response, ms"),
    ("ways: {}, CPU per event", "CPU time per event, ms"),
    ("ways: {}, memory", "memory while it waits, MiB"),
)


def main() -> None:
    """Draw the figures."""
    source, folder = (Path(argument) for argument in sys.argv[1:3])
    measured = {
        figure["name"]: figure["measured"] for figure in json.loads(source.read_text())
    }
    mpl.rcParams["svg.hashsalt"] = "lambda-deno-spawn"  # for reproducible files
    _draw_performance(measured, folder / "performance.svg")
    _draw_choosing(measured, folder / "choosing.svg")


def _draw_performance(measured: Mapping[str, float], target: Path) -> None:
    values_ms = [measured[f"latency: {name}, p50"] for name in LABELS]
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    texts = [f"{value:.2f} ms" for value in values_ms]
    _bars(axes, list(LABELS.values()), values_ms, texts, COLOURS)
    axes.invert_yaxis()
    axes.set_xlabel("event to response, median, environment frozen in between")
    figure.savefig(target, metadata={"Date": None})


def _draw_choosing(measured: Mapping[str, float], target: Path) -> None:
    figure, panels = plt.subplots(
        1, len(PANELS), figsize=(10, 3.0), layout="constrained", sharey=True
    )
    colours = [COLOURS[0] if name == "poller" else COLOURS[1] for name in WAYS]
    for axes, (figure_name, title) in zip(panels, PANELS, strict=True):
        values = [measured[figure_name.format(name)] for name in WAYS]
        texts = [f"{value:.3g}" for value in values]
        _bars(axes, list(WAYS.values()), values, texts, colours)
        axes.set_xlabel(title)
    panels[0].invert_yaxis()  # one legend, as all parts share it
    figure.savefig(target, metadata={"Date": None})


def _bars(
    axes: Axes,
    labels: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    colours: Sequence[str],
) -> None:
    bars = axes.barh(labels, values, color=colours, height=0.62)
    axes.bar_label(bars, labels=texts, padding=4)
    axes.set_xlim(0, max(values) * 1.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
