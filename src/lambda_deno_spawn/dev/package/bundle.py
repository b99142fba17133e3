"""One JavaScript file with a handler and its imports, and the source map of that file.

Knows the output of ``deno bundle``, and makes it equal on all machines. Does not know
packages or Lambda. Specification: docs/build.md; Deno manual, "deno bundle"; ECMA-426,
source map format.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lambda_deno_spawn.dev.package.class_names import HELPER, with_class_names
from lambda_deno_spawn.dev.package.doubts import Part, comment_lines, needs_place, parts
from lambda_deno_spawn.dev.package.helpers import (
    CREATE_REQUIRE,
    own_helpers,
    with_helpers,
)
from lambda_deno_spawn.launch.deno_json import PACKAGES
from lambda_deno_spawn.launch.entry import BUILTINS, NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lambda_deno_spawn.dev.package.deno import Deno, Running

# A file of an npm package in Deno's cache: .../npm/REGISTRY/NAME/VERSION/...
NPM_PATH = re.compile(r"(?:.*/)?npm/[^/]+/((?:@[^/]+/)?[^/]+/\d[^/]*/.*)")
# The end of a bundle whose handler's module is CommonJS; legal comments follow it.
COMMONJS_EXPORT = re.compile(
    r"export default ([\w$]+)\(\);(?=(?>\s+|//[^\n]*|/\*(?>.*?\*/))*+\Z)", re.DOTALL
)
# CommonJS has these, ES modules such as the bundle have not.
PLACE = "var __filename = import.meta.filename, __dirname = import.meta.dirname;\n"
# Deno's bundler puts a text in place of this variable, and leaves out all code that is
# for other values.
MODE = "NODE_ENV"
ASKS_FOR_MODE = re.compile(
    r"(?<![\w$.])process\s*\.\s*env\s*(?:\.\s*NODE_ENV\b|\[\s*[\"']NODE_ENV[\"']\])"
)
KEEPS_MODE = re.compile(r"env(?:\.NODE_ENV\b|\[\"NODE_ENV\"\])")
# The places where esbuild writes a module's path: a comment above it, the key of a
# CommonJS module. One after the other, with the line feed: see COMMENT_LINE.
NAMED_PLACES = (re.compile(r"\n// ([^\n]*)"), re.compile(r"\n  \"([^\n]*?)\"\("))
# A static import, as esbuild writes it: on a line of its own, or minified.
IMPORT = re.compile(r'import(?=[ "{*])[\w$*{}, ]*?"([^"\n]+)"')
BEFORE_IMPORT = "\n;}"
BUNDLER = "deno:"  # before the address of a module from a server, in comments
# Deno's bundler prints such modules anew. Of the others it keeps a map.
PRINTED = re.compile(r"(?!.*://).*\.[cm]?js", re.DOTALL)
PLACES = Path(__file__).with_name("places.js")
NO_PROJECT = ("--no-config", "--no-lock", "--no-npm", "--no-remote")
URL_SAFE = "/@:+,=&$!*'();~-._"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a bundle.

    Attributes:
        modules: The code of each module.
        files: Files of the project among them.
        inputs: All files.
        urls: Addresses of the modules from servers.
        fixed: The modules in which ``NODE_ENV`` is what the bundler says.
    """

    modules: Sequence[Part]
    files: frozenset[Path]
    inputs: frozenset[Path]
    urls: frozenset[str]
    fixed: Sequence[Part]


