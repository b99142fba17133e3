"""The URL of a function in AWS: where it is, and whether calls are signed.

Knows the call that tells it. Does not know HTTP. Specification: Lambda API reference,
GetFunctionUrlConfig; Lambda Developer Guide, "Control access to Lambda function URLs".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.aws.plan import Call
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.session import Aws


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """The URL of a function.

    Attributes:
        url: Without a slash at its end.
        is_signed: Calls need a signature: its AuthType is AWS_IAM.
        is_streamed: Its InvokeMode is RESPONSE_STREAM.
    """

    url: str
    is_signed: bool
    is_streamed: bool


def find_url(aws: Aws, name: str, qualifier: str | None = None) -> FunctionUrl:
    """Return the URL of a function.

    Args:
        aws: Region and credentials.
        name: Name or ARN of the function.
        qualifier: The alias whose URL is wanted.

    Raises:
        DeployError: The function has no URL, or does not exist.
    """
    parameters = {"FunctionName": name}
    if qualifier is not None:
        parameters["Qualifier"] = qualifier
    arn = (
        name
        if name.startswith("arn:")
        else f"arn:{aws.partition}:lambda:{aws.region}:*:function:{name}"
    )
    found = aws.find(Call("lambda", "GetFunctionUrlConfig", arn, parameters))
    if found is None:
        what = name if qualifier is None else f"{name}:{qualifier}"
        raise DeployError(
            f"Cannot call {what!r}: in {aws.region} there is no such function, or it "
            "has no function URL; create one in AWS, or use `invoke --remote`, which "
            "needs none"
        )
    return FunctionUrl(
        url=str(found["FunctionUrl"]).rstrip("/"),
        is_signed=found.get("AuthType") == "AWS_IAM",
        is_streamed=found.get("InvokeMode") == "RESPONSE_STREAM",
    )
