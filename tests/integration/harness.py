"""Runs the real bootstrap as its own process against ``FakeRuntimeApi``."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import re
import shutil
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.local.runtime import bootstrap_command
from lambda_deno_spawn.launch.binary import find_binary

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi

# Inherited by everything that a runtime under test starts, however it hides.
TEST_ID_VARIABLE = "LDS_TEST_ID"
# Only a test that fails waits so long, however busy the machine is.
STOP_LIMIT_S = 60.0
LIMIT_S = 60.0
# What a pipe holds.
READ_BYTES = 64 * 1024
# A process that floods the log cannot keep us from everything else.
READS_AT_ONCE = 16
LOG_TAIL_CHARACTERS = 4096
DROPPED = re.compile(r"(\d+) log records were dropped")


def deno_binary() -> str:
    """Return the Deno binary that tests run."""
    settings = Settings(runtime_api="", handler="", task_root="")
    return find_binary(settings, os.environ.get("PATH", ""))


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass(slots=True)
class RuntimeUnderTest:
    """The real bootstrap, started as Lambda would start it.

    Use as an async context manager; leaving it stops the runtime with SIGTERM and fails
    if anything it started is still there.

    Attributes:
        task_root: Folder of the function.
        handler: Value of ``_HANDLER``.
        api: The Runtime API it talks to.
        temp_root: Its /tmp.
        environ: More variables; None removes one.
        wrapper: Shell script that ends in ``exec "$@"``, run in front of it.
        keeps_log: False: what it writes is read and thrown away, but for its end.
        log_gate: Nothing of what it writes is read while this is not set.
        log_tail: The end of what it wrote to stdout and stderr, kept in any case.
    """

    task_root: Path
    handler: str
    api: FakeRuntimeApi
    temp_root: Path
    environ: dict[str, str | None] = field(default_factory=dict)
    wrapper: str = ""
    keeps_log: bool = True
    log_gate: asyncio.Event = field(default_factory=_open_gate)
    log_tail: str = ""
    test_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _pipe: int | None = None
    _decoder: codecs.IncrementalDecoder = field(default_factory=_utf8)
    _log: list[str] = field(default_factory=list)
    _log_grew: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        """Start it."""
        wanted: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "AWS_LAMBDA_RUNTIME_API": self.api.address,
            "_HANDLER": self.handler,
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "TMPDIR": str(self.temp_root),
            "LAMBDA_DENO_BIN": deno_binary(),
            "DENO_DIR": str(self.temp_root.parent / "deno_dir"),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_FUNCTION_NAME": "test",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            TEST_ID_VARIABLE: self.test_id,
            **self.environ,
        }
        command = bootstrap_command()
        if self.wrapper:
            command = ["sh", "-c", self.wrapper, "wrapper", *command]
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env={key: value for key, value in wanted.items() if value is not None},
                cwd=self.task_root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=asyncio.subprocess.STDOUT,
            )
        finally:
            os.close(theirs)
        self._reading = asyncio.create_task(self._read_log())
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Stop it and look for leftovers."""
        try:
            await self.stop()
        finally:
            survivors = self.survivors()
            for pid in survivors:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if kind is None:
            assert survivors == [], "nothing is left running"
            assert list(self.temp_root.iterdir()) == [], "no file is left in /tmp"

    @property
    def log(self) -> str:
        """Everything it wrote to stdout and stderr so far."""
        # Also what our event loop has not been told of: an event may be over, and what
        # was written before that may still be in the pipe.
        self._take_log()
        self._log[:] = ["".join(self._log)]  # not at each read: it may be 100 MB
        return self._log[0]

    @property
    def waiting(self) -> list[int]:
        """Processes that may get the next event: not one that is only copied."""
        templates = re.findall(r"served by forks of process (\d+)", self.log)
        others = {self.pid, *map(int, templates)}
        return [pid for pid in self.survivors() if pid not in others]

    def clear_log(self) -> None:
        """Forget what it wrote so far."""
        self._take_log()
        self._log.clear()

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True until the supervisor has ended."""
        assert self._process is not None
        return self._process.returncode is None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        """Wait until the supervisor has ended by itself; return its exit code."""
        assert self._process is not None
        assert self._reading is not None
        self.log_gate.set()
        async with asyncio.timeout(STOP_LIMIT_S):
            code = await self._process.wait()
            await self._reading
        return code

    async def logged(self, text: str, limit_s: float = LIMIT_S) -> str:
        """Wait until the log contains a text; return the line it is in."""
        try:
            async with asyncio.timeout(limit_s):
                while text not in self.log:
                    self._log_grew.clear()
                    await self._log_grew.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in the log:\n{self.log}") from None
        return next(line for line in self.log.splitlines() if text in line)

    async def logged_often(self, text: str, least: int) -> None:
        """Wait until the log contains a text so often, and not less.

        An event waits for its log for a second only: of megabytes the rest may follow
        it. What the runtime says that it has dropped, as nothing was read for too long,
        counts as well.
        """
        found = 0
        try:
            async with asyncio.timeout(LIMIT_S):
                while found < least:
                    self._log_grew.clear()
                    log = self.log
                    found = log.count(text) + sum(map(int, DROPPED.findall(log)))
                    if found < least:
                        await self._log_grew.wait()
        except TimeoutError:
            message = f"{text!r} is in the log {found} times, and not {least}"
            raise AssertionError(message) from None

    async def reported(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many invocations are over and cleaned up after; see reports."""
        async with asyncio.timeout(LIMIT_S):
            while len(found := reports(self.log)) < count:
                self._log_grew.clear()
                await self._log_grew.wait()
        return found

    def survivors(self) -> list[int]:
        """Return every process of this test that is alive, the supervisor included."""
        # It may hide its mark, and what a handler starts may have lost it.
        found = marked(f"{TEST_ID_VARIABLE}={self.test_id}")
        if self.is_running:
            found |= {self.pid, *(process.pid for process in descendants(self.pid))}
        return sorted(found)

    def descriptor_count(self) -> int:
        """Return how many files the supervisor has open, also if it hides which."""
        folder = Path(f"/proc/{self.pid}/fd")
        # Linux 6.2 tells the number to all, before that root has to look.
        return folder.stat().st_size or len(list(folder.iterdir()))

    async def all_gone(self, limit_s: float = LIMIT_S) -> None:
        """Wait until everything it started has ended."""
        for pid in self.survivors():
            await wait_for_end(pid, limit_s)

    def clear_temp_root(self) -> None:
        """Empty its /tmp, where a test has looked at what is left."""
        for entry in self.temp_root.iterdir():
            shutil.rmtree(entry)

    async def _read_log(self) -> None:
        assert self._pipe is not None
        try:
            while True:
                await self.log_gate.wait()
                if not self._take_log():
                    return
                await until_readable(self._pipe)
        finally:
            pipe, self._pipe = self._pipe, None
            os.close(pipe)

    def _take_log(self) -> bool:
        """Read what is in the pipe now; False once nothing can follow."""
        if self._pipe is None:
            return False
        if not self.log_gate.is_set():
            return True
        for _ in range(READS_AT_ONCE):
            try:
                data = os.read(self._pipe, READ_BYTES)
            except BlockingIOError:
                break
            text = self._decoder.decode(data, final=not data)
            self.log_tail = (self.log_tail + text)[-LOG_TAIL_CHARACTERS:]
            if self.keeps_log:
                self._log.append(text)
                self._log_grew.set()
            if not data:
                return False
        return True


