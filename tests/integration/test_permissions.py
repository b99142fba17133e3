"""What a handler may do, what it gets to see, and what it is told when it may not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.processes.reaper import ExitStatus
from lambda_deno_spawn.protocol.frames import State
from lambda_deno_spawn.worker.exits import exit_error

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import Answer, FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

PERMISSIONS = """
export async function handler(event: any) {
  const tries: Record<string, () => unknown> = {
    task: () => Deno.readTextFileSync(import.meta.dirname + "/function.ts").length > 0,
    outside: () => Deno.readTextFileSync("/etc/passwd"),
    writeTask: () => Deno.writeTextFileSync(import.meta.dirname + "/x", ""),
    writeTmp: () => Deno.writeTextFileSync(Deno.env.get("TMPDIR") + "/x", ""),
    makeTemp: () => Deno.makeTempFileSync().length > 0,
    run: () => new Deno.Command("true").outputSync().success,
    ffi: () => Deno.dlopen("libc.so.6", {}),
    env: () => Deno.env.get("PATH") !== undefined,
    sys: () => Deno.hostname().length > 0,
    net: async () => {
      try {
        return (await fetch(event.url)).status;
      } catch (error) {
        return (error as Error).name;
      }
    },
  };
  const results: Record<string, unknown> = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { results[name] = await attempt() ?? true; }
    catch (error) { results[name] = (error as Error).name; }
  }
  return results;
}
"""
DENIED = "NotCapable"
HIDDEN = "NotFound"  # decision 0035


@pytest.mark.parametrize(
    ("settings", "config", "expected"),
    [
        ({}, None, {"task": True, "outside": HIDDEN, "writeTask": DENIED,
                    "writeTmp": True, "makeTemp": True, "run": DENIED, "ffi": DENIED,
                    "env": True, "sys": True, "net": DENIED}),
        ({"LAMBDA_DENO_PERMISSIONS": "none"}, None,
         {"outside": HIDDEN,
          **dict.fromkeys(["task", "writeTask", "writeTmp", "makeTemp", "run", "ffi",
                           "env", "sys", "net"], DENIED)}),
        ({"LAMBDA_DENO_PERMISSIONS": "all"}, None,
         {"outside": "root:", "run": True, "env": True, "net": DENIED}),
        ({"LAMBDA_DENO_PERMISSIONS": "--allow-env=PATH --allow-net"}, None,
         {"task": DENIED, "env": True, "sys": DENIED, "net": DENIED}),
        ({}, '{"permissions": {"default": {"sys": true, "net": true}}}',
         {"task": DENIED, "env": DENIED, "sys": True, "net": DENIED}),
    ],
    ids=["default", "none", "all", "flags", "deno-json"],
)  # fmt: skip
async def test_permissions_are_those_that_were_asked_for(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    settings: dict[str, str],
    config: str | None,
    expected: dict[str, Any],
) -> None:
    files = {"function.ts": PERMISSIONS} | ({"deno.json": config} if config else {})
    async with make_runtime(files, **settings):
        # The Runtime API's own address is denied whatever is allowed.
        url = f"http://{api.address}/2018-06-01/runtime/invocation/next"
        results = (await api.invoke({"url": url})).json()
        for name, value in expected.items():
            if name == "outside" and value != HIDDEN:
                assert results[name].startswith(value)
            else:
                assert results[name] == value, (name, results)
        await api.wait_for_next()


# Sets in deno.json.

QUERY = """
export function handler(event: any) {
  const states = event.map((descriptor: any) =>
    Deno.permissions.querySync(descriptor).state);
  return [states, Deno.env.has("TMPDIR") ? Deno.env.get("TMPDIR") : ""];
}
"""
SETS = json.dumps(
    {
        "permissions": {
            "default": {"env": True, "net": {"allow": True, "deny": ["10.0.0.0/8"]}},
            "files": {
                "env": ["TMPDIR"],
                "read": ["$LAMBDA_TASK_ROOT", "$TMPDIR"],
                "write": {"allow": ["$TMPDIR"], "deny": ["/opt"]},
            },
        }
    }
)


async def states(
    api: FakeRuntimeApi, *descriptors: tuple[str, str, str]
) -> tuple[list[str], str]:
    asked = [{"name": name, key: value} for name, key, value in descriptors]
    found, private_dir = (await api.invoke(asked)).json()
    return found, private_dir


@pytest.mark.parametrize("value", ["", "-P", "default", "--permission-set=default"])
async def test_a_default_set_keeps_what_it_denies_beside_our_denial(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, value: str
) -> None:
    """Our ``--deny-net`` replaced the set's own list: Deno takes one or the other."""
    files = {"function.ts": QUERY, "deno.json": SETS}
    async with make_runtime(files, LAMBDA_DENO_PERMISSIONS=value):
        found, _ = await states(
            api,
            ("net", "host", "a.test"),
            ("net", "host", "10.1.2.3:80"),
            ("net", "host", api.address),
            ("read", "path", "/etc"),
        )
        assert found == ["granted", "denied", "denied", "denied"]
        await api.wait_for_next()


