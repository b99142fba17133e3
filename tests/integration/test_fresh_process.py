"""What a handler may count on: its context, its own process, and nobody before it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import kill_and_wait, reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno, pytest.mark.every_way]

WARM = pytest.mark.parametrize("warm", ["ready", "background", "off"])

FACTS = """
let served = 0;
const loadedAt = Deno.pid;
export async function handler(event: any, context: any) {
  served += 1;
  const before = [...Deno.readDirSync(Deno.env.get("TMPDIR")!)].length;
  Deno.writeTextFileSync(Deno.env.get("TMPDIR") + "/left.txt", "left behind");
  Deno.env.set("LEFT_BEHIND", "yes");
  const leftEnv = event.look ? Deno.env.get("LEFT_BEHIND") : undefined;
  setInterval(() => console.log("a timer that was left behind"), 1);
  return {
    served, before, pid: Deno.pid, ppid: Deno.ppid, cwd: Deno.cwd(),
    home: Deno.env.get("HOME"), tmp: Deno.env.get("TMPDIR"),
    runtimeApi: Deno.env.get("AWS_LAMBDA_RUNTIME_API") ?? null,
  };
}
"""


@pytest.mark.every_way("fresh")
@WARM
async def test_every_event_gets_a_process_and_a_folder_of_its_own(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    async with make_runtime({"function.ts": FACTS}, LAMBDA_DENO_WARM=warm) as runtime:
        facts = [(await api.invoke({})).json() for _ in range(5)]
        await api.wait_for_next()
        assert [f["served"] for f in facts] == [1] * 5
        assert [f["before"] for f in facts] == [0] * 5
        assert len({f["pid"] for f in facts}) == 5
        assert len({f["tmp"] for f in facts}) == 5
        assert {f["ppid"] for f in facts} == {runtime.pid}
        assert {f["runtimeApi"] for f in facts} == {None}
        assert {f["cwd"] for f in facts} == {str(runtime.task_root)}
        for fact in facts:
            assert fact["home"] == fact["tmp"]
            assert not Path(fact["tmp"]).exists()
            assert not Path(f"/proc/{fact['pid']}").exists()


STAYS = """
const encoder = new TextEncoder();
const write = Object.getPrototypeOf(Deno.stdout).writeSync.bind(Deno.stdout);
const decode = (bytes: Uint8Array) => String.fromCharCode(...bytes);

function ownMarker(): string {
  const { subarray } = Uint8Array.prototype;
  let found = "";
  Uint8Array.prototype.subarray = function (...ends) {
    if (found === "") found = decode(subarray.call(this, 0, 32));
    return subarray.apply(this, ends);
  } as typeof subarray;
  console.log("shows the marker");
  Uint8Array.prototype.subarray = subarray;
  return found;
}

export async function handler(event: any) {
  if (!event.stays) return "its own";
  const marker = ownMarker();
  const forge = (kind: string, body: string, more = "") =>
    write(encoder.encode(
      `${marker}{"kind":"${kind}","bytes":${body.length}${more}}\\n${body}${marker}\\n`
    ));
  forge("RESULT", '"forged"');
  forge("DONE", "", ',"more":true');
  await new Promise((resolve) => setTimeout(resolve, 500));
  forge("RESULT", '"stolen"');
  await new Promise(() => setInterval(() => {}, 1000));
}
"""


@pytest.mark.every_way("fresh")
async def test_a_process_that_says_it_serves_more_gets_no_other_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It was kept, had none of the next event, and could answer it all the same."""
    async with make_runtime({"function.ts": STAYS}):
        for _ in range(2):
            assert (await api.invoke({"stays": True})).json() == "forged"
            assert (await api.invoke({})).json() == "its own"
        await api.wait_for_next()


CONTEXT = """
export function handler(_event: unknown, context: any) {
  return {
    ...context,
    remaining: context.getRemainingTimeInMillis(),
    aborted: context.signal.aborted,
    trace: Deno.env.get("_X_AMZN_TRACE_ID") ?? null,
  };
}
"""


