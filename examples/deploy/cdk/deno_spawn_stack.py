"""hono-api behind a function URL, sqs-batch behind a queue."""

from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

ARCHITECTURES = {
    "x86_64": lambda_.Architecture.X86_64,
    "arm64": lambda_.Architecture.ARM_64,
}
TIMEOUT = Duration.seconds(10)


class DenoSpawnStack(Stack):
    """Two functions, the layers they share, and the queue that feeds one of them."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        architecture: str,
        url_auth: str,
        dist: Path,
        **kwargs: Any,
    ) -> None:
        """Create the stack from the layers and packages in the folder ``dist``."""
        super().__init__(scope, construct_id, **kwargs)
        self.dist = dist
        self.architecture = ARCHITECTURES[architecture]
        self.layers = [
            lambda_.LayerVersion(
                self,
                f"{kind.capitalize()}Layer",
                layer_version_name=f"lambda-deno-spawn-{kind}-{architecture}",
                code=lambda_.Code.from_asset(
                    str(dist / f"{kind}-layer-{architecture}.zip")
                ),
                compatible_architectures=[self.architecture],
            )
            for kind in ("deno", "runtime")
        ]

        api = self.function("HonoApi", "hono-api")
        # For NONE, CDK adds the two permissions that make the URL public.
        url = api.add_function_url(auth_type=lambda_.FunctionUrlAuthType[url_auth])

        failed = sqs.Queue(
            self,
            "PaymentsFailed",
            retention_period=Duration.days(14),  # the longest
            removal_policy=RemovalPolicy.DESTROY,
        )
        queue = sqs.Queue(
            self,
            "Payments",
            # Long enough that a batch which waits for a free function is not
            # delivered a second time meanwhile.
            visibility_timeout=Duration.seconds(6 * TIMEOUT.to_seconds()),
            # AWS advises five or more, because a throttled call counts too.
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=5),
            removal_policy=RemovalPolicy.DESTROY,
        )
        receive = iam.PolicyStatement(
            actions=[
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
            ],
            resources=[queue.queue_arn],
        )
        batch = self.function("SqsBatch", "sqs-batch", queue=receive)
        # Not SqsEventSource, which grants two more actions than polling needs.
        lambda_.EventSourceMapping(
            self,
            "PaymentsMapping",
            target=batch,
            event_source_arn=queue.queue_arn,
            batch_size=10,
            report_batch_item_failures=True,
        )

        CfnOutput(self, "Url", value=url.url)
        CfnOutput(self, "QueueUrl", value=queue.queue_url)
        CfnOutput(self, "FailedQueueUrl", value=failed.queue_url)

    def function(
        self, construct_id: str, name: str, **allowed: iam.PolicyStatement
    ) -> lambda_.Function:
        """Add the example called ``name`` with a log group and a role of its own."""
        log_group = logs.LogGroup(
            self,
            f"{construct_id}Logs",
            log_group_name=f"/aws/lambda/{self.stack_name}-{name}",
            retention=logs.RetentionDays.TWO_WEEKS,
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
            self,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={
                policy: iam.PolicyDocument(statements=[statement])
                for policy, statement in {"logs": write, **allowed}.items()
            },
        )
        return lambda_.Function(
            self,
            construct_id,
            function_name=f"{self.stack_name}-{name}",
            code=lambda_.Code.from_asset(str(self.dist / f"{name}.zip")),
            # Managed Python provides the interpreter; the wrapper starts the supervisor
            # in place of AWS's Python runtime.
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler="function.handler",
            architecture=self.architecture,
            layers=self.layers,
            memory_size=512,
            timeout=TIMEOUT,
            environment={"AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn"},
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
        )
