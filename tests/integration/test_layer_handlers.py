"""Handlers that lie in a layer: those of tools that wrap the function's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

FUNCTION = """
export const handler = async ({ name }, context) => `${name} ${context.awsRequestId}`;
"""
# Loads the function's handler as such tools do, when the event is there.
WRAPPER = """
const path = require("node:path");
exports.handler = async (...received) => {
  const [file, name] = process.env.WRAPPED_HANDLER.split(".");
  const root = path.resolve(process.env.LAMBDA_TASK_ROOT, file);
  const module = await import(`${root}.mjs`);
  return { wrapped: await module[name](...received) };
};
"""


@pytest.mark.parametrize("is_package", [True, False], ids=["package", "path"])
async def test_a_layer_s_handler_wraps_that_of_the_function(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path, is_package: bool
) -> None:
    folder = tmp_path / "layer" / "node_modules" / "wrapper" / "lib"
    folder.mkdir(parents=True)
    (folder / "main.js").write_text(WRAPPER, encoding="utf-8")
    (folder.parent / "package.json").write_text('{"main": "lib/main"}')
    async with make_runtime(
        {"function.mjs": FUNCTION},
        "wrapper.handler" if is_package else f"{folder}/main.handler",
        NODE_PATH=str(folder.parents[1]),
        WRAPPED_HANDLER="function.handler",
    ):
        answer = await api.invoke({"name": "Ada"})
        assert answer.json() == {"wrapped": "Ada request-1"}
