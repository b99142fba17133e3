"""Starts templates and talks to them and to their children, as the supervisor will.

The children's parent is this process: it has to wait for them. Everything read from a
process is bounded, in bytes and in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.launch.binary import pypi_binary
from lambda_deno_spawn.native.control import (
    BUSY,
    OK,
    Answer,
    ControlSocket,
    Folders,
    template_environ,
)
from lambda_deno_spawn.protocol.hello import hello

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

JS = Path(__file__).parents[2] / "src" / "lambda_deno_spawn" / "js"
MARKER = "a" * 32
LIMIT_S = 60.0
LIMIT_BYTES = 16 * 1024 * 1024
V8_FLAGS = "--v8-flags=--max-old-space-size=366,--min-semi-space-size=8"
FACTS: dict[str, Any] = {
    "export": "handler",
    "module": "function.mjs",
    "partBytes": 0,
    "invocations": 1,
    "closeMs": 0,
    "lastWordsMs": 0,
    "console": "log",
    "socket": None,
    "input": None,
    "template": False,
    "places": None,
    "concurrency": 1,
    "resultLimitBytes": 6_291_556,
    "responseMode": "buffered",
    "logFormat": "text",
    "logLevel": "INFO",
    "steering": "",
    "variables": {},
    "packageFolders": [],
    "closedFolders": [],
    "permissions": {
        "base": "",
        "set": None,
        "denies": [],
        "runtimeApi": [],
        "everything": True,
        "hidden": False,
        "taskRoot": "/",
        "credentialsWithheld": False,
    },
    "context": {},
}


class GoneError(Exception):
    """A process ended before it said what was waited for."""


class RefusedError(Exception):
    """A template was not forked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(answer))


@dataclass(frozen=True)
class Outcome:
    """What a process answered, and what it had used.

    Attributes:
        kind: ``RESULT`` or ``ERROR``.
        value: The body, decoded.
        usage: Of the whole process, as wait4(2) tells it.
        event_s: From the event's last byte to the answer's first.
    """

    kind: str
    value: Any
    usage: resource.struct_rusage
    event_s: float


@dataclass
class Waiting:
    """A process that waits for its event: a child of a template, or a whole Deno."""

    pid: int
    stdin: int
    stdout: int
    received: bytes = field(default=b"")

    def run(self, event: object = None, limit_s: float = LIMIT_S) -> Outcome:
        """Hand an event over, take the answer, and end the process."""
        self.send(event)
        return self.finish(limit_s)

    def send(self, event: object = None) -> None:
        """Hand an event over."""
        body = json.dumps(event).encode()
        now_ms = int(time.time() * 1000)
        head = {
            "eventBytes": len(body),
            "requestId": "r",
            "deadlineEpochMs": now_ms + 60_000,
            "abortEpochMs": now_ms + 58_000,
            "functionArn": "a",
            "traceId": None,
            "clientContext": None,
            "identity": None,
            "tenantId": None,
        }
        self._begun_s = time.perf_counter()
        os.write(self.stdin, json.dumps(head).encode() + b"\n" + body)

    def finish(self, limit_s: float = LIMIT_S) -> Outcome:
        """Take the answer, and end the process."""
        try:
            self.read_until(b'"bytes":', limit_s)
            event_s = time.perf_counter() - self._begun_s
            self.read_until(b'"DONE"', limit_s)
        finally:
            usage = self.end()
        _, _, rest = self.received.partition(MARKER.encode() + b'{"kind":"')
        head, _, body = rest.partition(b"\n")
        kind, _, more = head.partition(b'"')
        length = int(more.partition(b'"bytes":')[2].partition(b",")[0].rstrip(b"}"))
        value = json.loads(body[:length]) if length else None
        return Outcome(kind.decode(), value, usage, event_s)

    def read_until(self, wanted: bytes, limit_s: float = LIMIT_S) -> bytes:
        """Read stdout until this has come.

        Raises:
            GoneError: The process closed it before.
            TimeoutError: It did not come in time, or far too much came before.
        """
        limit = time.monotonic() + limit_s
        while wanted not in self.received:
            left_s = limit - time.monotonic()
            if left_s <= 0 or not select.select([self.stdout], [], [], left_s)[0]:
                raise TimeoutError(self.received[-500:])
            piece = os.read(self.stdout, 65_536)
            if not piece:
                raise GoneError(self.received[-500:])
            self.received += piece
            if len(self.received) > LIMIT_BYTES:
                raise TimeoutError(f"{LIMIT_BYTES} bytes")
        return self.received

    def end(self) -> resource.struct_rusage:
        """Kill the process with its group, and wait for it."""
        with contextlib.suppress(OSError):
            os.close(self.stdin)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        usage = os.wait4(self.pid, 0)[2]
        with contextlib.suppress(OSError):
            os.close(self.stdout)
        return usage

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait until the process ends by itself. Returns its exit code."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.stdin)
                os.close(self.stdout)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        raise TimeoutError(f"process {self.pid} does not end")


