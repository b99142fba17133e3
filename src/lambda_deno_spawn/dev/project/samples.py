"""Sample events by name, and values that are set in an event.

Knows the events that AWS's services send, each as a file in ``samples/``, and how a
path names a value in an event. Never uses the network. Specification: docs/project.md,
"Sample events"; AWS Lambda Developer Guide, the page of each service.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES_FOLDER = Path(__file__).parent / "samples"
# A dot separates the words of a path, unless a backslash precedes it.
WORD = re.compile(r"((?:[^.\\]|\\.)*)(?:\.|$)")
ESCAPED = re.compile(r"\\(.)")


def sample_names() -> list[str]:
    """Return the names of all sample events, sorted."""
    return sorted(path.stem for path in SAMPLES_FOLDER.glob("*.json"))


def find_sample(name: str) -> bytes | None:
    """Return a sample event as JSON text; None: none has this name."""
    if name not in sample_names():
        return None
    return (SAMPLES_FOLDER / f"{name}.json").read_bytes()


def near_sample(name: str) -> str | None:
    """Return the name of a sample event that was probably meant."""
    return next(iter(difflib.get_close_matches(name, sample_names(), 1)), None)


def set_values(event: bytes, assignments: Sequence[str]) -> bytes:
    """Return an event with values set in it.

    Args:
        event: JSON text.
        assignments: Texts ``path=value``. A path has the names of members and the
            indexes of lists, separated by dots. Missing objects are created.

    Raises:
        UsageError: An assignment cannot be carried out.
    """
    if not assignments:
        return event
    value = json.loads(event)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        words = [ESCAPED.sub(r"\1", word) for word in _words(path)]
        if not equals or not all(words):
            raise UsageError(
                f"Cannot use --set {assignment!r}: expected PATH=VALUE, such as "
                "Records.0.body=hello"
            )
        value = _with(value, words, text, assignment)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogateescape"
    )


def _words(path: str) -> list[str]:
    words: list[str] = []
    end = 0
    while match := WORD.match(path, end):
        words.append(match[1])
        end = match.end()
        if end == len(path) and not match[0].endswith("."):
            break
    return words


def _with(value: Any, words: Sequence[str], text: str, assignment: str) -> Any:
    """Return a value with the part that some words name replaced by a text's value."""
    if not words:
        return _typed(text, value)
    word, *rest = words
    match value:
        case dict():
            return {**value, word: _with(value.get(word), rest, text, assignment)}
        case None:
            return {word: _with(None, rest, text, assignment)}
        case list() if word.isascii() and word.isdecimal() and int(word) <= len(value):
            index = int(word)
            before = value[index] if index < len(value) else None
            after = _with(before, rest, text, assignment)
            return [*value[:index], after, *value[index + 1 :]]
        case list():
            state = (
                f"there is a list of {len(value)}, in which {word!r} is not an index"
            )
        case _:
            state = f"{word!r} would be a part of {json.dumps(value)[:40]}"
    raise UsageError(
        f"Cannot use --set {assignment!r}: {state}; look at the event with "
        "`lambda-deno-spawn events NAME`"
    )


def _typed(text: str, before: Any) -> Any:
    """Return a text's value: text in place of text, else JSON if it is that."""
    if isinstance(before, str):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