@pytest.mark.parametrize(
    "value",
    [
        "-P=files", "--permission-set=files",
        "--allow-env=TMPDIR -R=$LAMBDA_TASK_ROOT,$TMPDIR --allow-write=$TMPDIR",
        "-P=files --allow-read=/mnt --allow-env=PATH",
    ],
)  # fmt: skip
async def test_the_private_folder_is_allowed_where_its_placeholder_stands(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, value: str
) -> None:
    files = {"function.ts": QUERY, "deno.json": SETS}
    # Each started process has a folder of another name; forks do not, in turns.
    runtime = make_runtime(
        files, LAMBDA_DENO_PERMISSIONS=value, LAMBDA_DENO_START="exec"
    )
    async with runtime:
        folders = set()
        for _ in range(2):
            # It is not known before the process runs: look at what is around it.
            _, private = await states(api)
            found, again = await states(
                api,
                ("write", "path", private),
                ("write", "path", str(runtime.temp_root)),
                ("read", "path", str(runtime.task_root)),
                ("write", "path", str(runtime.task_root)),
                ("net", "host", api.address),
            )
            assert found == ["prompt", "prompt", "granted", "prompt", "denied"]
            folders |= {private, again}
        assert len(folders) == 4
        if value.endswith("PATH"):
            found, _ = await states(
                api, ("read", "path", "/mnt/x"), ("env", "variable", "PATH")
            )
            assert found == ["granted", "granted"]
        await api.wait_for_next()


