"""``build`` as people run it, with real Deno and real npm packages."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import pytest

from lambda_deno_spawn import native
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download, fetch_bundler, install
from tests.integration.harness import LIMIT_S, deno_binary
from tests.packages.cases import copy_needed, handler

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.deno

EXAMPLES = Path(__file__).parents[2] / "examples"
FIXTURES = Path(__file__).parents[1] / "fixtures"
HANDLER = 'export const handler = () => "here";\n'
OTHER = next(arch for arch in Arch if arch is not Arch.here())
NOWHERE = "http://127.0.0.1:9/"  # the discard port: nobody listens


class Build(Protocol):
    """Runs the command; returns the finished process."""

    def __call__(
        self, *arguments: str, **environ: str
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def deno_dir() -> str:
    """Deno's cache with the packages of the examples and what bundles them."""
    download(EXAMPLES / "hono-api")
    return fetch_bundler()


@pytest.fixture
def build(tmp_path: Path, deno_dir: str) -> Build:
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "DENO_DIR": deno_dir, **environ}
        done = run_command("build", *arguments, cwd=tmp_path, environ=environ)
        return as_text(done)

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "orders"
    folder.mkdir()
    return folder


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as content:
        return {name: content.read(name) for name in content.namelist()}


def addresses(database: bytes, table: str, scratch: Path) -> list[str]:
    """Return the modules that a database of the cache knows."""
    copy = scratch / "copy"
    copy.write_bytes(database)
    with closing(sqlite3.connect(copy)) as connection:
        found = connection.execute(f"SELECT specifier FROM {table}").fetchall()
    return [address for (address,) in found if address.startswith("file:")]


def test_package_holds_bundle_map_data_and_cache(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'import { place } from "./lib/place.ts";\n'
            "export const handler = (): string => place;\n",
            "lib/place.ts": 'export const place: string = "here";\n',
            "data/cities.json": "[]",
            ".env": "SECRET=1",
            "README.md": "# Orders",
        },
    )
    done = build("orders")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "dist/orders.zip" in done.stdout
    assert "(of 50)" in done.stdout
    assert "(of 250 with layers)" in done.stdout
    package = members(tmp_path / "dist" / "orders.zip")
    code = {name for name in package if not name.startswith(".deno_dir/")}
    assert code == {"data/cities.json", "function.bundle.js", "function.bundle.js.map"}
    source_map = json.loads(package["function.bundle.js.map"])
    assert sorted(source_map["sources"]) == ["function.ts", "lib/place.ts"]
    assert b"// lib/place.ts" in package["function.bundle.js"]
    databases = {
        "dep_analysis_cache_v2": "moduleinfocache",
        "v8_code_cache_v2": "codecache",
    }
    for name, table in databases.items():
        assert "file:///var/task/function.bundle.js" in addresses(
            package[f".deno_dir/{name}"], table, tmp_path
        )
        for end in ("-shm", "-wal"):
            assert package[f".deno_dir/{name}{end}"] == b""
    assert (
        json.loads(package[".deno_dir/lambda-deno-spawn.json"])["arch"] == Arch.here()
    )


def test_package_is_the_same_wherever_it_is_built(
    build: Build, tmp_path: Path, deno_dir: str
) -> None:
    """Another place for the project, for temporary files and for Deno's cache."""
    built = []
    for place in ("one", "a-longer-one"):
        folder = tmp_path / place
        shutil.copytree(EXAMPLES / "hono-api", folder / "hono-api")
        (folder / "tmp").mkdir()
        cache = folder / "cache"
        cache.symlink_to(deno_dir)
        done = build(
            f"{place}/hono-api",
            "--out",
            place,
            TMPDIR=str(folder / "tmp"),
            DENO_DIR=str(cache),
        )
        assert done.returncode == 0, done.stderr
        built.append((folder / "hono-api.zip").read_bytes())
        assert list((folder / "tmp").iterdir()) == []
    assert built[0] == built[1]
    text = built[0] + b"".join(members(folder / "hono-api.zip").values())
    assert str(tmp_path).encode() not in text
    assert str(Path.home() / ".cache").encode() not in text


def test_json_tells_a_script_all_of_it(build: Build, project: Path) -> None:
    write(
        project, {"src/api.ts": HANDLER, "lambda.toml": 'handler = "src/api.handler"'}
    )
    done = build("orders", "--name", "shop", "-o", "json", "--no-cache")
    package: dict[str, Any] = json.loads(done.stdout)
    assert Path(package["path"]) == Path("dist/shop.zip")
    assert package["handler"] == "src/api.handler"
    assert set(package["files"]) == {"src/api.bundle.js", "src/api.bundle.js.map"}
    assert package["unzippedBytes"] == sum(package["files"].values())
    assert package["deno"] is None


def test_files_and_their_packages_are_kept_and_run_without_network(
    build: Build, tmp_path: Path
) -> None:
    done = build(str(EXAMPLES / "hono-api"), "--no-bundle")
    assert done.returncode == 0, done.stderr
    task = tmp_path / "task"
    with zipfile.ZipFile(tmp_path / "dist" / "hono-api.zip") as content:
        content.extractall(task)
    assert (task / "books.ts").is_file()
    assert (task / "deno.lock").is_file()
    program = task / "program.ts"
    program.write_text(
        'import app from "./function.ts";\n'
        'const answer = await app.request("/books?q=pride");\n'
        "console.log(answer.status);\n"
    )
    ran = subprocess.run(
        [deno_binary(), "run", "--frozen", "--allow-env", "--allow-read", str(program)],
        env={
            "DENO_DIR": str(task / ".deno_dir"),
            "HOME": str(tmp_path),
            "NPM_CONFIG_REGISTRY": "https://registry.npmjs.org/",
            "https_proxy": NOWHERE,
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.returncode) == ("200\n", 0), ran.stderr


def test_network_is_not_needed_for_what_is_cached(build: Build, tmp_path: Path) -> None:
    done = build(
        str(EXAMPLES / "hono-api"), http_proxy=NOWHERE, https_proxy=NOWHERE, no_proxy=""
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dist" / "hono-api.zip").is_file()


def test_node_modules_are_kept_with_their_links(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.mjs": 'import { word } from "a-word";\n'
            "export const handler = () => word;\n",
            "package.json": '{"dependencies": {"a-word": "1.0.0"}}',
            "node_modules/.store/a-word/package.json": '{"name": "a-word", '
            '"version": "1.0.0", "type": "module", "exports": "./index.js"}',
            "node_modules/.store/a-word/index.js": 'export const word = "yes";\n',
        },
    )
    (project / "node_modules" / "a-word").symlink_to(".store/a-word")
    done = build("orders", "--no-bundle")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "dist" / "orders.zip") as content:
        link = content.getinfo("node_modules/a-word")
        assert content.read(link) == b".store/a-word"
        assert link.external_attr >> 28 == 0o12  # stat(2): S_IFLNK
        assert "node_modules/.store/a-word/index.js" in content.namelist()


