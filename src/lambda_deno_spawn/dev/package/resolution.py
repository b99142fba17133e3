"""Modules that the bundler takes for others than Deno does.

It takes two files for one whose paths differ only in case, and prefers the ``module``
of a package to its ``main``, also where what they export differs. Does not know how a
bundle is made, nor what follows from a doubt. Specification: esbuild's documentation,
"Main fields"; Node.js documentation, "Package entry points".
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.package.bundle import NPM_PATH
from lambda_deno_spawn.dev.package.doubts import Doubt, Level
from lambda_deno_spawn.dev.package.graph import node_file, read_text
from lambda_deno_spawn.dev.package.node_modules import FOLDER, package_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HAS_DEFAULT = re.compile(r"\bexport\s+default\b|\bas\s+default\b")
# A default import of CommonJS is `module.exports`, not this.
SETS_DEFAULT = re.compile(r"\bexports(?:\.default|\[[\"']default[\"']\])\s*=")
SETS_ALL = re.compile(r"\bmodule\.exports\s*=")


def mistaken(
    own: Iterable[Path], inputs: Iterable[Path], task_root: Path
) -> Iterator[Doubt]:
    """Yield doubts about modules in a bundle of all.

    Args:
        own: Files of the project in the bundle.
        inputs: All files in it.
        task_root: The project's folder.
    """
    names: dict[Path, list[str]] = {}
    for file in sorted(own):
        # A source map of a module may name sources that are not there.
        if FOLDER in file.relative_to(task_root).parts or not file.is_file():
            continue
        if other := _twin(file, task_root, names):
            name = file.relative_to(task_root).as_posix()
            reason = f"has a path that differs from {other!r} only in case"
            yield Doubt(name, reason, Level.NOTHING)
    inputs = set(inputs)
    for folder in sorted(filter(None, set(map(_package, inputs)))):
        if package := _with_other_default(folder, inputs):
            reason = "exports another default from its `module` than from its `main`"
            yield Doubt(package, reason, Level.OWN)


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


def _with_other_default(folder: Path, inputs: set[Path]) -> str | None:
    """Return the name of a package if a bundle has another default export of it."""
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
    if file not in inputs or other is None or not HAS_DEFAULT.search(read_text(file)):
        return None
    text = read_text(other)
    differs = SETS_DEFAULT.search(text) and not SETS_ALL.search(text)
    return name if differs else None
