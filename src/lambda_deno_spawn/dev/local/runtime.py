"""The runtime as a process on this machine: its start, its log, its memory, its end.

Knows the command and the environment that Lambda would start it with, and how to end
everything it started. Refuses to know invocations. Specification: AWS Lambda Developer
Guide, "Working with Lambda environment variables".
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.project.function import function_name
from lambda_deno_spawn.errors import LambdaDenoSpawnError
from lambda_deno_spawn.launch.binary import find_binary, pypi_binary
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    import psutil

    from lambda_deno_spawn.dev.project.function import Function, InvokeOptions

# Enough for the runtime to kill and reap one Deno process several times over.
STOP_GRACE_S = 2.0
REAP_LIMIT_S = 5.0  # after SIGKILL only a stuck system call can take this long
# An orphan may start another one while it is looked for, and takes its time to end
# where the processor is busy.
KILL_ROUNDS = 100
KILL_ROUND_S = 0.01
EXEC_ROUNDS = 5  # until a program that is being started has its environment
SAMPLE_INTERVAL_S = 0.05  # memory; reading it takes 1-2 ms for two processes
LOG_LINE_LIMIT_BYTES = 256 * 1024  # a longer line is split, as CloudWatch splits it
LOG_READ_LIMIT_BYTES = 64 * 1024  # all that a pipe holds, unless enlarged (pipe(7))

T = TypeVar("T")


def run_until_signalled(work: Coroutine[object, object, T]) -> T:
    """Run to the end, from a program without an event loop.

    SIGINT, SIGTERM and SIGHUP cancel the work, which cleans up before they take effect.

    Raises:
        KeyboardInterrupt: SIGINT came.
        asyncio.CancelledError: SIGTERM or SIGHUP came.
    """

    async def cancelled_by_signals() -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Cannot run outside a task")
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work

    return asyncio.run(cancelled_by_signals())


def bootstrap_command() -> list[str]:
    """Return the command that starts the runtime as Lambda does."""
    return isolated_python("from lambda_deno_spawn.bootstrap import main; main()")


def isolated_python(code: str) -> list[str]:
    """Return the command that runs code as the runtime is run.

    Isolated and without site-packages (``-I -S``): neither the user's PYTHON* variables
    nor anything installed nearby reaches it, only the folders of what it imports.
    """
    folders = dict.fromkeys(
        _folder(name) for name in ("lambda_deno_spawn", "h11", "orjson")
    )
    setup = f"import sys; sys.path.extend({list(folders)!r})"
    return [sys.executable, "-I", "-S", "-c", f"{setup}; {code}"]


def deno_binary(environ: Mapping[str, str]) -> str:
    """Return the Deno that a local runtime is started with.

    Raises:
        ConfigError: There is none.
    """
    named = environ.get("LAMBDA_DENO_BIN") or None
    settings = Settings(runtime_api="", handler="", task_root="", deno_bin=named)
    return find_binary(settings, environ.get("PATH", ""))


def _folder(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LambdaDenoSpawnError(
            f"Cannot start the runtime: package {package!r} is not installed"
        )
    return str(Path(spec.origin).parent.parent)


def lambda_environ(
    options: InvokeOptions, runtime_api: str, temp_dir: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment that Lambda would give the runtime.

    Args:
        options: What is invoked.
        runtime_api: ``host:port``.
        temp_dir: Stands for the ``/tmp`` of an execution environment.
        environ: The caller's environment; credentials, region and PATH stem from it.
    """
    # Whoever runs this inside a Lambda function has that function's variables.
    private = ("AWS_LAMBDA_", "_LAMBDA_TELEMETRY_")
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(private)
        and name
        not in (
            "_HANDLER",
            "_X_AMZN_TRACE_ID",
            "AWS_EXECUTION_ENV",
            "LAMBDA_RUNTIME_DIR",
            "LAMBDA_TASK_ROOT",
        )
    }
    function = options.function
    name = function_name(function)
    where = region(environ)
    day = time.strftime("%Y/%m/%d", time.gmtime())
    optional = {
        "DENO_DIR": environ.get("DENO_DIR") or _deno_dir(function, environ),
        "LAMBDA_DENO_BIN": environ.get("LAMBDA_DENO_BIN") or pypi_binary(),
        "LAMBDA_DENO_WARM": options.warm,
        "AWS_LAMBDA_LOG_LEVEL": "DEBUG" if options.is_verbose else None,
    }
    return {
        **kept,
        **{name: value for name, value in optional.items() if value is not None},
        "LANG": "en_US.UTF-8",
        "TMPDIR": temp_dir,
        "TZ": ":UTC",
        **options.variables,
        "_HANDLER": function.handler,
        "AWS_DEFAULT_REGION": where,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(options.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{secrets.token_hex(16)}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": where,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(function.task_root),
    }


def region(environ: Mapping[str, str]) -> str:
    """Return the region that the caller's environment names, else AWS's first one."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _deno_dir(function: Function, environ: Mapping[str, str]) -> str | None:
    """Return Deno's usual cache, so that what was once downloaded is found again.

    A cache that comes with the function is left to the runtime to find.
    """
    if (function.task_root / PACKAGED_DENO_DIR).is_dir():
        return None
    if cache_home := environ.get("XDG_CACHE_HOME"):
        return str(Path(cache_home) / "deno")
    home = environ.get("HOME")
    if not home:
        return None
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return str(Path(home) / caches / "deno")


class LogPipe:
    """One pipe for all that a runtime prints, passed on line by line.

    Both of its outputs share it, which keeps their order. Lines of our own come after
    everything that was printed before they were said.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._partial = bytearray()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> LogPipe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._reader)
        self.close_writer()
        self._pump()
        self._write(bytes(self._partial))
        os.close(self._reader)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass on from now on, as soon as something was printed."""
        self._loop = loop
        loop.add_reader(self._reader, self._pump)

    def close_writer(self) -> None:
        """Close our copy of the end that a runtime was given."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def say(self, line: str) -> None:
        """Write a line of our own."""
        self._pump()
        self._write(bytes(self._partial))
        self._partial.clear()
        self._write(line.encode())

    def _pump(self) -> None:
        chunk = b""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._reader, LOG_READ_LIMIT_BYTES)
            if not chunk and self._loop is not None:  # every writer is gone
                self._loop.remove_reader(self._reader)
        self._partial += chunk
        end = self._partial.rfind(b"\n") + 1
        if end == 0 and len(self._partial) > LOG_LINE_LIMIT_BYTES:
            end = len(self._partial)
        self._write(bytes(self._partial[:end]))
        del self._partial[:end]

    def _write(self, text: bytes) -> None:
        if not text:
            return
        # A log that nobody reads any more is no reason to fail.
        with contextlib.suppress(BrokenPipeError):
            self._sink.write(text if text.endswith(b"\n") else text + b"\n")
            self._sink.flush()


