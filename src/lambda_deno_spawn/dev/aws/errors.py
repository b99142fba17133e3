"""Errors from AWS, boto3 and botocore, translated into one sentence each.

Knows AWS's error codes and texts, and what to do about each of them. Does not know how
calls are made. Specification: AWS SDK for Python, "Error handling";
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
import botocore.parsers
import botocore.session

from lambda_deno_spawn.dev.aws.plan import NO_ROLE, statement
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.aws.plan import Call

EXPIRED = {
    "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
}  # fmt: skip
# AWS checks the signature after it has received the whole request; a signature is valid
# for 5 minutes.
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
KMS_DENIED = "KMSAccessDeniedException"  # denied to the function's role, not the caller
# IAM User Guide, "Troubleshoot access denied error messages". The resource is an ARN,
# in quotes if the text is from S3, or `role NAME` if IAM does not find the role.
NOT_AUTHORIZED = re.compile(
    r"not authorized to perform: ([\w-]+:\w+)(?: on resource: [\"']?([^\s\"']+))?"
)
PRINCIPAL = re.compile(r"User: (\S+) is not")
KMS_ACTION = re.compile(r"kms:[A-Z]\w+")
KMS_KEY = re.compile(r"arn:[\w-]+:kms:[\w:/-]+")
ABOUT_POLICY = re.compile(
    r"(?:because|,) no ([\w -]+?) allows? |explicit deny in an? ([\w -]+?)(?:$|[.,:;])"
)
# Policies that override the caller's own, and who can change them.
OWNERS = {
    "service control policy": "the organization's administrator",
    "resource control policy": "the organization's administrator",
    "permissions boundary": "the administrator of users and roles",
    "session policy": "the issuer of these credentials",
    "VPC endpoint policy": "the network's administrator",
    "resource-based policy": "the owner of the resource",
}
NOT_FOUND = {
    "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "NoSuchKey",
    "NotFound", "404", "RepositoryNotFoundException",
    "RepositoryPolicyNotFoundException", "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
}  # fmt: skip
EXISTS = {
    "ResourceAlreadyExistsException",
    "EntityAlreadyExists",
    "BucketAlreadyOwnedByYou",
    "RepositoryAlreadyExistsException",
}
# Another change to the same resource is in progress, which ends by itself. IAM,
# CloudWatch Logs and S3 have codes for that, Lambda has texts.
BUSY = {
    "ConcurrentModification", "ConcurrentModificationException",
    "EntityTemporarilyUnmodifiable", "EntityTemporarilyUnmodifiableException",
    "OperationAborted", "OperationAbortedException", "ResourceInUseException",
}  # fmt: skip
BUSY_TEXT = re.compile(r"in progress|in the following state: '?(?!Failed)\w")
# Too many calls per second: botocore's list, without LimitExceededException.
THROTTLED = {
    "BandwidthLimitExceeded", "EC2ThrottledException", "RequestLimitExceeded",
    "RequestThrottled", "RequestThrottledException", "SlowDown", "ThrottledException",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip
# Too many resources of a kind: waiting does not help.
OVER_QUOTA = {
    "LimitExceeded", "LimitExceededException", "ServiceQuotaExceededException",
    "TooManyBuckets",
}  # fmt: skip
# Values of Reason: the function's own limit is reached. Lambda API reference, Invoke.
RESERVED = {
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "ReservedFunctionInvocationRateLimitExceeded",
}
# The function's network, file system or snapshot is being set up again.
NOT_READY = {
    "ResourceNotReadyException", "SnapStartNotReadyException",
    "SnapStartTimeoutException", "EFSMountTimeoutException", "ENILimitReachedException",
}  # fmt: skip
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # OpenSSL's name for the reason
INTERNAL_ERROR = 500  # HTTP status; this and higher ones are faults of AWS
# Texts of Lambda's ResourceConflictException.
EXISTS_NOW = re.compile(r"already exists?\b|UrlConfig exists")
OTHER_CODE = "is different from current CodeSHA256"


class AwsError(DeployError):
    """AWS refused a call, or could not be reached.

    Attributes:
        code: AWS's name of the error; empty without a response.
        detail: AWS's text.
        status: HTTP status of the response; 0 without one.
        is_unreached: No connection was made: nothing was sent.
        is_broken_off: The request was sent, at least in part, and no complete response
            was received.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        detail: str = "",
        status: int = 0,
        is_unreached: bool = False,
        is_broken_off: bool = False,
    ) -> None:
        self.code = code
        self.detail = detail
        self.status = status
        self.is_unreached = is_unreached
        self.is_broken_off = is_broken_off
        super().__init__(message)

    @property
    def may_be_done(self) -> bool:
        """True if AWS may have carried out the call in spite of the error."""
        return self.is_broken_off or self.status >= INTERNAL_ERROR

    @property
    def is_passing(self) -> bool:
        """True if the same call may succeed later."""
        is_lost = self.is_unreached or self.is_broken_off
        return is_lost or self.code in THROTTLED or self.status >= INTERNAL_ERROR

    @property
    def is_not_found(self) -> bool:
        """True if the resource does not exist."""
        return self.code in NOT_FOUND

    @property
    def is_denied(self) -> bool:
        """True if these credentials lack the permission."""
        return self.code in DENIED

    @property
    def is_there_already(self) -> bool:
        """True if the resource to create exists already."""
        return self.code in EXISTS

    @property
    def is_in_progress(self) -> bool:
        """True if another change to the resource is in progress."""
        return _is_busy(self.code, self.detail)


