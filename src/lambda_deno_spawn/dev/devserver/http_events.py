"""HTTP requests as events, and results of functions as HTTP responses.

Knows the forms of function URLs, API Gateway and Application Load Balancer in both
directions. Does not know sockets, functions and clocks. Specification: AWS Lambda
Developer Guide, "Invoking Lambda function URLs"; Amazon API Gateway Developer Guide,
"Working with AWS Lambda proxy integrations for HTTP APIs" and "Lambda proxy
integrations in API Gateway"; ALB guide, "Lambda functions as targets".
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from lambda_deno_spawn.dev.devserver.functions import EventForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACCOUNT = "000000000000"
# Content types whose bodies arrive as text; all others in base64.
TEXT_TYPES = re.compile(
    r"(?:text/.*|application/(?:json|xml|javascript|graphql|.*\+json|.*\+xml))"
)
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
# Fields of the server and its connection to the client, not of a function.
SERVERS_OWN = frozenset(
    {
        *("connection", "keep-alive", "transfer-encoding", "upgrade"),
        *("content-length", "date"),
    }
)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """An HTTP request to a function.

    Attributes:
        path: As it was sent, without the query, and without the function's name.
        query: As it was sent, without the question mark.
        headers: Names in lower case, repeated ones as often as they were sent.
        body: All of it.
        source_ip: Address of the client.
        port: That the client connected to.
        epoch_s: When the request came in; Unix time.
        access_key: Key that the request is signed with; None: it need not be.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str
    port: int
    epoch_s: float
    request_id: str
    access_key: str | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response, whole."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class MalformedResultError(Exception):
    """A result is not a response of the form that the caller expects."""


def event_for(form: EventForm, request: HttpRequest, function_name: str) -> bytes:
    """Return the event that a request becomes."""
    match form:
        case EventForm.URL | EventForm.HTTP_API:
            event = _format_2(request, function_name, is_url=form is EventForm.URL)
        case EventForm.REST_API:
            event = _format_1(request, function_name)
        case _:
            is_multi = form is EventForm.ALB_MULTI
            event = _load_balancer(request, function_name, is_multi=is_multi)
    return ENCODER.encode(event).encode(errors="surrogatepass")


def _format_2(
    request: HttpRequest, function_name: str, *, is_url: bool
) -> dict[str, Any]:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in _forwarded(request):
        if name == "cookie":
            cookies += [each for each in re.split(r"; *", value) if each]
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    query: dict[str, str] = {}
    for name, value in _pairs(request.query):
        query[name] = f"{query[name]},{value}" if name in query else value
    host = headers.get("host", "localhost")
    # An HTTP API decodes the path, however it is called; a function URL does not.
    path = request.path if is_url else unquote(request.path)
    context: dict[str, Any] = {
        "accountId": "anonymous" if is_url and not request.access_key else ACCOUNT,
        "apiId": function_name,
        **(
            {"authorizer": _authorizer(request.access_key)}
            if request.access_key
            else {}
        ),
        "domainName": host,
        "domainPrefix": function_name,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": request.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": _common_log_time(request.epoch_s),
        "timeEpoch": math.floor(request.epoch_s * 1000),
    }
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.query,
        **({"cookies": cookies} if cookies else {}),
        "headers": headers,
        **({"queryStringParameters": query} if query else {}),
        "requestContext": context,
        **({"body": _body(request)[0]} if request.body else {}),
        "isBase64Encoded": bool(request.body) and _body(request)[1],
    }


def _authorizer(access_key: str) -> dict[str, Any]:
    return {
        "iam": {
            "accessKey": access_key,
            "accountId": ACCOUNT,
            "callerId": access_key,
            "cognitoIdentity": None,
            "principalOrgId": None,
            "userArn": f"arn:aws:iam::{ACCOUNT}:user/local",
            "userId": access_key,
        }
    }


