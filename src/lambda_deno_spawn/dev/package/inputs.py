"""The files that decide what a package contains, beside those that are in it.

Knows which files a bundle does not show: configuration, files that modules name by a
relative path and that leave no code behind, packages as a whole, and modules from
servers in Deno's cache. Does not know how their state is recorded. Specification:
docs/build.md, "A second build"; Deno manual, "Configuration".
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lambda_deno_spawn.dev.package.bundle import NPM_PATH
from lambda_deno_spawn.dev.package.node_modules import (
    FOLDER,
    needed_packages,
    package_folder,
)
from lambda_deno_spawn.dev.package.project_files import hoisted
from lambda_deno_spawn.dev.project.home import caches_folder
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import (
    CONFIG_NAMES,
    PACKAGE,
    TSCONFIG,
    config_content,
    find_project,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

READ = (
    ".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".json", ".jsonc",
)  # fmt: skip
RELATIVE = re.compile(r"""["'`](\.{1,2}(?:/[^"'`\n]*)?)["'`]""")
# Suffixes that a name may lack; and suffixes that stand for another one.
SUFFIXES = ("", *READ, *(f"/index{suffix}" for suffix in READ))
COMPILED = re.compile(r"\.([mc]?)js(x?)$")
READ_LIMIT_BYTES = 4_000_000  # larger ones are data
JSR = "https://jsr.io/"
VENDOR = "vendor"


def reached(files: Iterable[Path], task_root: Path) -> tuple[set[Path], set[Path]]:
    """Return the files that modules and the project's configuration name.

    A name in a text is enough: a file too many only leads to another build.

    Args:
        files: Modules of the project.
        task_root: The project's folder.

    Returns:
        Files, and folders out of the project.
    """
    configuration = list(_configuration(task_root))
    found: set[str] = set()
    folders: set[Path] = set()
    waiting = [*map(str, configuration), *map(str, files)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if not path.endswith(READ) or f"/{FOLDER}/" in path or NPM_PATH.match(path):
            continue
        for name in set(RELATIVE.findall(_text(path))):
            target = os.path.normpath(f"{path.rpartition('/')[0]}/{name}")
            if Path(target).is_dir() and not _is_within(target, str(task_root)):
                folders.add(Path(target))
            waiting += [one for one in _candidates(target) if Path(one).is_file()]
    above = {str(folder) for folder in (task_root, *task_root.parents)}
    return set(map(Path, found)), {one for one in folders if str(one) not in above}


def packages(inputs: Iterable[Path], task_root: Path) -> set[Path]:
    """Return the folders of the npm packages that a function may need.

    Args:
        inputs: Files that the build has read.
        task_root: The project's folder.
    """
    imported = [path for path in inputs if FOLDER in path.parts]
    found = {folder for path in imported if (folder := package_folder(path))}
    found |= set(hoisted(task_root).values())
    if (task_root / FOLDER).is_dir():
        needed = needed_packages(task_root, imported)
        found |= {task_root / FOLDER} if needed is None else set(map(Path, needed))
    return found


def cached_modules(
    urls: Collection[str], task_root: Path, environ: Mapping[str, str]
) -> set[Path] | None:
    """Return the files in which Deno keeps modules from servers.

    Args:
        urls: Addresses of the modules.
        task_root: The project's folder.
        environ: The caller's environment.

    Returns:
        Files, and a folder with vendored modules; None: not all were found.
    """
    root = Path(find_project(task_root).root)
    if (root / VENDOR).is_dir():
        return {path for path in (root / VENDOR).rglob("*") if path.is_file()}
    cache = environ.get("DENO_DIR")
    if not cache:
        try:
            cache = f"{caches_folder(environ)}/deno"
        except BuildError:
            return None
    found = {_cached(cache, url) for url in urls}
    if not all(path.is_file() for path in found):
        return None
    return found | {_cached(cache, url) for url in _listings(urls)}


def _cached(cache: str, url: str) -> Path:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    digest = hashlib.sha256(f"{parts.path}{query}".encode()).hexdigest()
    host = (parts.hostname or "") + (f"_PORT{parts.port}" if parts.port else "")
    return Path(cache, "remote", parts.scheme, host, digest)


def _listings(urls: Iterable[str]) -> Iterator[str]:
    """Yield the addresses of what JSR says about the versions of packages."""
    for url in urls:
        parts = url.removeprefix(JSR).split("/")
        if url.startswith(JSR) and len(parts) > 3:
            package = f"{JSR}{parts[0]}/{parts[1]}"
            yield from (f"{package}/meta.json", f"{package}/{parts[2]}_meta.json")


def _configuration(task_root: Path) -> Iterator[Path]:
    root = find_project(task_root).root
    for folder in (task_root, *task_root.parents):
        if not _is_within(str(folder), root):
            break
        for name in (*CONFIG_NAMES, PACKAGE, TSCONFIG):
            if (path := folder / name).is_file():
                yield path
                yield from _inherited(path)


def _inherited(path: Path) -> Iterator[Path]:
    """Yield the files in packages that a ``tsconfig.json`` extends."""
    named = config_content(path).get("extends", [])
    for target in named if isinstance(named, list) else [named]:
        if isinstance(target, str) and not target.startswith("."):
            for folder in path.parents:
                base = folder / FOLDER / target
                for file in (base, Path(f"{base}.json"), base / TSCONFIG):
                    if file.is_file():
                        yield file


def _candidates(path: str) -> Iterator[str]:
    yield from (path + suffix for suffix in SUFFIXES)
    if compiled := COMPILED.search(path):
        stem = path[: compiled.start()]
        yield from (f"{stem}.{compiled[1]}ts", f"{stem}.tsx", f"{stem}.d.ts")


def _text(path: str) -> str:
    try:
        file = Path(path)
        if file.stat().st_size > READ_LIMIT_BYTES:
            return ""
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")
