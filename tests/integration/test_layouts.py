"""Project files beside and above a handler: the same result as with ``deno run``.

Each layout is run by Deno itself, by ``invoke``, and as deployed: its package, with and
without a bundle, unpacked where the project is not.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import fetch_bundler
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.deno

# Deno runs the module itself; here the handler is called.
SHOWN = "\nif (import.meta.main) console.log(JSON.stringify(await handler()));\n"
HOISTED = {
    "package.json": {"private": True, "workspaces": ["packages/*"]},
    "node_modules/left/package.json": {"name": "left", "main": "i.js",
                                       "dependencies": {"right": "*"}},
    "node_modules/left/i.js": "let missing;"
    ' try { require("pg-native"); } catch (error) { missing = error.code; }'
    ' exports.left = [require("right"), missing];',
    "node_modules/right/package.json": {"name": "right", "main": "i.js"},
    "node_modules/right/i.js": 'module.exports = "right";',
}  # fmt: skip
TSCONFIG = {
    "extends": "./tsconfig.base.json",
    "compilerOptions": {"emitDecoratorMetadata": True, "outDir": "dist"},
}
DECORATED = """
import { name } from "./names.js";
import { other } from "./other";
const seen: unknown[] = [];
function told(...given: any[]) { seen.push(given.length, typeof given[1]); }
class Service { @told act(@told _text: string) {} }
export const handler = () => [name, other, seen, Service.name];
"""
LAYOUTS: dict[str, tuple[dict[str, Any], str, Any, bool]] = {
    # Name: files, handler's file, value, whether it can be packaged unbundled.
    "hoisted": (
        {
            **HOISTED,
            "packages/fn/package.json": {
                "type": "module",
                "imports": {"#lib/*": "./lib/*.ts", "#one": {"default": "./lib/a.ts"}},
                "dependencies": {"left": "*"},
            },
            "packages/fn/lib/a.ts": "export const a: number = 1;",
            "packages/fn/function.ts": 'import { left } from "left";'
            ' import { a } from "#lib/a"; import { a as one } from "#one";'
            "export const handler = () => [left, a, one];" + SHOWN,
        },
        "packages/fn/function.ts",
        [["right", "MODULE_NOT_FOUND"], 1, 1],
        True,
    ),
    "one-folder-up": (
        {
            "package.json": {"type": "module", "imports": {"#n": "./src/names.ts"}},
            "tsconfig.json": TSCONFIG,
            "tsconfig.base.json": '{"compilerOptions": {"experimentalDecorators":'
            " true}, // as Nest has it\n}",
            "src/names.ts": 'export const name: string = "name";',
            "src/other.ts": 'export { name as other } from "#n";',
            "src/lambda.ts": DECORATED + SHOWN,
        },
        "src/lambda.ts",
        ["name", "name", [3, "string", 3, "string"], "Service"],
        True,
    ),
    "workspace": (
        {
            "deno.json": {
                "workspace": ["./fn"],
                "imports": {"@here/": "./fn/lib/"},
                "compilerOptions": {"experimentalDecorators": True},
            },
            "fn/deno.json": {"name": "@x/fn", "version": "1.0.0", "exports": "./f.ts"},
            "fn/lib/a.ts": "export const a: number = 1;",
            "fn/f.ts": 'import { a } from "@here/a.ts"; const kinds: string[] = [];'
            "function told(...given: any[]) { kinds.push(typeof given[1]); }"
            "class Service { @told act() {} }"
            "export const handler = () => [a, kinds, Service.name];" + SHOWN,
        },
        "fn/f.ts",
        [1, ["string"], "Service"],
        True,
    ),
    "workspace-of-members": (
        {
            "deno.json": {"workspace": ["./fn", "./lib"]},
            "fn/deno.json": {},
            "lib/deno.json": {"name": "@x/lib", "exports": "./mod.ts"},
            "lib/mod.ts": "export const lib: number = 2;",
            "fn/f.ts": 'import { lib } from "@x/lib";'
            "export const handler = () => lib;" + SHOWN,
        },
        "fn/f.ts",
        2,
        False,
    ),
}


@pytest.fixture(scope="session")
def deno_dir() -> str:
    return fetch_bundler()


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, "utf-8")


def with_deno(file: Path, deno_dir: str) -> subprocess.CompletedProcess[str]:
    # Deno itself does not guess suffixes; bundlers and compilers for Node do.
    return subprocess.run(
        [deno_binary(), "run", "-A", "--quiet", "--unstable-sloppy-imports", str(file)],
        cwd=file.parent,
        env={**os.environ, "DENO_DIR": deno_dir, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def command(*arguments: str, cwd: Path, deno_dir: str) -> Any:
    environ = {**os.environ, "DENO_DIR": deno_dir}
    return as_text(run_command(*arguments, cwd=cwd, environ=environ))


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_what_deno_run_gives(
    tmp_path: Path, deno_dir: str, name: str
) -> None:
    files, handler, value, can_stay = LAYOUTS[name]
    project = tmp_path / "project"
    write(project, files)
    before = set(project.rglob("*"))
    said = with_deno(project / handler, deno_dir)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == value
    done = command("invoke", "--timeout", "60", handler, cwd=project, deno_dir=deno_dir)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == value
    done = command("doctor", handler, "-o", "json", cwd=project, deno_dir=deno_dir)
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["modules"]["status"] == "ok", checks["modules"]
    for option in ("--bundle", "--no-bundle"):
        out = tmp_path / f"out{option}"
        done = command(
            "build", handler, option, "--name", "f", "--out", str(out), cwd=project,
            deno_dir=deno_dir,
        )  # fmt: skip
        if option == "--no-bundle" and not can_stay:
            assert done.returncode == 3
            assert "outside the project's folder" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        elsewhere = tmp_path / f"task{option}"
        with zipfile.ZipFile(out / "f.zip") as package:
            package.extractall(elsewhere)
        stem = Path(handler).stem
        done = command(
            "invoke", "--timeout", "60", ".", "--handler", f"{stem}.handler",
            cwd=elsewhere, deno_dir=str(tmp_path / "empty"),
        )  # fmt: skip
        assert done.returncode == 0, (option, done.stderr)
        assert json.loads(done.stdout) == value, option
    assert set(project.rglob("*")) == before  # no lock file is written


@pytest.fixture
def server() -> Iterator[str]:
    """A server with one module; returns its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/javascript")
            self.end_headers()
            self.wfile.write(b"export const one = 1;")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/m.js"
        server.shutdown()
        thread.join()


