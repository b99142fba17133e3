"""The URL of a function in AWS, and the signature of a request to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from lambda_deno_spawn.dev.aws.function_url import FunctionUrl, find_url
from lambda_deno_spawn.dev.aws.session import Aws
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.aws.plan import Call

URL = "https://abc.lambda-url.eu-west-1.on.aws"


class Answers:
    """AWS, with one answer."""

    region = "eu-west-1"
    partition = "aws"

    def __init__(self, answer: Mapping[str, Any] | None) -> None:
        self.calls: list[Call] = []
        self._answer = answer

    def find(self, call: Call) -> Mapping[str, Any] | None:
        self.calls.append(call)
        return self._answer


def test_the_url_and_how_it_is_called_are_read() -> None:
    answer = {
        "FunctionUrl": f"{URL}/",
        "AuthType": "AWS_IAM",
        "InvokeMode": "RESPONSE_STREAM",
    }
    aws = Answers(answer)
    found = find_url(cast("Aws", aws), "orders", "live")
    assert found == FunctionUrl(URL, is_signed=True, is_streamed=True)
    (call,) = aws.calls
    assert call.parameters == {"FunctionName": "orders", "Qualifier": "live"}


def test_a_public_url_is_not_signed() -> None:
    aws = Answers({"FunctionUrl": f"{URL}/", "AuthType": "NONE"})
    assert find_url(cast("Aws", aws), "orders") == FunctionUrl(
        URL, is_signed=False, is_streamed=False
    )


def test_without_a_url_it_says_what_to_do() -> None:
    with pytest.raises(DeployError, match="invoke --remote"):
        find_url(cast("Aws", Answers(None)), "orders")


def test_a_request_is_signed_for_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    headers = Aws("eu-west-1").signed("POST", f"{URL}/a?b=c", {"X-A": "1"}, b"{}")
    assert headers["X-A"] == "1"
    assert headers["X-Amz-Security-Token"] == "token"
    signature = headers["Authorization"]
    assert signature.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/lambda/aws4_request, " in signature
    assert "SignedHeaders=host;x-a;x-amz-date;x-amz-security-token, " in signature