async def test_a_private_folder_can_be_used_by_a_set_that_names_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler() {
  const file = `${Deno.env.get("TMPDIR")}/x`;
  Deno.writeTextFileSync(file, "written");
  return [Deno.readTextFileSync(file), Deno.makeTempFileSync().length > 0];
}
"""
    files = {"function.ts": source, "deno.json": SETS}
    async with make_runtime(files, LAMBDA_DENO_PERMISSIONS="-P=files"):
        assert (await api.invoke({})).json() == ["written", True]
        await api.wait_for_next()


# What cannot be used.

REFUSED = {
    "unknown-flag": ("--allow-nett", None, "expected none, all, default, or Deno's"),
    "unknown-set": ("-P=nope", SETS, "which has: default, files"),
    "no-config": ("-P", None, "which has: none"),
    "no-effect": ("default --allow-net=a.test", None, "to narrow it, list flags only"),
    "host": ("--allow-net='a b'", None, "invalid host 'a b': invalid char found"),
    "url": ("default --deny-net=http://a.test", None, "URLs are not supported"),
    "port": ("--allow-net=a.test:99999", None, "invalid port in 'a.test:99999'"),
    "system": ("--allow-sys=foo", None, "unknown sys descriptor: 'foo'"),
    "variable": ("--allow-env=A=B", None, "invalid env var name: 'A=B'"),
    "set-s-host": ("-P", '{"permissions": {"default": {"net": ["a b"]}}}',
                   "invalid host 'a b'"),
    "set-s-kind": ("-P", '{"permissions": {"default": {"fs": true}}}',
                   "Failed to parse \"permissions\" configuration: unknown field `fs`"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_used_is_an_init_error_with_the_reason(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, case: str
) -> None:
    """What only Deno itself noticed was an exit like that of a handler."""
    value, config, reason = REFUSED[case]
    files = {"function.ts": "export const handler = () => 1"}
    if config is not None:
        files["deno.json"] = config
    # With it Deno's reasons are longer.
    runtime = make_runtime(files, LAMBDA_DENO_PERMISSIONS=value, RUST_BACKTRACE="1")
    async with runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        check_refusal(answer, value, reason)
        assert await runtime.wait() == 1


async def test_without_a_process_at_init_it_is_the_event_s_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    value, _, reason = REFUSED["host"]
    async with make_runtime(
        {"function.ts": "export const handler = () => 1"},
        LAMBDA_DENO_PERMISSIONS=value,
        LAMBDA_DENO_WARM="off",
    ):
        answer = await api.invoke({})
        assert answer.call == "error"
        check_refusal(answer, value, reason)
        await api.wait_for_next()


def check_refusal(answer: Answer, value: str, reason: str) -> None:
    body = answer.json()
    assert body["errorType"] == "Runtime.InvalidConfiguration"
    assert "LAMBDA_DENO_PERMISSIONS" in body["errorMessage"]
    assert repr(value) in body["errorMessage"]
    assert reason in body["errorMessage"]


async def test_other_reasons_of_deno_s_are_told_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.ts": "export const handler = () => 1", "deno.json": '{"imp'}
    runtime = make_runtime(files, LAMBDA_DENO_V8_FLAGS="--expose-gc")
    async with runtime:
        body = (await api.answer()).json()
        assert body["errorType"] == "Runtime.InvalidConfiguration"
        assert body["errorMessage"].startswith(
            "Deno refuses to start with LAMBDA_DENO_V8_FLAGS='--expose-gc' and "
            f"{runtime.task_root}/deno.json: Failed deserializing config file"
        )
        assert await runtime.wait() == 1


@pytest.mark.parametrize(
    ("tail", "error_type", "said"),
    [
        ("x\nerror: no\n\nCaused by:\n    0: why\n    1: y", "InvalidConfiguration",
         "Deno refuses to start with A='b': no: why"),
        ("error: no space (os error 28)", "ExitError",
         "Deno cannot start: no space (os error 28)"),
        ("error: Uncaught Error: x", "ExitError", "The process exited with status 1"),
        ("an error: x", "ExitError", "The process exited with status 1"),
    ],
    ids=["refusal", "system", "uncaught", "printed"],
)  # fmt: skip
def test_the_end_of_a_start_is_told_by_whose_fault_it_is(
    tail: str, error_type: str, said: str
) -> None:
    status = ExitStatus(1)
    error = exit_error(status, 7, State.STARTING, tail, "A='b'", is_oom=False)
    assert error.error_type == f"Runtime.{error_type}"
    assert str(error).startswith(said)
    later = exit_error(status, 7, State.BUSY, tail, "", is_oom=False)
    assert later.error_type == "Runtime.ExitError"


# Effects outside of the process.

EFFECTS = """
import inspector from "node:inspector";
import os from "node:os";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";