async def test_the_context_is_that_of_nodes_runtime_and_ours(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": CONTEXT},
        AWS_LAMBDA_FUNCTION_NAME="greeter",
        AWS_LAMBDA_FUNCTION_VERSION="7",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="256",
        AWS_LAMBDA_LOG_GROUP_NAME="/aws/lambda/greeter",
        AWS_LAMBDA_LOG_STREAM_NAME="2026/11/23/[7]abc",
    ):
        answer = await api.invoke(
            {},
            timeout_s=300,
            headers={
                "Lambda-Runtime-Trace-Id": "Root=1-2-3;Sampled=1",
                "Lambda-Runtime-Client-Context": '{"custom":{"a":"b"},"env":{}}',
                "Lambda-Runtime-Cognito-Identity": (
                    '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}'
                ),
                "Lambda-Runtime-Aws-Tenant-Id": "tenant-1",
                "Lambda-Runtime-Unheard-Of": "ignored",
            },
        )
        context = answer.json()
        remaining = context.pop("remaining")
        assert 200_000 < remaining <= 300_000
        assert context == {
            "functionName": "greeter",
            "functionVersion": "7",
            "memoryLimitInMB": "256",
            "logGroupName": "/aws/lambda/greeter",
            "logStreamName": "2026/11/23/[7]abc",
            "awsRequestId": answer.request_id,
            "invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:test",
            "clientContext": {"custom": {"a": "b"}, "env": {}},
            "identity": {"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"},
            "tenantId": "tenant-1",
            "xRayTraceId": "Root=1-2-3;Sampled=1",
            "callbackWaitsForEmptyEventLoop": True,
            "signal": {},
            "aborted": False,
            "trace": "Root=1-2-3;Sampled=1",
        }
        bare = (await api.invoke({})).json()
        assert bare["trace"] is None
        assert not {"clientContext", "identity", "tenantId", "xRayTraceId"} & set(bare)
        broken = await api.invoke({}, headers={"Lambda-Runtime-Client-Context": "{no"})
        assert broken.json()["errorType"] == "Runtime.LambdaContextUnmarshalError"
        await api.wait_for_next()


