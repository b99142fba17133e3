"""Reasons against bundling: things that a module loses as a part of one file.

Reads a bundle as esbuild writes it, module by module, and finds those that look for
files or other modules by a path. Does not know how a bundle is made, nor what follows
from a doubt. Specification: docs/build.md; esbuild's documentation, "Path comments".
"""

from __future__ import annotations

import os
import re
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

NODE_MODULES = "/node_modules/"
SOURCE_SUFFIXES = (".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs")
# Strings, regular expressions and comments, whose text is not code.
NOT_CODE = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<template>`(?:\\.|\$\{[^`{}]*\}|[^`\\])*`)"""
    r"""|//[^\n]*|/\*.*?\*/"""
    r"""|(?:(?<=[=(,:\[!&|?{};\n])|(?<=[=(,:\[!&|?{};]\ )|(?<=return\ ))"""
    r"""/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/""",
    re.DOTALL,
)
NATIVE_END = '.node"'
# Words without which a module cannot raise a doubt; to look for them is quick.
PLACES = ("__dirname", "__filename")
SUSPICIOUS = (
    *PLACES, "import.meta", "__require", "import(", "import (", "Worker(", NATIVE_END,
)  # fmt: skip
# A module is loaded by a name that the code states: nothing to look at more closely.
STATED = re.compile(r"""\b(?:__require|import)\("[^"\\\n]*"\)""")
# After a line feed, as a search for a fixed text is ten times as fast as one for "^".
COMMENT_LINE = re.compile(r"\n// ([^\n]*)")
URLS = ("`data:", "`node:", "`blob:", "`http:", "`https:")
EXPRESSION = re.compile(r"\$\{([^`{}]*)\}")
PLACE = re.compile(r"(?<![.\w$])__(?:dirname|filename)\b(?!\s*:)")
ASKS_FOR_PLACE = re.compile(r"typeof __(?:dirname|filename)\b[^;\n]*")
DECLARES_PLACE = re.compile(
    r"\b(?:const|let|var)\s[^;=]*\b__(?:dirname|filename)\b|\b__(?:dirname|filename)\s*="
)
OWN_PLACE = re.compile(r"\bimport\.meta\b(?!\s*\.\s*main\b)")
RESOLVES = re.compile(r"\bimport\.meta\.resolve\b|\b__require\.resolve\b")
MAKES_REQUIRE = re.compile(r"([\w$]+) = createRequire\w*\(import\.meta\.url\)")
OF_NODE = re.compile(r"[\"']node:")
# Data, which such a function finds from a bundle in the handler's folder.
FOUND_BESIDE_BUNDLE = re.compile(r"[\"'](?:node:|\.[^\"']*\.json[\"'])")
# esbuild's name for the function that loads a module the bundle does not contain.
COMPUTED_REQUIRE = re.compile(r"\b__require\((?!\"\")|= __require\b(?![.(\w])")
COMPUTED_IMPORT = re.compile(r"(?<![\w.$])import\s*\(\s*(?!\"\"|\s)")
NATIVE = re.compile(r"\"(?:file://)?/[^\"\n]*\.node\"")
STARTS_WORKER = re.compile(r"\bnew (?:\w+\.)?Worker\(")
# Not a key before a module's function, which esbuild writes.
NAMES_SOURCE = re.compile(
    r"""["'`]([^"'`\n]*\.(?:ts|tsx|mts|cts|js|jsx|mjs|cjs))["'`](?!\()"""
)
STRING = re.compile(r"""["'`]((?:\\.|[^"'`\\\n])*)["'`]""")
COMPUTED_PART = re.compile(r"\$\{[^}]*\}?|\*.*")
# Modules of packages that need something beside themselves only in one case: when the
# handler's own code says so. Empty: the code that needs it is for messages to people.
HARMLESS: Mapping[str, str] = {
    "express/lib/view.js": r"view engine|\.engine\(|\.render\(",
    "ioredis/built/Command.js": "",
    "ioredis/built/command.js": "",
    "moment/moment.js": r"\blocale",
    "mysql2/lib/helpers.js": "",
    "pino/lib/transport.js": r"\btransport",
    "thread-stream/index.js": r"\btransport",
}