def test_permission_sets_are_kept_and_imports_are_not(
    build: Build, project: Path, tmp_path: Path
) -> None:
    config = """{
      "permissions": { "default": { "net": true } }, // why
      "imports": { "a": "./a.ts" },
    }"""
    write(
        project,
        {
            "function.ts": 'import { b } from "a";\nexport const handler = () => b;\n',
            "a.ts": "export const b = 1;\n",
            "deno.json": config,
        },
    )
    assert build("orders").returncode == 0
    package = members(tmp_path / "dist" / "orders.zip")
    assert json.loads(package["deno.json"]) == {
        "permissions": {"default": {"net": True}}
    }


def test_module_is_loaded_with_the_project_s_variables_and_hardly_any_of_the_caller_s(
    build: Build, project: Path
) -> None:
    write(
        project,
        {
            "function.ts": "const seen = Deno.env.toObject();\n"
            "throw new Error(JSON.stringify(seen));\n"
            "export const handler = () => 1;\n",
            "lambda.toml": '[env]\nTABLE = "orders"\n',
        },
    )
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_PROFILE": "a-secret",
        "AWS_SHARED_CREDENTIALS_FILE": "/a-secret",
        "GITHUB_TOKEN": "a-secret",
        "HOME": "/a-secret",
        "NPM_TOKEN": "a-secret",
    }
    done = build("orders", "--env", "GIVEN=1", **secrets)
    assert done.returncode == 0, done.stderr
    assert '"TABLE":"orders"' in done.stderr
    assert '"GIVEN":"1"' in done.stderr
    assert "a-secret" not in done.stderr
    assert "its cache is incomplete" in done.stderr


def test_what_is_given_for_loading_is_not_in_the_package(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'const token = Deno.env.get("API_TOKEN");\n'
            "await import(`data:text/javascript,export const t = '${token}'`);\n"
            "new Function(`return '${token}'`)();\n" + HANDLER
        },
    )
    done = build("orders", "--env", "API_TOKEN=s3cr3tvalue")
    assert (done.returncode, done.stderr) == (0, "")
    package = members(tmp_path / "dist" / "orders.zip")
    assert ".deno_dir/v8_code_cache_v2" in package
    assert not [name for name, content in package.items() if b"s3cr3tvalue" in content]


def test_loading_a_module_changes_nothing_in_the_package(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'Deno.writeTextFileSync("injected.txt", "");\n'
            "const own = new URL(import.meta.url);\n"
            'Deno.writeTextFileSync(own, "replaced");\n' + HANDLER,
            "lambda.toml": 'permissions = "all"\n',
        },
    )
    done = build("orders")
    assert (done.returncode, done.stderr) == (0, "")
    package = members(tmp_path / "dist" / "orders.zip")
    assert "injected.txt" not in package
    assert b"replaced" not in package["function.bundle.js"].split(b"\n")[0]
    assert b"injected.txt" in package["function.bundle.js"]


def test_what_a_module_has_started_ends_with_it(
    build: Build, project: Path, tmp_path: Path
) -> None:
    """It held the pipe open, and the build waited for its end."""
    pid = tmp_path / "pid"
    write(
        project,
        {
            "function.ts": 'const program = new Deno.Command("sleep", '
            '{ args: ["300"] }).spawn();\n'
            f"Deno.writeTextFileSync({json.dumps(str(pid))}, String(program.pid));\n"
            "Deno.exit(3);\n" + HANDLER,
            "lambda.toml": 'permissions = "all"\n',
        },
    )
    done = build("orders")
    assert done.returncode == 3
    assert "Cannot load the package: Deno exited with code 3 while" in done.stderr
    assert not psutil.pid_exists(int(pid.read_text())) or (
        psutil.Process(int(pid.read_text())).status() == psutil.STATUS_ZOMBIE
    )


COMMONJS = {
    "cjs": ("function.cjs", "exports.handler = async () => 'here';\n"),
    "js": ("function.js", "module.exports = { handler: () => 'here' };\n"),
    "require": (
        "function.js",
        "module.exports.handler = () => require('./a.json').a;\n",
    ),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("form", "option"),
    [
        # Each form and each option once; the other pairs are long.
        pytest.param(form, option, marks=() if place == other else pytest.mark.long)
        for place, form in enumerate(COMMONJS)
        for other, option in enumerate(["", "--minify", "--no-source-map"])
    ],
)
def test_a_handler_in_commonjs_is_found_in_its_bundle(
    build: Build, project: Path, tmp_path: Path, form: str, option: str
) -> None:
    name, text = COMMONJS[form]
    write(project, {name: text, "a.json": '{"a": "here"}'})
    done = build("orders", *filter(None, [option]))
    assert (done.returncode, done.stderr) == (0, "")
    task = tmp_path / "task"
    with zipfile.ZipFile(tmp_path / "dist" / "orders.zip") as content:
        content.extractall(task)
    assert invoke(task) == "here"


def invoke(task: Path) -> object:
    done = run_command("invoke", "--timeout", "60", task)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", ["ümläut", "h#ash", "per%20cent", "a blank", "[b]"])
@pytest.mark.parametrize("option", ["--bundle", "--no-bundle"])
def test_a_project_may_lie_anywhere(
    build: Build, tmp_path: Path, place: str, option: str
) -> None:
    project = tmp_path / place / "orders"
    write(
        project,
        {
            "function.ts": 'import { street } from "./lib/straße.ts";\n'
            "export const handler = () => [street, import.meta.dirname !== null];\n",
            "lib/straße.ts": 'export const street: string = "Hauptstraße";\n',
        },
    )
    done = build(f"{place}/orders", option)
    assert (done.returncode, done.stderr) == (0, "")
    archive = tmp_path / "dist" / "orders.zip"
    package = members(archive)
    if option == "--bundle":
        source_map = json.loads(package["function.bundle.js.map"])
        assert sorted(source_map["sources"]) == ["function.ts", "lib/stra%C3%9Fe.ts"]
    else:
        assert "lib/straße.ts" in package
    table = addresses(package[".deno_dir/v8_code_cache_v2"], "codecache", tmp_path)
    assert any(address.startswith("file:///var/task/function.") for address in table)


def test_a_package_that_is_unpacked_and_used_stays_as_it_is(
    build: Build, tmp_path: Path
) -> None:
    """Deno wrote to the cache in it, which the next one would have packaged."""
    done = build(str(EXAMPLES / "hono-api"), "--no-bundle")
    assert done.returncode == 0, done.stderr
    task = tmp_path / "task"
    with zipfile.ZipFile(tmp_path / "dist" / "hono-api.zip") as content:
        content.extractall(task)
    before = {path: path.read_bytes() for path in task.rglob("*") if path.is_file()}
    event = EXAMPLES / "hono-api" / "events" / "search.json"
    environ = {k: v for k, v in os.environ.items() if k != "DENO_DIR"}
    ran = run_command(
        "invoke", "--timeout", "60", task, "--event", f"@{event}", environ=environ
    )
    assert ran.returncode == 0, ran.stderr
    after = {path: path.read_bytes() for path in task.rglob("*") if path.is_file()}
    assert after == before


