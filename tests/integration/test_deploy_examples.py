"""The stacks of ``examples/deploy`` are valid, alike, and allow only what is needed.

What a tool checks is left to the tool, where it is installed; without, the files are
read as text. Nothing here needs an account or a network.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOY = EXAMPLES / "deploy"
SOURCES = {
    "sam": [DEPLOY / "sam/template.yaml"],
    "cdk": [DEPLOY / "cdk/app.py", DEPLOY / "cdk/deno_spawn_stack.py"],
    "terraform": sorted((DEPLOY / "terraform").glob("*.tf")),
    "serverless": [DEPLOY / "serverless/serverless.yml"],
}
FUNCTIONS = ("hono-api", "sqs-batch")
ARCHITECTURES = ("x86_64", "arm64")
LAYERS = ("deno", "runtime")
# How the tools write a part of a name that is known later.
PLACEHOLDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "sam": {},
    "cdk": {"{kind}": LAYERS, "{architecture}": ARCHITECTURES, "{name}": FUNCTIONS},
    "terraform": {"${var.architecture}": ARCHITECTURES, "${each.key}": FUNCTIONS},
    "serverless": {"${param:architecture}": ARCHITECTURES},
}
WANTED = {
    "handler": "function.handler",
    "runtime": "python3.13",
    "wrapper": "/opt/lambda-deno-spawn",
    "memory": 512,
    "timeout": 10,
    "architecture": "x86_64",
    "url auth": "AWS_IAM",
    "log format": "JSON",
    "retention": 14,
    "visibility timeout": 60,
    "receive count": 5,
    "response type": "ReportBatchItemFailures",
}
ALLOWED = {
    "sts:AssumeRole",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
}
PUBLIC = {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
# The ARN by which IAM knows one log group with its streams. CloudFormation's attribute
# Arn has the same end, Terraform's has not.
STREAMS = re.compile(r"\$\{aws_cloudwatch_log_group\.\w+(\[each\.key\])?\.arn\}:\*")

every_tool = pytest.mark.parametrize("tool", SOURCES)


def source(tool: str) -> str:
    """Return the text of a tool's files."""
    return "\n".join(path.read_text(encoding="utf-8") for path in SOURCES[tool])


def load(text: str) -> Any:
    """Parse YAML with CloudFormation's short tags."""
    # Not before a test needs it: it takes 0.4 s, in each process that collects tests.
    from cfnlint.decode import cfn_yaml

    return cfn_yaml.loads(text)


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


def yaml_policies(text: str) -> list[tuple[str, list[str]]]:
    template = load(text)
    found = template_policies(template)
    for resource in template.get("Resources", {}).values():
        # A function's own Policies: SAM makes a role from them, around the given one.
        if "Policies" in resource["Properties"] and "Serverless" in resource["Type"]:
            found.append(("ManagedPolicies", ["Policies of a function"]))
    return found


def python_policies(text: str) -> list[tuple[str, list[str]]]:
    names = {
        "actions": "Action",
        "not_actions": "NotAction",
        "resources": "Resource",
        "not_resources": "NotResource",
        "managed_policies": "ManagedPolicies",
    }
    return [
        (names[node.arg], literals(node.value))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.keyword) and node.arg in names
    ]


def literals(node: ast.AST) -> list[str]:
    """Return the strings in an expression."""
    inner = (item.value for item in ast.walk(node) if isinstance(item, ast.Constant))
    return [value for value in inner if isinstance(value, str)]


def terraform_policies(text: str) -> list[tuple[str, list[str]]]:
    text = re.sub(r"(?m)^\s*#.*", "", text)
    found = [
        (
            match[1].capitalize().rstrip("s"),
            re.findall(r'"((?:\\.|[^"\\])*)"', match[2]),
        )
        for match in re.finditer(
            r"(?i)\b((?:not_?)?(?:action|resource)s?)\s*[=:]\s*(\[(?:\"[^\"]*\"|[^]\"])*]|.+)",
            text,
        )
    ]
    attached = re.findall(r"managed_policy_arns|aws_iam\w*policy_attachment", text)
    return found + [("ManagedPolicies", attached)] * bool(attached)


