"""The names of classes in a bundle: those that the classes have in their modules.

esbuild gives a class that mentions itself a second name, which begins with ``_``, and
one of two classes with the same name a number. Programs see such names, above all as
the types of errors (``this.constructor.name``). Does not know how a bundle is made.
Specification: esbuild's documentation, "Keep names"; ECMA-262, "NamedEvaluation".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# As esbuild writes it, to the end of the line. All expressions here that search a whole
# text begin with a fixed one, as the search for that is ten times as fast.
CLASS = re.compile(r"class(?: ([\w$]+))?(?: extends [^\n]*)? \{\n")
ASSIGNED = re.compile(r"(?:var|let|const) ([\w$]+) = \Z")
CHANGED = re.compile(r"_.*|.*\d|.*_default")
NUMBER = re.compile(r"\d+\Z")
DEFAULT = "default"
ANONYMOUS = re.compile(r"export\s+default\s+class\s*(?:extends\b|\{)")
COMMENT = "\n// "  # above each module: its path
# Before the first module. A class may have a static member that is called "name".
HELPER = (
    "var lambdaName = (made, changed, name) => { "
    'const own = Object.getOwnPropertyDescriptor(made, "name"); '
    "if (own?.value === changed) "
    'Object.defineProperty(made, "name", { ...own, value: name }); };\n'
)


def with_class_names(text: str, source_of: Callable[[str], str | None]) -> str:
    """Return a bundle in which classes have their own names again.

    No line of it begins or ends elsewhere, so that its source map stays right.

    Args:
        text: The bundle, not minified; returned itself if nothing is to be changed.
        source_of: Returns the source of a module from the comment above it; None if
            it is not known, or a comment is not the path of a module.
    """
    pieces, end = [], 1
    lines = f"\n{text}"
    for found in CLASS.finditer(lines):
        begin = found.start()
        line = lines[lines.rfind("\n", 0, begin) + 1 : begin]
        assigned = ASSIGNED.search(line)
        changed = found[1] or (assigned and assigned[1])
        if not changed or not CHANGED.fullmatch(changed):
            continue
        name = _name(changed, _source(lines, begin, source_of))
        if name is not None:
            pieces += [
                lines[end : found.end() - 1],
                f' static {{ lambdaName(this, "{changed}", "{name}"); }}',
            ]
            end = found.end() - 1
    return "".join([*pieces, lines[end:]]) if pieces else text


def _source(text: str, place: int, source_of: Callable[[str], str | None]) -> str:
    """Return the source of the module that is at a place in a bundle."""
    while (place := text.rfind(COMMENT, 0, place)) >= 0:
        begin = place + len(COMMENT)
        source = source_of(text[begin : text.index("\n", begin)])
        if source is not None:
            return source
    return ""


def _name(changed: str, source: str) -> str | None:
    """Return the name of a class in its module; None: it has not been changed."""
    if _has(source, changed):
        return None
    if changed.endswith(f"_{DEFAULT}") and ANONYMOUS.search(source):
        return DEFAULT
    plain = changed.removeprefix("_")
    for name in (plain, NUMBER.sub("", changed), NUMBER.sub("", plain)):
        if name and any(map(_has, (source,) * 3, _declarations(name))):
            return name
    return None


def _declarations(name: str) -> tuple[str, str, str]:
    return (f"class {name}", f"{name} = class", f"{name}=class")


def _has(source: str, words: str) -> bool:
    """Return whether a text has words, the last of which does not go on."""
    end = 0
    while (begin := source.find(words, end)) >= 0:
        end = begin + len(words)
        after = source[end : end + 1]
        if not (after.isalnum() or after in ("_", "$")):
            return True
    return False