def test_tokens_of_npm_are_not_packaged(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": HANDLER,
            ".npmrc": "//registry.example/:_authToken=npm_SECRET\n"
            "registry=https://registry.example/\n"
            "@ours:registry = https://ada:SECRET@registry.example/\n"
            "_password=SECRET\n",
        },
    )
    assert build("orders", "--no-bundle").returncode == 0
    package = members(tmp_path / "dist" / "orders.zip")
    assert package[".npmrc"] == b"registry=https://registry.example/\n"
    write(project, {"lambda.toml": 'exclude = [".npmrc"]\n'})
    assert build("orders", "--no-bundle").returncode == 0
    assert ".npmrc" not in members(tmp_path / "dist" / "orders.zip")


def test_a_link_out_of_the_project_is_told(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"shared/words.txt": "hello"})
    write(project, {"function.ts": HANDLER})
    (project / "data").symlink_to("../shared")
    done = build("orders")
    assert "'data/words.txt' is a link to " in done.stderr
    package = members(tmp_path / "dist" / "orders.zip")
    assert package["data/words.txt"] == b"hello"


def test_another_file_that_is_used_is_told(build: Build, project: Path) -> None:
    write(project, {"function.ts": HANDLER, "function.js": HANDLER})
    done = build("orders/function.ts")
    assert "function.js' runs instead of 'orders/function.ts'" in done.stderr


def test_a_build_that_is_terminated_leaves_nothing(
    project: Path, tmp_path: Path, deno_dir: str
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    write(
        project,
        {
            "function.ts": f"Deno.writeTextFileSync({json.dumps(str(started))}, '');\n"
            "await new Promise((done) => setTimeout(done, 60_000));\n" + HANDLER,
            "lambda.toml": 'permissions = "all"\n',
        },
    )
    temp = tmp_path / "temp"
    temp.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "lambda_deno_spawn", "build", "orders"],
        cwd=tmp_path,
        env={**os.environ, "DENO_DIR": deno_dir, "TMPDIR": str(temp)},
        stderr=subprocess.DEVNULL,
    )
    started.read_bytes()  # waits until the module is being loaded
    children = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(LIMIT_S) == 143
    _, alive = psutil.wait_procs(children, timeout=LIMIT_S)
    assert alive == []
    assert list(temp.iterdir()) == []


