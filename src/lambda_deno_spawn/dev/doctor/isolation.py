"""A hostile pair of events: the first plants, the second looks what it can find.

Knows how the pair is run, by the real runtime and by a control: one process for all
events, as every other runtime is. A way to leak that the control does not show proves
nothing. Refuses to know the ways (they are the handler's, isolation_probe.js) and how
the runtime works: it is a process of its own, and does not know that it is tested.
Specification: docs/doctor.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lambda_deno_spawn.dev.local.log_pipe import LogPipe
from lambda_deno_spawn.dev.local.process_tree import ProcessTree
from lambda_deno_spawn.dev.local.runtime import (
    bootstrap_command,
    deno_binary,
    lambda_environ,
    started,
)
from lambda_deno_spawn.dev.project.function import Function, InvokeOptions
from lambda_deno_spawn.errors import LambdaDenoSpawnError
from lambda_deno_spawn.permissions import STEERING
from lambda_deno_spawn.processes.descendants import become_subreaper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.config import Strategy
    from lambda_deno_spawn.dev.local.emulator import Emulator
    from lambda_deno_spawn.dev.local.environment import EmulatedInvocation
    from lambda_deno_spawn.dev.local.runtime import LocalRuntime

HERE = Path(__file__).parent
PROBE = HERE / "isolation_probe.js"
CONTROL = HERE / "isolation_control.js"
CHILDREN = HERE / "isolation_children.py"
EVENT_LIMIT_S = 30.0
# How long the second event waits for a sign of life: fifty times its period.
PATIENCE_MS = 1000
EVIDENCE_LIMIT = 100  # characters
REAP_ROUNDS = 20  # each ends one generation of processes
REAP_ROUND_S = 1.0
LOG_LINE = "log-line"  # the one check that is decided by the log
# Those that are decided by what is on the disk after the second event.
IMPORTED_CODE, LEFT_FILES = "imported-code", "left-files"
# Started between us and the control, whose hostile event makes its parent nicer.
PARENT = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


class IsolationError(LambdaDenoSpawnError):
    """The pair of events could not be run, so nothing is known."""


class Permissions(StrEnum):
    """What the hostile handler may do."""

    ALL = "all"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Row:
    """What a pair of events tells of one way to leak.

    Attributes:
        leaked: None: it could not be planted, or not be seen.
    """

    planted: str
    leaked: bool | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of a pair of events.

    Attributes:
        rows: By the id of the check.
        parents: Parent process of the handler's, event by event: the supervisor.
        is_alive: The runtime had not exited when the second event was over.
        failure: Why the second event has no answer; None if it has one.
    """

    rows: Mapping[str, Row]
    parents: tuple[int, ...] = ()
    is_alive: bool = True
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class IsolationCheck:
    """One way to leak, tried twice.

    Attributes:
        permissions: What the handler was allowed, in the runtime.
        planted: What the first event did.
        control: Whether the second event found it in one process for all events; None:
            it could not be tried. If not True, the check proves nothing.
        leaked: Whether it found it in the runtime; None: it could not be tried.
        evidence: What the second event saw in the runtime.
    """

    id: str
    permissions: Permissions
    planted: str
    control: bool | None
    leaked: bool | None
    evidence: str


