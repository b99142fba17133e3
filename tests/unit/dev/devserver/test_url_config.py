"""What a function URL decides by itself: who may call, and which pages of others."""

from __future__ import annotations

import re

import pytest

from lambda_deno_spawn.dev.devserver.url_config import (
    Cors,
    NotSignedError,
    UrlConfig,
    is_preflight,
    signer,
)

SITE = "https://example.com"
CREDENTIAL = "AKIAX/20260101/eu-central-1/lambda/aws4_request"
HEADER = (
    f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=host;x-amz-date, "
    f"Signature={'0' * 64}"
)
DATE = "20260101T000000Z"


@pytest.mark.parametrize(
    ("keys", "is_signed"),
    [
        ({}, False),
        ({"url.enabled": True}, True),  # Lambda's own default
        ({"url.enabled": True, "url.auth": "NONE"}, False),
        ({"url.enabled": True, "url.auth": "AWS_IAM"}, True),
        ({"url.enabled": False, "url.auth": "AWS_IAM"}, False),
    ],
)
def test_a_table_url_without_a_word_about_it_is_for_signed_requests(
    keys: dict[str, object], is_signed: bool
) -> None:
    assert UrlConfig.of(keys).is_signed is is_signed
    assert UrlConfig.of(keys).cors is None


def test_a_response_names_the_origin_that_may_read_it() -> None:
    cors = Cors(
        origins=(SITE, "http://localhost:5173"), expose=("x-a", "x-b"), credentials=True
    )
    assert cors.of_response(SITE) == [
        ("access-control-allow-origin", SITE),
        ("vary", "Origin"),
        ("access-control-expose-headers", "x-a,x-b"),
        ("access-control-allow-credentials", "true"),
    ]
    assert cors.of_response("https://example.com.evil.test") == []
    assert cors.of_response("") == []
    assert cors.of_preflight("null") == []


def test_a_preflight_is_answered_with_all_that_is_set() -> None:
    keys = {
        "url.enabled": True,
        "url.cors.origins": ("*",),
        "url.cors.methods": ("GET", "PUT"),
        "url.cors.headers": ("x-one", "content-type"),
        "url.cors.max_age": 0,
    }
    cors = UrlConfig.of(keys).cors
    assert cors is not None
    assert cors.of_preflight(SITE) == [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-allow-headers", "x-one,content-type"),
        ("access-control-max-age", "0"),
    ]


def test_a_request_for_the_options_is_a_preflight_if_a_browser_sent_it() -> None:
    asked = {"origin": SITE, "access-control-request-method": "PUT"}
    assert is_preflight("OPTIONS", asked)
    assert not is_preflight("GET", asked)
    assert not is_preflight("OPTIONS", {"origin": SITE})
    assert not is_preflight("OPTIONS", {})


def test_a_signature_tells_the_key_it_is_made_with() -> None:
    assert signer({"authorization": HEADER, "x-amz-date": DATE}, "") == "AKIAX"
    query = (
        "a=b&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
        f"{CREDENTIAL.replace('/', '%2F')}&X-Amz-Date={DATE}&X-Amz-Signature=00"
    )
    assert signer({}, query) == "AKIAX"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "Forbidden"),
        ("Bearer AWS4-HMAC-SHA256", "Forbidden"),
        ("AWS4-HMAC-SHA256", "incomplete"),
        (HEADER.replace("Credential=", "Credential=/"), "incomplete"),
        (HEADER.replace("Signature", "Signatur"), "incomplete"),
        (HEADER.replace("/lambda/", "/execute-api/"), "service: 'lambda', not 'exec"),
    ],
)
def test_a_request_that_is_not_signed_for_lambda_is_refused(
    header: str, said: str
) -> None:
    with pytest.raises(NotSignedError, match=re.escape(said)):
        signer({"authorization": header, "x-amz-date": DATE}, "")


def test_a_signature_has_a_date() -> None:
    with pytest.raises(NotSignedError, match="incomplete"):
        signer({"authorization": HEADER}, "")
