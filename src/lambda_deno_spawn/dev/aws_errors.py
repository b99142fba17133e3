"""AWS's errors: what an exception of boto3 or botocore, or a refusal, means.

Knows the codes and texts of AWS, and turns each into one sentence that says what to do.
Refuses to know how calls are made. Specification: AWS SDK for Python, "Error handling";
Lambda API reference, "Common Error Types"; IAM User Guide, "Troubleshoot access denied
error messages".
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import boto3
import boto3.exceptions
import botocore.exceptions
import botocore.session

from lambda_deno_spawn.dev.plan import statement
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.plan import Call

EXPIRED = {
    "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
}  # fmt: skip
# The signature is looked at once all of a request is there, and is good for 5 minutes.
LATE = {"RequestExpired", "RequestTimeTooSkewed"}
LATE_TEXTS = ("Signature expired", "Signature not yet current")
UNKNOWN_CREDENTIALS = {
    "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId",
    "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature",
    "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    "AuthFailure",
}  # fmt: skip
DENIED = {
    "AccessDenied", "AccessDeniedException", "UnauthorizedOperation",
    "AuthorizationError", "AllAccessDisabled", "403",
}  # fmt: skip
NOT_FOUND = {
    "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "NoSuchKey",
    "NotFound", "404",
}  # fmt: skip
EXISTS = {
    "ResourceAlreadyExistsException",
    "EntityAlreadyExists",
    "BucketAlreadyOwnedByYou",
}
THROTTLED = {
    "TooManyRequestsException", "Throttling", "ThrottlingException", "SlowDown",
    "RequestLimitExceeded", "LimitExceededException", "EC2ThrottledException",
}  # fmt: skip
NO_ROLE = "cannot be assumed by Lambda"
IN_PROGRESS = "in progress"


class AwsError(DeployError):
    """AWS refused a call, or it did not get there.

    Attributes:
        code: AWS's name for it; empty if there was no answer.
        detail: AWS's own text.
    """

    def __init__(self, message: str, *, code: str = "", detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(message)

    @property
    def is_not_found(self) -> bool:
        """True if what was asked for is not there."""
        return self.code in NOT_FOUND

    @property
    def is_denied(self) -> bool:
        """True if these credentials may not do it."""
        return self.code in DENIED

    @property
    def is_there_already(self) -> bool:
        """True if what was to be created exists."""
        return self.code in EXISTS

    @property
    def is_in_progress(self) -> bool:
        """True if something else is being done to it right now."""
        return self.code == "ResourceConflictException" and IN_PROGRESS in self.detail


def translate(
    error: Exception, what: str, call: Call | None = None, region: str = ""
) -> DeployError:
    """Return the sentence that an exception of boto3 or botocore stands for.

    Args:
        error: The exception.
        what: What was tried.
        call: The call, for the IAM statement that it takes.
        region: Where.
    """
    match error:
        case botocore.exceptions.ClientError(response=response):
            return _refusal(response.get("Error", {}), what, call, region)
        case boto3.exceptions.S3UploadFailedError():
            # Its cause is only in its text: s3transfer does not chain it.
            if isinstance(error.__context__, botocore.exceptions.ClientError):
                return translate(error.__context__, what, call, region)
            return _broken_off(what, str(error))
        case botocore.exceptions.NoCredentialsError():
            return AwsError(
                f"Cannot complete {what}: there are no credentials; set AWS_PROFILE, "
                "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use --profile"
            )
        case botocore.exceptions.PartialCredentialsError():
            return AwsError(
                f"Cannot complete {what}: the credentials are incomplete, "
                f"{error.kwargs.get('cred_var')} is missing; set it too"
            )
        case botocore.exceptions.ProfileNotFound():
            names = botocore.session.Session(profile="default").available_profiles
            known = f"there are {', '.join(names)}" if names else "there is none at all"
            return DeployError(
                f"Cannot use the profile {error.kwargs.get('profile')!r}: it is not in "
                f"~/.aws/config or ~/.aws/credentials; {known}"
            )
        case botocore.exceptions.NoRegionError():
            return DeployError(
                "Cannot choose a region: none is given; use --region, or set AWS_REGION"
            )
        case botocore.exceptions.InvalidRegionError():
            return _unknown_region(str(error.kwargs.get("region_name", region)))
        case (
            botocore.exceptions.UnauthorizedSSOTokenError()
            | botocore.exceptions.SSOTokenLoadError()
            | botocore.exceptions.TokenRetrievalError()
            | botocore.exceptions.CredentialRetrievalError()
        ):
            return AwsError(
                f"Cannot complete {what}: the credentials cannot be renewed, {error}; "
                "sign in again with `aws sso login`"
            )
        case botocore.exceptions.EndpointConnectionError():
            if region and _nearest(region) is not None:
                return _unknown_region(region)
            return AwsError(
                f"Cannot complete {what}: nothing answers at "
                f"{error.kwargs.get('endpoint_url')}; check the network, and the proxy "
                "or AWS_ENDPOINT_URL if one is set"
            )
        case botocore.exceptions.WaiterError():
            return _never_came(error, what, call, region)
        case (
            botocore.exceptions.ConnectionError()
            | botocore.exceptions.HTTPClientError()
        ):
            return _broken_off(what, str(error))
    text = f"Cannot complete {what}: {type(error).__name__}, {error}"
    return AwsError(text, detail=str(error))


def _refusal(
    error: Mapping[str, Any], what: str, call: Call | None, region: str
) -> AwsError:
    code = str(error.get("Code", ""))
    detail = " ".join(str(error.get("Message", "")).split())
    if code in EXPIRED or ("security token" in detail and "expired" in detail):
        text = (
            "the credentials have expired; sign in again, for example with "
            "`aws sso login`, or set new ones"
        )
    elif code in LATE or any(part in detail for part in LATE_TEXTS):
        text = (
            "the request came too late for its signature; check this machine's clock, "
            "and send what is large by --bucket if the connection is slow"
        )
    elif code in UNKNOWN_CREDENTIALS:
        text = (
            f"AWS does not accept the credentials ({code}); check "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the "
            f"profile, and that the account uses the region {region}"
        )
    elif code in DENIED:
        text = _denied(detail, call)
    elif code in THROTTLED:
        text = f"AWS takes no more calls right now ({code}); try again in a minute"
    elif NO_ROLE in detail:
        text = (
            "the role cannot be assumed by Lambda; its trust policy has to allow "
            "sts:AssumeRole to the service lambda.amazonaws.com"
        )
    elif code == "CodeStorageExceededException":
        text = (
            f"the region's storage for code and layers is full, {detail}; delete old "
            "versions of functions and layers, or ask AWS for more"
        )
    elif code == "ResourceConflictException" and IN_PROGRESS in detail:
        text = f"something else is changing it, {detail}; try again in a minute"
    else:
        text = f"AWS says {code}, {detail or 'and nothing more'}"
    return AwsError(f"Cannot complete {what}: {text}", code=code, detail=detail)


def _denied(detail: str, call: Call | None) -> str:
    """Say which statement is missing: by AWS's own words, else by the call."""
    named = re.search(
        r"not authorized to perform: ([\w-]+:\w+)(?: on resource: (\S+))?", detail
    )
    action = named[1] if named else call.action if call else ""
    resource = (named[2] if named else None) or (call.resource if call else "")
    resource = resource.rstrip(".,")
    if "explicit deny" in detail:
        return (
            f"a policy denies {action} on {resource}, {detail}; whoever wrote that "
            "policy has to change it"
        )
    if not action:
        return f"these credentials may not do it, {detail}"
    return (
        "these credentials may not do it; add this statement to their policy: "
        f"{statement(action, resource or '*')}"
    )


