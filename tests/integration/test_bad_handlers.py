"""What handlers can do wrong: a named error for the caller, then business as usual."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.doubles import TIMEOUT_S

if TYPE_CHECKING:
    from tests.doubles import Answer, FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno, pytest.mark.every_way]

# One module, one behaviour per case: the same supervisor serves all of them in turn.
HOSTILE = """
let served = 0;
const cases: Record<string, (event: any, context: any) => unknown> = {
  ok: () => "fine",
  returnsUndefined: () => undefined,
  returnsBigInt: () => 1n,
  returnsCircular: () => { const a: any = {}; a.a = a; return a; },
  returnsTooMuch: () => "x".repeat(7 * 1024 * 1024),
  returnsHostileJson: () => ({ toJSON() { throw new Error("no JSON of me"); } }),
  throwsError: () => {
    throw new TypeError("told you", { cause: new RangeError("deep down") });
  },
  throwsString: () => { throw "only text"; },
  throwsNull: () => { throw null; },
  throwsUndefined: () => { throw undefined; },
  throwsHostile: () => {
    throw Object.defineProperties(new Error("hidden"), {
      message: { get() { throw new Error("no message"); } },
      stack: { get() { throw new Error("no stack"); } },
      name: { get() { throw new Error("no name"); } },
      cause: { get() { throw new Error("no cause"); } },
    });
  },
  throwsHugeMessage: () => { throw new Error("m".repeat(8_000_000)); },
  throwsHugeStack: () => {
    throw Object.assign(new Error("deep"), { stack: "    at x\\n".repeat(1_000_000) });
  },
  throwsLongName: () => {
    throw Object.assign(new Error("named"), { name: "N".repeat(5_000) + "\\r\\nX: y" });
  },
  throwsItsOwnCause: () => {
    const error = new Error("round"); error.cause = error; throw error;
  },
  throwsTree: () => {
    const grow = (depth: number): Error => depth === 0 ? new Error("leaf")
      : new AggregateError(Array.from({ length: 8 }, () => grow(depth - 1)), "tree");
    throw grow(5);
  },
  throwsProxy: () => {
    throw new Proxy({}, {
      get() { throw new Error("trap"); },
      getPrototypeOf() { throw new Error("trap"); },
      ownKeys() { throw new Error("trap"); },
    });
  },
  rejectsUnawaited: () => {
    Promise.reject(new Error("nobody waited"));
    return new Promise((resolve) => setTimeout(resolve, 5_000));
  },
  throwsInTimer: () => {
    setTimeout(() => { throw new EvalError("in a timer"); }, 1);
    return new Promise((resolve) => setTimeout(resolve, 5_000));
  },
  neverSettles: () => new Promise(() => {}),
  neverSettlesButWaits: () => new Promise(() => setInterval(() => {}, 1_000)),
  exitsWith0: () => Deno.exit(0),
  exitsWith3: () => Deno.exit(3),
  loopsForever: () => { for (;;); },
  exhaustsHeap: () => {
    const kept = [];
    for (;;) kept.push(new Array(10_000).fill({}).map(() => ({})));
  },
  readsStdin: async () => {
    const { default: process } = await import("node:process");
    let fromNode = 0;
    for await (const chunk of process.stdin) fromNode += chunk.length;
    const fs = await import("node:fs");
    fromNode += fs.readFileSync(0).length + fs.readSync(0, new Uint8Array(9));
    return [
      await Deno.stdin.read(new Uint8Array(9)),
      Deno.stdin.readSync(new Uint8Array(9)),
      (await Array.fromAsync(Deno.stdin.readable)).length,
      fromNode,
    ];
  },
  closesStdout: async () => {
    Deno.stdout.close();
    const fs = await import("node:fs");
    fs.closeSync(1);
    return "unheard";
  },
  floodsStderr: async () => {
    const line = new TextEncoder().encode("e".repeat(1023) + "\\n");
    for (let i = 0; i < 4096; i++) Deno.stderr.writeSync(line);
    await Deno.stderr.write(line);
    return "flooded";
  },
  writesEverywhere: async () => {
    const text = ("rubbish".repeat(9) + "\\n").repeat(4096);
    const rubbish = new TextEncoder().encode(text);
    Deno.stdout.writeSync(rubbish);
    await Deno.stdout.write(rubbish);
    const writer = Deno.stdout.writable.getWriter();
    await writer.write(rubbish);
    const { default: process } = await import("node:process");
    process.stdout.write(rubbish);
    const fs = await import("node:fs");
    try { fs.writeSync(1, rubbish); } catch { /* closed to it without permission */ }
    console.log(new TextDecoder().decode(rubbish));
    // Past every reroute: what the prototype still can.
    const raw = Object.getPrototypeOf(Deno.stdout).writeSync;
    for (let at = 0; at < rubbish.length;) {
      at += raw.call(Deno.stdout, rubbish.subarray(at));
    }
    return "wrote";
  },
};
export function handler(event: any, context: any) {
  served += 1;
  return cases[event.case](event, context);
}
export function count() { return ++served; }
"""


@dataclass(frozen=True)
class Bad:
    """A case, and what its caller is told."""

    case: str
    error_type: str
    message: str
    log: str = ""
    timeout_s: float = TIMEOUT_S


BAD = [
    Bad("returnsBigInt", "Runtime.JSONStringifyError", "BigInt"),
    Bad("returnsCircular", "Runtime.JSONStringifyError", "circular"),
    Bad("returnsHostileJson", "Runtime.JSONStringifyError", "no JSON of me"),
    Bad("returnsTooMuch", "Function.ResponseSizeTooLarge", "the limit is 6291556"),
    Bad("throwsError", "TypeError", "told you"),
    Bad("throwsString", "string", "only text"),
    Bad("throwsNull", "null", "null"),
    Bad("throwsUndefined", "undefined", "undefined"),
    Bad("throwsHostile", "Error", ""),
    Bad("throwsHugeMessage", "Error", "characters more)"),
    Bad("throwsHugeStack", "Error", "deep"),
    Bad("throwsLongName", "N" * 128, "named"),
    Bad("throwsItsOwnCause", "Error", "round"),
    Bad("throwsTree", "AggregateError", "tree"),
    Bad("throwsProxy", "object", "cannot be shown"),
    Bad("rejectsUnawaited", "Runtime.UnhandledPromiseRejection", "nobody waited"),
    Bad("throwsInTimer", "EvalError", "in a timer"),
    Bad("neverSettles", "Runtime.HandlerNeverSettled", "can never settle"),
    Bad("neverSettlesButWaits", "Runtime.InvokeTimeout", "did not answer", timeout_s=1),
    Bad(
        "loopsForever",
        "Runtime.InvokeTimeout",
        "before the function's timeout",
        timeout_s=1,
    ),
    Bad("exitsWith0", "Runtime.ExitError", "exited with status 0 before answering"),
    Bad("exitsWith3", "Runtime.ExitError", "exited with status 3 before answering"),
    Bad(
        "exhaustsHeap",
        "Runtime.OutOfMemory",
        "raise the function's memory size",
        "Fatal JavaScript out of memory",
    ),
    Bad("closesStdout", "Runtime.ExitError", "closed the stdout of its process"),
]


def cases(way: str) -> list[Bad]:
    """Return what is expected of a way: a server's answers do not go to stdout."""
    if way != "server":
        return BAD
    return [bad for bad in BAD if bad.case != "closesStdout"]


