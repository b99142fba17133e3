"""Build and run popular packages in every form: ``python -m tests.packages``.

Each package is used by a handler of one line, found in ``node_modules`` or by ``npm:``.
The function is built, the project is renamed away, the zip is unpacked elsewhere and
invoked without network, and the result is compared with that of ``invoke`` in the
project. Writes docs/packages.md with ``-o``. Needs npm, its registry, and minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import CACHE
from tests.integration.harness import deno_binary
from tests.packages.cases import CASES, OPTIONS, copy_needed, handler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOWHERE = "http://127.0.0.1:9/"  # the discard port: nothing listens
LIMIT_S = 300.0
FORMS = {"bundle": "bundle", "packages": "packages beside", "files": "files"}
# How a project finds a package, and the options of each build.
WAYS: Mapping[str, Sequence[Sequence[str]]] = {
    "node_modules": ((), ("--no-bundle",)),
    "npm": ((),),
}
HEAD = """# Packages from npm

This page is written by `python -m tests.packages -o docs/packages.md`. For each
package, a one-line handler ([cases.py](../tests/packages/cases.py)) uses it. The test
builds the function, moves the project away, unpacks the zip elsewhere and invokes it
there, without network and without this machine's Deno cache. "Same" means that the
result equals that of `lambda-deno-spawn invoke` in the project. Each cell begins with
the form that [`build`](build.md#what-is-bundled) chose: one bundle, a bundle with the
packages beside it, or the files unchanged; "+ cache" means that the zip contains the
cache.
"Runs, unlike `invoke`" means that the package reads one of its own files, which
handlers may read in the function's package, but not in Deno's cache.

| Package | from `node_modules` | with `--no-bundle` | by `npm:` |
|---|---|---|---|
"""


class Row(NamedTuple):
    """One package, and what became of it on each of the ways."""

    name: str
    version: str
    results: Sequence[str]


def main() -> None:
    """Run the cases that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=sorted(CASES))
    parser.add_argument("-o", "--output", type=Path, help="the page to write")
    arguments = parser.parse_args()
    shared = install(sorted(CASES))
    rows = []
    for name in arguments.packages:
        rows.append(run(name, shared))
        sys.stderr.write(_line(rows[-1]))
        if arguments.output:
            _record(arguments.output, rows[-1])
    if any("differs" in result for row in rows for result in row.results):
        sys.exit(1)


def _line(row: Row) -> str:
    return f"| `{row.name}` {row.version} | {' | '.join(row.results)} |\n"


def _record(page: Path, row: Row) -> None:
    """Write a row into the page; the rows of other packages stay."""
    rows = {row.name: _line(row)}
    if page.exists():
        for line in page.read_text("utf-8").splitlines(keepends=True):
            name = line.removeprefix("| `").partition("`")[0]
            if line.startswith("| `") and name in CASES:
                rows = {name: line, **rows}
    page.write_text(HEAD + "".join(rows[name] for name in sorted(rows)), "utf-8")


def install(names: Sequence[str]) -> Path:
    """Return a folder with ``node_modules`` that has packages, in their versions."""
    folder = CACHE / "packages"
    present = folder / "node_modules"
    if not all((present / name).is_dir() for name in names):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*command, *names], cwd=folder, check=True)
    return folder


def run(name: str, shared: Path) -> Row:
    """Build and invoke one package on all ways."""
    manifest = json.loads((shared / "node_modules" / name / "package.json").read_text())
    version = manifest["version"]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for way, builds in WAYS.items():
            project = Path(scratch, f"by-{way}", "project")
            project.mkdir(parents=True)
            code = handler(f"npm:{name}@{version}" if way == "npm" else name, name)
            (project / "function.mjs").write_text(code)
            cache = shared / "deno" if way == "npm" else Path(scratch, "empty")
            environ = {**os.environ, "DENO_DIR": str(cache)}
            if way == "npm":
                command = [deno_binary(), "cache", "--quiet", "--no-config"]
                subprocess.run(
                    [*command, "function.mjs"], cwd=project, env=environ, check=False
                )
            else:
                copy_needed(name, version, shared, project)
            more = OPTIONS.get(name, ())
            expected = _command("invoke", ".", *more, cwd=project, environ=environ)
            results += [_judge(project, environ, one, more, expected) for one in builds]
    return Row(name, version, results)


def _judge(
    project: Path,
    environ: Mapping[str, str],
    options: Sequence[str],
    more: Sequence[str],
    expected: subprocess.CompletedProcess[str],
) -> str:
    """Build a project and run its package; return the cell of the table."""
    command = ("build", *options, *more, "-o", "json")
    built = _command(*command, cwd=project, environ=environ)
    if built.returncode:
        return f"refused: {_first(built.stderr)}"
    package = json.loads(built.stdout)
    form = FORMS[package["form"]]
    if package["deno"] and any("code_cache" in name for name in package["files"]):
        form += " + cache"
    with tempfile.TemporaryDirectory(dir=project.parent) as task:
        with zipfile.ZipFile(project / package["path"]) as content:
            content.extractall(task)
        without = {
            **os.environ,
            "DENO_DIR": "",
            "HOME": task,
            "http_proxy": NOWHERE,
            "https_proxy": NOWHERE,
            "no_proxy": "127.0.0.1,localhost",
        }
        away = project.rename(project.with_name("away"))
        got = _command("invoke", ".", *more, cwd=Path(task), environ=without)
        away.rename(project)
    if got.stdout == expected.stdout and got.returncode == expected.returncode:
        return f"{form}: same" + (" error" if got.returncode else "")
    if expected.returncode and not got.returncode:
        return f"{form}: runs, unlike `invoke`"
    return (
        f"{form}: differs: {_first(got.stdout + got.stderr)}, "
        f"not {_first(expected.stdout + expected.stderr)}"
    )


def _command(
    *arguments: str, cwd: Path, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return as_text(run_command(*arguments, cwd=cwd, environ=environ, limit_s=LIMIT_S))


def _first(text: str) -> str:
    return " ".join(text.split())[:160].replace("|", "/")


if __name__ == "__main__":
    main()
