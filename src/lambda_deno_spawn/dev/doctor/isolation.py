"""A hostile pair of events: the first plants data, the second searches for it.

Knows how to run the pair, in the real runtime and in a control: one process for all
events, like every other runtime. A check that does not leak in the control proves
nothing. Does not know the checks, which are in the handler (isolation_probe.js), or how
the runtime works: it runs as a separate process, unaware of the test. Specification:
docs/doctor.md.
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

from lambda_deno_spawn.config import Start, Strategy
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
from lambda_deno_spawn.native.control import library_path
from lambda_deno_spawn.permissions import STEERING
from lambda_deno_spawn.processes.descendants import become_subreaper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.local.emulator import Emulator
    from lambda_deno_spawn.dev.local.environment import EmulatedInvocation
    from lambda_deno_spawn.dev.local.runtime import LocalRuntime

HERE = Path(__file__).parent
PROBE = HERE / "isolation_probe.js"
FORKED = b'"start":"fork"'  # in the metrics of an event
HOLDS = "ISOLATION_PROBE_HOLDS"  # the probe's own variable
CONTROL = HERE / "isolation_control.js"
CHILDREN = HERE / "isolation_children.py"
EVENT_LIMIT_S = 30.0
# How long the second event waits for a heartbeat: fifty times its period.
PATIENCE_MS = 1000
EVIDENCE_LIMIT = 100  # characters
# The first processes of an environment are started, not copied: so many events before
# the pair.
EARLIER_EVENTS = 3
REAP_ROUNDS = 20  # each kills one generation of processes
REAP_ROUND_S = 1.0
# Checks that are decided here: one by the log, two by the files on the disk after the
# second event.
LOG_LINE, IMPORTED_CODE, LEFT_FILES = "log-line", "imported-code", "left-files"
# Started between us and the control, whose hostile event makes its parent nicer.
PARENT = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


class IsolationError(LambdaDenoSpawnError):
    """The pair of events could not be run, so there is no result."""


class Permissions(StrEnum):
    """Permissions of the hostile handler."""

    ALL = "all"
    DEFAULT = "default"


class Case(StrEnum):
    """A pair of events: its permissions, and what the handler's module does at first.

    Its value is what the probe knows it by.
    """

    ALL = "all"
    # While it loads, the module makes what two processes cannot share.
    HOLDING = "holding"
    DEFAULT = "default"

    @property
    def permissions(self) -> Permissions:
        """Return the permissions of the handler."""
        is_default = self is Case.DEFAULT
        return Permissions.DEFAULT if is_default else Permissions.ALL


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one check in one pair of events.

    Attributes:
        planted: What the first event did.
        leaked: None: the data could not be planted, or not be searched for.
        evidence: What the second event found.
    """

    planted: str
    leaked: bool | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Results of a pair of events.

    Attributes:
        rows: Results of the checks, by id.
        parents: Process id of the handler's parent, the supervisor, for each event.
        is_alive: The runtime was still running after the second event.
        failure: Why the second event has no response; None if it has one.
    """

    rows: Mapping[str, Row]
    parents: tuple[int, ...] = ()
    is_alive: bool = True
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class IsolationCheck:
    """One check, in the runtime and in the control.

    Attributes:
        permissions: Permissions of the handler in the runtime.
        planted: What the first event did.
        control: Whether the control leaked; None: not tried. If this is not True, the
            check proves nothing.
        leaked: Whether the runtime leaked; None: not tried.
        evidence: What the second event found in the runtime.
        forked: Whether it leaked with ``LAMBDA_DENO_START=auto``; None: not tried.
        fork_evidence: What the second event found then.
    """

    id: str
    permissions: Permissions
    planted: str
    control: bool | None
    leaked: bool | None
    evidence: str
    forked: bool | None = None
    fork_evidence: str = ""


@dataclass(frozen=True, slots=True)
class SurvivalCheck:
    """A property of the runtime that the first event must not break.

    Attributes:
        start: How the processes of the events began: exec or fork.
    """

    id: str
    permissions: Permissions
    ok: bool
    evidence: str
    start: Start = Start.EXEC


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """Results of all checks."""

    strategy: str
    checks: tuple[IsolationCheck, ...]
    survival: tuple[SurvivalCheck, ...]

    @property
    def leaked(self) -> int:
        """Number of checks that leaked in the runtime."""
        return sum(True in (check.leaked, check.forked) for check in self.checks)

    @property
    def is_ok(self) -> bool:
        """True if nothing leaked and the runtime is intact."""
        return self.leaked == 0 and all(check.ok for check in self.survival)


async def examine_isolation(
    strategy: Strategy, environ: Mapping[str, str]
) -> IsolationReport:
    """Run the pair in the control, and in the runtime with each set of permissions.

    All started processes are gone when this returns, raises or is cancelled. For that,
    on Linux, this process becomes a subreaper for the rest of its life.

    Raises:
        IsolationError: The first event or the control failed.
        ConfigError: Deno is not installed.
    """
    own = {
        name: value
        for name, value in environ.items()
        # Ignore the caller's settings, and keep credentials from the hostile handler.
        if name == "LAMBDA_DENO_BIN"
        # A proxy that this machine uses would be asked instead of the probe's own.
        or not (name in STEERING or name.startswith(("AWS_", "LAMBDA_", "DENO")))
    }
    can_fork = strategy is Strategy.FRESH and library_path() is not None
    with _descendants_ended():
        control: dict[str, Row] = {}
        for is_holding in (False, True):
            pair = await _control(own, is_holding=is_holding)
            if pair.failure is not None:
                raise IsolationError(
                    f"Cannot complete the control, one process for all events: "
                    f"{pair.failure}"
                )
            control |= pair.rows
        pairs = {
            start: {case: await _runtime(strategy, start, case, own) for case in Case}
            for start in (Start.EXEC, *([Start.AUTO] if can_fork else []))
        }
    return compare(strategy, control, pairs[Start.EXEC], pairs.get(Start.AUTO, {}))


def compare(
    strategy: str,
    control: Mapping[str, Row],
    pairs: Mapping[Case, Pair],
    forked: Mapping[Case, Pair],
) -> IsolationReport:
    """Combine the results of the runtime with those of the control.

    Args:
        strategy: How events reached the handler.
        control: Results in one process for all events.
        pairs: Those in processes of their own start.
        forked: Those in copies of a loaded process; empty: not tried.
    """
    checks = []
    for case, pair in pairs.items():
        copied = forked[case].rows if case in forked else {}
        for name, row in pair.rows.items():
            other = copied.get(name)
            checks.append(
                IsolationCheck(
                    id=name,
                    permissions=case.permissions,
                    planted=row.planted,
                    control=control[name].leaked if name in control else None,
                    leaked=row.leaked,
                    evidence=row.evidence,
                    forked=None if other is None else other.leaked,
                    fork_evidence="" if other is None else other.evidence,
                )
            )
    survival = [
        check
        for start, found in ((Start.EXEC, pairs), (Start.FORK, forked))
        for case, pair in found.items()
        for check in _survival(start, case.permissions, pair)
    ]
    return IsolationReport(strategy, tuple(checks), tuple(survival))


def _survival(
    start: Start, permissions: Permissions, pair: Pair
) -> Iterator[SurvivalCheck]:
    yield SurvivalCheck(
        "second-event-answered",
        permissions,
        pair.failure is None,
        pair.failure or "its response is complete",
        start,
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
        start,
    )


async def _control(environ: Mapping[str, str], *, is_holding: bool) -> Pair:
    with _folders() as folders:
        _write_config(folders)
        private = folders.temp / "private"
        private.mkdir()
        # A copy, because the handler writes to it.
        script = str(shutil.copy(CONTROL, folders.scratch))
        return await _pair(
            [
                sys.executable, "-I", "-S", "-c", PARENT, deno_binary(environ),
                "run", "--quiet", "--no-prompt", "--allow-all",
                "--config", str(folders.task / "deno.json"), script,
            ],
            "control-holding" if is_holding else "control",
            {
                # The check would create the HTTP client before the probe names a proxy.
                "DENO_NO_UPDATE_CHECK": "1",
                "DENO_DIR": str(folders.deno_dir),
                "HOME": str(private),
                "TMPDIR": str(private),
                **_holding(is_holding=is_holding),
            },
            folders,
            environ,
        )  # fmt: skip


def _holding(*, is_holding: bool) -> dict[str, str]:
    """Return what makes the handler's module hold what cannot be shared."""
    return {HOLDS: "1"} if is_holding else {}


