"""A construct that builds a function for Deno, and what it needs, during synthesis."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

COMMAND = "lambda-deno-spawn"
KINDS = ("deno", "runtime")


class DenoFunction(lambda_.Function):
    """A function that runs on Deno with a new process for each event.

    ``lambda-deno-spawn`` has to be on PATH: it builds the package and, once for each
    stack and architecture, the layers. Both are reproducible, so nothing is uploaded
    again unless it changed.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        entry: Path | str,
        handler: str | None = None,
        architecture: lambda_.Architecture = lambda_.Architecture.X86_64,
        layers: list[lambda_.ILayerVersion] | None = None,
        environment: Mapping[str, str] | None = None,
        policies: Mapping[str, iam.PolicyDocument] | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.TWO_WEEKS,
        **options: Any,
    ) -> None:
        """Build the package and add the function.

        Args:
            scope: Stack or construct that the function belongs to.
            construct_id: Its name in there.
            entry: Folder of the function, or the file with the handler.
            handler: FILE.EXPORT; None: found by the file's name.
            architecture: Instruction set of the function.
            layers: The deno and the runtime layer, if they are published already, and
                any others; None: the two are built here.
            environment: Variables of the function.
            policies: What the function may do beside writing its log, by name.
            log_retention: How long the log is kept.
            options: Anything else that a function accepts.
        """
        package = build(entry, architecture, handler)
        log_group = logs.LogGroup(
            scope,
            f"{construct_id}Logs",
            retention=log_retention,
            removal_policy=RemovalPolicy.DESTROY,
        )
        write = iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            # The ARN ends in ":*", which matches the streams of this log group. Their
            # names contain the date, the version and a random part, so they cannot be
            # listed.
            resources=[log_group.log_group_arn],
        )
        # Without a role CDK attaches AWSLambdaBasicExecutionRole, which may create and
        # write every log group in the account.
        role = iam.Role(
            scope,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={
                "logs": iam.PolicyDocument(statements=[write]),
                **(policies or {}),
            },
        )
        super().__init__(
            scope,
            construct_id,
            **{"logging_format": lambda_.LoggingFormat.JSON, **options},
            code=lambda_.Code.from_asset(package["path"]),
            # Managed Python provides the interpreter; the wrapper starts the supervisor
            # in place of AWS's Python runtime.
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler=package["handler"],
            architecture=architecture,
            layers=own_layers(scope, architecture) if layers is None else layers,
            environment={
                **(environment or {}),
                "AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn",
            },
            role=role,
            log_group=log_group,
        )

    def read_queue(self, construct_id: str, queue: sqs.IQueue) -> None:
        """Have Lambda read a queue for the function, which returns batchItemFailures.

        Unlike ``SqsEventSource``, it grants no more than the three actions of reading.
        """
        actions = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"]
        statement = iam.PolicyStatement(
            actions=[f"sqs:{action}" for action in actions],
            resources=[queue.queue_arn],
        )
        self.add_to_role_policy(statement)
        self.add_event_source_mapping(
            construct_id,
            event_source_arn=queue.queue_arn,
            report_batch_item_failures=True,
        )


def build(
    entry: Path | str, architecture: lambda_.Architecture, handler: str | None
) -> dict[str, str]:
    """Build the package of a function; return its path and handler."""
    out = tempfile.mkdtemp(prefix="deno-function-")
    options = ["--arch", architecture.name, "--out", out, "-o", "json"]
    if handler is not None:
        options += ["--handler", handler]
    package: dict[str, str] = json.loads(run("build", str(entry), *options))
    return package


def own_layers(
    scope: Construct, architecture: lambda_.Architecture
) -> list[lambda_.ILayerVersion]:
    """Return the two layers, made once for each stack and architecture."""
    stack = Stack.of(scope)
    names = {kind: f"DenoSpawn-{kind}-{architecture.name}" for kind in KINDS}
    found = [stack.node.try_find_child(name) for name in names.values()]
    if all(isinstance(layer, lambda_.LayerVersion) for layer in found):
        return found
    out = Path(tempfile.mkdtemp(prefix="deno-layers-"))
    options = ["--arch", architecture.name, "--python", "3.13", "--out", str(out)]
    run("layer", "build", *options)
    return [
        lambda_.LayerVersion(
            stack,
            name,
            code=lambda_.Code.from_asset(
                str(out / f"{kind}-layer-{architecture.name}.zip")
            ),
            compatible_architectures=[architecture],
        )
        for kind, name in names.items()
    ]


def run(*arguments: str) -> str:
    """Run the command; what it says goes to stderr, where ``cdk`` shows it."""
    done = subprocess.run(
        [COMMAND, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
