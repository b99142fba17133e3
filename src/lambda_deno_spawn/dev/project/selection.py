"""Which files of a project belong to its package.

Knows the files that serve developers and their tools, the files that often contain
secrets, and the patterns in ``lambda.toml``. Looks at names and links, and reads no
file. Does not know what else a package contains. Specification: docs/build.md,
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

# Left out at the top of the project only: these serve developers and their tools. In
# folders below, files with such names are data.
ONLY_AT_THE_TOP = (
    PROJECT_FILE, "README*", "*.md", "tests", "events", "event.json", "dist",
    "coverage", "template.yaml", "samconfig.toml", "cdk.out", "deno.json",
    "deno.jsonc", "deno.lock", "package.json", "package-lock.json", "tsconfig.json",
    "Makefile", "*.zip",
)  # fmt: skip
# Left out everywhere: tests, type declarations, and files that often contain secrets.
# Names that begin with a dot are left out too.
NOWHERE = (
    "*.d.ts", "*.d.mts", "*.d.cts", "*[._]test.*", "node_modules", "*.env", "*.pem",
    "*.key", "*.p12", "id_rsa*", "id_ed25519*", "id_ecdsa*", "*.tfstate", "*.tfstate.*",
)  # fmt: skip


class Selected(NamedTuple):
    """A file that belongs to a package.

    Attributes:
        name: Path below the project's folder, with slashes.
        path: The file to read.
        target: The file outside the project that ``path`` is a link to; None: it is
            inside.
    """

    name: str
    path: Path
    target: Path | None


def select(project: Project) -> Iterator[Selected]:
    """Yield the files of a project that belong to its package.

    Links are followed, except those to a folder that contains the link.
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
    """Return whether to package a file, or to look into a folder."""
    if is_excluded(project, name):
        return False
    if is_included(project, name, is_folder=is_folder):
        return True
    last = name.rpartition("/")[2]
    if last.startswith(".") or _matches(last, NOWHERE):
        return False
    return "/" in name or not _matches(name, ONLY_AT_THE_TOP)


def is_excluded(project: Project, name: str) -> bool:
    """Return whether ``exclude`` in ``lambda.toml`` matches a file."""
    return _matches(name, project.exclude)


def is_included(project: Project, name: str, *, is_folder: bool = False) -> bool:
    """Return whether ``include`` in ``lambda.toml`` matches a file, or may in a folder.

    A hidden file may be a secret: it is matched only by a pattern with a leading dot.
    """
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
