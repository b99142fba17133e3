"""A function's project files: where Deno would find them, and what they say.

``deno run`` looks for ``deno.json``, ``package.json``, ``tsconfig.json`` and the lock
file beside the module and in the folders above. The runtime's entry module is in
another place, so the same search is done here, and its result becomes flags. On Lambda
there is nothing above the task root, and a bundle needs few of these files.
Specification: Deno manual, "deno.json and package.json", "Workspaces"; decision 0035.
"""

from __future__ import annotations

import os

from lambda_deno_spawn.launch.files import is_file, read_text
from lambda_deno_spawn.permissions import is_within
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lambda_deno_spawn.launch.files import AnyPath

CONFIG_NAMES = ("deno.json", "deno.jsonc")
PACKAGE = "package.json"
TSCONFIG = "tsconfig.json"
LOCK = "deno.lock"
PACKAGES = "node_modules"
PNPM_WORKSPACE = "pnpm-workspace.yaml"
# Compiler options of tsconfig.json that change the JavaScript which Deno makes.
EMITTED = (
    "emitDecoratorMetadata", "experimentalDecorators", "jsx", "jsxFactory",
    "jsxFragmentFactory", "jsxImportSource", "verbatimModuleSyntax",
)  # fmt: skip
EXTENDS_LIMIT = 16  # files; more are most likely a circle
# Imports that name the compiled file (./x.js for x.ts), or leave the suffix out.
SLOPPY = "--unstable-sloppy-imports"


class ProjectFiles(NamedTuple):
    """The files that apply to a function.

    Attributes:
        config: ``deno.json`` or ``deno.jsonc``; None: there is none.
        package: Folder of the nearest ``package.json``, if that is what Deno goes by,
            because it comes before any ``deno.json``.
        root: The outermost folder that belongs to the project: that of the workspace,
            else that of the configuration.
        lock: The lock file; None: there is none.
    """

    config: str | None
    package: str | None
    root: str
    lock: str | None


def find_project(task_root: AnyPath) -> ProjectFiles:
    """Find the project files of a function, by Deno's rules.

    The nearest folder with a configuration counts; a workspace above it, too.
    """
    first = config = package = workspace = None
    for folder in _with_parents(os.path.abspath(os.fsdecode(task_root))):
        found = _config_in(folder)
        if found is None and not is_file(os.path.join(folder, PACKAGE)):
            continue
        if first is None:
            first = folder
            config, package = found, None if found else folder
        if config is None and is_file(os.path.join(folder, PNPM_WORKSPACE)):
            workspace = folder  # which Deno does not know; its packages are links
            break
        members = _members(folder, found)
        if members is None:
            continue
        if first == folder or _is_member(os.path.relpath(first, folder), members):
            workspace = folder
            if config is None and found is not None:
                config, package = found, None
        break
    root = workspace or first or os.fsdecode(task_root)
    lock = None
    if first is not None:
        # The workspace's lock file counts for all of its members.
        lock = _lock(root, _config_in(root))
    return ProjectFiles(config, package, root, lock)


def find_config(task_root: AnyPath) -> str | None:
    """Return the Deno configuration file that applies, None if there is none."""
    return find_project(task_root).config


def config_flags(
    files: ProjectFiles, task_root: AnyPath, generated: AnyPath | None = None
) -> list[str]:
    """Return the flags that point Deno at a function's project files.

    Without them it would look beside the entry module.

    Args:
        files: The function's project files.
        task_root: The function's folder.
        generated: A configuration that stands for ``tsconfig.json``; None: not needed.
    """
    if files.config is not None:
        # A lock file is never written: on Lambda the task root is read-only.
        return ["--config", files.config, "--frozen" if files.lock else "--no-lock"]
    flags = ["--no-config"]
    if generated is not None:
        flags = ["--config", str(generated), "--no-lock"]
    elif _pins_remote(files.lock):
        flags += ["--lock", str(files.lock), "--frozen"]
    has_packages = os.path.isdir(os.path.join(task_root, PACKAGES))
    if files.package is not None or has_packages:
        flags.append("--node-modules-dir=manual")
    return flags


def tool_flags(task_root: AnyPath) -> list[str]:
    """Return the flags of a command of Deno that runs in the function's folder.

    It finds the project files by itself.
    """
    files = find_project(task_root)
    is_locked = files.lock and (files.config or _pins_remote(files.lock))
    flags = ["--frozen" if is_locked else "--no-lock", SLOPPY]
    is_bare = files.config is None and files.package is None
    if is_bare and os.path.isdir(os.path.join(task_root, PACKAGES)):
        flags.append("--node-modules-dir=manual")
    return flags


def permission_sets(config: AnyPath) -> dict[str, Any]:
    """Return the permission sets of a Deno configuration, none if it is unreadable."""
    if not _mentions(config, "permissions"):
        return {}
    permissions = config_content(config).get("permissions")
    return permissions if isinstance(permissions, dict) else {}