POLICIES: dict[str, Callable[[str], list[tuple[str, list[str]]]]] = {
    "sam": yaml_policies,
    "cdk": python_policies,
    "terraform": terraform_policies,
    "serverless": yaml_policies,
}


def excesses(policies: Iterable[tuple[str, list[str]]]) -> list[str]:
    """Return wildcards, exclusions and managed policies."""
    return [
        f"{key}: {value}"
        for key, values in policies
        for value in values
        if key.startswith(("Not", "Managed"))
        or ("*" in value and not STREAMS.fullmatch(value))
    ]


def actions(policies: Iterable[tuple[str, list[str]]]) -> set[str]:
    return {value for key, values in policies if key == "Action" for value in values}


@every_tool
def test_policies_have_no_wildcard(tool: str) -> None:
    policies = POLICIES[tool](source(tool))
    assert excesses(policies) == []
    # CDK writes trust in a role, and a public URL, by itself.
    assert actions(policies) | {"sts:AssumeRole"} | PUBLIC == ALLOWED | PUBLIC


@pytest.mark.parametrize(
    ("tool", "good", "bad", "found"),
    [
        ("sam", "logs:PutLogEvents", "'logs:*'", "Action: logs:*"),
        ("sam", "!GetAtt Payments.Arn", "'*'", "Resource: *"),
        ("sam", "!GetAtt HonoApiLogs.Arn", "!Sub 'arn:${A}:*'", "Resource: arn:${A}:*"),
        ("serverless", "logs:PutLogEvents", "'logs:*'", "Action: logs:*"),
        (
            "serverless",
            "Resource: !GetAtt Payments.Arn",
            "Resource: ['*']",
            "Resource: *",
        ),
        ("serverless", "Action: sts:", "NotAction: sts:", "NotAction: sts:AssumeRole"),
        ("cdk", '"sqs:DeleteMessage"', '"sqs:*"', "Action: sqs:*"),
        ("cdk", "queue.queue_arn]", '"*"]', "Resource: *"),
        ("cdk", "inline_policies=", 'managed_policies=["x"], b=', "ManagedPolicies: x"),
        ("terraform", '"sqs:DeleteMessage"', '"sqs:*"', "Action: sqs:*"),
        ("terraform", "aws_sqs_queue.payments.arn]", '"*"]', "Resource: *"),
        ("terraform", '"${aws_cloudwatch', '"x${aws_cloudwatch', "Resource: x${"),
        ("terraform", "data ", 'x = jsonencode({ Action = "*" })\ndata ', "Action: *"),
        ("terraform", 'y" "logs"', 'y_attachment" "logs"', "ManagedPolicies: aws_iam"),
    ],
)
def test_a_wildcard_would_be_found(tool: str, good: str, bad: str, found: str) -> None:
    text = source(tool)
    assert good in text
    flagged = excesses(POLICIES[tool](text.replace(good, bad)))
    assert any(excess.startswith(found) for excess in flagged), flagged


@every_tool
def test_a_role_trusts_lambda_alone(tool: str) -> None:
    text = source(tool)
    if tool in ("sam", "serverless"):
        trusts = [value for key, value in nodes(load(text)) if "AssumeRole" in key]
        assert len(trusts) == len(FUNCTIONS)
        for statement in itertools.chain(*(trust["Statement"] for trust in trusts)):
            assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    else:
        assert text.count('"lambda.amazonaws.com"') == 1


def sam_facts(text: str) -> dict[str, object]:
    template = load(text)
    shared = template["Globals"]["Function"]
    assert shared["Architectures"] == [{"Ref": "Architecture"}]
    return {
        **yaml_facts(template["Resources"]),
        "handler": shared["Handler"],
        "runtime": shared["Runtime"],
        "wrapper": shared["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"],
        "memory": shared["MemorySize"],
        "timeout": shared["Timeout"],
        "architecture": template["Parameters"]["Architecture"]["Default"],
        "url auth": template["Parameters"]["UrlAuth"]["Default"],
        "response type": only(template, "FunctionResponseTypes")[0],
        "log format": only(template, "LogFormat"),
    }


