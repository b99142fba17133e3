"""The handler of a folder: which file, which export, and what names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.existing_app import (
    EVENTS,
    REST_EVENT,
    URL_EVENT,
    find_app,
    named_app,
    names_types,
    other_exports,
)
from lambda_deno_spawn.dev.project.samples import sample_names
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SERVED = "Deno.serve(() => new Response());"


def write(folder: Path, **files: object) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        find_app(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("files", "handler", "found_by"),
    [
        ({"main_ts": SERVED}, "main.handler", "its name"),
        ({"src__index_ts": SERVED}, "src/index.handler", "its name"),
        (
            {"one_ts": SERVED, "one_test_ts": "", "vite_config_ts": "", "a_d_ts": ""},
            "one.handler",
            "being the only source file",
        ),
        (
            {"deno_json": {"exports": "./api/web.ts"}, "api__web_ts": SERVED,
             "main_ts": SERVED},
            "api/web.handler",
            "exports in deno.json",
        ),
        (
            {"deno_jsonc": '{"exports": {".": "./web.ts"}, /* x */ }',
             "web_ts": SERVED},
            "web.handler",
            "exports in deno.jsonc",
        ),
        (
            {"deno_json": {"tasks": {"start": "deno run -A --port=1 ./web.tsx"}},
             "web_tsx": SERVED, "other_ts": SERVED},
            "web.handler",
            "tasks.start in deno.json",
        ),
        (
            {"deno_json": {"tasks": {"dev": {"command": "deno serve web.ts"}}},
             "web_ts": SERVED, "other_ts": SERVED},
            "web.handler",
            "tasks.dev in deno.json",
        ),
        (
            {"package_json": {"main": "dist/index.js"}, "dist__index_js": "",
             "src__index_ts": SERVED},
            "src/index.handler",
            "main in package.json",
        ),
        (
            {"package_json": {"main": "lib/web"},
             "lib__web_cjs": "exports.handler = f"},
            "lib/web.handler",
            "main in package.json",
        ),
        (
            {"package_json": {"exports": {".": {"types": "./x.d.ts",
                                                "import": "./web.mjs"}}},
             "web_mjs": SERVED, "x_d_ts": ""},
            "web.handler",
            "exports in package.json",
        ),
        (
            {"package_json": {"main": "index.js", "scripts": {"start": "tsx app/x.ts"}},
             "app__x_ts": SERVED},
            "app/x.handler",
            "scripts.start in package.json",
        ),
        # What is named and exists, but is neither handler nor app nor server.
        (
            {"package_json": {"main": "index.js"}, "index_js": "export const a = 1;",
             "src__server_ts": SERVED},
            "src/server.handler",
            "its name",
        ),
        # Out of the folder, or not there.
        (
            {"deno_json": {"exports": "../main.ts", "tasks": {"start": "run /x.ts"}},
             "main_ts": SERVED},
            "main.handler",
            "its name",
        ),
    ],
)  # fmt: skip
def test_handler_is_what_the_project_names(
    tmp_path: Path, files: dict[str, object], handler: str, found_by: str
) -> None:
    write(tmp_path, **files)
    app = find_app(tmp_path)
    assert (app.handler, app.found_by, app.note) == (handler, found_by, None)
    assert (tmp_path / app.file).is_file()


@pytest.mark.parametrize(
    ("source", "export"),
    [
        ("export const handler = 1;", "handler"),
        ("export async function* handler() {}", "handler"),
        ("const h = 1; export { h as handler };", "handler"),
        ("export default app;", "handler"),
        ("const a = 1; export { a as default };", "handler"),
        ("exports.handler = f;", "handler"),
        ("module.exports = { handler, other: 1 };", "handler"),
        ("module.exports = make();", "handler"),
        ("app.listen(3000);", "handler"),
        ("serve({ fetch: app.fetch });", "handler"),
        ("export const lambdaHandler = 1;", "lambdaHandler"),
        ("exports.apiHandler = f;", "apiHandler"),
        ("export const lambdaHandler = 1; export default app;", "handler"),
    ],
)
def test_export_is_what_a_source_has(tmp_path: Path, source: str, export: str) -> None:
    write(tmp_path, main_ts=source)
    app = find_app(tmp_path)
    assert (app.handler, app.note) == (f"main.{export}", None)


@pytest.mark.parametrize(
    "source",
    ["", "// export default app", "export const a = 1;", "if (exports.handler == 1) {}",
     "export const firstHandler = 1; export const secondHandler = 2;"],
)  # fmt: skip
def test_source_without_a_handler_is_noted(tmp_path: Path, source: str) -> None:
    write(tmp_path, main_ts=source)
    app = find_app(tmp_path)
    assert app.handler == "main.handler"
    assert app.note is not None
    assert app.note.startswith("main.ts has neither a handler nor an app nor a server")


@pytest.mark.parametrize(
    "source",
    [
        'app.use("/*", cors());\nexport default app;\n/** The end. */\n',
        '/** serves "*/*" */\nexport default app;',
        "/* a */ export default app; // b */",
    ],
)
def test_comments_hide_nothing(tmp_path: Path, source: str) -> None:
    write(tmp_path, main_ts=source)
    assert find_app(tmp_path).note is None


@pytest.mark.parametrize(
    ("rest", "is_noted"), [("", True), ("export default app;", False)]
)
def test_server_of_the_main_module_only_is_noted(
    tmp_path: Path, rest: str, *, is_noted: bool
) -> None:
    write(tmp_path, main_ts=f"if (import.meta.main) Deno.serve(f);\n{rest}")
    note = find_app(tmp_path).note
    assert (note is not None) is is_noted
    assert note is None or note.startswith("main.ts asks whether it is the main module")


def test_file_that_lambda_would_load_in_place_of_it_is_noted(tmp_path: Path) -> None:
    write(tmp_path, deno_json={"exports": "./main.ts"}, main_ts=SERVED, main_js="")
    assert find_app(tmp_path).note == (
        "Lambda loads main.js in place of main.ts: remove or rename one of them"
    )


@pytest.mark.parametrize(
    ("source", "event"),
    [
        (SERVED, "url"),
        ("export default { fetch() {} }", "url"),
        ("const app = new Hono(); export default app;", "url"),
        ("const app = express(); app.listen(1)", "url"),
        ("export const handler = (event: SQSEvent) => {}", "sqs"),
        ("export const handler: DynamoDBStreamHandler = f", "dynamodb"),
        ("export const handler = (event: APIGatewayProxyEventV2) => {}", "http"),
        ("export const handler = (event: APIGatewayProxyEvent) => {}", "rest"),
        ("export const handler = (event: { name: string }) => {}", None),
        ("exports.handler = require('serverless-http')(app);", "url"),
        ('import a from "@codegenie/serverless-express"', "url"),
        ('import a from "npm:@vendia/serverless-express@4"', "url"),
        ('import { handle } from "hono/aws-lambda"', "url"),
        ('import { handle } from "jsr:@hono/hono@^4/aws-lambda"', "url"),
        ('import a from "@fastify/aws-lambda"', "url"),
        ("const a = require('aws-serverless-express')", "rest"),
        ('import type { Context } from "aws-lambda"', None),
    ],
)
def test_event_is_one_that_the_source_reads(
    tmp_path: Path, source: str, event: str | None
) -> None:
    write(tmp_path, main_ts=source)
    assert find_app(tmp_path).event == event


@pytest.mark.parametrize(
    ("source", "listens", "has_routes"),
    [
        (SERVED, True, True),
        ("app.listen(1); export default app;", False, True),
        ("exports.handler = require('serverless-http')(app);", False, True),
        ("export const handler = (event: SQSEvent) => {}", False, False),
        ("export const handler = (event: APIGatewayProxyEvent) => {}", False, False),
    ],
)
def test_server_and_app_are_told_from_a_handler(
    tmp_path: Path, source: str, *, listens: bool, has_routes: bool
) -> None:
    write(tmp_path, main_ts=source)
    app = find_app(tmp_path)
    assert (app.listens, app.has_routes) == (listens, has_routes)
    assert named_app(tmp_path, "main.handler", "--handler").listens == listens


def test_every_event_is_a_sample() -> None:
    assert {URL_EVENT, REST_EVENT, *(sample for _, sample in EVENTS)} <= {
        *sample_names()
    }


def test_folder_without_an_app_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, a_ts="", b_ts="", package_json={"main": "index.js"})
    message = refusal(tmp_path)
    assert message.startswith(f"Cannot find an app in '{tmp_path}': ")
    assert message.endswith(
        "name it with --handler file.export, or use `new` for a new project"
    )


def test_name_that_lambda_does_not_accept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my app.ts").write_text(SERVED, encoding="utf-8")
    assert "rename it" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["deno.json", "deno.jsonc", "package.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"exports": }', "line 1, column 13: a value is missing; correct it"),
        (b"[]", "expected an object in braces"),
        (b"\xff", "it is not UTF-8"),
    ],
)
def test_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    write(tmp_path, main_ts=SERVED)
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path).startswith(f"Cannot read '{tmp_path}/{name}': {problem}")


def test_something_else_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deno.json").mkdir()
    assert "it is a folder" in refusal(tmp_path)
    (tmp_path / "deno.json").rmdir()
    (tmp_path / "deno.json").symlink_to("nowhere")
    assert "it is a link to a file that does not exist" in refusal(tmp_path)


def test_named_handler_has_to_exist(tmp_path: Path) -> None:
    write(tmp_path, api__web_ts="export const get = (event: SQSEvent) => {}")
    app = named_app(tmp_path, "api/web.get", "--handler")
    assert (app.file, app.event) == ("api/web.ts", "sqs")
    with pytest.raises(UsageError, match=r"Cannot find the file of handler 'a\.b'"):
        named_app(tmp_path, "a.b", "--handler")


@pytest.mark.parametrize(
    ("content", "is_named"),
    [
        ({"devDependencies": {"@x/types": "1"}}, True),
        ({"imports": {"types": "npm:@x/types@1"}}, True),
        ({"imports": {"@x/types": "npm:@x/types@1"}}, True),
        ({"dependencies": {"@x/other": "1"}, "imports": None}, False),
    ],
)
def test_package_with_types_is_recognized(
    content: dict[str, object], *, is_named: bool
) -> None:
    assert names_types(content, "@x/types") is is_named


@pytest.mark.parametrize(
    ("source", "others"),
    [
        ("export const hander = () => 1;", ["hander"]),
        ("export function main() {}\nexport const limit = 3;", ["main", "limit"]),
        ("const a = 1;\nexport { a as run };", ["run"]),
        ("exports.main = () => 1;", ["main"]),
        ("module.exports = { main };", ["main"]),
        ("// export const handler = 1;\nexport const other = 1;", ["other"]),
    ],
)
def test_an_export_that_is_not_there_is_noticed(
    tmp_path: Path, source: str, others: list[str]
) -> None:
    write(tmp_path, main_ts=source)
    assert other_exports(tmp_path / "main.ts", "handler") == others


@pytest.mark.parametrize(
    "source",
    [
        "export const handler = () => 1;",
        "export async function* handler() {}",
        "export default { fetch: app };",
        "export { run as default };",
        "export { run as handler };",
        "export { a } from './a.js';\nexport * from './b.js';",
        "export const { handler, other } = make();",
        "export const a = 1;\nexport const [b, handler] = make();",
        f"export const app = 1;\n{SERVED}",
        "exports.a = 1;\nObject.assign(exports, { handler });",
        "exports.a = 1;\nexports['handler'] = () => 1;",
        "exports.a = 1;\n__export(exports, 'handler');",
        "exports.a = 1;\nconst e = module.exports;\ne.handler = () => 1;",
        "module.exports = { a, ...others };",
        "module.exports = make();",
        "import './server.js';",
    ],
)
def test_an_export_that_may_be_there_is_not_missed(tmp_path: Path, source: str) -> None:
    write(tmp_path, main_ts=source)
    assert other_exports(tmp_path / "main.ts", "handler") == []


def test_a_nested_export_is_looked_for_by_its_first_name(tmp_path: Path) -> None:
    write(tmp_path, main_ts="export const api = { users: { get } };")
    assert other_exports(tmp_path / "main.ts", "api.users.get") == []
    assert other_exports(tmp_path / "main.ts", "web.users.get") == ["api"]
