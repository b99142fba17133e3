"""Draws terminal recordings: ``python docs/site/recording.py [NAME…]``.

Each recording runs real commands on a pseudo-terminal in an empty folder, keeps what
they print and when, and becomes one SVG in docs/recordings: text, no script, nothing
from elsewhere. Pauses longer than a second are shortened. Where a reader prefers no
motion, and in programs that do not animate, all lines are there from the start.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.style import Style

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "recordings"
LINE_PX, CHAR_PX, PADDING_PX = 19, 8.0, 18
COLUMNS = {"invoke": 100, "isolation": 150, "dev": 100}
PAUSE_LIMIT_S, TYPING_S = 1.0, 0.035
TITLES = {
    "invoke": "invoke: run a function as Lambda would",
    "isolation": "doctor --isolation: what the next event finds",
    "dev": "dev: an HTTP server, and the log beside the answer",
}
COMMANDS: dict[str, list[str]] = {
    "invoke": [
        "lambda-deno-spawn new orders --template http",
        "lambda-deno-spawn invoke orders --event @orders/events/hello.json",
    ],
    "isolation": ["lambda-deno-spawn doctor --isolation"],
    "dev": [
        "lambda-deno-spawn new orders --template http",
        "lambda-deno-spawn dev orders & sleep 2; curl -s localhost:3000/hello/Ada; "
        "echo; kill %1; wait",
    ],
}
# Lines of a long recording that are shown; the picture says how many are left out.
SHOWN = {"isolation": 30}
# Foreground colours that are readable on the background, by the names that rich uses.
COLORS = {
    "black": "#6e7681", "red": "#ff7b72", "green": "#7ee787", "yellow": "#e3b341",
    "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#e6edf3",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the terminal, and when it was complete in s from the start."""

    at_s: float
    text: Text


def record(commands: Sequence[str], columns: int) -> list[Line]:
    """Run commands one after another and return what a watcher would see."""
    lines: list[Line] = []
    now_s = 0.5
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            lines.append(Line(now_s, Text.assemble((f"$ {command}", "bold"))))
            now_s += TYPING_S * len(command)
            for pause_s, text in _run(command, folder, columns):
                now_s += min(pause_s, PAUSE_LIMIT_S)
                lines.append(Line(now_s, Text.from_ansi(text.expandtabs(2))))
            lines.append(Line(now_s, Text("")))
            now_s += PAUSE_LIMIT_S
    return lines


def _run(command: str, folder: str, columns: int) -> Iterator[tuple[float, str]]:
    master, slave = pty.openpty()
    environ = {
        **os.environ,
        "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        "HOME": folder,
        "COLUMNS": str(columns),
        "TERM": "xterm-256color",
    }
    shell = ["bash", "-c", command]
    process = subprocess.Popen(
        shell, cwd=folder, env=environ, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    last_s, pending = time.monotonic(), ""
    while True:
        if not select.select([master], [], [], 0.2)[0] and process.poll() is not None:
            break
        try:
            piece = os.read(master, 65536).decode(errors="replace")
        except OSError:  # the last writer has closed the terminal
            break
        pending += piece.replace(folder, "~")
        *whole, pending = pending.split("\r\n")
        for text in whole:
            now_s = time.monotonic()
            yield now_s - last_s, text
            last_s = now_s
    os.close(master)
    process.wait()


def _shortened(lines: list[Line], shown: int) -> list[Line]:
    if len(lines) <= shown:
        return lines
    last = lines[shown - 1]
    left_out = Text(f"  … {len(lines) - shown} more lines", style="dim")
    return [*lines[:shown], Line(last.at_s, left_out)]


def draw(lines: Sequence[Line], title: str, columns: int) -> str:
    """Return the recording as SVG."""
    rows = [row for line in lines for row in _wrapped(line, columns)]
    width = round(columns * CHAR_PX) + 2 * PADDING_PX
    top = 44
    height = top + len(rows) * LINE_PX + PADDING_PX
    end_s = rows[-1].at_s if rows else 0
    body = "\n".join(
        _row(row, top + (number + 1) * LINE_PX - 5) for number, row in enumerate(rows)
    )
    dots = "".join(
        f'<circle cx="{20 + 20 * n}" cy="20" r="6" fill="{color}"/>'
        for n, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" aria-label="{escape(title)}">
<title>{escape(title)}</title>
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", \
monospace; fill: #e6edf3; white-space: pre; }}
@media (prefers-reduced-motion: no-preference) {{
  g {{ animation: show 1ms both; }}
  @keyframes show {{ from {{ opacity: 0; }} to {{ opacity: 1; }} }}
}}
</style>
<!-- {end_s:.1f} s -->
<rect width="{width}" height="{height}" rx="9" fill="#0d1117"/>
{dots}
<text x="{width / 2:.0f}" y="25" text-anchor="middle" style="fill:#8b949e">\
{escape(title)}</text>
{body}
</svg>
"""


def _wrapped(line: Line, columns: int) -> Iterator[Line]:
    for start in range(0, max(len(line.text), 1), columns):
        yield Line(line.at_s, line.text[start : start + columns])


def _row(line: Line, y: int) -> str:
    spans = []
    column = 0
    for segment in line.text.render(_Plain()):
        text = segment.text.rstrip("\n")
        if text:
            # Each piece has its place and width, whatever font draws it.
            x = PADDING_PX + column * CHAR_PX
            spans.append(
                f'<tspan x="{x:g}" textLength="{len(text) * CHAR_PX:g}"'
                f"{_style(segment.style)}>{escape(text)}</tspan>"
            )
            column += len(text)
    if not spans:
        return ""
    text = f'<text y="{y}" xml:space="preserve">{"".join(spans)}</text>'
    return f'<g style="animation-delay:{line.at_s:.2f}s">{text}</g>'


def _style(style: Style | None) -> str:
    if style is None:
        return ""
    declarations = []
    if style.color is not None:
        name = re.sub(r"^bright_", "", style.color.name)
        declarations.append(f"fill:{COLORS.get(name, COLORS['white'])}")
    if style.bold:
        declarations.append("font-weight:bold")
    if style.dim:
        declarations.append("fill:#8b949e")
    return f' style="{";".join(declarations)}"' if declarations else ""


class _Plain:
    """Enough of a console for rich to split a text into styled pieces."""

    def get_style(self, name: object, default: object = None) -> Style:
        from rich.style import Style

        return name if isinstance(name, Style) else Style.parse(str(name))


def main(names: Sequence[str]) -> None:
    """Draw the named recordings, or all."""
    OUT.mkdir(exist_ok=True)
    for name in names or COMMANDS:
        lines = _shortened(
            record(COMMANDS[name], COLUMNS[name]), SHOWN.get(name, sys.maxsize)
        )
        text = draw(lines, TITLES[name], COLUMNS[name])
        (OUT / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
