"""The way of a new user, by the commands of the README, against moto's AWS.

What is deployed is compared byte for byte with what was built; that it runs is shown by
``test_as_deployed.py``, as moto runs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

import lambda_deno_spawn
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.aws import aws_stand_in
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download, fetch_bundler
from tests.integration.test_as_deployed import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.deno


@pytest.fixture
def aws() -> Iterator[dict[str, str]]:
    with aws_stand_in() as environ:
        yield environ


@pytest.fixture
def dist(tmp_path: Path, layers: Path) -> Path:
    """The folder ``dist`` as ``layer build`` leaves it; packages are added to it."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for entry in layers.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


class Shell:
    """A folder to work in, with AWS and Deno at hand."""

    def __init__(self, folder: Path, aws: dict[str, str]) -> None:
        self.folder = folder
        download(EXAMPLES / "hono-api")
        nowhere = str(folder / "nowhere")
        self._environ = {
            **{name: os.environ[name] for name in os.environ if name[:4] != "AWS_"},
            **aws,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "DENO_DIR": fetch_bundler(),
        }

    def run(self, *arguments: str, exit_code: int = 0) -> tuple[str, str]:
        """Run our command; return what it printed."""
        done = as_text(run_command(*arguments, cwd=self.folder, environ=self._environ))
        assert done.returncode == exit_code, done.stderr
        return done.stdout, done.stderr

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self._environ["AWS_ENDPOINT_URL"],
            region_name=self._environ["AWS_REGION"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )


@pytest.mark.long
def test_a_new_project_is_deployed_changed_and_deleted(
    tmp_path: Path, aws: dict[str, str], dist: Path
) -> None:
    shell = Shell(tmp_path, aws)
    shell.run("new", "orders", "--template", "http")
    shell.run("invoke", "orders", "--event", "@orders/events/hello.json")
    arguments = ["deploy", "orders", "--function-url"]

    planned, said = shell.run(*arguments, "--dry-run")
    assert "lambda:CreateFunction" in planned + said
    assert shell.client("lambda").list_functions()["Functions"] == []

    done, _ = shell.run(*arguments, "-o", "json")
    answer = json.loads(done)
    there = shell.client("lambda").get_function(FunctionName="orders")["Configuration"]
    assert there["FunctionArn"] in str(answer)
    assert (there["Runtime"], there["Handler"]) == ("python3.13", "function.handler")
    package = (dist / "orders.zip").read_bytes()
    digest = base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert there["CodeSha256"] == digest
    names = [layer["Arn"].split(":")[-2] for layer in there["Layers"]]
    assert [name.rpartition("-")[0] for name in names] == [
        "lambda-deno-spawn-deno",
        "lambda-deno-spawn-runtime",
    ]
    wrapper = there["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"]
    assert wrapper == "/opt/lambda-deno-spawn"

    again, said = shell.run(*arguments)
    assert "othing to do" in again + said

    project = tmp_path / "orders" / "lambda.toml"
    changed = project.read_text().replace("memory = 512", "memory = 1024")
    assert changed != project.read_text()
    project.write_text(changed)
    _, said = shell.run("deploy", "orders")
    assert "memory: 512 MB -> 1024 MB" in said
    configuration = shell.client("lambda").get_function_configuration
    assert configuration(FunctionName="orders")["MemorySize"] == 1024

    listed, _ = shell.run("layer", "list")
    assert names[0] in listed

    shell.run("delete", "./orders", exit_code=2)  # nobody is there to be asked
    shell.run("delete", "orders", "--yes")
    assert shell.client("lambda").list_functions()["Functions"] == []
    assert shell.client("iam").list_roles()["Roles"] == []


@pytest.mark.long
def test_what_is_deployed_is_made_as_the_project_says(
    tmp_path: Path, aws: dict[str, str], dist: Path
) -> None:
    """It was bundled whatever lambda.toml said."""
    shell = Shell(tmp_path, aws)
    shutil.copytree(EXAMPLES / "inventory", tmp_path / "inventory")
    shell.run("deploy", "inventory")
    with zipfile.ZipFile(dist / "inventory.zip") as package:
        assert "lib/stock.ts" in package.namelist()
    layer = f"dist/runtime-layer-{Arch.here()}.zip"
    _, said = shell.run("deploy", "inventory", "--package", layer, exit_code=2)
    assert "no file in it is the handler 'function.handler'" in said


def test_without_its_dependencies_the_command_says_how_to_install_them() -> None:
    source = Path(lambda_deno_spawn.__file__).parents[1]
    start = f"import sys; sys.path.append({str(source)!r}); "
    start += "from lambda_deno_spawn.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "`pip install lambda-deno-spawn`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["invoke"], "Cannot invoke: no FUNCTION is given"),
        (
            ["invoke", "orders", "--remote", "orders"],
            "Cannot use FUNCTION with --remote",
        ),
        (
            ["invoke", "--remote", "orders", "--memory", "256", "--env", "A1=1"],
            "Cannot use --memory and --env with --remote",
        ),
        (
            ["invoke", ".", "--async", "--region", "eu-west-1"],
            "Cannot use --async and --region without --remote",
        ),
    ],
    ids=["nothing", "both", "settings", "local"],
)
def test_what_is_for_another_place_is_refused(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    done = as_text(run_command(*arguments, cwd=tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
