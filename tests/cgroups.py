"""Memory, process and CPU limits as the kernel enforces them on Lambda; need root.

Knows both versions of control groups: each controller is used where it is mounted (v1)
or enabled (v2). Refuses to know what runs inside. Kernel documentation: "Control Group
v2"; "Memory Resource Controller" and "Process Number Controller" of version 1.

    with Cgroup.create(memory_bytes=300 * MIB, processes=64) as group:
        runtime = make_runtime(files)
        runtime.wrapper = group.wrapper
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1024 * 1024
CONTROLLERS = ("memory", "pids", "cpu")
CPU_PERIOD_US = 100_000  # the kernel's own default
# Killing ends at once but for a stuck system call; a process may fork meanwhile.
END_LIMIT_S = 30.0
END_ROUNDS = 50
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Root:
    """Where groups of one controller can be made."""

    path: Path
    is_v2: bool


@functools.cache
def _roots() -> dict[str, _Root]:
    """Return the usable controllers; of two places for one the first that is found."""
    found: dict[str, _Root] = {}
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return found
    for line in mounts.read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        path = Path(place)
        if kind == "cgroup":
            names, is_v2 = set(options.split(",")), False
        elif kind == "cgroup2":
            names, is_v2 = _enabled_v2(path), True
        else:
            continue
        for name in CONTROLLERS:
            if name in names and os.access(path, os.W_OK):
                found.setdefault(name, _Root(path, is_v2))
    return found


def _enabled_v2(root: Path) -> set[str]:
    """Return the controllers that groups below the root have; enable what can be."""
    there = set((root / "cgroup.controllers").read_text().split())
    control = root / "cgroup.subtree_control"
    for name in there & set(CONTROLLERS):
        # Refused where processes live in this group and it is not the real root.
        with contextlib.suppress(OSError):
            control.write_text(f"+{name}")
    return set(control.read_text().split())


@functools.cache
def unavailable(*controllers: str) -> str:
    """Return why groups with these controllers cannot be made; empty if they can.

    Without arguments: with all of ``CONTROLLERS``.
    """
    if os.geteuid() != 0:
        return "control groups need root"
    if missing := set(controllers or CONTROLLERS) - set(_roots()):
        return f"no cgroup controller to write to: {', '.join(sorted(missing))}"
    try:
        with Cgroup.create(
            memory_bytes=64 * MIB if "memory" in (controllers or CONTROLLERS) else None,
            processes=16 if "pids" in (controllers or CONTROLLERS) else None,
            cpus=1 if "cpu" in (controllers or CONTROLLERS) else None,
        ):
            return ""
    except OSError as error:
        return f"a cgroup cannot be made: {error}"


def available(*controllers: str) -> bool:
    """Tell whether groups with these controllers (all by default) can be made."""
    return not unavailable(*controllers)


class Cgroup:
    """A group of processes under limits. Use as a context manager.

    Leaving it kills everything inside and removes the group.

    Attributes:
        paths: Its folder for each controller; the same one twice under v2.
    """

    def __init__(self, paths: dict[str, Path], roots: dict[str, _Root]) -> None:
        self.paths = paths
        self._roots = roots

    @classmethod
    def create(
        cls,
        *,
        memory_bytes: int | None = None,
        processes: int | None = None,
        cpus: float | None = None,
    ) -> Self:
        """Make a group with some limits; None: that controller is not used.

        Args:
            memory_bytes: Memory of all together, page cache included; no swap.
            processes: Processes and threads together, as on Lambda.
            cpus: Share of one CPU, or of several.

        Raises:
            OSError: The kernel does not let us; see ``unavailable``.
        """
        name = f"lambda-deno-spawn-test-{os.getpid()}-{next(_numbers)}"
        limits = {"memory": memory_bytes, "pids": processes, "cpu": cpus}
        roots: dict[str, _Root] = {}
        for controller, limit in limits.items():
            if limit is not None:
                if controller not in _roots():
                    raise OSError(f"no cgroup controller {controller!r} to write to")
                roots[controller] = _roots()[controller]
        group = cls({key: root.path / name for key, root in roots.items()}, roots)
        try:
            for path in group._folders():
                path.mkdir()
            if memory_bytes is not None:
                group.limit_memory(memory_bytes)
            if processes is not None:
                group.limit_processes(processes)
            if cpus is not None:
                group.limit_cpus(cpus)
        except OSError:
            group.close()
            raise
        return group

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill and remove."""
        self.close()

    @property
    def wrapper(self) -> str:
        """Shell script that enters the group and becomes the command after it.

        For ``sh -c WRAPPER wrapper COMMAND…``, as ``RuntimeUnderTest.wrapper`` is run.
        """
        enter = [f'echo 0 > "{path}/cgroup.procs"' for path in self._folders()]
        return " && ".join([*enter, 'exec "$@"'])

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return a command that runs another one inside from its first instruction."""
        return ["/bin/sh", "-c", self.wrapper, "wrapper", *argv]

    def add(self, pid: int) -> None:
        """Move a running process into the group; its children stay where they are."""
        for path in self._folders():
            (path / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, limit_bytes: int) -> None:
        """Set the limit anew, also while something runs inside."""
        path = self.paths["memory"]
        if self._roots["memory"].is_v2:
            (path / "memory.max").write_text(str(limit_bytes))
            if (path / "memory.swap.max").exists():
                (path / "memory.swap.max").write_text("0")
            return
        (path / "memory.limit_in_bytes").write_text(str(limit_bytes))
        # Not there unless the kernel accounts for swap.
        with contextlib.suppress(OSError):
            (path / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))

    def limit_processes(self, limit: int) -> None:
        """Set the limit anew, also while something runs inside."""
        (self.paths["pids"] / "pids.max").write_text(str(limit))

    def limit_cpus(self, cpus: float) -> None:
        """Set the limit anew, also while something runs inside."""
        quota = str(int(cpus * CPU_PERIOD_US))
        path = self.paths["cpu"]
        if self._roots["cpu"].is_v2:
            (path / "cpu.max").write_text(f"{quota} {CPU_PERIOD_US}")
            return
        (path / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
        (path / "cpu.cfs_quota_us").write_text(quota)

    def process_ids(self) -> list[int]:
        """Return the processes inside, without zombies."""
        found: set[int] = set()
        for path in self._folders():
            found |= set(map(int, (path / "cgroup.procs").read_text().split()))
        return sorted(found)

    def process_count(self) -> int:
        """Return how many processes and threads are charged now."""
        return int((self.paths["pids"] / "pids.current").read_text())

    def memory_bytes(self) -> int:
        """Return the memory charged now."""
        v2, v1 = "memory.current", "memory.usage_in_bytes"
        return int(self._read_memory(v2, v1))

    def peak_memory_bytes(self) -> int | None:
        """Return the most that was charged; None where the kernel does not keep it."""
        v2, v1 = "memory.peak", "memory.max_usage_in_bytes"
        try:
            return int(self._read_memory(v2, v1))
        except FileNotFoundError:  # memory.peak is younger than v2
            return None

    def oom_kills(self) -> int:
        """Return how many processes inside the kernel has killed for their memory."""
        for line in self._read_memory("memory.events", "memory.oom_control").split(
            "\n"
        ):
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        raise OSError("the kernel does not count its kills")

    def close(self) -> None:
        """Kill everything inside and remove the group; harmless if repeated."""
        for path in self._folders():
            if path.exists():
                _empty(path)
                path.rmdir()

    def _read_memory(self, v2: str, v1: str) -> str:
        name = v2 if self._roots["memory"].is_v2 else v1
        return (self.paths["memory"] / name).read_text()

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys(self.paths.values()))


def _empty(path: Path) -> None:
    """Kill and wait until nobody is left in a group."""
    for _ in range(END_ROUNDS):
        pids = list(map(int, (path / "cgroup.procs").read_text().split()))
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], END_LIMIT_S)
                finally:
                    os.close(descriptor)