async def test_every_failure_is_named_and_costs_one_invocation(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str
) -> None:
    async with make_runtime(
        {"function.ts": HOSTILE},
        LAMBDA_DENO_V8_FLAGS="--max-old-space-size=64",
    ) as runtime:
        for bad in cases(way):
            answer = await api.invoke({"case": bad.case}, timeout_s=bad.timeout_s)
            assert_error(answer, bad)
            logged = await runtime.logged(f"{answer.request_id}\tERROR\tInvoke Error")
            assert bad.error_type in logged
            assert len(answer.body) < 2_000_000
            assert bad.log in runtime.log
            following = await api.invoke({"case": "ok"})
            assert (following.call, following.json()) == ("response", "fine"), bad.case
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize("warm", ["background", "off"])
async def test_failures_are_named_whenever_the_process_is_started(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str, warm: str
) -> None:
    some = {
        "throwsError",
        "neverSettles",
        "loopsForever",
        "exitsWith3",
        "returnsBigInt",
    }
    async with make_runtime({"function.ts": HOSTILE}, LAMBDA_DENO_WARM=warm):
        for bad in cases(way):
            if bad.case in some:
                answer = await api.invoke({"case": bad.case}, timeout_s=bad.timeout_s)
                assert_error(answer, bad)
                following = await api.invoke({"case": "ok"})
                assert following.json() == "fine"
        await api.wait_for_next()