class ProcessTree:
    """The runtime and every process it started: their memory, and their end.

    Attributes:
        peak_bytes: Most memory seen at once. Proportional set size where the system
            tells it (Linux), else resident size, which counts shared pages twice.
        held_s: How long the runtime was kept waiting for samples to be taken.

    Args:
        mark: Part of a variable of every process, by which those are found that were
            never seen as children: their parent was gone too soon.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.peak_bytes = 0
        self.held_s = 0.0
        # The system counts from its start, in ticks of 10 ms.
        self._since_epoch_s = time.time() - 1.0
        self._root: psutil.Process | None = None
        self._seen: set[psutil.Process] = set()

    def watch(self, pid: int) -> None:
        """Make a process the root of the tree."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            self._root = psutil.Process(pid)

    def sample(self) -> None:
        """Look at the tree once."""
        used_bytes = sum(_memory_bytes(member) for member in self._members())
        self.peak_bytes = max(self.peak_bytes, used_bytes)

    def sample_while_held(self) -> None:
        """Look at the tree while the runtime waits for us, and note how long."""
        started_s = time.monotonic()
        self.sample()
        self.held_s += time.monotonic() - started_s

    async def keep_sampling(self) -> None:
        """Look at the tree again and again, until cancelled."""
        while True:
            started_s = time.monotonic()
            self.sample()
            # With thousands of processes on the machine it takes longer.
            cost_s = time.monotonic() - started_s
            await asyncio.sleep(max(SAMPLE_INTERVAL_S, 10 * cost_s))

    def kill(self) -> None:
        """Kill everything, also what has left the runtime's process group."""
        import psutil

        # Stopped processes start no others behind our back.
        known: set[psutil.Process] = set()
        while new := set(self._members()) - known:
            known |= new
            for process in new:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
        if self._root is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._root.pid, signal.SIGKILL)
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for count in range(KILL_ROUNDS):
            orphans, is_certain = self._orphans()
            if not orphans and (is_certain or count >= EXEC_ROUNDS):
                break
            for process in orphans:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(KILL_ROUND_S)

    def _orphans(self) -> tuple[list[psutil.Process], bool]:
        """Find who has the mark, and tell whether somebody may still get it.

        While a program is being started its process has no environment, for a moment
        that is longer where the processor is busy.
        """
        import psutil

        orphans = []
        is_certain = True
        for process in psutil.process_iter():
            # Not every process lets us look; those that we started do.
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                if any(self._mark in value for value in environ.values()):
                    orphans.append(process)
                elif not environ and process.create_time() >= self._since_epoch_s:
                    # The kernel's own threads have no program either.
                    is_certain = is_certain and not process.exe()
        return orphans, is_certain

    def _members(self) -> list[psutil.Process]:
        import psutil

        if self._root is None:
            return []
        try:
            members = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []
        self._seen.update(members)
        return members


def _memory_bytes(process: psutil.Process) -> int:
    import psutil

    try:
        memory = process.memory_full_info()
        # Some container runtimes know no proportional size and say zero.
        return int(getattr(memory, "pss", 0) or memory.rss)
    except psutil.AccessDenied:
        pass
    except (psutil.Error, OSError):
        return 0
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A runtime process that was started; times are monotonic seconds."""

    process: asyncio.subprocess.Process
    tree: ProcessTree
    pipe: LogPipe
    started_s: float

    async def has_exited(self, limit_s: float) -> bool:
        """Wait for the end of the process; return whether it came."""
        try:
            async with asyncio.timeout(limit_s):
                await self.process.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the process and all that it started, with patience first."""
        try:
            if self.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self.process.terminate()
                await self.has_exited(STOP_GRACE_S)
        finally:
            self.tree.kill()
        await self.has_exited(REAP_LIMIT_S)


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str],
    variables: dict[str, str],
    function: Function,
    pipe: LogPipe,
    tree: ProcessTree,
) -> AsyncIterator[LocalRuntime]:
    """Start a runtime and, at the end of the context, end all that came of it."""
    started_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe.writer,
        stderr=pipe.writer,
        cwd=function.task_root,
        env=variables,
        start_new_session=True,
    )
    tree.watch(process.pid)
    pipe.close_writer()
    pipe.follow(asyncio.get_running_loop())
    runtime = LocalRuntime(process, tree, pipe, started_s)
    sampler = asyncio.create_task(tree.keep_sampling())
    try:
        yield runtime
    finally:
        sampler.cancel()
        stopping = asyncio.create_task(runtime.stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:  # asked a second time: no more patience
            stopping.cancel()
            await asyncio.wait([stopping])
            raise