def _is_busy(code: str, detail: str) -> bool:
    if code == "ResourceConflictException":
        return BUSY_TEXT.search(detail) is not None
    return code in BUSY


def translate(
    error: Exception, what: str, call: Call | None = None, region: str = ""
) -> DeployError:
    """Return the error, with one sentence, for an exception of boto3 or botocore.

    Args:
        error: The exception.
        what: The action that failed, for "Cannot complete <what>".
        call: The call, for the IAM statement that allows it.
        region: The region of the call.
    """
    match error:
        case botocore.exceptions.ClientError(response=response):
            return _refusal(response, what, call, region)
        case boto3.exceptions.S3UploadFailedError():
            # boto3 raises it while it handles the cause, without chaining it.
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
            known = f"there are {', '.join(names)}" if names else "there are none"
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
        case botocore.exceptions.SSOError() | botocore.exceptions.TokenRetrievalError():
            return _not_renewed(what, error, "sign in again with `aws sso login`")
        case botocore.exceptions.LoginError():
            return _not_renewed(what, error, "sign in again with `aws login`")
        case botocore.exceptions.CredentialRetrievalError():
            return _not_renewed(what, error, "check where the profile gets them from")
        case botocore.exceptions.EndpointConnectionError():
            url = str(error.kwargs.get("endpoint_url"))
            # The name in the address is AWS's own, not one in AWS_ENDPOINT_URL.
            if region and region in url and _nearest(region) is not None:
                return _unknown_region(region)
            return _unreached(what, url)
        case botocore.exceptions.ConnectTimeoutError():
            return _unreached(what, str(error.kwargs.get("endpoint_url")))
        case botocore.exceptions.ProxyConnectionError():
            return _unreached(what, f"the proxy {error.kwargs.get('proxy_url')}")
        case botocore.exceptions.SSLError() if UNTRUSTED in str(error):
            return AwsError(
                f"Cannot complete {what}: the certificate of "
                f"{error.kwargs.get('endpoint_url')} is not trusted; if a proxy "
                "intercepts the connection, set AWS_CA_BUNDLE to its certificate",
                detail=str(error),
            )
        case botocore.exceptions.WaiterError():
            return _never_came(error, what, call, region)
        case (
            botocore.exceptions.ConnectionError()
            | botocore.exceptions.HTTPClientError()
            | botocore.exceptions.IncompleteReadError()
        ):
            return _broken_off(what, str(error))
        case botocore.parsers.ResponseParserError():
            return AwsError(
                f"Cannot complete {what}: the response is not from AWS; check the "
                "proxy or AWS_ENDPOINT_URL if one is set",
                detail=str(error),
                is_broken_off=True,
            )
    text = f"Cannot complete {what}: {type(error).__name__}, {error}"
    return AwsError(text, detail=str(error))


