"""What Lambda starts: from an environment to a running loop, and its exit code.

The composition root. In order: read the settings, start the first Deno process, and
only then import what is slow (asyncio, httpx) while Deno loads the handler; adopt the
process, wait until it is ready, ask for events. It owns ``os.environ``, the signals and
the exit code, and knows nothing of how an invocation is served.

Exit codes: 0 after SIGTERM or SIGINT, 1 after an init error or when the Runtime API
ended it.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lambda_deno_spawn.config import Settings, Warm
from lambda_deno_spawn.deno import deno_command
from lambda_deno_spawn.errors import ConfigError, HandlerError, WorkerError
from lambda_deno_spawn.process import become_subreaper, children
from lambda_deno_spawn.state import StateDir
from lambda_deno_spawn.worker import start_worker

if TYPE_CHECKING:
    from lambda_deno_spawn.deno import DenoCommand
    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.worker import StartedWorker

EXIT_OK = 0
EXIT_FAILED = 1


def main() -> NoReturn:
    """Run the runtime in this process until it is told to stop."""
    # They were there before us (an exec wrapper may leave a helper behind).
    spared = frozenset(children())
    cwd = os.getcwd()  # noqa: PTH109
    try:
        settings = Settings.from_environ(os.environ, cwd)
    except ConfigError as error:
        sys.exit(_fail_early(error))
    try:
        state = StateDir(settings.temp_root)
    except OSError as error:
        sys.exit(_fail_early(_no_temp_root(settings.temp_root, error)))
    try:
        sys.exit(_start(settings, state, spared))
    finally:
        state.close()


def _no_temp_root(temp_root: str, error: OSError) -> ConfigError:
    return ConfigError("TMPDIR", temp_root, f"a folder to write to ({error.strerror})")


def _start(settings: Settings, state: StateDir, spared: frozenset[int]) -> int:
    first: StartedWorker | None = None
    try:
        command = deno_command(settings, os.environ, Path(state.path))
        if settings.warm is not Warm.OFF:
            first = start_worker(command, state.path)
    except (ConfigError, HandlerError, WorkerError) as error:
        return _report_init_error(settings.runtime_api, error)
    # Deno is loading the handler now; the slow imports cost no time of their own.
    state.clear_abandoned()
    become_subreaper()
    _skip_httpx_command_line()
    import asyncio

    return asyncio.run(_serve(settings, command, state.path, first, spared))


async def _serve(
    settings: Settings,
    command: DenoCommand,
    state_dir: str,
    first: StartedWorker | None,
    spared: frozenset[int],
) -> int:
    import asyncio
    import signal

    from lambda_deno_spawn import logs
    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.loop import RuntimeLoop, run_until
    from lambda_deno_spawn.process import Reaper
    from lambda_deno_spawn.runtime_api import RuntimeApiClient
    from lambda_deno_spawn.strategies import FreshProcess

    writer = logs.configure(settings)
    if settings.unknown:
        logs.logger.warning(
            "Unknown settings have no effect: %s", ", ".join(settings.unknown)
        )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reaper = Reaper(loop, spared)
    strategy = FreshProcess(settings, command, state_dir, writer, reaper)
    client = RuntimeApiClient(settings.runtime_api, settings.task_root)
    try:
        failure = await strategy.start(first)
        if failure is not None:
            await client.init_error(failure)
            logs.logger.error("Init Error\t%s", failure.body.decode())
            return EXIT_FAILED
        # What lives now lives to the end: no collection needs to look at it again.
        gc.freeze()
        await run_until(stop, RuntimeLoop(client, strategy))
    except RuntimeApiError as error:
        logs.logger.error("%s", error)
        return EXIT_FAILED
    finally:
        await strategy.aclose()
        await client.aclose()
        reaper.close()
    return EXIT_OK


def _fail_early(error: ConfigError) -> int:
    """Report a setting that keeps even the settings from being read."""
    runtime_api = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if runtime_api:
        return _report_init_error(runtime_api, error)
    sys.stderr.write(f"{error}\n")
    return EXIT_FAILED


def _report_init_error(
    runtime_api: str, error: ConfigError | HandlerError | WorkerError
) -> int:
    """Post an init error, write it to the log, and return the exit code."""
    import asyncio

    _skip_httpx_command_line()
    from lambda_deno_spawn.invocation import Failure

    failure = Failure.of(error.error_type, str(error))
    sys.stderr.write(f"Init Error\t{failure.body.decode()}\n")
    asyncio.run(_post_init_error(runtime_api, failure))
    return EXIT_FAILED


async def _post_init_error(runtime_api: str, failure: Failure) -> None:
    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.runtime_api import RuntimeApiClient

    try:
        client = RuntimeApiClient(runtime_api, os.getcwd())  # noqa: PTH109
        await client.init_error(failure)
        await client.aclose()
    except (ConfigError, RuntimeApiError) as error:
        sys.stderr.write(f"{error}\n")


def _skip_httpx_command_line() -> None:
    """Keep httpx from importing its own command line, which it does if it can.

    Where click and rich happen to be installed that costs more than all the rest; httpx
    itself falls back to a stub on ImportError.
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