def _broken_off(what: str, detail: str) -> AwsError:
    return AwsError(
        f"Cannot complete {what}: the connection broke off, {detail}; check the "
        "network, and repeat the command",
        detail=detail,
    )


def _never_came(
    error: botocore.exceptions.WaiterError,
    what: str,
    call: Call | None,
    region: str,
) -> DeployError:
    """Say why a state is not reached, in AWS's words."""
    last = error.last_response or {}
    if refusal := last.get("Error"):
        return _refusal(refusal, what, call, region)
    seen = last.get("Configuration", {})
    reason = seen.get("LastUpdateStatusReason") or seen.get("StateReason")
    if seen.get("LastUpdateStatus") == "Failed":
        code = str(seen.get("LastUpdateStatusReasonCode", ""))
        text = (
            f"AWS could not apply the update ({code}), {reason or 'without a reason'}"
        )
    elif seen.get("State") == "Failed":
        code = str(seen.get("StateReasonCode", ""))
        text = f"AWS could not set it up ({code}), {reason or 'without a reason'}"
    else:
        code = "Timeout"
        text = f"it takes too long, {error}; repeat the command in a few minutes"
    detail = str(reason or error)
    return AwsError(f"Cannot complete {what}: {text}", code=code, detail=detail)


def _known_regions() -> list[str]:
    session = boto3.Session()
    return [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("lambda", partition)
    ]


def _nearest(region: str) -> str | None:
    """Return a known region with a like name, empty if none; None: it is known."""
    known = _known_regions()
    if region in known:
        return None
    return next(iter(difflib.get_close_matches(region, known, 1)), "")


def _unknown_region(region: str) -> DeployError:
    nearest = _nearest(region)
    hint = f"did you mean {nearest}?" if nearest else "give one such as eu-central-1"
    return DeployError(f"Cannot use the region {region!r}: AWS has none; {hint}")
