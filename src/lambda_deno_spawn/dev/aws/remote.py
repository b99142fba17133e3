"""One invocation in AWS: takes an event, returns the response and the end of the log.

Knows the size limits of an event, how long a response may take, and what Lambda sends
with it. Does not know how the result is printed. An invocation is never retried,
because it may have run. Specification: Lambda API reference, Invoke; AWS "Lambda
quotas".
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Call
from lambda_deno_spawn.dev.project.quotas import (
    ASYNC_EVENT_LIMIT_BYTES,
    EVENT_LIMIT_BYTES,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.session import Aws

# Added to the function's timeout: the init phase, of up to 10 s and repeated after a
# failure, and the time to reach Lambda.
READ_MARGIN_S = 30


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """The function to invoke, and how to invoke it.

    Attributes:
        name: Name or ARN, with or without a qualifier.
        event: Passed on byte for byte.
        qualifier: Version or alias.
        client_context: JSON text.
        reads_for_s: How long the response may take; None: as long as the function may
            run.
    """

    name: str
    event: bytes
    qualifier: str | None = None
    is_async: bool = False
    tenant_id: str | None = None
    client_context: str | None = None
    reads_for_s: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """How an invocation ended.

    Attributes:
        status: HTTP status: 200: the function ran; 202: the event is queued.
        error_kind: ``Handled`` or ``Unhandled``; None if the function succeeded.
        log_tail: The last 4 KB of the log.
        version: The version that ran.
    """

    request_id: str
    status: int
    payload: bytes
    error_kind: str | None
    log_tail: bytes
    version: str | None

    @property
    def is_ok(self) -> bool:
        """True if the function succeeded, or the event is queued."""
        return self.error_kind is None


def invoke(aws: Aws, options: RemoteOptions) -> RemoteResult:
    """Invoke a function once.

    Raises:
        UsageError: Lambda does not accept the event or the options.
        DeployError: The function did not run, or its response was lost.
    """
    _check(options)
    reads_for_s = options.reads_for_s
    if reads_for_s is None:
        is_waited_for = not options.is_async
        timeout_s = _timeout_s(aws, options) if is_waited_for else 0
        reads_for_s = timeout_s + READ_MARGIN_S
    call = Call("lambda", "Invoke", _arn(aws, options.name), _parameters(options))
    try:
        response = aws.call(call, reads_for_s=reads_for_s)
    except AwsError as error:
        if not error.may_be_done:
            raise _explained(error, options, aws.region) from error
        may = "may run" if options.is_async else "may have run"
        raise DeployError(f"{error}; the function {may} anyway") from error
    return RemoteResult(
        request_id=response["ResponseMetadata"].get("RequestId", ""),
        status=response["StatusCode"],
        payload=response.get("Payload") or b"",
        error_kind=response.get("FunctionError"),
        log_tail=base64.b64decode(response.get("LogResult") or ""),
        version=response.get("ExecutedVersion"),
    )


def _check(options: RemoteOptions) -> None:
    if options.is_async and options.client_context is not None:
        raise UsageError(
            "Cannot use --client-context with --async: Lambda passes it to synchronous "
            "invocations only; move it into the event, or leave out one of them"
        )
    limit = ASYNC_EVENT_LIMIT_BYTES if options.is_async else EVENT_LIMIT_BYTES
    if len(options.event) > limit:
        kind = "asynchronous " if options.is_async else ""
        raise UsageError(
            f"Cannot send the event: it has {len(options.event)} bytes, and Lambda "
            f"accepts {limit} for an {kind}invocation; store the data elsewhere and "
            "send its address"
        )


def _parameters(options: RemoteOptions) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "FunctionName": options.name,
        "InvocationType": "Event" if options.is_async else "RequestResponse",
        "Payload": options.event,
    }
    if not options.is_async:
        parameters["LogType"] = "Tail"
    if options.qualifier is not None:
        parameters["Qualifier"] = options.qualifier
    if options.tenant_id is not None:
        parameters["TenantId"] = options.tenant_id
    if options.client_context is not None:
        encoded = base64.b64encode(options.client_context.encode())
        parameters["ClientContext"] = encoded.decode()
    return parameters


def _arn(aws: Aws, name: str) -> str:
    """Return the ARN for messages, without a call to learn the account."""
    if name.startswith("arn:"):
        return name
    if ":function:" in name:  # ACCOUNT:function:NAME
        return f"arn:{aws.partition}:lambda:{aws.region}:{name}"
    return f"arn:{aws.partition}:lambda:{aws.region}:*:function:{name}"


def _timeout_s(aws: Aws, options: RemoteOptions) -> int:
    """Return the function's timeout; the longest possible if reading it is denied."""
    parameters = {"FunctionName": options.name}
    if options.qualifier is not None:
        parameters["Qualifier"] = options.qualifier
    arn = _arn(aws, options.name)
    try:
        response = aws.call(Call("lambda", "GetFunctionConfiguration", arn, parameters))
    except AwsError as error:
        if error.is_denied:
            return TIMEOUT_LIMIT_S
        raise _explained(error, options, aws.region) from error
    return int(response.get("Timeout") or TIMEOUT_LIMIT_S)


def _explained(error: AwsError, options: RemoteOptions, region: str) -> DeployError:
    """Return an error that names the function, if Lambda does not find it."""
    if not error.is_not_found:
        return error
    what = options.name
    if options.qualifier is not None:
        what = f"{what}:{options.qualifier}"
    return DeployError(
        f"Cannot invoke {what!r}: there is no such function, version or alias in "
        f"{region}; deploy it first, or check --region and --profile"
    )
