"""The samples of ``examples/deploy``, each followed as its README says.

A block of a README that is marked ``sh`` is run, in a folder that is empty at first, by
the tool itself: SAM's CLI, osls, CDK's library, Terraform with a stand-in for its aws
provider. Blocks that need an account are marked ``bash``, and are not run. The result
has to hold the package that ``build`` makes, and may allow only what is needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import fetch_bundler, install
from tests.fixtures.tools import environment
from tests.integration.test_guides import Shell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DEPLOY = EXAMPLES / "deploy"
REGION = "eu-central-1"
PROVIDER = ROOT / "tests/fixtures/terraform/provider.py"
SAM_CLI = "aws-sam-cli==1.170.0"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRAPPER = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn"}
WRITES_LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}
READS_QUEUE = {
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
}
PUBLIC = {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
HERE = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
SLOW = pytest.mark.timeout(900)  # a new machine installs the tool first


def load(text: str) -> Any:
    """Parse YAML with CloudFormation's short tags."""
    # Not before a test needs it: it takes 0.4 s, in each process that collects tests.
    from cfnlint.decode import cfn_yaml

    return json.loads(json.dumps(cfn_yaml.loads(text)))


def run(
    command: list[str | Path],
    tmp_path: Path,
    cwd: Path = DEPLOY,
    limit_s: float = 250,
    **environ: str,
) -> str:
    """Run a tool that writes nowhere but below ``tmp_path``; return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "HOME": str(tmp_path), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit_s,
        check=False,
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed
    return printed


def lint(template: Path, tmp_path: Path, *options: str) -> None:
    """Let cfn-lint look at it; a warning is a failure too."""
    start = "import sys; from cfnlint.runner import main; sys.exit(main())"
    run([sys.executable, "-c", start, *options, "--", template], tmp_path)


class Reader:
    """A reader of a README, in an empty folder."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.shop = folder / "shop"
        self._tools = folder / "bin"
        self._tools.mkdir()
        nowhere = str(folder / "nowhere")
        self.environ = {
            **{name: os.environ[name] for name in os.environ if name[:4] != "AWS_"},
            "PATH": f"{self._tools}:{ROOT}/.venv/bin:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "DENO_DIR": fetch_bundler(),
            "NO_COLOR": "1",
            "SAM_CLI_TELEMETRY": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
            **environ,
        }

    def has_tool(self, name: str, *command: str | Path) -> None:
        """Put a command on PATH."""
        script = self._tools / name
        words = " ".join(shlex.quote(str(word)) for word in command)
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)

    def has_layers(self, layers: Path) -> None:
        """Have ``layer build`` copy layers, instead of building them again."""
        script = self._tools / "lambda-deno-spawn"
        script.write_text(
            f"""#!/bin/sh
            [ "$1 $2" = "layer build" ] || exec {ROOT}/.venv/bin/lambda-deno-spawn "$@"
            out=dist
            while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
            mkdir -p "$out"
            exec cp {layers}/*-layer-x86_64.zip "$out"
            """
        )
        script.chmod(0o755)

    def follow(self, tool: str, replaced: dict[str, str]) -> None:
        """Run what the README of a tool says, in its order.

        Args:
            tool: Folder of the README.
            replaced: Lines that install something, with what is run in their place.
        """
        readme = (DEPLOY / tool / "README.md").read_text(encoding="utf-8")
        clone = "git clone --quiet --depth 1 https://github.com/lambda-deno-spawn/"
        here = {f"{clone}lambda-deno-spawn": f"ln -s {ROOT} lambda-deno-spawn"}
        blocks = BLOCK.findall(readme)
        for line, other in {**here, **replaced}.items():
            assert f"\n{line}\n" in "\n".join(blocks), line
            blocks = [block.replace(line, other) for block in blocks]
        with Shell(self.folder, self.environ) as shell:
            for block in blocks:
                shell.run(block)

    def package(self) -> bytes:
        """Build the package of the function once more, elsewhere."""
        options = ["--arch", "x86_64", "--name", "orders", "--out", "again"]
        done = run_command(
            "build", "orders", *options, cwd=self.shop, environ=self.environ
        )
        assert done.returncode == 0, as_text(done).stderr
        return (self.shop / "again/orders.zip").read_bytes()