def assert_error(answer: Answer, bad: Bad) -> None:
    """Compare an answer with what its case promises."""
    assert answer.call == "error", (bad.case, answer)
    body = answer.json()
    assert body["errorType"] == bad.error_type, (bad.case, body)
    assert bad.message in body["errorMessage"], (bad.case, body)
    assert isinstance(body["stackTrace"], list)
    category, _, reason = answer.headers[
        "lambda-runtime-function-error-type"
    ].partition(".")
    assert category in ("Runtime", "Function")
    assert reason[0].isupper()
    assert reason.isalpha()


async def test_results_that_look_wrong_but_are_not(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": HOSTILE}) as runtime:
        answer = await api.invoke({"case": "returnsUndefined"})
        assert (answer.call, answer.body) == ("response", b"null")
        answer = await api.invoke({"case": "readsStdin"})
        assert answer.json() == [None, None, 0, 0]
        answer = await api.invoke({"case": "floodsStderr"})
        assert answer.json() == "flooded"
        await api.wait_for_next()
        await runtime.logged_often("e" * 1023, 4097)
        assert runtime.log.count("e" * 1023) <= 4097


async def test_rubbish_on_stdout_is_logged_and_never_spoils_the_result(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": HOSTILE}) as runtime:
        answer = await api.invoke({"case": "writesEverywhere"})
        assert (answer.call, answer.json()) == ("response", "wrote")
        await api.wait_for_next()
        # writeSync, write, writable, process.stdout and the prototype; console.log is
        # one record of that many lines.
        record = f"{answer.request_id}\tINFO\t" + "rubbish" * 9
        await runtime.logged_often(record, 5 * 4096 + 1)


# Before a process is started, or while the first one loads, the ways are the same but
# for the module of the server.
NO_EVENT_YET = pytest.mark.every_way("fresh", "server")


@NO_EVENT_YET
@pytest.mark.parametrize("warm", ["ready", "off"])
@pytest.mark.parametrize(
    ("files", "handler", "error_type", "message"),
    [
        ({}, "function.handler", "Runtime.ImportModuleError", "function.ts"),
        (
            {"function.ts": ""},
            "function",
            "Runtime.MalformedHandlerName",
            "file.export",
        ),
        (
            {"function.ts": ""},
            "../function.handler",
            "Runtime.MalformedHandlerName",
            "'",
        ),
        ({"function.ts": ""}, "", "Runtime.InvalidConfiguration", "_HANDLER"),
    ],
    ids=["file-missing", "malformed", "outside-task-root", "empty"],
)
async def test_a_handler_that_cannot_be_found_is_an_init_error(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    warm: str,
    files: dict[str, str],
    handler: str,
    error_type: str,
    message: str,
) -> None:
    async with make_runtime(files, handler, LAMBDA_DENO_WARM=warm) as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == error_type
        assert message in answer.json()["errorMessage"]
        assert answer.headers["lambda-runtime-function-error-type"] == error_type
        assert await runtime.wait() == 1
        assert error_type in runtime.log


BROKEN_MODULES = [
    pytest.param("export const other = 1", "Runtime.HandlerNotFound",
                 "it exports other", id="export-missing"),
    pytest.param("export const handler = 42", "Runtime.HandlerNotFound",
                 "of type number, not a function", id="not-a-function"),
    pytest.param("export const handler = ( => 1", "Runtime.UserCodeSyntaxError",
                 "function.ts:1:26", id="syntax-error"),
    pytest.param("import './gone.ts'; export const handler = () => 1",
                 "Runtime.ImportModuleError", "gone.ts", id="import-missing"),
    pytest.param("throw new URIError('at the top')", "URIError",
                 "at the top", id="top-level-throw"),
    pytest.param("throw 'text at the top'", "string",
                 "text at the top", id="top-level-throw-string"),
    pytest.param("await new Promise(() => {}); export const handler = () => 1",
                 "Runtime.ExitError", "top level that can never settle",
                 id="top-level-await-never-settles"),
    pytest.param("Promise.reject(new Error('at load')); await new Promise(() => {"
                 "setInterval(() => {}, 1000)})", "Runtime.UnhandledPromiseRejection",
                 "at load", id="top-level-rejection"),
    pytest.param("Deno.exit(7)", "Runtime.ExitError",
                 "status 7 before loading", id="top-level-exit"),
]  # fmt: skip


@NO_EVENT_YET
@pytest.mark.parametrize(("source", "error_type", "message"), BROKEN_MODULES)
async def test_a_module_that_does_not_load_is_an_init_error(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    source: str,
    error_type: str,
    message: str,
) -> None:
    async with make_runtime({"function.ts": source}) as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == error_type, answer.json()
        assert message in answer.json()["errorMessage"], answer.json()
        assert await runtime.wait() == 1
        assert error_type in runtime.log


@pytest.mark.every_way("fresh", "fork", "server")  # none is used again
async def test_without_a_warm_process_it_is_an_error_of_each_invocation(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": ""}, LAMBDA_DENO_WARM="off") as runtime:
        for module in BROKEN_MODULES:
            source, error_type, message = map(str, module.values)
            await api.wait_for_next()
            # Each event starts a process, which loads what is there now.
            (runtime.task_root / "function.ts").write_text(source, encoding="utf-8")
            for is_last in (False, True):
                api.deliver(b"{}")
                answer = await api.answer()
                assert answer.call == "error", source
                assert answer.json()["errorType"] == error_type, answer.json()
                assert message in answer.json()["errorMessage"], answer.json()
                if not is_last:
                    await api.wait_for_next()
        await api.wait_for_next()


@NO_EVENT_YET
async def test_a_missing_deno_binary_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.ts": "export const handler = () => 1"}
    async with make_runtime(files, LAMBDA_DENO_BIN="/nowhere/deno") as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == "Runtime.InvalidConfiguration"
        assert "LAMBDA_DENO_BIN" in answer.json()["errorMessage"]
        assert "'/nowhere/deno'" in answer.json()["errorMessage"]
        assert await runtime.wait() == 1


async def test_an_event_that_is_no_json_is_an_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": HOSTILE}):
        for event in (b"{not json", b"", b'"\xff\xfe"'):
            answer = await api.invoke(event)
            assert answer.json()["errorType"] == "Runtime.UnmarshalError", event
            assert "JSON" in answer.json()["errorMessage"], event
            assert (await api.invoke({"case": "ok"})).json() == "fine", event
        await api.wait_for_next()


async def test_six_megabytes_go_in_and_come_out_byte_for_byte(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "export const handler = (event: unknown) => event"
    async with make_runtime({"function.ts": source}):
        event = json.dumps({"text": "é" * 3_000_000}, ensure_ascii=False).encode()
        assert len(event) > 6_000_000
        await api.wait_for_next()
        api.deliver(event.replace(b": ", b":"), is_chunked=True)
        answer = await api.answer()
        assert answer.call == "response"
        assert answer.body == event.replace(b": ", b":")
        await api.wait_for_next()