@dataclass(frozen=True, slots=True)
class SurvivalCheck:
    """Something of the runtime that the first event must not have broken."""

    id: str
    permissions: Permissions
    ok: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What leaked and what did not."""

    strategy: str
    checks: tuple[IsolationCheck, ...]
    survival: tuple[SurvivalCheck, ...]

    @property
    def leaked(self) -> int:
        """How many checks found something."""
        return sum(check.leaked is True for check in self.checks)

    @property
    def is_ok(self) -> bool:
        """True if nothing leaked and the runtime is as it was."""
        return self.leaked == 0 and all(check.ok for check in self.survival)


async def examine_isolation(
    strategy: Strategy, environ: Mapping[str, str]
) -> IsolationReport:
    """Run the pair in the control, and in the runtime with either permissions.

    Nothing that was started is left when this returns, raises or is cancelled. On Linux
    this process becomes the parent of orphans for the rest of its life, to that end.

    Raises:
        IsolationError: The first event, or the control, did not get through.
        ConfigError: There is no Deno.
    """
    own = {
        name: value
        for name, value in environ.items()
        # Somebody's settings are not what is tested; credentials are not for the probe.
        if name == "LAMBDA_DENO_BIN"
        # A proxy of this machine's would stand between the probe and its own.
        or not (name in STEERING or name.startswith(("AWS_", "LAMBDA_", "DENO")))
    }
    with _descendants_ended():
        control = await _control(own)
        if control.failure is not None:
            raise IsolationError(
                f"Cannot complete the control, one process for all events: "
                f"{control.failure}"
            )
        pairs = {
            permissions: await _runtime(strategy, permissions, own)
            for permissions in Permissions
        }
    return compare(strategy, control, pairs)


def compare(
    strategy: str, control: Pair, pairs: Mapping[Permissions, Pair]
) -> IsolationReport:
    """Put what the runtime did beside what the control did."""
    checks = [
        IsolationCheck(
            id=name,
            permissions=permissions,
            planted=row.planted,
            control=control.rows[name].leaked if name in control.rows else None,
            leaked=row.leaked,
            evidence=row.evidence,
        )
        for permissions, pair in pairs.items()
        for name, row in pair.rows.items()
    ]
    survival = [
        check
        for permissions, pair in pairs.items()
        for check in _survival(permissions, pair)
    ]
    return IsolationReport(strategy, tuple(checks), tuple(survival))


def _survival(permissions: Permissions, pair: Pair) -> Iterator[SurvivalCheck]:
    yield SurvivalCheck(
        "second-event-answered",
        permissions,
        pair.failure is None,
        pair.failure or "its answer is whole",
    )
    ids = " and ".join(str(pid) for pid in pair.parents)
    is_same = len(pair.parents) == 2 and len(set(pair.parents)) == 1
    yield SurvivalCheck(
        "same-supervisor",
        permissions,
        is_same and pair.is_alive,
        f"process {pair.parents[0]} served both"
        if is_same and pair.is_alive
        else f"served by {ids or 'none'}, {'alive' if pair.is_alive else 'exited'}",
    )


async def _control(environ: Mapping[str, str]) -> Pair:
    with _folders() as folders:
        _write_config(folders)
        private = folders.temp / "private"
        private.mkdir()
        # A copy: the handler writes to it.
        script = str(shutil.copy(CONTROL, folders.scratch))
        return await _pair(
            [
                sys.executable, "-I", "-S", "-c", PARENT, deno_binary(environ),
                "run", "--quiet", "--no-prompt", "--allow-all",
                "--config", str(folders.task / "deno.json"), script,
            ],
            "control",
            {
                "DENO_DIR": str(folders.deno_dir),
                "HOME": str(private),
                "TMPDIR": str(private),
            },
            folders,
            environ,
        )  # fmt: skip


async def _runtime(
    strategy: Strategy, permissions: Permissions, environ: Mapping[str, str]
) -> Pair:
    variables = {
        "LAMBDA_DENO_STRATEGY": strategy.value,
        "LAMBDA_DENO_WARM": "ready",
    }
    with _folders() as folders:
        if permissions is Permissions.ALL:
            _write_config(folders)
            variables["LAMBDA_DENO_PERMISSIONS"] = "all"
            variables["DENO_DIR"] = str(folders.deno_dir)
        else:  # as most are: no configuration, and no cache of its own
            variables["DENO_DIR"] = ""
        return await _pair(
            bootstrap_command(), permissions.value, variables, folders, environ
        )


@dataclass(frozen=True, slots=True)
class _Folders:
    """What one environment has of the disk."""

    task: Path
    temp: Path
    scratch: Path
    deno_dir: Path


@contextlib.contextmanager
def _folders() -> Iterator[_Folders]:
    with tempfile.TemporaryDirectory(
        prefix="lambda-deno-spawn-", ignore_cleanup_errors=True
    ) as name:
        root = Path(name)
        folders = _Folders(*(root / n for n in ("task", "tmp", "scratch", "deno_dir")))
        for folder in (folders.task, folders.temp, folders.scratch, folders.deno_dir):
            folder.mkdir()
        shutil.copy(PROBE, folders.task)
        yield folders


def _write_config(folders: _Folders) -> None:
    # With a configuration, Deno keeps what a handler stores under its path.
    (folders.task / "deno.json").write_text('{ "unstable": ["kv"] }\n', "utf-8")


async def _pair(
    command: Sequence[str],
    permissions: str,
    variables: Mapping[str, str],
    folders: _Folders,
    environ: Mapping[str, str],
) -> Pair:
    """Start a runtime, have it handle both events, and end it."""
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.local.emulator import Emulator

    options = InvokeOptions(
        Function(folders.task, f"{PROBE.stem}.handler"), variables=variables
    )
    nonce = secrets.token_hex(8)
    log = io.BytesIO()
    async with Witness() as witness, Emulator() as emulator:
        event = {
            "permissions": permissions,
            "nonce": nonce,
            "scratch": str(folders.scratch),
            "tempRoot": str(folders.temp),
            "runtimeApi": emulator.address,
            "witnessPort": witness.port,
            "helper": [sys.executable, "-I", "-S", str(CHILDREN)],
            "patienceMs": PATIENCE_MS,
        }
        variables = lambda_environ(
            options, emulator.address, str(folders.temp), environ
        )
        with LogPipe(log) as pipe:
            tree = ProcessTree(mark=str(folders.temp))
            function = options.function
            async with started(command, variables, function, pipe, tree) as runtime:
                first = await _answer(emulator, runtime, {**event, "phase": "plant"})
                if first.failure is not None:
                    raise IsolationError(
                        f"Cannot plant anything ({permissions} permissions): "
                        f"{first.failure}{_tail(log)}"
                    )
                event |= {"phase": "look", "planted": first.rows}
                second = await _answer(emulator, runtime, event)
                is_alive = runtime.process.returncode is None
                on_disk = _on_disk(folders, nonce)
    late = f"late line {nonce}"
    lines = log.getvalue().decode(errors="replace").splitlines()
    wrong = sum(late in line and second.request_id in line for line in lines)
    rows = {
        name: _row(
            name, fields["planted"], second.rows.get(name), wrong, on_disk, folders
        )
        for name, fields in first.rows.items()
    }
    failure = None if second.failure is None else second.failure + _tail(log)
    return Pair(rows, first.parents + second.parents, is_alive, failure)


def _on_disk(folders: _Folders, nonce: str) -> dict[str, int]:
    """Count the files that the first event has left, by the id of the check."""
    found = {IMPORTED_CODE: 0, LEFT_FILES: 0}
    code = f"code of {nonce}".encode()
    for top in (folders.temp, folders.deno_dir):
        for folder, _, names in os.walk(top):
            if f"left-{nonce}" in folder:
                found[LEFT_FILES] += len(names)
                continue
            for name in names:
                # What is being removed, or closed to us, is not to be found.
                with contextlib.suppress(OSError):
                    file = Path(folder, name)
                    if file.is_file() and code in file.read_bytes():
                        found[IMPORTED_CODE] += 1
    return found


def _row(
    name: str,
    planted: str,
    found: Mapping[str, Any] | None,
    wrong_lines: int,
    on_disk: Mapping[str, int],
    folders: _Folders,
) -> Row:
    if found is None:
        return Row(planted, None, "the second event was not answered")
    leaked, evidence = found["leaked"], str(found["evidence"])
    if name == LOG_LINE and leaked is not None:
        leaked = wrong_lines > 0
        evidence = f"{wrong_lines} lines of the first event carry it"
    if name in on_disk and leaked is not None:
        leaked = on_disk[name] > 0
        evidence = f"{on_disk[name]} files of it are on the disk"
    # As they are called on Lambda.
    evidence = evidence.replace(str(folders.temp), "/tmp")
    evidence = evidence.replace(str(folders.task), "/var/task")
    evidence = evidence.replace(sys.executable, Path(sys.executable).name)
    if len(evidence) > EVIDENCE_LIMIT:
        evidence = evidence[:EVIDENCE_LIMIT] + "..."
    return Row(planted, leaked, evidence)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of an event: the handler's rows, or a failure in words."""

    request_id: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    failure: str | None = None


