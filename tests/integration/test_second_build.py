"""A second build: whatever changes, it gives what a build from scratch gives.

One project lives through all changes of a table, one after the other. After each the
package is built beside the record of the last build, and in an empty folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.package import build as build_module
from lambda_deno_spawn.dev.package.build import BuildOptions, build
from lambda_deno_spawn.dev.package.record import now_ns, record_path
from lambda_deno_spawn.dev.project.project import Arch, load_project
from tests.fixtures.packages import fetch_bundler
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.package.build import Package

pytestmark = pytest.mark.deno

SECOND_NS = 1_000_000_000
HANDLER = """\
import { lib } from "./lib";
import { shared } from "../shared/a.ts";
import { SILENT } from "../shared/silent.ts";
import { mapped } from "mapped";
import { pkg } from "pkg";
if (SILENT as boolean) console.log("silent");
export const handler = () => [lib, shared, mapped, pkg, new URL("./query.ts", "a:")];
"""
FILES = {
    "fn/function.ts": HANDLER,
    "fn/lib/index.ts": 'export const lib = "lib";\n',
    "fn/query.ts": "export const query = 1;\n",
    "fn/lambda.toml": 'name = "fn"\nexclude = ["*.log"]\n',
    "fn/deno.json": '{"importMap": "../maps/map.json", "nodeModulesDir": "manual"}',
    "fn/package.json": '{"dependencies": {"pkg": "*"}}',
    "fn/node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0", '
    '"type": "module", "main": "a.js"}',
    "fn/node_modules/pkg/a.js": 'export * from "./barrel.js";\n',
    "fn/node_modules/pkg/barrel.js": 'export * from "./inner.js";\n',
    "fn/node_modules/pkg/inner.js": 'import { dep } from "dep";\n'
    "export const pkg = dep + 1;\n",
    "fn/node_modules/pkg/b.js": 'export const pkg = "b";\n',
    "fn/node_modules/dep/package.json": '{"name": "dep", "version": "1.0.0", '
    '"type": "module", "main": "index.js"}',
    "fn/node_modules/dep/index.js": 'export const dep = "dep";\n',
    "fn/data/city.txt": "Ulm",
    "fn/data/tests.log": "",
    "fn/left-out/only.log": "",
    "fn/one.txt": "1",
    "fn/two.txt": "2",
    "shared/a.ts": 'export const shared = "shared";\n',
    "shared/silent.ts": "export const SILENT = false;\n",
    "maps/map.json": '{"imports": {"mapped": "../shared/mapped.ts"}}',
    "shared/mapped.ts": 'export const mapped = "mapped";\n',
    "shared/other.ts": 'export const mapped = "other";\n',
}


@dataclass
class Project:
    """A project that is built again and again."""

    folder: Path
    environ: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    builds: int = 0

    @property
    def package(self) -> Path:
        return self.folder / "out" / "fn.zip"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def built(self, out: str = "out") -> Package:
        options = BuildOptions(
            load_project(self.folder / "fn"),
            Arch.here(),
            self.folder / out,
            **{"is_seeded": False, **self.options},
        )
        return build(options, self.environ)

    def from_scratch(self) -> Package:
        self.builds += 1
        return self.built(f"scratch{self.builds}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    # As if each build began long after the files were written.
    monkeypatch.setattr(build_module, "now_ns", lambda: now_ns() + SECOND_NS)
    environ = {**os.environ, "DENO_DIR": fetch_bundler()}
    made = Project(tmp_path / "project", environ)
    for name, text in FILES.items():
        made.write(name, text)
    return made


def in_place(name: str, text: str) -> Callable[[Project], None]:
    """Return a change of a file that keeps its size, and the time in it."""

    def change(project: Project) -> None:
        path = project.folder / name
        before = path.stat()
        with path.open("r+") as file:
            file.write(text)
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def written(name: str, text: str) -> Callable[[Project], None]:
    return lambda project: project.write(name, text)


def linked(name: str, target: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return change


def moved_and_linked(project: Project) -> None:
    """The file stays the same one, but is now a link out of the project."""
    path = project.folder / "fn" / "two.txt"
    target = path.rename(project.folder / "two.txt")
    path.symlink_to(target)


def options(**given: Any) -> Callable[[Project], None]:
    return lambda project: project.options.update(given)


def environ(**given: str) -> Callable[[Project], None]:
    return lambda project: project.environ.update(given)


def shim(project: Project) -> None:
    """Deno becomes a script that starts another one, as version managers write it."""
    place = project.folder / "deno"
    real = project.environ.get("LAMBDA_DENO_BIN") or deno_binary()
    place.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    place.chmod(0o755)
    project.environ["LAMBDA_DENO_BIN"] = str(place)


def nested(project: Project) -> None:
    """A package has another version of what it needs."""
    place = "fn/node_modules/pkg/node_modules/dep"
    project.write(f"{place}/index.js", 'export const dep = "nested";\n')
    text = PACKAGE_JSON.format("index.js", name="dep")
    project.write(f"{place}/package.json", text)


PACKAGE_JSON = (
    '{{"name": "{name}", "version": "1.0.0", "type": "module", "main": "{}"}}'
)
# A name, the change, and whether the package differs after it.
CHANGES: list[tuple[str, Callable[[Project], None], bool]] = [
    ("a module", written("fn/lib/index.ts", 'export const lib = "new";\n'), True),
    ("a module, in place", in_place("fn/lib/index.ts",
        'export const lib = "wen"'), True),
    ("a module that comes first", written("fn/lib.ts",
        'export const lib = "1";\n'), True),
    ("a module above", written("shared/a.ts", 'export const shared = "2";\n'), True),
    (
        "a module that left nothing behind",
        written("shared/silent.ts", "export const SILENT = Date.now() > 0;\n"),
        True,
    ),
    ("the import map", written("maps/map.json",
        '{"imports": {"mapped": "../shared/other.ts"}}'), True),
    ("what it names", written("shared/other.ts", 'export const mapped = "3";\n'), True),
    ("a module of a package", in_place("fn/node_modules/pkg/inner.js",
        'import { dep } from "dep";\nexport const pkg = dep + 2;\n'), True),
    ("a barrel of a package", written("fn/node_modules/pkg/barrel.js",
        'export * from "./b.js";\n'), True),
    ("the main module of a package", written("fn/node_modules/pkg/package.json",
        PACKAGE_JSON.format("inner.js", name="pkg")), True),
    ("a package in a package", nested, True),
    ("configuration", written("fn/deno.json",
        '{"importMap": "../maps/map.json", "nodeModulesDir": "manual", '
        '"permissions": {"default": {"net": true}}}'), True),
    ("data", written("fn/data/city.txt", "Bonn"), True),
    ("data, in place", in_place("fn/data/city.txt", "Kiel"), True),
    ("the mode of a file", lambda project:
        (project.folder / "fn/data/city.txt").chmod(0o755), True),
    ("a new file", written("fn/data/new.txt", "new"), True),
    ("a file where all was left out", written("fn/left-out/new.txt", "new"), True),
    ("a file is gone", lambda project:
        (project.folder / "fn/data/new.txt").unlink(), True),
    ("an empty folder", lambda project: (project.folder / "fn/empty").mkdir(), True),
    ("a link", linked("fn/data/link.txt", "../one.txt"), True),
    ("where a link leads", linked("fn/data/link.txt", "../two.txt"), True),
    ("a file becomes a link", moved_and_linked, False),
    ("a module that is read as text", written("fn/query.ts", "export {};\n"), True),
    ("a pattern", written("fn/lambda.toml",
        'name = "fn"\nexclude = ["*.txt"]\n'), True),
    ("a variable of the function", written("fn/lambda.toml",
        'name = "fn"\n[env]\nAB = "1"\n'), True),
    ("a module that nothing imports", written("fn/other.ts", HANDLER), False),
    ("another handler", written("fn/lambda.toml",
        'name = "fn"\nhandler = "other.handler"\n'), True),
    ("an option", options(has_map=False), True),
    ("another one", options(is_minified=True), True),
    ("a variable of Deno", environ(DENO_TLS_CA_STORE="system"), False),
    ("a proxy in small letters", environ(http_proxy="http://127.0.0.1:9"), False),
    ("another program", shim, False),
]  # fmt: skip


@pytest.mark.long
def test_second_build_gives_what_a_first_one_would(project: Project) -> None:
    last = project.built()
    assert last.form == "bundle", last.notes
    for name, change, differs in CHANGES:
        assert record_path(project.package).exists(), f"no record before: {name}"
        change(project)
        second, first = project.built(), project.from_scratch()
        assert second.sha256 == first.sha256, name
        assert (second.notes, second.members) == (first.notes, first.members), name
        assert (second.sha256 != last.sha256) is differs, name
        last = second


FILE_CHANGES: list[tuple[str, Callable[[Project], None], bool]] = [
    ("a module of a package", written("fn/node_modules/pkg/inner.js",
        'export const pkg = "2";\n'), True),
    ("a file of a package that nothing imports", written(
        "fn/node_modules/pkg/data.txt", "data"), True),
    ("its mode", lambda project:
        (project.folder / "fn/node_modules/pkg/data.txt").chmod(0o755), True),
    ("a link in a package", linked("fn/node_modules/pkg/link.txt", "data.txt"), True),
    ("where it leads", linked("fn/node_modules/pkg/link.txt", "a.js"), True),
    ("a package that is needed", written("fn/package.json",
        '{"dependencies": {"pkg": "*", "@scope/one": "*"}}'), True),
    ("which is installed", written("fn/node_modules/@scope/one/index.js", ""), True),
    ("the registry", written("fn/.npmrc", "registry=https://example.com/\n"), True),
    ("a token", written("fn/.npmrc",
        "registry=https://example.com/\n//example.com/:_authToken=a\n"), False),
    ("a module", written("fn/lib/index.ts", 'export const lib = "new";\n'), True),
]  # fmt: skip


def test_second_build_of_files_gives_what_a_first_one_would(project: Project) -> None:
    project.write("fn/function.ts", 'import { pkg } from "pkg";\n'
                  'import { lib } from "./lib/index.ts";\n'
                  "export const handler = () => pkg + lib;\n")  # fmt: skip
    project.write("fn/deno.json", '{"nodeModulesDir": "manual"}')
    project.options["is_bundled"] = False
    last = project.built()
    assert last.form == "files", last.notes
    for name, change, differs in FILE_CHANGES:
        assert record_path(project.package).exists(), f"no record before: {name}"
        change(project)
        second, first = project.built(), project.from_scratch()
        assert second.sha256 == first.sha256, name
        assert (second.sha256 != last.sha256) is differs, name
        last = second


def test_what_a_module_does_with_a_variable_is_built_anew(project: Project) -> None:
    project.write("fn/function.ts",
                  'if (Deno.env.get("A")) throw new Error(Deno.env.get("A"));\n'
                  "export const handler = () => 1;\n")  # fmt: skip
    project.options["is_seeded"] = True
    quiet = project.built()
    assert quiet.notes == ()
    project.options["variables"] = {"A": "thrown"}
    assert "thrown" in project.built().notes[-1]
    # It may be loaded next time, so nothing is remembered of it.
    assert not record_path(project.package).exists()
    project.options["variables"] = {}
    assert project.built().sha256 == quiet.sha256


def test_module_from_a_server_is_watched_in_deno_s_cache(project: Project) -> None:
    address = "https://deno.land/x/a/mod.ts"
    cache = project.folder / "deno_dir"
    (cache / "dl").parent.mkdir()
    (cache / "dl").symlink_to(Path(project.environ["DENO_DIR"], "dl"))
    project.environ["DENO_DIR"] = str(cache)
    digest = hashlib.sha256(b"/x/a/mod.ts").hexdigest()
    said = {"headers": {"content-type": "application/typescript"}, "url": address}
    end = f"\n// denoCacheMetadata={json.dumps(said)}"

    def download(text: str) -> None:
        project.write(f"deno_dir/remote/https/deno.land/{digest}", text + end)

    project.write("fn/function.ts", f'export * from "{address}";\n')
    download("export const handler = () => 1;\n")
    first = project.built()
    assert record_path(project.package).exists()
    download("export const handler = () => 2;\n")
    second = project.built()
    assert second.sha256 == project.from_scratch().sha256 != first.sha256


def test_unchanged_project_does_not_start_deno(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project.built()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    assert project.built() == first
    shutil.rmtree(project.folder / "fn" / "data")
    with pytest.raises(AssertionError):
        project.built()
    assert json.loads(record_path(project.package).read_text())["states"]
