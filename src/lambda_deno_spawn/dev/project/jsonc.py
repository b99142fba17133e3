"""JSON with comments: its value, and additions that leave the rest of the text alone.

Knows comments, trailing commas and the layout of a text, so that an addition looks like
what is around it. Does not know any file. Specification: RFC 8259; Deno manual,
"deno.json"; the text of ``deno.jsonc`` and of VS Code's settings has the same form.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRIVIA = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
SCALAR = re.compile(r'"(?:[^"\\\n]|\\.)*"|[-+.\w]+')
DEFAULT_INDENT = "  "
DEPTH_LIMIT = 200
LINE_WIDTH = 80  # that of `deno fmt`


class JsoncError(ValueError):
    """The text is not JSON with comments; the message has line and column."""


@dataclass(slots=True)
class _Node:
    """A value, and where its text is.

    Attributes:
        end: Offset behind its last character.
        children: Members of an object, or elements of a list under their indexes.
        ends: Offset behind the last child; None: there is no child.
        comma: Offset of a comma behind the last child; None: there is none.
        spans: Where each child begins, with its name, and where it ends.
    """

    value: Any
    start: int
    end: int
    children: dict[str | int, _Node] = field(default_factory=dict)
    ends: int | None = None
    comma: int | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)


def parse(text: str) -> Any:
    """Return the value of a text.

    Raises:
        JsoncError: It is malformed.
    """
    return _parse(text).value


def add_members(text: str, path: Sequence[str], members: Mapping[str, Any]) -> str:
    """Return the text with further members in an object.

    Args:
        text: JSON with comments.
        path: Names that lead to the object; objects that are missing are created.
        members: Names that the object does not have yet, and their values.

    Raises:
        JsoncError: The text is malformed, or there is something else than an object.
    """
    node = _parse(text)
    for depth, name in enumerate(path):
        _expect(text, node, dict, path[:depth])
        if name not in node.children:
            added: Any = dict(members)
            for missing in reversed(path[depth + 1 :]):
                added = {missing: added}
            return _insert(text, path[:depth], [(name, added)])
        node = node.children[name]
    _expect(text, node, dict, path)
    return _insert(text, path, list(members.items()))


def add_elements(text: str, path: Sequence[str], elements: Sequence[Any]) -> str:
    """Return the text with further elements at the end of a list.

    Args:
        text: JSON with comments.
        path: Names that lead to the list, which is created if it is missing.
        elements: Values.

    Raises:
        JsoncError: The text is malformed, or there is something else than a list.
    """
    node = _parse(text)
    for depth, name in enumerate(path):
        _expect(text, node, dict, path[:depth])
        if name not in node.children:
            *parents, last = path
            return add_members(text, parents, {last: list(elements)})
        node = node.children[name]
    _expect(text, node, list, path)
    return _insert(text, path, [(None, element) for element in elements])


def _at(text: str, path: Sequence[str]) -> _Node:
    node = _parse(text)
    for name in path:
        node = node.children[name]
    return node


def _expect(text: str, node: _Node, kind: type, path: Sequence[str]) -> None:
    if not isinstance(node.value, kind):
        wanted = "an object" if kind is dict else "a list"
        place = ".".join(path) or "the text"
        _fail(text, node.start, f"{place} is not {wanted}")


def _insert(text: str, path: Sequence[str], added: list[tuple[str | None, Any]]) -> str:
    node = _at(text, path)
    inside = text[node.start + 1 : node.end - 1]
    if "\n" in inside or not node.spans:
        return _insert_lines(text, node, added)
    # It is on one line, such as `{ "a": 1 }`, and stays there if there is room.
    comma = "," if node.comma is None else ""
    words = ", ".join(_written(name, value) for name, value in added)
    place = node.start + 1 + len(inside.rstrip())
    longer = f"{text[:place]}{comma} {words}{text[place:]}"
    line = longer[longer.rfind("\n", 0, place) + 1 :].partition("\n")[0]
    if len(line) <= LINE_WIDTH or "/*" in inside:
        return longer
    newline, inner = _newline(text), _indent_at(text, node.start) + _unit(text)
    children = f",{newline}{inner}".join(text[a:b] for a, b in node.spans)
    outer = _indent_at(text, node.start)
    head = f"{text[: node.start + 1]}{newline}{inner}"
    broken = f"{head}{children}{newline}{outer}{text[node.end - 1 :]}"
    return _insert_lines(broken, _at(broken, path), added)


def _insert_lines(text: str, node: _Node, added: list[tuple[str | None, Any]]) -> str:
    newline, unit = _newline(text), _unit(text)
    close = node.end - 1
    inside = text[node.start + 1 : close]
    outer = _indent_at(text, close if "\n" in inside else node.start)
    inner = outer + unit
    if node.spans:
        inner = _indent_at(text, node.spans[0][0], only_first=True) or inner
    lead = newline + inner
    lines = f",{lead}".join(
        _written(name, value, unit).replace("\n", lead) for name, value in added
    )
    # Behind the last comment, which belongs to what precedes it.
    place = node.start + 1 + len(inside.rstrip())
    tail = text[place:close] if "\n" in text[place:close] else newline + outer
    head = text[:place]
    if node.comma is not None:
        lines += ","
    elif node.ends is not None:
        head = text[: node.ends] + "," + text[node.ends : place]
    return head + lead + lines + tail + text[close:]


def _written(name: str | None, value: Any, unit: str | None = None) -> str:
    """Return the text of a member, or of an element, on one line without a unit."""
    text = json.dumps(value, ensure_ascii=False, indent=unit)
    return text if name is None else f"{json.dumps(name, ensure_ascii=False)}: {text}"


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _unit(text: str) -> str:
    """Return what one level of a text is indented by."""
    found = re.search(r'\n([ \t]+)["\]}]', text)
    return found[1] if found else DEFAULT_INDENT


def _indent_at(text: str, place: int, *, only_first: bool = False) -> str:
    """Return the indentation of the line with an offset.

    Args:
        text: The text.
        place: The offset.
        only_first: Return nothing if something else precedes it on its line.
    """
    line = text[text.rfind("\n", 0, place) + 1 : place]
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return "" if only_first and indent != line else indent


def _parse(text: str) -> _Node:
    node = _value(text, _skip(text, 0), 0)
    end = _skip(text, node.end)
    if end != len(text):
        _fail(text, end, "there is something behind the value")
    return node


def _value(text: str, place: int, depth: int) -> _Node:
    if depth > DEPTH_LIMIT:
        _fail(text, place, f"there are more than {DEPTH_LIMIT} levels")
    start = text[place : place + 1]
    if start == "{":
        return _container(text, place, depth, "}")
    if start == "[":
        return _container(text, place, depth, "]")
    return _scalar(text, place)


def _scalar(text: str, place: int) -> _Node:
    found = SCALAR.match(text, place)
    if found is None:
        _fail(text, place, "a value is missing")
    try:
        value = json.loads(found[0], parse_constant=_no_constant)
    except ValueError:
        _fail(text, place, f"{found[0][:40]!r} is not a value")
    return _Node(value, place, found.end())


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _container(text: str, start: int, depth: int, close: str) -> _Node:
    is_object = close == "}"
    node = _Node({} if is_object else [], start, start + 1)
    place = _skip(text, start + 1)
    while text[place : place + 1] != close:
        if place == len(text):
            _fail(text, start, f"{text[start]!r} is never closed")
        if node.ends is not None and node.comma is None:
            _fail(text, place, "a comma is missing")
        begin = place
        key: str | int = len(node.children)
        if is_object:
            name = _scalar(text, place)
            if not isinstance(name.value, str):
                _fail(text, place, "the name of a member is not in double quotes")
            key = name.value
            place = _skip(text, name.end)
            if text[place : place + 1] != ":":
                _fail(text, place, f"a colon is missing behind {key!r}")
            place = _skip(text, place + 1)
        child = _value(text, place, depth + 1)
        node.children[key] = child
        if is_object:
            node.value[key] = child.value
        else:
            node.value.append(child.value)
        node.spans.append((begin, child.end))
        node.ends, node.comma = child.end, None
        place = _skip(text, child.end)
        if text[place : place + 1] == ",":
            node.comma = place
            place = _skip(text, place + 1)
    node.end = place + 1
    return node


def _skip(text: str, place: int) -> int:
    """Return where what follows white space and comments begins."""
    found = TRIVIA.match(text, place)
    assert found is not None  # it matches nothing, too
    if text.startswith("/*", found.end()):
        _fail(text, found.end(), "a comment is never closed")
    return found.end()


def _fail(text: str, place: int, problem: str) -> NoReturn:
    line = text.count("\n", 0, place) + 1
    column = place - (text.rfind("\n", 0, place) + 1) + 1
    raise JsoncError(f"line {line}, column {column}: {problem}")