def config_content(config: AnyPath) -> dict[str, Any]:
    """Return a Deno configuration, empty if it is unreadable."""
    import json  # 2 ms that a function without a configuration need not pay

    try:
        content = json.loads(_without_comments(read_text(config, "utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}  # Deno reports the syntax error when it refuses to start
    return content if isinstance(content, dict) else {}


def emit_options(files: ProjectFiles) -> dict[str, Any]:
    """Return what ``tsconfig.json`` says about the JavaScript that Deno makes.

    Deno reads the file itself where there is a ``deno.json``; this is for projects that
    have a ``package.json`` only, whose folder Deno is not told.
    """
    if files.package is None:
        return {}
    for folder in dict.fromkeys((files.package, files.root)):
        path = os.path.join(folder, TSCONFIG)
        if is_file(path):
            options = compiler_options(path)
            return {name: options[name] for name in EMITTED if name in options}
    return {}


def hoisted_packages(files: ProjectFiles, task_root: AnyPath) -> list[str]:
    """Return the folders of packages above the task root, up to the project's root."""
    found = []
    for folder in _parents(os.path.abspath(os.fsdecode(task_root))):
        if not is_within(folder, files.root):
            break
        path = os.path.join(folder, PACKAGES)
        if os.path.isdir(path):
            found.append(path)
    return found


def searched_above(task_root: AnyPath) -> tuple[list[str], list[str]]:
    """Return the folders above in which ``require`` looks: those missing, and others.

    It gives up where it may not look. There is nothing to see in a missing folder, so
    it may be asked for; one that exists is to be left out.
    """
    missing: list[str] = []
    existing: list[str] = []
    for folder in _parents(os.path.abspath(os.fsdecode(task_root))):
        path = os.path.join(folder, PACKAGES)
        if os.path.basename(folder) != PACKAGES and "," not in path:
            (existing if os.path.lexists(path) else missing).append(path)
    return missing, existing


def _config_in(folder: str) -> str | None:
    for name in CONFIG_NAMES:
        path = os.path.join(folder, name)
        if is_file(path):
            return path
    return None


def _members(folder: str, config: str | None) -> list[str] | None:
    """Return the patterns of a workspace's members; None: it is not a workspace."""
    package = os.path.join(folder, PACKAGE)
    for path, key, inner in (
        (config, "workspace", "members"), (package, "workspaces", "packages"),
    ):  # fmt: skip
        if path is not None and is_file(path) and _mentions(path, key):
            said = config_content(path).get(key)
            if isinstance(said, dict):
                said = said.get(inner)
            if isinstance(said, list):
                return [str(pattern) for pattern in said]
    return None


def _is_member(folder: str, patterns: list[str]) -> bool:
    """Return whether a folder below the root of a workspace belongs to it."""
    import fnmatch

    parts = folder.split("/")
    for pattern in patterns:
        wanted = os.path.normpath(pattern).split("/")
        if "**" in wanted and fnmatch.fnmatchcase(folder, "/".join(wanted)):
            return True
        if len(wanted) == len(parts) and all(
            fnmatch.fnmatchcase(*pair) for pair in zip(parts, wanted, strict=True)
        ):
            return True
    return False


def _lock(root: str, config: str | None) -> str | None:
    """Return the lock file of a project, None if it has none."""
    said: Any = None
    if config is not None and _mentions(config, "lock"):
        said = config_content(config).get("lock")
    if said is False:
        return None
    if isinstance(said, dict):
        said = said.get("path")
    path = os.path.join(root, said if isinstance(said, str) else LOCK)
    return path if is_file(path) else None


def _pins_remote(lock: str | None) -> bool:
    """Return whether a lock file matters where packages come from ``node_modules``."""
    return lock is not None and (_mentions(lock, "jsr") or _mentions(lock, "remote"))


def compiler_options(path: str, left: int = EXTENDS_LIMIT) -> dict[str, Any]:
    """Return the compiler options of a ``tsconfig.json``, inherited ones included."""
    content = config_content(path)
    named = content.get("extends", [])
    options: dict[str, Any] = {}
    for target in named if isinstance(named, list) else [named]:
        base = _extended(os.path.dirname(path), str(target))
        if base is not None and left > 0:
            options |= compiler_options(base, left - 1)
    own = content.get("compilerOptions")
    return {**options, **own} if isinstance(own, dict) else options


def _extended(folder: str, target: str) -> str | None:
    """Return the file that ``extends`` names, in a folder or in a package."""
    if target.startswith(("./", "../", "/")) or target in (".", ".."):
        stems = [os.path.join(folder, target)]
    else:
        stems = [os.path.join(f, PACKAGES, target) for f in _with_parents(folder)]
    for stem in stems:
        for path in (stem, f"{stem}.json", os.path.join(stem, TSCONFIG)):
            if is_file(path):
                return os.path.normpath(path)
    return None


def _mentions(path: AnyPath, key: str) -> bool:
    """Return whether a file can have a key: parsing it costs a cold start 2 ms."""
    try:
        return f'"{key}"' in read_text(path, "utf-8")
    except (OSError, ValueError):
        return True  # whatever reads it next knows better


def _with_parents(folder: str) -> Iterator[str]:
    yield folder
    yield from _parents(folder)


def _parents(folder: str) -> Iterator[str]:
    while (parent := os.path.dirname(folder)) != folder:
        yield parent
        folder = parent


def _without_comments(text: str) -> str:
    """Turn JSON with comments and trailing commas into JSON."""
    import re

    token = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
    without = token.sub(lambda m: m[0] if m[0].startswith('"') else "", text)
    # A comma may have stood in front of a comment.
    return token.sub(lambda m: m[0] if m[0].startswith('"') else "", without)
