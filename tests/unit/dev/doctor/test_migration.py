"""What ``doctor`` finds in code that was written for another platform."""

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
        ({"a.js": "x;\njoin('/tmp', y)"}, "tmp-path", "a.js:2"),
        ({"app.config.ts": "'/tmp/x'"}, "tmp-path", "app.config.ts:1"),
        ({"src/test/latest.ts": "'/tmp/x'"}, "tmp-path", "src/test/latest.ts:1"),
        ({"a.js": "const { NODE_ENV = 'x' } = process.env"}, "node-env", "a.js:1"),
        ({"a.ts": "Deno.env.get('NODE_ENV')"}, "node-env", "a.ts:1"),
        ({"a.cjs": "const s3 = require('aws-sdk/clients/s3')"}, "aws-sdk", "a.cjs:1"),
        ({"a.ts": "x;\nimport { S3 } from '@aws-sdk/client-s3'"}, "aws-sdk", "a.ts:2"),
        ({"a.ts": "const cache = new Map();"}, "cache", "a.ts:1"),
        ({"a.ts": "let connection: Client | null = null;"}, "cache", "a.ts:1"),
        ({"a.js": "import { exec } from 'child_process'"}, "programs", "a.js:1"),
        ({"a.js": "new Deno.Command('git')"}, "programs", "a.js:1"),
        ({"a.js": "({ timeoutEarlyInMillis: 50 })"}, "middy-timeout", "a.js:1"),
        ({"a.ts": "x;\nusing kv = await Deno.openKv();"}, "deno-kv", "a.ts:2"),
        ({"a.ts": "Deno.openKv( './orders.db' )"}, "deno-kv", "a.ts:1"),
        ({"a.ts": 'Deno.openKv?.(\n  "/mnt/kv"\n)'}, "deno-kv", "a.ts:1"),
        ({"a.ts": "Deno.cron('nightly', '0 3 * * *', () => {})"}, "deno-cron", "a.ts"),
        (
            {"a.ts": "import 'x';\nimport { A } from 'typeorm'\n@A()\nclass B {}"},
            "decorators",
            "a.ts:3",
        ),
        (
            {
                "tsconfig.json": {"compilerOptions": {"baseUrl": "src"}},
                "src/lib/a.ts": "",
                "src/b.ts": "import a from 'lib/a'",
            },
            "base-url",
            "lib/a in src/b.ts:1",
        ),
        (
            {
                "tsconfig.json": {"compilerOptions": {"paths": {"@/*": [], "~/*": []}}},
                "deno.json": {"imports": {"@/": "./", "hono": "npm:hono"}},
            },
            "aliases",
            "~/*",
        ),
        ({"package.json": {"dependencies": {"sharp": "1"}}}, "native-modules", "sharp"),
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
        {
            "a.ts": "import { S3 } from '@aws-sdk/client-s3'",
            "package.json": {"dependencies": {"@aws-sdk/client-s3": "3"}},
        },
        {
            "a.ts": "import { PutCommand } from '@aws-sdk/lib-dynamodb/x'",
            "deno.json": {"imports": {"@aws-sdk/lib-dynamodb": "npm:@aws-sdk/x"}},
        },
        {"a.ts": "import { S3 } from 'npm:@aws-sdk/client-s3'"},
        {"a.js": "join('/tmpl', x); ({ timeoutEarlyInMillis: 500 })"},
        {"a.ts": "Deno.openKv('https://api.deno.com/databases/x/connect')"},
        {"a.ts": "Deno.openKv(':memory:'); Deno.openKv(url); Deno.openKv(`${url}/x`)"},
        {"a.ts": "// Deno.openKv()"},
        {
            "a_test.ts": "'/tmp/x'",
            "a.spec.ts": "'/tmp/x'",
            "tests/a.ts": "'/tmp/x'",
            "lib/__tests__/a.ts": "'/tmp/x'",
            "jest.config.js": "process.env.NODE_ENV",
        },
        {
            "a.ts": "import 'reflect-metadata';\n@Entity()\nclass A {}",
            "tsconfig.json": {"compilerOptions": {"experimentalDecorators": True}},
        },
        {
            "tsconfig.json": {"compilerOptions": {"paths": {"#lib/*": ["./*"]}}},
            "package.json": {"imports": {"#lib/*": "./lib/*"}},
        },
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


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("process.env.NODE_ENV", {"NODE_ENV": "production"}),
        ("const cache = new Map()", {"LAMBDA_DENO_STRATEGY": "server"}),
        ("const cache = new Map()", {"LAMBDA_DENO_MAX_INVOCATIONS": "100"}),
        (
            "require('child_process')",
            {"LAMBDA_DENO_PERMISSIONS": "default --allow-run=git"},
        ),
        ("require('sharp')", {"LAMBDA_DENO_PERMISSIONS": "default --allow-ffi"}),
        ("Deno.openKv()", {"DENO_KV_DEFAULT_PATH": "https://kv.example.com"}),
        ("require('sharp'); new Deno.Command('x')", {"LAMBDA_DENO_PERMISSIONS": "all"}),
    ],
)
def test_what_a_setting_has_cured_is_not_named(
    tmp_path: Path, source: str, variables: dict[str, str]
) -> None:
    written(tmp_path, {"a.js": source})
    assert findings(tmp_path, {}) != []
    assert findings(tmp_path, variables) == []


@pytest.mark.parametrize(
    "source",
    [
        "exports.handler = (event, context, callback) => callback(null, 1)",
        "exports.handler = function (event, context, done) {}",
        "export function handler(event: E, context: C, callback: Callback) {}",
    ],
)
def test_callbacks_are_named_with_nothing_to_do(tmp_path: Path, source: str) -> None:
    [found] = findings(written(tmp_path, {"a.ts": source}), {})
    assert (found.id, found.advice) == ("callbacks", "")
    assert found.found.endswith("a.ts:1")


def test_many_places_are_counted(tmp_path: Path) -> None:
    written(tmp_path, {f"{n}.js": "'/tmp/x'" for n in range(9)})
    [found] = findings(tmp_path, {})
    assert found.found.endswith("0.js:1, 1.js:1, 2.js:1 and 6 more")
