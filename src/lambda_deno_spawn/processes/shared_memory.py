"""System V shared memory that programs of an event have left behind: it outlives them.

Nothing else frees it, so one event could take memory from all later ones for good. Does
not know what a worker is. Facts used: sysvipc(7), proc(5) ``sysvipc/shm``, shmctl(2).
"""

from __future__ import annotations

import os

from lambda_deno_spawn.early import suppress
from lambda_deno_spawn.records import NamedTuple

LISTING = "/proc/sysvipc/shm"
IPC_RMID = 0  # linux/ipc.h


class Segment(NamedTuple):
    """A piece of shared memory.

    Attributes:
        id: Its number.
        creator: Process that made it; it may have ended.
        attached: How many processes use it.
        owner: User that made it.
    """

    id: int
    creator: int
    attached: int
    owner: int


class LeftMemory:
    """Removes the segments that nobody uses and that were not there at first."""

    def __init__(self) -> None:
        self._noted: set[int] | None = None

    def note(self) -> None:
        """Note those that are there, before any code of a handler runs."""
        self._noted = {segment.id for segment in segments()}

    def remove(self) -> int:
        """Remove those whose creator has ended; return how many.

        Others may be those of an extension, or of an event that goes on.
        """
        if self._noted is None:
            return 0
        left = [
            segment.id
            for segment in segments()
            if not segment.attached
            and segment.owner == os.geteuid()
            and segment.id not in self._noted
            and not os.path.exists(f"/proc/{segment.creator}")
        ]
        if left:
            import ctypes

            libc = ctypes.CDLL(None)
            for number in left:
                libc.shmctl(number, IPC_RMID, None)
        return len(left)


def segments() -> list[Segment]:
    """List all of them; none if this system does not tell."""
    found = []
    with suppress(OSError), open(LISTING, "rb") as file:
        for line in file.readlines()[1:]:
            fields = [int(field) for field in line.split()]
            _, number, _, _, creator, _, attached, _, _, owner = fields[:10]
            found.append(Segment(number, creator, attached, owner))
    return found


left_memory = LeftMemory()
