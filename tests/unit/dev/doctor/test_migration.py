"""What ``doctor`` finds in code that was written for Node.js."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.doctor.migration import findings

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("files", "id_", "place"),
    [
        ({"a.js": "x;\nwriteFileSync('/tmp/x', y)"}, "tmp-path", "a.js:2"),
        ({"lib/a.ts": "if (process.env.NODE_ENV) {}"}, "node-env", "lib/a.ts:1"),
        ({"a.cjs": "const s3 = require('aws-sdk/clients/s3')"}, "aws-sdk", "a.cjs:1"),
        ({"a.ts": "const cache = new Map();"}, "cache", "a.ts:1"),
        ({"a.tsx": "export default () => <p/>"}, "jsx", "a.tsx"),
        (
            {"tsconfig.json": {"compilerOptions": {"paths": {"@/*": ["./*"]}}}},
            "aliases",
            "@/*",
        ),
        (
            {"node_modules/@img/sharp/lib/sharp.node": ""},
            "native-modules",
            "@img/sharp",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_habit_is_found_where_it_is(
    tmp_path: Path, files: dict[str, object], id_: str, place: str
) -> None:
    [found] = findings(written(tmp_path, files), {})
    assert found.id == id_
    assert place in found.found
    assert found.advice


@pytest.mark.parametrize(
    "files",
    [
        {"a.js": "// writes to '/tmp/x'"},
        {"a.js": "const path = os.tmpdir() + '/x'"},
        {"node_modules/a/a.js": "process.env.NODE_ENV; '/tmp/x'"},
        {"a.ts": "import { S3 } from '@aws-sdk/client-s3'"},
        {"a.ts": "function f() {\n  const cache = new Map();\n}"},
        {
            "a.tsx": "",
            "deno.json": {"compilerOptions": {"jsxImportSource": "npm:preact"}},
        },
        {
            "tsconfig.json": {"compilerOptions": {"paths": {"@/*": ["./*"]}}},
            "deno.jsonc": '{\n  // aliases\n  "imports": {"@/": "./"},\n}',
        },
    ],
)
def test_what_needs_nothing_is_not_named(
    tmp_path: Path, files: dict[str, object]
) -> None:
    assert findings(written(tmp_path, files), {}) == []


def test_a_variable_that_is_set_is_not_missed(tmp_path: Path) -> None:
    written(tmp_path, {"a.js": "process.env.NODE_ENV"})
    assert findings(tmp_path, {"NODE_ENV": "production"}) == []


def test_many_places_are_counted(tmp_path: Path) -> None:
    written(tmp_path, {f"{n}.js": "'/tmp/x'" for n in range(9)})
    [found] = findings(tmp_path, {})
    assert found.found.endswith("0.js:1, 1.js:1, 2.js:1 and 6 more")
