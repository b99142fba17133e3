"""Create the stack; options: ``-c architecture=arm64``, ``-c urlAuth=NONE``."""

from pathlib import Path

import aws_cdk as cdk
from deno_spawn_stack import DenoSpawnStack

DIST = Path(__file__).resolve().parents[3] / "dist"

app = cdk.App()
DenoSpawnStack(
    app,
    "DenoSpawnExamples",
    architecture=app.node.try_get_context("architecture") or "x86_64",
    url_auth=app.node.try_get_context("urlAuth") or "AWS_IAM",
    dist=Path(app.node.try_get_context("dist") or DIST),
)
app.synth()
