"""Exceptions of boto3 and botocore, translated into sentences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import boto3
import botocore.exceptions
import botocore.parsers
import pytest
from boto3.exceptions import S3UploadFailedError

from lambda_deno_spawn.dev.aws.errors import AwsError, translate
from lambda_deno_spawn.dev.aws.plan import (
    Call,
    FileContent,
    Place,
    ResultOf,
    resolve,
    shown_value,
)

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:fn"
CALL = Call("lambda", "UpdateFunctionCode", ARN)


def refused(code: str, message: str = "no", call: Call = CALL) -> str:
    response = {"Error": {"Code": code, "Message": message}}
    error = botocore.exceptions.ClientError(response, call.operation)
    return str(translate(error, str(call), call, "eu-central-1"))


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (botocore.exceptions.NoCredentialsError(), "set AWS_PROFILE, or"),
        (
            botocore.exceptions.PartialCredentialsError(
                provider="env", cred_var="AWS_SECRET_ACCESS_KEY"
            ),
            "AWS_SECRET_ACCESS_KEY is missing",
        ),
        (botocore.exceptions.NoRegionError(), "use --region, or set AWS_REGION"),
        (
            botocore.exceptions.UnauthorizedSSOTokenError(),
            "sign in again with `aws sso login`",
        ),
        (
            botocore.exceptions.SSOTokenLoadError(error_msg="no such file"),
            "sign in again with `aws sso login`",
        ),
        (
            botocore.exceptions.TokenRetrievalError(provider="sso", error_msg="gone"),
            "sign in again with `aws sso login`",
        ),
        (
            botocore.exceptions.LoginRefreshRequired(),
            "sign in again with `aws login`",
        ),
        (
            botocore.exceptions.CredentialRetrievalError(
                provider="custom-process", error_msg="no\nnetwork\n"
            ),
            "custom-process: no network; check where the profile gets them from",
        ),
        (
            botocore.exceptions.ConnectionClosedError(endpoint_url="https://s3"),
            "the connection broke",
        ),
        (
            botocore.exceptions.ReadTimeoutError(endpoint_url="https://s3"),
            "the connection broke",
        ),
        (
            S3UploadFailedError("Failed to upload a.zip to b/c: Connection was closed"),
            "the connection broke",
        ),
        (botocore.exceptions.DataNotFoundError(data_path="x"), "DataNotFoundError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_botocore_raises_becomes_a_sentence(error: Exception, part: str) -> None:
    text = str(translate(error, str(CALL), CALL, "eu-central-1"))
    assert text.startswith("Cannot ")
    assert part in text
    assert "\n" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException"])
def test_an_expired_token_says_how_to_get_another(code: str) -> None:
    """The source of the token is unknown: single sign-on renews its own tokens."""
    text = refused(code)
    assert "the credentials have expired; sign in again, or set new ones" in text
    assert "AWS_SESSION_TOKEN" in text
    assert "sso" not in text


@pytest.mark.parametrize(
    "code",
    ["InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch"],
)
def test_unknown_credentials_name_the_variables_to_check(code: str) -> None:
    text = refused(code)
    assert code in text
    assert "AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("RequestTimeTooSkewed", "The difference is too large"),
        (
            "InvalidSignatureException",
            "Signature expired: 20261125T100000Z is now earlier than 20261125T100100Z",
        ),
    ],
)
def test_a_late_request_is_the_clock_or_the_line_not_the_credentials(
    code: str, detail: str
) -> None:
    text = refused(code, detail)
    assert "check this machine's clock" in text
    assert "AWS_SECRET_ACCESS_KEY" not in text


def test_an_unknown_region_gets_the_most_similar_one() -> None:
    error = botocore.exceptions.EndpointConnectionError(
        endpoint_url="https://sts.eu-centrall-1.amazonaws.com"
    )
    text = str(translate(error, "sts:GetCallerIdentity", None, "eu-centrall-1"))
    assert text == (
        f"Cannot use the region 'eu-centrall-1': boto3 {boto3.__version__} does not "
        "know it; did you mean eu-central-1? For a newer region, upgrade "
        "boto3 or set AWS_ENDPOINT_URL"
    )


def test_a_custom_endpoint_is_not_taken_for_an_unknown_region() -> None:
    error = botocore.exceptions.EndpointConnectionError(
        endpoint_url="http://127.0.0.1:4566/"
    )
    text = str(translate(error, "sts:GetCallerIdentity", None, "local-1"))
    assert "nothing answers at http://127.0.0.1:4566/; check the network" in text


def test_no_response_in_a_known_region_is_a_network_error() -> None:
    error = botocore.exceptions.EndpointConnectionError(endpoint_url="https://sts")
    text = str(translate(error, "sts:GetCallerIdentity", None, "eu-central-1"))
    assert "nothing answers at https://sts; check the network" in text


def test_a_region_that_is_malformed_is_named() -> None:
    error = botocore.exceptions.InvalidRegionError(region_name="a b")
    assert "Cannot use the region 'a b'" in str(translate(error, "x", None, "a b"))


@pytest.mark.parametrize(
    ("code", "message", "part"),
    [
        ("ResourceConflictException", "Function already exist: fn", "it exists now"),
        ("ResourceConflictException", "Alias already exists: arn", "it exists now"),
        ("ResourceConflictException", "The statement id (a) provided already exists. "
         "Please provide a new statement id", "it exists now"),
        ("ResourceConflictException", "Failed to create function url config. Error "
         "message:  FunctionUrlConfig exists for this Lambda function", "exists now"),
        ("PreconditionFailedException", "The Revision Id provided does not match",
         "another user changed it"),
        ("InvalidParameterValueException", "CodeSHA256 (a) is different from current "
         "CodeSHA256 in $LATEST (b). Please try again", "another user changed it"),
    ],
    ids=["function", "alias", "statement", "url", "revision", "code"],
)  # fmt: skip
def test_a_change_since_the_read_asks_to_run_again(
    code: str, message: str, part: str
) -> None:
    text = refused(code, message)
    assert part in text
    assert text.endswith("; run the command again, which compares anew")


@pytest.mark.parametrize(
    ("service", "operation", "action"),
    [
        ("lambda", "UpdateFunctionCode", "lambda:UpdateFunctionCode"),
        ("lambda", "Invoke", "lambda:InvokeFunction"),
        ("s3", "HeadObject", "s3:GetObject"),
        ("s3", "HeadBucket", "s3:ListBucket"),
        ("logs", "FilterLogEvents", "logs:FilterLogEvents"),
    ],
)
def test_a_denied_call_names_the_statement_to_add(
    service: str, operation: str, action: str
) -> None:
    text = refused("AccessDenied", "Access Denied", Call(service, operation, ARN))
    added = json.loads(text.partition("their policy: ")[2])
    assert added == {"Effect": "Allow", "Action": action, "Resource": ARN}


def test_the_action_that_aws_names_overrides_that_of_the_call() -> None:
    """CreateFunction needs iam:PassRole, which does not correspond to a call."""
    text = refused(
        "AccessDeniedException",
        "User: arn:aws:iam::1:user/a is not authorized to perform: iam:PassRole on "
        "resource: arn:aws:iam::1:role/r because no identity-based policy allows the "
        "iam:PassRole action",
    )
    assert '"Action": "iam:PassRole", "Resource": "arn:aws:iam::1:role/r"' in text


ROLE = "arn:aws:iam::123456789012:role/fn-role"
OBJECT = "arn:aws:s3:::b/lambda-deno-spawn/a.zip"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/0a1b-2c"
WHO = "User: arn:aws:sts::123456789012:assumed-role/ci/s is not authorized to perform: "


@pytest.mark.parametrize(
    ("call", "detail", "action", "resource"),
    [
        pytest.param(
            CALL,
            f"{WHO}lambda:UpdateFunctionCode on resource: {ARN} because no "
            "identity-based policy allows the lambda:UpdateFunctionCode action",
            "lambda:UpdateFunctionCode",
            ARN,
            id="arn",
        ),
        pytest.param(
            Call("s3", "PutObject", "x"),
            f'{WHO}s3:PutObject on resource: "{OBJECT}" because no identity-based '
            "policy allows the s3:PutObject action",
            "s3:PutObject",
            OBJECT,
            id="quoted",
        ),
        pytest.param(
            Call("iam", "GetRole", ROLE),
            f"{WHO}iam:GetRole on resource: role fn-role because no identity-based "
            "policy allows the iam:GetRole action",
            "iam:GetRole",
            ROLE,
            id="role-by-name",
        ),
        pytest.param(
            CALL, f"{WHO}lambda:ListLayers on resource: *", "lambda:ListLayers", "*",
            id="all",
        ),
        pytest.param(
            CALL,
            f"{WHO}kms:Decrypt on resource: {KEY} because no identity-based policy "
            "allows the kms:Decrypt action",
            "kms:Decrypt",
            KEY,
            id="key",
        ),
        pytest.param(
            CALL,
            f"KMS does not allow it: kms:CreateGrant for {KEY}.",
            "kms:CreateGrant",
            KEY,
            id="key-in-other-words",
        ),
    ],
)  # fmt: skip
def test_a_denial_names_action_and_resource_as_aws_means_them(
    call: Call, detail: str, action: str, resource: str
) -> None:
    text = refused("AccessDenied", detail, call)
    added = json.loads(text.partition("their policy: ")[2])
    assert added == {"Effect": "Allow", "Action": action, "Resource": resource}


@pytest.mark.parametrize(
    ("context", "kind", "owner"),
    [
        (
            "with an explicit deny in a service control policy",
            "a service control policy denies",
            "the organization's administrator",
        ),
        (
            "with an explicit deny in a service control policy: "
            "arn:aws:organizations::111122223333:policy/o-a/service_control_policy/p-b",
            "a service control policy denies",
            "the organization's administrator",
        ),
        (
            "because no service control policy allows the lambda:UpdateFunctionCode "
            "action",
            "no service control policy allows",
            "the organization's administrator",
        ),
        (
            "because no resource control policy allows the "
            "lambda:UpdateFunctionCode action",
            "no resource control policy allows",
            "the organization's administrator",
        ),
        (
            "because no permissions boundary allows the lambda:UpdateFunctionCode "
            "action",
            "no permissions boundary allows",
            "the administrator of users and roles",
        ),
        (
            "with an explicit deny in a permissions boundary",
            "a permissions boundary denies",
            "the administrator of users and roles",
        ),
        (
            "because no session policy allows the lambda:UpdateFunctionCode action",
            "no session policy allows",
            "the issuer of these credentials",
        ),
        (
            "with an explicit deny in a sessions policy",
            "a session policy denies",
            "the issuer of these credentials",
        ),
        (
            "because no VPC endpoint policy allows the lambda:UpdateFunctionCode "
            "action",
            "no VPC endpoint policy allows",
            "the network's administrator",
        ),
        (
            "because no resource-based policy allows the lambda:UpdateFunctionCode "
            "action",
            "no resource-based policy allows",
            "the owner of the resource",
        ),
        (
            "because the resource does not exist in this Region, no resource-based "
            "policies allow access, or a resource-based policy explicitly denies it",
            "no resource-based policy allows",
            "the owner of the resource",
        ),
        (
            "with an explicit deny in an identity-based policy",
            "an identity-based policy denies",
            "its author",
        ),
        ("with an explicit deny", "a policy denies", "its author"),
    ],
)
def test_a_policy_that_overrides_all_statements_is_named_with_its_owner(
    context: str, kind: str, owner: str
) -> None:
    text = refused(
        "AccessDeniedException",
        f"{WHO}lambda:UpdateFunctionCode on resource: {ARN} {context}",
    )
    assert f": {kind} lambda:UpdateFunctionCode on {ARN}, " in text
    assert text.endswith(f"; {owner} has to change it")
    assert "Effect" not in text


@pytest.mark.parametrize(
    ("code", "message"), [("AccessDenied", "Access Denied"), ("403", "Forbidden")]
)
def test_s3_does_not_say_why_it_denies(code: str, message: str) -> None:
    text = refused(code, message, Call("s3", "HeadObject", OBJECT))
    assert "S3 denies access without a reason" in text
    assert json.loads(text.partition("their policy: ")[2])["Action"] == "s3:GetObject"


def test_a_bucket_that_is_denied_may_be_another_account_s() -> None:
    call = Call("s3", "HeadBucket", "arn:aws:s3:::b", {"Bucket": "b"})
    text = refused("403", "Forbidden", call)
    assert "the bucket belongs to another account, as names of buckets are" in text
    assert "use another bucket, or add this statement to their policy" in text
    added = json.loads(text.partition("their policy: ")[2])
    assert added["Action"] == "s3:ListBucket"


def test_a_function_s_key_is_denied_to_its_role_not_to_the_caller() -> None:
    text = refused(
        "KMSAccessDeniedException",
        "Lambda was unable to decrypt the environment variables because KMS access was "
        "denied. Please check the function's KMS key settings. KMS Exception: "
        f"AccessDeniedException KMS Message: {WHO}kms:Decrypt on resource: {KEY} "
        "because no identity-based policy allows the kms:Decrypt action",
        Call("lambda", "Invoke", ARN),
    )
    assert "arn:aws:sts::123456789012:assumed-role/ci/s lacks the permission" in text
    assert f'"Action": "kms:Decrypt", "Resource": "{KEY}"' in text
    assert "these credentials" not in text


@pytest.mark.parametrize(
    ("code", "message", "part"),
    [
        ("TooManyRequestsException", "Rate exceeded", "try again in a minute"),
        ("Throttling", "Rate exceeded", "try again in a minute"),
        (
            "ThrottlingException",
            "Rate exceeded",
            "(ThrottlingException), Rate exceeded",
        ),
        ("SlowDown", "Please reduce your request rate.", "try again in a minute"),
        ("EC2ThrottledException", "", "try again in a minute"),
        (
            "InvalidParameterValueException",
            "The role defined for the function cannot be assumed by Lambda.",
            "allow sts:AssumeRole to the service lambda.amazonaws.com",
        ),
        (
            "CodeStorageExceededException",
            "Code storage limit exceeded.",
            "delete old versions",
        ),
        (
            "ResourceConflictException",
            "The operation cannot be performed at this time. An update is in progress "
            "for resource: " + ARN,
            "another change is in progress",
        ),
        (
            "InvalidParameterValueException",
            "Unzipped size must be smaller than 262144000 bytes",
            "AWS says InvalidParameterValueException, Unzipped size must be smaller",
        ),
    ],
)
def test_a_refusal_says_what_to_do(code: str, message: str, part: str) -> None:
    assert part in refused(code, message)


@pytest.mark.parametrize(
    ("code", "detail", "is_in_progress"),
    [
        (
            "ResourceConflictException",
            "The operation cannot be performed at this time. An update is in progress "
            f"for resource: {ARN}",
            True,
        ),
        (
            "ResourceConflictException",
            "The operation cannot be performed at this time. The function is currently "
            "in the following state: Pending",
            True,
        ),
        (
            "ResourceConflictException",
            f"The operation cannot be performed at this time. The resource {ARN} is "
            "currently in the following state: 'Pending'. StateReasonCode: 'Creating'",
            True,
        ),
        (
            "ResourceConflictException",
            "The operation cannot be performed at this time. The function is currently "
            "in the following state: Failed",
            False,
        ),
        ("ResourceConflictException", "Function already exist: fn", False),
        (
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this "
            "resource. Please try again.",
            True,
        ),
        (
            "OperationAbortedException",
            "Multiple concurrent requests to update the same resource were in conflict",
            True,
        ),
        ("ConcurrentModification", "", True),
        (
            "ConcurrentModificationException",
            "Another request updating the entity is in progress.",
            True,
        ),
        ("AccessDenied", "in progress", False),
    ],
)
def test_a_change_in_progress_is_distinguished_from_a_refusal(
    code: str, detail: str, is_in_progress: bool
) -> None:
    response = {"Error": {"Code": code, "Message": detail}}
    error = botocore.exceptions.ClientError(response, CALL.operation)
    found = translate(error, str(CALL), CALL, "eu-central-1")
    assert isinstance(found, AwsError)
    assert found.is_in_progress == is_in_progress
    assert ("another change is in progress, " in str(found)) == is_in_progress
    assert found.detail, "shown while it is tried again"


def client_error(code: str, status: int) -> Exception:
    response = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error: Exception = botocore.exceptions.ClientError(response, "Invoke")
    return error


@pytest.mark.parametrize(
    ("error", "may_be_done", "is_passing"),
    [
        (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), False, True),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="u"), False, True),
        (botocore.exceptions.ProxyConnectionError(proxy_url="u"), False, True),
        (
            botocore.exceptions.SSLError(
                endpoint_url="u", error="[SSL: CERTIFICATE_VERIFY_FAILED] unable"
            ),
            False,
            False,
        ),
        (botocore.exceptions.NoCredentialsError(), False, False),
        (botocore.exceptions.ParamValidationError(report="r"), False, False),
        (client_error("TooManyRequestsException", 429), False, True),
        (client_error("AccessDeniedException", 403), False, False),
        (client_error("ResourceNotFoundException", 404), False, False),
        (client_error("ServiceException", 500), True, True),
        (client_error("502", 502), True, True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="u"), True, True),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="u"), True, True),
        (botocore.exceptions.SSLError(endpoint_url="u", error="bad MAC"), True, True),
        (botocore.exceptions.ResponseStreamingError(error="e"), True, True),
        (
            botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            True,
            True,
        ),
        (botocore.parsers.ResponseParserError("no JSON"), True, True),
    ],
    ids=str,
)
def test_a_call_may_be_done_only_if_sent_and_not_refused(
    error: Exception, may_be_done: bool, is_passing: bool
) -> None:
    found = translate(error, str(CALL), CALL, "eu-central-1")
    assert isinstance(found, AwsError)
    assert (found.may_be_done, found.is_passing) == (may_be_done, is_passing)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("LimitExceededException", "Resource limit exceeded."),
        ("LimitExceeded", "Cannot exceed quota for RolesPerAccount: 1000"),
        ("TooManyBuckets", "You have attempted to create more buckets than allowed"),
    ],
)
def test_waiting_does_not_help_against_a_quota(code: str, detail: str) -> None:
    text = refused(code, detail)
    assert f"a quota of the account is used up ({code}), {detail.rstrip('.')}; " in text
    assert "try again" not in text


def test_a_failed_update_gives_aws_s_reason() -> None:
    last = {
        "Configuration": {
            "State": "Active",
            "LastUpdateStatus": "Failed",
            "LastUpdateStatusReason": "The function's KMS key is disabled",
            "LastUpdateStatusReasonCode": "DisabledKMSKey",
        }
    }
    error = botocore.exceptions.WaiterError("FunctionUpdatedV2", "terminal", last)
    text = str(translate(error, "wait", CALL, "eu-central-1"))
    assert text.endswith(
        "AWS could not apply the update (DisabledKMSKey), The function's KMS key is "
        "disabled"
    )


def test_a_state_that_is_not_reached_is_reported() -> None:
    last = {"Configuration": {"State": "Pending"}}
    error = botocore.exceptions.WaiterError("FunctionActiveV2", "Max attempts", last)
    found = translate(error, "wait", CALL, "eu-central-1")
    assert isinstance(found, AwsError)
    assert found.code == "Timeout"


def test_a_refused_upload_is_reported_as_the_refusal() -> None:
    response = {"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}
    call = Call("s3", "PutObject", "arn:aws:s3:::b/k")
    error = S3UploadFailedError("Failed to upload")
    error.__context__ = botocore.exceptions.ClientError(response, "PutObject")
    text = str(translate(error, str(call), call, "eu-central-1"))
    assert "s3:PutObject" in text.partition("their policy: ")[2]


def test_placeholders_are_replaced_by_results_and_files(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"zip")
    value = {
        "Layers": [ResultOf("deno", "LayerVersionArn"), "b"],
        "Code": {"ZipFile": FileContent(path, hashlib.sha256(b"zip").hexdigest())},
        "Size": 3,
    }
    assert resolve(value, {"deno": {"LayerVersionArn": "a"}}) == {
        "Layers": ["a", "b"],
        "Code": {"ZipFile": b"zip"},
        "Size": 3,
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("STRIPE_KEY", "***"),
        ("my_secret", "***"),
        ("SESSION_TOKEN", "***"),
        ("DbPassword", "***"),
        ("GOOGLE_CREDENTIALS", "***"),
        ("STAGE", "value"),
    ],
)
def test_values_of_secrets_are_not_shown(name: str, shown: str) -> None:
    assert shown_value(name, "value") == shown


def test_arns_follow_region_account_and_partition() -> None:
    place = Place("cn-north-1", "123456789012", "aws-cn")
    assert place.function("f") == (
        "arn:aws-cn:lambda:cn-north-1:123456789012:function:f"
    )
    assert place.role("r") == "arn:aws-cn:iam::123456789012:role/r"
    assert place.bucket("b") == "arn:aws-cn:s3:::b"