async def _runtime(
    strategy: Strategy, start: Start, case: Case, environ: Mapping[str, str]
) -> Pair:
    variables = {
        "LAMBDA_DENO_STRATEGY": strategy.value,
        "LAMBDA_DENO_START": start.value,
        "LAMBDA_DENO_WARM": "ready",
        "LAMBDA_DENO_METRICS": "json",
        **_holding(is_holding=case is Case.HOLDING),
    }
    with _folders() as folders:
        if case.permissions is Permissions.ALL:
            _write_config(folders)
            variables["LAMBDA_DENO_PERMISSIONS"] = "all"
            variables["DENO_DIR"] = str(folders.deno_dir)
        else:  # like most functions: no configuration, and no packaged cache
            variables["DENO_DIR"] = ""
        return await _pair(
            bootstrap_command(),
            case.value,
            variables,
            folders,
            environ,
            earlier=EARLIER_EVENTS if start is Start.AUTO else 0,
            is_forked=start is Start.AUTO and case is not Case.HOLDING,
        )


@dataclass(frozen=True, slots=True)
class _Folders:
    """Folders of one execution environment."""

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
    # Deno stores a handler's data under the path of its configuration.
    (folders.task / "deno.json").write_text('{ "unstable": ["kv"] }\n', "utf-8")


