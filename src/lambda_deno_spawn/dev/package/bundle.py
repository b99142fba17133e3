"""One JavaScript file from a handler and all that it imports, with its source map.

Knows ``deno bundle``, ``deno check`` and ``deno info``, and makes what they write the
same on every machine. Refuses to know packages and Lambda. Specification:
docs/build.md; Deno manual, "deno bundle"; ECMA-426, source map format.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import config_flags, find_config
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# In a package kept by Deno: .../npm/REGISTRY/NAME/VERSION/...
NPM_PATH = re.compile(r"(?:.*/)?npm/[^/]+/((?:@[^/]+/)?[^/]+/\d[^/]*/.*)")
# All but import.meta.main.
USES_OWN_PLACE = re.compile(r"\bimport\.meta\b(?!\s*\.\s*main\b)")
# Texts are kept: what looks like a comment in one is none.
COMMENT = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"""
    r"|//[^\n]*|/\*.*?\*/",
    re.DOTALL,
)
COMMONJS_PLACE = re.compile(r"\b__(?:dirname|filename)\b")
DECLARES_PLACE = re.compile(r"\b(?:const|let|var)\s[^;=]*\b__(?:dirname|filename)\b")
# How a bundle ends whose handler's module is CommonJS, whatever that exports.
COMMONJS_EXPORT = re.compile(r"export default (\w+)\(\);(\s*(?://#[^\n]*)?\s*)\Z")
READS_BESIDE = re.compile(
    r"new URL\([^()]*import\.meta\.url|import\.meta\.(?:dirname|filename)\b"
)
SHOWN_LINES = 20  # of what Deno says
# An import whose module is not known before it runs; a text with a part to fill in is.
UNKNOWN_IMPORT = re.compile(r"(?<![\w.$])import\s*\(\s*(?![\"'`\s])")
URL_SAFE = "/@:+,=&$!*'();~-._"
# What Deno adds to an error for its own developers.
BACKTRACE = re.compile(r"\n*Stack backtrace:.*", re.DOTALL)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Says no more than the lines before it.
EMPTY_ERROR = re.compile(r"\n*error: bundling failed\n*\Z")


