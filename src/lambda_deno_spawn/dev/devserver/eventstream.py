"""Messages of ``application/vnd.amazon.eventstream``, and those of Lambda's stream.

Knows how a message is written. Does not know what is sent. Specification: Smithy 2.0,
"Amazon Event Stream Specification"; Lambda API reference, InvokeWithResponseStream.
"""

from __future__ import annotations

import binascii
import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE = "application/vnd.amazon.eventstream"
PRELUDE = struct.Struct(">II")  # length of the message, length of its headers
CHECKSUM = struct.Struct(">I")  # CRC-32
STRING = 7  # type of a header's value
PAYLOAD_LIMIT_BYTES = 16 * 1024 * 1024  # of one message


def message(headers: Mapping[str, str], payload: bytes = b"") -> bytes:
    """Return a message.

    Args:
        headers: Names and values; all are sent as strings.
        payload: At most ``PAYLOAD_LIMIT_BYTES``.
    """
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    around_bytes = PRELUDE.size + CHECKSUM.size + CHECKSUM.size
    prelude = PRELUDE.pack(around_bytes + len(encoded) + len(payload), len(encoded))
    head = prelude + CHECKSUM.pack(binascii.crc32(prelude))
    whole = head + encoded + payload
    return whole + CHECKSUM.pack(binascii.crc32(whole))


def chunk(payload: bytes) -> bytes:
    """Return the message for a piece of the function's response."""
    return b"".join(
        message(
            {
                ":event-type": "PayloadChunk",
                ":content-type": "application/octet-stream",
                ":message-type": "event",
            },
            payload[start : start + PAYLOAD_LIMIT_BYTES],
        )
        for start in range(0, len(payload), PAYLOAD_LIMIT_BYTES)
    )


def complete(
    error_code: str | None = None, details: str | None = None, log: str | None = None
) -> bytes:
    """Return the last message of a stream.

    Args:
        error_code: Type of the error that ended the function; None: none did.
        details: The JSON error body.
        log: End of the log, in base64.
    """
    fields = {"ErrorCode": error_code, "ErrorDetails": details, "LogResult": log}
    present = {name: value for name, value in fields.items() if value is not None}
    return message(
        {
            ":event-type": "InvokeComplete",
            ":content-type": "application/json",
            ":message-type": "event",
        },
        json.dumps(present).encode(),
    )


def _header(name: str, value: str) -> bytes:
    name_bytes, value_bytes = name.encode(), value.encode()
    return (
        struct.pack(">B", len(name_bytes))
        + name_bytes
        + struct.pack(">BH", STRING, len(value_bytes))
        + value_bytes
    )
