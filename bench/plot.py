"""Draws what the benchmarks measured: ``python -m bench.plot FIGURES.json OUT.svg``.

One panel, bars for the time from event to response, because that is what a caller
feels. Reads the JSON of ``python -m bench -o json``; needs the dependency group
``plot``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

LABELS = {
    "latency: poller, p50": "one long-lived process\nthat polls by itself",
    "latency: ready, p50": "a fresh process, waiting\n(ready, the default)",
    "latency: off, p50": "a fresh process, started\nwhen the event arrives (off)",
}
COLOURS = ("#9aa5b1", "#0b7285", "#e8590c")


def main() -> None:
    """Draw the figure."""
    source, target = (Path(argument) for argument in sys.argv[1:3])
    figures = {figure["name"]: figure for figure in json.loads(source.read_text())}
    values_ms = [figures[name]["measured"] for name in LABELS]
    mpl.rcParams["svg.hashsalt"] = "lambda-deno-spawn"  # the same bytes twice
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    bars = axes.barh(list(LABELS.values()), values_ms, color=COLOURS, height=0.62)
    axes.bar_label(bars, labels=[f"{value:.2f} ms" for value in values_ms], padding=5)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values_ms) * 1.15)
    axes.set_xlabel("event to response, median, environment frozen in between")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
