"""One JavaScript file with a handler and its imports, and the source map of that file.

Knows ``deno bundle``, ``deno check`` and ``deno info``, and makes their output equal on
all machines. Does not know packages or Lambda. Specification: docs/build.md; Deno
manual, "deno bundle"; ECMA-426, source map format.
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
from lambda_deno_spawn.launch.deno_json import PACKAGES, tool_flags
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A file of an npm package in Deno's cache: .../npm/REGISTRY/NAME/VERSION/...
NPM_PATH = re.compile(r"(?:.*/)?npm/[^/]+/((?:@[^/]+/)?[^/]+/\d[^/]*/.*)")
# Any use of import.meta, except import.meta.main.
USES_OWN_PLACE = re.compile(r"\bimport\.meta\b(?!\s*\.\s*main\b)")
# Matches strings too, to keep them: they may contain text that looks like a comment.
COMMENT = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"""
    r"|//[^\n]*|/\*.*?\*/",
    re.DOTALL,
)
COMMONJS_PLACE = re.compile(r"\b__(?:dirname|filename)\b")
DECLARES_PLACE = re.compile(r"\b(?:const|let|var)\s[^;=]*\b__(?:dirname|filename)\b")
# The end of a bundle whose handler's module is CommonJS.
COMMONJS_EXPORT = re.compile(r"export default (\w+)\(\);(\s*(?://#[^\n]*)?\s*)\Z")
READS_BESIDE = re.compile(
    r"new URL\([^()]*import\.meta\.url|import\.meta\.(?:dirname|filename)\b"
)
SHOWN_LINES = 20  # of Deno's error output
# A dynamic import whose argument is not a string or template literal.
UNKNOWN_IMPORT = re.compile(r"(?<![\w.$])import\s*\(\s*(?![\"'`\s])")
URL_SAFE = "/@:+,=&$!*'();~-._"
# Added to errors by Deno, for its own developers.
BACKTRACE = re.compile(r"\n*Stack backtrace:.*", re.DOTALL)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Adds nothing to the lines before it.
EMPTY_ERROR = re.compile(r"\n*error: bundling failed\n*\Z")


@dataclass(frozen=True, slots=True)
class Deno:
    """Deno for one project.

    Attributes:
        binary: The executable.
        task_root: The project's folder, which is the working folder of Deno.
        environ: The caller's environment.
    """

    binary: str
    task_root: Path
    environ: Mapping[str, str]

    def run(
        self,
        action: str,
        arguments: Sequence[str],
        advice: str = "",
        *,
        folder: Path | None = None,
        flags: Sequence[str] | None = None,
    ) -> str:
        """Run a subcommand with the project's configuration; return its stdout.

        Args:
            action: Purpose of the command, for ``Cannot <action>``.
            arguments: The subcommand and its arguments.
            advice: Text to add to the error message.
            folder: Where to run it; None: in the project's folder.
            flags: Flags for the project files; None: those of the project.

        Raises:
            BuildError: The command failed; the message contains its output.
        """
        if flags is None:
            flags = tool_flags(self.task_root)
        command = [self.binary, arguments[0], "--quiet", *flags, *arguments[1:]]
        variables = {**self.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
        try:
            done = subprocess.run(
                command,
                cwd=folder or self.task_root,
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
        """Type-check a module and its imports.

        Raises:
            BuildError: There are type errors.
        """
        self.run(f"check the types of {file.name!r}", ["check", file_url(file)])

    def info(self, file: Path) -> dict[str, Any]:
        """Return the module graph of a file, as ``deno info --json`` prints it.

        Raises:
            BuildError: A module is missing or cannot be read.
        """
        action = f"read the imports of {file.name!r}"
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
        more = f"and {len(lines) - SHOWN_LINES} more lines"
        said = "\n".join([*lines[:SHOWN_LINES], more])
    return said or f"Deno exited with code {done.returncode} and no message"


def bundle(
    deno: Deno,
    file: Path,
    target: Path,
    *,
    export: str,
    minify: bool,
    has_map: bool,
) -> list[str]:
    """Bundle a handler and its imports into one file.

    Args:
        deno: The project's Deno.
        file: The handler's module.
        target: Path of the bundle; its source map is written beside it.
        export: Name of the export that the bundle must have, even if the module is
            CommonJS.
        minify: Minify the bundle, which makes stack traces without a map unreadable.
        has_map: Keep the source map.

    Returns:
        Notes, as sentences.

    Raises:
        BuildError: A module is missing, cannot be bundled, or finds files by a path
            that differs in a bundle.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    options = ["--platform=deno", "--format=esm", "--sourcemap=linked"]
    if minify:
        options.append("--minify")
    deno.run(
        f"bundle {file.name!r}",
        ["bundle", *options, "-o", str(target), file_url(file)],
        "\nIf a module cannot be bundled, such as native code, use --no-bundle",
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
    """Return the name of a source that is the same on all machines.

    Args:
        source: Its name in the source map, relative to the bundle.
        here: The bundle's folder during the build.
        task_root: The project's folder.
        folder: The handler's folder, which contains the bundle on Lambda.
    """
    if "://" in source:
        return source
    path = Path(os.path.normpath(here / unquote(source)))
    if path.is_relative_to(task_root):
        return os.path.relpath(path, folder)
    npm = NPM_PATH.fullmatch(path.as_posix())
    if npm is None and PACKAGES in path.parts:  # above the project's folder
        return f"npm/{path.as_posix().rpartition(f'/{PACKAGES}/')[2]}"
    return f"npm/{npm[1]}" if npm else f"elsewhere/{path.name}"


def _named_export(name: str) -> str:
    """Return the code that exports a name of a CommonJS module from the bundle."""
    if name == "default":
        return r"export default \1();\2"
    return (
        r"var lambdaExports = \1(); export default lambdaExports; "
        f"var lambdaHandler = lambdaExports.{name}; "
        rf"export {{ lambdaHandler as {name} }};\2"
    )


def _as_written(names: Mapping[str, str], here: Path, deno: Deno) -> dict[str, str]:
    """Return the stable names of the sources, by their names in the bundle's text.

    The latter are relative to the working folder of Deno.
    """
    return {
        os.path.relpath(os.path.normpath(here / unquote(source)), deno.task_root): name
        for source, name in names.items()
        if "://" not in source
    }


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Replace local paths, in comments above modules and keys of CommonJS modules."""
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
    """Find modules that locate other files relative to themselves; return notes.

    In a bundle, ``import.meta`` describes the bundle instead of the module.

    Raises:
        BuildError: A module of the project does so, and is in another folder.
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
            f"Cannot bundle {_listed(lost)}: import.meta describes the bundle once it "
            "is bundled, so files found by it would be missing; move it into the "
            "handler's folder, or use --no-bundle (bundle = false in lambda.toml)"
        )
    if commonjs:
        raise BuildError(
            f"Cannot bundle {_listed(commonjs)}: a bundle has no __dirname and no "
            "__filename; use import.meta in the handler's folder, or use --no-bundle "
            "(bundle = false in lambda.toml)"
        )
    notes = []
    if doubtful:
        notes.append(
            f"{_listed(doubtful)} may read files beside itself, which are missing in a "
            "bundle; test it, or use --no-bundle"
        )
    if unknown:
        notes.append(
            f"{_listed(unknown)} imports a module by a name known only at run time, so "
            "it is not in the bundle; write the name as a string, or use --no-bundle"
        )
    return notes


def _listed(names: Iterable[str], shown: int = 3) -> str:
    found = sorted(set(names))
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(repr(name) for name in found[:shown]) + more