def _unreached(what: str, where: str) -> AwsError:
    return AwsError(
        f"Cannot complete {what}: nothing answers at {where}; check the network, and "
        "the proxy or AWS_ENDPOINT_URL if one is set",
        detail=f"nothing answers at {where}",
        is_unreached=True,
    )


def _not_renewed(what: str, error: Exception, advice: str) -> AwsError:
    detail = " ".join(str(error).split()).rstrip(".")  # may have several lines
    text = f"the credentials cannot be renewed, {detail}; {advice}"
    return AwsError(f"Cannot complete {what}: {text}", detail=detail)


def _refusal(
    response: Mapping[str, Any], what: str, call: Call | None, region: str
) -> AwsError:
    error = response.get("Error", {})
    code = str(error.get("Code", ""))
    detail = " ".join(str(error.get("Message", "")).split()).rstrip(".")
    if code in EXPIRED or ("security token" in detail and "expired" in detail):
        text = (
            "the credentials have expired; sign in again, or set new ones in the "
            "profile or in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN"
        )
    elif code in LATE or any(part in detail for part in LATE_TEXTS):
        text = (
            "the request arrived after its signature had expired; check this machine's "
            "clock, and upload large packages with --bucket if the connection is slow"
        )
    elif code in UNKNOWN_CREDENTIALS:
        text = (
            f"AWS does not accept the credentials ({code}); check "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the "
            f"profile, and that the account has enabled the region {region}"
        )
    elif code in DENIED:
        text = _denied(detail, call)
    elif code == KMS_DENIED:
        text = _key_denied(detail)
    elif code in THROTTLED and response.get("Reason") in RESERVED:
        text = (
            f"all of the function's reserved concurrency is in use "
            f"({response['Reason']}), {detail or 'without a reason'}; raise "
            "reserved_concurrency; 0 stops the function"
        )
    elif code in THROTTLED:
        reason = response.get("Reason") or code
        text = (
            f"AWS accepts no more calls right now ({reason}), "
            f"{detail or 'without a reason'}; try again in a minute"
        )
    elif code in NOT_READY:
        text = (
            f"the function is not ready ({code}), {detail or 'without a reason'}; try "
            "again in a minute"
        )
    elif code in OVER_QUOTA:
        text = (
            f"a quota of the account is used up ({code}), "
            f"{detail or 'AWS does not say which'}; delete resources that are not "
            "needed, or ask AWS for a higher quota"
        )
    elif NO_ROLE in detail:
        text = (
            "the role cannot be assumed by Lambda; allow sts:AssumeRole to the service "
            "lambda.amazonaws.com in its trust policy"
        )
    elif code == "CodeStorageExceededException":
        text = (
            f"the region's storage for code and layers is full, {detail}; delete old "
            "versions of functions and layers, or ask AWS for a higher quota"
        )
    elif _is_busy(code, detail):
        text = f"another change is in progress, {detail or code}; try again in a minute"
    elif code == "ResourceConflictException" and EXISTS_NOW.search(detail):
        text = (
            f"it exists now, {detail}; another user created it, or this call did and "
            "its response was lost; run the command again, which compares anew"
        )
    elif code == "PreconditionFailedException" or OTHER_CODE in detail:
        text = (
            "it has changed since it was read; another user changed it, or this call "
            "did and its response was lost; run the command again, which compares anew"
        )
    else:
        text = f"AWS says {code}, {detail or 'without a reason'}"
    text = f"Cannot complete {what}: {text}"
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return AwsError(text, code=code, detail=detail or code, status=status)


