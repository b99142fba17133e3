"""The first line that a worker reads, apart from the rest of the wire protocol.

It is sent before anything else of the protocol is needed, at a moment when each import
delays the first Deno process of an environment. The normative text is docs/protocol.md;
the rest is in ``protocol.py``.
"""

from __future__ import annotations

import json

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = 2
# 128 random bits in hex: no output of a program contains it by accident.
MARKER_BYTES = 32
# Buffered responses: 6 MiB and 100 bytes of envelope, the limit AWS's own emulator
# enforces and names in its 413 answer.
RESPONSE_LIMIT_BYTES = 6_291_556


def hello(marker: str, facts: Mapping[str, object]) -> bytes:
    """Return the first line for a worker's stdin.

    Args:
        marker: ``MARKER_BYTES`` hexadecimal characters that no other worker has.
        facts: What stays the same for the process's life: export to call, static
            context, log settings; must hold what JSON can.
    """
    greeting = {"version": PROTOCOL_VERSION, "marker": marker}
    # Not orjson, which imports a fifth of the standard library.
    text = json.dumps({**greeting, **facts}, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"
