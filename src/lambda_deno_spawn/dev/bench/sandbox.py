"""A group of processes: freeze, list or kill them, and measure their CPU time.

Stands for the execution environment. With cgroup v2 and root the kernel does
everything, and no descendant can escape. Otherwise signals are sent down the process
tree, which is coarser but needs no privilege. Does not know what runs inside. Kernel
documentation: "Control Group v2", sections cgroup.freeze, cgroup.kill and cpu.stat.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

END_TIMEOUT_S = 5.0  # a killed process that still exists is a bug worth a traceback
STATE_TIMEOUT_S = 2.0  # if freezing works, it takes far less than a millisecond


class Freezer(StrEnum):
    """How the processes of a sandbox are stopped."""

    CGROUP = "cgroup"  # by the kernel's freezer, all at once
    SIGNALS = "signals"  # by SIGSTOP to each process


class Sandbox(Protocol):
    """A group of processes, as benchmarks use it."""

    @property
    def freezer(self) -> Freezer:
        """How its processes are stopped."""

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a program in the group; its stdout and stderr go to ``output``."""

    def freeze(self) -> None:
        """Stop all processes, and return once all are stopped."""

    def thaw(self) -> None:
        """Let all processes continue."""

    def cpu_s(self) -> float:
        """Return user and system time so far; only differences are meaningful."""

    def process_ids(self) -> frozenset[int]:
        """Return the processes, including zombies."""

    def close(self) -> None:
        """Kill all processes and remove the sandbox; may be called repeatedly."""


def open_sandbox(label: str) -> Sandbox:
    """Return the best sandbox that this machine supports."""
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
    """A new cgroup v2; needs root."""

    freezer = Freezer.CGROUP

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
        """Start a program that is in the cgroup from its first instruction."""
        # The shell starts outside, so its CPU time is not counted.
        enter = ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"']
        inside = [*enter, str(self._path / "cgroup.procs"), *argv]
        process = _start(inside, environ, output)
        self._started.append(process)
        return process

    def freeze(self) -> None:
        """Stop all processes, and return once the kernel reports it."""
        self._switch("cgroup.freeze", "1", until="frozen 1")

    def thaw(self) -> None:
        """Let all processes continue."""
        self._switch("cgroup.freeze", "0", until="frozen 0")

    def cpu_s(self) -> float:
        """Return user and system time of all processes, including exited ones."""
        for line in (self._path / "cpu.stat").read_text().splitlines():
            name, value = line.split()
            if name == "usage_usec":
                return int(value) / 1e6
        raise RuntimeError("cpu.stat has no usage_usec")

    def process_ids(self) -> frozenset[int]:
        """Return the processes; zombies are found through their parents."""
        members = (self._path / "cgroup.procs").read_text().split()
        return frozenset(map(int, members)) | _trees(self._started)

    def close(self) -> None:
        """Kill all processes, frozen or not, and remove the cgroup."""
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
    """Started processes and their descendants, found and signalled one by one."""

    freezer = Freezer.SIGNALS

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a program directly, without a shell."""
        process = _start(argv, environ, output)
        self._started.append(process)
        return process

    def freeze(self) -> None:
        """Stop the tree from the top, so that no process can start another."""
        for pid in sorted(self.process_ids()):
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the tree from the bottom."""
        for pid in sorted(self.process_ids(), reverse=True):
            _send(pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the time of our exited children plus that of the running trees.

        Differences are correct if no other child of ours exits meanwhile. The kernel
        counts running processes in ticks of 10 ms, so the interval must be long, or
        many intervals have to be added up.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = ended.ru_utime + ended.ru_stime
        for pid in self.process_ids():
            # Its own time, and that of children it has waited for: user and system.
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(psutil.Process(pid).cpu_times()[:4])
        return total

    def process_ids(self) -> frozenset[int]:
        """Return the processes of the trees; orphans are not found."""
        return _trees(self._started)

    def close(self) -> None:
        """Kill the trees."""
        for pid in sorted(self.process_ids()):
            _send(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(END_TIMEOUT_S)
        self._started.clear()


def _start(
    argv: Sequence[str], environ: Mapping[str, str], output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(argv),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


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
