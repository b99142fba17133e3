"""Events as AWS writes them down: the templates of the SAM CLI, through the runtime."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.integration.rie import RieUnavailableError, sample_events

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.deno]

SERVICES = ("apigateway", "alb", "s3", "sqs", "dynamodb", "sns", "cloudwatch")
PLACEHOLDER = re.compile(r"\{\{\{?(\w+)\}?\}\}")
BODY = {"test": "body"}  # the default body of the HTTP templates

FUNCTION = """
async function digest(event: unknown): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(event));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}
export const handler = async (event: unknown) => ({ digest: await digest(event) });
export default {
  async fetch(request: Request, context: any): Promise<Response> {
    return Response.json({
      digest: await digest(context.event),
      method: request.method,
      url: request.url,
      headers: [...request.headers],
      body: await request.json(),
    });
  },
};
"""


@pytest.fixture(scope="module")
def events() -> dict[str, Any]:
    """Return each template with its default values, by ``service/event``."""
    try:
        folder = sample_events()
    except RieUnavailableError as error:
        reason = f"the SAM CLI's sample events are missing: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    mapping = json.loads((folder / "event-mapping.json").read_bytes())
    return {
        f"{service}/{name}": render(folder / "events" / service, template)
        for service in SERVICES
        for name, template in mapping[service].items()
    }


def render(folder: Path, template: dict[str, Any]) -> Any:
    """Fill a template with its defaults, as ``sam local generate-event`` does."""
    values: dict[str, str] = {}
    mappings: dict[str, Any] = {}
    for tag, properties in template["tags"].items():
        default = properties.get("default", "")
        children = properties.get("children", {})
        for name, how in ({tag: properties} | children).items():
            values[name.replace("-", "_")] = encoded(default, how)
        if properties.get("type") == "dict":
            mappings[f"{{{{{{{tag}}}}}}}"] = json.loads(default)

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(member) for name, member in value.items()}
        if isinstance(value, list):
            return [fill(member) for member in value]
        if not isinstance(value, str):
            return value
        if value in mappings:
            return mappings[value]
        return PLACEHOLDER.sub(lambda match: values.get(match[1], ""), value)

    path = folder / f"{template['filename']}.json"
    return fill(json.loads(path.read_bytes()))


def encoded(value: str, how: dict[str, Any]) -> str:
    """Write a value as its template wants it."""
    if how.get("hashing") == "md5":
        return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    match how.get("encoding"):
        case "base64":
            return base64.b64encode(value.encode()).decode()
        case "url":
            return quote(value)
        case _:
            return value


def digest(event: Any) -> str:
    """Digest an event by the JSON that JavaScript writes for it."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


async def test_every_sample_event_reaches_the_handler_as_it_is(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, events: dict[str, Any]
) -> None:
    assert {name.split("/")[0] for name in events} == set(SERVICES)
    assert "{{" not in json.dumps(events), "every placeholder is filled"
    async with make_runtime({"function.ts": FUNCTION}):
        for name, event in events.items():
            answer = await api.invoke(event)
            assert answer.call == "response", (name, answer.body)
            assert answer.json() == {"digest": digest(event)}, name
        await api.wait_for_next()


# What a Request is made of; all other samples are none.
HTTP = {
    "apigateway/aws-proxy": {
        "url": "https://0123456789.execute-api.us-east-1.amazonaws.com"
        "/path/to/resource?foo=bar",
        "headers": {
            "accept-language": "en-US,en;q=0.8",
            "x-forwarded-for": "127.0.0.1, 127.0.0.2",
        },
        "result": {"headers": {"content-type": "application/json"}},
    },
    "apigateway/http-api-proxy": {
        "url": "https://id.execute-api.us-east-1.amazonaws.com/path/to/resource"
        "?parameter1=value1&parameter1=value2&parameter2=value",
        "headers": {"header2": "value1,value2", "cookie": "cookie1; cookie2"},
        "result": {"headers": {"content-type": "application/json"}},
    },
    "alb/request": {
        "url": "http://lambda-alb-123578498.us-east-2.elb.amazonaws.com"
        "/path/to/resource?query=1234ABCD",
        "headers": {"x-forwarded-port": "80", "accept-encoding": "gzip"},
        "result": {
            "headers": {"content-type": "application/json"},
            "statusDescription": "200 OK",
        },
    },
}


async def test_sample_events_of_http_senders_become_requests_and_no_others(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, events: dict[str, Any]
) -> None:
    async with make_runtime({"function.ts": FUNCTION}, "function.default"):
        for name, event in events.items():
            answer = await api.invoke(event)
            assert answer.call == "response", (name, answer.body)
            result = answer.json()
            expected: dict[str, Any] | None = HTTP.get(name)
            if expected is None:
                assert result == {"digest": digest(event)}, name
                continue
            seen = json.loads(result.pop("body"))
            assert result == {
                "statusCode": 200,
                "isBase64Encoded": False,
                **expected["result"],
            }, name
            headers = dict(seen.pop("headers"))
            assert expected["headers"].items() <= headers.items(), name
            assert seen == {
                "digest": digest(event),
                "method": "POST",
                "url": expected["url"],
                "body": BODY,
            }, name
        await api.wait_for_next()
