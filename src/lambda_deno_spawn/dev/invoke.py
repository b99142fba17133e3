"""One invocation on this machine, by the runtime that Lambda would start.

Knows how to find a function's handler, the environment Lambda gives a runtime, how long
init and an invocation may take, what a REPORT line says, and how everything that was
started is ended again. Refuses to know the command line (its options arrive checked)
and how the runtime works: that is started as a process of its own, against the
emulator. Specification: AWS Lambda Developer Guide, "Working with Lambda environment
variables" and "Understanding the Lambda execution environment lifecycle".
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import psutil  # type: ignore[import-untyped] # it ships no types

    from lambda_deno_spawn.dev.emulator import EmulatedInvocation, Emulator

INIT_LIMIT_S = 10.0  # on-demand init; AWS "execution environment lifecycle"
# Enough for the runtime to kill and reap one Deno process several times over.
STOP_GRACE_S = 2.0
REAP_LIMIT_S = 5.0  # after SIGKILL only a stuck system call can take this long
KILL_ROUNDS = 5  # an orphan may start another one while it is looked for
SAMPLE_INTERVAL_S = 0.05  # memory; reading it takes 1-2 ms for two processes
LOG_LINE_LIMIT_BYTES = 256 * 1024  # a longer line is split, as CloudWatch splits it
LOG_READ_LIMIT_BYTES = 64 * 1024  # all that a pipe holds, unless enlarged (pipe(7))

# A bundle wins over its source, as it does in the runtime.
SOURCE_SUFFIXES = (".bundle.js", ".js", ".mjs", ".ts", ".tsx")
SOURCE_NAMES = ("function", "index", "main", "mod", "handler")
DEFAULT_EXPORT = "handler"

# AWS "Working with Lambda environment variables", reserved.
RESERVED_VARIABLES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_METADATA_API",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
VARIABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+")


class UsageError(LambdaDenoSpawnError):
    """The command cannot be carried out as it was given."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function's code.

    Attributes:
        task_root: Its folder, absolute.
        handler: ``file.export``.
        shadowed_by: The file that the handler's name means instead of the one that was
            asked for; None if they are the same.
    """

    task_root: Path
    handler: str
    shadowed_by: Path | None = None


@dataclass(frozen=True, slots=True)
class InvokeOptions:
    """What to invoke and how.

    Attributes:
        event: Passed on byte for byte.
        timeout_s: Of the invocation, from delivery.
        init_limit_s: Of init; as on Lambda, ``timeout_s`` comes on top.
        memory_mb: Told to the runtime and reported; nothing here enforces it.
        warm: Value of ``LAMBDA_DENO_WARM``, None to leave it alone.
        variables: The function's own environment variables.
        client_context: JSON text.
    """

    function: Function
    event: bytes = b"{}"
    timeout_s: float = 3.0
    memory_mb: int = 512
    warm: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    client_context: str | None = None
    tenant_id: str | None = None
    init_limit_s: float = INIT_LIMIT_S


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a REPORT line.

    Attributes:
        duration_ms: From delivery until the runtime asked for the next event; from the
            start of the runtime, if init failed.
        billed_duration_ms: Init and duration, rounded up.
        init_duration_ms: From the start of the runtime to its first ``next``; None if
            it did not get there.
        max_memory_used_mb: Peak of the runtime and all its processes.
        status: ``timeout`` or ``error`` if the platform had to end the invocation; a
            function error is an ordinary end.
    """

    duration_ms: float
    billed_duration_ms: int
    init_duration_ms: float | None
    memory_size_mb: int
    max_memory_used_mb: int
    status: str | None

    def line(self, request_id: str) -> str:
        """Write the report as Lambda does."""
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_duration_ms} ms",
            f"Memory Size: {self.memory_size_mb} MB",
            f"Max Memory Used: {self.max_memory_used_mb} MB",
        ]
        if self.init_duration_ms is not None:
            parts.append(f"Init Duration: {self.init_duration_ms:.2f} ms")
        if self.status is not None:
            parts.append(f"Status: {self.status}")
        return "\t".join(parts)


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """What the caller got.

    Attributes:
        is_ok: False for an init error, a function error, an exit or a timeout before
            the response.
        payload: Bytes of the response, or the JSON error body.
        content_type: As the runtime sent it.
    """

    request_id: str
    is_ok: bool
    payload: bytes
    content_type: str
    report: Report


