"""Differences that code from another platform meets here, found in its sources.

The other platforms are Node.js on Lambda, and Deno Deploy.

Knows the habits that need a setting or another line, and reads the function's own
files, not its packages. Where nothing has to be done it says nothing, except about
callbacks, because people ask. Does not run anything: a finding is a hint, so it is a
warning and never a problem. Specification: docs/compatibility.md, "What behaves
differently".
"""

from __future__ import annotations

import fnmatch
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
# Tests, and settings of tools, which are not part of the function either.
NOT_OF_IT = re.compile(
    r"(?:^|/)__(?:tests|mocks)__/|^(?:tests?|spec|e2e)/|[._-](?:test|spec)\.\w+$|"
    r"^(?:babel|eslint|jest|playwright|rollup|vite|vitest|webpack)\.config\.\w+$"
)
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
        re.compile(r"[\"'`]/tmp(?=[/\"'`])"),
        "a path in /tmp is written down",
        "use os.tmpdir() or Deno.env.get('TMPDIR'): each event has its own folder",
    ),
    Habit(
        "node-env",
        re.compile(
            r"process\.env(?:\.NODE_ENV\b|\[[\"'`]NODE_ENV)|"
            r"env\.get\([\"'`]NODE_ENV|\{[^{}]*\bNODE_ENV\b[^{}]*\}\s*=\s*process\.env"
        ),
        "NODE_ENV is read, and nothing sets it",
        'set it under [env] in lambda.toml: NODE_ENV = "production"',
    ),
    Habit(
        "programs",
        re.compile(
            r"(?:from|require\(|import\()\s*[\"'](?:node:)?child_process[\"']|"
            r"\bnew Deno\.Command\("
        ),
        "programs are started, which handlers may not do by default",
        'name each one: permissions = "default --allow-run=PROGRAM"',
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
            r"(?m)^(?:export\s+)?(?:(?:const|let|var)\s+\w*[cC]ache\w*\s*"
            r"(?::[^=\n]+)?=\s*(?:new (?:Weak)?Map|\{\})|"
            # Made by the first event, for those after it.
            r"(?:let|var)\s+\w*(?:[cC]ache|[cC]onn|[cC]lient|[pP]ool)\w*\s*"
            r"(?::[^=;\n]+)?(?:=\s*(?:null|undefined))?;?[ \t]*$)"
        ),
        "a cache or a connection is kept in module state, which is new for each event",
        "keep it outside, or let a process serve several events "
        "(LAMBDA_DENO_MAX_INVOCATIONS)",
    ),
    Habit(
        "middy-timeout",
        re.compile(r"timeoutEarlyInMillis\s*:\s*(?:1?\d{1,2}|200)\b"),
        "Middy's early timeout is later than the runtime's own, 200 ms before the end",
        "set it above LAMBDA_DENO_STOP_MARGIN_MS, for example to 500",
    ),
    Habit(
        "deno-kv",
        # Without a path, or with a file's. A value that is computed may be an address.
        re.compile(
            r"\bDeno\.openKv(?:\?\.)?\(\s*(?:\)|([\"'`])(?!https?://|:memory:|\$\{))"
        ),
        "a Deno KV database is opened on this disk, where data does not last",
        "keep the data in a service such as DynamoDB, or open a database that is one: "
        'Deno.openKv("https://…")',
    ),
    Habit(
        "deno-cron",
        re.compile(r"\bDeno\.cron\("),
        "a job is scheduled in the process, and no process runs between events",
        "give the job its own function, with a schedule under [[events]] in "
        "lambda.toml",
    ),
)
CALLBACK = re.compile(
    r"(?:handler\s*=\s*(?:function\b\s*\w*)?|function\s+handler)\s*"
    r"\(\s*\w+[^,()]*,\s*\w+[^,()]*,\s*\w+"
)
SPECIFIER = re.compile(
    r"(?m)(?:^|[;\s}])(?:from|import)\s*\(?\s*[\"']([^\"'\n]+)[\"']|"
    r"\brequire\(\s*[\"']([^\"'\n]+)[\"']"
)
DECORATOR = re.compile(r"(?m)^\s*@\w[\w.]*(?:\([^\n]*\))?\s*$|^\s*@\w[\w.]*\(")
# Packages whose decorators follow TypeScript's older proposal.
OLD_DECORATORS = (
    "@aws-lambda-powertools/", "@nestjs/", "class-transformer", "class-validator",
    "inversify", "reflect-metadata", "tsyringe", "type-graphql", "typeorm",
)  # fmt: skip
# Packages with native code, which is known before they are installed.
NATIVE = frozenset(
    {
        "argon2", "bcrypt", "better-sqlite3", "canvas", "couchbase", "ffi-napi",
        "node-rdkafka", "oracledb", "re2", "sharp", "sodium-native", "sqlite3",
    }
)  # fmt: skip
# Settings under which a process serves several events, so that module state lasts.
OF_STATE = frozenset({"cache", "cold-start"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A habit, and where it was found.

    Attributes:
        found: What it is, with up to three places.
        advice: What to do; empty: nothing.
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
    sources = _Sources(task_root)
    lasts = variables.get("LAMBDA_DENO_STRATEGY") == "server" or variables.get(
        "LAMBDA_DENO_MAX_INVOCATIONS", "1"
    ) not in ("", "1")
    permissions = variables.get("LAMBDA_DENO_PERMISSIONS", "")
    may_all = permissions.split()[:1] == ["all"]
    done = {
        "node-env": "NODE_ENV" in variables,
        "programs": may_all or "--allow-run" in permissions,
        "deno-kv": variables.get("DENO_KV_DEFAULT_PATH", "").startswith("http"),
        **dict.fromkeys(OF_STATE, lasts),
    }
    found = [
        Finding(habit.id, f"{habit.found}: {_some(seen)}", habit.advice)
        for habit, seen in sources.places.items()
        if not done.get(habit.id)
    ]
    may_ffi = may_all or "--allow-ffi" in permissions
    return [*found, *_of_files(task_root, sources, may_ffi=may_ffi)]


class _Sources:
    """The findings in the sources of a function.

    Attributes:
        places: Where each habit was found.
        imports: Where each module is imported that is neither a path nor an address.
        jsx: Files with JSX.
        callbacks: Where handlers take a callback.
        decorators: Files with decorators.
    """

    def __init__(self, task_root: Path) -> None:
        self.places: dict[Habit, list[str]] = {}
        self.imports: dict[str, str] = {}
        self.jsx: list[str] = []
        self.callbacks: list[str] = []
        self.decorators: list[str] = []
        for name in itertools.islice(_sources(task_root), FILES_LIMIT):
            self._read(task_root / name, name)

    def _read(self, path: Path, shown: str) -> None:
        text = _text(path)

        def place(match: re.Match[str]) -> str:
            return f"{shown}:{text.count(chr(10), 0, match.start()) + 1}"

        if path.suffix in (".tsx", ".jsx"):
            self.jsx.append(shown)
        for habit in HABITS:
            if (match := habit.pattern.search(text)) is not None:
                self.places.setdefault(habit, []).append(place(match))
        if (match := CALLBACK.search(text)) is not None:
            self.callbacks.append(place(match))
        if (match := DECORATOR.search(text)) is not None:
            self.decorators.append(place(match))
        for match in SPECIFIER.finditer(text):
            name = match[1] or match[2]
            if not name.startswith((".", "/", "#")) and ":" not in name:
                self.imports.setdefault(name, place(match))


def _of_files(
    task_root: Path, sources: _Sources, *, may_ffi: bool
) -> Iterator[Finding]:
    config = find_config(task_root)
    deno = {} if config is None else config_content(config)
    options = compiler_options(str(task_root / TSCONFIG))
    package = config_content(str(task_root / "package.json"))
    of_deno = {**options, **_object(deno.get("compilerOptions"))}
    dependencies = {
        name
        for key in ("dependencies", "devDependencies", "optionalDependencies")
        for name in _object(package.get(key))
    }
    mapped = (*_object(deno.get("imports")), *_object(package.get("imports")))
    known = [key.removesuffix("*") for key in mapped]
    # An import map of its own may hold any of them.
    has_map = bool(deno.get("importMap"))

    def is_known(name: str) -> bool:
        return (
            has_map
            or _package(("node_modules", *name.split("/"))) in dependencies
            or (task_root / "node_modules" / name).exists()
            or any(
                name == key or (key.endswith("/") and name.startswith(key))
                for key in known
            )
        )

    missing = [
        f"{name} in {place}"
        for name, place in sources.imports.items()
        if re.match(r"aws-sdk(?:/|$)|@aws-sdk/", name)
        and not is_known(name)
        and not is_known(_package(("node_modules", *name.split("/"))))
    ]
    if missing:
        yield Finding(
            "aws-sdk",
            f"an SDK is imported that managed Node.js provides: {_some(missing)}",
            "name it in package.json, or under imports in deno.json; aws-sdk (version "
            "2) is at its end: move to the packages @aws-sdk/client-…",
        )
    aliases = [
        alias
        for alias in _object(options.get("paths"))
        if not is_known(alias.removesuffix("*"))
    ]
    if aliases:
        yield Finding(
            "aliases",
            f"tsconfig.json has paths: {_some(aliases)}",
            "repeat them under imports in deno.json, where Deno looks for them",
        )
    base = options.get("baseUrl")
    below = [
        f"{name} in {place}"
        for name, place in sources.imports.items()
        if isinstance(base, str)
        and not is_known(name)
        and not any(fnmatch.fnmatch(name, alias) for alias in aliases)
        and (task_root / base / name.split("/")[0]).is_dir()
    ]
    if below:
        yield Finding(
            "base-url",
            f"imports begin at baseUrl of tsconfig.json: {_some(below)}",
            "name their folders under imports in deno.json, or write paths with ./",
        )
    if sources.jsx and not of_deno.get("jsxImportSource"):
        yield Finding(
            "jsx",
            f"JSX without jsxImportSource: {_some(sources.jsx)}",
            'set "jsx": "react-jsx" and "jsxImportSource" under compilerOptions in '
            "deno.json",
        )
    old = [name for name in sources.imports if name.startswith(OLD_DECORATORS)]
    if old and sources.decorators and not of_deno.get("experimentalDecorators"):
        yield Finding(
            "decorators",
            f"decorators for {_some(old)}: {_some(sources.decorators)}",
            'set "experimentalDecorators": true under compilerOptions in deno.json',
        )
    native = {
        _package(file.relative_to(task_root).parts)
        for file in itertools.islice(
            (task_root / "node_modules").glob("**/*.node"), FILES_LIMIT
        )
    }
    native |= {name for name in (dependencies | {*sources.imports}) if name in NATIVE}
    if native and not may_ffi:
        yield Finding(
            "native-modules",
            f"packages with native code: {_some(sorted(native))}",
            'allow them with permissions = "default --allow-ffi", and install them for '
            "the function's architecture",
        )
    if sources.callbacks:
        yield Finding(
            "callbacks",
            f"handlers take a callback, which works as on Node.js: "
            f"{_some(sources.callbacks)}",
            "",
        )


def _sources(task_root: Path) -> Iterator[str]:
    """Yield the paths of the function's sources, with slashes."""
    for folder, folders, files in os.walk(task_root):
        folders[:] = sorted(
            name for name in folders if name not in NOT_READ and name[0] != "."
        )
        for name in sorted(files):
            if name.endswith(SOURCE_SUFFIXES) and not name.endswith(".d.ts"):
                path = task_root / folder / name
                shown = path.relative_to(task_root).as_posix()
                if path.is_file() and NOT_OF_IT.search(shown) is None:
                    yield shown


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
