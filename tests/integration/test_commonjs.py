"""CommonJS modules whose exports are made while they run, and what errors keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

# The shape of webpack 5's output, without its comments.
WEBPACK = """
(() => {
  "use strict";
  var __webpack_modules__ = ({ 1: (module, exports, require) => {
    require.d(exports, { handler: () => handler });
    const handler = async (event) => ({ sum: event.a + 1 });
  } });
  var cache = {};
  function require(id) {
    var module = cache[id] = { exports: {} };
    __webpack_modules__[id](module, module.exports, require);
    return module.exports;
  }
  require.d = (exports, definition) => {
    for (var key in definition) {
      Object.defineProperty(exports, key, { enumerable: true, get: definition[key] });
    }
  };
  var __webpack_exports__ = require(1);
  %s
})();
"""
COMMONJS2 = WEBPACK % "module.exports = __webpack_exports__;"
COMMONJS = WEBPACK % (
    "for (var i in __webpack_exports__) exports[i] = __webpack_exports__[i];"
)
INSTANCE = """
class Service {
  constructor() { this.one = 1; this.api = { main: function () { return this.sum; }, sum: 2 }; }
  handler(event) { return { sum: event.a + this.one }; }
}
module.exports = new Service();
"""  # noqa: E501


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param(COMMONJS2, "handler", id="webpack-commonjs2"),
        pytest.param(COMMONJS, "handler", id="webpack-commonjs"),
        pytest.param(
            "Object.assign(exports, { run: (event) => ({ sum: event.a + 1 }) });",
            "run",
            id="assign",
        ),
        pytest.param(INSTANCE, "handler", id="instance"),
    ],
)
async def test_exports_made_at_run_time_are_found(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, source: str, name: str
) -> None:
    async with make_runtime({"function.cjs": source}, f"function.{name}"):
        assert (await api.invoke({"a": 1})).json() == {"sum": 2}


async def test_a_nested_export_is_called_as_a_method_of_its_owner(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.cjs": INSTANCE}, "function.api.main"):
        assert (await api.invoke({})).json() == 2


async def test_a_missing_export_is_described_by_module_exports(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = "const make = () => ({ other: () => 1 }); module.exports = make();"
    async with make_runtime({"function.cjs": source}):
        answer = await api.answer()
        assert answer.call == "init/error"
        assert answer.json()["errorType"] == "Runtime.HandlerNotFound"
        assert answer.json()["errorMessage"].endswith("function.cjs': it exports other")


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.every_way
async def test_members_of_an_error_are_logged_and_not_sent_to_the_caller(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, log_format: str
) -> None:
    source = """
    import { runInNewContext } from "node:vm";
    export const handler = () => {
      const cause = runInNewContext("new TypeError('there')");
      throw Object.assign(new Error("here", { cause }),
        { code: "23505", $metadata: { httpStatusCode: 400 } });
    };
    """
    async with make_runtime(
        {"function.mjs": source}, AWS_LAMBDA_LOG_FORMAT=log_format
    ) as runtime:
        answer = await api.invoke({})
        found = answer.json()
        assert (found["errorType"], found["errorMessage"]) == ("Error", "here")
        assert found["cause"]["errorMessage"] == "there"
        assert "code" not in found
        if log_format == "JSON":
            logged = json.loads(await runtime.logged('"ERROR"'))["message"]
        else:
            line = await runtime.logged("Invoke Error")
            logged = json.loads(line.split("Invoke Error\t")[1])
        assert logged.pop("code") == "23505"
        assert logged.pop("$metadata") == {"httpStatusCode": 400}
        assert logged == found