class Level(IntEnum):
    """How much of a package can be one file."""

    ALL = 0
    OWN = 1  # the project's modules; npm packages stay as they are
    NOTHING = 2


class Doubt(NamedTuple):
    """A module that may not find something once it is bundled.

    Attributes:
        name: The module's stable name.
        reason: Its part of a sentence: what the module does.
        level: As much as can be bundled without the doubt.
        is_certain: It breaks, and not only in some cases.
    """

    name: str
    reason: str
    level: Level
    is_certain: bool = False

    def __str__(self) -> str:
        return f"{self.name!r} {self.reason}"


class Part(NamedTuple):
    """The code of one module in a bundle, with its stable name."""

    name: str
    text: str

    @property
    def package_path(self) -> str | None:
        """The path that begins with a package's name; None: not in an npm package."""
        if NODE_MODULES in f"/{self.name}":
            return f"/{self.name}".rpartition(NODE_MODULES)[2]
        return self.name.removeprefix("npm/") if self.name.startswith("npm/") else None


def parts(text: str, name_of: Callable[[str], str | None]) -> Iterator[Part]:
    """Yield the modules of a bundle that is not minified.

    Args:
        text: The bundle.
        name_of: Returns the stable name of a module from the comment above it; None if
            a comment is not the path of a module.
    """
    name: str | None = None
    begin = 0
    text = f"\n{text}"
    for comment in COMMENT_LINE.finditer(text):
        found = name_of(comment[1])
        if found is not None:
            if name is not None:
                yield Part(name, text[begin : comment.start()])
            name, begin = found, comment.end() + 1
    if name is not None:
        yield Part(name, text[begin:])


def comment_lines(text: str) -> set[str]:
    """Return the comments of a bundle that have a line to themselves."""
    return set(COMMENT_LINE.findall(f"\n{text}"))


def code_of(text: str) -> str:
    """Return JavaScript without comments and without the text of strings."""

    def kept(found: re.Match[str]) -> str:
        if found["string"] is not None:
            return '""'
        if (template := found["template"]) is not None:
            inside = "+".join(EXPRESSION.findall(template))
            return f"({inside})" if inside and not template.startswith(URLS) else '""'
        return " "

    return NOT_CODE.sub(kept, text)


def find_doubts(modules: Sequence[Part]) -> list[Doubt]:
    """Return the modules of a bundle that may not find something in it."""
    own = "\n".join(part.text for part in modules if part.package_path is None)
    found = []
    for part in modules:
        path = part.package_path
        if not _is_suspicious(part.text):
            continue
        if _is_native(part.text):
            level = Level.NOTHING if path is None else Level.OWN
            found.append(Doubt(path or part.name, "loads native code", level, True))
        elif path is None:
            found += _doubts_of_own(part)
        else:
            reason = _need_of_package(part)
            if reason and not _is_harmless(path, own):
                found.append(Doubt(path, reason, Level.OWN))
    return found


def _is_suspicious(text: str) -> bool:
    if not any(word in text for word in SUSPICIOUS):
        return False
    if _is_native(text):
        return True
    text = STATED.sub("", text)  # Node.js's modules, in most packages
    return any(word in text for word in SUSPICIOUS)


def _is_native(text: str) -> bool:
    return NATIVE_END in text and NATIVE.search(text) is not None


def _is_harmless(path: str, own: str) -> bool:
    names = path.split("/")
    scoped = 2 if names[0].startswith("@") else 1
    # The version, which is a part of the path if the package is in Deno's cache.
    is_versioned = len(names) > scoped and re.match(r"\d+\.\d", names[scoped])
    inner = [*names[:scoped], *names[scoped + (1 if is_versioned else 0) :]]
    case = HARMLESS.get("/".join(inner))
    return case is not None and not (case and re.search(case, own))


