"""The runtime as a process on this machine: how it is started and stopped.

Knows the command and the environment that Lambda would start it with. Does not know
invocations. Specification: AWS Lambda Developer
Guide, "Working with Lambda environment variables".
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.project.function import function_name
from lambda_deno_spawn.dev.project.home import home_folder
from lambda_deno_spawn.errors import LambdaDenoSpawnError
from lambda_deno_spawn.launch.binary import find_binary, pypi_binary
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from lambda_deno_spawn.dev.local.log_pipe import LogPipe
    from lambda_deno_spawn.dev.local.process_tree import ProcessTree
    from lambda_deno_spawn.dev.project.function import (
        Function,
        Inspect,
        InvokeOptions,
    )

# VS Code sets these where it debugs every Node.js program: the second one makes them
# load a module of its own, by a path that means nothing to the function.
NODE_DEBUGGER = "VSCODE_INSPECTOR_OPTIONS"
# Several times as long as the runtime needs to kill and reap one Deno process.
STOP_GRACE_S = 2.0
REAP_LIMIT_S = 5.0  # after SIGKILL only a stuck system call can take this long
TEMP_PREFIX = "lambda-deno-spawn-"
# Lambda's is /tmp. The strategy `server` has a socket some levels below it, and the
# path of a socket has at most 107 bytes, on some systems 103.
TEMP_LIMIT_BYTES = 44
SHORT_TEMP = "/tmp"

T = TypeVar("T")


def run_until_signalled(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end, from a program without an event loop.

    SIGINT, SIGTERM and SIGHUP cancel the work, which cleans up before they take effect.

    Raises:
        KeyboardInterrupt: SIGINT was received.
        asyncio.CancelledError: SIGTERM or SIGHUP was received.
    """
    import asyncio  # slow, and not needed for a build

    was_interrupted = False

    async def cancelled_by_signals() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("Cannot run outside a task")

        def interrupt() -> None:
            nonlocal was_interrupted
            was_interrupted = True
            task.cancel()

        # asyncio would raise KeyboardInterrupt for the second one, wherever the program
        # is: also between the start of a process and the note that it has to be ended.
        loop.add_signal_handler(signal.SIGINT, interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await work

    try:
        return asyncio.run(cancelled_by_signals())
    except asyncio.CancelledError:
        if was_interrupted:
            raise KeyboardInterrupt from None
        raise


def bootstrap_command() -> list[str]:
    """Return the command that starts the runtime as Lambda does."""
    return isolated_python("from lambda_deno_spawn.bootstrap import main; main()")


def inspected_command(inspect: Inspect) -> list[str]:
    """Return the command that starts the runtime with a debugger for its processes."""
    module = "lambda_deno_spawn.dev.local.inspected"
    flags = f"{inspect.address!r}, breaks={inspect.breaks}"
    return isolated_python(f"from {module} import main; main({flags})")


def isolated_python(code: str) -> list[str]:
    """Return the command that runs code in the same way as the runtime.

    Isolated and without site-packages (``-I -S``): neither the user's PYTHON* variables
    nor other installed packages reach it, only the folders of the packages it needs.
    """
    folders = dict.fromkeys(_folder(name) for name in ("lambda_deno_spawn", "h11"))
    setup = f"import sys; sys.path.extend({list(folders)!r})"
    return [sys.executable, "-I", "-S", "-c", f"{setup}; {code}"]


def deno_binary(environ: Mapping[str, str]) -> str:
    """Return the Deno executable for a local runtime.

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


def temp_folder() -> tempfile.TemporaryDirectory[str]:
    """Make the folder that takes the place of an execution environment's ``/tmp``.

    It is in the developer's folder for temporary files, unless that has a long path.
    Closing it also removes the files that a killed runtime leaves behind.
    """
    where = tempfile.gettempdir()
    longest_bytes = len(os.fsencode(f"{where}/{TEMP_PREFIX}")) + 8
    if longest_bytes > TEMP_LIMIT_BYTES and os.access(SHORT_TEMP, os.W_OK | os.X_OK):
        where = SHORT_TEMP
    return tempfile.TemporaryDirectory(
        prefix=TEMP_PREFIX, dir=where, ignore_cleanup_errors=True
    )


def lambda_environ(
    options: InvokeOptions, runtime_api: str, temp_dir: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment that Lambda would give the runtime.

    Args:
        options: The function and its settings.
        runtime_api: ``host:port``.
        temp_dir: Takes the place of an execution environment's ``/tmp``.
        environ: The caller's environment, with credentials, region and PATH.
    """
    # Inside a Lambda function the caller's environment has that function's variables.
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
    if NODE_DEBUGGER in environ:
        for variable in (NODE_DEBUGGER, "NODE_OPTIONS"):
            kept.pop(variable, None)
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
    """Return Deno's usual cache, so that modules are not downloaded again.

    None if the function comes with a cache, which the runtime finds by itself.
    """
    if (function.task_root / PACKAGED_DENO_DIR).is_dir():
        return None
    if cache_home := environ.get("XDG_CACHE_HOME"):
        return str(Path(cache_home) / "deno")
    home = home_folder(environ)  # where Deno, too, looks without HOME
    if home is None:
        return None
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return str(home / caches / "deno")


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A running runtime process; times are monotonic seconds."""

    process: asyncio.subprocess.Process
    tree: ProcessTree
    pipe: LogPipe
    started_s: float

    async def has_exited(self, limit_s: float) -> bool:
        """Wait for the process to end; return whether it did within the limit."""
        import asyncio

        try:
            async with asyncio.timeout(limit_s):
                await self.process.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the process and everything it started: SIGTERM first, then SIGKILL."""
        import asyncio

        try:
            if self.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self.process.terminate()
                await self.has_exited(STOP_GRACE_S)
        finally:
            # It reads the environment of every process of the machine.
            await asyncio.to_thread(self.tree.kill)
        await self.has_exited(REAP_LIMIT_S)


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str],
    variables: dict[str, str],
    function: Function,
    pipe: LogPipe,
    tree: ProcessTree,
) -> AsyncIterator[LocalRuntime]:
    """Start a runtime; at the end of the context, end it and everything it started."""
    import asyncio

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
        except asyncio.CancelledError:  # cancelled a second time: kill at once
            stopping.cancel()
            await asyncio.wait([stopping])
            raise