def _format_1(request: HttpRequest, function_name: str) -> dict[str, Any]:
    headers = _grouped(_forwarded(request))
    query = _grouped(_pairs(request.query))
    path = request.path  # encoded, unlike the parameter
    body, is_base64 = _body(request)
    last_query = {name: values[-1] for name, values in query.items()}
    host = headers.get("host", ["localhost"])[0]
    return {
        "resource": "/{proxy+}" if path != "/" else "/",
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": last_query or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": unquote(path[1:])} if path != "/" else None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": function_name,
            "domainName": host,
            "domainPrefix": function_name,
            "extendedRequestId": request.request_id,
            "httpMethod": request.method,
            "identity": {
                "accessKey": None,
                "accountId": None,
                "caller": None,
                "cognitoIdentityId": None,
                "cognitoIdentityPoolId": None,
                "principalOrgId": None,
                "sourceIp": request.source_ip,
                "user": None,
                "userAgent": headers.get("user-agent", [""])[0],
                "userArn": None,
            },
            "path": path,
            "protocol": "HTTP/1.1",
            "requestId": request.request_id,
            "requestTime": _common_log_time(request.epoch_s),
            "requestTimeEpoch": math.floor(request.epoch_s * 1000),
            "resourceId": "local",
            "resourcePath": "/{proxy+}" if path != "/" else "/",
            "stage": "local",
        },
        "body": body if request.body else None,
        "isBase64Encoded": bool(request.body) and is_base64,
    }


def _load_balancer(
    request: HttpRequest, function_name: str, *, is_multi: bool
) -> dict[str, Any]:
    headers = _grouped(_forwarded(request))
    # The balancer does not decode them.
    parts = [part.partition("=") for part in request.query.split("&") if part]
    query = _grouped([(name, value) for name, _, value in parts])
    body, is_base64 = _body(request)
    arn = (
        f"arn:aws:elasticloadbalancing:us-east-1:{ACCOUNT}:"
        f"targetgroup/{function_name[:32]}/0123456789abcdef"
    )
    if is_multi:
        fields: dict[str, Any] = {
            "multiValueQueryStringParameters": query,
            "multiValueHeaders": headers,
        }
    else:
        fields = {
            "queryStringParameters": {n: values[-1] for n, values in query.items()},
            "headers": {n: values[-1] for n, values in headers.items()},
        }
    return {
        "requestContext": {"elb": {"targetGroupArn": arn}},
        "httpMethod": request.method,
        "path": request.path,
        **fields,
        "body": body,
        "isBase64Encoded": is_base64,
    }


