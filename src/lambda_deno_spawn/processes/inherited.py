"""Limits, priority and processors, which a process passes on to its children.

A program of the same user may change them in another
process: without this, what one event does to the runtime, or to a process that is
copied, would be there for all later events. Does not know what a worker is. Facts used:
prlimit(2), setpriority(2), sched_setaffinity(2).
"""

from __future__ import annotations

import os
import resource
import sys

from lambda_deno_spawn.early import suppress
from lambda_deno_spawn.processes.descendants import lose
from lambda_deno_spawn.records import NamedTuple

INHERITED_LOST = (
    "Cannot undo what a handler's program has done to the runtime's own limits or "
    "priority: later events have them, too"
)
IS_LINUX = sys.platform == "linux"
# By the names that reports use.
LIMITS = {
    name: getattr(resource, name)
    for name in dir(resource)
    # The same as RLIMIT_NOFILE on Linux.
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


class Inherited(NamedTuple):
    """The limits, priority and processors that a process passes on.

    Attributes:
        limits: Soft and hard limits, in the order of ``LIMITS``.
        priority: Its nice value.
        policy: How the kernel schedules it.
        processors: Those that it may run on.
    """

    limits: tuple[tuple[int, int], ...]
    priority: int
    policy: int
    processors: frozenset[int]

    @classmethod
    def of(cls, pid: int) -> Inherited | None:
        """Read it, which takes 10 µs.

        Args:
            pid: A process of this user; 0: this one.

        Returns:
            None if the process is gone, or the system does not tell.
        """
        if not IS_LINUX:
            return None
        with suppress(OSError):
            return cls(
                tuple(resource.prlimit(pid, limit) for limit in LIMITS.values()),
                os.getpriority(os.PRIO_PROCESS, pid),
                os.sched_getscheduler(pid),
                frozenset(os.sched_getaffinity(pid)),
            )
        return None


class OwnInheritance:
    """The values that this process passes on, as they were at first."""

    def __init__(self) -> None:
        self._noted: Inherited | None = None

    def note(self) -> None:
        """Note it, before any code of a handler runs."""
        self._noted = Inherited.of(0)

    def restore(self) -> None:
        """Undo what others have changed; note what cannot be undone as lost."""
        noted, found = self._noted, Inherited.of(0)
        if noted is None or found is None or noted == found:
            return
        if noted.processors != found.processors:
            with suppress(OSError):
                os.sched_setaffinity(0, noted.processors)
        for limit, before, now in zip(
            LIMITS.values(), noted.limits, found.limits, strict=True
        ):
            if before != now:
                _restore_limit(limit, before, now)
        if noted.policy != found.policy:
            with suppress(OSError):
                os.sched_setscheduler(0, noted.policy, os.sched_param(0))
        if noted.priority != found.priority:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, noted.priority)
        # The rest stays, and is reported once.
        left = Inherited.of(0)
        if left is not None and left != noted:
            lose(INHERITED_LOST, _difference(noted, left))
            self._noted = left


def _restore_limit(limit: int, before: tuple[int, int], now: tuple[int, int]) -> None:
    with suppress(OSError, ValueError):
        resource.prlimit(0, limit, before)
        return
    # Only root can raise a hard limit again.
    soft, hard = before[0], now[1]
    is_above = hard != resource.RLIM_INFINITY and (
        soft == resource.RLIM_INFINITY or soft > hard
    )
    with suppress(OSError, ValueError):
        resource.prlimit(0, limit, (hard if is_above else soft, hard))


def _difference(before: Inherited, now: Inherited) -> str:
    parts = [
        f"{name} {was} is {now_is}"
        for name, was, now_is in zip(LIMITS, before.limits, now.limits, strict=True)
        if was != now_is
    ]
    for name in ("priority", "policy", "processors"):
        was, now_is = getattr(before, name), getattr(now, name)
        if was != now_is:
            parts.append(f"{name} {was} is {now_is}")
    return ", ".join(parts)


own_inheritance = OwnInheritance()
