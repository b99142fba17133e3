"""Project files that are above a function's folder, for a package without a bundle.

On Lambda there is only the function's folder, so what Deno finds above it here is
written into the package: one ``deno.json`` in place of a workspace, the lock file, and
the packages of a ``node_modules`` that several functions share. Modules above the
folder stay out; ``build`` refuses them. Specification: docs/build.md.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import (
    CONFIG_NAMES,
    LOCK,
    PACKAGE,
    PACKAGES,
    ProjectFiles,
    config_content,
    emit_options,
    find_project,
    hoisted_packages,
)
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_deno_spawn.dev.package.deno import Deno

# Keys of package.json with the names of packages that are needed at run time.
DEPENDENCIES = ("dependencies", "optionalDependencies", "peerDependencies")
# Keys of deno.json that members of a workspace inherit as they are.
INHERITED = ("permissions", "unstable", "nodeModulesDir", "links")
# Keys that would point out of the package, or that are written anew.
REPLACED = ("workspace", "importMap", "lock", "imports", "scopes", "compilerOptions")


def stage_project_files(deno: Deno, source: Path, staged: Path) -> None:
    """Write the project files that are above the function's folder into a package.

    Args:
        deno: The project's Deno.
        source: The handler's module.
        staged: Folder with the files of the package.

    Raises:
        BuildError: The lock file does not fit the package.
    """
    task_root = deno.task_root
    files = find_project(task_root)
    if files.config is None:
        _stage_package_json(files, task_root, staged)
        return
    if Path(files.config).parent == task_root and files.root == str(task_root):
        return  # they are packaged as they are
    for name in CONFIG_NAMES:
        (staged / name).unlink(missing_ok=True)
    _write_json(staged / CONFIG_NAMES[0], merged_config(files, task_root))
    if files.lock is None:
        return
    # The same versions for another configuration: Deno writes which one it is for.
    shutil.copyfile(files.lock, staged / LOCK)
    place = staged / source.relative_to(task_root)
    deno.run(
        f"write the lock file of {source.name!r}",
        ["cache", "--no-check", file_url(place)],
        folder=staged,
        flags=["--frozen=false"],
    )


def stage_hoisted(task_root: Path, staged: Path) -> None:
    """Copy the packages that a function uses from folders above its own."""
    for name, folder in hoisted(task_root, staged).items():
        shutil.copytree(folder, staged / PACKAGES / name, symlinks=True)


def hoisted(task_root: Path, staged: Path | None = None) -> dict[str, Path]:
    """Find the packages that a function may use from folders above its own.

    Args:
        task_root: The function's folder.
        staged: Folder of which the packages come first.

    Returns:
        Their real folders, by their names.
    """
    files = find_project(task_root)
    folders = [Path(path) for path in hoisted_packages(files, task_root)]
    if not folders:
        return {}
    package = files.package or (files.config and str(Path(files.config).parent))
    wanted = list(_needed(Path(package or task_root)))
    seen: set[str] = set()
    places: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = next((f / name for f in folders if (f / name).is_dir()), None)
        is_taken = staged is not None and (staged / PACKAGES / name).exists()
        if found is None or is_taken:
            continue
        real = places[name] = found.resolve()
        wanted += _needed(real)
        for inner in (real / PACKAGES).glob("**/package.json"):
            wanted += _needed(inner.parent)
    return places


def merged_config(files: ProjectFiles, task_root: Path) -> dict[str, Any]:
    """Return one Deno configuration with what a function inherits from a workspace.

    Raises:
        BuildError: An import map is in a file of its own.
    """
    own = files.config or ""
    chain = [own]
    for name in CONFIG_NAMES:
        root = Path(files.root, name)
        if root.is_file() and str(root) not in chain:
            chain.insert(0, str(root))
    merged: dict[str, Any] = {}
    imports: dict[str, Any] = {}
    scopes: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for path in chain:
        content = config_content(path)
        if "importMap" in content:
            raise BuildError(
                f"Cannot package {path!r} unbundled: its import map is in a file of "
                "its own; write it into the configuration, or bundle the function"
            )
        folder = Path(path).parent
        keys = content.keys() - set(REPLACED) if path == own else set(INHERITED)
        merged |= {key: content[key] for key in sorted(keys) if key in content}
        imports |= _moved(content.get("imports"), folder, task_root)
        options |= content.get("compilerOptions") or {}
        for scope, entries in (content.get("scopes") or {}).items():
            place = _moved_path(scope, folder, task_root)
            scopes[place] = _moved(entries, folder, task_root)
    parts = {"imports": imports, "scopes": scopes, "compilerOptions": options}
    return {**merged, **{key: part for key, part in parts.items() if part}}


def _stage_package_json(files: ProjectFiles, task_root: Path, staged: Path) -> None:
    if files.package is None:
        return
    if options := emit_options(files):
        _write_json(staged / CONFIG_NAMES[0], {"compilerOptions": options})
    folder = Path(files.package)
    if folder == task_root:
        return
    content = config_content(folder / PACKAGE)
    if isinstance(content.get("imports"), dict):
        content["imports"] = _moved(content["imports"], folder, task_root)
    content.pop("workspaces", None)
    _write_json(staged / PACKAGE, content)


def _moved(entries: object, folder: Path, task_root: Path) -> dict[str, Any]:
    """Return imports whose relative targets begin at the function's folder."""
    if not isinstance(entries, dict):
        return {}
    return {
        name: _moved(target, folder, task_root)
        if isinstance(target, dict)
        else _moved_path(target, folder, task_root)
        for name, target in entries.items()
    }


def _moved_path(target: Any, folder: Path, task_root: Path) -> Any:
    if not isinstance(target, str) or not target.startswith(("./", "../")):
        return target
    path = os.path.relpath(folder / target, task_root)
    end = "/" if target.endswith("/") else ""
    return f"{'' if path.startswith('..') else './'}{path}{end}"


def _needed(folder: Path) -> Iterator[str]:
    content: Mapping[str, Any] = config_content(folder / PACKAGE)
    for key in DEPENDENCIES:
        names = content.get(key)
        if isinstance(names, dict):
            yield from names


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
