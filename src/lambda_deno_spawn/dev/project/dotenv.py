"""Files such as ``.env`` that code reads by itself, and that no package contains.

Knows how sources and tasks load such a file. Reads names of variables, never values.
Does not know how a package is built. Specification: docs/build.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.project.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from lambda_deno_spawn.dev.project.project import Project

FILES_LIMIT = 500
FILE_LIMIT_BYTES = 1_000_000
SOURCE = re.compile(r"(?<!\.d)\.[mc]?[jt]sx?$")
# They show which variables there are; nothing reads them.
SAMPLE = re.compile(r"\.(?:example|sample|template|dist|defaults?|schema)$")
COMMENT = re.compile(r"(?m)^\s*(?://|\*|/\*).*$")
LOADS = re.compile(
    r"""["'](?:npm:/?)?(?:dotenv|dotenv-flow|dotenv-expand|dotenvx|@dotenvx/dotenvx)"""
    r"""(?:@[^"'/]*)?(?:/[^"']*)?["']"""
    r"""|["'](?:jsr:/?)?@std/dotenv(?:@[^"'/]*)?(?:/[^"']*)?["']"""
    r"""|["']https://deno\.land/std[^"']*/dotenv/[^"']*["']"""
    r"""|\bprocess\.loadEnvFile\s*\(|\bDeno\.loadEnv\w*\s*\("""
)
# Our own commands have the option, too, and hand the variables over.
TASK = re.compile(r"(?<![\w-])(?:deno|node|tsx|bun)\s[^\"&|;]*\s--env(?:-file)?\b")
TASK_FILES = ("deno.json", "deno.jsonc", "package.json")
VARIABLE = re.compile(r"(?m)^[ \t]*(?:export +)?([A-Za-z_]\w*)[ \t]*=")


class EnvFile(NamedTuple):
    """A file of variables that is not packaged.

    Attributes:
        name: Its name.
        reader: The source or the file of tasks that loads it.
    """

    name: str
    reader: str

    def __str__(self) -> str:
        return f"{self.reader} loads {self.name}, which is not packaged"


ADVICE = (
    "hand its variables over with `deploy --env-file`, or keep them in AWS as secrets "
    "(docs/secrets.md)"
)


def unpackaged_env_file(
    project: Project, variables: Container[str] = ()
) -> EnvFile | None:
    """Return a file of variables that code loads here and would miss on Lambda.

    Args:
        project: The project.
        variables: Names that are set by other means.
    """
    root = project.function.task_root
    selection = Selection(project)
    names = sorted(
        path.name
        for path in root.glob(".env*")
        if path.is_file()
        and re.fullmatch(r"\.env(?:\..*)?", path.name)
        and not SAMPLE.search(path.name)
        and not selection.is_included(path.name)
        and any(name not in variables for name in VARIABLE.findall(_text(path)))
    )
    if not names:
        return None
    reader = next(_readers(root, selection), None)
    return None if reader is None else EnvFile(names[0], reader)


def _readers(root: Path, selection: Selection) -> Iterator[str]:
    sources = [file for file in selection.files() if SOURCE.search(file.name)]
    for file in sources[:FILES_LIMIT]:
        if LOADS.search(COMMENT.sub("", _text(file.path))):
            yield file.name
    for name in TASK_FILES:
        if TASK.search(_text(root / name)):
            yield name


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""