def _need_of_package(part: Part) -> str | None:
    """Return what a package's module does that a bundle changes."""
    code = code_of(part.text)
    if _uses_place(code):
        return "finds files by its own place"
    for made in _made_requires(code):
        if _requires_only(OF_NODE, made[1], part.text):
            code = code.replace(made[0], "")
    if RESOLVES.search(code):
        return "looks for other modules"
    if OWN_PLACE.search(code):
        return "finds files by its own place"
    if COMPUTED_REQUIRE.search(code) or COMPUTED_IMPORT.search(code):
        return "loads a module by a name known only at run time"
    return None


def needs_place(part: Part) -> bool:
    """Return whether a module needs CommonJS's variables that name its place."""
    is_named = any(place in part.text for place in PLACES)
    return is_named and _uses_place(code_of(part.text))


def _uses_place(code: str) -> bool:
    if not any(place in code for place in PLACES):
        return False
    code = ASKS_FOR_PLACE.sub("", code)
    return bool(PLACE.search(code)) and not DECLARES_PLACE.search(code)


def _made_requires(code: str) -> list[re.Match[str]]:
    if "createRequire" not in code:  # slow to find out otherwise
        return []
    return list(MAKES_REQUIRE.finditer(code))


def _requires_only(names: re.Pattern[str], function: str, text: str) -> bool:
    """Return whether a function that loads modules is called with some names only."""
    called = re.findall(rf"(?<![\w$.]){re.escape(function)}\(\s*([^)]*)\)", text)
    return all(names.match(argument) for argument in called)


def _doubts_of_own(part: Part) -> Iterator[Doubt]:
    code = code_of(part.text)
    name = part.name
    # Stable names are relative to the handler's folder.
    is_moved = "/" in name
    if STARTS_WORKER.search(code):
        yield Doubt(name, "starts a worker from another file", Level.NOTHING)
    elif RESOLVES.search(code):
        reason = "looks for other modules"
        yield Doubt(name, reason, Level.NOTHING, is_certain=is_moved)
    elif is_moved and OWN_PLACE.search(code):
        reason = (
            "uses import.meta, which would describe the bundle: files that it finds "
            "this way would be missing"
        )
        yield Doubt(name, reason, Level.NOTHING, is_certain=True)
    elif is_moved and _uses_place(code):
        reason = "uses __dirname or __filename, which are those of the bundle"
        yield Doubt(name, reason, Level.NOTHING, is_certain=True)
    elif (
        COMPUTED_REQUIRE.search(code)
        or COMPUTED_IMPORT.search(code)
        or not all(
            _requires_only(FOUND_BESIDE_BUNDLE, made[1], part.text)
            for made in _made_requires(code)
        )
    ):
        reason = "loads a module by a name known only at run time"
        yield Doubt(name, reason, Level.NOTHING)


def mentioned_folders(text: str, inner: str) -> set[str]:
    """Return the paths that strings of a module name, below the project's folder.

    Args:
        text: The module.
        inner: The module's folder below the project's.
    """
    found = set()
    for string in STRING.findall(text):
        for piece in COMPUTED_PART.split(string):
            path = os.path.normpath(piece.strip("/")) if piece.strip("/") else "."
            if path != ".":
                found |= {path, os.path.normpath(f"{inner}/{path}")}
    return found


def named_sources(text: str, folders: Sequence[str]) -> set[str]:
    """Return the existing source files that strings of a module name.

    Args:
        text: The module.
        folders: Folders that a relative name may begin in.
    """
    found = set()
    for name in set(NAMES_SOURCE.findall(text)):
        if "://" in name or name.startswith("/"):
            continue
        for folder in folders:
            path = os.path.normpath(f"{folder}/{name}")
            if Path(path).is_file():
                found.add(path)
                break
    return found
