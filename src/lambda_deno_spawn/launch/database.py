"""SQLite's write-ahead log, merged into its database.

Deno's caches are databases whose contents are mostly in their logs, as the processes
that wrote them were ended by a signal. Each process that opens one has to read the
whole log and compute its checksums. The format: sqlite.org/fileformat2.html, section
4, "The Write-Ahead Log". Does not know what is in a database, and trusts neither file.
"""

from __future__ import annotations

import struct

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = struct.Struct(">8I")  # magic, format, page size, checkpoints, salts, checksums
FRAME = struct.Struct(">6I")  # page, pages after a commit, salts, checksums
SUMMED_BYTES = 8  # of a frame's header
LITTLE_ENDIAN, BIG_ENDIAN = 0x377F0682, 0x377F0683
FORMAT = 3_007_000
PAGE_SIZES = frozenset(2**power for power in range(9, 17))
MAGIC = b"SQLite format 3\0"


def merged(database: bytes, log: bytes, limit_bytes: int) -> bytes | None:
    """Return a database with what its log has committed, None if that is not possible.

    Args:
        database: The file's content.
        log: That of the file beside it.
        limit_bytes: How large the result may be.
    """
    if len(log) < HEADER.size:
        return None
    magic, version, size, _, *salts, first, second = HEADER.unpack_from(log)
    order = {LITTLE_ENDIAN: "<", BIG_ENDIAN: ">"}.get(magic)
    if order is None or version != FORMAT or size not in PAGE_SIZES:
        return None
    if (first, second) != _checksum(order, (0, 0), [log[: HEADER.size - 8]]):
        return None
    pages: dict[int, int] = {}
    uncommitted: dict[int, int] = {}
    before, last, count = (first, second), None, 0
    step = FRAME.size + size
    for at in range(HEADER.size, len(log) - step + 1, step):
        page, total, *frame_salts, first, second = FRAME.unpack_from(log, at)
        if frame_salts != salts or page == 0:
            break
        if page * size > limit_bytes:
            return None
        uncommitted[page] = at + FRAME.size
        if total:
            pages |= uncommitted
            uncommitted = {}
            last, count = (at, before, (first, second)), total
        before = first, second
    if last is None or not 0 < count * size <= limit_bytes:
        return None
    # A frame is written after those in front of it, so only the last one may have been
    # copied in the middle of that.
    at, before, stored = last
    summed = [log[at : at + SUMMED_BYTES], log[at + FRAME.size : at + step]]
    if _checksum(order, before, summed) != stored:
        return None
    result = bytearray(database[: count * size].ljust(count * size, b"\0"))
    for page, start in pages.items():
        if page <= count:
            result[(page - 1) * size : page * size] = log[start : start + size]
    return bytes(result) if result.startswith(MAGIC) else None


def _checksum(
    order: str, begun: tuple[int, int], parts: Iterable[bytes]
) -> tuple[int, int]:
    first, second = begun
    for part in parts:
        words = struct.unpack(f"{order}{len(part) // 4}I", part)
        for even, odd in zip(words[::2], words[1::2], strict=True):
            first = (first + even + second) & 0xFFFFFFFF
            second = (second + odd + first) & 0xFFFFFFFF
    return first, second
