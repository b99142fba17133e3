"""Copies of a loaded process for several events at once: nothing of one in another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.native.control import library_path
from tests.doubles import FakeRuntimeApi
from tests.integration.test_managed_instances import invoke_all, managed

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [
    pytest.mark.deno,
    pytest.mark.as_lambda,
    pytest.mark.skipif(library_path() is None, reason="make native builds the library"),
]

CONCURRENCY = 4
METRICS = {"LAMBDA_DENO_METRICS": "json"}
AT_ONCE = {**managed(CONCURRENCY), **METRICS, "LAMBDA_DENO_START": "auto"}
# Held events wait for a file in their own folder, which the test makes.
SPY = """
import { DatabaseSync } from "node:sqlite";
import { readFileSync, mkdtempSync } from "node:fs";
import os from "node:os";

const folder = () => Deno.env.get("TMPDIR");
// Where it may not look, it may remove.
const isRemoved = (path) => {
  try { return Deno.removeSync(path) ?? true; } catch { return false; }
};
async function hold() {
  Deno.writeTextFileSync(`${folder()}/secret.mjs`, "export default 'secret';");
  await import(`data:application/typescript,export const a: string = "${Deno.pid}"`);
  console.log(`holds ${folder()} !`);
  while (!isRemoved(`${folder()}/go`)) await new Promise((go) => setTimeout(go, 5));
  try {
    const names = Array.from(Deno.readDirSync(folder()), (entry) => entry.name);
    return names.map((name) => name.replace(/made-.*/, "made")).sort();
  } catch (error) {
    return error.name;
  }
}
const tries = {
  list: (path) => Array.from(Deno.readDirSync(path)).length > 0,
  read: (path) => Deno.readTextFileSync(`${path}/secret.mjs`),
  nodeRead: (path) => readFileSync(`${path}/secret.mjs`, "utf8"),
  stat: (path) => Deno.statSync(`${path}/secret.mjs`).isFile,
  import: async (path) => (await import(`file://${path}/secret.mjs`)).default,
  worker: (path) => new Promise((resolve, reject) => {
    const url = `data:text/javascript,
      let said;
      try { said = Deno.readTextFileSync("${path}/secret.mjs"); }
      catch (error) { said = error.name; }
      postMessage(said);`;
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
    worker.onerror = (error) => reject(error);
  }),
  write: (path) => Deno.writeTextFileSync(`${path}/written`, "x") ?? true,
  remove: (path) => Deno.removeSync(`${path}/none`) ?? true,
  make: (path) => mkdtempSync(`${path}/made-`).length > 0,
  take: (path) => Deno.renameSync(`${path}/secret.mjs`, `${folder()}/taken`) ?? true,
  link: (path) => Deno.linkSync(`${path}/secret.mjs`, `${folder()}/linked`) ?? true,
  database: (path) => new DatabaseSync(`${path}/data`).exec("create table a (b)") ?? 1,
  fetch: async (path) => (await fetch(`file://${path}/secret.mjs`)).ok,
  ask: (path) => Deno.permissions.querySync({ name: "read", path }).state,
  askAgain: (path) => Deno.permissions.requestSync({ name: "write", path }).state,
};
async function spy(path) {
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { found[name] = await attempt(path); }
    catch (error) { found[name] = error.name; }
  }
  return found;
}
const own = {
  list: () => Array.from(Deno.readDirSync(folder())).length,
  write: () => Deno.writeTextFileSync(`${folder()}/a`, "x") ?? true,
  temporary: () => Deno.makeTempDirSync().startsWith(folder()),
  same: () => {
    const { HOME, TMPDIR } = Deno.env.toObject();
    const all = [HOME, TMPDIR, Deno.env.get("HOME"), os.tmpdir(), os.homedir()];
    return all.every((path) => path === folder());
  },
};
export async function handler({ does, path }) {
  switch (does) {
    case "hold": return await hold();
    case "spy": return await spy(path);
  }
  const found = {};
  for (const [name, attempt] of Object.entries(own)) {
    try { found[name] = attempt(); } catch (error) { found[name] = error.name; }
  }
  return found;
}
"""


async def until_forked(
    runtime: RuntimeUnderTest, api: FakeRuntimeApi, event: dict[str, Any]
) -> list[Any]:
    """Serve events until as many as may come at once have been served by copies."""
    answers = []
    for _ in range(12):
        found = await invoke_all(api, [event] * CONCURRENCY)
        answers += [answer.json() for answer in found]
        for _ in range(CONCURRENCY):
            await api.wait_for_next()
        lines = await starts(runtime, len(answers))
        if lines[-CONCURRENCY:] == ["fork"] * CONCURRENCY:
            return answers
    raise AssertionError(runtime.log)


async def starts(runtime: RuntimeUnderTest, count: int) -> list[str]:
    """Return how each event was served, once that is in the log."""
    return [report["start"] for report in await runtime.reported(count)]


def behind_alias(path: str) -> str:
    """Return the folder that a copy's path leads to, by which others could try it."""
    if not path.endswith("/self/own"):
        return path
    state = Path(path).parents[1]
    [secret] = state.glob("*/own/secret.mjs")
    return str(secret.parent)