@pytest.mark.cases(1)
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
def test_the_lock_file_of_a_workspace_counts(
    tmp_path: Path, server: str, is_right: bool
) -> None:
    """It was left out, so another version than the locked one was used silently."""
    content = b"export const one = 1;" if is_right else b"another version"
    digest = hashlib.sha256(content).hexdigest()
    lock = {"version": "5", "remote": {server: digest}}
    write(
        tmp_path / "project",
        {
            "deno.json": {"workspace": ["fn"], "lock": {"path": "my.lock"}},
            "my.lock": lock,
            "fn/deno.json": {},
            "fn/f.ts": f'import {{ one }} from "{server}";'
            "export const handler = () => one;" + SHOWN,
        },
    )
    fn = tmp_path / "project" / "fn"
    deno_dir = str(tmp_path / "deno_dir")
    said = with_deno(fn / "f.ts", deno_dir)
    done = command(
        "invoke", "--timeout", "60", "f.ts",
        "--env", "LAMBDA_DENO_PERMISSIONS=default --allow-import",
        cwd=fn, deno_dir=deno_dir,
    )  # fmt: skip
    assert (said.returncode == 0, done.returncode == 0) == (is_right, is_right)
    if is_right:
        assert said.stdout == done.stdout == "1\n"
    else:
        assert "Integrity check failed" in said.stderr
        assert "Integrity check failed" in done.stdout


def test_a_forgotten_install_is_told_in_deno_s_words(
    tmp_path: Path, deno_dir: str
) -> None:
    write(
        tmp_path,
        {
            "package.json": {"dependencies": {"hono": "^4"}},
            "f.ts": 'import { handle } from "hono/aws-lambda";'
            "export const handler = () => handle;" + SHOWN,
        },
    )
    said = with_deno(tmp_path / "f.ts", deno_dir)
    done = command("invoke", "--timeout", "60", "f.ts", cwd=tmp_path, deno_dir=deno_dir)
    reason = "Did you forget to run `deno install`?"
    assert reason in said.stderr
    assert reason in done.stdout
    assert "deno add" not in done.stdout
