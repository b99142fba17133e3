"""Modules that the bundler takes for others than Deno does.

It takes two files for one whose paths differ only in case, and prefers the ``module``
of a package to its ``main``, also for ``require``, and where what they export differs.
Does not know how a bundle is made, nor what follows from a doubt. Specification:
esbuild's documentation, "Main fields"; Node.js documentation, "Package entry points".
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.package.bundle import NPM_PATH, name_of
from lambda_deno_spawn.dev.package.doubts import Doubt, Level, Part
from lambda_deno_spawn.dev.package.graph import node_file, read_text
from lambda_deno_spawn.dev.package.node_modules import FOLDER, package_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lambda_deno_spawn.dev.package.bundle import Bundle

HAS_DEFAULT = re.compile(
    r"\bexport\s+default\b|\bas\s+default\b|\bexport\s*\{[^}]*\bdefault\b"
)
MODULE_TYPE = re.compile(r'"type"\s*:\s*"module"')
# A default import of CommonJS is `module.exports`, not this.
SETS_DEFAULT = re.compile(r"\bexports(?:\.default|\[[\"']default[\"']\])\s*=")
SETS_ALL = re.compile(r"\bmodule\.exports\s*=")
# Compiled from an ES module: `require` returns what a bundle makes of one, too.
IS_COMPILED = "__esModule"
# An ES module that something requires, as esbuild writes it.
WRAPPED = re.compile(r"^var (init_[\w$]+) = __esm\(", re.MULTILINE)
RUN = re.compile(r"(?<![\w$.])(init_[\w$]+)\(\)")
REQUIRED = re.compile(
    r"(?:(?:\{(?P<taken>[\w$\s:,]*)\}|(?:var|const|let) (?P<whole>[\w$]+)) = )?"
    r"\((?P<name>init_[\w$]+)\(\), __toCommonJS\([\w$]+\)\)(?:\.(?P<member>[\w$]+))?"
)
# What it exports, as esbuild lists it.
EXPORTED = re.compile(r"^  ([\w$]+): \(\) =>", re.MULTILINE)
OTHER_DEFAULT = "exports another default from its `module` than from its `main`"
OTHER_MODULE = "is required, and exports something else from its `module` than `main`"


class _Use(NamedTuple):
    """Whether a bundle imports an ES module, and whether it requires it as a whole.

    If only exports by their names are required, ``require`` may return another object.
    """

    is_imported: bool
    is_required: bool


def mistaken(bundled: Bundle, task_root: Path, folder: Path) -> Iterator[Doubt]:
    """Yield doubts about modules in a bundle of all.

    Args:
        bundled: The bundle.
        task_root: The project's folder.
        folder: The handler's folder.
    """
    names: dict[Path, list[str]] = {}
    for file in sorted(bundled.files):
        # A source map of a module may name sources that are not there.
        if FOLDER in file.relative_to(task_root).parts or not file.is_file():
            continue
        if other := _twin(file, task_root, names):
            name = file.relative_to(task_root).as_posix()
            reason = f"has a path that differs from {other!r} only in case"
            yield Doubt(name, reason, Level.NOTHING)
    uses = _uses(bundled.modules)
    judged: set[Path] = set()
    for package in sorted(filter(None, set(map(_package, bundled.inputs)))):
        fields = _fields(package)
        if fields is None or fields.module not in bundled.inputs:
            continue
        judged.add(fields.module)
        name = name_of(str(fields.module), task_root, folder)
        use = uses.get(name, _Use(is_imported=True, is_required=False))
        if difference := _difference(fields, use):
            yield Doubt(fields.name, difference, Level.OWN)
    required = {name for name, use in uses.items() if use.is_required}
    for file in sorted(bundled.inputs - judged) if required else ():
        if name_of(str(file), task_root, folder) in required and _is_nested(file):
            path = Part(name_of(str(file), task_root, folder), "").package_path
            yield Doubt(path or file.name, OTHER_MODULE, Level.OWN)


def _uses(modules: Sequence[Part]) -> dict[str, _Use]:
    """Return how those ES modules are used that are not only imported, by names."""
    run, required = Counter[str](), defaultdict[str, list[frozenset[str]]](list)
    for part in modules:
        if "init_" in part.text:
            run.update(RUN.findall(part.text))
            for found in REQUIRED.finditer(part.text):
                required[found["name"]].append(_taken(found, part.text))
    uses = {}
    for part in modules if required else ():
        wrapped = WRAPPED.search(part.text)
        if wrapped and (name := wrapped[1]) in required:
            exported = set(EXPORTED.findall(part.text))
            is_whole = not all(names and names <= exported for names in required[name])
            uses[part.name] = _Use(run[name] > len(required[name]), is_whole)
    return uses


def _taken(found: re.Match[str], text: str) -> frozenset[str]:
    """Return which exports are used of what is required; empty: perhaps all."""
    if found["member"]:
        return frozenset([found["member"]])
    if whole := found["whole"]:
        used = rf"(?<![\w$.]){re.escape(whole)}(?![\w$])(?:\.([\w$]+))?"
        members = re.findall(used, text[: found.start()] + text[found.end() :])
        return frozenset(members) if all(members) else frozenset()
    taken = (found["taken"] or "").split(",")
    return frozenset(one.partition(":")[0].strip() for one in taken if one.strip())


class _Fields(NamedTuple):
    """The two files of a package that may be the one that its name stands for."""

    name: str
    module: Path
    main: Path


def _fields(folder: Path) -> _Fields | None:
    """Return them; None: there is one at most."""
    text = read_text(folder / "package.json")
    if '"module"' not in text or '"exports"' in text:
        return None
    try:
        manifest = json.loads(text)
        module, main = str(manifest["module"]), str(manifest.get("main", "index.js"))
        name = str(manifest["name"])
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
    file, other = node_file(folder / module), node_file(folder / main)
    return None if file is None or other is None else _Fields(name, file, other)


def _difference(fields: _Fields, use: _Use) -> str | None:
    """Return why a bundle has other exports of a package, None if it has the same."""
    if not HAS_DEFAULT.search(read_text(fields.module)):
        return None
    text = read_text(fields.main)
    replaces = SETS_ALL.search(text) is not None
    if use.is_imported and SETS_DEFAULT.search(text) and not replaces:
        return OTHER_DEFAULT
    if use.is_required and (replaces or IS_COMPILED not in text):
        return OTHER_MODULE
    return None


def _is_nested(file: Path) -> bool:
    """Return whether it is a `module` for a folder of a package.

    Otherwise Node.js would take it for CommonJS where it is required.
    """
    package = _package(file)
    if package is None or file.suffix != ".js":
        return False
    for folder in file.parents:
        if (manifest := folder / "package.json").is_file():
            if MODULE_TYPE.search(read_text(manifest)):
                return False
            break
        if folder == package:
            break
    return HAS_DEFAULT.search(read_text(file)) is not None


def _twin(file: Path, root: Path, names: dict[Path, list[str]]) -> str | None:
    """Return a path that a file would have, too, if case did not count.

    Args:
        file: The file.
        root: The project's folder.
        names: Names in folders, as far as they are known.
    """
    for path in (file, *file.parents):
        if path == root:
            break
        if path.parent not in names:
            names[path.parent] = [entry.name for entry in os.scandir(path.parent)]
        for name in names[path.parent]:
            if name != path.name and name.lower() == path.name.lower():
                return (path.parent / name).relative_to(root).as_posix()
    return None


def _package(file: Path) -> Path | None:
    if found := NPM_PATH.fullmatch(str(file)):
        inner = found[1].split("/")
        return file.parents[len(inner) - (3 if found[1].startswith("@") else 2) - 1]
    return package_folder(file) if FOLDER in file.parts else None
