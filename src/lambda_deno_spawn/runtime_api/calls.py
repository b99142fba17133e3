"""HTTP calls to one loopback address, and their failures as ``RuntimeApiError``.

Knows addresses, the header fields of every call, and how a response that is not the
expected one is put into words. Does not know what any call is for: see ``client``,
``extension``, ``credentials``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lambda_deno_spawn import __version__
from lambda_deno_spawn.errors import ConfigError, RefusedError, RuntimeApiError
from lambda_deno_spawn.http.http1 import HTTP_OK, HttpError, field_lines, request_head
from lambda_deno_spawn.http.transport import HttpTransport, TruncatedResponseError
from lambda_deno_spawn.limits import PORT_LIMIT
from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.strict_json import JsonError, loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.http.http1 import Field
    from lambda_deno_spawn.http.transport import Response

_PYTHON = sys.version.partition(" ")[0]
USER_AGENT = f"lambda-deno-spawn/{__version__} python/{_PYTHON}"
# An event is at most 6 MiB (AWS "Lambda quotas") and every other response is far
# shorter. A longer body is neither, and is not read into memory.
RESPONSE_LIMIT_BYTES = 7 * 1024 * 1024
# How many characters of the peer's words go into a message.
DETAIL_LIMIT = 200


class Address(NamedTuple):
    """The address that HTTP calls go to.

    Attributes:
        host: Name or IP address, without brackets.
        port: TCP port.
        authority: Value of the Host field.
    """

    host: str
    port: int
    authority: str

    @classmethod
    def of_runtime_api(cls, value: str) -> Address:
        """Parse the value of ``AWS_LAMBDA_RUNTIME_API``.

        Raises:
            ConfigError: It is not ``host:port``.
        """
        host, separator, port = value.rpartition(":")
        is_port = port.isascii() and port.isdigit() and int(port) <= PORT_LIMIT
        is_host = host.isascii() and (":" not in host or host.startswith("["))
        if not (separator and host and is_host and is_port):
            raise ConfigError("AWS_LAMBDA_RUNTIME_API", value, "host:port")
        return cls(host.strip("[]"), int(port), value)

    def transport(self) -> HttpTransport:
        """Return a connection that the first request opens."""
        return HttpTransport(self.host, self.port, RESPONSE_LIMIT_BYTES)

    def common_fields(self) -> str:
        """Return the header lines that every request begins with."""
        return field_lines([("Host", self.authority), ("User-Agent", USER_AGENT)])


async def call_once(
    address: Address,
    call: str,
    method: str,
    target: str,
    fields: Sequence[Field] = (),
    body: bytes = b"",
) -> Response:
    """Make a call on a connection of its own, and wait for 200 without a limit.

    Args:
        address: Where the call goes to.
        call: Its name, for messages.
        method: HTTP method.
        target: Path and query.
        fields: Header fields besides those of every request.
        body: Body of the request.

    Raises:
        RefusedError: The status is not 200. The message quotes the body: secrets are
            in the body of a 200 only.
        RuntimeApiError: There is no response.
    """
    transport = address.transport()
    try:
        lines = address.common_fields() + field_lines(fields)
        head = request_head(method, target, lines, len(body))
        response = await transport.send(head, body)
    except HttpError as error:
        response = response_before(error, call)
    finally:
        await transport.aclose()
    if response.status != HTTP_OK:
        raise refusal(call, response)
    return response


def response_before(error: HttpError, call: str) -> Response:
    """Return the response whose body broke off: its status is known.

    Raises:
        RuntimeApiError: Not even a status was received.
    """
    if isinstance(error, TruncatedResponseError):
        return error.response
    raise RuntimeApiError(call, short(error)) from error


def refusal(call: str, response: Response, meaning: str = "") -> RefusedError:
    """Return what to raise for a response that refuses a call.

    Args:
        call: Name of the call.
        response: The response.
        meaning: What its status means for this call, if that is known.
    """
    detail = _peer_s_words(response)
    if meaning:
        detail = f"{meaning} ({detail})"
    return RefusedError(call, response.status, detail)


def short(error: HttpError) -> str:
    """Return an error's message, bounded: h11 quotes what broke HTTP in full."""
    return str(error)[:DETAIL_LIMIT]


def _peer_s_words(response: Response) -> str:
    """Return error type and message of an error body; of any other, its beginning."""
    try:
        body = loads(response.body)
        words = [body["errorType"], body["errorMessage"]]
    except (JsonError, KeyError, TypeError):
        words = []
    # Values that are not text may be nested too deeply to be printed.
    if words and all(isinstance(word, str) for word in words):
        return ": ".join(word[:DETAIL_LIMIT] for word in words)
    return repr(response.body[:DETAIL_LIMIT])