def test_code_for_another_machine_is_not_pretended(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(project, {"function.ts": HANDLER})
    done = build("orders", "--arch", OTHER)
    assert done.returncode == 0
    assert "V8's code is not in the cache" in done.stderr
    package = members(tmp_path / "dist" / "orders.zip")
    assert ".deno_dir/dep_analysis_cache_v2" in package
    assert ".deno_dir/v8_code_cache_v2" not in package


def test_deno_of_another_machine_makes_its_code(
    build: Build, project: Path, tmp_path: Path
) -> None:
    """Stood in for by a script around this machine's: that it is asked is the point."""
    emulated = tmp_path / "deno"
    emulated.write_text(f'#!/bin/sh\nexec {deno_binary()} "$@"\n')
    emulated.chmod(0o755)
    write(project, {"function.ts": HANDLER})
    done = build("orders", "--arch", OTHER, "--target-deno", str(emulated))
    assert (done.returncode, done.stderr) == (0, "")
    package = members(tmp_path / "dist" / "orders.zip")
    assert ".deno_dir/v8_code_cache_v2" in package


@pytest.mark.parametrize(
    ("files", "arguments", "sentence"),
    [
        pytest.param(
            {"function.ts": 'import "./missing.ts";\n' + HANDLER},
            [],
            "Cannot bundle 'function.ts':\nerror: Module not found",
            id="missing-module",
        ),
        pytest.param(
            {"function.ts": 'import "./missing.ts";\n' + HANDLER},
            ["--no-bundle"],
            "Cannot read the imports of 'function.ts': ",
            id="missing-module-no-bundle",
        ),
        pytest.param(
            {"function.ts": "export const handler = () => (1;\n"},
            [],
            "Cannot bundle 'function.ts':\nerror: SyntaxError: Expected ',', got ';'",
            id="syntax-error",
        ),
        pytest.param(
            {"function.ts": 'export const handler = (): number => "text";\n'},
            ["--check"],
            "Cannot check the types of 'function.ts':\n"
            "TS2322 [ERROR]: Type 'string' is not assignable to type 'number'",
            id="type-error",
        ),
        pytest.param(
            {"function.ts": "export const other = () => 1;\n"},
            [],
            "Cannot load the package: Runtime.HandlerNotFound: ",
            id="no-such-export",
        ),
        pytest.param(
            {
                "function.ts": 'export { handler } from "./lib/data.ts";\n',
                "lib/data.ts": "export const handler = () => import.meta.dirname;\n",
            },
            ["--bundle"],
            "Cannot bundle the function: 'lib/data.ts' uses import.meta, which",
            id="own-place-is-lost",
        ),
        pytest.param(
            {
                "function.ts": 'export { handler } from "./lib/data.ts";\n',
                "lib/data.ts": "export const handler = () =>\n"
                '  import.meta.resolve("a");\n',
            },
            ["--bundle"],
            "Cannot bundle the function: 'lib/data.ts' looks for other modules",
            id="own-place-is-resolved",
        ),
        pytest.param(
            {
                "function.cjs": "exports.handler = require('./lib/a.cjs').handler;\n",
                "lib/a.cjs": "exports.handler = () => __dirname;\n",
            },
            ["--bundle"],
            "Cannot bundle the function: 'lib/a.cjs' uses __dirname or __filename",
            id="commonjs-place",
        ),
        pytest.param(
            {
                "function.ts": 'import "a";\n' + HANDLER,
                "deno.json": '{"importMap": "../map.json"}',
            },
            ["--no-bundle"],
            "Cannot package the import map '../map.json' that deno.json names: it is "
            "outside",
            id="import-map-above",
        ),
        pytest.param(
            {"function.ts": "Deno.exit(7);\n" + HANDLER},
            [],
            "Cannot load the package: Deno exited with code 7 while it loaded",
            id="module-that-exits",
        ),
        pytest.param(
            {"function.ts": HANDLER, "a\\b.txt": ""},
            [],
            "Cannot build 'orders': ",
            id="a-name-that-no-zip-holds",
        ),
        pytest.param(
            {"function.ts": 'export { handler } from "../outside.ts";\n'},
            ["--no-bundle"],
            "it is outside the project's folder",
            id="outside",
        ),
        pytest.param(
            {"function.ts": HANDLER},
            ["--arch", OTHER, "--target-deno", "/bin/sh"],
            f"Cannot use '/bin/sh' for {OTHER}: it is for ",
            id="deno-of-another-machine",
        ),
        pytest.param(
            {"function.ts": HANDLER, "deno.sh": "#!/bin/sh\n"},
            ["--target-deno", "orders/deno.sh"],
            "Cannot start 'orders/deno.sh': Permission denied",
            id="deno-that-cannot-run",
        ),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_the_last_package(
    build: Build,
    project: Path,
    tmp_path: Path,
    files: dict[str, str],
    arguments: list[str],
    sentence: str,
) -> None:
    write(project, files)
    outside = {"outside.ts": HANDLER, "map.json": '{"imports": {"a": "./outside.ts"}}'}
    write(tmp_path, {**outside, "dist/orders.zip": "the last one"})
    done = build("orders", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert sentence in done.stderr
    assert "Stack backtrace" not in done.stderr
    assert (tmp_path / "dist" / "orders.zip").read_text() == "the last one"
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["orders.zip"]


def same_elsewhere(
    build: Build,
    project: Path,
    *options: str,
    event: str = "{}",
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build a project, take it away, and compare its package with it; return facts."""
    variables = [f"--env={name}={text}" for name, text in (environ or {}).items()]
    expected = run_command("invoke", "--timeout", "60", project, "--event", event)
    done = build(project.name, "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    package: dict[str, Any] = json.loads(done.stdout)
    task = project.parent / f"task{len(list(project.parent.iterdir()))}"
    with zipfile.ZipFile(project.parent / package["path"]) as content:
        content.extractall(task)
    away = project.rename(project.with_name("away"))
    got = run_command("invoke", "--timeout", "60", task, "--event", event, *variables)
    away.rename(project)
    assert (got.stdout, got.returncode) == (expected.stdout, 0), got.stderr
    return package


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("express", "bundle"),
        ("express --no-bundle", "files"),
        ("knex", "packages"),
        pytest.param("pdfkit", "packages", marks=pytest.mark.long),
    ],
)
def test_popular_packages_run_elsewhere(
    build: Build, project: Path, name: str, form: str
) -> None:
    """One of each cause; ``make test-packages`` has them all, also by ``npm:``."""
    name, *options = name.split()
    installed = install(FIXTURES / "packages-project")
    copy_needed(name, "*", installed, project)
    write(project, {"function.mjs": handler(name, name)})
    assert same_elsewhere(build, project, *options)["form"] == form


@pytest.mark.cases(1)
@pytest.mark.parametrize("option", ["", "--no-bundle", "--minify"])
def test_an_ordinary_application_in_commonjs_runs_elsewhere(
    build: Build, project: Path, option: str
) -> None:
    """Files named without suffix, a folder, JSON, __dirname, legal comments."""
    write(
        project,
        {
            "function.js": 'const app = require("./app");\n'
            "exports.handler = async (event) => app.run(event);\n",
            "app.js": "/*! @license app */\n"
            'const { readFileSync } = require("node:fs");\n'
            'const legal = require("legal"), lib = require("./lib");\n'
            'const { name } = require("./package.json");\n'
            "exports.run = () => [legal(), lib.place, name,\n"
            '  readFileSync(__dirname + "/data/a.txt", "utf8")];\n',
            "lib/index.js": 'exports.place = "lib";\n',
            "data/a.txt": "text",
            "package.json": '{"name": "app", "dependencies": {"legal": "1.0.0"}}',
            "node_modules/legal/package.json": '{"name": "legal", "version": "1.0.0"}',
            "node_modules/legal/index.js": "/*!\n * legal\n * @license MIT\n */\n"
            "module.exports = () => typeof __dirname;\n"
            "module.exports.usage = 'use __dirname + \"/themes\"';\n",
        },
    )
    package = same_elsewhere(build, project, *filter(None, [option]))
    assert package["form"] == ("files" if option == "--no-bundle" else "bundle")
    assert package["notes"] == []


@pytest.mark.cases(1)
@pytest.mark.parametrize("options", [(), ("--minify",)], ids=str)
def test_classes_have_the_names_that_they_have_unbundled(
    build: Build, project: Path, options: tuple[str, ...]
) -> None:
    """The types of errors, above all: one that mentions itself, two with one name."""
    write(
        project,
        {
            "function.ts": 'import { gone } from "./lib/gone.ts";\n'
            'import Base from "./lib/base.ts";\n'
            "class NotFound extends Base {}\n"
            "class Late extends Base { static of() { return new Late(); } }\n"
            "class Own { static name = 'own'; self = Own; }\n"
            "export const handler = () =>\n"
            "  [gone(), new NotFound().name, Late.of().name, Own.name, Base.name];\n",
            "lib/gone.ts": "class NotFound extends Error {}\n"
            "export const gone = () => NotFound.name;\n",
            "lib/base.ts": "export default class extends Error {\n"
            "  override name = this.constructor.name;\n}\n",
        },
    )
    assert same_elsewhere(build, project, *options)["form"] == "bundle"


# In the form that Deno's bundler gives to JavaScript of packages.
TOOLS = """"use strict";
const { createHash } = require("node:crypto");
const { existsSync } = require("node:fs");
const EventEmitter = require("events");
const path = require("path");
class Emitter extends EventEmitter {
}
exports.use = (name)=>[
    createHash("sha256").update(name).digest("hex"),
    existsSync("."),
    new Emitter().constructor.name,
    path.basename("/a/b")
  ];
exports.fail = ()=>{
  throw new TypeError("none");
};
"""
# Then esbuild's shortest name is a dollar sign.
DOLLARS = "".join(f"exports.$v{n} = ($a, $b)=>$a.$$$$ + $b.$$;\n" for n in range(200))
# What packages have that were made by esbuild: a test that Deno's bundler replaces.
COPY = """const create = Object.create, define = Object.defineProperty;
const { getPrototypeOf, getOwnPropertyNames } = Object;
const copy = (to, from)=>{
  for (const key of getOwnPropertyNames(from))if (key !== "default" || !(key in to)) {
    define(to, key, {
      get: ()=>from[key],
      enumerable: true
    });
  }
  return to;
};
const toESM = (mod, isNodeMode, target)=>(target = mod != null ? create(getPrototypeOf(mod)) : {}, copy(isNodeMode || !mod || !mod.__esModule ? define(target, "default", { value: mod, enumerable: true }) : target, mod));
export const kind = (module)=>typeof toESM(module).default;
"""  # noqa: E501
STACK = """
const places = (run: () => void) => {
  try {
    run();
  } catch (error) {
    const { stack } = error as Error;
    const lines = stack?.split("\\n").slice(1, 3);
    return lines?.map((line) => line.match(/[^/]+:\\d+:\\d+/)?.[0]);
  }
};
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("options", "is_dollar"),
    [
        ((), False),
        (("--minify",), True),
        pytest.param(("--minify",), False, marks=pytest.mark.long),
        pytest.param(("--minify", "--no-source-map"), True, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_commonjs_packages_use_node_s_modules_and_are_named_in_stack_traces(
    build: Build, project: Path, options: tuple[str, ...], is_dollar: bool
) -> None:
    places = "null" if "--no-source-map" in options else "places(fail)"
    write(
        project,
        {
            "function.ts": 'import { fail, use } from "tools";\n'
            'import other, { one } from "other";\n'
            f"{STACK}"
            "export const handler = (event: { asks?: boolean }) =>\n"
            f"  event.asks ? {places} : [use('a'), typeof other, one];\n",
            "package.json": '{"dependencies": {"tools": "1.0.0", "other": "1.0.0"}}',
            "node_modules/tools/package.json": '{"name": "tools", "version": "1.0.0"}',
            "node_modules/tools/index.js": TOOLS + (DOLLARS if is_dollar else ""),
            "node_modules/other/package.json": '{"name": "other", "version": "1.0.0"}',
            # An ES module for esbuild, CommonJS for Node.js.
            "node_modules/other/index.js": "exports.__esModule = true;\n"
            "exports.one = 1;\nexports.default = ()=>1;\n",
        },
    )
    package = same_elsewhere(build, project, *options)
    assert (package["form"], package["notes"]) == ("bundle", [])
    same_elsewhere(build, project, *options, event='{"asks": true}')


# JavaScript that Deno's bundler prints otherwise; "run" fails, and others with it.
FAILING = {
    "lib/lines.js": """// comment


import { deep } from "./deep.mjs"

/* block
   comment */
export   function run()
{

    const a = { b : 1,

       c : [ 1, 2, ] }

    return   deep( a , ( x ) => x,
        'q' )
}
""",
    "lib/deep.mjs": """

class   Store   extends   Map {

   static   made = 0

   get( key )   {

      if ( key )   throw   new   TypeError( `no ${ key +
        "x" } here` )


      return   super . get( key ) / 2 }
}
export   const   deep = ( a, f, q ) => {

    const   r = /[/'`]/ . test( q ), s = new   Store
    for ( const one of [ q ] )


      s . get( f( one ) )
}
""",
    "lib/windows.js": "\ufeff// one\r\n\r\n\r\nconst   t = `a\r\nb`\r\n\r\n"
    "export   const   run = () =>   {\r\n\r\n\r\n   missing( t ) }\r\n",
    "lib/old.js": "// one\r\r\rexport   const   run = () =>   {\r\r\r   missing( ) }\r",
    "lib/rare.js": "// one\u2028\u2029\nexport const run = () => {\n\n   lost( ) }\n",
    "lib/beyond.js": """


export   const   run = () => {

   const é = "é\U0001f600", \U0001d4b3 = `\U0001f600${ é   }`;    missing( \U0001d4b3 )
}
""",
    "lib/script.js": """#!/usr/bin/env -S deno run "


export   const   run = () =>   {


   throw   new   Error( "script" ) }
""",
    "lib/later.js": """


export   async   function   run() {


    const   o = {


      async   inner() {   await   1


         const   x = null;   return   x . y }
    }

    return   await   o . inner ( )
}
""",
    "lib/dynamic.js": """


export   const   run = async () => {


    const m = await   import( "./lines.js" )

    return   m . run ( )
}
""",
    "lib/at-load.js": """


export   const   run = () =>   import( "./loaded.js" )
""",
    "lib/loaded.js": """


[ 1 ,


   2 ] . map( (   x ) => {   throw   new   Error( "loaded" ) } )
""",
    "lib/main.js": """


export   const   run = () =>   {
   if ( import.meta.main )   return   1


   throw   new   Error( "here" ) }
""",
    "lib/common.cjs": """"use strict"


const   other = require( './other.cjs' )


exports . run = function() {


   return   other( )
}
""",
    "lib/other.cjs": """


module . exports   =   function   fail ( )


{
   throw   new   RangeError( 'cjs' )
}
""",
    "lib/typed.ts": """


export const run = (): never => {


   throw   new   Error( "typed" )
}
""",
    "lib/view.jsx": """


const   h = ( t, p ) =>   t( p )


const   Bad = ( p ) =>   {


   throw   new   Error( "jsx" )
}

export const run = () => {


   return   <Bad   x="1" />
}
""",
    "shared/mapped.js": """


export   const   run = ( ) =>   {


   throw   new   Error( "here" ) }
""",
}
MAPPED = {"shared/mapped.js": "own/mapped.js"}
NOT_CALLED = ("lib/deep.mjs", "lib/loaded.js", "lib/other.cjs")


@pytest.mark.parametrize("options", [(), ("--minify",)], ids=str)
def test_stack_traces_name_the_places_that_javascript_has_in_its_files(
    build: Build, project: Path, options: tuple[str, ...]
) -> None:
    called = [name for name in FAILING if name not in NOT_CALLED]
    modules = [MAPPED.get(name, f"./{name}") for name in called]
    imports = [f"import * as m{n} from {name!r};\n" for n, name in enumerate(modules)]
    runs = ", ".join(f"(m{n}.default ?? m{n}).run" for n in range(len(modules)))
    write(
        project,
        {
            **FAILING,
            "function.js": f"""{"".join(imports)}
const places = async (run) => {{
  try {{
    await run();
  }} catch (error) {{
    const lines = error.stack.split("\\n").filter((line) => line.includes(" at "));
    const found = lines.map((line) => line.match(/[^/(]+:\\d+:\\d+/)?.[0] ?? "");
    // An import of a part of the bundle adds calls to those of the importing module.
    const here = /^(?!function|runtime|at-load|node:)./;
    return found.filter((place) => here.test(place)).slice(0, 3);
  }}
}};
export const handler = async () =>   {{

  const all = [];
  for (const run of [{runs}])   all . push( await   places( run ) );
  return   all;
}};
""",
            "deno.json": '{"imports": {"own/": "./shared/"}, '
            '"compilerOptions": {"jsx": "react", "jsxFactory": "h"}}',
        },
    )
    package = same_elsewhere(build, project, *options)
    assert (package["form"], package["notes"]) == ("bundle", [])
    with zipfile.ZipFile(project.parent / package["path"]) as content:
        source_map = json.loads(content.read("function.bundle.js.map"))
    contents = dict(
        zip(source_map["sources"], source_map["sourcesContent"], strict=True)
    )
    for path in (name for name in FAILING if name.startswith("lib/")):
        assert contents[path] == FAILING[path].removeprefix("\ufeff")


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("options", "imports"),
    [
        ((), ""),
        (("--minify",), ""),
        pytest.param((), 'import "tools";\n', marks=pytest.mark.long),
        pytest.param(("--minify",), 'import "tools";\n', marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_package_that_esbuild_has_made_imports_as_it_does_unbundled(
    build: Build, project: Path, options: tuple[str, ...], imports: str
) -> None:
    write(
        project,
        {
            "function.js": f'{imports}import {{ kind }} from "copy";\n'
            "export const handler = () =>\n"
            "  [kind({ __esModule: true, default: () => 1 }), kind({ default: 1 })];\n",
            "package.json": '{"dependencies": {"copy": "1.0.0", "tools": "1.0.0"}}',
            "node_modules/copy/package.json": '{"name": "copy", "type": "module", '
            '"version": "1.0.0"}',
            "node_modules/copy/index.js": COPY,
            "node_modules/tools/package.json": '{"name": "tools", "version": "1.0.0"}',
            "node_modules/tools/index.js": TOOLS,
        },
    )
    assert same_elsewhere(build, project, *options)["form"] == "bundle"


def test_modules_that_the_bundler_mistakes_are_not_bundled(
    build: Build, project: Path
) -> None:
    files = {
        "function.ts": 'import pkg from "pkg";\n'
        "export const handler = () => typeof pkg;\n",
        "package.json": '{"dependencies": {"pkg": "1.0.0"}}',
        "node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0", '
        '"main": "main.js", "module": "module.js"}',
        "node_modules/pkg/main.js": "exports.__esModule = true;\n"
        "exports.default = () => 1;\n",
        "node_modules/pkg/module.js": "export default () => 1;\n",
    }
    write(project, files)
    assert same_elsewhere(build, project)["form"] == "packages"
    files = {
        "function.ts": 'import { a as one } from "./a.ts";\n'
        'import { a as two } from "./A.ts";\n'
        "export const handler = () => [one, two];\n",
        "a.ts": "export const a = 1;\n",
        "A.ts": "export const a = 2;\n",
    }
    write(project, files)
    package = same_elsewhere(build, project)
    assert package["form"] == "files"
    assert "only in case" in package["notes"][0]


@pytest.mark.parametrize(
    ("code", "options", "notes"),
    [
        ("", (), []),
        ("", ("--no-bundle",), ["--minify has no effect: there is no bundle"]),
        (
            "process.env.NODE_ENV",
            (),
            [
                "the files are packaged as they are, without a bundle: 'function.js' "
                "reads NODE_ENV, which is 'production' in a bundle made with --minify",
                "--minify has no effect: there is no bundle",
            ],
        ),
        (
            "pkg",
            (),
            [
                "npm packages are packaged as they are, beside the bundle: "
                "'pkg/index.js' finds files by its own place",
                "--minify does not minify the npm packages",
            ],
        ),
    ],
    ids=["bundle", "asked for", "files", "packages"],
)
def test_what_is_not_minified_is_said(
    build: Build, project: Path, code: str, options: tuple[str, ...], notes: list[str]
) -> None:
    files = {
        "function.js": f"export const handler = () => [{code}];\n",
        "package.json": '{"type": "module", "dependencies": {"pkg": "1.0.0"}}',
        "node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0"}',
        "node_modules/pkg/index.js": "module.exports = require('node:fs')"
        ".readFileSync(__dirname + '/index.js', 'utf8').length;\n",
    }
    if "pkg" in code:
        files["function.js"] = f'import pkg from "pkg";\n{files["function.js"]}'
    write(project, files)
    built = build(project.name, "--minify", *options, "-o", "json")
    assert json.loads(built.stdout)["notes"] == notes


REPLACED = "module.exports = { other: 1 }; module.exports"


@pytest.mark.parametrize(
    ("main", "taken", "used", "form"),
    [
        # As TypeScript and Rollup write it, like `fecha`, which winston uses.
        (
            "exports.__esModule = true; exports.default = () => 1;",
            "pkg",
            "pkg",
            "bundle",
        ),
        # Like `node-fetch` 2.
        (
            "module.exports = exports = () => 1; exports.default = exports;",
            "pkg",
            "pkg",
            "",
        ),
        ("exports.other = () => 1;", "pkg", "pkg", ""),
        # Like `sift`, which mongoose uses.
        (f"{REPLACED}.default = () => 1;", "{ default: f }", "f", "bundle"),
        (REPLACED, "{ other: f }", "f", ""),
        # Like `punycode`, which `whatwg-url` uses.
        (f"{REPLACED}.two = () => 1;", "pkg", "pkg.two", "bundle"),
        (REPLACED, "pkg", "pkg.other", ""),
    ],
    ids=[
        "compiled",
        "function",
        "no default",
        "name",
        "no name",
        "member",
        "no member",
    ],
)
def test_what_is_required_is_the_same_in_a_bundle(
    build: Build, project: Path, main: str, taken: str, used: str, form: str
) -> None:
    """The bundler takes `module` where Node.js and Deno take `main`."""
    files = {
        "function.cjs": f'const {taken} = require("pkg");\n'
        f"exports.handler = async () => typeof {used};\n",
        "package.json": '{"dependencies": {"pkg": "1.0.0"}}',
        "node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0", '
        '"main": "main.js", "module": "module.js"}',
        "node_modules/pkg/main.js": f"{main}\n",
        "node_modules/pkg/module.js": "import inner from './inner.js';\n"
        "export { inner as default, inner as two };\n",
        "node_modules/pkg/inner.js": "export default () => 1;\n",
    }
    write(project, files)
    assert same_elsewhere(build, project)["form"] == (form or "packages")


def test_what_is_required_from_a_folder_is_the_same_in_a_bundle(
    build: Build, project: Path
) -> None:
    """Like `date-fns/format` of version 2."""
    files = {
        "function.cjs": 'const format = require("pkg/format");\n'
        "exports.handler = async () => typeof format;\n",
        "package.json": '{"dependencies": {"pkg": "1.0.0"}}',
        "node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0"}',
        "node_modules/pkg/format/package.json": '{"module": "../esm/format.js"}',
        "node_modules/pkg/format/index.js": "module.exports = () => 1;\n",
        "node_modules/pkg/esm/format.js": "export default () => 1;\n",
    }
    write(project, files)
    assert same_elsewhere(build, project)["form"] == "packages"


@pytest.mark.long
def test_node_env_is_what_it_is_on_lambda(build: Build, project: Path) -> None:
    """Deno's bundler makes it "development", and leaves out all that is for others."""
    files = {
        "function.js": 'import { mode } from "pkg";\n'
        "export const handler = () => mode;\n",
        "package.json": '{"type": "module", "dependencies": {"pkg": "1.0.0"}}',
        "node_modules/pkg/package.json": '{"name": "pkg", "version": "1.0.0"}',
        "node_modules/pkg/index.js": "exports.mode = process.env.NODE_ENV ==="
        ' "production" ? "fast" : "slow";\n',
    }
    write(project, files)
    assert same_elsewhere(build, project)["form"] == "bundle"
    (project / "lambda.toml").write_text('[env]\nNODE_ENV = "production"\n')
    package = same_elsewhere(build, project, environ={"NODE_ENV": "production"})
    assert package["form"] == "packages"
    assert "pkg/index.js' reads NODE_ENV" in package["notes"][0]
    text = "export const handler = () => process.env.NODE_ENV ?? null;\n"
    write(project, {"function.js": text, "lambda.toml": ""})
    assert same_elsewhere(build, project)["form"] == "files"


def test_packages_that_look_beside_themselves_stay_beside_the_bundle(
    build: Build, project: Path
) -> None:
    """By __dirname, import.meta, require.resolve and a computed name; native code."""
    packages = {
        "reader": 'module.exports = () => require("fs").readFileSync('
        '__dirname + "/data.txt", "utf8");\n',
        "resolver": 'module.exports = () => require(require.resolve("reader"))();\n',
        "loader": "module.exports = (name) => require(name)();\n",
    }
    files = {
        "function.ts": "".join(f'import {name} from "{name}";\n' for name in packages)
        + 'import meta from "meta";\nimport { place } from "./lib/place.ts";\n'
        'export const handler = () => [reader(), resolver(), loader("reader"), meta(), '
        "place];\n",
        "lib/place.ts": 'export const place: string = "lib";\n',
        "package.json": json.dumps(
            {
                "type": "commonjs",
                "dependencies": dict.fromkeys([*packages, "meta"], "1.0.0"),
                "devDependencies": {"tool": "1.0.0"},
            }
        ),
        "node_modules/reader/data.txt": "data",
        "node_modules/meta/data.txt": "meta",
        "node_modules/meta/package.json": '{"name": "meta", "type": "module"}',
        "node_modules/meta/index.js": 'import { readFileSync } from "node:fs";\n'
        'const place = new URL("./data.txt", import.meta.url);\n'
        'export default () => readFileSync(place, "utf8");\n',
        "node_modules/tool/index.js": "",
        "node_modules/tool/package.json": '{"name": "tool"}',
    }
    for name, code in packages.items():
        files[f"node_modules/{name}/index.js"] = code
        files[f"node_modules/{name}/package.json"] = f'{{"name": "{name}"}}'
    write(project, files)
    package = same_elsewhere(build, project)
    assert package["form"] == "packages"
    assert "beside the bundle: 'reader/index.js' finds files by" in package["notes"][0]
    assert "node_modules/meta/data.txt" in package["files"]
    assert not [name for name in package["files"] if "/tool" in name]
    assert "lib/place.ts" not in package["files"]


def test_what_a_module_reaches_at_run_time_is_in_the_package(
    build: Build, project: Path
) -> None:
    """A worker and its imports, and a module that is resolved."""
    write(
        project,
        {
            "function.ts": 'const place = new URL("./worker.ts", import.meta.url);\n'
            "export const handler = () => new Promise((done) => {\n"
            '  const worker = new Worker(place, { type: "module" });\n'
            "  worker.onmessage = ({ data }) => done([data,\n"
            '    import.meta.resolve("./lib/a.ts").split("/").at(-1)]);\n'
            "});\n",
            "worker.ts": 'import { word } from "./lib/a.ts";\npostMessage(word);\n',
            "lib/a.ts": 'export const word: string = "hello";\n',
        },
    )
    package = same_elsewhere(build, project)
    assert package["form"] == "files"
    assert "'function.ts' starts a worker" in package["notes"][0]


def test_source_files_that_are_data_and_empty_folders_are_packaged(
    build: Build, project: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'import "./lib/a.ts";\n'
            "const read = Deno.readTextFileSync;\n"
            "export const handler = () => [\n"
            '  read(new URL("./query.ts", import.meta.url)),\n'
            '  read("public/app.js"), Deno.statSync("uploads").isDirectory,\n'
            '  [...Deno.readDirSync("./migrations")].length];\n',
            "query.ts": "select",
            "migrations/1.ts": "create",
            "scripts/unused.ts": HANDLER,
            "other.ts": HANDLER,
            "lib/a.ts": "export {};\n",
            "public/app.js": "alert(1);\n",
        },
    )
    (project / "uploads").mkdir()
    package = same_elsewhere(build, project)
    code = {name for name in package["files"] if not name.startswith(".deno_dir/")}
    assert code == {
        "function.bundle.js",
        "function.bundle.js.map",
        "migrations/1.ts",
        "public/app.js",
        "query.ts",
        "uploads/",
    }


def test_a_bundle_that_loads_only_as_files_is_packaged_as_files(
    build: Build, project: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'if (import.meta.filename?.endsWith(".bundle.js")) '
            'throw new Error("moved");\n' + HANDLER
        },
    )
    package = same_elsewhere(build, project)
    assert package["form"] == "files"
    assert (
        "the module threw while it was loaded here: Error: moved"
        in (package["notes"][0])
    )


def test_a_module_that_loads_nowhere_here_gets_the_form_its_code_needs(
    build: Build, project: Path
) -> None:
    write(
        project,
        {
            "function.ts": 'export * from "./lib/a.ts";\n'
            'if (!Deno.env.get("TABLE")) throw new Error("no table");\n',
            "lib/a.ts": "export const handler = (name: string) => import(name);\n",
        },
    )
    done = build("orders", "-o", "json")
    package = json.loads(done.stdout)
    assert package["form"] == "files"
    assert "no table; its cache is incomplete" in package["notes"][0]


@pytest.mark.cases(1)
@pytest.mark.parametrize("option", ["", "--no-bundle"])
def test_compiled_files_for_another_machine_are_refused(
    build: Build, project: Path, option: str
) -> None:
    library = Path(native.__file__).parent / "lib"
    found = {path.parent.name: path.read_bytes() for path in library.glob("*/*.so")}
    write(
        project,
        {
            "function.js": 'const { name } = require("addon");\n'
            "exports.handler = () => name;\n",
            "package.json": '{"dependencies": {"addon": "1.0.0"}}',
            "node_modules/addon/package.json": '{"name": "addon"}',
            "node_modules/addon/index.js": "exports.name = __dirname;\n"
            "exports.load = () => require(`./${process.arch}/addon.node`);\n",
        },
    )
    addon = project / "node_modules/addon/build/addon.node"
    addon.parent.mkdir()
    addon.write_bytes(found["x86_64"])
    options = ["--arch", "arm64", "--no-cache", *filter(None, [option])]
    done = build("orders", *options)
    assert done.returncode == 3
    name = "node_modules/addon/build/addon.node"
    assert f"{name!r}" in done.stderr
    assert "for arm64: it is for x86_64; install the package for Linux" in done.stderr
    addon.write_bytes(found["aarch64"])
    assert build("orders", *options).returncode == 0


def test_packages_in_deno_s_cache_come_with_their_compiled_code(
    build: Build, tmp_path: Path
) -> None:
    done = build(str(EXAMPLES / "hono-api"), "--no-bundle")
    assert (done.returncode, done.stderr) == (0, "")
    package = members(tmp_path / "dist" / "hono-api.zip")
    found = addresses(package[".deno_dir/v8_code_cache_v2"], "codecache", tmp_path)
    assert any("/var/task/.deno_dir/npm/" in address for address in found)


def test_an_own_package_is_not_packaged(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(project, {"function.ts": HANDLER, "data/a.txt": "a"})
    digests = set()
    for name in ("orders", "other", "orders"):
        done = build("orders", "--out", "orders/data", "--name", name, "-o", "json")
        assert done.returncode == 0, done.stderr
        package = json.loads(done.stdout)
        digests.add(package["sha256"])
        assert not [one for one in package["files"] if one.endswith(".zip")]
    assert len(digests) == 1


def test_an_unchanged_project_is_not_built_again(
    build: Build, project: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    counted = tmp_path / "deno"
    counted.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec {deno_binary()} "$@"\n')
    counted.chmod(0o755)
    write(
        project,
        {
            "function.ts": 'import { a } from "./lib/a";\n'
            "export const handler = () => a;\n",
            "deno.json": '{"unstable": ["sloppy-imports"]}',
            "lib/a.ts": "export const a = 1;\n",
            "data/deep/a.txt": "a",
        },
    )

    def runs(*options: str) -> tuple[bool, str]:
        log.write_text("")
        done = build("orders", *options, "-o", "json", LAMBDA_DENO_BIN=str(counted))
        assert done.returncode == 0, done.stderr
        # A script is asked for its version, as it may start another Deno.
        has_run = set(log.read_text().split()) != {"--version"}
        return has_run, json.loads(done.stdout)["sha256"]

    def is_known() -> bool:
        # Not at once, if files were written shortly before the build.
        return not all(runs()[0] for _ in range(2))

    has_run, first = runs()
    assert has_run
    assert is_known()
    assert runs() == (False, first)
    write(project, {"lib/a.ts": "export const a = 2;\n"})
    os.utime(project / "lib/a.ts", (1, 1))
    has_run, second = runs()
    assert has_run
    assert second != first
    assert is_known()
    # Files that were not there before: data, and one that takes precedence.
    for name in ("data/deep/b.txt", "data/new/b.txt", "lib/a.js"):
        write(project, {name: "export const a = 3;\n"})
        assert runs()[0], name
        assert is_known()
    assert runs("--minify")[0]
    (tmp_path / "dist" / "orders.zip").write_bytes(b"damaged")
    assert runs("--minify")[0]


@pytest.mark.parametrize("option", ["", "--no-bundle"])
def test_a_file_that_cannot_be_packaged_is_named(
    build: Build, project: Path, tmp_path: Path, option: str
) -> None:
    options = list(filter(None, [option]))
    write(project, {"function.ts": HANDLER})
    (project / "gone").symlink_to("nowhere")
    done = build("orders", *options)
    assert done.returncode == 3
    assert "gone': it is a link to 'nowhere', which does not exist; " in done.stderr
    (project / "gone").unlink()
    odd = os.fsencode(project) + b"/data-\xff.txt"
    Path(os.fsdecode(odd)).touch()
    done = build("orders", *options)
    assert done.returncode == 3
    assert "'data-\\udcff.txt': its name is not UTF-8; rename it" in done.stderr
    assert not (tmp_path / "dist" / "orders.zip").exists()


def test_a_temporary_folder_that_deno_cannot_name_is_named(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(project, {"function.ts": HANDLER})
    temp = tmp_path / "a,b"
    temp.mkdir()
    done = build("orders", TMPDIR=str(temp))
    assert done.returncode == 3
    assert f"Cannot load the module in {str(temp)!r}: the path of temporary" in (
        done.stderr
    )
    assert build("orders", "--no-cache", TMPDIR=str(temp)).returncode == 0


def test_files_that_begin_with_a_byte_order_mark_are_read(
    build: Build, project: Path, tmp_path: Path
) -> None:
    mark = "\ufeff"
    write(
        project,
        {
            "function.ts": mark + HANDLER,
            "lambda.toml": mark + 'name = "orders"\n',
            ".npmrc": mark + "registry=https://registry.example/\n",
        },
    )
    done = build("orders")
    assert (done.returncode, done.stderr) == (0, "")
    assert build("orders", "--no-bundle").returncode == 0
    package = members(tmp_path / "dist" / "orders.zip")
    assert package[".npmrc"] == b"registry=https://registry.example/\n"


def test_patterns_leave_out_what_they_leave_out_of_git(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": HANDLER,
            "lambda.toml": 'exclude = ["**/*.log", "./notes/**", "*.{a,b}", "!x"]\n',
            "top.log": "",
            "data/deep.log": "",
            "data/kept.txt": "",
            "notes/a.txt": "",
            "c.a": "",
            ".env": "A=1",
            "read.ts": "import 'dotenv/config';",
        },
    )
    done = build("orders", "--no-bundle")
    assert done.returncode == 0
    about_env, *notes = done.stderr.splitlines()
    assert about_env.startswith("Note: read.ts loads .env, which is not packaged: ")
    assert [note.partition(" in ")[0] for note in notes] == [
        "Note: the pattern '*.{a,b}'",
        "Note: the pattern '!x'",
    ]
    package = members(tmp_path / "dist" / "orders.zip")
    code = {name for name in package if not name.startswith(".deno_dir/")}
    assert code == {"function.ts", "c.a", "data/kept.txt", "read.ts"}


def test_a_killed_build_leaves_nothing_that_the_next_one_packages(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(
        project,
        {
            "function.ts": HANDLER,
            "dist/.orders.zip.0a1b2c3d.partial": "PK",
            "temp/lambda-deno-spawn-a1b2c3d4/task/function.ts": HANDLER,
        },
    )
    left = project / "dist" / ".orders.zip.0a1b2c3d.partial"
    os.utime(left, (0, 0))
    done = build("orders", "--out", "orders/dist", "-o", "json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert not [name for name in files if name.startswith(("temp/lambda", "dist"))]
    assert not left.exists()


def test_a_handler_without_a_file_cannot_be_meant(build: Build, project: Path) -> None:
    write(project, {"function.ts": HANDLER})
    done = build("orders", "--handler", "missing.handler")
    assert done.returncode == 2
    assert "Cannot find the file of handler 'missing.handler'" in done.stderr
    write(project.parent, {"layer/wrap.mjs": "export const handler = () => 1;\n"})
    done = build("orders", "--handler", f"{project.parent}/layer/wrap.handler")
    assert done.returncode == 2
    assert "give the function's own handler" in done.stderr


def test_an_import_that_is_known_only_when_it_runs_is_told(
    build: Build, project: Path
) -> None:
    write(
        project,
        {
            "function.ts": "export const handler = (name: string) => import(name);\n"
            'export const other = (n: string) => [import("./a.ts"), '
            "import(`./mods/${n}.ts`)];\n",
            "a.ts": "export {};\n",
            "mods/b.ts": "export {};\n",
        },
    )
    done = build("orders")
    assert done.returncode == 0, done.stderr
    reason = "'function.ts' loads a module by a name known only at run time"
    assert f"without a bundle: {reason}" in done.stderr
    write(project, {"function.ts": 'export const handler = () => import("./a.ts");\n'})
    assert build("orders").stderr == ""


def test_a_comment_about_import_meta_is_none(build: Build, project: Path) -> None:
    write(
        project,
        {
            "function.ts": 'export { handler } from "./lib/data.ts";\n',
            "lib/data.ts": "// not by import.meta.url\n/* import.meta */\n"
            "if (import.meta.main) console.log();\n" + HANDLER,
        },
    )
    assert build("orders").returncode == 0


def test_types_are_not_checked_unless_asked(build: Build, project: Path) -> None:
    write(project, {"function.ts": 'export const handler = (): number => "text";\n'})
    assert build("orders").returncode == 0


def test_too_large_a_package_names_what_is_large(
    build: Build, project: Path, tmp_path: Path
) -> None:
    write(project, {"function.ts": HANDLER})
    with (project / "film.mp4").open("wb") as file:
        file.truncate(251 * 1024 * 1024)
    done = build("orders")
    assert done.returncode == 3
    assert "Cannot build a package of 251 MB: Lambda unzips at most 250" in done.stderr
    assert "film.mp4 (251 MB)" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_a_disk_that_is_full_leaves_the_last_package(
    project: Path, tmp_path: Path
) -> None:
    """Stood in for by a limit on the size of files, which works for everybody."""
    write(project, {"function.ts": HANDLER})
    write(tmp_path, {"dist/orders.zip": "the last one"})
    for name in ("one.bin", "two.bin"):  # each below the limit
        (project / name).write_bytes(os.urandom(1_500_000))
    # Deno's own cache may have grown to that limit in earlier runs.
    environ = {**os.environ, "DENO_DIR": str(tmp_path / "deno_dir")}
    command = (
        f"{sys.executable} -m lambda_deno_spawn build --no-bundle --no-cache orders"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 2000; exec {command}"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "orders.zip'" in done.stderr
    assert (tmp_path / "dist" / "orders.zip").read_text() == "the last one"
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["orders.zip"]