async def spied(runtime: RuntimeUnderTest, api: FakeRuntimeApi) -> Any:
    """Return what one event could do with the folder of another that runs."""
    holding = api.deliver(json.dumps({"does": "hold"}).encode())
    line = await runtime.logged("holds ")
    path = behind_alias(line.partition("holds ")[2].partition(" !")[0])
    spying = api.deliver(json.dumps({"does": "spy", "path": path}).encode())
    answer = await api.answer()
    assert answer.request_id == spying, answer.body
    Path(path, "go").touch()
    held = await api.answer()
    assert held.request_id == holding
    return answer.json(), held.json()


# What is not granted to read may be said not to be there.
DENIED = {"NotCapable", "NotFound"}
WRITE_ONLY = "--allow-env --allow-write=$TMPDIR"
LONG = pytest.mark.long


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "permissions",
    [
        pytest.param("", id="default"),
        pytest.param(WRITE_ONLY, id="write-only"),
        pytest.param("all", id="all", marks=LONG),
        pytest.param("default --allow-read=TEMP", id="reads-around", marks=LONG),
        pytest.param(
            "default --allow-run --deny-write=$TMPDIR/none", id="denies", marks=LONG
        ),
    ],
)
async def test_an_event_can_do_with_anothers_folder_what_it_always_could(
    make_runtime: MakeRuntime, tmp_path: Path, permissions: str
) -> None:
    granted = permissions.replace("TEMP", str(tmp_path))
    options = {**AT_ONCE, "LAMBDA_DENO_PERMISSIONS": granted}
    found = {}
    for start in ("auto", "exec"):
        options["LAMBDA_DENO_START"] = start
        runtime = make_runtime({"function.mjs": SPY}, **options)
        async with FakeRuntimeApi() as api:
            runtime.api = api
            async with runtime:
                if start == "auto":
                    answers = await until_forked(runtime, api, {"does": "own"})
                    if permissions != WRITE_ONLY:
                        assert all(answer["same"] for answer in answers)
                        assert {answer["list"] for answer in answers} == {0}
                found[start] = await spied(runtime, api)
    spy, held = found["auto"]
    assert found["exec"] == (spy, held)
    if permissions != "all":
        assert {spy[name] for name in ("write", "take", "make")} <= DENIED
    if not permissions:
        assert "secret.mjs" in held


