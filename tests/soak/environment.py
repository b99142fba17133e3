"""The environment of a soak's runtime: its limits, its user, its freezer.

Knows how to put a runtime into it, and how to check that it is there. Does not know
what the runtime does. Root creates everything from outside; without root, only the
plain environment is available.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests import cgroups
from tests.as_lambda import GID, UID
from tests.cgroups import MIB, Cgroup
from tests.integration.harness import deno_binary
from tests.soak import enclosure

if TYPE_CHECKING:
    from tests.integration.harness import RuntimeUnderTest

ROOT = Path(__file__).parents[2]
# Memory for the supervisor, a Deno process and a handler.
MEMORY_MB = 400
# Threads count too; Deno has a dozen.
PROCESSES_LIMIT = 150
# Lambda's limit for all of an environment.
MANAGED_PROCESSES_LIMIT = 1024
STATE_LIMIT_MS = 2000
STRATEGIES = ("fresh", "server")
PERMISSIONS = ("all", "default")


class SetupError(Exception):
    """The environment differs from the requested one."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings of a soak's environment.

    Attributes:
        memory_mb: Memory size, and limit of the control group; None: the function is
            told 512 MB, and the limit is large enough for all kinds.
        concurrency: Number of events at once; above 1 it is a Managed Instance.
        strategy: Value of ``LAMBDA_DENO_STRATEGY``.
        permissions: Value of ``LAMBDA_DENO_PERMISSIONS``: ``all``; ``default``: unset.
        is_forked: Processes are forks of a loaded one (``LAMBDA_DENO_START=fork``).
        is_auto: They are as long as there is room (``LAMBDA_DENO_START=auto``).
        is_frozen: Freeze the environment between ``next`` and its event.
        is_unprivileged: Run as Lambda's user, with a read-only root and 512 MB of /tmp.
    """

    memory_mb: int | None = None
    concurrency: int = 1
    strategy: str = "fresh"
    permissions: str = "all"
    is_forked: bool = False
    is_auto: bool = False
    is_frozen: bool = False
    is_unprivileged: bool = False

    @property
    def is_managed(self) -> bool:
        """True if there are several events at once."""
        return self.concurrency > 1

    @property
    def has_template(self) -> bool:
        """True if there may be a process that is copied."""
        return self.is_forked or self.is_auto

    @property
    def _start(self) -> str:
        if self.is_auto:
            return "auto"
        return "fork" if self.is_forked else "exec"

    @property
    def is_server(self) -> bool:
        """True if one process serves all events."""
        return self.strategy == "server"

    def impossible(self) -> str:
        """Return why these settings are not possible (here); empty if they are."""
        if self.is_frozen and self.is_managed:
            return "a Managed Instance is never frozen"
        needs_root = self.memory_mb is not None or self.is_unprivileged
        if (needs_root or self.is_frozen) and os.geteuid() != 0:
            return "memory limits, a freezer and another user need root"
        if self.memory_mb is not None and not cgroups.available():
            return cgroups.unavailable()
        if self.is_unprivileged and (reason := enclosure.unavailable()):
            return reason
        if self.is_frozen and _freezer_root() is None:
            return "no control group of version 2 to freeze"
        return ""

    def variables(self) -> dict[str, str | None]:
        """Return the variables that tell the runtime its settings."""
        found: dict[str, str | None] = {
            # Empty: the runtime chooses the supervisor's folder, as on Lambda.
            "DENO_DIR": None,
        }
        if self.permissions != "default":
            found["LAMBDA_DENO_PERMISSIONS"] = self.permissions
        if self.strategy != "fresh":
            found["LAMBDA_DENO_STRATEGY"] = self.strategy
        # Not the default: it would not say which of them was tried.
        found["LAMBDA_DENO_START"] = self._start
        if self.memory_mb is None:
            # Without its own limit, V8 would use all memory of the group.
            found["LAMBDA_DENO_V8_FLAGS"] = "--max-old-space-size=64"
        else:
            found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = str(self.memory_mb)
        if self.is_managed:
            found["AWS_LAMBDA_MAX_CONCURRENCY"] = str(self.concurrency)
            found["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
        if self.is_unprivileged:
            found["TMPDIR"] = None
        return found


@dataclass(slots=True)
class Environment:
    """Limits, user and freezer of one runtime; a context manager.

    Attributes:
        setup: The requested settings.
        folder: Folder of the environment; outside ``/tmp`` if it is unprivileged.
        group: The control group; None if there is none.
    """

    setup: Setup
    folder: Path
    group: Cgroup | None = None
    _freezer: _Freezer | None = None
    _tmp: int | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Create folder and groups.

        Raises:
            SetupError: That is not possible on this machine.
        """
        if reason := self.setup.impossible():
            raise SetupError(reason)
        with self._stack:
            if cgroups.available():
                memory_mb = self.setup.memory_mb or MEMORY_MB * self.setup.concurrency
                processes = PROCESSES_LIMIT
                if self.setup.is_managed:
                    processes = MANAGED_PROCESSES_LIMIT
                self.group = self._stack.enter_context(
                    Cgroup.create(memory_bytes=memory_mb * MIB, processes=processes)
                )
            if self.setup.is_frozen:
                self._freezer = self._stack.enter_context(_Freezer(self.group))
            for name in ("task", "tmp"):
                (self.folder / name).mkdir()
            if self.setup.is_unprivileged:
                self.folder.chmod(0o755)
                enclosure.prepare(self.folder / "tmp")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the groups, and kill all processes left in them."""
        if self._tmp is not None:
            os.close(self._tmp)
        self._stack.close()

    @property
    def wrapper(self) -> str:
        """Return a shell script that enters the groups and runs its arguments."""
        steps = []
        if self.group is not None:
            steps.append(self.group.wrapper.removesuffix(' && exec "$@"'))
        if self._freezer is not None:
            steps.append(f'echo 0 > "{self._freezer.path}/cgroup.procs"')
        command = 'exec "$@"'
        if self.setup.is_unprivileged:
            shown = [ROOT, self.folder / "task", Path(deno_binary()).resolve().parent]
            words = [
                sys.executable, "-B", "-m", "tests.soak.enclosure",
                self.folder / "tmp", *shown, "--",
            ]  # fmt: skip
            steps.append(f"cd {shlex.quote(str(ROOT))}")
            command = f'exec {shlex.join(map(str, words))} "$@"'
        return " && ".join([*steps, command])

    def watch(self, pid: int) -> dict[str, str]:
        """Check the environment of a running supervisor.

        Returns:
            The settings, as reported by the kernel.

        Raises:
            SetupError: They differ from the requested ones.
        """
        if self.setup.is_unprivileged:
            # Kept open, to read its /tmp after the supervisor has exited.
            self._tmp = os.open(f"/proc/{pid}/root/tmp", os.O_RDONLY)
        facts = self._facts(pid)
        expected: dict[str, str] = {}
        if self.setup.memory_mb is not None:
            expected |= {"memory limit": f"{self.setup.memory_mb} MB", "swap": "off"}
        if self.setup.is_unprivileged:
            expected |= {
                "user and group": f"{UID} {GID}",
                "NoNewPrivs": "1",
                "capabilities": "none",
                "root": "read-only",
                "/tmp": "512 MB",
            }
        for name, value in expected.items():
            if facts[name] != value:
                raise SetupError(f"{name}: {facts[name]}, not {value}")
        return facts

    def tmp_of(self, runtime: RuntimeUnderTest) -> Path:
        """Return the folder that is ``/tmp`` to the runtime."""
        if self._tmp is None:
            return runtime.temp_root
        return Path(f"/proc/self/fd/{self._tmp}")

    def freeze(self) -> None:
        """Freeze the environment, if its settings say so."""
        if self._freezer is not None:
            self._freezer.switch(1)

    def thaw(self) -> None:
        """Thaw the environment."""
        if self._freezer is not None:
            self._freezer.switch(0)

    def _facts(self, pid: int) -> dict[str, str]:
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        ids = [status[name].split()[0] for name in ("Uid", "Gid")]
        held = [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        facts = {
            "user and group": " ".join(ids),
            "NoNewPrivs": status["NoNewPrivs"].strip(),
            "capabilities": " ".join(sorted(set(map(str.strip, held)))),
            "events at once": str(self.setup.concurrency),
            "strategy": self.setup.strategy,
            "processes": "forked" if self.setup.has_template else "started",
            "permissions": self.setup.permissions,
            "frozen": "between events" if self.setup.is_frozen else "never",
            "memory limit": "none",
        }
        if not any(int(one, 16) for one in held):
            facts["capabilities"] = "none"
        if self.group is not None:
            is_inside = pid in self.group.process_ids()
            limit, swap = _memory_limits(self.group.paths["memory"])
            facts["memory limit"] = f"{limit // MIB} MB" if is_inside else "none"
            facts["swap"] = "off" if swap else "on"
        root = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        options = [line.split()[5] for line in root if line.split()[4] == "/"]
        is_read_only = all("ro" in text.split(",") for text in options)
        facts["root"] = "read-only" if is_read_only else "writable"
        if self._tmp is not None:
            size = os.fstatvfs(self._tmp)
            # ext4 needs a part of it.
            is_whole = 0.85 < size.f_blocks * size.f_frsize / enclosure.SIZE_BYTES <= 1
            facts["/tmp"] = "512 MB" if is_whole else f"{size.f_blocks} blocks"
        return facts


def _memory_limits(path: Path) -> tuple[int, bool]:
    """Return the memory limit of a group, and whether swap is disabled for it."""
    if (path / "memory.max").exists():
        swap = path / "memory.swap.max"
        is_off = not swap.exists() or swap.read_text().strip() == "0"
        return int((path / "memory.max").read_text()), is_off
    limit = (path / "memory.limit_in_bytes").read_text()
    both = path / "memory.memsw.limit_in_bytes"
    # If the kernel does not account for swap, there must be no swap.
    has_swap = len(Path("/proc/swaps").read_text().splitlines()) > 1
    is_off = both.read_text() == limit if both.exists() else not has_swap
    return int(limit), is_off


def _freezer_root() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    return None


class _Freezer:
    """A cgroup v2 that can be frozen: the one with the limits, or another one."""

    def __init__(self, group: Cgroup | None) -> None:
        folders = group.paths.values() if group is not None else ()
        frozen = [path for path in folders if (path / "cgroup.freeze").exists()]
        self._is_own = not frozen
        root = _freezer_root()
        assert root is not None
        own = root / f"lambda-deno-spawn-soak-{os.getpid()}-{os.urandom(4).hex()}"
        self.path = frozen[0] if frozen else own

    def __enter__(self) -> Self:
        if self._is_own:
            self.path.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_own:
            return
        self.switch(0)
        (self.path / "cgroup.kill").write_text("1")
        self._wait("populated 0")
        self.path.rmdir()

    def switch(self, state: int) -> None:
        """Freeze or thaw, and return once the kernel reports the state.

        Raises:
            TimeoutError: The kernel does not report it in time.
        """
        (self.path / "cgroup.freeze").write_text(str(state))
        self._wait(f"frozen {state}")

    def _wait(self, text: str) -> None:
        descriptor = os.open(self.path / "cgroup.events", os.O_RDONLY)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLPRI)
            while text not in os.pread(descriptor, 4096, 0).decode():
                if not poll.poll(STATE_LIMIT_MS):
                    raise TimeoutError(f"Cannot reach {text!r} of {self.path}")
        finally:
            os.close(descriptor)
