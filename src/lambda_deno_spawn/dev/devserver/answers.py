"""Requests read within limits, and responses sent piece by piece, over ASGI.

Knows how a body is read that may be too large, and how a stream is sent whose client
may read slowly or hang up. Does not know what is asked for. Specification: ASGI, "HTTP
Connection Scope".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

# A body that is too large is read on so far before the response, because clients send
# all of it before they look for one.
DRAINED_LIMIT_BYTES = 64 * 1024 * 1024

FIELDS = "lambda_deno_spawn.fields"  # in a request's scope


class BodyTooLargeError(Exception):
    """The body of a request exceeds the limit."""


def request_fields(scope: Scope) -> dict[str, str]:
    """Return the header fields of a request by their names; the first of a name counts.

    They are decoded once for each request.
    """
    fields: dict[str, str] | None = scope.get(FIELDS)
    if fields is None:
        fields = scope[FIELDS] = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(scope["headers"])
        }
    return fields


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        BodyTooLargeError: It exceeds the limit.
        ClientDisconnect: The client hung up before its end.
    """
    body = bytearray()
    drained_bytes = 0
    async for chunk in request.stream():
        if len(body) <= limit_bytes:
            body += chunk
        drained_bytes += len(chunk)
        if drained_bytes > DRAINED_LIMIT_BYTES:
            break
    if len(body) > limit_bytes:
        raise BodyTooLargeError
    return bytes(body)


class Answer:
    """A whole response, or the beginning of a streamed one.

    Args:
        pieces: The rest; None: ``body`` is all. What follows an exception of the kind
            ``CutError`` is not sent: the client sees that the response is incomplete.
        on_end: Called when nothing more will be sent, whatever the reason.
    """

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
        *,
        pieces: AsyncIterator[bytes] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Send nothing yet."""
        self.status = status
        self.headers = list(headers)
        self.body = body
        self._pieces = pieces
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; called by Starlette."""
        # A client of HTTP/1.0 cannot read chunks.
        is_old = self._pieces is not None and scope.get("http_version") == "1.0"
        if is_old and not await self._collect():
            self._on_end()
            return  # uvicorn responds with an error
        fields = list(self.headers)
        if self._pieces is None and self.status not in (204, 304):
            fields.append(("content-length", str(len(self.body))))
        encoded = [(name.lower().encode(), _encoded(value)) for name, value in fields]
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status,
                    "headers": encoded,
                }
            )
            if self._pieces is not None:
                async for piece in self._pieces:
                    await _send_body(send, piece, has_more=True)
            await _send_body(send, self.body, has_more=False)
        except (CutError, OSError, ClientDisconnect):
            return  # without its end: uvicorn closes the connection
        finally:
            self._on_end()

    async def _collect(self) -> bool:
        """Read all pieces; return whether they are complete."""
        assert self._pieces is not None
        body = bytearray()
        try:
            async for piece in self._pieces:
                body += piece
        except CutError:
            return False
        self.body, self._pieces = bytes(body), None
        return True


class CutError(Exception):
    """A streamed response ends before it is complete."""


async def _send_body(send: Send, body: bytes, *, has_more: bool) -> None:
    message = {"type": "http.response.body", "body": body, "more_body": has_more}
    await send(message)


def _encoded(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode(errors="replace")