export function handler(event: any) {
  const outside = event.outside;
  const database = () => new DatabaseSync(":memory:");
  const tries: Record<string, () => unknown> = {
    renice: () => os.setPriority(Deno.ppid, 5),
    kill: () => process.kill(Deno.ppid, 0),
    denoKill: () => Deno.kill(Deno.ppid, "SIGCONT"),
    killGroup: () => process.kill(-Deno.ppid, 0),
    write: () => Deno.writeTextFileSync(`${outside}/x`, ""),
    entry: () => Deno.writeTextFileSync(`${Deno.env.get("TMPDIR")}/../entry.mjs`, ""),
    denoDir: () => Deno.writeTextFileSync(`${Deno.env.get("DENO_DIR")}/x`, ""),
    symlink: () => Deno.symlinkSync("/etc", `${Deno.env.get("TMPDIR")}/link`),
    link: () => Deno.linkSync("/etc/passwd", `${Deno.env.get("TMPDIR")}/link`),
    database: () => new DatabaseSync(`${outside}/db`),
    attach: () => database().exec(`attach '${outside}/db' as other`),
    vacuum: () => database().exec(`create table t(a); vacuum into '${outside}/db'`),
    supervisor: () => Deno.readTextFileSync(`/proc/${Deno.ppid}/environ`),
    memory: () => Deno.openSync(`/proc/${Deno.ppid}/mem`),
    ownEnviron: () => Deno.readTextFileSync("/proc/self/environ"),
    folder: () => process.chdir("/"),
    utime: () => Deno.utimeSync(outside, 0, 0),
    run: () => new Deno.Command("true").outputSync(),
    library: () => Deno.dlopen("libc.so.6", {}),
  };
  const done: string[] = [];
  for (const [name, attempt] of Object.entries(tries)) {
    try { attempt(); done.push(name); } catch { /* as it should be */ }
  }
  if (event.inspects) inspector.open(0, "127.0.0.1");
  return [done, os.getPriority(Deno.pid)];
}
"""


@pytest.mark.parametrize(
    "value", ["", "default --allow-run=nothing", "--allow-env --allow-sys --allow-net"]
)
async def test_nothing_outside_of_the_process_is_changed_by_default(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path, value: str
) -> None:
    """Any handler could renice the supervisor, and all that comes after it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    async with make_runtime(
        {"function.ts": EFFECTS}, LAMBDA_DENO_PERMISSIONS=value
    ) as runtime:
        event = {"outside": str(outside), "inspects": True}
        before = os.getpriority(os.PRIO_PROCESS, runtime.pid)
        for _ in range(2):
            assert (await api.invoke(event)).json() == [[], before]
        await api.wait_for_next()
        assert os.getpriority(os.PRIO_PROCESS, runtime.pid) == before
        assert list(outside.iterdir()) == []


async def test_a_priority_is_changed_by_who_asked_for_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    value = "default --allow-sys=setPriority"
    async with make_runtime(
        {"function.ts": EFFECTS}, LAMBDA_DENO_PERMISSIONS=value
    ) as runtime:
        before = os.getpriority(os.PRIO_PROCESS, runtime.pid)
        done, _ = (await api.invoke({"outside": str(tmp_path)})).json()
        assert done == ["renice"]
        await api.wait_for_next()
        # Undone before the next process was started, where the system allows it.
        left = before if os.geteuid() == 0 else 5
        assert os.getpriority(os.PRIO_PROCESS, runtime.pid) == left


IMPORTS = """
export async function handler(event: any) {
  const said: string[] = [];
  for (const name of ["https://esm.sh/a", "npm:a-package-that-is-not-there@1.0.0"]) {
    try { await import(name); } catch (error) { said.push((error as Error).message); }
  }
  if (event.fails) await import("https://esm.sh/a");
  return said;
}
"""


@pytest.mark.parametrize("value", ["none", "--allow-env --cached-only"])
async def test_no_module_is_loaded_from_the_network(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, value: str
) -> None:
    """``none`` let a handler import from public hosts, and tell them what it knew."""
    async with make_runtime({"function.ts": IMPORTS}, LAMBDA_DENO_PERMISSIONS=value):
        said = (await api.invoke({})).json()
        assert len(said) == 2
        assert all("cached-only" in text for text in said)
        told = (await api.invoke({"fails": True})).json()["errorMessage"]
        assert 'not found in cache: "https://esm.sh/a", and LAMBDA_DENO_PERM' in told
        assert told.endswith("it has to come with the function.")
        await api.wait_for_next()


