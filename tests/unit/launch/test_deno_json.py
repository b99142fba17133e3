"""Project files above the task root, found by Deno's rules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lambda_deno_spawn.launch.deno_json import (
    SLOPPY,
    config_flags,
    emit_options,
    find_project,
    hoisted_packages,
    permission_sets,
    searched_above,
    tool_flags,
)

pytestmark = pytest.mark.as_lambda


def write(root: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, "utf-8")


WORKSPACE = {"workspace": ["./fn", "./other"]}
NPM = {"workspaces": ["packages/*"]}
CASES: list[tuple[str, dict[str, Any], str, str | None, str | None, str, str | None]]
CASES = [
    ("nothing", {"fn/f.ts": ""}, "fn", None, None, "fn", None),
    ("beside", {"fn/deno.json": {}, "fn/deno.lock": "{}"},
     "fn", "fn/deno.json", None, "fn", "fn/deno.lock"),
    ("above", {"deno.jsonc": "{}", "fn/f.ts": ""}, "fn", "deno.jsonc", None, "", None),
    ("package-above", {"package.json": {}, "src/f.ts": ""}, "src", None, "", "", None),
    ("nearest-wins", {"deno.json": {}, "fn/package.json": {}},
     "fn", None, "fn", "fn", None),
    ("workspace", {"deno.json": WORKSPACE, "fn/deno.json": {}, "deno.lock": "{}"},
     "fn", "fn/deno.json", None, "", "deno.lock"),
    ("workspace-of-packages", {"deno.json": WORKSPACE, "fn/package.json": {}},
     "fn", "deno.json", None, "", None),
    ("workspace-in-an-object",
     {"deno.json": {"workspace": {"members": ["./*"]}}, "fn/deno.json": {}},
     "fn", "fn/deno.json", None, "", None),
    ("not-a-member", {"deno.json": WORKSPACE, "b/deno.json": {}, "deno.lock": "{}"},
     "b", "b/deno.json", None, "b", None),
    ("npm-workspace", {"package.json": NPM, "packages/fn/package.json": {}},
     "packages/fn", None, "packages/fn", "", None),
    ("npm-workspaces-other-form",
     {"package.json": {"workspaces": {"packages": ["packages/**"]}},
      "packages/fn/package.json": {}},
     "packages/fn", None, "packages/fn", "", None),
    ("pnpm-workspace",
     {"pnpm-workspace.yaml": "", "package.json": {}, "a/fn/package.json": {}},
     "a/fn", None, "a/fn", "", None),
    ("not-an-npm-member", {"package.json": NPM, "fn/package.json": {}},
     "fn", None, "fn", "fn", None),
    ("lock-by-name", {"fn/deno.json": {"lock": {"path": "my.lock", "frozen": True}},
                      "fn/my.lock": "{}"},
     "fn", "fn/deno.json", None, "fn", "fn/my.lock"),
    ("lock-by-text", {"fn/deno.json": {"lock": "my.lock"}, "fn/my.lock": "{}"},
     "fn", "fn/deno.json", None, "fn", "fn/my.lock"),
    ("no-lock-wanted", {"fn/deno.json": {"lock": False}, "fn/deno.lock": "{}"},
     "fn", "fn/deno.json", None, "fn", None),
    ("workspace-lock-by-name",
     {"deno.json": {**WORKSPACE, "lock": "l"}, "fn/deno.json": {}, "l": "{}"},
     "fn", "fn/deno.json", None, "", "l"),
    ("unreadable", {"fn/deno.json": '{"workspace": '},
     "fn", "fn/deno.json", None, "fn", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "task_root", "config", "package", "root", "lock"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_project_files_are_those_that_deno_would_find(
    tmp_path: Path,
    files: dict[str, Any],
    task_root: str,
    config: str | None,
    package: str | None,
    root: str,
    lock: str | None,
) -> None:
    write(tmp_path, files)
    found = find_project(tmp_path / task_root)
    expected = [
        None if part is None else str(tmp_path / part)
        for part in (config, package, root, lock)
    ]
    assert list(found) == expected


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ({}, ["--no-config"]),
        ({"fn/node_modules/a/x.js": ""}, ["--no-config", "--node-modules-dir=manual"]),
        ({"package.json": {}}, ["--no-config", "--node-modules-dir=manual"]),
        ({"package.json": {}, "deno.lock": '{"npm":{}}'},
         ["--no-config", "--node-modules-dir=manual"]),
        ({"package.json": {}, "deno.lock": '{"jsr":{}}'},
         ["--no-config", "--lock", "{}/deno.lock", "--frozen",
          "--node-modules-dir=manual"]),
        ({"deno.json": {}}, ["--config", "{}/deno.json", "--no-lock"]),
        ({"deno.json": {}, "deno.lock": ""}, ["--config", "{}/deno.json", "--frozen"]),
    ],
    ids=["none", "packages", "package", "npm-lock", "jsr-lock", "config", "locked"],
)  # fmt: skip
def test_flags_point_deno_at_them(
    tmp_path: Path, files: dict[str, Any], flags: list[str]
) -> None:
    task_root = tmp_path / "fn"
    task_root.mkdir()
    write(tmp_path, files)
    found = config_flags(find_project(task_root), task_root)
    assert found == [flag.format(tmp_path) for flag in flags]


def test_a_generated_configuration_stands_for_tsconfig_json(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "package.json": {},
            "tsconfig.json": '{"extends": ["./base", "@x/base"], // why\n'
            '"compilerOptions": {"jsx": "react-jsx", "strict": true,}}',
            "base.json": {"compilerOptions": {"jsx": "react", "target": "es5"}},
            "node_modules/@x/base/tsconfig.json": {
                "extends": "./tsconfig.json",
                "compilerOptions": {"experimentalDecorators": True},
            },
            "src/f.ts": "",
        },
    )
    task_root = tmp_path / "src"
    files = find_project(task_root)
    assert emit_options(files) == {"jsx": "react-jsx", "experimentalDecorators": True}
    assert config_flags(files, task_root, "/state/deno.json") == [
        "--config", "/state/deno.json", "--no-lock", "--node-modules-dir=manual",
    ]  # fmt: skip
    # Where there is a deno.json, Deno reads tsconfig.json itself.
    write(tmp_path, {"deno.json": {}})
    assert emit_options(find_project(task_root)) == {}


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ({}, ["--no-lock"]),
        ({"node_modules/a/x.js": ""}, ["--no-lock", "--node-modules-dir=manual"]),
        ({"package.json": {}, "deno.lock": '{"npm":{}}'}, ["--no-lock"]),
        ({"package.json": {}, "deno.lock": '{"jsr":{}}'}, ["--frozen"]),
        ({"deno.json": {}, "deno.lock": ""}, ["--frozen"]),
    ],
)
def test_tools_find_them_and_write_no_lock_file(
    tmp_path: Path, files: dict[str, Any], flags: list[str]
) -> None:
    write(tmp_path, files)
    assert tool_flags(tmp_path) == [flags[0], SLOPPY, *flags[1:]]


def test_packages_above_are_those_of_the_project(tmp_path: Path) -> None:
    """A folder of packages above the project is not opened, and is not searched."""
    write(tmp_path, {"node_modules/x/i.js": "", "p/a/f/f.ts": "", "p/package.json": {}})
    write(tmp_path, {"p/node_modules/x/i.js": ""})
    task_root = tmp_path / "p" / "a" / "f"
    packages = str(tmp_path / "p" / "node_modules")
    assert hoisted_packages(find_project(task_root), task_root) == [packages]
    missing, existing = searched_above(task_root)
    assert missing[0] == str(tmp_path / "p" / "a" / "node_modules")
    assert not any(os.path.lexists(path) for path in missing)
    assert "/node_modules" in missing
    assert existing == [packages, str(tmp_path / "node_modules")]


def test_permission_sets_of_a_file_without_any_need_no_parser(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": '{"imports": {}}', "b.json": {"permissions": {"x": {}}}})
    assert permission_sets(tmp_path / "a.json") == {}
    assert permission_sets(tmp_path / "b.json") == {"x": {}}
