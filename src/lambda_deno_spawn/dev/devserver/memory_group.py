"""A memory limit that the kernel keeps, for the processes of one environment.

Knows both versions of control groups, and that most machines give a developer none:
then there is no group, and the limit is kept by measuring. Does not know what runs in
it. Specification: Linux kernel, "Control Group v2" and "Memory Resource Controller".
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOUNTS = Path("/proc/self/mounts")
# Without a group the program starts all the same.
ENTER = 'echo $$ >"$0" 2>/dev/null; exec "$@"'


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group with a memory limit."""

    path: Path

    @classmethod
    def create(cls, limit_bytes: int) -> MemoryGroup | None:
        """Make a group below the highest one that may be changed; None: none may."""
        for root, is_v2 in _roots():
            path = root / f"lambda-deno-spawn-{uuid.uuid4().hex[:12]}"
            try:
                path.mkdir()
            except OSError:
                continue
            group = cls(path)
            name = "memory.max" if is_v2 else "memory.limit_in_bytes"
            swap = "memory.swap.max" if is_v2 else "memory.memsw.limit_in_bytes"
            try:
                (path / name).write_text(str(limit_bytes))
            except OSError:
                group.remove()
                continue
            # Lambda does not swap; absent where the kernel does not account for it.
            with contextlib.suppress(OSError):
                (path / swap).write_text("0" if is_v2 else str(limit_bytes))
            return group
        return None

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one in the group."""
        return ["/bin/sh", "-c", ENTER, str(self.path / "cgroup.procs"), *command]

    def remove(self) -> None:
        """Remove the group, after its last process has ended."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _roots() -> list[tuple[Path, bool]]:
    """Return folders in which groups with a memory limit may be made, and versions."""
    found = []
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return []  # not Linux
    for line in lines:
        _, place, kind, options, *_ = line.split()
        path = Path(place)
        if not os.access(path, os.W_OK):
            continue
        if kind == "cgroup" and "memory" in options.split(","):
            found.append((path, False))
        elif kind == "cgroup2" and _has_memory(path):
            found.append((path, True))
    return found


def _has_memory(root: Path) -> bool:
    """Return whether groups below a root of version 2 have memory limits."""
    control = root / "cgroup.subtree_control"
    try:
        if "memory" not in control.read_text().split():
            control.write_text("+memory")
    except OSError:
        return False
    return True
