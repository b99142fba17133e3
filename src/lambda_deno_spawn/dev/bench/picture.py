"""Horizontal bars as SVG: some panels side by side, which share their rows.

Knows the geometry. Does not know what the bars mean. The same bars give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS, THEIRS, CONTRAST = "#0b7285", "#9aa5b1", "#e8590c"
INK, PAPER = "#212529", "#ffffff"
FONT = "system-ui, 'DejaVu Sans', sans-serif"
FONT_SIZE = 13
LETTER = 7.2  # width of an average letter at that size; fonts differ
ROW, BAR = 30, 18
PANEL, GAP, MARGIN = 210, 18, 12
TEXT_ROOM = 66  # right of the longest bar


@dataclass(frozen=True, slots=True)
class Row:
    """A row of every panel.

    Attributes:
        label: Left of the bars.
        colour: Of the bars.
    """

    label: str
    colour: str = OURS


@dataclass(frozen=True, slots=True)
class Panel:
    """One kind of figure.

    Attributes:
        title: Below the bars, with the unit.
        values: One for each row; None: there is none.
        texts: What is written at each bar.
    """

    title: str
    values: Sequence[float | None]
    texts: Sequence[str]


def bars(
    rows: Sequence[Row], panels: Sequence[Panel], *, panel_width: int = PANEL
) -> str:
    """Return a picture as the text of an SVG file."""
    legend = round(max(len(row.label) for row in rows) * LETTER) + MARGIN
    width = MARGIN + legend + len(panels) * (panel_width + GAP)
    height = MARGIN + len(rows) * ROW + ROW + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{escape(FONT, quote=False)}" '
        f'font-size="{FONT_SIZE}" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
    ]
    for number, row in enumerate(rows):
        parts.append(_text(MARGIN + legend - 8, _middle(number), row.label, "end"))
    for number, panel in enumerate(panels):
        left = MARGIN + legend + number * (panel_width + GAP)
        parts += _panel(left, rows, panel, panel_width)
    return "\n".join([*parts, "</svg>", ""])


def _panel(left: int, rows: Sequence[Row], panel: Panel, panel_width: int) -> list[str]:
    most = max((value for value in panel.values if value), default=1.0)
    bottom = MARGIN + len(rows) * ROW
    parts = [
        f'<path d="M{left} {MARGIN}V{bottom}H{left + panel_width}" fill="none" '
        f'stroke="{INK}"/>',
        _text(left, bottom + ROW - 8, panel.title, "start"),
    ]
    for number, (row, value, text) in enumerate(
        zip(rows, panel.values, panel.texts, strict=True)
    ):
        length = (value or 0.0) / most * (panel_width - TEXT_ROOM)
        if value is not None:
            top = MARGIN + number * ROW + (ROW - BAR) / 2
            parts.append(
                f'<rect x="{left}" y="{top:g}" width="{length:.1f}" height="{BAR}" '
                f'fill="{row.colour}"/>'
            )
        parts.append(_text(left + length + 6, _middle(number), text, "start"))
    return parts


def _middle(number: int) -> float:
    return MARGIN + number * ROW + ROW / 2 + FONT_SIZE / 3


def _text(x: float, y: float, text: str, anchor: str) -> str:
    shown = escape(text, quote=False)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'
