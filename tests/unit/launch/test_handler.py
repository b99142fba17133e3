"""The handler's file and export, found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.errors import HandlerError
from lambda_deno_spawn.launch.handler import Handler, find_handler, find_in_packages

pytestmark = pytest.mark.as_lambda

FOUND = [
    ("function.ts", "function.handler", "handler"),
    ("function.mjs", "function.handler", "handler"),
    ("index.js", "index.default", "default"),
    ("src/api/users.ts", "src/api/users.handler", "handler"),
    ("src/api/users.ts", "./src/api/users.handler", "handler"),
    ("a.b.c.ts", "a.b.c.handler", "handler"),
    ("a.b.ts", "a.b.c.handler", "c.handler"),
    ("api.ts", "api.users.get", "users.get"),
    ("v1.2/api.ts", "v1.2/api.get", "get"),
    ("with space/übung.ts", "with space/übung.handler", "handler"),
    ("tsx.tsx", "tsx.handler", "handler"),
    ("src/api.js", "src//api.handler", "handler"),
    ("hello/index.js", "hello.handler", "handler"),
    ("src/hello/index.ts", "./src/hello.api.get", "api.get"),
    ("a.b/index.bundle.js", "a.b.handler", "handler"),
    ("hello", "hello.handler", "handler"),
    ("src/a.b", "src/a.b.c.d", "c.d"),
]


@pytest.mark.parametrize(
    ("file", "handler", "export"),
    [pytest.param(*case, id=f"{case[1]} in {case[0]}") for case in FOUND],
)
def test_a_handler_s_file_and_export_are_found(
    tmp_path: Path, file: str, handler: str, export: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_handler(tmp_path, handler) == Handler(str(path), export)


def test_suffixes_are_tried_in_order(tmp_path: Path) -> None:
    names = [
        "f.bundle.js", "f.js", "f.mjs", "f.cjs", "f.ts", "f.tsx", "f.mts", "f.cts",
        "f.jsx",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    for name in names:
        assert find_handler(tmp_path, "f.handler").path == str(tmp_path / name)
        (tmp_path / name).unlink()


def test_the_longest_file_name_wins(tmp_path: Path) -> None:
    (tmp_path / "a.js").touch()
    (tmp_path / "a.b.tsx").touch()
    assert find_handler(tmp_path, "a.b.c") == Handler(str(tmp_path / "a.b.tsx"), "c")


def test_the_main_file_of_a_folder_is_its_handler_s(tmp_path: Path) -> None:
    (tmp_path / "hello" / "lib").mkdir(parents=True)
    (tmp_path / "hello" / "lib" / "main.js").touch()
    (tmp_path / "hello" / "index.js").touch()
    (tmp_path / "hello" / "package.json").write_text('{"main": "./lib/main"}')
    main = str(tmp_path / "hello" / "lib" / "main.js")
    assert find_handler(tmp_path, "hello.handler") == Handler(main, "handler")


def test_a_file_with_a_suffix_comes_before_a_folder_and_one_without(
    tmp_path: Path,
) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f.ts").touch()
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "index.js").touch()
    (tmp_path / "g.mjs").touch()
    assert find_handler(tmp_path, "f.handler").path == str(tmp_path / "f.ts")
    assert find_handler(tmp_path, "g.handler").path == str(tmp_path / "g.mjs")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "f.js").mkdir()
    (tmp_path / "f.ts").touch()
    assert find_handler(tmp_path, "f.handler").path == str(tmp_path / "f.ts")


@pytest.mark.parametrize(
    "handler",
    [
        "",
        "function",
        "function.",
        ".handler",
        "function..handler",
        "src/function",
        "src/.handler",
        "src/",
        "../function.handler",
        "src/../../function.handler",
    ],
    ids=repr,
)
def test_a_malformed_handler_is_refused(tmp_path: Path, handler: str) -> None:
    (tmp_path / "function.js").touch()
    with pytest.raises(HandlerError) as caught:
        find_handler(tmp_path, handler)
    assert caught.value.error_type == "Runtime.MalformedHandlerName"
    assert str(caught.value) == (
        f"Cannot use handler {handler!r}: expected file.export, "
        "such as function.handler or src/api.handler"
    )


def test_a_handler_without_file_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(HandlerError) as caught:
        find_handler(tmp_path, "src/api.handler")
    assert caught.value.error_type == "Runtime.ImportModuleError"
    assert str(caught.value) == (
        "Cannot find the file of handler 'src/api.handler': none of src/api.bundle.js, "
        "src/api.js, src/api.mjs, src/api.cjs, src/api.ts, src/api.tsx, src/api.mts, "
        "src/api.cts, src/api.jsx "
        f"exists in {str(tmp_path)!r}"
    )


def test_a_name_that_the_file_system_refuses_is_no_file(tmp_path: Path) -> None:
    """``Path.is_file`` raised, and the runtime ended without an init error."""
    with pytest.raises(HandlerError, match="Cannot find the file of handler"):
        find_handler(tmp_path, "f" * 300 + ".handler")


def test_an_absolute_path_leads_to_a_handler_in_a_layer(tmp_path: Path) -> None:
    layer, task_root = tmp_path / "opt", tmp_path / "task"
    layer.mkdir()
    file = layer / "handler.mjs"
    file.touch()
    found = find_handler(task_root, f"{layer}/handler.handler")
    assert found == Handler(str(file), "handler")
    with pytest.raises(HandlerError, match=r"none of /handler\.bundle\.js, /handler"):
        find_handler(task_root, "/handler.handler")


@pytest.mark.parametrize(
    ("manifest", "file"),
    [
        ("{}", "index.js"),
        ('{"main": "dist/wrap"}', "dist/wrap.cjs"),
        ('{"main": "./lib"}', "lib/index.js"),
        ('{"exports": "./a.mjs", "main": "b.js"}', "a.mjs"),
        ('{"exports": {".": {"types": "./t.d.ts", "require": "./c.cjs"}}}', "c.cjs"),
        ('{"exports": {"node": {"default": "./n.js"}}}', "n.js"),
        ('{"exports": {"./sub": "./s.js"}, "main": 7}', "index.js"),
        ("not JSON", "index.mjs"),
    ],
)
def test_a_package_may_have_the_handler(
    tmp_path: Path, manifest: str, file: str
) -> None:
    path = tmp_path / "wrapper" / file
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "wrapper" / "package.json").write_text(manifest, encoding="utf-8")
    folders = [tmp_path / "missing", tmp_path]
    found = find_in_packages(folders, "wrapper.api.handler")
    assert found == Handler(str(path), "api.handler")
    for other in ("other.handler", "wrapper", "wrapper.", "a/wrapper.handler"):
        assert find_in_packages(folders, other) is None