@dataclass(frozen=True, slots=True)
class Deno:
    """Deno for one project.

    Attributes:
        binary: The executable.
        task_root: The project's folder, where it runs.
        environ: The caller's variables.
    """

    binary: str
    task_root: Path
    environ: Mapping[str, str]

    def run(self, action: str, arguments: Sequence[str], advice: str = "") -> str:
        """Run a subcommand with the project's configuration; return its stdout.

        Args:
            action: What it is for: ``Cannot <action>``.
            arguments: Subcommand first.
            advice: What to do if it fails.

        Raises:
            BuildError: It failed; the message holds what it said.
        """
        config = find_config(self.task_root)
        flags = config_flags(self.task_root, config)
        command = [self.binary, arguments[0], "--quiet", *flags, *arguments[1:]]
        variables = {**self.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
        try:
            done = subprocess.run(
                command,
                cwd=self.task_root,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise BuildError(
                f"Cannot start {self.binary!r}: {error.strerror}"
            ) from error
        if done.returncode != 0:
            raise BuildError(f"Cannot {action}:\n{_complaint(done)}{advice}")
        return done.stdout

    def check(self, file: Path) -> None:
        """Check the types of a module and of all that it imports.

        Raises:
            BuildError: There are errors in them.
        """
        self.run(f"check the types of {file.name!r}", ["check", file_url(file)])

    def info(self, file: Path) -> dict[str, Any]:
        """Return Deno's account of a module's dependencies.

        Raises:
            BuildError: One of them is missing or cannot be read.
        """
        action = f"read what {file.name!r} imports"
        graph: dict[str, Any] = json.loads(
            self.run(action, ["info", "--json", file_url(file)])
        )
        for module in graph["modules"]:
            if "error" in module:
                raise BuildError(f"Cannot {action}: {module['error']}")
        return graph


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    said = COLOUR.sub("", done.stderr or done.stdout)
    said = EMPTY_ERROR.sub("", BACKTRACE.sub("", said).strip())
    lines = said.splitlines()
    if len(lines) > SHOWN_LINES:
        more = f"and {len(lines) - SHOWN_LINES} more lines of this kind"
        said = "\n".join([*lines[:SHOWN_LINES], more])
    return said or f"Deno ended with exit code {done.returncode} and said nothing"


def bundle(
    deno: Deno,
    file: Path,
    target: Path,
    *,
    export: str,
    minify: bool,
    has_map: bool,
) -> list[str]:
    """Write a handler and all that it imports into one file.

    Args:
        deno: The project's Deno.
        file: The handler's module.
        target: Where the bundle goes; its source map goes beside it.
        export: Name of the export that has to be there, also if it is CommonJS's.
        minify: Make it smaller, and traces without a map unreadable.
        has_map: Keep the source map.

    Returns:
        What people should know about the result, as sentences.

    Raises:
        BuildError: A module is missing, is no JavaScript, or finds its data by a path
            that a bundle does not have.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    options = ["--platform=deno", "--format=esm", "--sourcemap=linked"]
    if minify:
        options.append("--minify")
    deno.run(
        f"bundle {file.name!r}",
        ["bundle", *options, "-o", str(target), file_url(file)],
        "\nWhat cannot be bundled, such as native code, can be kept with --no-bundle",
    )
    map_file = target.with_name(target.name + ".map")
    source_map = json.loads(map_file.read_text("utf-8"))
    here = target.parent.resolve()
    names = {
        source: stable_name(source, here, deno.task_root, file.parent)
        for source in source_map["sources"]
    }
    notes = _judge(source_map, names)
    text = with_names(target.read_text("utf-8"), _as_written(names, here, deno))
    text = COMMONJS_EXPORT.sub(_named_export(export), text)
    source_map["sources"] = [quote(name, safe=URL_SAFE) for name in names.values()]
    if has_map:
        map_file.write_text(
            json.dumps(source_map, ensure_ascii=False, separators=(",", ":")), "utf-8"
        )
    else:
        map_file.unlink()
        text = re.sub(r"\n//# sourceMappingURL=[^\n]*\n?\Z", "\n", text)
    target.write_text(text, "utf-8")
    return notes


def stable_name(source: str, here: Path, task_root: Path, folder: Path) -> str:
    """Return what a source is called wherever the bundle is made.

    Args:
        source: As in the source map: relative to the bundle.
        here: The bundle's folder while it is made.
        task_root: The project.
        folder: The handler's folder, where the bundle will lie.
    """
    if "://" in source:
        return source
    path = Path(os.path.normpath(here / unquote(source)))
    if path.is_relative_to(task_root):
        return os.path.relpath(path, folder)
    npm = NPM_PATH.fullmatch(path.as_posix())
    return f"npm/{npm[1]}" if npm else f"elsewhere/{path.name}"


def _named_export(name: str) -> str:
    """Return what makes one of CommonJS's exports an export of the bundle."""
    if name == "default":
        return r"export default \1();\2"
    return (
        r"var lambdaExports = \1(); export default lambdaExports; "
        f"var lambdaHandler = lambdaExports.{name}; "
        rf"export {{ lambdaHandler as {name} }};\2"
    )


def _as_written(names: Mapping[str, str], here: Path, deno: Deno) -> dict[str, str]:
    """Return the sources' names as they stand in the bundle itself.

    Those are relative to the folder where Deno ran.
    """
    return {
        os.path.relpath(os.path.normpath(here / unquote(source)), deno.task_root): name
        for source, name in names.items()
        if "://" not in source
    }


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Replace paths of this machine: comments above modules, keys of CommonJS ones."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("// ") and line[3:] in names:
            lines[number] = f"// {names[line[3:]]}"
        elif line.startswith('  "') and (end := line.find('"(', 3)) > 0:
            path = line[3:end]
            if path in names:
                lines[number] = f'  "{names[path]}{line[end:]}'
    return "\n".join(lines)


def _judge(source_map: dict[str, Any], names: Mapping[str, str]) -> list[str]:
    """Find modules that look for their data beside themselves.

    In a bundle, ``import.meta`` is the bundle's.

    Raises:
        BuildError: One of the project's own does so, from another folder.
    """
    lost, doubtful, commonjs, unknown = [], [], [], []
    for name, text in zip(
        names.values(), source_map.get("sourcesContent") or [], strict=False
    ):
        code = COMMENT.sub(lambda found: found[1] or "", text or "")
        if name.startswith("npm/"):
            if READS_BESIDE.search(code):
                doubtful.append(name.removeprefix("npm/"))
            continue
        if UNKNOWN_IMPORT.search(code):
            unknown.append(name)
        if "/" in name and USES_OWN_PLACE.search(code):
            lost.append(name)
        elif COMMONJS_PLACE.search(code) and not DECLARES_PLACE.search(code):
            commonjs.append(name)
    if lost:
        raise BuildError(
            f"Cannot bundle {_listed(lost)}: import.meta there is another place once "
            "it is bundled, so what it finds by it would be missing; move it into the "
            "handler's folder, or keep the files with --no-bundle "
            "(bundle = false in lambda.toml)"
        )
    if commonjs:
        raise BuildError(
            f"Cannot bundle {_listed(commonjs)}: a bundle has no __dirname and no "
            "__filename; use import.meta in the handler's folder, or keep the files "
            "with --no-bundle (bundle = false in lambda.toml)"
        )
    notes = []
    if doubtful:
        notes.append(
            f"{_listed(doubtful)} may look for files beside itself, which a bundle "
            "does not have; test it, or keep the files with --no-bundle"
        )
    if unknown:
        notes.append(
            f"{_listed(unknown)} imports what is known only when it runs, which is not "
            "in the bundle; write the names out, or keep the files with --no-bundle"
        )
    return notes


def _listed(names: Iterable[str], shown: int = 3) -> str:
    found = sorted(set(names))
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(repr(name) for name in found[:shown]) + more
