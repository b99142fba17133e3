"""The permissions that a function's role needs for the settings of the function.

Knows the actions that Lambda itself carries out as the role: in the network, for
traces, for events that failed, in file systems, for durable executions. Does not know
how roles are created. Each statement has a name (Sid), by which a later deployment
knows it. Specification: Lambda Developer Guide, "Execution role" and the pages on each
feature; AWS Service Authorization Reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names of all statements that deployments add to a role's policy.
OUR_SIDS = (
    "Network", "NetworkOfLambdaOnly", "Tracing", "DeadLetter", "FileSystem", "Durable",
    "Queues", "Streams", "Tables", "StreamsOfTables", "Parameters", "Secrets",
)  # fmt: skip
NETWORK = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
]


def role_statements(
    settings: Mapping[str, Any], function_arn: str, partition: str
) -> list[dict[str, Any]]:
    """Return the statements of a role's policy that a function's settings need.

    Args:
        settings: Values by the names of the keys that set them, as in Lambda's API.
        function_arn: The function's ARN, without a version.
        partition: The partition of the function.
    """
    found = []
    if settings["vpc.subnets"]:
        # EC2 offers nothing narrower. Lambda uses them before the code runs; the code
        # itself may not: Lambda Developer Guide, "Giving Lambda functions access to
        # resources in an Amazon VPC".
        found.append(_allow("Network", NETWORK, "*"))
        found.append(
            {
                "Sid": "NetworkOfLambdaOnly",
                "Effect": "Deny",
                "Action": NETWORK,
                "Resource": "*",
                "Condition": {"ArnEquals": {"lambda:SourceFunctionArn": function_arn}},
            }
        )
    if settings["tracing"] == "Active":
        actions = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
        found.append(_allow("Tracing", actions, "*"))
    if target := settings["dead_letter"]:
        is_queue = target.split(":")[2] == "sqs"
        action = "sqs:SendMessage" if is_queue else "sns:Publish"
        found.append(_allow("DeadLetter", [action], target))
    if (point := settings["file_system.arn"]) and ":elasticfilesystem:" in point:
        region, account = point.split(":")[3:5]
        actions = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
        every = f"arn:{partition}:elasticfilesystem:{region}:{account}:file-system/*"
        condition = {"StringEquals": {"elasticfilesystem:AccessPointArn": point}}
        found.append({**_allow("FileSystem", actions, every), "Condition": condition})
    if settings["durable.timeout"]:
        actions = [
            "lambda:CheckpointDurableExecution",
            "lambda:GetDurableExecutionState",
        ]
        found.append(_allow("Durable", actions, f"{function_arn}:*"))
    return found


def _allow(sid: str, actions: list[str], resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
