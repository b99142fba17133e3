"""What Lambda starts: from an environment to a running loop, and its exit code.

The composition root. In order: read the settings, start the first Deno process, and
only then import what is slow (asyncio) while Deno loads the handler; adopt the process,
wait until it is ready, ask for events. It owns ``os.environ``, the signals and the exit
code, and knows nothing of how an invocation is served.

Exit codes: 0 after SIGTERM or SIGINT, 1 after an init error or when the Runtime API
ended it; under SnapStart 64 if no snapshot can be taken and 65 if what was restored is
of no use, as of AWS's own Python runtime.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

from lambda_deno_spawn.config import (
    LogLevel,
    Metrics,
    Settings,
    Sigterm,
    Start,
    Strategy,
    Warm,
)
from lambda_deno_spawn.errors import (
    ConfigError,
    HandlerError,
    WorkerError,
    WorkerSpawnError,
)
from lambda_deno_spawn.launch.command import deno_command
from lambda_deno_spawn.launch.module_cache import ModuleCache
from lambda_deno_spawn.processes.descendants import (
    become_opaque,
    become_subreaper,
    end_children,
    fork_away_from_children,
    newly_lost,
    oom_score,
)
from lambda_deno_spawn.processes.launch import keep_descriptors
from lambda_deno_spawn.processes.state import StateDir
from lambda_deno_spawn.records import TYPE_CHECKING
from lambda_deno_spawn.worker.start import start_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.metrics import ReportForm
    from lambda_deno_spawn.serving.snapshot import SnapStart
    from lambda_deno_spawn.serving.strategy import BaseStrategy
    from lambda_deno_spawn.serving.template import Templates
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.start import StartedWorker

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BEFORE_SNAPSHOT = 64
EXIT_AFTER_RESTORE = 65
# On the way out: after SIGTERM the platform leaves the runtime 150 ms or more
# (30 % of 500 ms; AWS's emulator, shutdown.go).
DRAIN_LIMIT_S = 0.05
EXIT_FLUSH_LIMIT_S = 0.1
ABORT_LIMIT_S = 0.1


def main() -> NoReturn:
    """Run the runtime in this process until it is told to stop."""
    # Ignored, as it may have been inherited, it would keep every exit code from us.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    keep_descriptors()
    try:
        fork_away_from_children()
    except OSError as error:
        sys.exit(_fail_early(WorkerSpawnError.from_os_error("start a process", error)))
    oom_score.hold()  # this is the process that stays, and `_guard` closes it
    # Until the event loop has its own: whatever was started is ended on the way out.
    early_exit = EarlyExit()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, early_exit)
    cwd = os.getcwd()
    try:
        settings = Settings.from_environ(os.environ, cwd)
    except ConfigError as error:
        sys.exit(_fail_early(error))
    try:
        state = StateDir(settings.temp_root)
    except OSError as error:
        sys.exit(_fail_early(_no_temp_root(settings, error)))
    try:
        sys.exit(_start(settings, state, early_exit))
    finally:
        state.close()


class EarlyExit:
    """A signal handler that exits at once, or at the end of what must not be torn."""

    def __init__(self) -> None:
        self._is_held = False
        self._has_come = False

    def __call__(self, _number: int, _frame: object) -> None:
        """Exit, unless held."""
        self._has_come = True
        self._exit_if_free()

    def __enter__(self) -> None:
        """Hold."""
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        """Exit if a signal came meanwhile."""
        self._is_held = False
        self._exit_if_free()

    def _exit_if_free(self) -> None:
        if self._has_come and not self._is_held:
            raise SystemExit(EXIT_OK)


def _guard() -> None:
    """Keep what handlers start within reach, and this process out of theirs."""
    become_subreaper()
    become_opaque()


def _no_temp_root(settings: Settings, error: OSError) -> ConfigError:
    expected = f"a folder to write to ({error.strerror})"
    return ConfigError("TMPDIR", settings.temp_root, expected)


def _start(settings: Settings, state: StateDir, early_exit: EarlyExit) -> int:
    # A worker that nobody looks after yet.
    orphans: list[StartedWorker] = []
    try:
        try:
            command = deno_command(settings, os.environ, state.path)
            cache = ModuleCache(state.path, command.given_cache, state.remove_private)
            # Under SnapStart the first one needs credentials, and nobody waits for it.
            if settings.warm is Warm.OFF or settings.is_snap_start:
                _guard()
            else:
                with early_exit:
                    orphans.append(
                        start_worker(command, state, cache, meanwhile=_guard)
                    )
        except OSError as error:
            raise _no_temp_root(settings, error) from error
        # Deno is loading the handler now; what follows costs no time of its own.
        state.clear_abandoned()
        import asyncio

        return asyncio.run(_serve(settings, command, state, cache, orphans))
    except (ConfigError, HandlerError, WorkerError) as error:
        return _report_init_error(settings.runtime_api, error)
    finally:
        for orphan in orphans:
            orphan.launched.abort()
            end_children(ABORT_LIMIT_S)  # what its module has started


async def _serve(
    settings: Settings,
    command: DenoCommand,
    state: StateDir,
    cache: ModuleCache,
    orphans: list[StartedWorker],
) -> int:
    import asyncio
    from functools import partial

    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.log.writer import configure_log, logger
    from lambda_deno_spawn.processes.reaper import Reaper
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
    from lambda_deno_spawn.serving.execution import Execution
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.loop import (
        PersistentRuntimeApi,
        RuntimeLoop,
        Stop,
        run_until,
        serve,
    )
    from lambda_deno_spawn.serving.strategy import INIT_LIMIT_S, MANAGED_INIT_LIMIT_S
    from lambda_deno_spawn.serving.workers import WorkerFactory, Workers

    writer = configure_log(settings)
    if settings.unknown:
        names = ", ".join(settings.unknown)
        logger.warning("Unknown settings have no effect: %s", names)
    for lost in newly_lost():
        logger.warning("%s", lost)
    if settings.log_level in (LogLevel.TRACE, LogLevel.DEBUG):
        _log_command(command)
    loop = asyncio.get_running_loop()
    writer.attach(loop)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    clients = [
        RuntimeApiClient(settings.runtime_api, settings.task_root)
        for _ in range(settings.concurrency)
    ]
    reaper = Reaper(loop)
    credentials = _credentials(settings, clients[0])
    factory = WorkerFactory(command, state, cache, writer, reaper)
    workers = Workers(factory, state.private_dir_of, credentials)
    workers.templates = _templates(settings, workers, state, cache)
    leftovers = Leftovers(state, is_beside_events=settings.is_managed_instance)
    strategy = _strategy(settings, workers, leftovers)
    form = _report_form(settings)
    begin = partial(Execution, strategy, writer, settings.stop_margin_s, form)
    init_limit_s = INIT_LIMIT_S
    if settings.is_managed_instance:
        init_limit_s = MANAGED_INIT_LIMIT_S
        loops = [
            RuntimeLoop(PersistentRuntimeApi(client), begin, settles_beside=True)
            for client in clients
        ]
        drain_limit_s = None
    else:
        loops = [RuntimeLoop(clients[0], begin)]
        drain_limit_s = DRAIN_LIMIT_S

    async def init() -> int | None:
        if settings.is_snap_start:
            from lambda_deno_spawn.serving.snapshot import SnapStart

            is_ahead = settings.warm is not Warm.OFF
            snap_start = SnapStart(
                clients[0], strategy, workers, writer, starts_ahead=is_ahead
            )
            return await _start_by_snapshot(snap_start, clients[0])
        first = orphans.pop() if orphans else None
        failure = await strategy.start(first, init_limit_s)
        if failure is None and settings.start is Start.FORK:
            reason = await strategy.check_fork(init_limit_s)
            if reason is not None:
                error = ConfigError("LAMBDA_DENO_START", "fork", f"auto: {reason}")
                failure = Failure.of(error.error_type, str(error))
        if failure is None:
            return None
        return await _fail("Init Error", failure, clients[0].init_error, EXIT_FAILED)

    try:
        async with _extension(settings, clients[0]):
            code = await run_until(stop.asked, init())
            if code is None and not stop.asked.is_set():
                # What lives now lives to the end: no collection looks at it again.
                gc.freeze()
                await serve(loops, stop, drain_limit_s)
    except RuntimeApiError as error:
        logger.error("%s", error)
        return EXIT_FAILED
    finally:
        await strategy.aclose(settings.close_grace_s)
        for client in clients:
            await client.aclose()
        reaper.close()
        writer.detach(EXIT_FLUSH_LIMIT_S)
    return EXIT_OK if code is None else code


def _credentials(
    settings: Settings, client: RuntimeApiClient
) -> CredentialsKeeper | None:
    if settings.credentials_uri is None:
        return None
    from functools import partial

    from lambda_deno_spawn.launch.variables import handed_on
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper

    return CredentialsKeeper(
        client,
        settings.credentials_uri,
        settings.credentials_token,
        partial(handed_on, settings),
    )


def _templates(
    settings: Settings, workers: Workers, state: StateDir, cache: ModuleCache
) -> Templates | None:
    """Return what forks processes; None: each begins as a ``deno run``.

    Raises:
        ConfigError: They are to be forked, and cannot be.
    """
    if settings.start is Start.EXEC:
        return None
    from lambda_deno_spawn.native.control import library_path

    library = library_path()
    reason = None
    if settings.strategy is Strategy.SERVER:
        reason = "one process serves all events (LAMBDA_DENO_STRATEGY=server)"
    elif settings.invocations != 1:
        reason = "a process serves several events (LAMBDA_DENO_MAX_INVOCATIONS)"
    elif settings.concurrency > 1:
        reason = "several events are served at once"
    elif library is None:
        reason = f"there is no library to fork with for {os.uname().machine}"
    if reason is None and library is not None:
        from lambda_deno_spawn.serving.template import Templates

        return Templates(workers, state, cache, library, settings.warm_max_age_s)
    if settings.start is Start.FORK:
        raise ConfigError("LAMBDA_DENO_START", "fork", f"auto: {reason}")
    from lambda_deno_spawn.log.writer import logger

    logger.info("Events are served by processes of their own start: %s", reason)
    return None


def _strategy(
    settings: Settings, workers: Workers, leftovers: Leftovers
) -> BaseStrategy:
    """Return where workers come from, as the settings say."""
    from lambda_deno_spawn.serving.strategy import WarmPolicy

    warm = WarmPolicy(settings.warm, settings.warm_max_age_s)
    if settings.strategy is Strategy.SERVER:
        from lambda_deno_spawn.serving.shared_server import SharedServer

        return SharedServer(
            workers,
            leftovers,
            warm,
            max_invocations=settings.max_invocations,
            concurrency=settings.concurrency,
        )
    from lambda_deno_spawn.serving.fresh_process import FreshProcess
    from lambda_deno_spawn.serving.pool import Bounded, Unbounded

    if settings.is_managed_instance:
        bounded = Bounded(settings.concurrency, settings.memory_mb)
        return FreshProcess(workers, leftovers, warm, bounded)
    return FreshProcess(workers, leftovers, warm, Unbounded())


def _report_form(settings: Settings) -> ReportForm | None:
    if settings.metrics is Metrics.OFF:
        return None
    from lambda_deno_spawn.serving.metrics import ReportForm

    return ReportForm(
        settings.metrics, settings.function_name, settings.function_version
    )


def _extension(
    settings: Settings, client: RuntimeApiClient
) -> AbstractAsyncContextManager[None]:
    """Return what makes Lambda send SIGTERM while it is entered, if that is wanted."""
    if settings.sigterm is Sigterm.OFF:
        return contextlib.nullcontext()
    from lambda_deno_spawn.runtime_api.extension import registered

    return registered(client)


async def _start_by_snapshot(
    snap_start: SnapStart, client: RuntimeApiClient
) -> int | None:
    """Go from init to a restored environment; return an exit code if that fails."""
    steps = (
        (snap_start.load, "Init Error", client.init_error, EXIT_FAILED),
        (snap_start.suspend, "Init Error", client.init_error, EXIT_BEFORE_SNAPSHOT),
        (snap_start.resume, "Restore Error", client.restore_error, EXIT_AFTER_RESTORE),
    )
    for step, title, report, code in steps:
        failure = await step()
        if failure is not None:
            return await _fail(title, failure, report, code)
    return None


async def _fail(
    title: str,
    failure: Failure,
    report: Callable[[Failure], Awaitable[None]],
    code: int,
) -> int:
    """Say why nothing can be served, to the log and to the platform."""
    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.log.writer import logger

    logger.error("%s\t%s", title, failure.body.decode())
    try:
        await report(failure)
    except RuntimeApiError as error:
        logger.error("%s", error)
    return code


def _log_command(command: DenoCommand) -> None:
    """Say how processes are started: no value of a variable, whatever it is."""
    from lambda_deno_spawn.launch.command import shown_command, shown_variables
    from lambda_deno_spawn.log.writer import logger

    logger.debug("Each process is started by: %s", shown_command(command))
    logger.debug("Its %s", shown_variables(os.environ, command))


def _fail_early(error: ConfigError | WorkerSpawnError) -> int:
    """Report what keeps even the settings from being read."""
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

    from lambda_deno_spawn.invocation import Failure

    failure = Failure.of(error.error_type, str(error))
    sys.stderr.write(f"Init Error\t{failure.body.decode()}\n")
    asyncio.run(_post_init_error(runtime_api, failure))
    return EXIT_FAILED


async def _post_init_error(runtime_api: str, failure: Failure) -> None:
    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient

    try:
        client = RuntimeApiClient(runtime_api, os.getcwd())
        await client.init_error(failure)
        await client.aclose()
    except (ConfigError, RuntimeApiError) as error:
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main()
