"""What a module loses in a bundle, read from bundles as esbuild writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.doubts import (
    Level,
    Part,
    code_of,
    find_doubts,
    mentioned_folders,
    named_sources,
    needs_place,
    parts,
)

if TYPE_CHECKING:
    from pathlib import Path

BY_PLACE = "finds files by its own place"
BY_NAME = "loads a module by a name known only at run time"
OTHERS = "looks for other modules"


def reasons(*modules: tuple[str, str]) -> list[tuple[str, str, Level]]:
    found = find_doubts([Part(*module) for module in modules])
    return [(doubt.name, doubt.reason, doubt.level) for doubt in found]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ('fs.readFileSync(__dirname + "/a.txt");', BY_PLACE),
        ("fs.readFileSync(`${__dirname}/a.txt`);", BY_PLACE),
        ('new URL("./a.wasm", import.meta.url);', BY_PLACE),
        ('__require.resolve("./worker.js");', OTHERS),
        ('import.meta.resolve("a");', OTHERS),
        ("var fn = __require(mod).__express;", BY_NAME),
        ("__require(`./locale/${name}`);", BY_NAME),
        ("aliased = __require;", BY_NAME),
        ("import(name);", BY_NAME),
        ('var require2 = createRequire(import.meta.url);\nrequire2("./a");', BY_PLACE),
        ('__require("/home/ada/node_modules/a/a.node");', "loads native code"),
    ],
)
@pytest.mark.parametrize("place", ["npm/a/1.0.0/a.js", "../node_modules/a/a.js"])
def test_a_package_that_looks_for_files_or_modules_is_doubted(
    code: str, reason: str, place: str
) -> None:
    path = place.removeprefix("npm/").removeprefix("../node_modules/")
    assert reasons((place, code)) == [(path, reason, Level.OWN)]


@pytest.mark.parametrize(
    "code",
    [
        "throw new Error('use __dirname + \"/a\"');",
        'source = `\n  , __filename = ` + name + "__line";',
        "// __dirname\n/* import.meta.url */ run();",
        'x = typeof __filename !== "undefined" ? __filename : void 0;',
        'const __dirname = path.dirname(import_("a"));\nread(__dirname);',
        'x = /["\'`]/g; y = "__dirname"; z = /`/;',
        '__require("supports-color");',
        'typeof __require === "function" && __require.cache;',
        'var require2 = createRequire(import.meta.url);\nrequire2("node:fs");',
        'const { import: x } = a.import("b");',
        "if (import.meta.main) run();",
        "options = { __dirname: false };",
    ],
)
def test_a_package_that_only_mentions_them_is_not(code: str) -> None:
    assert reasons(("npm/a/1.0.0/a.js", code)) == []


@pytest.mark.parametrize(
    ("name", "code", "own", "is_doubted"),
    [
        ("npm/express/5.3.0/lib/view.js", "__require(mod)", "app.get('/')", False),
        ("npm/express/5.3.0/lib/view.js", "__require(mod)", 'set("view engine")', True),
        ("node_modules/express/lib/view.js", "__require(mod)", "", False),
        (
            "node_modules/moment/moment.js",
            "a = __require;",
            "moment.locale('de')",
            True,
        ),
        ("npm/express/5.3.0/lib/other.js", "__require(mod)", "", True),
    ],
)
def test_a_module_that_needs_it_in_one_case_is_doubted_in_that_case(
    name: str, code: str, own: str, is_doubted: bool
) -> None:
    found = reasons((name, code), ("function.ts", own))
    assert bool(found) is is_doubted


@pytest.mark.parametrize(
    ("name", "code", "is_doubted"),
    [
        ("function.ts", 'read(new URL("./a.txt", import.meta.url));', False),
        ("function.cjs", "read(__dirname);", False),
        ("lib/a.ts", "import.meta.dirname;", True),
        ("../lib/a.ts", "__filename;", True),
        ("https://server.example/a.ts", "import.meta.url;", True),
        ("function.ts", 'new Worker(new URL("./w.ts", import.meta.url));', True),
        ("function.ts", 'import.meta.resolve("./a.ts");', True),
        ("function.ts", "import(name);", True),
        ("function.ts", "import(`data:text/javascript,${code}`);", False),
        ("function.ts", "var r = createRequire(import.meta.url);\nr('x');", True),
        (
            "function.ts",
            "var r = createRequire(import.meta.url);\nr('./a.json');",
            False,
        ),
    ],
)
def test_own_modules_are_doubted_where_the_bundle_is_elsewhere(
    name: str, code: str, is_doubted: bool
) -> None:
    found = find_doubts([Part(name, code)])
    assert [doubt.level for doubt in found] == [Level.NOTHING] * is_doubted


def test_a_bundle_is_divided_at_the_comments_that_are_paths() -> None:
    text = "var a;\n// lib/a.js\nvar b;\n// a comment\nvar c;\n// function.ts\nvar d;"
    known = {"lib/a.js": "a", "function.ts": "f"}
    assert list(parts(text, known.get)) == [
        ("a", "var b;\n// a comment\nvar c;"),
        ("f", "var d;"),
    ]


def test_code_is_what_is_not_text() -> None:
    text = 'a("x//y", \'z\', `b${c}d`); // e\nreturn /"/.test(f) /* g */ / 2;'
    assert code_of(text) == 'a("", "", (c));  \nreturn  .test(f)   / 2;'
    assert needs_place(Part("a", "f(__dirname)"))
    assert not needs_place(Part("a", '"__dirname"'))


def test_sources_and_folders_that_strings_name_are_found(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "worker.ts").touch()
    (tmp_path / "top.js").touch()
    text = 'f("./worker.ts", "top.js", "missing.ts", "http://a/b.js");\n"lib/a.js"(x) {'
    folders = [str(tmp_path / "lib"), str(tmp_path)]
    assert named_sources(text, folders) == {
        f"{tmp_path}/lib/worker.ts",
        f"{tmp_path}/top.js",
    }
    found = mentioned_folders('f("./sql", "/static/*", `${a}/views/${b}`)', "lib")
    assert found >= {"sql", "lib/sql", "static", "views"}