def _forwarded(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the headers, and those that AWS adds."""
    added = {
        "x-forwarded-for": request.source_ip,
        "x-forwarded-port": str(request.port),
        "x-forwarded-proto": "http",
    }
    kept = [(n, v) for n, v in request.headers if n not in added]
    kept = [(n, v) for n, v in kept if n not in ("connection", "transfer-encoding")]
    return [*kept, *added.items()]


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, max_num_fields=None)


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def _body(request: HttpRequest) -> tuple[str, bool]:
    """Return the body as it is in an event, and whether that is base64."""
    fields = dict(request.headers)
    content_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    if "content-encoding" not in fields and (
        not request.body or TEXT_TYPES.fullmatch(content_type)
    ):
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(request.body).decode(), bool(request.body)


def _common_log_time(epoch_s: float) -> str:
    from time import gmtime

    t = gmtime(epoch_s)
    day = f"{t.tm_mday:02}/{MONTHS[t.tm_mon - 1]}/{t.tm_year}"
    return f"{day}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"


# Results.


def response_for(form: EventForm, result: bytes) -> HttpResponse:
    """Return the response that a function's result stands for.

    Raises:
        MalformedResultError: It stands for none; the message says what is wrong.
    """
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        raise MalformedResultError("the result is not JSON") from None
    is_format_2 = form in (EventForm.URL, EventForm.HTTP_API)
    if is_format_2 and not (isinstance(value, dict) and "statusCode" in value):
        # Format 2.0 takes anything else for the body of a response.
        return HttpResponse(200, [("content-type", "application/json")], result)
    if not isinstance(value, dict):
        raise MalformedResultError("the result is not an object with a statusCode")
    status = status_of(value.get("statusCode"))
    headers = []
    if is_format_2:
        headers = fields_of(value.get("headers"))
        headers += [("set-cookie", cookie) for cookie in _cookies(value)]
    elif form is EventForm.ALB:
        headers = fields_of(value.get("headers"))
    elif form is EventForm.ALB_MULTI:
        headers = fields_of(value.get("multiValueHeaders"))
    else:
        multiple = fields_of(value.get("multiValueHeaders"))
        names = {name.lower() for name, _ in multiple}
        single = fields_of(value.get("headers"))
        headers = [each for each in single if each[0].lower() not in names] + multiple
    if is_format_2 and "content-type" not in {name.lower() for name, _ in headers}:
        headers.append(("content-type", "application/json"))
    body = _result_body(value)
    return HttpResponse(status, headers, b"" if status in BODILESS else body)


def status_of(value: object) -> int:
    """Return a valid status code.

    Raises:
        MalformedResultError: It is not one.
    """
    if isinstance(value, str) and re.fullmatch(r"\d{3}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not 200 <= value <= 599:  # type: ignore[operator]
        raise MalformedResultError(f"statusCode is {json.dumps(value)}, not 200 to 599")
    return value  # type: ignore[return-value]


def fields_of(value: object) -> list[tuple[str, str]]:
    """Return the header fields in a member of a result.

    Raises:
        MalformedResultError: There is something else.
    """
    if value is None:
        return []
    if not isinstance(value, dict):
        raise MalformedResultError("the headers are not an object")
    fields = []
    for name, given in value.items():
        if not HEADER_NAME.fullmatch(name):
            raise MalformedResultError(f"{name!r} is not the name of a header")
        for each in given if isinstance(given, list) else [given]:
            if each is None or name.lower() in SERVERS_OWN:
                continue
            text = each if isinstance(each, str) else json.dumps(each)
            if re.search(r"[\0-\x08\n-\x1f\x7f]", text):
                message = f"the header {name!r} has a control character"
                raise MalformedResultError(message)
            fields.append((name, text))
    return fields


def _cookies(value: Mapping[str, Any]) -> list[str]:
    cookies = value.get("cookies") or []
    if not isinstance(cookies, list):
        raise MalformedResultError("the cookies are not a list")
    return [value for _, value in fields_of({"set-cookie": cookies})]


def _result_body(value: Mapping[str, Any]) -> bytes:
    body = value.get("body")
    if body is None:
        return b""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    if value.get("isBase64Encoded") is True:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise MalformedResultError("the body is not base64") from None
    return text.encode(errors="replace")


def prelude_response(fields: Mapping[str, Any]) -> HttpResponse:
    """Return status and headers of a streamed response, from its prelude.

    Raises:
        MalformedResultError: The prelude is not one.
    """
    status = status_of(fields.get("statusCode", 200))
    multiple = fields_of(fields.get("multiValueHeaders"))
    headers = fields_of(fields.get("headers")) + multiple
    headers += [("set-cookie", cookie) for cookie in _cookies(fields)]
    if "content-type" not in {name.lower() for name, _ in headers}:
        headers.append(("content-type", "application/octet-stream"))
    return HttpResponse(status, headers)


# The response to the caller if the function failed, by form: status and text.
FAILED = {
    EventForm.URL: (502, "Internal Server Error"),
    EventForm.HTTP_API: (500, "Internal Server Error"),
    EventForm.REST_API: (502, "Internal server error"),
    EventForm.ALB: (502, "Bad Gateway"),
    EventForm.ALB_MULTI: (502, "Bad Gateway"),
}


def failure_for(form: EventForm, error: bytes) -> HttpResponse:
    """Return the response after a function error.

    The platform's status, and its text in ``message``. Only here, the error is in the
    response too: the caller is the function's developer.
    """
    status, text = FAILED[form]
    try:
        details = json.loads(error)
    except (ValueError, RecursionError):
        details = error.decode(errors="replace")
    body = {"message": text, "error": details}
    headers = [("content-type", "application/json")]
    return HttpResponse(status, headers, json.dumps(body, indent=2).encode() + b"\n")
