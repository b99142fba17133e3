"""Requests as events, and results as responses, by the forms that AWS documents."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lambda_deno_spawn.dev.devserver.functions import EventForm
from lambda_deno_spawn.dev.devserver.http_events import (
    HttpRequest,
    MalformedResultError,
    event_for,
    failure_for,
    prelude_response,
    response_for,
)

FORMAT_2 = [EventForm.URL, EventForm.HTTP_API]
FORMAT_1 = [EventForm.REST_API, EventForm.ALB, EventForm.ALB_MULTI]


def event(form: EventForm, **changed: Any) -> dict[str, Any]:
    request = {
        "method": "POST",
        "path": "/a%20b",
        "query": "x=1&x=%C3%A4&empty=",
        "headers": [
            ("host", "localhost:3000"),
            ("content-type", "application/json; charset=utf-8"),
            ("accept", "a"),
            ("accept", "b"),
            ("cookie", "s=1; t=2"),
            ("x-forwarded-for", "6.6.6.6"),
        ],
        "body": b'{"a":1}',
        "source_ip": "127.0.0.1",
        "port": 3000,
        "epoch_s": 1_767_225_603.5,
        "request_id": "id",
        **changed,
    }
    made = event_for(form, HttpRequest(**request), "orders")
    value: dict[str, Any] = json.loads(made)
    return value


@pytest.mark.parametrize("form", FORMAT_2)
def test_format_2(form: EventForm) -> None:
    value = event(form)
    assert value["version"] == "2.0"
    assert value["routeKey"] == "$default"
    path = "/a%20b" if form is EventForm.URL else "/a b"
    assert value["rawPath"] == value["requestContext"]["http"]["path"] == path
    assert value["rawQueryString"] == "x=1&x=%C3%A4&empty="
    assert value["queryStringParameters"] == {"x": "1,ä", "empty": ""}
    assert value["cookies"] == ["s=1", "t=2"]
    assert value["headers"]["accept"] == "a,b"
    assert "cookie" not in value["headers"]
    assert value["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert value["headers"]["x-forwarded-proto"] == "http"
    assert value["headers"]["x-forwarded-port"] == "3000"
    assert value["body"] == '{"a":1}'
    assert value["isBase64Encoded"] is False
    context = value["requestContext"]
    assert context["timeEpoch"] == 1_767_225_603_500
    assert context["time"] == "01/Jan/2026:00:00:03 +0000"
    assert (context["requestId"], context["stage"]) == ("id", "$default")
    is_url = form is EventForm.URL
    assert context["accountId"] == ("anonymous" if is_url else "000000000000")


def test_format_2_leaves_out_what_is_not_there() -> None:
    value = event(EventForm.URL, query="", body=b"", headers=[("host", "h")])
    absent = {"cookies", "queryStringParameters", "body"}
    assert absent & set(value) == set()
    assert value["isBase64Encoded"] is False


def test_format_1() -> None:
    value = event(EventForm.REST_API)
    assert value["path"] == value["requestContext"]["path"] == "/a%20b"
    assert value["pathParameters"] == {"proxy": "a b"}
    assert value["queryStringParameters"] == {"x": "ä", "empty": ""}
    assert value["multiValueQueryStringParameters"]["x"] == ["1", "ä"]
    assert value["multiValueHeaders"]["accept"] == ["a", "b"]
    assert value["headers"]["accept"] == "b"
    assert value["headers"]["cookie"] == "s=1; t=2"
    assert value["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"
    empty = event(EventForm.REST_API, query="", body=b"", path="/")
    assert empty["body"] is None
    assert empty["queryStringParameters"] is None
    assert empty["pathParameters"] is None
    assert (empty["resource"], empty["path"]) == ("/", "/")


def test_the_load_balancer_decodes_nothing_and_has_one_flavour() -> None:
    single, multi = event(EventForm.ALB), event(EventForm.ALB_MULTI)
    assert single["path"] == multi["path"] == "/a%20b"
    assert single["queryStringParameters"] == {"x": "%C3%A4", "empty": ""}
    assert multi["multiValueQueryStringParameters"]["x"] == ["1", "%C3%A4"]
    assert "multiValueHeaders" not in single
    assert "headers" not in multi
    assert "elb" in single["requestContext"]
    assert event(EventForm.ALB, body=b"")["body"] == ""


@pytest.mark.parametrize("form", [*FORMAT_2, *FORMAT_1])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\x89PNG", [("content-type", "image/png")]),
        (b"\xff", [("content-type", "text/plain")]),
        (b"a=1", [("content-type", "application/x-www-form-urlencoded")]),
        (b"plain", []),
        (b"{}", [("content-type", "application/json"), ("content-encoding", "br")]),
    ],
)
def test_what_is_not_certainly_text_is_base64(
    form: EventForm, body: bytes, headers: list[tuple[str, str]]
) -> None:
    value = event(form, body=body, headers=[("host", "h"), *headers])
    assert value["isBase64Encoded"] is True
    assert base64.b64decode(value["body"]) == body


# Results.


@pytest.mark.parametrize("form", FORMAT_2)
@pytest.mark.parametrize("result", [b'"Hello"', b'{"a":1}', b"null", b"[1, 2]", b"3"])
def test_format_2_infers_a_response(form: EventForm, result: bytes) -> None:
    response = response_for(form, result)
    assert (response.status, response.body) == (200, result)
    assert response.headers == [("content-type", "application/json")]


@pytest.mark.parametrize("form", FORMAT_1)
@pytest.mark.parametrize("result", [b'"Hello"', b"null", b"[]", b'{"body":"x"}'])
def test_others_infer_nothing(form: EventForm, result: bytes) -> None:
    with pytest.raises(MalformedResultError):
        response_for(form, result)


def test_status_headers_cookies_and_body_are_sent() -> None:
    value = {
        "statusCode": 201,
        "headers": {"X-A": "1", "X-N": 2, "X-Null": None, "Content-Length": "99"},
        "cookies": ["a=1", "b=2"],
        "body": base64.b64encode(b"\xff").decode(),
        "isBase64Encoded": True,
    }
    response = response_for(EventForm.URL, json.dumps(value).encode())
    assert (response.status, response.body) == (201, b"\xff")
    assert response.headers == [
        ("X-A", "1"),
        ("X-N", "2"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-type", "application/json"),
    ]


def test_which_headers_count_depends_on_the_form() -> None:
    value = {
        "statusCode": 200,
        "headers": {"A": "single", "B": "b"},
        "multiValueHeaders": {"a": ["1", "2"]},
    }
    result = json.dumps(value).encode()
    merged = response_for(EventForm.REST_API, result).headers
    assert merged == [("B", "b"), ("a", "1"), ("a", "2")]
    alb = response_for(EventForm.ALB, result).headers
    assert alb == [("A", "single"), ("B", "b")]
    multi = response_for(EventForm.ALB_MULTI, result).headers
    assert multi == [("a", "1"), ("a", "2")]


@pytest.mark.parametrize(
    "value",
    [
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": "abc"},
        {"statusCode": True},
        {"statusCode": None},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "headers": {"a": "\0"}},
        {"statusCode": 200, "cookies": "a=1"},
        {"statusCode": 200, "body": "*", "isBase64Encoded": True},
    ],
)
def test_what_cannot_be_sent_is_malformed(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedResultError):
        response_for(EventForm.URL, json.dumps(value).encode())


def test_a_result_that_is_not_json_is_malformed() -> None:
    with pytest.raises(MalformedResultError, match="not JSON"):
        response_for(EventForm.URL, b"{")


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    result = json.dumps({"statusCode": status, "body": "x"}).encode()
    assert response_for(EventForm.URL, result).body == b""


def test_a_prelude_has_defaults() -> None:
    response = prelude_response({})
    assert response.status == 200
    assert response.headers == [("content-type", "application/octet-stream")]
    given = prelude_response({"headers": {"Content-Type": "a/b"}, "cookies": ["c=1"]})
    assert given.headers == [("Content-Type", "a/b"), ("set-cookie", "c=1")]


@pytest.mark.parametrize(
    ("form", "status"), [("url", 502), ("v2", 500), ("v1", 502), ("alb", 502)]
)
def test_a_failure_has_the_platform_s_status_and_the_error(
    form: str, status: int
) -> None:
    response = failure_for(EventForm(form), b'{"errorType":"E"}')
    assert response.status == status
    assert json.loads(response.body)["error"] == {"errorType": "E"}
    assert json.loads(failure_for(EventForm(form), b"\xff").body)["error"] == "\ufffd"