def bundle(
    deno: Deno,
    file: Path,
    target: Path,
    *,
    export: str,
    minify: bool,
    has_map: bool,
    external: Iterable[str] = (),
    running: Running | None = None,
) -> Bundle:
    """Bundle a handler and its imports into one file.

    Args:
        deno: The project's Deno.
        file: The handler's module.
        target: Path of the bundle; its source map is written beside it.
        export: Name of the export that the bundle must have, even if the module is
            CommonJS.
        minify: Minify the bundle, which makes stack traces without a map unreadable.
        has_map: Keep the source map.
        external: Names of packages that stay imports.
        running: The bundler, if it was started already.

    Raises:
        BuildError: A module is missing or cannot be bundled.
    """
    external = set(external)
    (running or deno.start_bundle(file, target, external=external)).output()
    source_map = _source_map(target)
    here = target.parent.resolve()
    text = target.read_text("utf-8")
    with contextlib.ExitStack() as started:

        def start_placing() -> Running | None:
            indexes = _printed(source_map["sources"], file, here) if has_map else []
            if not indexes:
                return None
            map_file = here / f"{target.name}.map"
            return started.enter_context(_start_placing(deno, map_file, indexes))

        # It runs while this process does the rest.
        placing = None if minify else start_placing()
        names = _as_written(source_map["sources"], text, here, deno, file.parent)
        # A minified bundle does not tell where a module begins.
        modules = tuple(parts(text, names.get))
        fixed = _with_fixed_mode(modules, source_map, here, deno, file.parent)
        own = own_helpers(text)
        prefix = PLACE if any(needs_place(part) for part in modules) else ""
        prefix += CREATE_REQUIRE if own.has_require else ""
        if minify:
            deno.start_bundle(file, target, external=external, minify=True).output()
            source_map, text = _source_map(target), target.read_text("utf-8")
            placing = start_placing()
        text = with_helpers(text, own)
        sources = [
            stable_name(name, here, deno.task_root, file.parent)
            for name in source_map["sources"]
        ]
        if not minify:
            contents = dict(zip(sources, source_map["sourcesContent"], strict=True))
            named = with_class_names(
                text, lambda path: contents.get(names.get(path, ""))
            )
            prefix += HELPER if named is not text else ""
            text = named
        text = with_names(text, names)
        text = COMMONJS_EXPORT.sub(_named_export(export), text)
        if has_map:
            prefix = first_line(prefix + text) + prefix
        text = prefix + text
        if placing is not None:
            _set_places(source_map, json.loads(placing.output()), here)
    source_map["mappings"] = ";" * prefix.count("\n") + source_map["mappings"]
    source_map["sources"] = [quote(name, safe=URL_SAFE) for name in sources]
    if has_map:
        map_file = target.with_name(target.name + ".map")
        map_file.write_text(
            json.dumps(source_map, ensure_ascii=False, separators=(",", ":")), "utf-8"
        )
    else:
        target.with_name(target.name + ".map").unlink()
        text = re.sub(r"\n//# sourceMappingURL=[^\n]*\n?\Z", "\n", text)
    target.write_text(text, "utf-8")
    # Names has all sources, as paths relative to the project's folder.
    places = {_joined(deno.task_root, name) for name in names if "://" not in name}
    root = f"{deno.task_root}/"
    files = (Path(path) for path in places if path.startswith(root))
    urls = frozenset(name.removeprefix(BUNDLER) for name in names if "://" in name)
    return Bundle(modules, frozenset(files), frozenset(map(Path, places)), urls, fixed)


def first_line(text: str) -> str:
    """Return the line that ``launch.entry.builtins_of`` reads; empty: there is none.

    It makes starts faster. If it names too much or too little, they are only slower.
    """
    imports = {
        found[1]
        for found in IMPORT.finditer(text)
        if found.start() == 0 or text[found.start() - 1] in BEFORE_IMPORT
    }
    if not imports or not all(name.startswith(NODE.decode()) for name in imports):
        return ""
    return f"{BUILTINS.decode()}{' '.join(sorted(imports))}\n"


def _with_fixed_mode(
    modules: Iterable[Part],
    source_map: Mapping[str, Any],
    here: Path,
    deno: Deno,
    folder: Path,
) -> tuple[Part, ...]:
    """Return the modules that no longer ask for ``NODE_ENV``, as they did before."""
    pairs = zip(source_map["sources"], source_map["sourcesContent"], strict=True)
    asking = {
        stable_name(name, here, deno.task_root, folder)
        for name, content in pairs
        if content and MODE in content and ASKS_FOR_MODE.search(content)
    }
    return tuple(
        part
        for part in modules
        if part.name in asking and not KEEPS_MODE.search(part.text)
    )


def _source_map(target: Path) -> dict[str, Any]:
    text = target.with_name(target.name + ".map").read_text("utf-8")
    source_map: dict[str, Any] = json.loads(text)
    return source_map