async def test_none_runs_with_packages_that_come_with_the_function(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {
        "function.ts": "import one from 'one'; export const handler = () => one;",
        "package.json": '{"dependencies":{"one":"*"}}',
        "node_modules/one/package.json": '{"main":"i.js"}',
        "node_modules/one/i.js": "module.exports = 1",
    }
    async with make_runtime(files, LAMBDA_DENO_PERMISSIONS="none"):
        assert (await api.invoke({})).json() == 1
        await api.wait_for_next()


LITERAL = """
const computed = (...parts: string[]) => parts.join("");
async function outcome(attempt: () => Promise<any>) {
  try { return (await attempt()).default; } catch (error) { return error.message; }
}
export const handler = () => Promise.all([
  () => import("%(folder)s/a.json", { with: { type: "json" } }),
  () => import("file:///proc/self/environ"),
  () => import(computed("%(folder)s", "/b.json"), { with: { type: "json" } }),
  () => import(computed("file:///proc/", "self/status")),
].map(outcome));
"""


async def test_what_a_literal_import_names_is_read_and_no_more(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """A limit of Deno 2.9.8 that docs/security.md owns up to."""
    for name in "ab":
        (tmp_path / f"{name}.json").write_text('"content"')
    source = LITERAL % {"folder": tmp_path.as_uri()}
    async with make_runtime(
        {"function.ts": source},
        LAMBDA_DENO_PERMISSIONS="none",
        LAMBDA_DENO_ENV="LDS_TEST_ID",
    ) as runtime:
        whole, excerpt, *computed = (await api.invoke({})).json()
        assert whole == "content"
        assert "SyntaxError" in excerpt
        assert "=" in excerpt
        assert all(text.startswith("No such file") for text in computed)
        assert runtime.is_running
        await api.wait_for_next()


# The environment.

SECRETS = {
    "AWS_ACCESS_KEY_ID": "hush-id",
    "AWS_SECRET_ACCESS_KEY": "hush-key",
    "AWS_SESSION_TOKEN": "hush-token",
    "AWS_LAMBDA_METADATA_TOKEN": "hush-metadata",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "hush-container",
}
SEEN = """
import { env } from "node:process";
export function handler() {
  const args = ["-c", `tr '\\\\0' '\\\\n' < /proc/${Deno.pid}/environ`];
  const listed = new Deno.Command("sh", { args }).outputSync().stdout;
  const known = new TextDecoder().decode(listed).split("\\n")
    .map((line) => line.split("=")[0]);
  return [Object.keys(Deno.env.toObject()), Object.keys(env), known]
    .map((names) => names.filter((name) => name !== "" && name !== "_"));
}
"""
ALWAYS = {
    "LDS_TEST_ID", "PATH", "HOME", "TMPDIR", "DENO_DIR", "DENO_NO_UPDATE_CHECK",
    "DENO_DISABLE_NODE_SHIM",
    "NO_COLOR",
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ("LDS_TEST_ID", set()),
        ("APP_*, STAGE LDS_TEST_ID", {"APP_COLOUR", "STAGE"}),
        ("LDS_TEST_ID AWS_SESSION_TOKEN", {"AWS_SESSION_TOKEN"}),
        ("LDS_TEST_ID @credentials", set(SECRETS)),
        ("LDS_TEST_ID AWS_REG* AWS_S*", {"AWS_REGION"}),
    ],
)
async def test_an_allow_list_withholds_the_rest_at_every_door(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, names: str, seen: set[str]
) -> None:
    async with make_runtime(
        {"function.ts": SEEN},
        LAMBDA_DENO_ENV=names,
        LAMBDA_DENO_PERMISSIONS="all",
        APP_COLOUR="blue",
        STAGE="test",
        AWS_REGION="eu-central-1",
        **SECRETS,
    ):
        for found in (await api.invoke({})).json():
            assert set(found) == ALWAYS | seen
        await api.wait_for_next()


@pytest.mark.parametrize(("names", "has"), [("*", False), (None, True)])
async def test_a_star_is_all_but_credentials_and_no_list_is_all(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, names: str | None, has: bool
) -> None:
    async with make_runtime(
        {"function.ts": SEEN},
        LAMBDA_DENO_ENV=names,
        LAMBDA_DENO_PERMISSIONS="all",
        APP_COLOUR="blue",
        **SECRETS,
    ):
        for found in (await api.invoke({})).json():
            assert {"APP_COLOUR", "_HANDLER", *ALWAYS} <= set(found)
            assert (set(SECRETS) <= set(found)) is has
            assert (set(SECRETS).isdisjoint(found)) is not has
            assert not {n for n in found if n.startswith("LAMBDA_DENO_")}
        await api.wait_for_next()


# What is told.


@pytest.mark.parametrize(
    ("level", "log_format"),
    [("TRACE", "JSON"), ("DEBUG", "JSON"), ("DEBUG", "Text"), ("INFO", "Text")],
)
async def test_the_command_line_is_logged_once_and_no_secret_ever(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, level: str, log_format: str
) -> None:
    async with make_runtime(
        {"function.ts": "export const handler = (e: any) => e.length"},
        AWS_LAMBDA_LOG_LEVEL=level,
        AWS_LAMBDA_LOG_FORMAT=log_format,
        LAMBDA_DENO_ENV="APP_* LDS_TEST_ID",
        APP_PASSWORD="hush-password",
        **SECRETS,
    ) as runtime:
        for _ in range(2):
            await api.invoke("hush-event")
        await api.wait_for_next()
        times = 0 if level == "INFO" else 1
        assert runtime.log.count("--allow-sys --deny-sys=setPriority") == times
        assert runtime.log.count("withheld from it: ") == times
        assert runtime.log.count("APP_PASSWORD") == times
        assert runtime.log.count("AWS_SECRET_ACCESS_KEY") == times
        assert "hush" not in runtime.log


async def test_invoke_verbose_shows_it(tmp_path: Path) -> None:
    (tmp_path / "function.ts").write_text("export const handler = () => 1")
    for option in ([], ["--verbose"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lambda_deno_spawn", "invoke", str(tmp_path), *option,
            "--env", "APP_PASSWORD=hush", "--event", '"hush"',
            env={**os.environ, **SECRETS},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            stdout, stderr = await process.communicate()
        assert (process.returncode, stdout) == (0, b"1\n"), stderr
        assert (b' --allow-write="$TMPDIR" ' in stderr) is bool(option)
        assert (b"APP_PASSWORD" in stderr) is bool(option)
        assert b"hush" not in stderr


DENIALS = """
import * as dns from "node:dns/promises";
import * as fs from "node:fs";
export async function handler(event: any) {
  const tries: Record<string, () => unknown> = {
    read: () => Deno.readTextFileSync("/etc/passwd"),
    node: () => fs.readFileSync("/etc/it's"),
    write: () => Deno.writeTextFileSync("/etc/x", ""),
    temp: () => Deno.makeTempFileSync(),
    run: () => new Deno.Command("git").outputSync(),
    env: () => Deno.env.get("SECRET"),
    environ: () => Deno.env.toObject(),
    sys: () => Deno.hostname(),
    ffi: () => Deno.dlopen("/x.so", {}),
    net: () => fetch("http://a.test/"),
    lookup: () => dns.lookup("a.test"),
    runtimeApi: () => Deno.connect({ hostname: "127.0.0.1", port: event.port }),
    byOtherName: () => Deno.connect({ hostname: "127.9.9.9", port: event.port }),
    wrapped: () => fetch(`http://127.0.0.1.:${event.port}/`),
    credentials: () => {
      throw Object.assign(new Error("Could not load credentials from any providers"),
        { name: "CredentialsProviderError" });
    },
  };
  if (event.logs) console.error("it failed", await caught(tries[event.what]));
  await tries[event.what]();
}
async function caught(attempt: () => unknown) {
  try { await attempt(); } catch (error) { return error; }
}
"""
RUNTIME_API = "the address of the Runtime API, which no permission opens"
IN_JSON = 'or list what the function may do under "permissions" in deno.json'
IN_SET = 'or add it to the permission set "default" in deno.json'


OR = "(permissions in lambda.toml; `lambda-deno-spawn explain` tells more), "


def use(setting: str) -> str:
    return f': set LAMBDA_DENO_PERMISSIONS="{setting}" {OR}'


def hidden(setting: str) -> str:
    return f'; to read it, set LAMBDA_DENO_PERMISSIONS="{setting}" {OR}'


HINTS = [
    ("", None, {
        "read": hidden("default --allow-read=PATH") + IN_JSON,
        "node": hidden("default --allow-read='/etc/it'\\''s'") + IN_JSON,
        "write": use("default --allow-write=/etc/x"),
        "run": use("default --allow-run=git"),
        "ffi": use("default --allow-ffi=/x.so"),
        "runtimeApi": RUNTIME_API, "byOtherName": RUNTIME_API, "wrapped": RUNTIME_API,
        "credentials": "from any providers",
    }),
    ("none", None, {
        "read": hidden("--allow-read=PATH"), "temp": use("--allow-write=$TMPDIR"),
        "env": use("--allow-env=SECRET"), "environ": use("--allow-env"),
        "sys": use("--allow-sys=hostname"), "net": use("--allow-net=a.test:80"),
        "lookup": use("--allow-net=a.test"), "runtimeApi": RUNTIME_API,
    }),
    ("all", None, {"runtimeApi": RUNTIME_API, "byOtherName": RUNTIME_API}),
    ("--allow-net=b.test --deny-read=/etc/passwd --allow-read", None, {
        "net": use("--allow-net=b.test --deny-read=/etc/passwd --allow-read "
                   "--allow-net=a.test:80"),
        "read": "; what is denied for read there or in deno.json stays denied",
    }),
    ("", '{"permissions": {"default": {"env": ["A"]}}}', {
        "env": use("default --allow-env=SECRET") + IN_SET,
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "config", "hints", "log_format"),
    [(*case, "Text") for case in HINTS] + [(*HINTS[0], "JSON")],
    ids=["default", "none", "all", "flags", "set", "default-json"],
)
async def test_a_denied_access_names_the_setting_that_would_allow_it(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    value: str,
    config: str | None,
    hints: dict[str, str],
    log_format: str,
) -> None:
    """Deno says "run again with the --allow-read flag", which nobody can on Lambda."""
    files = {"function.ts": DENIALS} | ({"deno.json": config} if config else {})
    async with make_runtime(
        files, LAMBDA_DENO_PERMISSIONS=value, AWS_LAMBDA_LOG_FORMAT=log_format
    ) as runtime:
        for what, hint in hints.items():
            event = {"what": what, "port": api.port, "logs": True}
            answer = await api.invoke(event)
            body = answer.json()
            message = body["errorMessage"] + body.get("cause", {}).get(
                "errorMessage", ""
            )
            assert hint in message, body
            assert "run again" not in answer.body.decode()
            shown = json.dumps(hint)[1:-1] if log_format == "JSON" else hint
            await runtime.logged(shown)
            if what in ("read", "env", "net"):
                await suggestion_helps(message, what, body)
        assert "run again with" not in runtime.log
        await api.wait_for_next()


async def suggestion_helps(message: str, what: str, body: dict[str, Any]) -> None:
    """Feed what is suggested to the parser of the setting."""
    from lambda_deno_spawn.permissions import Permissions

    setting = message.partition('LAMBDA_DENO_PERMISSIONS="')[2].partition('"')[0]
    flags = dict(Permissions.parse(setting).flags)
    assert f"allow-{what}" in flags, body


@pytest.mark.parametrize(
    ("names", "is_withheld"),
    [("*", True), ("* @credentials", False), (None, False)],
)
async def test_missing_credentials_are_told_if_they_are_withheld(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    names: str | None,
    is_withheld: bool,
) -> None:
    async with make_runtime({"function.ts": DENIALS}, LAMBDA_DENO_ENV=names, **SECRETS):
        body = (await api.invoke({"what": "credentials"})).json()
        assert body["errorType"] == "CredentialsProviderError"
        hint = ": LAMBDA_DENO_ENV withholds the credentials, unless it has @credentials"
        assert body["errorMessage"].endswith(hint) is is_withheld
        await api.wait_for_next()
