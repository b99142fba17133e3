"""The first line that a worker reads, apart from the rest of the wire protocol.

It is sent at a moment when each import delays the first Deno process of an environment,
and nothing else of the protocol is needed yet. The normative text is docs/protocol.md;
the rest is in ``frames.py``.
"""

from __future__ import annotations

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = 3
# 128 random bits in hex: no output of a program contains it by accident.
MARKER_BYTES = 32


def resume(marker: str, pid: int, *, lingers: bool, place: int | None = None) -> bytes:
    """Return the first line for the stdin of a process that was forked.

    Args:
        marker: As for ``hello``; not that of the process it was forked from.
        pid: Its process id, which Deno has noted of the other process.
        lingers: It is to be looked at when it has served its event, so it must not
            have ended by then.
        place: Which of the template's folders it may use; None: there is one only.
    """
    more = b',"lingers":true' if lingers else b""
    if place is not None:
        more += b',"place":%d' % place
    return b'{"marker":"%s","pid":%d%s}\n' % (marker.encode(), pid, more)


def hello(marker: str, facts: Mapping[str, object]) -> bytes:
    """Return the first line for a worker's stdin.

    Args:
        marker: ``MARKER_BYTES`` hexadecimal characters that no other worker has.
        facts: Values that stay the same for the process's life: export to call, static
            context, log settings; all of them types that JSON has.
    """
    # Here, as Deno starts meanwhile.
    import json

    greeting = {"version": PROTOCOL_VERSION, "marker": marker}
    text = json.dumps({**greeting, **facts}, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"