def find_function(path: Path, handler: str | None = None) -> Function:
    """Find the folder and the handler that a path means.

    Args:
        path: The handler's file, or the folder that holds it.
        handler: ``file.export`` if it is not to be guessed.

    Raises:
        UsageError: There is no such path, or no handler can be found.
    """
    if path.is_dir():
        task_root = path.resolve()
        return Function(task_root, handler or _guess_handler(task_root, path))
    if not path.is_file():
        raise UsageError(
            f"Cannot find function {str(path)!r}: there is no such file or folder; "
            "give the handler's file or the folder that holds it"
        )
    # Only the folder is resolved: a handler may be a link to a file elsewhere.
    task_root = path.parent.resolve()
    if handler is not None:
        return Function(task_root, handler)
    stem = _stem(path.name)
    if stem is None:
        raise UsageError(
            f"Cannot use function {str(path)!r}: its suffix is none of "
            f"{', '.join(SOURCE_SUFFIXES)}"
        )
    winner = next(
        name for s in SOURCE_SUFFIXES if (task_root / (name := stem + s)).is_file()
    )
    shadowed_by = None if winner == path.name else path.with_name(winner)
    return Function(task_root, f"{stem}.{DEFAULT_EXPORT}", shadowed_by)


def _guess_handler(task_root: Path, shown: Path) -> str:
    for name in SOURCE_NAMES:
        if any((task_root / (name + suffix)).is_file() for suffix in SOURCE_SUFFIXES):
            return f"{name}.{DEFAULT_EXPORT}"
    stems = {
        stem
        for entry in task_root.iterdir()
        if entry.is_file() and _is_code(entry.name) and (stem := _stem(entry.name))
    }
    if len(stems) == 1:
        return f"{stems.pop()}.{DEFAULT_EXPORT}"
    found = (
        "it has no source file" if not stems else f"it has {len(stems)} source files"
    )
    raise UsageError(
        f"Cannot find a handler in {str(shown)!r}: {found}, and none is called "
        f"{', '.join(SOURCE_NAMES[:-1])} or {SOURCE_NAMES[-1]} with a suffix of "
        f"{', '.join(SOURCE_SUFFIXES)}; give the file, or --handler file.export"
    )


def _stem(name: str) -> str | None:
    for suffix in SOURCE_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return None


def _is_code(name: str) -> bool:
    """Tell a module from declarations and tests, which lie beside it."""
    return not re.search(r"\.d\.ts$|[._]test\.[a-z]+$", name)