def marked(entry: str) -> set[int]:
    """Return the live processes that have an entry in their environment.

    Without root, one that is not dumpable (prctl(2)) keeps its environment to itself.
    """
    found = set()
    for pid in psutil.pids():
        # A process may end while we look; a zombie has no environment.
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if entry.encode() in environ.split(b"\0"):
                found.add(pid)
    return found


def descendants(pid: int) -> set[psutil.Process]:
    """Return the live processes that a process has started, and those by them."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process)
    return found


def reports(log: str) -> list[dict[str, Any]]:
    """Return what LAMBDA_DENO_METRICS=json has written, one for each invocation."""
    lines = [line for line in log.split("\n") if '"lambda-deno-spawn.report"' in line]
    return [json.loads(line)["record"] for line in lines]


async def kill_and_wait(pid: int, limit_s: float = LIMIT_S) -> None:
    """Kill a process, whoever's child it is, and wait until it has ended."""
    os.kill(pid, signal.SIGKILL)
    await wait_for_end(pid, limit_s)


async def wait_for_end(pid: int, limit_s: float) -> None:
    """Wait until a process has ended, whoever's child it is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        async with asyncio.timeout(limit_s):
            await until_readable(descriptor)
    finally:
        os.close(descriptor)


async def until_readable(descriptor: int) -> None:
    """Wait until something can be read: data, an end of file, or that of a process."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
