"""Tables of Markdown, and the text of docstrings in them.

Knows how a cell is written, and the form of an ``Attributes:`` section. Does not know
any table.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)

NAMES = ("CloudWatch", "Lambda")


class ReferenceGapError(Exception):
    """The code has something that the reference does not describe, or vice versa."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """Return text that neither ends a cell nor a line."""
    return " ".join(text.split()).replace("|", "&#124;")


def code(text: object) -> str:
    """Return a value as code."""
    return f"`{text}`"


def attributes(kind: type) -> dict[str, str]:
    """Return the lines of a class's ``Attributes:``, without hints for callers.

    A hint is what a sentence ``None: …`` at the end says.
    """
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    found = {}
    for name, line in ATTRIBUTE.findall(text):
        joined = re.sub(r" None: .*$", "", " ".join(line.split()))
        found[name] = joined.replace("``", "`")
    return found


def phrase(sentence: str) -> str:
    """Return a sentence as it stands behind a colon."""
    first = sentence if sentence.startswith(NAMES) else sentence[:1].lower()
    return (first + sentence[len(first) :]).rstrip(".")


def complete(
    what: str, in_code: Iterable[str], described: Mapping[str, object]
) -> None:
    """Compare the names that the code has with those that are described.

    Raises:
        ReferenceGapError: A name lacks its description, or has been removed.
    """
    names = list(in_code)
    missing = [name for name in names if not described.get(name)]
    if missing:
        raise ReferenceGapError(f"no description of {what} {', '.join(missing)}")
    gone = [name for name in described if name not in names]
    if gone:
        raise ReferenceGapError(f"there is no {what} {', '.join(gone)}")