class Template:
    """A Deno process that has loaded a handler's module and can be forked.

    Use it in a ``with`` statement, which ends it. ``greeting`` is None if the library
    was not there.

    Args:
        folder: Of its own; its private files are there.
        module: The handler's module, or its text.
        library: The library that is preloaded.
        flags: Permissions.
        environ: More variables.
        runtime_js: The worker's end.
        stderr: Its standard error; None: this process's.
    """

    def __init__(
        self,
        folder: Path,
        module: str | Path,
        library: Path,
        *,
        flags: Sequence[str] = ("--allow-all",),
        environ: Mapping[str, str] | None = None,
        runtime_js: Path = JS / "runtime.js",
        stderr: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(module, str):
            path = folder / "function.mjs"
            path.write_text(module, encoding="utf-8")
        else:
            path = module
        self.entry = folder / "entry.mjs"
        self.entry.write_text(
            f'import {{ start }} from "{runtime_js.as_uri()}";\n'
            f'start(() => import("{path.as_uri()}"));\n',
            encoding="utf-8",
        )
        deno = pypi_binary()
        assert deno is not None
        self.argv = [
            deno, "run", "--quiet", "--no-prompt", "--no-config", "--no-lock",
            V8_FLAGS, *flags, str(self.entry),
        ]  # fmt: skip
        private = folder / "private"
        private.mkdir(exist_ok=True)
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(private),
            "TMPDIR": str(private),
            "DENO_DIR": str(folder / "deno_dir"),
            "DENO_NO_UPDATE_CHECK": "1",
            **(environ or {}),
        }
        self.library = library
        self.stderr = stderr
        self.control = ControlSocket()
        self.greeting: Answer | None = None
        self.process: Waiting

    def __enter__(self) -> Template:
        try:
            self.start()
        except BaseException:
            # Or its end would be an error in another test.
            self.control.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.control.close()
        with contextlib.suppress(ChildProcessError):
            self.process.end()

    def start(self) -> None:
        """Start it, and wait until it has loaded the module."""
        with self.control.peer:
            descriptor = self.control.peer.fileno()
            environ = template_environ(self.environ, str(self.library), descriptor)
            self.process = self.spawn(environ, (descriptor,))
        if select.select([self.control], [], [], 0)[0]:
            self.greeting = self.control.receive()

    def spawn(
        self, environ: Mapping[str, str] | None = None, inherited: Sequence[int] = ()
    ) -> Waiting:
        """Start a whole process, by itself no template, and wait for READY."""
        (its_stdin, stdin), (stdout, its_stdout) = os.pipe(), os.pipe()
        process = subprocess.Popen(
            self.argv,
            stdin=its_stdin,
            stdout=its_stdout,
            stderr=self.stderr,
            env=self.environ if environ is None else environ,
            pass_fds=inherited,
            process_group=0,
        )
        process.returncode = 0  # its end is waited for here
        os.close(its_stdin)
        os.close(its_stdout)
        waiting = Waiting(process.pid, stdin, stdout)
        os.write(stdin, hello(MARKER, FACTS))
        try:
            waiting.read_until(b'"READY"')
        except BaseException:
            waiting.end()
            raise
        waiting.received = b""
        return waiting

    def receive(self, limit_s: float = LIMIT_S) -> Answer:
        """Wait for the next answer."""
        if not select.select([self.control], [], [], limit_s)[0]:
            raise TimeoutError("the template does not answer")
        answer = self.control.receive()
        assert answer is not None
        return answer

    def probe(self) -> Answer:
        """Ask whether it can be forked."""
        self.control.probe()
        return self.receive()

    def rested(self, limit_s: float = LIMIT_S) -> Answer:
        """Ask whether it can be forked, until none of its threads is at work.

        On a busy machine a thread that has begun to work takes as long as it takes.
        """
        limit = time.monotonic() + limit_s
        while (answer := self.probe()).code == BUSY and time.monotonic() < limit:
            pass
        return answer

    def fork(self, stderr: int = 2, folders: Folders | None = None) -> Waiting:
        """Fork it, as soon as none of its threads is at work.

        Args:
            stderr: The child's.
            folders: Names of its folders; None: it has the template's.

        Raises:
            RefusedError: It was not forked.
        """
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                return self.fork_now(stderr, folders)
            except RefusedError as error:
                if error.answer.code != BUSY or time.monotonic() > limit:
                    raise

    def fork_now(self, stderr: int = 2, folders: Folders | None = None) -> Waiting:
        """Fork it; see ``fork``.

        Raises:
            RefusedError: It was not forked.
        """
        (its_stdin, stdin), (stdout, its_stdout) = os.pipe(), os.pipe()
        self.control.fork(its_stdin, its_stdout, stderr, folders=folders)
        os.close(its_stdin)
        os.close(its_stdout)
        answer = self.receive()
        if answer.code == OK:
            return Waiting(answer.pid, stdin, stdout)
        if answer.pid:
            Waiting(answer.pid, stdin, stdout).end()
        else:
            os.close(stdin)
            os.close(stdout)
        raise RefusedError(answer)

    def observe(self, child: Waiting) -> Answer:
        """Note what a child has touched before its event."""
        self.control.observe(child.pid)
        return self.receive()

    def learn(self, child: Waiting) -> Answer:
        """Let the next children touch beforehand what this one has touched."""
        self.control.learn(child.pid)
        return self.receive()

    def cpu_s(self) -> float:
        """Return the processor time it has used so far."""
        total_ns = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
        return total_ns / 1e9