def serverless_facts(text: str) -> dict[str, object]:
    config = load(text)
    provider, parameters = config["provider"], config["params"]["default"]
    assert provider["architecture"] == "${param:architecture}"
    return {
        **yaml_facts(config["resources"]["Resources"]),
        "handler": only(config["functions"], "handler"),
        "runtime": provider["runtime"],
        "wrapper": provider["environment"]["AWS_LAMBDA_EXEC_WRAPPER"],
        "memory": provider["memorySize"],
        "timeout": provider["timeout"],
        "architecture": parameters["architecture"],
        "url auth": parameters["urlAuth"],
        "response type": only(config, "functionResponseType"),
        "log format": only(config, "LogFormat"),
    }


def yaml_facts(resources: Any) -> dict[str, object]:
    return {
        "retention": only(resources, "RetentionInDays"),
        "visibility timeout": only(resources, "VisibilityTimeout"),
        "receive count": only(resources, "maxReceiveCount"),
    }


def only(tree: Any, wanted: str) -> Any:
    """Return the one value that a key has wherever it occurs."""
    values = [value for key, value in nodes(tree) if key == wanted]
    assert values, wanted
    assert all(value == values[0] for value in values), (wanted, values)
    return values[0]


def terraform_facts(text: str) -> dict[str, object]:
    def value(name: str) -> Any:
        (found,) = set(re.findall(rf"(?m)^ *{name} += (.+)$", text))
        return json.loads(found)

    def default(name: str) -> object:
        block = text.split(f'variable "{name}" {{')[1].split("\n}")[0]
        return json.loads(re.findall(r"(?m)^  default += (.+)$", block)[0])

    assert "architectures = [var.architecture]" in text
    assert "authorization_type = var.url_auth" in text
    timeout = value("timeout(?= +=  *\\d)")
    (factor,) = re.findall(
        r"visibility_timeout_seconds += (\d+) \* local.timeout", text
    )
    return {
        "handler": value("handler"),
        "runtime": value("runtime"),
        "wrapper": value("AWS_LAMBDA_EXEC_WRAPPER"),
        "memory": value("memory_size"),
        "timeout": timeout,
        "architecture": default("architecture"),
        "url auth": default("url_auth"),
        "response type": value("function_response_types")[0],
        "log format": value("log_format"),
        "retention": value("retention_in_days"),
        "visibility timeout": int(factor) * timeout,
        "receive count": value("maxReceiveCount"),
    }


def cdk_facts(text: str) -> dict[str, object]:
    def value(pattern: str) -> Any:
        (found,) = re.findall(pattern, text)
        return found

    version = value(r"runtime=lambda_.Runtime.PYTHON_(\w+)").replace("_", ".")
    timeout = int(value(r"TIMEOUT = Duration.seconds\((\d+)\)"))
    assert "timeout=TIMEOUT" in text
    assert "architecture=self.architecture" in text
    factor = int(value(r"visibility_timeout=Duration.seconds\((\d+) \* TIMEOUT"))
    assert "report_batch_item_failures=True" in text
    assert "retention=logs.RetentionDays.TWO_WEEKS" in text
    return {
        "handler": value(r'handler="(.+)"'),
        "runtime": f"python{version}",
        "wrapper": value(r'"AWS_LAMBDA_EXEC_WRAPPER": "(.+)"'),
        "memory": int(value(r"memory_size=(\d+)")),
        "timeout": timeout,
        "architecture": value(r'"architecture"\) or "(.+)"'),
        "url auth": value(r'"urlAuth"\) or "(.+)"'),
        "response type": "ReportBatchItemFailures",
        "log format": value(r"logging_format=lambda_.LoggingFormat.(\w+)"),
        "retention": 14,
        "visibility timeout": factor * timeout,
        "receive count": int(value(r"max_receive_count=(\d+)")),
    }


@every_tool
def test_all_four_deploy_the_same(tool: str) -> None:
    facts: dict[str, Callable[[str], dict[str, object]]] = {
        "sam": sam_facts,
        "cdk": cdk_facts,
        "terraform": terraform_facts,
        "serverless": serverless_facts,
    }
    assert facts[tool](source(tool)) == WANTED


