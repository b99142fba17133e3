"""Secrets by reference: signatures, and what becomes of a value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lambda_deno_spawn.config import SecretReference, Settings
from lambda_deno_spawn.errors import ConfigError, SecretError
from lambda_deno_spawn.runtime_api.secrets import (
    SERVICES,
    Keys,
    _variable,
    signed_headers,
)

ENVIRON = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001", "_HANDLER": "function.handler"}
SECRET = "hunter2"


@pytest.mark.parametrize("token", ["", "token/+=="])
@pytest.mark.parametrize("name", list(SERVICES))
def test_signature_is_that_of_aws_s_own_sdk(name: str, token: str) -> None:
    service, body = SERVICES[name], b'{"SecretId":"\xc3\xa4"}'
    headers = signed_headers(
        Keys("AKIDEXAMPLE", "wJalrXUtnFEMI", token), service, "eu-central-1",
        "host.example:8080", "GetSecretValue", body, "20261128T131500Z",
    )  # fmt: skip
    request = AWSRequest("POST", "https://host.example:8080/", data=body)
    for header, value in headers.items():
        if header not in ("authorization", "host", "x-amz-security-token"):
            request.headers[header] = value
    request.context["timestamp"] = "20261128T131500Z"
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", token or None)
    oracle = SigV4Auth(credentials, service.host, "eu-central-1")
    if token:
        request.headers["x-amz-security-token"] = token
    canonical = oracle.canonical_request(request)
    signature = oracle.signature(oracle.string_to_sign(request, canonical), request)
    assert headers["authorization"].endswith(f"Signature={signature}")
    signed = oracle.signed_headers(oracle.headers_to_sign(request))
    assert f"SignedHeaders={signed}," in headers["authorization"]


def settings(value: str, **more: str) -> Settings:
    return Settings.from_environ(
        {**ENVIRON, "LAMBDA_DENO_SECRETS": value, **more}, "/var/task"
    )


def test_references_are_read() -> None:
    arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:orders/db-Ab12Cd"
    found = settings(f"DB=ssm:/orders/db:3\n KEY=secretsmanager:{arn}#password ")
    assert found.secrets == (
        SecretReference("DB", "ssm", "/orders/db:3"),
        SecretReference("KEY", "secretsmanager", arn, "password"),
    )
    assert [one.text for one in found.secrets] == [
        "ssm:/orders/db:3",
        f"secretsmanager:{arn}#password",
    ]
    assert settings("").secrets == ()


@pytest.mark.parametrize(
    "value",
    [
        SECRET, f"DB={SECRET}", f"DB=vault:{SECRET}", "DB=ssm:", "DB=ssm:a#", "DB=",
        f"1={SECRET}", "AWS_KEY=ssm:a", "LAMBDA_DENO_ENV=ssm:a", "_X=ssm:a",
        "DB=ssm:a DB=ssm:b", f"=ssm:{SECRET}",
    ],
)  # fmt: skip
def test_what_is_not_a_reference_is_refused_and_not_quoted(value: str) -> None:
    with pytest.raises(ConfigError, match="Cannot use LAMBDA_DENO_SECRETS") as caught:
        settings(value)
    assert SECRET not in str(caught.value)


def test_no_snapshot_contains_a_secret() -> None:
    with pytest.raises(ConfigError, match="the snapshot would contain the secrets"):
        settings("DB=ssm:a", AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")


@pytest.mark.parametrize(
    ("key", "stored", "value"),
    [
        ("", "text\nof two lines", "text\nof two lines"),
        ("", '{"a": 1}', '{"a": 1}'),
        ("a", {"a": "x", "b": "y"}, "x"),
        ("a", {"a": 5432}, "5432"),
        ("a", {"a": True}, "true"),
        ("a", {"a": ""}, ""),
    ],
)
def test_secret_or_its_member_is_the_value(key: str, stored: Any, value: str) -> None:
    text = stored if isinstance(stored, str) else json.dumps(stored)
    reference = SecretReference("DB", "ssm", "/orders/db", key)
    assert _variable(reference, text) == value


@pytest.mark.parametrize(
    ("key", "stored", "problem"),
    [
        ("a", SECRET, "it is not a JSON object, so it has no member; leave out '#a'"),
        ("a", f'["{SECRET}"]', "it is not a JSON object"),
        ("a", f'{{"b": "{SECRET}"}}', "the member 'a' is missing"),
        ("a", f'{{"a": ["{SECRET}"]}}', "the member 'a' is not text"),
        ("", f"{SECRET}\0", "it contains a NUL character"),
    ],
)
def test_value_that_cannot_be_a_variable_is_refused_and_not_quoted(
    key: str, stored: str, problem: str
) -> None:
    with pytest.raises(SecretError) as caught:
        _variable(SecretReference("DB", "ssm", "/orders/db", key), stored)
    assert problem in str(caught.value)
    assert "'DB' (ssm:/orders/db" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_credentials_are_not_shown() -> None:
    assert repr(Keys("a", SECRET, SECRET)) == "Keys(***)"
