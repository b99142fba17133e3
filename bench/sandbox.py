"""A group of processes that can be frozen, charged for CPU, listed and ended as one.

Stands for the execution environment. With cgroup v2 and root, the kernel does all of it
and no descendant can slip out; otherwise signals walk the tree of processes, which is
coarser but needs no privilege. Refuses to know what runs inside. Kernel documentation:
"Control Group v2", sections cgroup.freeze, cgroup.kill and cpu.stat.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

END_TIMEOUT_S = 5.0  # a killed process that is still there is a bug worth a traceback
STATE_TIMEOUT_S = 2.0  # freezing takes well under a millisecond when it works


class Sandbox(Protocol):
    """What every benchmark needs of its processes."""

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a program inside; its stdout and stderr go to ``output``."""

    def freeze(self) -> None:
        """Stop every process inside and return when all of them stand still."""

    def thaw(self) -> None:
        """Let every process inside continue."""

    def cpu_s(self) -> float:
        """Return user and system time used so far; only differences mean anything."""

    def process_ids(self) -> frozenset[int]:
        """Return the processes inside, zombies included."""

    def close(self) -> None:
        """Kill everything inside and remove the sandbox; harmless if repeated."""


def open_sandbox(label: str) -> Sandbox:
    """Return the best sandbox this machine allows."""
    parent = _cgroup2_root()
    if parent is not None:
        path = parent / f"lambda-deno-spawn-bench-{os.getpid()}-{label}"
        with contextlib.suppress(OSError):
            path.mkdir()
            if (path / "cgroup.freeze").exists() and (path / "cpu.stat").exists():
                return CgroupSandbox(path)
            path.rmdir()
    return TreeSandbox()


def _cgroup2_root() -> Path | None:
    mounts = Path("/proc/self/mounts")
    if os.geteuid() != 0 or not mounts.exists():
        return None
    for line in mounts.read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(path)
    return None


class CgroupSandbox:
    """A cgroup v2 of its own; needs root."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a program inside; it is a member before its first instruction."""
        # The shell's own start-up happens outside, so it is not charged.
        enter = ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"']
        process = subprocess.Popen(
            [*enter, str(self._path / "cgroup.procs"), *argv],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def freeze(self) -> None:
        """Stop every process inside and return when the kernel says all are."""
        self._switch("cgroup.freeze", "1", until="frozen 1")

    def thaw(self) -> None:
        """Let every process inside continue."""
        self._switch("cgroup.freeze", "0", until="frozen 0")

    def cpu_s(self) -> float:
        """Return user and system time of all processes inside, ended ones included."""
        for line in (self._path / "cpu.stat").read_text().splitlines():
            name, value = line.split()
            if name == "usage_usec":
                return int(value) / 1e6
        raise RuntimeError("cpu.stat has no usage_usec")

    def process_ids(self) -> frozenset[int]:
        """Return the processes inside; zombies are found through their parents."""
        members = (self._path / "cgroup.procs").read_text().split()
        return frozenset(map(int, members)) | _trees(self._started)

    def close(self) -> None:
        """Kill everything inside, frozen or not, and remove the cgroup."""
        if not self._path.exists():
            return
        self._switch("cgroup.kill", "1", until="populated 0")
        for process in self._started:
            process.wait(END_TIMEOUT_S)
        self._path.rmdir()

    def _switch(self, name: str, value: str, *, until: str) -> None:
        (self._path / name).write_text(value)
        give_up = time.monotonic() + STATE_TIMEOUT_S
        while until not in (self._path / "cgroup.events").read_text():
            if time.monotonic() > give_up:
                raise TimeoutError(f"Cannot reach {until!r} after writing {name}")


class TreeSandbox:
    """The descendants of what was started, found and signalled one by one."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a program without anything between us and its first instruction."""
        process = subprocess.Popen(
            list(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def freeze(self) -> None:
        """Stop the tree from the top, so that no parent starts a child meanwhile."""
        for pid in sorted(self.process_ids()):
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the tree from the bottom."""
        for pid in sorted(self.process_ids(), reverse=True):
            _send(pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return time of ended children of ours plus that of the living trees.

        Right for a difference over a span in which nothing else of ours ended. The
        kernel counts a living tree in ticks of 10 ms, so the span must be long.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = ended.ru_utime + ended.ru_stime
        for process in self._started:
            if process.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += sum(psutil.Process(process.pid).cpu_times()[:4])
        return total

    def process_ids(self) -> frozenset[int]:
        """Return the living trees; a process whose parents are gone is not seen."""
        return _trees(self._started)

    def close(self) -> None:
        """Kill the trees."""
        for pid in sorted(self.process_ids()):
            _send(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(END_TIMEOUT_S)
        self._started.clear()


def _trees(roots: Sequence[subprocess.Popen[bytes]]) -> frozenset[int]:
    found: set[int] = set()
    for root in roots:
        if root.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                top = psutil.Process(root.pid)
                found |= {root.pid, *(one.pid for one in top.children(recursive=True))}
    return frozenset(found)


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
