"""The template ``cdk``: its construct builds what it deploys, as its README says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.project.new import TEMPLATES, TEMPLATES_FOLDER, write_project
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.packages import fetch_bundler, install
from tests.integration.test_deploy_examples import (
    excesses,
    kinds,
    lint,
    template_policies,
)
from tests.integration.test_new import commands

pytestmark = [pytest.mark.deno, pytest.mark.long]

# Names that Lambda accepts, and CloudFormation does not for a stack.
NAME = "2_orders"


def test_project_for_cdk_builds_what_it_deploys(tmp_path: Path, layers: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    # `npm ci`, the first of the README's commands for it.
    installed = install(TEMPLATES_FOLDER / "cdk" / "cdk", limit_s=200)
    project = write_project(NAME, TEMPLATES["cdk"], Arch.here(), tmp_path)
    cdk = project.path / "cdk"
    (cdk / "cdk.out").mkdir()
    (cdk / "cdk.out" / "earlier.json").write_text("{}", encoding="utf-8")
    (cdk / "node_modules").symlink_to(installed / "node_modules")
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DENO_DIR": fetch_bundler(),
        "TMPDIR": str(tmp_path),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
    }
    [check] = [command for command in commands(project) if "run check" in command]
    [synth] = [command for command in commands(project) if "run synth" in command]
    for command in (check, f"{synth} -- --context layers={layers}"):
        done = subprocess.run(
            command.split(),
            cwd=project.path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    path = cdk / "cdk.out" / "lambda-2-orders.template.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    assert kinds(template["Resources"]).count("AWS::Lambda::LayerVersion") == 2
    assert excesses(template_policies(template)) == []
    lint(path, tmp_path, "--ignore-checks", "W3005")
    [function] = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
    ]
    assert (function["FunctionName"], function["Handler"]) == (NAME, "function.handler")
    # Nothing of the CDK project is in the package.
    [package] = cdk.glob(f"cdk.out/asset.{function['Code']['S3Key']}")
    with zipfile.ZipFile(package) as content:
        names = [name for name in content.namelist() if not name.startswith(".")]
    assert names == ["function.bundle.js", "function.bundle.js.map"]