def _printed(sources: Iterable[str], file: Path, here: Path) -> list[int]:
    """Return the indexes of the project's files that Deno's bundler printed anew.

    The handler's module, the file, is bundled as it is. Packages, of which there are
    many files, would make a build a fifth longer.
    """
    found = []
    for index, name in enumerate(sources):
        if PRINTED.fullmatch(name):
            path = _joined(here, unquote(name))
            is_packaged = f"/{PACKAGES}/" in path or NPM_PATH.fullmatch(path)
            if path != str(file) and not is_packaged:
                found.append(index)
    return found


def _start_placing(deno: Deno, map_file: Path, indexes: Iterable[int]) -> Running:
    """Start to look for the places in some sources that a map should lead to."""
    listed = ",".join(map(str, indexes))
    arguments = ["run", "--allow-read", str(PLACES), str(map_file), listed]
    return deno.start(f"read {map_file.name!r}", arguments, flags=NO_PROJECT)


def _set_places(
    source_map: dict[str, Any], places: Mapping[str, Any], here: Path
) -> None:
    """Let a map lead to files as they are, and contain them."""
    source_map["mappings"] = places["mappings"]
    for index in places["sources"]:
        path = _joined(here, unquote(source_map["sources"][index]))
        content = Path(path).read_bytes().decode("utf-8-sig", "replace")
        source_map["sourcesContent"][index] = content


def _joined(folder: Path, name: str) -> str:
    """Return an absolute path; for thousands of names quicker than with ``Path``."""
    return os.path.normpath(name if name.startswith("/") else f"{folder}/{name}")


def stable_name(source: str, here: Path, task_root: Path, folder: Path) -> str:
    """Return the name of a source that is the same on all machines.

    Args:
        source: Its name in the source map, relative to the bundle.
        here: The bundle's folder during the build.
        task_root: The project's folder.
        folder: The handler's folder, which contains the bundle on Lambda.
    """
    if "://" in source:
        return source
    return name_of(_joined(here, unquote(source)), task_root, folder)


def name_of(path: str, task_root: Path, folder: Path) -> str:
    """Return the stable name of a file; see ``stable_name``."""
    if path.startswith(f"{folder}/"):
        return path.removeprefix(f"{folder}/")
    if path.startswith(f"{task_root}/"):
        return os.path.relpath(path, folder)
    npm = NPM_PATH.fullmatch(path)
    if npm is None and f"/{PACKAGES}/" in path:  # above the project's folder
        return f"npm/{path.rpartition(f'/{PACKAGES}/')[2]}"
    return f"npm/{npm[1]}" if npm else f"elsewhere/{path.rpartition('/')[2]}"


def _named_export(name: str) -> str:
    """Return the code that exports a name of a CommonJS module from the bundle."""
    if name == "default":
        return r"export default \1();"
    return (
        r"var lambdaExports = \1(); export default lambdaExports; "
        f"var lambdaHandler = lambdaExports.{name}; "
        f"export {{ lambdaHandler as {name} }};"
    )


def _as_written(
    sources: Iterable[str], text: str, here: Path, deno: Deno, folder: Path
) -> dict[str, str]:
    """Return the stable names of modules, by their names in the bundle's text.

    The latter are relative to the working folder of Deno, or URLs. A module with a
    source map of its own has another name in the bundle's source map.
    """
    root = deno.task_root
    names = {source: source for source in sources if "://" in source}
    paths = {
        _joined(here, unquote(source)) for source in sources if "://" not in source
    }
    for written in comment_lines(text):
        if "://" in written:
            names[written] = written
            continue
        path = _joined(root, written)
        if path in paths or Path(path).is_file():
            paths.add(path)
    return names | {
        os.path.relpath(path, root): name_of(path, root, folder) for path in paths
    }


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Replace local paths, in comments above modules and keys of CommonJS modules."""

    def renamed(found: re.Match[str]) -> str:
        path = found[1]
        return found[0].replace(path, names[path], 1) if path in names else found[0]

    text = f"\n{text}"
    for pattern in NAMED_PLACES:
        text = pattern.sub(renamed, text)
    return text[1:]
