"""The project's own modules, and what they import.

Knows ``deno info``, and where Node would find what ``require`` names: Deno's graph
resolves every name as ``import`` does. Does not know packages, nor what is done with
the modules. Specification: Deno manual, "deno info"; Node.js documentation, "CommonJS
modules", "All together".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lambda_deno_spawn.dev.package.doubts import SOURCE_SUFFIXES, named_sources
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import SLOPPY, config_flags, find_project
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_deno_spawn.dev.package.deno import Deno

NODE_MODULES = "/node_modules/"
SERVERS = ("http:", "https:", "jsr:")
# Beginnings of specifiers that do not name a package.
NO_PACKAGE = (".", "/", "#", "file:", "node:", "data:", "blob:", "bun:", *SERVERS)
REQUIRED_SUFFIXES = (".js", ".json", ".node", ".cjs", ".mjs", ".ts")
ROOTS = "lambda-deno-spawn-roots.mjs"
ROUNDS_LIMIT = 50  # modules that require one another without suffixes


@dataclass(slots=True)
class Graph:
    """The modules that a handler reaches.

    Attributes:
        own: Files of the project's modules, and of others that are not packages.
        packages: Names of packages, as the modules spell them.
        package_files: Files in ``node_modules`` that they import.
        npm: Packages in Deno's cache, as ``deno info`` describes them.
        servers: Modules on servers.
        missing: Modules that do not exist, by the file that may load them.
    """

    own: set[Path] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    package_files: set[Path] = field(default_factory=set)
    npm: dict[str, Any] = field(default_factory=dict)
    servers: set[str] = field(default_factory=set)
    missing: dict[str, Path] = field(default_factory=dict)

    def notes(self, task_root: Path) -> list[str]:
        """Return notes on modules that may be missing."""
        return [
            f"{os.path.relpath(file, task_root)!r} may load {name!r}, which does not "
            "exist"
            for name, file in sorted(self.missing.items())
        ]


def read_graph(deno: Deno, source: Path, scratch: Path) -> Graph:
    """Follow the imports of a handler's module, and of modules that it names in text.

    Args:
        deno: The project's Deno.
        source: The handler's module.
        scratch: Folder for a temporary file.

    Raises:
        BuildError: A module is missing or cannot be read.
    """
    graph = Graph()
    fresh = {source}
    for _ in range(ROUNDS_LIMIT):
        _add(graph, _info(deno, sorted(fresh), source, scratch), deno.task_root)
        graph.own |= fresh
        fresh = set()
        for file in sorted(graph.own):
            if file.name.endswith(SOURCE_SUFFIXES):
                folders = [str(file.parent), str(deno.task_root)]
                fresh |= {
                    Path(path) for path in named_sources(read_text(file), folders)
                }
        for name in list(graph.missing):
            if found := node_file(_path(name)):
                del graph.missing[name]
                fresh.add(found)
        fresh = {
            file
            for file in fresh - graph.own
            if file.is_relative_to(deno.task_root)
            and not _is_packaged(str(file), str(deno.task_root))
        }
        graph.own |= {file for file in fresh if not file.name.endswith(SOURCE_SUFFIXES)}
        fresh -= graph.own
        if not fresh:
            break
    return graph


def _info(deno: Deno, files: list[Path], source: Path, scratch: Path) -> dict[str, Any]:
    action = f"read the imports of {source.name!r}"
    root, flags = files[0], None
    if files != [source]:
        # Imported dynamically: one that lacks a module must not fail the others.
        root = scratch / ROOTS
        lines = [f'import("{file_url(file)}");\n' for file in files]
        root.write_text("".join(lines), "utf-8")
        # It is outside the project, where Deno would not find these files.
        task_root = deno.task_root
        flags = [*config_flags(find_project(task_root), task_root), SLOPPY]
    output = deno.run(action, ["info", "--json", file_url(root)], flags=flags)
    graph: dict[str, Any] = json.loads(output)
    errors = {m["specifier"]: m["error"] for m in graph["modules"] if "error" in m}
    for module in graph["modules"]:
        specifier = str(module["specifier"])
        if specifier == file_url(source) and specifier in errors:
            raise BuildError(f"Cannot {action}: {errors[specifier]}")
        for used in module.get("dependencies", ()):
            target = used.get("code", {}).get("specifier")
            if target in errors and not used.get("isDynamic"):
                raise BuildError(f"Cannot {action}: {errors[target]}")
    return graph


def _add(graph: Graph, info: dict[str, Any], task_root: Path) -> None:
    errors = {m["specifier"] for m in info["modules"] if "error" in m}
    root = file_url(task_root)
    graph.npm |= info.get("npmPackages", {})
    for module in info["modules"]:
        specifier = str(module["specifier"])
        if specifier.startswith(SERVERS):
            graph.servers.add(specifier)
            continue
        if not specifier.startswith("file:") or specifier in errors:
            continue
        file = Path(str(module.get("local") or _path(specifier)))
        if _is_packaged(specifier, root):
            graph.package_files.add(file)
            continue
        if file.name != ROOTS:
            graph.own.add(file)
        for name, target in _dependencies(module):
            if target.startswith("npm:") or (
                not name.startswith(NO_PACKAGE)
                and (_is_packaged(target, root) or target in errors or not target)
            ):
                graph.packages.add(name)
            elif target in errors and target.startswith("file:") and file.name != ROOTS:
                graph.missing[target] = file


def _is_packaged(path: str, root: str) -> bool:
    """Return whether a path leads into node_modules; the project may be in one."""
    return NODE_MODULES in path.removeprefix(root)


def _dependencies(module: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for used in module.get("dependencies", ()):
        code = used.get("code", {})
        yield str(used["specifier"]), str(code.get("specifier", ""))


def _path(specifier: str) -> Path:
    return Path(unquote(urlsplit(specifier).path))


def read_text(file: Path) -> str:
    """Return the text of a module, empty if it cannot be read."""
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def node_file(path: Path) -> Path | None:
    """Return the file that ``require`` loads for a path; None: there is none."""
    if path.is_file():
        return path
    for suffix in REQUIRED_SUFFIXES:
        if (file := path.with_name(path.name + suffix)).is_file():
            return file
    if not path.is_dir():
        return None
    try:
        main = json.loads((path / "package.json").read_text("utf-8-sig")).get("main")
    except (OSError, ValueError, AttributeError):
        main = None
    if isinstance(main, str) and main.strip("./") and (found := node_file(path / main)):
        return found
    return node_file(path / "index")