async def test_each_copy_has_a_cache_of_its_own(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
    export async function handler({ adds }) {
      const folder = Deno.env.get("DENO_DIR");
      const text = `export const a: string = "${adds}"`;
      const before = listed(`${folder}/gen/data`);
      await import(`data:application/typescript,${text}`);
      const { stdout } = await new Deno.Command("env").output();
      return {
        folder, before, after: listed(`${folder}/gen/data`),
        inherited: new TextDecoder().decode(stdout).includes(`DENO_DIR=${folder}\\n`),
        linked: Deno.realPathSync(folder).length > 0,
      };
    }
    function listed(path) {
      try { return Array.from(Deno.readDirSync(path)).length; } catch { return 0; }
    }
    """
    options = {**AT_ONCE, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.mjs": source}, **options) as runtime:
        answers = await until_forked(runtime, api, {"adds": "the same for all"})
        for answer in answers:
            assert (answer["before"], answer["after"]) == (0, 1)
            assert answer["inherited"]
        assert len({answer["folder"] for answer in answers}) == len(answers)


# Each keeps a path of its folder while it loads.
KEEPS = """
import fs from "node:fs";
import os from "node:os";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";

const kept = {
  get: Deno.env.get("TMPDIR"),
  home: Deno.env.get("HOME"),
  all: Deno.env.toObject().HOME,
  spread: ({ ...process.env }).TMPDIR,
  homedir: os.homedir(),
  tmpdir: os.tmpdir(),
  real: Deno.realPathSync(os.tmpdir()),
  nodeReal: fs.realpathSync(os.homedir()),
};
// A file that was there while the module loaded, and is no more.
Deno.writeTextFileSync(`${kept.home}/early`, "");
Deno.removeSync(`${kept.get}/early`);
const tries = {
  list: (path) => Array.from(Deno.readDirSync(path)).length,
  open: (path) => {
    using file = Deno.openSync(path);
    return file.statSync().isDirectory;
  },
  none: (path) => Deno.readTextFileSync(`${path}/.aws/config`),
  write: (path, n) => Deno.writeTextFileSync(`${path}/a`, `${n}`) ?? true,
  read: (path, n) => Deno.readTextFileSync(`${path}/a`) === `${n}`,
  node: (path, n) => fs.readFileSync(`${path}/a`, "utf8") === `${n}`,
  same: (path, n) => Deno.readTextFileSync(`${Deno.env.get("TMPDIR")}/a`) === `${n}`,
  stat: (path) => fs.statSync(path).isDirectory(),
  make: (path) => Deno.mkdirSync(`${path}/b/c`, { recursive: true }) ?? true,
  temporary: (path) => Deno.makeTempDirSync({ dir: path }).startsWith(path),
  temporaryFile: (path) => Deno.makeTempFileSync().startsWith(path),
  real: (path) => Deno.realPathSync(`${path}/a`) === `${path}/a`,
  nodeReal: (path) => fs.realpathSync.native(`${path}/a`) === `${path}/a`,
  equal: (path) => path === os.tmpdir() && path === Deno.env.toObject().HOME,
  rename: (path) => Deno.renameSync(`${path}/a`, `${path}/d`) ?? true,
  copy: (path) => Deno.copyFileSync(`${path}/d`, `${path}/a`) ?? true,
  database: (path) => {
    const data = new DatabaseSync(`${path}/data`);
    data.exec("create table if not exists a (b)");
    data.close();
    return true;
  },
  import: async (path, n) => {
    Deno.writeTextFileSync(`${path}/m${n}.mjs`, `export default ${n}`);
    return (await import(`file://${path}/m${n}.mjs`)).default === n;
  },
  lock: (path) => {
    using file = Deno.openSync(`${path}/a`, { read: true, write: true });
    return file.lockSync(true) ?? true;
  },
  ask: (path) => Deno.permissions.querySync({ name: "write", path }).state,
  above: (path) => Deno.readDirSync(`${path}/..`),
  empty: (path) => Deno.removeSync(`${path}/b`, { recursive: true }) ?? true,
  again: (path) => {
    Deno.removeSync(path, { recursive: true });
    Deno.mkdirSync(path);
    return Deno.writeTextFileSync(`${path}/a`, "") ?? true;
  },
  leave: (path) => (Deno.chdir(path), Deno.statSync("a").isFile),
};
export async function handler({ n }) {
  const found = {};
  for (const [name, path] of Object.entries(kept)) {
    found[name] = {};
    for (const [what, attempt] of Object.entries(tries)) {
      try { found[name][what] = await attempt(path, n); }
      catch (error) { found[name][what] = error.name; }
      // The others' turn.
      await new Promise((go) => setTimeout(go, 0));
    }
  }
  return found;
}
"""


async def test_a_path_that_a_module_keeps_leads_each_copy_to_its_own_folder(
    make_runtime: MakeRuntime,
) -> None:
    found = {}
    for start in ("auto", "exec"):
        options = {**AT_ONCE, "LAMBDA_DENO_START": start}
        runtime = make_runtime({"function.mjs": KEEPS}, **options)
        async with FakeRuntimeApi() as api:
            runtime.api = api
            async with runtime:
                if start == "auto":
                    await until_forked(runtime, api, {"n": 1})
                events = [{"n": n} for n in range(CONCURRENCY)]
                answers = await invoke_all(api, events)
                found[start] = [answer.json() for answer in answers]
    assert found["auto"] == found["exec"]
    first = found["exec"][0]["get"]
    assert {name for name, value in first.items() if value is not True} == {
        "list", "none", "ask", "above",
    }  # fmt: skip


NAMED = {
    "Deno.mkdirSync(Deno.env.get('TMPDIR') + '/a');": "left files in its folder",
    "Deno.chdir(Deno.env.get('HOME'));": "made its folder (TMPDIR, HOME) the current",
    "globalThis.file = Deno.openSync(Deno.env.get('TMPDIR'));": (
        "left a file open in its folder"
    ),
}
MAY_RUN = "default --allow-run"


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("loads", "permissions", "reason"),
    [
        *((loads, "", reason) for loads, reason in NAMED.items()),
        # Programs cannot follow the path, and who may write everywhere may change it.
        ("Deno.env.toObject();", MAY_RUN, "read the path of its folder"),
        ("Deno.env.get('HOME');", "all", "read the path of its folder"),
    ],
)
async def test_a_module_that_uses_its_folder_is_not_copied_into_others(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    loads: str,
    permissions: str,
    reason: str,
) -> None:
    source = f"{loads}\nexport const handler = (event) => event;"
    options = {**AT_ONCE, "LAMBDA_DENO_PERMISSIONS": permissions}
    async with make_runtime({"function.mjs": source}, **options) as runtime:
        for n in range(4):
            events = [{"n": n * 10 + m} for m in range(CONCURRENCY)]
            answers = await invoke_all(api, events)
            assert [answer.json() for answer in answers] == events
        line = await runtime.logged("Events are served by processes of their own start")
        assert reason in line
        assert set(await starts(runtime, 4 * CONCURRENCY)) == {"exec"}


async def test_a_permission_that_cannot_be_given_up_is_named(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "export const handler = (event) => event;"
    permissions = "default --allow-run=$TMPDIR/program"
    options = {**AT_ONCE, "LAMBDA_DENO_PERMISSIONS": permissions}
    async with make_runtime({"function.mjs": source}, **options) as runtime:
        assert (await api.invoke({"n": 1})).json() == {"n": 1}
        line = await runtime.logged("Events are served by processes of their own start")
        assert "--allow-run=$TMPDIR/program" in line


async def test_what_one_copy_does_is_no_matter_of_the_others(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
    export const handler = async (event) => {
      if (event.does === "loop") for (;;);
      if (event.does === "exit") Deno.exit(3);
      if (event.does === "kill") Deno.kill(Deno.pid, "SIGKILL");
      if (event.does === "start") new Deno.Command("sleep", { args: ["60"] }).spawn();
      await new Promise((go) => setTimeout(go, 5));
      return event;
    };
    """
    options = {**AT_ONCE, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.mjs": source}, **options) as runtime:
        served = len(await until_forked(runtime, api, {"does": "nothing"}))
        bad = {
            "loop": "Runtime.InvokeTimeout",
            "exit": "Runtime.ExitError",
            "kill": "Runtime.ExitError",
            "start": None,
        }
        for does, error in bad.items():
            events = [{"n": n} for n in range(CONCURRENCY - 1)]
            wrong = {"does": does, "timeout": 1 if does == "loop" else 20}
            *good, answer = await invoke_all(api, [*events, wrong])
            assert [one.json() for one in good] == events
            assert answer.json().get("errorType") == error
            for _ in range(CONCURRENCY):
                await api.wait_for_next()
        found = await starts(runtime, served + len(bad) * CONCURRENCY)
        assert set(found[served:]) == {"fork"}