def parse_variables(assignments: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` assignments of the function's environment variables.

    Raises:
        UsageError: One is malformed, or Lambda would not accept its name.
    """
    variables = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        problem = None
        if not separator:
            problem = "there is no '='; give NAME=VALUE"
        elif name in RESERVED_VARIABLES:
            problem = (
                f"Lambda reserves {name}; choose another name, or set it in this "
                "shell's environment if it is a credential or a region"
            )
        elif not VARIABLE_NAME.fullmatch(name):
            problem = (
                f"Lambda does not accept the name {name!r}; use two or more letters, "
                "digits and underscores, a letter first"
            )
        elif "\0" in value:
            problem = "the value holds a NUL character; leave it out"
        if problem is not None:
            raise UsageError(f"Cannot use --env {assignment!r}: {problem}")
        variables[name] = value
    return variables


def bootstrap_command() -> list[str]:
    """Return the command that starts the runtime as Lambda does.

    Isolated and without site-packages (``-I -S``): neither the user's PYTHON* variables
    nor anything installed nearby reaches it, only the folders of what it imports.
    """
    folders = dict.fromkeys(
        _folder(name) for name in ("lambda_deno_spawn", "httpx", "h11", "orjson")
    )
    code = (
        f"import sys; sys.path.extend({list(folders)!r}); "
        "from lambda_deno_spawn.bootstrap import main; main()"
    )
    return [sys.executable, "-I", "-S", "-c", code]


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
    name = function_name(options.function)
    region = _region(environ)
    day = time.strftime("%Y/%m/%d", time.gmtime())
    optional = {
        "DENO_DIR": environ.get("DENO_DIR") or _deno_dir(environ),
        "LAMBDA_DENO_BIN": environ.get("LAMBDA_DENO_BIN") or _deno_bin(),
        "LAMBDA_DENO_WARM": options.warm,
    }
    return {
        **kept,
        **{name: value for name, value in optional.items() if value is not None},
        "LANG": "en_US.UTF-8",
        "TMPDIR": temp_dir,
        "TZ": ":UTC",
        **options.variables,
        "_HANDLER": options.function.handler,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(options.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{secrets.token_hex(16)}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": region,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(options.function.task_root),
    }


def function_name(function: Function) -> str:
    """Return a name that Lambda would accept, made from the function's folder."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", function.task_root.name).strip("-")
    return name[:64] or "function"


def _region(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _deno_dir(environ: Mapping[str, str]) -> str | None:
    """Return Deno's usual cache, so that what was once downloaded is found again."""
    if cache_home := environ.get("XDG_CACHE_HOME"):
        return str(Path(cache_home) / "deno")
    home = environ.get("HOME")
    if not home:
        return None
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return str(Path(home) / caches / "deno")


def _deno_bin() -> str | None:
    try:
        from deno import find_deno_bin
    except ImportError:
        return None
    try:
        return str(find_deno_bin())
    except FileNotFoundError:
        return None


def run(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Invoke once, from a program without an event loop.

    SIGINT and SIGTERM end everything that was started before they take effect.

    Raises:
        KeyboardInterrupt: SIGINT came.
        asyncio.CancelledError: SIGTERM or SIGHUP came.
    """

    async def cancelled_by_signals() -> InvokeResult:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Cannot run outside a task")
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await invoke(options, environ=environ, log=log, command=command)

    return asyncio.run(cancelled_by_signals())


async def invoke(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Start a runtime, invoke the function once, and end the runtime again.

    Nothing that was started is left when this returns, raises or is cancelled.

    Args:
        options: What to invoke.
        environ: The caller's environment.
        log: Where the runtime's output and the START, END and REPORT lines go, as they
            come.
        command: How to start the runtime; None: the real one.
    """
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.emulator import Emulator

    function = options.function
    arn = (
        f"arn:aws:lambda:{_region(environ)}:000000000000:"
        f"function:{function_name(function)}"
    )
    with (
        LogPipe(log) as pipe,
        # What a killed runtime leaves in its temporary folder goes with the folder.
        tempfile.TemporaryDirectory(
            prefix="lambda-deno-spawn-", ignore_cleanup_errors=True
        ) as temp_dir,
    ):
        tree = ProcessTree(mark=temp_dir)
        emulator = Emulator(
            arn,
            on_delivery=lambda invocation: pipe.say(_start_line(invocation)),
            on_answer=tree.sample_while_held,
        )
        async with emulator:
            invocation = emulator.state.queue(
                options.event,
                timeout_s=options.timeout_s,
                trace_id=_trace_id(),
                client_context=options.client_context,
                tenant_id=options.tenant_id,
                invocation_id=secrets.token_hex(8),
            )
            variables = lambda_environ(options, emulator.address, temp_dir, environ)
            async with _runtime(
                command or bootstrap_command(), variables, function, pipe, tree
            ) as runtime:
                report = await _follow(emulator, invocation, runtime, options)
                pipe.say(f"END RequestId: {invocation.request_id}")
                pipe.say(report.line(invocation.request_id))
    return _result(invocation, report)


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
        for _ in range(KILL_ROUNDS):
            orphans = self._orphans()
            if not orphans:
                break
            for process in orphans:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _orphans(self) -> list[psutil.Process]:
        import psutil

        orphans = []
        for process in psutil.process_iter():
            # Not every process lets us look; those that we started do.
            with contextlib.suppress(psutil.Error, OSError):
                if any(self._mark in value for value in process.environ().values()):
                    orphans.append(process)
        return orphans

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
class _Runtime:
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
async def _runtime(
    command: Sequence[str],
    variables: dict[str, str],
    function: Function,
    pipe: LogPipe,
    tree: ProcessTree,
) -> AsyncIterator[_Runtime]:
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
    runtime = _Runtime(process, tree, pipe, started_s)
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


async def _follow(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    runtime: _Runtime,
    options: InvokeOptions,
) -> Report:
    """See an invocation through to its end, whatever that is."""
    from lambda_deno_spawn.dev.emulator import End

    exit_watch = asyncio.create_task(_record_exit(emulator, runtime))
    try:
        await _wait_for_end(emulator, invocation, options)
    finally:
        exit_watch.cancel()
    end = invocation.end
    if end is End.TIMEOUT:
        runtime.tree.sample()
        runtime.tree.kill()
    elif end is End.INIT_ERROR:
        await runtime.has_exited(STOP_GRACE_S)
    if invocation.delivered_s is None:
        runtime.pipe.say(_start_line(invocation))
    if end is End.TIMEOUT:
        runtime.pipe.say(_timeout_line(invocation))
    elif end is End.EXIT:
        runtime.pipe.say(_exit_lines(invocation, runtime.process.returncode or 0))
    return _report(invocation, runtime, options.memory_mb)


async def _record_exit(emulator: Emulator, runtime: _Runtime) -> None:
    # No limit: whoever waits for the invocation's end has one.
    emulator.state.record_exit(await runtime.process.wait())


async def _wait_for_end(
    emulator: Emulator, invocation: EmulatedInvocation, options: InvokeOptions
) -> None:
    """Wait until the invocation is over, at the latest until its deadline.

    Lambda gives init its own limit, and on failure repeats it under the function's
    timeout; here it is not repeated, but may take as long as both together.
    """
    is_begun = await emulator.wait_until(
        lambda: invocation.delivered_s is not None or invocation.end is not None,
        options.init_limit_s + options.timeout_s,
    )
    if is_begun and invocation.delivered_s is not None:
        await emulator.wait_until(
            lambda: invocation.end is not None,
            invocation.delivered_s + options.timeout_s - time.monotonic(),
        )
    emulator.state.time_out(invocation)  # no effect on one that has ended


def _report(
    invocation: EmulatedInvocation, runtime: _Runtime, memory_size_mb: int
) -> Report:
    from lambda_deno_spawn.dev.emulator import End

    delivered_s = invocation.delivered_s
    begun_s = runtime.started_s if delivered_s is None else delivered_s
    ended_s = begun_s if invocation.ended_s is None else invocation.ended_s
    duration_s = max(0.0, ended_s - begun_s - runtime.tree.held_s)
    if delivered_s is not None and invocation.end is End.TIMEOUT:
        duration_s = min(duration_s, invocation.timeout_s)
    init_s = None if delivered_s is None else delivered_s - runtime.started_s
    statuses = {None: None, End.NEXT: None, End.TIMEOUT: "timeout"}
    return Report(
        duration_ms=duration_s * 1000,
        billed_duration_ms=math.ceil((duration_s + (init_s or 0.0)) * 1000),
        init_duration_ms=None if init_s is None else init_s * 1000,
        memory_size_mb=memory_size_mb,
        max_memory_used_mb=math.ceil(runtime.tree.peak_bytes / 2**20),
        status=statuses.get(invocation.end, "error"),
    )


def _result(invocation: EmulatedInvocation, report: Report) -> InvokeResult:
    from lambda_deno_spawn.dev.emulator import OutcomeKind

    outcome = invocation.outcome
    if outcome is None:  # an invocation that ended has one
        raise RuntimeError(f"Cannot find the outcome of {invocation.request_id}")
    return InvokeResult(
        request_id=invocation.request_id,
        is_ok=outcome.kind is OutcomeKind.RESPONSE,
        payload=outcome.body,
        content_type=outcome.content_type,
        report=report,
    )


def _start_line(invocation: EmulatedInvocation) -> str:
    return f"START RequestId: {invocation.request_id} Version: $LATEST"


def _timeout_line(invocation: EmulatedInvocation) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = f"Task timed out after {invocation.timeout_s:.2f} seconds"
    return f"{now} {invocation.request_id} {text}"


def _exit_lines(invocation: EmulatedInvocation, returncode: int) -> str:
    from lambda_deno_spawn.dev.emulator import exit_text

    text = exit_text(returncode)
    return f"RequestId: {invocation.request_id} Error: {text}\nRuntime.ExitError"


def _trace_id() -> str:
    """Return an X-Ray header as Lambda makes it for a caller without one."""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    lineage = f"1:{secrets.token_hex(4)}:0"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=0;Lineage={lineage}"
