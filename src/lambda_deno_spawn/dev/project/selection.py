"""Which files of a project belong to its package.

Knows what lies in a project's folder for the people who work on it, what holds
secrets, and the patterns of ``lambda.toml``. Looks at names and links, and reads no
file. Refuses to know what a package is made of besides. Specification: docs/build.md,
docs/project.md.
"""

from __future__ import annotations

import fnmatch
import os
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.project.project import PROJECT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lambda_deno_spawn.dev.project.project import Project

# For people and tools, in the project's own folder; deeper down such names are data.
ONLY_AT_THE_TOP = (
    PROJECT_FILE, "README*", "*.md", "tests", "events", "event.json", "dist",
    "coverage", "template.yaml", "samconfig.toml", "cdk.out", "deno.json",
    "deno.jsonc", "deno.lock", "package.json", "package-lock.json", "tsconfig.json",
    "Makefile", "*.zip",
)  # fmt: skip
# Anywhere: tests, declarations, and what is secret more often than not. So is what
# begins with a dot.
NOWHERE = (
    "*.d.ts", "*[._]test.*", "node_modules", "*.env", "*.pem", "*.key", "*.p12",
    "id_rsa*", "id_ed25519*", "id_ecdsa*", "*.tfstate", "*.tfstate.*",
)  # fmt: skip


class Selected(NamedTuple):
    """A file that belongs to a package.

    Attributes:
        name: Below the project's folder, with slashes.
        path: Where its content is.
        target: Where that really is, if a link leads out of the project.
    """

    name: str
    path: Path
    target: Path | None


def select(project: Project) -> Iterator[Selected]:
    """Yield the files of a project that belong to its package.

    Links are followed; one that leads back to where it came from is left out.
    """
    root = project.function.task_root
    yield from _walk(project, root, "", (os.path.realpath(root),))


def _walk(
    project: Project, folder: Path, inner: str, above: Sequence[str]
) -> Iterator[Selected]:
    for path in sorted(folder.iterdir()):
        name = f"{inner}{path.name}"
        is_folder = path.is_dir()
        if not is_wanted(project, name, is_folder=is_folder):
            continue
        real = os.path.realpath(path)
        if not is_folder:
            is_inside = real.startswith(above[0] + os.sep)
            target = None if is_inside else path.resolve()
            yield Selected(name, path, target)
        elif real not in above:
            yield from _walk(project, path, f"{name}/", (*above, real))


def is_wanted(project: Project, name: str, *, is_folder: bool) -> bool:
    """Tell whether a file belongs to a package, or a folder may hold one that does."""
    if is_excluded(project, name):
        return False
    if is_included(project, name, is_folder=is_folder):
        return True
    last = name.rpartition("/")[2]
    if last.startswith(".") or _matches(last, NOWHERE):
        return False
    return "/" in name or not _matches(name, ONLY_AT_THE_TOP)


def is_excluded(project: Project, name: str) -> bool:
    """Tell whether ``lambda.toml`` leaves a file out."""
    return _matches(name, project.exclude)


def is_included(project: Project, name: str, *, is_folder: bool = False) -> bool:
    """Tell whether ``lambda.toml`` asks for a file, or for one in a folder."""
    # What is hidden has to be asked for by its own name: it may be a secret.
    is_hidden = name.rpartition("/")[2].startswith(".")
    patterns = [
        pattern
        for pattern in project.include
        if not is_hidden or pattern.rpartition("/")[2].startswith(".") or is_folder
    ]
    if is_hidden and not is_folder:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    if _matches(name, patterns) and not is_hidden:
        return True
    depth = name.count("/") + 1
    return is_folder and any(
        fnmatch.fnmatchcase(name, "/".join(pattern.split("/")[:depth]))
        for pattern in patterns
        if "/" in pattern
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern)
        or fnmatch.fnmatchcase(name, f"{pattern.rstrip('/')}/*")
        for pattern in patterns
    )