def expanded(tool: str, pattern: str) -> set[str]:
    """Return the names that match, with each value that a placeholder may have."""
    names = set(re.findall(pattern, source(tool)))
    for placeholder, values in PLACEHOLDERS[tool].items():
        names = {name.replace(placeholder, value) for name in names for value in values}
    return names


@every_tool
def test_all_four_take_the_packages_that_the_commands_write(tool: str) -> None:
    layers = set(itertools.product(LAYERS, ARCHITECTURES))
    assert expanded(tool, r"[\w${}:.-]+\.zip") == {
        *(f"{kind}-layer-{architecture}.zip" for kind, architecture in layers),
        *(f"{name}.zip" for name in FUNCTIONS),
    }
    # After a slash it is the wrapper.
    assert expanded(tool, r'(?<!/)lambda-deno-spawn-[^ "\n]+') == {
        f"lambda-deno-spawn-{kind}-{architecture}" for kind, architecture in layers
    }
    for name in FUNCTIONS:
        assert (EXAMPLES / name / "function.ts").exists(), "the handler's file"


@pytest.mark.parametrize("tool", ["sam", "serverless"])
def test_files_are_looked_for_in_dist_at_the_root(tool: str) -> None:
    (path,) = SOURCES[tool]
    files = re.findall(r"\S+\.zip", source(tool))
    roots = {(path.parent / file).resolve().parent for file in files}
    assert roots == {EXAMPLES.parent / "dist"}


def test_cfn_lint_accepts_the_sam_template(tmp_path: Path) -> None:
    lint(DEPLOY / "sam/template.yaml", tmp_path)
    misspelt = tmp_path / "template.yaml"
    text = source("sam").replace("MemorySize:", "MemorySise:")
    misspelt.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="'MemorySise' was unexpected"):
        lint(misspelt, tmp_path)


@pytest.mark.parametrize("url_auth", ["AWS_IAM", "NONE"])
def test_sam_adds_no_policy_of_its_own(url_auth: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("samtranslator") is None:
        pytest.skip("needs aws-sam-translator")
    from samtranslator.parser.parser import (  # type: ignore[import-not-found,unused-ignore]
        Parser,
    )
    from samtranslator.translator.translator import (  # type: ignore[import-not-found,unused-ignore]
        Translator,
    )

    text = source("sam").replace("../../../dist/", "s3://bucket/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        plain = json.loads(json.dumps(load(text)))
        template = Translator({}, Parser()).translate(plain, {"UrlAuth": url_auth})
    assert not any("Serverless" in kind for kind in kinds(template["Resources"]))
    assert kinds(template["Resources"]).count("AWS::IAM::Role") == len(FUNCTIONS)
    policies = template_policies(template)
    assert excesses(policies) == []
    assert actions(policies) == ALLOWED | PUBLIC
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    lint(path, tmp_path)


def kinds(resources: dict[str, Any]) -> list[str]:
    return [resource["Type"] for resource in resources.values()]


def test_serverless_refers_to_what_is_there(tmp_path: Path) -> None:
    text = source("serverless")
    for placeholder, value in {
        "${param:architecture}": "arm64",
        "${param:urlAuth}": "AWS_IAM",
        "${self:service}": "service",
        "${sls:stage}": "dev",
    }.items():
        text = text.replace(placeholder, value)
    config = json.loads(json.dumps(load(text)))
    assert re.findall(r"\$\{(?!AWS::)[^}]*\}", text) == [
        "${opt:region, env:AWS_REGION}"
    ]
    assert config["provider"]["name"] == "aws"
    # What the framework makes of functions and layers, as far as names go.
    resources = config["resources"]["Resources"]
    code = {"S3Bucket": "bucket", "S3Key": "key.zip"}
    for name, layer in config["layers"].items():
        resources[f"{name.capitalize()}LambdaLayer"] = {
            "Type": "AWS::Lambda::LayerVersion",
            "Properties": {"LayerName": layer["name"], "Content": code},
        }
    for name, function in config["functions"].items():
        logical_id = f"{name[0].upper()}{name[1:]}LambdaFunction"
        assert function["disableLogs"] is True
        extension = config["resources"]["extensions"].pop(logical_id)
        resources[logical_id] = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": function["name"],
                "Handler": function["handler"],
                "Layers": function["layers"],
                "Role": {"Fn::GetAtt": [function["role"], "Arn"]},
                "Runtime": config["provider"]["runtime"],
                "Timeout": config["provider"]["timeout"],
                "Code": code,
                **extension["Properties"],
            },
        }
    assert config["resources"]["extensions"] == {}, "every extension has its function"
    assert {"Ref", "Fn::GetAtt"} >= set(config["functions"]["sqsBatch"]["layers"][0])
    template = {
        "Conditions": config["resources"]["Conditions"],
        "Resources": resources,
        "Outputs": config["resources"]["Outputs"],
    }
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    # The condition compares a parameter of the framework, by now two constants.
    lint(path, tmp_path, "--ignore-checks", "W8003")


