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

from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download, fetch_bundler
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.deno

EXAMPLES = Path(__file__).parents[2] / "examples"
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
    assert done.returncode == 0
    assert "Deno exited with code 3 while the module was loaded here" in done.stderr
    assert not psutil.pid_exists(int(pid.read_text())) or (
        psutil.Process(int(pid.read_text())).status() == psutil.STATUS_ZOMBIE
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("function.cjs", "exports.handler = async () => 'here';\n"),
        ("function.js", "module.exports = { handler: () => 'here' };\n"),
        ("function.js", "module.exports.handler = () => require('./a.json').a;\n"),
    ],
    ids=["cjs", "js", "require"],
)
@pytest.mark.parametrize("options", [[], ["--minify"], ["--no-source-map"]], ids=str)
def test_a_handler_in_commonjs_is_found_in_its_bundle(
    build: Build,
    project: Path,
    tmp_path: Path,
    name: str,
    text: str,
    options: list[str],
) -> None:
    write(project, {name: text, "a.json": '{"a": "here"}'})
    done = build("orders", *options)
    assert (done.returncode, done.stderr) == (0, "")
    task = tmp_path / "task"
    with zipfile.ZipFile(tmp_path / "dist" / "orders.zip") as content:
        content.extractall(task)
    assert invoke(task) == "here"


def invoke(task: Path) -> object:
    done = run_command("invoke", task)
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
    ran = run_command("invoke", task, "--event", f"@{event}", environ=environ)
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
    assert process.wait(10) == 143
    _, alive = psutil.wait_procs(children, timeout=5)
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
            [],
            "Cannot bundle 'lib/data.ts': import.meta describes the bundle",
            id="own-place-is-lost",
        ),
        pytest.param(
            {
                "function.ts": 'export { handler } from "./lib/data.ts";\n',
                "lib/data.ts": "export const handler = () =>\n"
                '  import.meta.resolve("a");\n',
            },
            [],
            "Cannot bundle 'lib/data.ts': import.meta describes the bundle",
            id="own-place-is-resolved",
        ),
        pytest.param(
            {"function.cjs": "exports.handler = () => __dirname;\n"},
            [],
            "Cannot bundle 'function.cjs': a bundle has no __dirname",
            id="commonjs-place",
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
    write(tmp_path, {"outside.ts": HANDLER, "dist/orders.zip": "the last one"})
    done = build("orders", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert sentence in done.stderr
    assert "Stack backtrace" not in done.stderr
    assert (tmp_path / "dist" / "orders.zip").read_text() == "the last one"
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["orders.zip"]


def test_a_handler_without_a_file_cannot_be_meant(build: Build, project: Path) -> None:
    write(project, {"function.ts": HANDLER})
    done = build("orders", "--handler", "missing.handler")
    assert done.returncode == 2
    assert "Cannot find the file of handler 'missing.handler'" in done.stderr


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
    assert (
        "'function.ts' imports a module by a name known only at run time" in done.stderr
    )
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
    # Without Deno, whose own cache may have grown to that limit in earlier runs.
    command = (
        f"{sys.executable} -m lambda_deno_spawn build --no-bundle --no-cache orders"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 2000; exec {command}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "orders.zip'" in done.stderr
    assert (tmp_path / "dist" / "orders.zip").read_text() == "the last one"
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["orders.zip"]
