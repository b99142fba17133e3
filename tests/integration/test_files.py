"""What a handler finds on disk, and what it is told about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.deno, pytest.mark.as_lambda]

PROBE = """
const fs = require("node:fs");
const path = require("node:path");
function attempt(look) {
  try { return look() ?? true; }
  catch (error) { return `${error.name} ${error.code}: ${error.message}`; }
}
function optional(name) {
  try { return require(name); }
  catch (error) { return `${error.code}: ${error.message.split("\\n")[0]}`; }
}
let native = optional("pg-native");
const looks = {
  exists: fs.existsSync,
  stat: (file) => fs.statSync(file, { throwIfNoEntry: false }) ?? "nothing",
  access: (file) => fs.accessSync(file),
  read: (file) => fs.readFileSync(file, "utf8"),
  deno: (file) => Deno.readTextFileSync(file),
  denoStat: (file) => Deno.statSync(file).isFile,
  list: (file) => fs.readdirSync(file).length,
  realpath: (file) => fs.realpathSync(file),
  link: (file) => fs.readlinkSync(file),
  copy: (file) => fs.copyFileSync(file, path.join(process.env.TMPDIR, "copy")),
  write: (file) => fs.writeFileSync(file, "x"),
};
exports.handler = async ({ look, file, caught }) => {
  if (look === "native") {
    const names = ["missing/sub", "./gone", "../gone", "../secret", "/etc/gone.js"];
    return [native, ...names.map(optional)];
  }
  if (look === "callbacks") {
    const exists = await new Promise((done) => fs.exists(file, done));
    const access = await new Promise((done) => fs.access(file, done));
    const promise = await fs.promises.stat(file).catch((error) => error.code);
    return [exists, access.code, promise];
  }
  return caught ? attempt(() => looks[look](file)) : looks[look](file);
};
"""
NOT_THERE = (
    "deno", "denoStat", "read", "access", "list", "realpath", "link", "copy",
)  # fmt: skip
SECRET = "hush"


@pytest.fixture
def outside(tmp_path: Path) -> list[str]:
    """Files around the task root that no event may read, packages among them."""
    files = ("secret", "node_modules/package/index.js", "other/node_modules/secret")
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    return [str(tmp_path / name) for name in files] + ["/etc/passwd", "/proc/self/maps"]


async def test_what_may_not_be_read_is_not_there(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, outside: list[str]
) -> None:
    """Programs that look for optional files are prepared for no other answer."""
    async with make_runtime({"function.js": PROBE}):

        async def look(look: str, file: str, **more: object) -> Any:
            answer = await api.invoke({"look": look, "file": file, **more})
            return answer.json()

        assert await look("native", "") == [
            "MODULE_NOT_FOUND: Cannot find module 'pg-native'",
            "MODULE_NOT_FOUND: Cannot find module 'missing/sub'",
            "MODULE_NOT_FOUND: Cannot find module './gone'",
            "MODULE_NOT_FOUND: Cannot find module '../gone'",
            "MODULE_NOT_FOUND: Cannot find module '../secret'",
            "MODULE_NOT_FOUND: Cannot find module '/etc/gone.js'",
        ]
        for file in [*outside, "/", "/etc", "/usr/bin/ldd", "/lib/ld-musl-x86_64.so.1"]:
            assert await look("exists", file) is False, file
        assert await look("stat", "/etc/passwd") == "nothing"
        assert await look("callbacks", "/etc/passwd") == [False, "ENOENT", "ENOENT"]
        for how in NOT_THERE:
            for file in outside[:4] if how in ("deno", "read") else outside[:1]:
                said = await look(how, file, caught=True)
                assert " ENOENT: " in str(said), (how, file)
                assert SECRET not in str(said)
        await api.wait_for_next()


async def test_an_error_says_that_the_file_may_be_there_and_what_to_set(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    task_root = tmp_path / "task"
    hidden = "the function may not read"
    async with make_runtime({"function.js": PROBE, "own.txt": "own"}):

        async def failure(look: str, file: str) -> tuple[str, str]:
            body = (await api.invoke({"look": look, "file": file})).json()
            return body["errorType"], body["errorMessage"]

        kind, message = await failure("read", "/data/x")
        assert kind == "Error"
        assert message.startswith("ENOENT: no such file or directory, open '/data/x'")
        assert hidden in message
        assert '"default --allow-read=/data/x"' in message
        kind, message = await failure("deno", "/data/x")
        assert kind == "NotFound"
        assert hidden in message
        assert "--allow-read=PATH" in message
        # A file that may be read, and is not there, is just that.
        kind, message = await failure("read", str(task_root / "gone.txt"))
        assert message.endswith("/task/gone.txt'")
        # Where a person's own files are, a denial stays one.
        assert await failure("read", "/mnt/models/a") == (
            "NotCapable",
            'Requires read access to "/mnt/models/a": set LAMBDA_DENO_PERMISSIONS='
            '"default --allow-read=/mnt/models/a" (permissions in lambda.toml; '
            "`lambda-deno-spawn explain` tells more), or list what the function may do "
            'under "permissions" in deno.json',
        )
        kind, message = await failure("write", "/tmp/x")
        assert kind == "NotCapable"
        assert "each event has its own empty folder: use os.tmpdir()" in message
        assert '"default --allow-write=/tmp/x"' in message
        kind, message = await failure("write", str(task_root / "x"))
        assert "on Lambda the function's folder is read-only" in message
        assert '"default --allow-write=$LAMBDA_TASK_ROOT/x"' in message
        await api.wait_for_next()


async def test_what_a_setting_allows_is_read_and_no_more(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, outside: list[str]
) -> None:
    secret, other, *_ = outside
    permissions = f"default --allow-read={secret}"
    async with make_runtime(
        {"function.js": PROBE}, LAMBDA_DENO_PERMISSIONS=permissions
    ):
        for file, expected in ((secret, SECRET), (other, "ENOENT")):
            event = {"look": "read", "file": file, "caught": True}
            assert expected in (await api.invoke(event)).json()
        await api.wait_for_next()


async def test_a_function_s_own_file_is_denied_and_not_hidden(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    async with make_runtime(
        {"function.js": PROBE}, LAMBDA_DENO_PERMISSIONS="--allow-env"
    ):
        own = str(tmp_path / "task" / "function.js")
        body = (await api.invoke({"look": "deno", "file": own})).json()
        assert body["errorType"] == "NotCapable"
        assert "--allow-env --allow-read=$LAMBDA_TASK_ROOT/function.js" in str(body)
        event = {"look": "exists", "file": "/etc/passwd"}
        assert (await api.invoke(event)).json() is False
        await api.wait_for_next()


DENIED = """
import { execSync, spawnSync } from "node:child_process";
export function handler({ what }) {
  if (what === "throws") execSync("ls");
  if (what === "silent") return spawnSync("ls").status ?? null;
  for (let times = 0; times < 3; times += 1) {
    try { Deno.writeTextFileSync("/tmp/x", ""); } catch { /* a framework */ }
  }
  try { Deno.hostname(); Deno.env.get("SECRET"); } catch { /* a library that asks */ }
  return "caught";
}
"""


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
async def test_a_denial_that_is_not_passed_on_is_logged_once(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, log_format: str
) -> None:
    async with make_runtime(
        {"function.mjs": DENIED},
        AWS_LAMBDA_LOG_FORMAT=log_format,
        LAMBDA_DENO_PERMISSIONS="default --deny-sys=hostname",
    ) as runtime:
        body = (await api.invoke({"what": "throws"})).json()
        assert body["errorMessage"].startswith("Command failed: ls")
        assert "--allow-run=" in body["errorMessage"]
        await api.invoke({"what": "silent"})
        await runtime.logged("did not pass this error on: Requires run access")
        assert (await api.invoke({"what": "caught"})).json() == "caught"
        await runtime.logged("did not pass this error on: Requires write access")
        await api.wait_for_next()
        assert runtime.log.count("did not pass this error on") == 2


PRELOADED = """
const { lay, old } = require("lay");
exports.handler = () => [globalThis.order, lay, old, process.env.NODE_ENV ?? null];
"""


async def test_node_options_and_node_path_work_as_in_node(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    package = 'globalThis.order = [...(globalThis.order ?? []), "package"];'
    async with make_runtime(
        {
            "function.cts": PRELOADED,
            "first.cjs": 'globalThis.order = ["required"];',
            "then.mts": "const kind: string = 'imported'; globalThis.order.push(kind);",
            "layer/lay/package.json": '{"name": "lay", "main": "i.js"}',
            "layer/lay/i.js": 'exports.lay = 1; exports.old = require("./o").o;',
            "layer/lay/o.js": "exports.o = 2;",
            "node_modules/hook/package.json": '{"name": "hook", "exports": "./i.js"}',
            "node_modules/hook/i.js": package,
        },
        NODE_OPTIONS="--import ./then.mts --require=./first.cjs --import hook "
        "--enable-source-maps --inspect=0",
        NODE_PATH=str(tmp_path / "task" / "layer"),
    ) as runtime:
        order = ["required", "imported", "package"]
        for _ in range(2):
            assert (await api.invoke({})).json() == [order, 1, 2, None]
        await api.wait_for_next()
        told = "NODE_OPTIONS: --inspect=0 has no effect in Deno"
        assert runtime.log.count(told) == 1
        assert runtime.log.count("has no effect") == 1


async def test_a_module_of_node_options_that_is_missing_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.js": PROBE}, NODE_OPTIONS="--require /opt/wrapper.js"
    ):
        answer = await api.answer()
        assert answer.call == "init/error"
        body = json.loads(answer.body)
        assert "/opt/wrapper.js" in body["errorMessage"]


async def test_a_denied_access_has_a_code(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
const fs = require("node:fs");
const codeOf = (call) => { try { call(); } catch (error) { return error.code; } };
exports.handler = async () => [
  codeOf(() => fs.writeFileSync(`${__dirname}/x`, "")),
  codeOf(() => fs.mkdirSync("/var/x", { recursive: true })),
  codeOf(() => Deno.removeSync("/tmp")),
  await fs.promises.writeFile("/etc/x", "").catch((error) => error.code),
];
"""
    async with make_runtime({"function.js": source}):
        assert (await api.invoke({})).json() == ["EACCES"] * 4
