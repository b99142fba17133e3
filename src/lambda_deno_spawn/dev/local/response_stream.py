"""A streamed response as the caller sees it: HTTP prelude and body.

Knows the form of a prelude, and how to show a stream while it is received. Does not
know how the stream was sent. Specification: API Gateway Developer Guide, "Set up a
Lambda proxy integration with payload response streaming in API Gateway".
"""

from __future__ import annotations

import asyncio
import json
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from lambda_deno_spawn.dev.local.environment import EmulatedInvocation

HTTP_CONTENT_TYPE = "application/vnd.awslambda.http-integration-response"
PRELUDE_END = b"\0" * 8
PRELUDE_LIMIT_BYTES = 16 * 1024  # API Gateway does not look for its end beyond


@dataclass(frozen=True, slots=True)
class HttpPrelude:
    """Status and headers of a streamed HTTP response, sent before its body.

    Attributes:
        fields: ``statusCode``, ``headers``, ``cookies``, and any other that was sent.
    """

    fields: dict[str, Any]

    @classmethod
    def from_bytes(cls, text: bytes) -> HttpPrelude | None:
        """Parse the bytes before the eight zeros; None if they are not a prelude."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        return cls({"statusCode": 200, "headers": {}, "cookies": [], **fields})

    def line(self) -> str:
        """Return status, headers and cookies as one line, named as in HTTP."""
        headers: list[tuple[object, object]] = []
        for member in ("headers", "multiValueHeaders"):
            if isinstance(values := self.fields.get(member), dict):
                headers += values.items()
        if isinstance(cookies := self.fields["cookies"], list):
            headers.append(("set-cookie", cookies))
        parts = [f"HTTP {self.fields['statusCode']}"]
        for name, value in headers:
            values = value if isinstance(value, list) else [value]
            parts += [f"{name}: {each}" for each in values]
        return " ".join("; ".join(parts).split())


def split_prelude(
    payload: bytes | bytearray, content_type: str
) -> tuple[HttpPrelude | None, bytes] | None:
    """Split the bytes of a streamed response, or its first part, into prelude and body.

    Returns:
        None while the prelude is incomplete. The prelude is None if the response has
        none.
    """
    if not _is_http(content_type):
        return None, bytes(payload)
    head, end, body = bytes(payload).partition(PRELUDE_END)
    if end and len(head) <= PRELUDE_LIMIT_BYTES:
        prelude = HttpPrelude.from_bytes(head)
        return (None, bytes(payload)) if prelude is None else (prelude, body)
    if len(payload) >= PRELUDE_LIMIT_BYTES + len(PRELUDE_END):
        return None, bytes(payload)
    return None


def _is_http(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == HTTP_CONTENT_TYPE


class StreamView:
    """Shows a streamed response while it is received.

    The body goes to a file, flushed piece by piece; the HTTP prelude is a line of the
    log. A slow reader of the file makes the handler wait, and nothing else.

    Attributes:
        error: Why the file cannot be written to any more; None while it can.
    """

    def __init__(
        self,
        file: BinaryIO | None,
        say: Callable[[str], None],
        on_error: Callable[[], None],
    ) -> None:
        """Show nothing yet.

        Args:
            file: Where the body goes; it has a descriptor. None: nothing is shown.
            say: Writes a line of the log.
            on_error: Called when ``error`` is set.
        """
        self.error: OSError | None = None
        self._file = file
        self._say = say
        self._on_error = on_error
        self._head: bytearray | None = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._poll = select.poll()
        if file is not None:
            self._poll.register(file, select.POLLOUT)

    async def show(self, invocation: EmulatedInvocation, chunk: bytes) -> None:
        """Show the next piece; return when the reader has room for more."""
        if self._head is None:
            await self._write(chunk)
            return
        self._head += chunk
        parts = split_prelude(self._head, invocation.content_type)
        if parts is None:
            return
        self._head = None
        prelude, body = parts
        if _is_http(invocation.content_type):
            self._say_prelude(prelude)
        await self._write(body)

    async def finish(self) -> None:
        """Show the bytes that were held back for a prelude that was never sent."""
        if self._head:
            head, self._head = bytes(self._head), None
            self._say_prelude(None)
            await self._write(head)

    def close(self) -> None:
        """Show nothing any more; a ``show`` that waits returns."""
        self._file = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _say_prelude(self, prelude: HttpPrelude | None) -> None:
        if self._file is None:
            return
        if prelude is not None:
            self._say(prelude.line())
            return
        self._say(
            f"Note: the content type is {HTTP_CONTENT_TYPE!r}, but the response does "
            "not begin with a JSON object and 8 zeros; it is shown as it is"
        )

    async def _write(self, data: bytes) -> None:
        # A pipe that has room takes PIPE_BUF bytes without blocking (pipe(7)). Files
        # always have room, and could not be waited for.
        try:
            for start in range(0, len(data), select.PIPE_BUF):
                if self._file is not None and not self._poll.poll(0):
                    await self._room(self._file.fileno())
                if self._file is not None:
                    self._file.write(data[start : start + select.PIPE_BUF])
                    self._file.flush()
        except OSError as error:
            self.error = error
            self.close()
            self._on_error()

    async def _room(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()

        def wake() -> None:
            loop.remove_writer(descriptor)
            if not waiter.done():
                waiter.set_result(None)

        loop.add_writer(descriptor, wake)
        try:
            await waiter  # no limit: `close` ends it
        finally:
            loop.remove_writer(descriptor)
