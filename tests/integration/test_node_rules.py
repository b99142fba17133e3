"""What AWS's Node runtime does, found by running its own code beside ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

# How files and exports lead to a handler.
FILES = [
    pytest.param(
        {"functions/hello/index.js": "exports.handler = async () => __dirname;"},
        "functions/hello.handler",
        "functions/hello",
        id="folder",
    ),
    pytest.param(
        {
            "hello/package.json": '{"main": "lib/main"}',
            "hello/lib/main.js": "exports.handler = async () => __dirname;",
        },
        "hello.handler",
        "hello/lib",
        id="folder-with-main",
    ),
    pytest.param(
        {
            "package.json": '{"type": "module"}',
            "hello": "module.exports.handler = async () => __dirname;",
        },
        "hello.handler",
        ".",
        id="without-a-suffix",
    ),
    pytest.param(
        {
            "function.js": "module.exports = (async () => {"
            " await new Promise((resolve) => setTimeout(resolve, 5));"
            " return { handler: async () => __dirname }; })();"
        },
        "function.handler",
        ".",
        id="exports-are-a-promise",
    ),
]


@pytest.mark.parametrize(("files", "handler", "folder"), FILES)
async def test_a_handler_is_found_as_node_s_runtime_finds_it(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    files: dict[str, str],
    handler: str,
    folder: str,
) -> None:
    async with make_runtime(files, handler) as runtime:
        found = (await api.invoke({})).json()
        assert found == str((runtime.task_root / folder).resolve())


# One module for what happens in an event.
MODULE = """
const key = Symbol.for("aws.lambda.runtime.requestId");
const mark = Symbol.for("aws.lambda.runtime.handler.streaming");
class OrderError extends Error {}
const cases = {
  identity: async (_, context) => globalThis[key] === context.awsRequestId,
  rejects: async () => {
    Promise.reject(new RangeError("not awaited"));
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
  throwsValue: async () => {
    throw { code: 5, toString: () => "a value" };
  },
  throwsOwnClass: async () => {
    throw new OrderError("no stock");
  },
  inDomain: (_, __, callback) => {
    const domain = require("node:domain").create();
    domain.on("error", (error) => callback(null, error.message));
    domain.run(() => setTimeout(() => { throw new Error("in a domain"); }, 1));
  },
  captured: (_, __, callback) => {
    process.setUncaughtExceptionCaptureCallback((error) => {
      process.setUncaughtExceptionCaptureCallback(null);
      callback(null, error.message);
    });
    setTimeout(() => { throw new Error("captured"); }, 1);
  },
  // A domain without a listener takes nothing.
  notCaptured: () => {
    const domain = require("node:domain").create();
    domain.run(() => setTimeout(() => { throw new EvalError("on its own"); }, 1));
  },
};
exports.handler = (...args) => cases[args[0]](...args);
// Tools that wrap a handler copy the mark, also where there is none.
exports.handler[mark] = undefined;
process.on("beforeExit", () => {
  setImmediate(() => console.log("told of the end"));
});
"""


@pytest.mark.every_way("fresh", "fork", "server")
async def test_an_event_runs_as_in_node_s_runtime(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str
) -> None:
    runtime = make_runtime({"function.cjs": MODULE}, AWS_LAMBDA_LOG_FORMAT="JSON")
    async with runtime:
        for _ in range(2):
            assert (await api.invoke("identity")).json() is True
        if way != "server":  # there the process goes on
            assert runtime.log.count("told of the end") in (1, 2)
        for case, answer in (("inDomain", "in a domain"), ("captured", "captured")):
            assert (await api.invoke(case)).json() == answer
        error = (await api.invoke("notCaptured")).json()
        assert (error["errorType"], error["errorMessage"]) == (
            "EvalError",
            "on its own",
        )
        error = (await api.invoke("rejects")).json()
        assert error["errorType"] == "Runtime.UnhandledPromiseRejection"
        assert error["errorMessage"] == "RangeError: not awaited"
        error = (await api.invoke("throwsValue")).json()
        assert (error["errorType"], error["errorMessage"]) == ("object", "a value")
        error = (await api.invoke("throwsOwnClass")).json()
        assert (error["errorType"], error["errorMessage"]) == ("Error", "no stock")
        record = json.loads(await runtime.logged("OrderError"))
        assert record["level"] == "ERROR"
        assert record["message"]["errorMessage"] == "no stock"
        assert record["message"]["errorType"] == "OrderError"


MISSING = [
    ("require('nothing-there');", "Runtime.ImportModuleError", "nothing-there"),
    ("Buffer.alloc('x');", "TypeError", "must be of type number"),
]


@pytest.mark.parametrize(("source", "error_type", "message"), MISSING)
async def test_an_error_while_loading_has_the_name_that_node_s_runtime_gives_it(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    source: str,
    error_type: str,
    message: str,
) -> None:
    async with make_runtime({"function.cjs": source}):
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == error_type
        assert message in answer.json()["errorMessage"]
