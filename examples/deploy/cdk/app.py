"""A stack with your function.

Options: ``-c architecture=arm64``, ``-c urlAuth=NONE``.
"""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from deno_function import DenoFunction

HERE = Path(__file__).resolve().parent
ARCHITECTURES = {
    "x86_64": lambda_.Architecture.X86_64,
    "arm64": lambda_.Architecture.ARM_64,
}

app = cdk.App()
stack = cdk.Stack(app, "Shop")

# Your function here: its folder, or the file with the handler.
orders = DenoFunction(
    stack,
    "Orders",
    entry=HERE.parent / "orders",
    architecture=ARCHITECTURES[app.node.try_get_context("architecture") or "x86_64"],
    memory_size=512,
    timeout=cdk.Duration.seconds(10),
)

# For NONE, CDK adds the two permissions that make the URL public.
auth = app.node.try_get_context("urlAuth") or "AWS_IAM"
url = orders.add_function_url(auth_type=lambda_.FunctionUrlAuthType[auth])
cdk.CfnOutput(stack, "Url", value=url.url)

app.synth()