async def _answer(
    emulator: Emulator, runtime: LocalRuntime, event: Mapping[str, object]
) -> _Answer:
    """Have an event handled, to the moment in which the next one is asked for."""
    invocation = emulator.state.queue(
        json.dumps(event).encode(), timeout_s=EVENT_LIMIT_S
    )
    exit_watch = asyncio.create_task(_wake_at_exit(emulator, runtime))
    try:
        await emulator.wait_until(
            lambda: invocation.end is not None or exit_watch.done(),
            2 * EVENT_LIMIT_S,
        )
    finally:
        exit_watch.cancel()
    return _read(invocation, runtime.process.returncode)


async def _wake_at_exit(emulator: Emulator, runtime: LocalRuntime) -> None:
    # No limit: whoever waits for the event's end has one.
    await runtime.process.wait()
    asyncio.get_running_loop().call_soon(emulator.wake)


def _read(invocation: EmulatedInvocation, returncode: int | None) -> _Answer:
    from lambda_deno_spawn.dev.local.environment import OutcomeKind

    outcome = invocation.outcome
    if outcome is None:
        state = (
            "it was not answered in time"
            if returncode is None
            else f"the runtime exited with code {returncode}"
        )
        return _Answer(invocation.request_id, failure=state)
    text = outcome.body.decode(errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if outcome.kind is not OutcomeKind.RESPONSE or not isinstance(value, dict):
        return _Answer(invocation.request_id, failure=f"the answer is {text}")
    return _Answer(invocation.request_id, value["rows"], (int(value["ppid"]),))


def _tail(log: io.BytesIO) -> str:
    lines = log.getvalue().decode(errors="replace").splitlines()[-5:]
    return "".join(f"\n  {line}" for line in lines)


class Witness:
    """A server that tells which connections are open; the probe connects to it.

    As a proxy it serves a module for whatever it is asked, and remembers that.
    """

    def __init__(self) -> None:
        self.port = 0
        self._asked: set[str] = set()
        self._open: dict[asyncio.BaseTransport, str] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _WitnessConnection(self._open, self._asked), "127.0.0.1", 0
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for transport in list(self._open):
            transport.close()
        await asyncio.sleep(0)  # let the transports tell that they are closed


class _WitnessConnection(asyncio.Protocol):
    """A connection that lasts (``open NAME``), or asks for another (``ask NAME``).

    Or for what was asked of the proxy (``asked URL``), or asks the proxy (``GET URL``).
    """

    def __init__(
        self, connections: dict[asyncio.BaseTransport, str], asked: set[str]
    ) -> None:
        self._connections = connections
        self._asked = asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections[transport] = ""

    def data_received(self, data: bytes) -> None:
        verb, _, name = data.decode(errors="replace").strip().partition(" ")
        if verb == "GET":
            self._serve_module(name.partition(" ")[0])
            return
        names = self._asked if verb == "asked" else self._connections.values()
        answer = b"open\n" if name in names else b"closed\n"
        if verb == "open":
            self._connections[self._transport] = name
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(answer)

    def _serve_module(self, url: str) -> None:
        self._asked.add(url)
        module = f'export default "{Path(url).stem}";'.encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\n"
            f"Content-Length: {len(module)}\r\nConnection: close\r\n\r\n"
        )
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(head.encode() + module)
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        del self._connections[self._transport]


@contextlib.contextmanager
def _descendants_ended() -> Iterator[None]:
    """End what descends from this process, orphans too, when the context ends."""
    import psutil

    become_subreaper()
    me = psutil.Process()
    spared = set(me.children(recursive=True))
    try:
        yield
    finally:
        for _ in range(REAP_ROUNDS):
            left = set(me.children(recursive=True)) - spared
            if not left:
                break
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=REAP_ROUND_S)