async def test_an_error_carries_its_cause_and_positions_in_the_typescript_file(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """interface Order { id: string }
class OrderError extends Error {
  override name = "OrderError";
}
function find(order: Order): never {
  throw new OrderError(`no order ${order.id}`, { cause: new RangeError("empty") });
}
export const handler = () => find({ id: "7" });
"""
    async with make_runtime({"function.ts": source}) as runtime:
        answer = await api.invoke({})
        body = answer.json()
        assert (body["errorType"], body["errorMessage"]) == ("OrderError", "no order 7")
        path = f"file://{runtime.task_root}/function.ts"
        assert body["stackTrace"] == [
            f"at find ({path}:6:9)",
            f"at handler ({path}:8:30)",
        ]
        assert body["cause"]["errorType"] == "RangeError"
        assert body["cause"]["errorMessage"] == "empty"
        assert answer.headers["lambda-runtime-function-error-type"] == (
            "Function.OrderError"
        )
        cause = json.loads(answer.headers["lambda-runtime-function-xray-error-cause"])
        assert cause["working_directory"] == str(runtime.task_root)
        assert cause["exceptions"][0]["stack"][0] == {
            "path": path,
            "line": 6,
            "label": "find",
        }
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.every_way("fresh", "server")  # each loads once, with its own entry
@pytest.mark.parametrize(
    ("handler", "files"),
    [
        ("function.handler", {"function.bundle.js": "export const handler = () => 1",
                              "function.ts": "export const handler = () => 2"}),
        ("function.handler", {"function.mjs": "export const handler = () => 1"}),
        ("function.handler", {"function.tsx": "export const handler = () => 1 as 1"}),
        ("src/api/users.get", {"src/api/users.ts": "export const get = () => 1"}),
        ("users.v2.get", {"users.v2.ts": "export const get = () => 1"}),
        ("api.users.get", {"api.ts": "export const users = { n: 1, get() {"
                                     " return this.n; } }"}),
        ("function.handler", {"function.ts": "export default () => 1"}),
        ("a b#1?%.handler", {"a b#1?%.ts": "export const handler = () => 1"}),
        ("function.handler", {"function.ts": "import { one } from 'lib';"
                              "export const handler = () => one",
                              "deno.json": '{"imports":{"lib":"./lib/one.ts"}}',
                              "lib/one.ts": "export const one = 1"}),
        ("function.handler", {"function.ts": "import one from 'one';"
                              "export const handler = () => one",
                              "package.json": '{"dependencies":{"one":"*"}}',
                              "node_modules/one/package.json": '{"main":"i.js"}',
                              "node_modules/one/i.js": "module.exports = 1"}),
    ],
    ids=["bundle-wins", "mjs", "tsx", "nested-folder", "dots-in-file", "nested-export",
         "default-export", "odd-characters", "deno-json", "node-modules"],
)  # fmt: skip
async def test_the_handler_is_found_where_its_name_says(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    handler: str,
    files: dict[str, str],
) -> None:
    async with make_runtime(files, handler):
        answer = await api.invoke({})
        assert (answer.call, answer.json()) == ("response", 1)
        await api.wait_for_next()


LATER = """
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
function exists(path: string) {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
export function handler(event: any, context: any) {
  const later = async () => {
    // For as long as the test has not seen the answer, where it wants to.
    while (event.until && !exists(event.until)) await pause(5);
    await pause(event.ms);
    console.log("later work is done");
    if (event.fails) throw new Error("later work failed");
  };
  context.waitUntil(later());
  if (event.never) context.waitUntil(new Promise(() => {}));
  if (event.throws) throw new Error("thrown");
  return "answered";
}
"""


async def test_work_handed_to_wait_until_ends_after_the_answer(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str
) -> None:
    async with make_runtime({"function.ts": LATER}) as runtime:
        await api.wait_for_next()
        seen = runtime.task_root / "seen"
        event = {"ms": 1, "fails": True, "until": str(seen)}
        request_id = api.deliver(json.dumps(event).encode())
        answer = await api.answer()
        assert answer.json() == "answered"
        assert "later work is done" not in runtime.log
        seen.touch()
        await api.wait_for_next()
        assert f"{request_id}\tINFO\tlater work is done" in runtime.log
        assert "waitUntil: a promise was rejected Error: later work failed" in (
            runtime.log
        )
        api.deliver(b'{"ms":1,"throws":true}')
        assert (await api.answer()).json()["errorMessage"] == "thrown"
        await api.wait_for_next()
        assert runtime.log.count("later work is done") == 2
        api.deliver(b'{"ms":1,"never":true}')
        assert (await api.answer()).json() == "answered"
        await api.wait_for_next()
        assert "a promise can never settle" in runtime.log


async def test_wait_until_cannot_hold_the_environment_beyond_the_deadline(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    # A margin that a busy machine does not use up.
    runtime = make_runtime({"function.ts": LATER}, LAMBDA_DENO_STOP_MARGIN_MS="1000")
    async with runtime:
        await api.wait_for_next()
        api.deliver(b'{"ms":60000}', timeout_s=5.0)
        assert (await api.answer()).json() == "answered"
        await api.wait_for_next()
        assert "did not end before the deadline" in runtime.log


async def test_the_signal_aborts_before_the_handler_is_stopped(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler(_: unknown, context: any) {
  return new Promise((resolve) => context.signal.addEventListener("abort", () =>
    resolve([context.signal.reason.name, context.getRemainingTimeInMillis()])));
}
setInterval(() => {}, 1000);
"""
    # A margin that a busy machine does not use up.
    margin = {"LAMBDA_DENO_STOP_MARGIN_MS": "3000"}
    async with make_runtime({"function.ts": source}, **margin):
        name, remaining_ms = (await api.invoke({}, timeout_s=8)).json()
        assert name == "TimeoutError"
        assert 3000 < remaining_ms <= 6000
        await api.wait_for_next()


LEFTOVERS = {
    "plain": "sleep 300 &",
    "setsid": "setsid sleep 300 &",
    "double-fork": "(setsid sh -c 'sleep 300 & sleep 300 & wait' &) &",
    "ignores-signals": "trap '' TERM HUP INT; setsid sleep 300 & sleep 300 &",
    "inherits-pipes": "setsid sh -c 'while echo noise; do sleep 0.01; done' &",
    "renamed": 'ln -s "$(command -v sleep)" "$TMPDIR/kworker"'
    ' && setsid "$TMPDIR/kworker" 300 &',
    "clean-environment": "env -i setsid sleep 300 &",
    "stopped": "setsid sh -c 'kill -STOP $$; sleep 300' & setsid sleep 300 &",
    "adopts-orphans": f"""setsid '{sys.executable}' -c '
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.fork() or os.fork() or os.setsid()
time.sleep(300)' &""",
}

TIMES = """
const used = () => Deno.memoryUsage().heapUsed;
export const handler = () => {
  const before = used();
  clearTimeout(setTimeout(() => {}, 0));
  return used() - before;
};
"""


@pytest.mark.every_way("fresh", "fork")
async def test_a_fork_need_not_load_what_timers_need(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str
) -> None:
    async with make_runtime({"function.mjs": TIMES}):
        for _ in range(2):
            grown_bytes = (await api.invoke({})).json()
            assert (grown_bytes > 500_000) == (way == "fresh"), grown_bytes


LEAVES = """
export async function handler(event: any) {
  const child = new Deno.Command("sh", { args: ["-c", event.script],
    stdin: "inherit", stdout: "inherit", stderr: "inherit" }).spawn();
  await child.status;
  return Deno.pid;
}
"""


@pytest.mark.cases(1)
@pytest.mark.every_way("fresh")
@WARM
async def test_programs_that_outlive_their_handler_are_ended(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    async with make_runtime(
        {"function.ts": LEAVES},
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_WARM=warm,
    ) as runtime:
        await api.wait_for_next()
        for name, script in LEFTOVERS.items():
            for event in ({"script": script}, {"script": "true"}):
                api.deliver(json.dumps(event).encode())
                answer = await api.answer()
                assert answer.call == "response", (name, answer.body)
                await api.wait_for_next()
            # The supervisor, and one that waits.
            assert len(runtime.survivors()) == (1 if warm == "off" else 2), name
        found = [report["leftoverProcesses"] for report in reports(runtime.log)]
        assert [count > 0 for count in found] == [True, False] * len(LEFTOVERS)


@pytest.mark.every_way("fork")
async def test_programs_that_outlive_a_copy_are_ended(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": LEAVES},
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_PERMISSIONS="all",
    ) as runtime:
        await api.wait_for_next()
        before = runtime.survivors()
        for script in LEFTOVERS.values():
            for event in ({"script": script}, {"script": "true"}):
                api.deliver(json.dumps(event).encode())
                assert (await api.answer()).call == "response", script
                await api.wait_for_next()
            after = runtime.survivors()
            assert len(after) == len(before), script
            # The supervisor and the template are the same ones.
            assert len({*after} & {*before}) == len(before) - 1, script
        found = [report["leftoverProcesses"] for report in reports(runtime.log)]
        assert [count > 0 for count in found] == [True, False] * len(LEFTOVERS)


async def test_a_large_result_survives_a_program_that_writes_to_the_same_stdout(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler() {
  new Deno.Command("sh", { args: ["-c", "yes rubbish | head -c 1000000"],
    stdout: "inherit" }).spawn();
  return "r".repeat(2_000_000);
}
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"
    ) as runtime:
        for _ in range(3):
            answer = await api.invoke({})
            assert answer.call == "response", answer.body[:500]
            assert answer.body == b'"' + b"r" * 2_000_000 + b'"'
        await api.wait_for_next()
        assert "rubbish" in runtime.log


@pytest.mark.every_way("fresh")
async def test_a_slow_module_does_not_fail_the_init_phase(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
await new Promise((resolve) => setTimeout(resolve, 700));
export const handler = () => "slow but there";
"""
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_WARM="off"):
        assert (await api.invoke({})).json() == "slow but there"
        late = await api.invoke({}, timeout_s=0.6)
        assert late.json()["errorType"] == "Runtime.InvokeTimeout"
        assert "did not finish loading" in late.json()["errorMessage"]
        await api.wait_for_next()


async def test_a_waiting_process_that_died_is_replaced_and_nothing_is_lost(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "export const handler = () => Deno.pid"
    async with make_runtime({"function.ts": source}) as runtime:
        await api.wait_for_next()
        [waiting] = runtime.waiting
        await kill_and_wait(waiting)
        api.deliver(b"{}")
        answer = await api.answer()
        assert answer.call == "response"
        assert answer.json() != waiting
        await runtime.logged("Replacing the waiting process")
        await api.wait_for_next()


async def test_a_waiting_process_that_is_too_old_is_replaced(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "export const handler = () => Deno.pid"
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_WARM_MAX_AGE_S="0"
    ) as runtime:
        await api.wait_for_next()
        [waiting] = runtime.waiting
        api.deliver(b"{}")
        assert (await api.answer()).json() != waiting
        await api.wait_for_next()


async def test_the_signal_waits_for_a_deadline_that_is_weeks_away(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Deno fires a timer of more than 2**31 ms at once."""
    source = """
export async function handler(_: unknown, context: any) {
  const before = context.signal.aborted;
  await new Promise((resolve) => setTimeout(resolve, 20));
  return [before, context.signal.aborted];
}
"""
    async with make_runtime({"function.ts": source}):
        await api.wait_for_next()
        api.deliver(b"{}", timeout_s=60 * 24 * 3600)
        assert (await api.answer()).json() == [False, False]
        await api.wait_for_next()


async def test_text_of_every_kind_comes_back_as_it_was_sent(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """What is not UTF-8 becomes U+FFFD on its way in; that may be sent as well."""
    source = "export const handler = (event) => [event, event.length]"
    async with make_runtime({"function.mjs": source}):
        for text in ("plain", "\xe9", "\u20ac", "\U0001f600", "a\ufffdb", "\ufeff"):
            event = json.dumps(text, ensure_ascii=False).encode()
            length = len(text.encode("utf-16-le")) // 2
            assert (await api.invoke(event)).json() == [text, length]
        event = b'\xef\xbb\xbf"after a byte order mark"'
        assert (await api.invoke(event)).json() == ["after a byte order mark", 23]


NAMED_FIRST = """
const used = () => Deno.memoryUsage().heapUsed;
export const handler = ({ name }, context) => {
  if (context.signal.aborted) throw new Error("too early");
  const before = used();
  globalThis[name];
  return used() - before;
};
"""


# A process that is forked has waited for a timer, so that its forks need not load it.
@pytest.mark.every_way("fresh", "reuse", "server")
@pytest.mark.parametrize("name", ["clearTimeout", "Response"])
async def test_what_deno_loads_late_is_not_loaded_for_handlers_that_do_not_need_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str, name: str
) -> None:
    # Each of them takes a process several milliseconds once it is named.
    async with make_runtime({"function.mjs": NAMED_FIRST}):
        for _ in range(2 if way == "fresh" else 1):  # each in a process of its own
            grown_bytes = (await api.invoke({"name": name})).json()
            # 700,000 and more; at most 14,000 if it was loaded before.
            assert grown_bytes > 500_000


# The constructor, and what has a line or two.
COMPILED_LATE = {"Job", "adaptPlain", "write", "clearTimer", "end", "note", ""}


@pytest.mark.every_way("fresh")
async def test_what_every_event_runs_through_comes_compiled_from_deno_s_cache(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    # What V8 has to compile when it is first called, each process compiles anew.
    log = tmp_path / "v8.log"
    async with make_runtime(
        {"function.mjs": "export const handler = () => 1"},
        LAMBDA_DENO_WARM="off",
        LAMBDA_DENO_V8_FLAGS=(
            f"--log-function-events --no-logfile-per-isolate --logfile={log}"
        ),
    ):
        for _ in range(3):  # the first one fills the cache; each writes the log anew
            await api.invoke({})
        await api.wait_for_next()
    lines = [line.split(",") for line in log.read_text(encoding="utf-8").splitlines()]
    [script] = {
        line[1]
        for line in lines
        if line[0] == "script-details" and line[2].endswith("/js/runtime.js")
    }
    late = {
        line[-1] for line in lines if line[:3] == ["function", "parse-function", script]
    }
    assert "Job" in late  # the log is read rightly
    assert late <= COMPILED_LATE
