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
KMS_DENIED = "KMSAccessDeniedException"  # not to the caller, but to a function's role
# IAM User Guide, "Troubleshoot access denied error messages". The resource is an ARN,
# within quotes in S3's texts, and `role NAME` in IAM's of what is not there.
NOT_AUTHORIZED = re.compile(
    r"not authorized to perform: ([\w-]+:\w+)(?: on resource: [\"']?([^\s\"']+))?"
)
PRINCIPAL = re.compile(r"User: (\S+) is not")
KMS_ACTION = re.compile(r"kms:[A-Z]\w+")
KMS_KEY = re.compile(r"arn:[\w-]+:kms:[\w:/-]+")
ABOUT_POLICY = re.compile(
    r"(?:because|,) no ([\w -]+?) allows? |explicit deny in an? ([\w -]+?)(?:$|[.,:;])"
)
# Policies that a statement in the caller's own does not outweigh, and whose they are.
OWNERS = {
    "service control policy": "the organization's administrator",
    "resource control policy": "the organization's administrator",
    "permissions boundary": "whoever administers users and roles",
    "session policy": "whoever hands out these credentials",
    "VPC endpoint policy": "whoever administers the network",
    "resource-based policy": "the owner of what is asked for",
}
NOT_FOUND = {
    "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "NoSuchKey",
    "NotFound", "404",
}  # fmt: skip
EXISTS = {
    "ResourceAlreadyExistsException",
    "EntityAlreadyExists",
    "BucketAlreadyOwnedByYou",
}
# What other calls to the same thing cause, and what passes by itself: IAM, CloudWatch
# Logs and S3 have codes for it, Lambda has texts.
BUSY = {
    "ConcurrentModification", "ConcurrentModificationException",
    "EntityTemporarilyUnmodifiable", "EntityTemporarilyUnmodifiableException",
    "OperationAborted", "OperationAbortedException",
}  # fmt: skip
BUSY_TEXT = re.compile(r"in progress|in the following state: '?(?!Failed)\w")
# Calls that come too fast: botocore's own list, less LimitExceededException.
THROTTLED = {
    "BandwidthLimitExceeded", "EC2ThrottledException", "RequestLimitExceeded",
    "RequestThrottled", "RequestThrottledException", "SlowDown", "ThrottledException",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip
# How much there may be of something: no waiting helps.
OVER_QUOTA = {
    "LimitExceeded", "LimitExceededException", "ServiceQuotaExceededException",
    "TooManyBuckets",
}  # fmt: skip
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # OpenSSL's reason
INTERNAL_ERROR = 500  # HTTP status: from here on AWS is at fault
# Of Lambda, in a ResourceConflictException.
EXISTS_NOW = re.compile(r"already exists?\b|UrlConfig exists")
OTHER_CODE = "is different from current CodeSHA256"


class AwsError(DeployError):
    """AWS refused a call, or it did not get there.

    Attributes:
        code: AWS's name for it; empty if there was no answer.
        detail: AWS's own text.
        status: HTTP status of the answer; 0 if there was none.
        is_unreached: No connection came about: nothing was sent.
        is_broken_off: All or part of it was sent, and no whole answer came.
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
        """True if AWS may have done what was asked for, all the same."""
        return self.is_broken_off or self.status >= INTERNAL_ERROR

    @property
    def is_passing(self) -> bool:
        """True if the same call may well succeed in a while."""
        is_lost = self.is_unreached or self.is_broken_off
        return is_lost or self.code in THROTTLED or self.status >= INTERNAL_ERROR

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
        return _is_busy(self.code, self.detail)


def _is_busy(code: str, detail: str) -> bool:
    if code == "ResourceConflictException":
        return BUSY_TEXT.search(detail) is not None
    return code in BUSY


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
            return _refusal(response, what, call, region)
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
        case botocore.exceptions.SSOError() | botocore.exceptions.TokenRetrievalError():
            return _not_renewed(what, error, "sign in again with `aws sso login`")
        case botocore.exceptions.LoginError():
            return _not_renewed(what, error, "sign in again with `aws login`")
        case botocore.exceptions.CredentialRetrievalError():
            return _not_renewed(what, error, "check what the profile gets them from")
        case botocore.exceptions.EndpointConnectionError():
            url = str(error.kwargs.get("endpoint_url"))
            # Not if the address is that of AWS_ENDPOINT_URL.
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
                "answers in AWS's place, set AWS_CA_BUNDLE to its certificate",
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
                f"Cannot complete {what}: the answer is none of AWS's; check the proxy "
                "or AWS_ENDPOINT_URL if one is set",
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
    detail = " ".join(str(error).split()).rstrip(".")  # a program's, maybe, in lines
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
            "the credentials have expired; sign in again, or set new ones, in the "
            "profile or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
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
    elif code == KMS_DENIED:
        text = _key_denied(detail)
    elif code in THROTTLED:
        text = (
            f"AWS takes no more calls right now ({code}), "
            f"{detail or 'and says no more'}; try again in a minute"
        )
    elif code in OVER_QUOTA:
        text = (
            f"a quota of the account is used up ({code}), "
            f"{detail or 'AWS does not say which'}; remove what is not needed, or ask "
            "AWS for more"
        )
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
    elif _is_busy(code, detail):
        text = f"something else is changing it, {detail or code}; try again in a minute"
    elif code == "ResourceConflictException" and EXISTS_NOW.search(detail):
        text = (
            f"it exists now, {detail}; somebody else made it, or this call did and its "
            "answer was lost; run the command again, which compares anew"
        )
    elif code == "PreconditionFailedException" or OTHER_CODE in detail:
        text = (
            "it is not what it was when it was read; somebody else changed it, or this "
            "call did and its answer was lost; run the command again, which compares "
            "anew"
        )
    else:
        text = f"AWS says {code}, {detail or 'and nothing more'}"
    text = f"Cannot complete {what}: {text}"
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return AwsError(text, code=code, detail=detail or code, status=status)


def _denied(detail: str, call: Call | None) -> str:
    """Say what has to be allowed, and by whom: by AWS's own words, else by the call."""
    named = NOT_AUTHORIZED.search(detail)
    action, resource = _what_is_denied(named, detail, call)
    if (found := _policy(detail)) is not None:
        return f"{found[0]} {action} on {resource}, {detail}; {found[1]}"
    if not action:
        return f"these credentials may not do it, {detail or 'and AWS says no more'}"
    added = f"add this statement to their policy: {statement(action, resource)}"
    if named is not None or call is None:
        return f"these credentials may not do it; {added}"
    if call.operation == "HeadBucket":
        return (
            "denied by S3: the bucket belongs to another account, as names of buckets "
            "are global, or these credentials may not look at it; use another bucket, "
            f"or {added}"
        )
    if call.service == "s3":
        return f"denied by S3, which does not say why; if it is missing, {added}"
    return f"these credentials may not do it, {detail or 'AWS says no more'}; {added}"


def _what_is_denied(
    named: re.Match[str] | None, detail: str, call: Call | None
) -> tuple[str, str]:
    """Return action and resource; no action if neither AWS nor the call tells it."""
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
    """Return which policy denies, and what to do about it; None: one is missing."""
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
    # Else it is the caller's own that does not allow it: a statement mends that.
    return (f"no {kind} allows", f"{owner} has to change it") if owner else None


def _key_denied(detail: str) -> str:
    """Say what a function's role is missing to decrypt the function's variables."""
    who = PRINCIPAL.search(detail)
    action, resource = _what_is_denied(NOT_AUTHORIZED.search(detail), detail, None)
    if not action:
        return f"the function's key cannot be used, {detail}; check the key's policy"
    return (
        "the function's key cannot be used: "
        f"{who[1] if who else 'the role'} may not do it; add this statement to that "
        f"role's policy, or allow it in the key's: {statement(action, resource)}"
    )


def _broken_off(what: str, detail: str) -> AwsError:
    return AwsError(
        f"Cannot complete {what}: the connection broke off, {detail}; check the "
        "network, and repeat the command",
        detail=detail,
        is_broken_off=True,
    )


def _never_came(
    error: botocore.exceptions.WaiterError,
    what: str,
    call: Call | None,
    region: str,
) -> DeployError:
    """Say why a state is not reached, in AWS's words."""
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
    hint = f"did you mean {nearest}?" if nearest else "give one such as eu-central-1."
    return DeployError(
        f"Cannot use the region {region!r}: boto3 {boto3.__version__} does not know "
        f"it; {hint} For a region that is newer, upgrade boto3, or set AWS_ENDPOINT_URL"
    )