def terraform(tmp_path: Path, folder: Path, *arguments: str) -> None:
    """Run Terraform, which asks nobody for a newer version of itself."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("needs terraform")
    settings = tmp_path / "terraform.rc"
    settings.write_text("disable_checkpoint = true\n", encoding="utf-8")
    run(
        [program, f"-chdir={folder}", *arguments],
        tmp_path,
        TF_CLI_CONFIG_FILE=str(settings),
        TF_DATA_DIR=str(tmp_path / "data"),
        TF_IN_AUTOMATION="1",
    )


def test_terraform_files_are_formatted(tmp_path: Path) -> None:
    terraform(tmp_path, DEPLOY / "terraform", "fmt", "-check", "-diff", "-no-color")


def test_terraform_accepts_the_configuration(tmp_path: Path) -> None:
    plugins = os.environ.get("TERRAFORM_PLUGIN_DIR")
    if plugins is None:
        pytest.skip("TERRAFORM_PLUGIN_DIR names no folder with the aws provider")
    folder = tmp_path / "terraform"
    shutil.copytree(
        DEPLOY / "terraform", folder, ignore=shutil.ignore_patterns(".terraform*")
    )
    # Any version knows these resources and arguments. Which one does the right thing
    # with them is not what `validate` tells, so take the one that is there.
    versions = folder / "versions.tf"
    text = versions.read_text(encoding="utf-8")
    relaxed, count = re.subn(r'(?m)^( +version += ).*"$', r'\1">= 5.0"', text)
    assert count == 1
    versions.write_text(relaxed, encoding="utf-8")
    options = ("-no-color", "-input=false", "-backend=false")
    terraform(tmp_path, folder, "init", *options, f"-plugin-dir={plugins}")
    terraform(tmp_path, folder, "validate", "-no-color")


def test_cdk_makes_a_template_without_wildcards(tmp_path: Path) -> None:
    if importlib.util.find_spec("aws_cdk") is None or shutil.which("node") is None:
        pytest.skip("needs aws-cdk-lib and node")
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in (*(f"{kind}-layer-arm64" for kind in LAYERS), *FUNCTIONS):
        with zipfile.ZipFile(dist / f"{name}.zip", "w") as archive:
            archive.writestr(name, "")
    context = {"architecture": "arm64", "urlAuth": "NONE", "dist": str(dist)}
    run(
        [sys.executable, "app.py"],
        tmp_path,
        cwd=DEPLOY / "cdk",
        CDK_OUTDIR=str(tmp_path / "out"),
        CDK_CONTEXT_JSON=json.dumps(context),
        JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION="1",
        JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    path = tmp_path / "out/DenoSpawnExamples.template.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    assert kinds(template["Resources"]).count("AWS::IAM::Role") == len(FUNCTIONS)
    policies = template_policies(template)
    assert excesses(policies) == []
    assert actions(policies) == ALLOWED | PUBLIC
    # CDK writes dependencies down that CloudFormation would find by itself.
    lint(path, tmp_path, "--ignore-checks", "W3005")
