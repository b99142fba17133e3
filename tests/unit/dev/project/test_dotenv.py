"""Which files of variables code loads here, and would miss on Lambda."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.dotenv import unpackaged_env_file
from lambda_deno_spawn.dev.project.function import Function
from lambda_deno_spawn.dev.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

LOADS = "import 'dotenv/config';"


def project(folder: Path, *include: str, **files: str) -> Project:
    for name, text in {"_env": "A=1", **files}.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return Project(Function(folder, "a.handler"), "a", include=include)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a_ts", LOADS),
        ("a_js", "require('dotenv').config()"),
        ("a_ts", 'import { load } from "jsr:@std/dotenv@^0.225"'),
        ("a_ts", 'import "npm:dotenv@17/config"'),
        ("a_mjs", "process.loadEnvFile()"),
        ("deno_json", '{"tasks": {"dev": "deno run -A --env-file=.env.dev a.ts"}}'),
        ("package_json", '{"scripts": {"dev": "node --watch --env-file .env a.js"}}'),
    ],
)
def test_file_that_code_loads_is_found(tmp_path: Path, name: str, text: str) -> None:
    found = unpackaged_env_file(project(tmp_path, **{name: text}))
    assert found == (".env", name.replace("_", "."))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a_ts", "// import 'dotenv/config'"),
        ("a_ts", "import 'dotenvelope'"),
        ("a_d_ts", LOADS),
        ("deno_json", '{"tasks": {"d": "lambda-deno-spawn dev . --env-file .env"}}'),
    ],
)
def test_file_that_nothing_loads_is_not(tmp_path: Path, name: str, text: str) -> None:
    assert unpackaged_env_file(project(tmp_path, **{name: text})) is None


def test_file_that_is_not_missed_is_not_found(tmp_path: Path) -> None:
    assert unpackaged_env_file(project(tmp_path, a_ts=LOADS), {"A"}) is None
    assert unpackaged_env_file(project(tmp_path, ".env", a_ts=LOADS)) is None
    (tmp_path / ".env").rename(tmp_path / ".env.example")
    assert unpackaged_env_file(Project(Function(tmp_path, "a.handler"), "a")) is None
