"""When Deno reads a bundle's source map: for a stack trace, or before any event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.native.control import library_path

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.deno, pytest.mark.as_lambda]

FIRST_LINE = "// imports: node:fs node:path\n"
# An event replaces the map, and then makes a stack trace.
CODE = """import { writeFileSync } from "node:fs";
import { basename } from "node:path";
export function handler({ map }) {
  writeFileSync(import.meta.filename + ".map", JSON.stringify(map));
  const [, place] = new Error("x").stack.split("\\n");
  return basename(place.match(/[^(]+:1:1/)?.[0] ?? place);
}
//# sourceMappingURL=function.bundle.js.map
"""


def source_map(name: str) -> dict[str, object]:
    """Return a map in which all lines come from the first one of a file."""
    mappings = ";".join(["AAAA"] * 20)
    return {"version": 3, "sources": [f"{name}.ts"], "names": [], "mappings": mappings}


def files(first_line: str) -> dict[str, str]:
    return {
        "function.bundle.js": first_line + CODE,
        "function.bundle.js.map": json.dumps(source_map("old")),
    }


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("first_line", "name"), [(FIRST_LINE, "new"), ("", "old")], ids=["built", "other"]
)
async def test_a_start_does_not_read_the_map_of_a_bundle_that_build_has_written(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, first_line: str, name: str
) -> None:
    environ = {"LAMBDA_DENO_START": "exec", "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime(files(first_line), **environ):
        answer = (await api.invoke({"map": source_map("new")})).json()
        assert answer == f"{name}.ts:1:1"


@pytest.mark.skipif(library_path() is None, reason="make native builds the library")
async def test_a_template_has_read_the_map_for_its_copies(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {"LAMBDA_DENO_START": "fork", "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime(files(FIRST_LINE), **environ):
        answer = (await api.invoke({"map": source_map("new")})).json()
        assert answer == "old.ts:1:1"


async def test_a_module_that_node_does_not_have_is_reported_by_the_bundle(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    code = 'import "node:none";\nexport const handler = () => 1;\n'
    bundle = {"function.bundle.js": f"// imports: node:none\n{code}"}
    async with make_runtime(bundle):
        error = (await api.answer()).json()
        assert "node:none" in error["errorMessage"]
        assert "function.bundle.js:2" in error["errorMessage"]