def _denied(detail: str, call: Call | None) -> str:
    """Say which permission is missing, and who can grant it.

    AWS's text names the action and the resource; else the call does.
    """
    named = NOT_AUTHORIZED.search(detail)
    action, resource = _what_is_denied(named, detail, call)
    if (found := _policy(detail)) is not None:
        return f"{found[0]} {action} on {resource}, {detail}; {found[1]}"
    if not action:
        return f"these credentials lack the permission, {detail or 'without a reason'}"
    added = f"add this statement to their policy: {statement(action, resource)}"
    if named is not None or call is None:
        return f"these credentials lack the permission; {added}"
    if call.operation == "HeadBucket":
        return (
            "S3 denies access: the bucket belongs to another account, as names of "
            "buckets are global, or these credentials lack the permission; use another "
            f"bucket, or {added}"
        )
    if call.service == "s3":
        return f"S3 denies access without a reason; if it is missing, {added}"
    reason = detail or "without a reason"
    return f"these credentials lack the permission, {reason}; {added}"


def _what_is_denied(
    named: re.Match[str] | None, detail: str, call: Call | None
) -> tuple[str, str]:
    """Return action and resource; no action if neither AWS nor the call names it."""
    if named is None and (action := KMS_ACTION.search(detail)):
        key = KMS_KEY.search(detail)
        return action[0], key[0] if key else "*"
    if named is None:
        return (call.action, call.resource) if call else ("", "*")
    resource = (named[2] or "").rstrip(".,;")
    if resource.startswith("arn:") or resource == "*":
        return named[1], resource
    return named[1], call.resource if call else "*"


def _policy(detail: str) -> tuple[str, str] | None:
    """Return the policy that denies, and what to do; None: a statement is missing."""
    found = ABOUT_POLICY.search(detail)
    if found is None:
        is_denied = "explicit deny" in detail
        return ("a policy denies", "its author has to change it") if is_denied else None
    kind = (
        (found[1] or found[2])
        .replace("policies", "policy")
        .replace("sessions", "session")
    )
    owner = OWNERS.get(kind)
    if found[2]:
        article = "an" if kind[0] in "aeiou" else "a"
        return f"{article} {kind} denies", f"{owner or 'its author'} has to change it"
    # Else the caller's own policy lacks the statement.
    return (f"no {kind} allows", f"{owner} has to change it") if owner else None


def _key_denied(detail: str) -> str:
    """Say which permission the function's role lacks to decrypt its variables."""
    who = PRINCIPAL.search(detail)
    action, resource = _what_is_denied(NOT_AUTHORIZED.search(detail), detail, None)
    if not action:
        return f"the function's key cannot be used, {detail}; check the key's policy"
    return (
        "the function's key cannot be used: "
        f"{who[1] if who else 'the role'} lacks the permission; add this statement to "
        "that role's policy, or allow it in the policy of the key: "
        f"{statement(action, resource)}"
    )


def _broken_off(what: str, detail: str) -> AwsError:
    return AwsError(
        f"Cannot complete {what}: the connection broke, {detail}; check the network, "
        "and run the command again",
        detail=detail,
        is_broken_off=True,
    )


def _never_came(
    error: botocore.exceptions.WaiterError,
    what: str,
    call: Call | None,
    region: str,
) -> DeployError:
    """Say why a state was not reached, with the reason that AWS gives."""
    last = error.last_response or {}
    if "Error" in last:
        return _refusal(last, what, call, region)
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
        text = f"it takes too long, {error}; run the command again in a few minutes"
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
    """Return the known region with the most similar name; None: the region is known."""
    known = _known_regions()
    if region in known:
        return None
    return next(iter(difflib.get_close_matches(region, known, 1)), "")


def _unknown_region(region: str) -> DeployError:
    nearest = _nearest(region)
    hint = f"did you mean {nearest}?" if nearest else "give one such as eu-central-1."
    return DeployError(
        f"Cannot use the region {region!r}: boto3 {boto3.__version__} does not know "
        f"it; {hint} For a newer region, upgrade boto3 or set AWS_ENDPOINT_URL"
    )
