"""Processes that begin as copies of a loaded one: fresh, alone, and only where safe."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from lambda_deno_spawn.native.control import library_path
from tests.integration.harness import LIMIT_S, kill_and_wait, reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [
    pytest.mark.deno,
    pytest.mark.as_lambda,
    pytest.mark.skipif(library_path() is None, reason="make native builds the library"),
]

# The first process is started; copies are made of the second one.
STARTED = 1
ENVIRON = {
    "LAMBDA_DENO_START": "auto",
    "LAMBDA_DENO_METRICS": "json",
    "LAMBDA_DENO_WARM": "ready",
}

FACTS = """
import { readdirSync, writeFileSync } from "node:fs";
import process from "node:process";
LOADS
let count = 0;
globalThis.seen = [];
export async function handler(event) {
  const folder = Deno.env.get("TMPDIR");
  const found = readdirSync(folder);
  writeFileSync(`${folder}/left`, "x");
  globalThis.seen.push(event);
  count += 1;
  await new Promise((resolve) => setTimeout(resolve, 1));
  return {
    count, found, same: (globalThis.own ?? folder) === folder,
    seen: globalThis.seen.length, pids: [Deno.pid, process.pid],
    numbers: [
      Math.random(),
      crypto.randomUUID(),
      crypto.getRandomValues(new Uint32Array(2)),
    ],
  };
}
"""


async def starts(runtime: RuntimeUnderTest, api: FakeRuntimeApi) -> list[str]:
    await api.wait_for_next()
    return [report["start"] for report in reports(runtime.log)]


async def forked_again(runtime: RuntimeUnderTest, api: FakeRuntimeApi) -> None:
    """Serve events until one has a copy: a busy machine loads a template slowly."""
    async with asyncio.timeout(LIMIT_S):
        while (await starts(runtime, api))[-1] != "fork":
            api.deliver(b"{}")
            assert (await api.answer()).call == "response"


async def answers(api: FakeRuntimeApi, count: int) -> list[Any]:
    return [(await api.invoke({"number": number})).json() for number in range(count)]


async def test_each_event_has_a_copy_of_its_own(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.js": FACTS.replace("LOADS", "")}, **ENVIRON
    ) as it:
        found = await answers(api, 12)
        for answer in found:
            assert (answer["count"], answer["seen"], answer["found"]) == (1, 1, [])
            assert len(set(answer["pids"])) == 1
        assert len({answer["pids"][0] for answer in found}) == len(found)
        numbers = [json.dumps(n) for answer in found for n in answer["numbers"]]
        assert len(set(numbers)) == len(numbers)
        assert await starts(it, api) == ["exec"] * STARTED + ["fork"] * 11
        assert it.log.count("Events are served by forks") == 1


@pytest.mark.cases(1)
@pytest.mark.parametrize("warm", ["background", "off"])
async def test_copies_are_made_however_they_are_started(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    environ = {**ENVIRON, "LAMBDA_DENO_WARM": warm}
    async with make_runtime(
        {"function.js": FACTS.replace("LOADS", "")}, **environ
    ) as it:
        found = await answers(api, 12)
        assert {answer["count"] for answer in found} == {1}
        assert (await starts(it, api))[-3:] == ["fork"] * 3


SHARED = {
    "const socket = Deno.listen({ port: 0 });": "a socket",
    "new Worker('data:text/javascript,onmessage=0', { type: 'module' });": ("a Worker"),
    "const watcher = Deno.watchFs('.');": "a watcher",
    "const child = new Deno.Command('sleep', { args: ['60'] }).spawn();": "a child",
    "const id = crypto.randomUUID();": "drawn random numbers",
    "const bytes = crypto.getRandomValues(new Uint8Array(2));": "drawn random numbers",
    "import { randomFillSync as f } from 'node:crypto'; f(new Uint8Array(4));": (
        "drawn random numbers"
    ),
    "Deno.openSync(import.meta.dirname + '/log', { create: true, append: true });": (
        "a file"
    ),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("loads", SHARED)
async def test_what_two_processes_cannot_share_is_named_and_not_copied(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, loads: str
) -> None:
    source = FACTS.replace("LOADS", loads).replace("found = ", "found = [] && ")
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.js": source}, **environ) as runtime:
        found = await answers(api, 6)
        assert {answer["count"] for answer in found} == {1}
        assert set(await starts(runtime, api)) == {"exec"}
        line = await runtime.logged("Events are served by processes of their own start")
        assert SHARED[loads] in line
        assert SHARED[loads] in reports(runtime.log)[-1]["startReason"]


UNSHARED = [
    "setInterval(() => {}, 1_000);",
    "globalThis.own = Deno.env.get('TMPDIR');",
    "await Deno.readTextFile(import.meta.filename);",
    "Math.random();",
    "process.on('SIGUSR1', () => {});",
    "await fetch('data:,x');",
    "await crypto.subtle.digest('SHA-256', new Uint8Array(9));",
]


@pytest.mark.cases(1)
@pytest.mark.parametrize("loads", UNSHARED)
async def test_what_is_over_or_can_be_copied_does_not_prevent_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, loads: str
) -> None:
    source = FACTS.replace("LOADS", loads)
    async with make_runtime({"function.js": source}, **ENVIRON) as runtime:
        found = await answers(api, 4)
        assert {(answer["count"], answer["same"]) for answer in found} == {(1, True)}
        await forked_again(runtime, api)


# The folder is another one for each event, so what a module does to it would be gone
# with the first copy.
USES = {
    "Deno.mkdirSync(folder + '/work');": ("work", "left files in its folder"),
    "Deno.chdir(folder);": (".", "made its folder (TMPDIR, HOME) the current one"),
    "const open = Deno.openSync(folder);": (".", "left a file open in its folder"),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("loads", USES)
async def test_a_module_that_uses_its_folder_while_it_loads_finds_it_so_every_time(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, loads: str
) -> None:
    path, reason = USES[loads]
    source = f"""
    const folder = Deno.env.get("TMPDIR");
    {loads}
    export function handler() {{
      Deno.writeTextFileSync(`${{folder}}/{path}/file`, "");
      return [Deno.cwd() === folder, Deno.statSync(`${{folder}}/{path}/file`).size];
    }}
    """
    async with make_runtime({"function.js": source}, **ENVIRON) as runtime:
        assert await answers(api, 5) == [["chdir" in loads, 0]] * 5
        assert set(await starts(runtime, api)) == {"exec"}
        line = await runtime.logged("Events are served by processes of their own start")
        assert reason in line


WORK = """
import { gzipSync, gunzipSync, createGzip } from "node:zlib";
import { pbkdf2 } from "node:crypto";
import { readFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
export const handler = async (event) => await work[event.does](event);
const work = {
  files: async () => (await readFile(import.meta.filename)).length > 0,
  timers: () => new Promise((resolve) => setTimeout(() => resolve(true), 5)),
  lookup: async () => (await Deno.resolveDns("localhost", "A").catch(() => [])) && true,
  digest: async () =>
    (await crypto.subtle.digest("SHA-256", new Uint8Array(9))).byteLength === 32,
  key: async () =>
    (await crypto.subtle.generateKey("Ed25519", true, ["sign"])).publicKey.type ===
      "public",
  derive: () =>
    new Promise((resolve) => pbkdf2("a", "b", 10, 16, "sha256", (_, key) =>
      resolve(key.length === 16))),
  zip: () => gunzipSync(gzipSync("abc")).toString() === "abc",
  zipStream: async () => {
    const zip = new CompressionStream("gzip");
    const stream = new Blob(["abc"]).stream().pipeThrough(zip);
    return (await new Response(stream).arrayBuffer()).byteLength > 0;
  },
  serve: async () => {
    const server = Deno.serve({ port: 0, onListen() {} }, () => new Response("yes"));
    const answer = await fetch(`http://127.0.0.1:${server.addr.port}/`);
    const text = await answer.text();
    await server.shutdown();
    return text === "yes";
  },
  wasm: async () => {
    const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
    return (await WebAssembly.compile(bytes)) instanceof WebAssembly.Module;
  },
  worker: () =>
    new Promise((resolve) => {
      const source = "postMessage(41 + 1)";
      const worker = new Worker(`data:text/javascript,${source}`, { type: "module" });
      worker.onmessage = ({ data }) => {
        worker.terminate();
        resolve(data === 42);
      };
    }),
  import: async () =>
    (await import("data:text/javascript,export default 3")).default === 3,
  sqlite: () => new DatabaseSync(":memory:").prepare("select 7 as n").get().n === 7,
  command: async () => {
    const { stdout } = await new Deno.Command("echo", { args: ["-n", "x"] }).output();
    return new TextDecoder().decode(stdout) === "x";
  },
  signal: () =>
    new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), 5_000);
      Deno.addSignalListener("SIGUSR1", () => {
        clearTimeout(timer);
        resolve(true);
      });
      Deno.kill(Deno.pid, "SIGUSR1");
    }),
  garbage: () => {
    let kept;
    for (let i = 0; i < 300_000; i++) kept = { i, kept: [i] };
    return kept.i === 299_999;
  },
  environment: async () => {
    const { stdout } = await new Deno.Command("env").output();
    const text = new TextDecoder().decode(stdout);
    return !/LD_PRELOAD|FORK_FD/.test(text) && !Deno.env.get("LD_PRELOAD");
  },
  template: async ({ template }) => {
    // Not even with all permissions: unless this is root.
    const args = ["-c", `head -c 1 /proc/${template}/environ`];
    const { success } = await new Deno.Command("sh", { args, stderr: "null" }).output();
    return Deno.uid() === 0 || !success;
  },
};
"""
DOES = [
    "files", "timers", "lookup", "digest", "key", "derive", "zip", "zipStream", "serve",
    "wasm", "worker", "import", "sqlite", "command", "signal", "garbage", "environment",
    "template",
]  # fmt: skip


async def test_a_copy_can_do_what_a_process_can(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.js": WORK}, **environ) as runtime:
        for _ in range(STARTED):
            await api.invoke({"does": "timers"})
        await api.invoke({"does": "timers"})
        line = await runtime.logged("Events are served by forks of process")
        template = int(line.rpartition(" ")[2])
        for does in DOES:
            event = {"does": does, "template": template}
            assert (await api.invoke(event)).json() is True, does
        assert (await starts(runtime, api))[STARTED:].count("fork") >= len(DOES) - 4


BAD = """
export async function handler({ does }) {
  switch (does) {
    case "throws": throw new RangeError("thrown");
    case "exits": Deno.exit(3);
    case "loops": for (;;);
    case "spoils": delete globalThis.Deno; JSON.stringify = () => "spoilt"; return null;
    case "kills": Deno.kill(Deno.pid, "SIGKILL"); return await new Promise(() => {});
    case "stays": setInterval(() => console.log("still here"), 10); return "stays";
    case "starts": new Deno.Command("sleep", { args: ["60"] }).spawn(); return "starts";
  }
  return typeof Deno;
}
"""
OUTCOMES = {
    "throws": "RangeError",
    "exits": "Runtime.ExitError",
    "loops": "Runtime.InvokeTimeout",
    "kills": "Runtime.ExitError",
}


async def test_a_bad_event_costs_one_copy(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.js": BAD}, **environ) as runtime:
        for _ in range(STARTED):
            await api.invoke({})
        for does in ("throws", "exits", "loops", "spoils", "kills", "stays", "starts"):
            limit_s = 2 if does == "loops" else 60
            answer = await api.invoke({"does": does}, timeout_s=limit_s)
            if does in OUTCOMES:
                assert answer.json()["errorType"] == OUTCOMES[does]
            assert (await api.invoke({})).json() == "object"
        await forked_again(runtime, api)
        assert "still here" not in runtime.log.split('"object"')[-1]


@pytest.mark.cases(1)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_template_that_is_gone_costs_nothing_but_a_start(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, number: signal.Signals
) -> None:
    source = FACTS.replace("LOADS", "")
    async with make_runtime({"function.js": source}, **ENVIRON) as runtime:
        await answers(api, STARTED + 1)
        line = await runtime.logged("Events are served by forks of process")
        template = int(line.rpartition(" ")[2])
        if number == signal.SIGKILL:
            await kill_and_wait(template)
        else:
            os.kill(template, number)
        found = await answers(api, 6)
        assert {answer["count"] for answer in found} == {1}
        await forked_again(runtime, api)
        assert not psutil.pid_exists(template)


async def test_what_an_event_adds_to_the_cache_is_gone_with_its_copy(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export async function handler({ adds }) {
  const source = `export const a: number = ${adds}`;
  const folder = `${Deno.env.get("DENO_DIR")}/gen/data`;
  const list = () => Array.from(Deno.readDirSync(folder)).length;
  const before = Deno.statSync(`${folder}/..`).isDirectory && lives(folder) && list();
  if (adds) await import(`data:application/typescript,${source}`);
  return [before, lives(folder) && list()];
}
function lives(path) {
  try { return Deno.statSync(path).isDirectory; } catch { return false; }
}
"""
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    # A module that is no JavaScript, so that there is a folder to add to.
    async with make_runtime({"function.ts": source}, **environ) as runtime:
        await api.invoke({})
        for adds in (1, 1, 2):
            assert (await api.invoke({"adds": adds})).json() == [False, 1]
            assert (await api.invoke({})).json() == [False, False]
        assert await starts(runtime, api) == ["exec"] + ["fork"] * 6
        assert runtime.log.count("Events are served by forks") == 1


