"""``--stage`` and ``--env-file``, with Deno as the oracle and a stand-in for AWS."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from deno import find_deno_bin

from tests.fixtures.command import run_command
from tests.fixtures.env_file import ACCEPTED, EXPECTED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.cloud import Cloud

pytestmark = pytest.mark.deno

FUNCTION = """
const names = ["BASE", "STAGED", "FIRST", "LAST", "GIVEN"];
export const handler = () => names.map((name) => Deno.env.get(name));
"""
TOML = """
[env]
BASE = "base"
STAGED = "base"
FIRST = "base"
LAST = "base"
GIVEN = "base"
[stage.prod.env]
STAGED = "stage"
FIRST = "stage"
LAST = "stage"
GIVEN = "stage"
"""


def test_deno_gives_the_variables_of_a_file_the_same_values(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(ACCEPTED.encode())
    script = "console.log(JSON.stringify(Deno.env.toObject()))"
    done = subprocess.run(
        [find_deno_bin(), "run", "-A", "--env-file=.env", "-"],
        input=script.encode(),
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED


def test_option_file_stage_and_project_come_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "function.js").write_text(FUNCTION)
    (tmp_path / "lambda.toml").write_text(TOML)
    (tmp_path / "one.env").write_text("FIRST=one\nLAST=one\nGIVEN=one\n")
    (tmp_path / "two.env").write_text("LAST='t$o'\nGIVEN=two\n")
    options = ["--env-file", "one.env", "--env-file", "two.env", "--env", "GIVEN=given"]
    done = run_command("invoke", ".", "--stage", "prod", *options, cwd=tmp_path)
    assert json.loads(done.stdout) == ["base", "stage", "one", "t$o", "given"], (
        done.stderr
    )


def variables(cloud: Cloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.function(name)["Environment"]["Variables"]
    del found["AWS_LAMBDA_EXEC_WRAPPER"]
    return found


@pytest.mark.long
def test_each_stage_is_a_function_in_every_command(empty_cloud: Cloud) -> None:
    cloud = empty_cloud
    cloud.build_layers()
    cloud.write_project('name = "fn"\nmemory = 256\n[stage.prod]\nmemory = 1024\n')
    (cloud.folder / "prod.env").write_text("API_KEY=hush\n")
    cloud.deployed()
    finished = cloud.deploy("--stage", "prod", "--env-file", "prod.env")
    assert finished.exit_code == 0, finished.stderr
    assert "hush" not in finished.stderr + finished.stdout
    assert (cloud.function("fn")["MemorySize"], variables(cloud, "fn")) == (256, {})
    assert cloud.function("fn-prod")["MemorySize"] == 1024
    assert variables(cloud, "fn-prod") == {"API_KEY": "hush"}
    finished = cloud.run("delete", "project", "--stage", "prod", "--yes")
    assert finished.exit_code == 0, finished.stderr
    names = [
        f["FunctionName"] for f in cloud.client("lambda").list_functions()["Functions"]
    ]
    assert names == ["fn"]
    for command in ("logs", "delete"):
        finished = cloud.run(command, "project", "--stage", "prd")
        assert finished.exit_code == 2
        assert "did you mean prod? The stages are prod" in finished.stderr


def test_package_of_a_stage_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "function.js").write_text(FUNCTION)
    (tmp_path / "lambda.toml").write_text(f'name = "fn"\n{TOML}')
    environ = {**os.environ, "DENO_DIR": str(tmp_path / "deno")}
    done = run_command(
        "build", ".", "--stage", "prod", "--no-bundle", "--no-cache", "-o", "json",
        cwd=tmp_path, environ=environ,
    )  # fmt: skip
    assert json.loads(done.stdout)["path"] == "dist/fn-prod.zip", done.stderr