async def _pair(
    command: Sequence[str],
    case: str,
    variables: Mapping[str, str],
    folders: _Folders,
    environ: Mapping[str, str],
    *,
    earlier: int = 0,
    is_forked: bool = False,
) -> Pair:
    """Start a runtime, let it handle both events, and stop it.

    Args:
        command: Starts the runtime.
        case: What the probe knows the pair by.
        variables: The runtime's environment.
        folders: Those of the pair.
        environ: What its environment begins with.
        earlier: How many events there are before.
        is_forked: The events have to be served by copies of a loaded process.

    Raises:
        IsolationError: The pair could not be run that way.
    """
    # Slow to import, and not needed for usage errors.
    from lambda_deno_spawn.dev.local.emulator import Emulator

    options = InvokeOptions(
        Function(folders.task, f"{PROBE.stem}.handler"), variables=variables
    )
    nonce = secrets.token_hex(8)
    log = io.BytesIO()
    async with Witness() as witness, Emulator() as emulator:
        event = {
            "case": case,
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
                for _ in range(earlier):
                    await _handle(emulator, runtime, {**event, "phase": "none"})
                first = await _handle(emulator, runtime, {**event, "phase": "plant"})
                if first.failure is not None:
                    raise IsolationError(
                        f"Cannot run the first event ({case}): "
                        f"{first.failure}{_tail(log)}"
                    )
                event |= {"phase": "look", "planted": first.rows}
                second = await _handle(emulator, runtime, event)
                is_alive = runtime.process.returncode is None
                files = _left_files(folders, nonce)
    if is_forked and FORKED not in log.getvalue():
        raise IsolationError(
            f"Cannot run the pair ({case}) in copies of a loaded process: it was not "
            f"copied{_tail(log)}"
        )
    late = f"late line {nonce}"
    lines = log.getvalue().decode(errors="replace").splitlines()
    wrong = sum(late in line and second.request_id in line for line in lines)
    verdicts = {
        LOG_LINE: (wrong > 0, f"{wrong} lines of the first event carry it"),
        **{
            name: (count > 0, f"{count} files of it are on the disk")
            for name, count in files.items()
        },
    }
    rows = {
        name: _row(
            fields["planted"], second.rows.get(name), verdicts.get(name), folders
        )
        for name, fields in first.rows.items()
    }
    failure = None if second.failure is None else second.failure + _tail(log)
    return Pair(rows, first.parents + second.parents, is_alive, failure)


def _left_files(folders: _Folders, nonce: str) -> dict[str, int]:
    """Count the files that the first event has left, for each check about files."""
    found = {IMPORTED_CODE: 0, LEFT_FILES: 0}
    code = f"code of {nonce}".encode()
    for top in (folders.temp, folders.deno_dir):
        for folder, _, names in os.walk(top):
            if f"left-{nonce}" in folder:
                found[LEFT_FILES] += len(names)
                continue
            for name in names:
                # The runtime may remove a file while it is looked at.
                with contextlib.suppress(OSError):
                    file = Path(folder, name)
                    if file.is_file() and code in file.read_bytes():
                        found[IMPORTED_CODE] += 1
    return found


def _row(
    planted: str,
    found: Mapping[str, Any] | None,
    verdict: tuple[bool, str] | None,
    folders: _Folders,
) -> Row:
    """Return the row of a check.

    Args:
        planted: What the first event has planted, in words.
        found: What the second event says; None: it was not answered.
        verdict: Whether it leaked, and the evidence, where that is decided here.
        folders: Those of the pair, to be named as on Lambda.
    """
    if found is None:
        return Row(planted, None, "the second event has no response")
    leaked, evidence = found["leaked"], str(found["evidence"])
    if verdict is not None and leaked is not None:  # None: it could not be planted
        leaked, evidence = verdict
    # Show the paths on Lambda.
    evidence = evidence.replace(str(folders.temp), "/tmp")
    evidence = evidence.replace(str(folders.task), "/var/task")
    evidence = evidence.replace(sys.executable, Path(sys.executable).name)
    if len(evidence) > EVIDENCE_LIMIT:
        evidence = evidence[:EVIDENCE_LIMIT] + "..."
    return Row(planted, leaked, evidence)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Result of one event: the handler's rows, or the reason for a failure."""

    request_id: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    failure: str | None = None


async def _handle(
    emulator: Emulator, runtime: LocalRuntime, event: Mapping[str, object]
) -> _Outcome:
    """Let the runtime handle an event, until it asks for the next one."""
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
    # No time limit: the caller waits with one.
    await runtime.process.wait()
    asyncio.get_running_loop().call_soon(emulator.wake)


def _read(invocation: EmulatedInvocation, returncode: int | None) -> _Outcome:
    from lambda_deno_spawn.dev.local.environment import OutcomeKind

    outcome = invocation.outcome
    if outcome is None:
        state = (
            "there was no response in time"
            if returncode is None
            else f"the runtime exited with code {returncode}"
        )
        return _Outcome(invocation.request_id, failure=state)
    text = outcome.body.decode(errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if outcome.kind is not OutcomeKind.RESPONSE or not isinstance(value, dict):
        return _Outcome(invocation.request_id, failure=f"the response is {text}")
    return _Outcome(invocation.request_id, value["rows"], (int(value["ppid"]),))


def _tail(log: io.BytesIO) -> str:
    lines = log.getvalue().decode(errors="replace").splitlines()[-5:]
    return "".join(f"\n  {line}" for line in lines)


class Witness:
    """A server that the probe connects to: it tells which connections are open.

    It is also an HTTP proxy that answers every request with a module, and tells which
    URLs it was asked for.
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
        await asyncio.sleep(0)  # let the transports call connection_lost


class _WitnessConnection(asyncio.Protocol):
    """One connection, whose first word says what it is for.

    ``open NAME`` keeps it open, ``ask NAME`` asks whether such a connection is open,
    ``asked URL`` whether the proxy was asked for a URL, and ``GET URL`` asks the proxy.
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
        reply = b"open\n" if name in names else b"closed\n"
        if verb == "open":
            self._connections[self._transport] = name
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(reply)

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
    """Kill all descendants of this process, including orphans, on exit."""
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