def content(archive: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the mode of each file in a zip."""
    with zipfile.ZipFile(archive) as opened:
        return {
            item.filename: (opened.read(item), item.external_attr >> 16 & 0o777)
            for item in opened.infolist()
            if not item.is_dir()
        }


def digest(data: bytes) -> str:
    """Return a digest as Lambda's API writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def nodes(value: Any) -> Iterator[tuple[str, Any]]:
    """Return every key with its value, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def strings(value: Any) -> list[str]:
    """Return the strings in a value, however deep."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [text for item in inner for text in strings(item)]


def template_policies(template: Any) -> list[tuple[str, list[str]]]:
    """Return Action, Resource and attached policies of a CloudFormation template."""
    keys = r"(Not)?Action|(Not)?Resource|ManagedPolicyArns|ManagedPolicies"
    return [
        (key, strings(value))
        for key, value in nodes(template)
        if re.fullmatch(keys, key)
    ]


def excesses(policies: Iterable[tuple[str, list[str]]]) -> list[str]:
    """Return wildcards, exclusions and managed policies."""
    return [
        f"{key}: {value}"
        for key, values in policies
        for value in values
        if key.startswith(("Not", "Managed")) or "*" in value
    ]


def actions(policies: Iterable[tuple[str, list[str]]]) -> set[str]:
    return {value for key, values in policies if key == "Action" for value in values}


def kinds(resources: dict[str, Any]) -> list[str]:
    return [resource["Type"] for resource in resources.values()]


def check(template: Any, *allowed: set[str]) -> dict[str, Any]:
    """Check what all samples have in common; return the function's properties."""
    resources = template["Resources"]
    assert not any("Serverless" in kind for kind in kinds(resources))
    assert kinds(resources).count("AWS::IAM::Role") == 1, "of the function alone"
    policies = template_policies(template)
    assert excesses(policies) == []
    assert actions(policies) == {"sts:AssumeRole"}.union(WRITES_LOG, *allowed)
    for key, value in nodes(template):
        if key == "AssumeRolePolicyDocument":
            [statement] = value["Statement"]
            assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    properties: dict[str, dict[str, Any]] = {
        resource["Type"].split("::")[-1]: resource.get("Properties", {})
        for resource in resources.values()
    }
    function = properties["Function"]
    assert function["Runtime"] == "python3.13"
    assert function["Handler"] == "function.handler"
    assert (function["MemorySize"], function["Timeout"]) == (512, 10)
    assert function["Environment"]["Variables"] == WRAPPER
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert properties["LogGroup"]["RetentionInDays"] == 14
    assert kinds(resources).count("AWS::Lambda::LayerVersion") == 2
    return function


# Prints what SAM makes of the template on stdin, for a value of UrlAuth.
TRANSLATE = """
import json, sys
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
translator = Translator({}, Parser())
settings = {"UrlAuth": sys.argv[1]}
print(json.dumps(translator.translate(json.load(sys.stdin), settings)))
"""


def translated(url_auth: str) -> Any:
    """Return what SAM makes of its template."""
    template = load((DEPLOY / "sam/template.yaml").read_text(encoding="utf-8"))
    for resource in template["Resources"].values():
        for key in {"CodeUri", "ContentUri"} & resource["Properties"].keys():
            resource["Properties"][key] = "s3://bucket/package.zip"
    done = subprocess.run(
        [environment("sam", SAM_CLI) / "bin/python", "-c", TRANSLATE, url_auth],
        input=json.dumps(template).encode(),
        env={**os.environ, "AWS_DEFAULT_REGION": REGION},
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("url_auth", ["AWS_IAM", "NONE"])
@pytest.mark.long
@SLOW
def test_sam_adds_no_policy_of_its_own(url_auth: str, tmp_path: Path) -> None:
    template = translated(url_auth)
    check(template, READS_QUEUE, PUBLIC)
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    lint(path, tmp_path)


@pytest.mark.parametrize(
    ("good", "bad", "found"),
    [
        ("logs:PutLogEvents", "logs:*", "Action: logs:*"),
        ('"OrdersLogs", "Arn"', '"arn:aws:logs:*"', "Resource: arn:aws:logs:*"),
        ('"Action": "sts:', '"NotAction": "sts:', "NotAction: sts:AssumeRole"),
        (
            '"AssumeRolePolicyDocument"',
            '"ManagedPolicyArns": ["x"], "AssumeRolePolicyDocument"',
            "ManagedPolicyArns: x",
        ),
    ],
)
def test_what_allows_too_much_would_be_found(good: str, bad: str, found: str) -> None:
    text = json.dumps(load((DEPLOY / "sam/template.yaml").read_text(encoding="utf-8")))
    assert good in text
    assert found in excesses(template_policies(json.loads(text.replace(good, bad))))


@pytest.mark.deno
@pytest.mark.long
@SLOW
def test_sam_builds_what_its_readme_says(
    tmp_path: Path, stand_in: dict[str, str]
) -> None:
    sam = environment("sam", SAM_CLI) / "bin/python"
    reader = Reader(tmp_path)
    reader.has_tool("sam", sam, "-m", "samcli")
    reader.follow("sam", {})
    built = reader.shop / "sam/.aws-sam/build"
    archive = tmp_path / "orders.zip"
    archive.write_bytes(reader.package())
    wanted = content(archive)
    folder = built / "Orders"
    assert {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    } == wanted
    assert os.access(built / "DenoLayer/bin/deno", os.X_OK)
    assert os.access(built / "RuntimeLayer/lambda-deno-spawn", os.X_OK)
    with Shell(reader.shop / "sam", {**reader.environ, **stand_in}) as shell:
        # What a deployment does before it asks for a stack.
        s3(stand_in).create_bucket(Bucket="uploads", **HERE)
        options = f"--region {REGION} --output-template-file ready.yaml"
        shell.run(f"sam package --s3-bucket uploads {options}")
    ready = load((reader.shop / "sam/ready.yaml").read_text(encoding="utf-8"))
    bucket, key = ready["Resources"]["Orders"]["Properties"]["CodeUri"][5:].split("/")
    s3(stand_in).download_file(bucket, key, str(archive))
    assert content(archive) == wanted, "what is deployed"


def s3(stand_in: dict[str, str]) -> Any:
    """Return a client of the stand-in's S3."""
    return boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=stand_in["AWS_ENDPOINT_URL"],
        aws_access_key_id=stand_in["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stand_in["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.deno
@pytest.mark.long
@SLOW
def test_cdk_builds_what_its_readme_says(tmp_path: Path, layers: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    text = (DEPLOY / "cdk/requirements.txt").read_text(encoding="utf-8")
    python = environment("cdk", *text.split()) / "bin/python"
    reader = Reader(
        tmp_path, CDK_CONTEXT_JSON=json.dumps({"urlAuth": "NONE"}), CDK_OUTDIR="cdk.out"
    )
    reader.has_tool("python3", python)
    reader.has_layers(layers)
    # The command line of CDK does this, and reads what comes out.
    [synth] = json.loads((DEPLOY / "cdk/cdk.json").read_text(encoding="utf-8")).values()
    reader.follow(
        "cdk",
        {
            "pip install -r requirements.txt": "true",
            "npx aws-cdk synth --quiet": synth,
        },
    )
    out = reader.shop / "cdk/cdk.out"
    path = out / "Shop.template.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    function = check(template, PUBLIC)
    # CDK writes dependencies down that CloudFormation would find by itself.
    lint(path, tmp_path, "--ignore-checks", "W3005")
    asset = out / f"asset.{function['Code']['S3Key']}"
    assert asset.read_bytes() == reader.package()


@pytest.mark.deno
@pytest.mark.long
@SLOW
def test_osls_packages_what_its_readme_says(
    tmp_path: Path, layers: Path, stand_in: dict[str, str]
) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    installed = install(DEPLOY / "serverless", limit_s=300)
    reader = Reader(tmp_path, **stand_in)
    reader.has_layers(layers)
    link = f"ln -s {installed}/node_modules node_modules"
    reader.follow("serverless", {"npm ci": link})
    path = reader.shop / "serverless/.serverless"
    path /= "cloudformation-template-update-stack.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    del template["Resources"]["ServerlessDeploymentBucketPolicy"]  # denies `s3:*`
    function = check(template, PUBLIC)
    assert function["Architectures"] == ["x86_64"]
    assert function["FunctionName"] == "shop-dev-orders"
    # W3005: a dependency that CloudFormation would find by itself. W8003: the condition
    # compares a parameter of the framework, by now two constants.
    lint(path, tmp_path, "--ignore-checks", "W3005", "W8003")
    package = reader.package()
    assert (reader.shop / "dist/orders.zip").read_bytes() == package
    [version] = [
        resource["Properties"]["CodeSha256"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Version"
    ]
    assert version == digest(package)


class Terraform:
    """Terraform with a stand-in for the aws provider; it asks for no newer version."""

    def __init__(self, program: str, folder: Path, provider: str) -> None:
        self.program = program
        settings = folder / "terraform.rc"
        settings.write_text("disable_checkpoint = true\n", encoding="utf-8")
        self.environ = {
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "TF_CLI_ARGS": "-no-color",
            "TF_REATTACH_PROVIDERS": provider,
        }

    def run(self, folder: Path, *command: str) -> str:
        """Run one command in a folder; return what it printed."""
        words: list[str | Path] = [self.program, f"-chdir={folder}", *command]
        return run(words, folder, DEPLOY, 250, **self.environ)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """What makes Terraform use the stand-in for the aws provider."""
    python = environment("grpc", "grpcio==1.85.3") / "bin/python"
    with subprocess.Popen(
        [python, PROVIDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline()


@pytest.fixture
def terraform(request: pytest.FixtureRequest, tmp_path: Path) -> Terraform:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("needs terraform")
    return Terraform(program, tmp_path, request.getfixturevalue("provider"))


# The plan of what the README has made, without an account.
PLANNED = """
mock_provider "aws" {}

run "plan" {
  command = plan
}
"""


@pytest.mark.long
@pytest.mark.deno
def test_terraform_accepts_what_its_readme_says(
    tmp_path: Path, layers: Path, terraform: Terraform
) -> None:
    reader = Reader(tmp_path, **terraform.environ)
    reader.has_layers(layers)
    reader.follow("terraform", {})
    folder = reader.shop / "terraform"
    (folder / "plan.tftest.hcl").write_text(PLANNED, encoding="utf-8")
    printed = terraform.run(folder, "test", "-json", "-verbose")
    [plan] = [
        line["test_plan"]
        for line in map(json.loads, printed.splitlines())
        if line["type"] == "test_plan"
    ]
    planned = {
        change["address"]: change["change"]["after"]
        for change in plan["resource_changes"]
    }
    function = planned["module.orders.aws_lambda_function.function"]
    assert function["source_code_hash"] == digest(reader.package())
    assert function["filename"] == "../dist/orders.zip"
    assert (function["handler"], function["runtime"]) == (
        "function.handler",
        "python3.13",
    )
    for kind in ("deno", "runtime"):
        layer = planned[f'module.layers.aws_lambda_layer_version.layer["{kind}"]']
        zipped = (reader.shop / f"dist/{kind}-layer-x86_64.zip").read_bytes()
        assert layer["source_code_hash"] == digest(zipped)
    # A resource or an attribute that does not exist would be found.
    module = folder / "modules/deno-function/main.tf"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace("memory_size ", "memory_sise "), encoding="utf-8")
    with pytest.raises(AssertionError, match='argument named "memory_sise"'):
        terraform.run(folder, "validate")


@pytest.mark.cases(1)
@pytest.mark.parametrize("module", ["deno-function", "deno-layers"])
def test_terraform_modules_pass_their_own_tests(
    module: str, tmp_path: Path, terraform: Terraform
) -> None:
    folder = tmp_path / module
    shutil.copytree(DEPLOY / "terraform/modules" / module, folder)
    terraform.run(folder, "init")
    assert "0 failed" in terraform.run(folder, "test")


# ARNs of what the same configuration makes are not known while Terraform plans.
WITH_QUEUES = """
resource "aws_sqs_queue" "orders" {}
resource "aws_sqs_queue" "failed" {}

module "orders" {
  source      = "./deno-function"
  name        = "orders"
  package     = "main.tf"
  layers      = ["first", "second"]
  tracing     = "Active"
  events      = { orders = { arn = aws_sqs_queue.orders.arn } }
  dead_letter = { arn = aws_sqs_queue.failed.arn }
}
"""


def test_terraform_plans_with_what_is_made_at_the_same_time(
    tmp_path: Path, terraform: Terraform
) -> None:
    module = DEPLOY / "terraform/modules/deno-function"
    shutil.copytree(module, tmp_path / "deno-function")
    (tmp_path / "main.tf").write_text(WITH_QUEUES, encoding="utf-8")
    (tmp_path / "plan.tftest.hcl").write_text(PLANNED, encoding="utf-8")
    terraform.run(tmp_path, "init")
    assert "1 passed, 0 failed" in terraform.run(tmp_path, "test")


def test_terraform_files_are_formatted(terraform: Terraform) -> None:
    terraform.run(DEPLOY / "terraform", "fmt", "-check", "-diff", "-recursive")


@pytest.mark.parametrize("module", ["deno-function", "deno-layers"])
def test_the_readme_of_terraform_has_each_variable(module: str) -> None:
    readme = (DEPLOY / "terraform/README.md").read_text(encoding="utf-8")
    section = readme.split(f"## Variables of {module}")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` +\| (.+?) +\|", section, re.MULTILINE)
    files = DEPLOY / "terraform/modules" / module
    text = (files / "variables.tf").read_text(encoding="utf-8")
    variables = re.findall(
        r'^variable "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL
    )
    defaults = {
        name: re.search(r"^  default += (.+)$", body, re.MULTILINE)
        for name, body in variables
    }
    assert dict(documented) == {
        name: f"`{default[1]}`" if default else "needed"
        for name, default in defaults.items()
    }
    used = "".join(path.read_text(encoding="utf-8") for path in files.glob("*.tf"))
    for name in defaults:
        assert f"var.{name}" in used, name
