"""Limits of the platform that several modules of the runtime know.

A constant that one module needs stays there. ``dev/local`` spells Lambda's limits again
on purpose: it is a witness against this module.
"""

from __future__ import annotations

MEBIBYTE = 1024 * 1024
PORT_LIMIT = 65_535
# Buffered responses: 6 MiB and 100 bytes of envelope, the limit that AWS's own emulator
# enforces and names in its 413 answer.
RESPONSE_LIMIT_BYTES = 6_291_556