async def test_a_function_that_needs_its_memory_has_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export const handler = ({ number }) =>
  new Uint8Array(number === 4 ? 96 << 20 : 0).fill(1).length;
"""
    environ = {**ENVIRON, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}
    async with make_runtime({"function.js": source}, **environ) as runtime:
        await answers(api, 7)
        assert await starts(runtime, api) == ["exec", *["fork"] * 4, "exec", "exec"]
        line = await runtime.logged("Events are served by processes of their own start")
        assert "an event has used 1" in line
        assert "of the function's 128 MB" in line
        assert "an event has used" in reports(runtime.log)[-1]["startReason"]


async def test_a_fork_that_is_asked_for_and_impossible_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "const socket = Deno.listen({ port: 0 });\nexport const handler = () => 1;"
    environ = {**ENVIRON, "LAMBDA_DENO_START": "fork", "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.js": source}, **environ) as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        body = answer.json()
        assert body["errorType"] == "Runtime.InvalidConfiguration"
        assert "LAMBDA_DENO_START" in body["errorMessage"]
        assert "socket" in body["errorMessage"]
        assert await runtime.wait() == 1


async def test_reuse_and_forks_exclude_each_other(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {
        **ENVIRON,
        "LAMBDA_DENO_START": "fork",
        "LAMBDA_DENO_MAX_INVOCATIONS": "5",
    }
    source = {"function.js": "export const handler = () => 1;"}
    async with make_runtime(source, **environ) as runtime:
        message = (await api.answer()).json()["errorMessage"]
        assert "a process serves several events" in message
        assert await runtime.wait() == 1


@pytest.mark.every_way("server")
async def test_a_server_and_forks_exclude_each_other(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {**ENVIRON, "LAMBDA_DENO_START": "fork"}
    source = {"function.js": "export const handler = () => 1;"}
    async with make_runtime(source, **environ) as runtime:
        message = (await api.answer()).json()["errorMessage"]
        assert "one process serves all events" in message
        assert await runtime.wait() == 1
