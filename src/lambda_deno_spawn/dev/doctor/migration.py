"""What code that was written for Node.js on Lambda meets here, found in its sources.

Knows the habits that need a setting or another line, and reads the function's own
files, not its packages. Says nothing where nothing has to be done. Does not run
anything: a finding is a hint, so it is a warning and never a problem. Specification:
docs/compatibility.md, "What behaves differently".
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.launch.deno_json import (
    TSCONFIG,
    compiler_options,
    config_content,
    find_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SOURCE_SUFFIXES = (".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs")
NOT_READ = frozenset({"node_modules", "dist", "cdk.out", "coverage"})
FILES_LIMIT = 500
SOURCE_LIMIT_BYTES = 1_000_000
PLACES_SHOWN = 3
COMMENT = re.compile(r"(?m)^\s*(?://|\*|/\*).*$")


@dataclass(frozen=True, slots=True)
class Habit:
    """Something that code does and that differs here.

    Attributes:
        id: Name of the check.
        pattern: Finds it in a source.
        found: What it is.
        advice: What to do.
    """

    id: str
    pattern: re.Pattern[str]
    found: str
    advice: str


HABITS = (
    Habit(
        "tmp-path",
        re.compile(r"[\"'`]/tmp/"),
        "a path in /tmp is written down",
        "use os.tmpdir() or Deno.env.get('TMPDIR'): each event has a folder of its own",
    ),
    Habit(
        "node-env",
        re.compile(r"process\.env\.NODE_ENV\b"),
        "NODE_ENV is read, and nothing sets it",
        'set it under [env] in lambda.toml: NODE_ENV = "production"',
    ),
    Habit(
        "aws-sdk",
        re.compile(r"(?:from|require\(|import\()\s*[\"']aws-sdk(?:/[^\"']*)?[\"']"),
        "aws-sdk (version 2) is imported, which managed Node.js 16 still provided",
        "add it to package.json, or move to the packages @aws-sdk/client-…",
    ),
    Habit(
        "cold-start",
        re.compile(r"captureColdStartMetric|coldStart\s*=\s*true"),
        "cold starts are counted by module state, which is new for each event",
        "leave it out: REPORT's Init Duration says when an environment started",
    ),
    Habit(
        "cache",
        re.compile(
            r"(?m)^(?:const|let|var)\s+\w*[cC]ache\w*\s*"
            r"(?::[^=\n]+)?=\s*(?:new Map|\{\})"
        ),
        "a cache is kept in module state, which is new for each event",
        "keep it outside, or let a process serve several events "
        "(LAMBDA_DENO_MAX_INVOCATIONS)",
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A habit, and where it was found.

    Attributes:
        found: What it is, with up to three places.
    """

    id: str
    found: str
    advice: str


def findings(task_root: Path, variables: Mapping[str, str]) -> list[Finding]:
    """Return what the function's own sources and files will meet.

    Args:
        task_root: Folder of the function.
        variables: The function's environment variables.
    """
    places: dict[Habit, list[str]] = {}
    jsx: list[str] = []
    for path in itertools.islice(_sources(task_root), FILES_LIMIT):
        shown = path.relative_to(task_root).as_posix()
        if path.suffix in (".tsx", ".jsx"):
            jsx.append(shown)
        text = _text(path)
        for habit in HABITS:
            if habit.id == "node-env" and "NODE_ENV" in variables:
                continue
            match = habit.pattern.search(text)
            if match is not None:
                line = text.count("\n", 0, match.start()) + 1
                places.setdefault(habit, []).append(f"{shown}:{line}")
    found = [
        Finding(habit.id, f"{habit.found}: {_some(seen)}", habit.advice)
        for habit, seen in places.items()
    ]
    return [*found, *_of_files(task_root, jsx)]


def _of_files(task_root: Path, jsx: list[str]) -> Iterator[Finding]:
    config = find_config(task_root)
    deno = {} if config is None else config_content(config)
    options = compiler_options(str(task_root / TSCONFIG))
    aliases = _object(options.get("paths"))
    if aliases and not _object(deno.get("imports")):
        yield Finding(
            "aliases",
            f"tsconfig.json has paths: {_some(list(aliases))}",
            "repeat them under imports in deno.json, where Deno looks for them",
        )
    of_deno = _object(deno.get("compilerOptions"))
    if jsx and not {**options, **of_deno}.get("jsxImportSource"):
        yield Finding(
            "jsx",
            f"JSX without jsxImportSource: {_some(jsx)}",
            'set "jsx": "react-jsx" and "jsxImportSource" under compilerOptions in '
            "deno.json",
        )
    native = [
        file.relative_to(task_root).parts
        for file in itertools.islice(
            (task_root / "node_modules").glob("**/*.node"), FILES_LIMIT
        )
    ]
    packages = sorted({_package(parts) for parts in native})
    if packages:
        yield Finding(
            "native-modules",
            f"packages with native code: {_some(packages)}",
            'allow them with permissions = "default --allow-ffi", and install them for '
            "the function's architecture",
        )


def _sources(task_root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(task_root):
        folders[:] = sorted(
            name for name in folders if name not in NOT_READ and name[0] != "."
        )
        for name in sorted(files):
            if name.endswith(SOURCE_SUFFIXES) and not name.endswith(".d.ts"):
                path = task_root / folder / name
                if path.is_file():
                    yield path


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(SOURCE_LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""
    # Kept as empty lines, so that the numbers of lines are right.
    return COMMENT.sub("", text)


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _package(parts: tuple[str, ...]) -> str:
    """Return the package that a path below node_modules belongs to."""
    last = len(parts) - 1 - parts[::-1].index("node_modules")
    length = 2 if parts[last + 1].startswith("@") else 1
    return "/".join(parts[last + 1 : last + 1 + length])


def _some(places: list[str]) -> str:
    more = len(places) - PLACES_SHOWN
    return ", ".join(places[:PLACES_SHOWN]) + (f" and {more} more" if more > 0 else "")
