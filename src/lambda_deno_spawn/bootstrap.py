"""The process that Lambda starts: from its environment to loops and an exit code.

The composition root. In order: read the settings, start the first Deno process, and
import what is slow (asyncio) only then, while Deno loads the handler; adopt the
process, wait until it is ready, call ``next``. This module owns ``os.environ``, the
signals and the exit code. It does not know how an invocation is served.

The way of an event, from here to the handler and back:

    serving/loop.py         next, execute, post, settle
    serving/execution.py    one invocation and its deadline, in a worker on loan
    worker/worker.py        one Deno process; started in worker/start.py
    worker/exchange.py      one invocation in that process
    protocol/frames.py      the bytes on its stdin and stdout
    js/runtime.js           loads the handler and calls it
    runtime_api/client.py   next, and how the outcome is posted

Exit codes: 0 after SIGTERM or SIGINT; 1 after an init error or if the Runtime API ended
the environment; under SnapStart 64 if no snapshot can be taken and 65 if the restored
environment cannot be used, as AWS's own Python runtime does.
"""

from __future__ import annotations

import gc
import os
import sys

from lambda_deno_spawn.config import (
    LogLevel,
    Metrics,
    Record,
    Settings,
    Sigterm,
    Start,
    Strategy,
    Warm,
)
from lambda_deno_spawn.early import signal
from lambda_deno_spawn.errors import (
    ConfigError,
    HandlerError,
    SecretError,
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
    lose,
    newly_lost,
    oom_score,
)
from lambda_deno_spawn.processes.launch import PASSED, keep_descriptors
from lambda_deno_spawn.processes.state import StateDir
from lambda_deno_spawn.records import TYPE_CHECKING
from lambda_deno_spawn.worker.start import start_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.metrics import ReportForm
    from lambda_deno_spawn.serving.recorder import Recorder
    from lambda_deno_spawn.serving.snapshot import SnapStart
    from lambda_deno_spawn.serving.strategy import BaseStrategy
    from lambda_deno_spawn.serving.template import Templates
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.start import StartedWorker

CLOSED_LOST = (
    "Cannot protect processes from events that run at the same time: the code of an "
    "event may read another one"
)
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BEFORE_SNAPSHOT = 64
EXIT_AFTER_RESTORE = 65
# On the way out: after SIGTERM the platform leaves the runtime 150 ms or more
# (30 % of 500 ms; AWS's emulator, shutdown.go).
DRAIN_LIMIT_S = 0.05
EXIT_FLUSH_LIMIT_S = 0.1
ABORT_LIMIT_S = 0.1


def main(adapt: Callable[[DenoCommand], DenoCommand] | None = None) -> NoReturn:
    """Run the runtime in this process until it is told to stop.

    Args:
        adapt: Changes how Deno is started, for tools that are not in the layer.
    """
    # If SIGCHLD is inherited as SIG_IGN, the kernel reaps children itself and their
    # exit codes are lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    keep_descriptors()
    # Until the event loop handles signals: ends the first Deno process on the way out.
    early_exit = EarlyExit()
    try:
        fork_away_from_children()
    except OSError as error:
        failed = WorkerSpawnError.from_os_error("start a process", error)
        sys.exit(_fail_early(failed, early_exit))
    oom_score.hold()  # before `_guard`, which closes /proc/self to this process
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, early_exit)
    cwd = os.getcwd()
    try:
        settings = Settings.from_environ(os.environ, cwd)
    except ConfigError as error:
        sys.exit(_fail_early(error, early_exit))
    try:
        state = StateDir(settings.temp_root)
    except OSError as error:
        sys.exit(_fail_early(_no_temp_root(settings, error), early_exit))
    try:
        sys.exit(_start(settings, state, early_exit, adapt))
    finally:
        state.close()


class EarlyExit:
    """A signal handler that exits at once, or at the end of a ``with`` block.

    An event loop is to be run in such a block: an exit raised between the callbacks of
    a loop loses the one that is next, and the task that it was to wake never ends.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._has_come = False

    def __call__(self, _number: int, _frame: object) -> None:
        """Exit, unless held."""
        self._has_come = True
        self._exit_if_free()

    def __enter__(self) -> None:
        """Defer the exit."""
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        """Exit if a signal arrived inside the block."""
        self.release()

    def release(self) -> None:
        """Exit at once from now on, if a signal arrived before, too."""
        self._is_held = False
        self._exit_if_free()

    def _exit_if_free(self) -> None:
        if self._has_come and not self._is_held:
            raise SystemExit(EXIT_OK)


def _guard(command: DenoCommand) -> None:
    """Adopt what handlers leave running, and close this process to them."""
    become_subreaper()
    become_opaque()
    if command.may_change_processes:
        from lambda_deno_spawn.processes.inherited import own_inheritance

        own_inheritance.note()
        from lambda_deno_spawn.processes.shared_memory import left_memory

        left_memory.note()


def _no_temp_root(settings: Settings, error: OSError) -> ConfigError:
    expected = f"a folder to write to ({error.strerror})"
    return ConfigError("TMPDIR", settings.temp_root, expected)


def _start(
    settings: Settings,
    state: StateDir,
    early_exit: EarlyExit,
    adapt: Callable[[DenoCommand], DenoCommand] | None,
) -> int:
    # The first worker, until the event loop looks after it.
    orphans: list[StartedWorker] = []
    try:
        environ = _with_secrets(settings)
        try:
            command = deno_command(settings, environ, state.path)
            if adapt is not None:
                command = adapt(command)
            if settings.concurrency > 1:
                command = _closed(command)
            cache = ModuleCache(
                state.path,
                command.given_cache,
                state.remove_private,
                watches_downloads=command.may_write_elsewhere,
            )
            # Under SnapStart the first worker needs credentials, which take the event
            # loop, and no event waits for it.
            if settings.warm is Warm.OFF or settings.is_snap_start:
                _guard(command)
            else:
                with early_exit:
                    orphans.append(
                        start_worker(
                            command, state, cache, meanwhile=lambda: _guard(command)
                        )
                    )
        except OSError as error:
            raise _no_temp_root(settings, error) from error
        # Deno is loading the handler now: what follows does not delay the first event.
        state.make_spare()
        state.clear_abandoned()
        from lambda_deno_spawn.deferred import unused_left_out

        with unused_left_out():
            import asyncio
        with early_exit:
            serving = _serve(settings, command, state, cache, orphans, early_exit)
            return asyncio.run(serving)
    except (ConfigError, HandlerError, SecretError, WorkerError) as error:
        return _fail_without_loop(settings.runtime_api, error, early_exit)
    finally:
        for orphan in orphans:
            orphan.launched.abort()
            end_children(ABORT_LIMIT_S)  # programs that its module has started


def _closed(command: DenoCommand) -> DenoCommand:
    """Close processes to the events that run beside them, as the same user."""
    from lambda_deno_spawn.native.control import closed_environ, library_path

    library = library_path()
    if library is None:
        lose(CLOSED_LOST, f"there is no library for it for {os.uname().machine}")
        return command
    environ = closed_environ(command.environ, library, PASSED)
    return command._replace(environ=environ, is_closed=True)


def _with_secrets(settings: Settings) -> Mapping[str, str]:
    """Return the environment with the secrets that variables refer to.

    They are never in the supervisor's own environment, which other programs of this
    user might read.
    """
    if not settings.secrets:
        return os.environ
    # Slow to import, as most of the standard library's clients.
    from lambda_deno_spawn.runtime_api.secrets import fetch_secrets

    return {**os.environ, **fetch_secrets(settings.secrets, os.environ)}


async def _serve(
    settings: Settings,
    command: DenoCommand,
    state: StateDir,
    cache: ModuleCache,
    orphans: list[StartedWorker],
    early_exit: EarlyExit,
) -> int:
    early_exit.release()  # inside a task it is safe, until `Signals` takes over
    import asyncio
    from functools import partial

    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.log.writer import configure_log, logger
    from lambda_deno_spawn.processes.reaper import Reaper
    from lambda_deno_spawn.processes.signals import Signals
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
    from lambda_deno_spawn.serving.execution import Execution
    from lambda_deno_spawn.serving.leftovers import Leftovers
    from lambda_deno_spawn.serving.loop import (
        ManagedInstanceLoop,
        RuntimeLoop,
        Stop,
        run_until,
        serve,
    )
    from lambda_deno_spawn.serving.strategy import INIT_LIMIT_S, MANAGED_INIT_LIMIT_S
    from lambda_deno_spawn.serving.workers import WorkerFactory, Workers

    clients = [
        RuntimeApiClient(settings.runtime_api, settings.task_root)
        for _ in range(settings.concurrency)
    ]
    writer = configure_log(settings)
    _log_start(settings, command)
    loop = asyncio.get_running_loop()
    writer.attach(loop)
    stop = Stop()
    signals = Signals(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signals.handle(number, stop.ask)
    reaper = Reaper(loop, signals)
    credentials = _credentials(settings)
    factory = WorkerFactory(command, state, cache, writer, reaper)
    workers = Workers(factory, state.private_dir_of, credentials, settings.last_words_s)
    if settings.start is not Start.EXEC:
        workers.make_templates = partial(_templates, settings, command, state, cache)
        if settings.start is Start.FORK:
            workers.find_templates()
    leftovers = Leftovers(state, is_beside_events=settings.is_managed_instance)
    strategy = _strategy(settings, workers, leftovers)
    form = _report_form(settings)
    recorder = _recorder(settings, command)
    margin_s = settings.stop_margin_s
    begin = partial(Execution, strategy, writer, margin_s, form, recorder)
    is_managed = settings.is_managed_instance
    init_limit_s = MANAGED_INIT_LIMIT_S if is_managed else INIT_LIMIT_S
    loop_class = ManagedInstanceLoop if is_managed else RuntimeLoop
    loops = [loop_class(client, begin) for client in clients]
    drain_limit_s = None if is_managed else DRAIN_LIMIT_S

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
        return await _fail(
            "Init Error", failure, clients[0].post_init_error, EXIT_FAILED
        )

    try:
        async with _extension(settings):
            code = await run_until(stop.asked, init())
            if code is None and not stop.asked.is_set():
                # Objects of now live to the end: the collector need not scan them.
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
        signals.close()
    return EXIT_OK if code is None else code


def _credentials(settings: Settings) -> CredentialsKeeper | None:
    if settings.credentials_uri is None:
        return None
    from functools import partial

    from lambda_deno_spawn.launch.variables import handed_on
    from lambda_deno_spawn.runtime_api.credentials import CredentialsEndpoint
    from lambda_deno_spawn.serving.credentials import CredentialsKeeper

    return CredentialsKeeper(
        CredentialsEndpoint(),
        settings.credentials_uri,
        settings.credentials_token,
        partial(handed_on, settings),
    )


def _templates(
    settings: Settings,
    command: DenoCommand,
    state: StateDir,
    cache: ModuleCache,
    workers: Workers,
) -> Templates | str:
    """Return what forks processes, or why each begins as a ``deno run``.

    Not called before the first event, unless forks are asked for: what it imports would
    delay the first ``next``.

    Raises:
        ConfigError: They are to be forked, and cannot be.
    """
    from lambda_deno_spawn.launch.places import why_not_fork
    from lambda_deno_spawn.native.control import library_path

    library = library_path()
    reason = why_not_fork(settings, command.private_permissions, library)
    if reason is None and library is not None:
        from lambda_deno_spawn.processes.inherited import Inherited
        from lambda_deno_spawn.serving.template import Templates

        # As many as there may be processes: half of them wait, half have an event.
        places = 1 if settings.concurrency == 1 else 2 * settings.concurrency
        return Templates(
            workers,
            state,
            cache,
            library,
            settings.warm_max_age_s,
            places,
            # Several at once have 2 GB and more.
            settings.memory_mb if places == 1 else None,
            Inherited.of if command.may_change_processes else None,
            may_have_alias=command.may_have_alias,
        )
    if settings.start is Start.FORK:
        raise ConfigError("LAMBDA_DENO_START", "fork", f"auto: {reason}")
    from lambda_deno_spawn.log.writer import logger

    # With settings under which no process is ever copied, this is not news.
    is_news = settings.strategy is Strategy.FRESH and settings.invocations == 1
    report = logger.info if is_news else logger.debug
    report("Events are served by processes of their own start: %s", reason)
    return str(reason)


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


def _recorder(settings: Settings, command: DenoCommand) -> Recorder | None:
    if settings.record is Record.OFF:
        return None
    from lambda_deno_spawn.serving.recorder import Recorder

    # Those that were fetched, whatever their variables are called.
    fetched = [command.environ.get(one.variable, "") for one in settings.secrets]
    return Recorder(settings, os.environ, str(command.facts["module"]), fetched)


def _extension(settings: Settings) -> AbstractAsyncContextManager[None]:
    """Return a context in which Lambda sends SIGTERM, if the settings ask for it."""
    if settings.sigterm is Sigterm.OFF:
        from contextlib import nullcontext

        return nullcontext()
    from lambda_deno_spawn.runtime_api.extension import registered

    return registered(settings.runtime_api)


async def _start_by_snapshot(
    snap_start: SnapStart, client: RuntimeApiClient
) -> int | None:
    """Go from init to a restored environment; return an exit code if that fails."""
    steps = (
        (snap_start.load, "Init Error", client.post_init_error, EXIT_FAILED),
        (
            snap_start.suspend, "Init Error", client.post_init_error,
            EXIT_BEFORE_SNAPSHOT,
        ),
        (
            snap_start.resume, "Restore Error", client.post_restore_error,
            EXIT_AFTER_RESTORE,
        ),
    )  # fmt: skip
    for step, title, post, code in steps:
        failure = await step()
        if failure is not None:
            return await _fail(title, failure, post, code)
    return None


def _log_start(settings: Settings, command: DenoCommand) -> None:
    """Log the oddities of this start; at level DEBUG also how Deno is started.

    No value of a variable is logged: any of them may be a secret.
    """
    from lambda_deno_spawn.launch.command import shown_command, shown_variables
    from lambda_deno_spawn.log.writer import logger

    if settings.unknown:
        names = ", ".join(settings.unknown)
        logger.warning("Unknown settings have no effect: %s", names)
    for odd in (*command.notes, *newly_lost()):
        logger.warning("%s", odd)
    if settings.log_level in (LogLevel.TRACE, LogLevel.DEBUG):
        logger.debug("Each process is started by: %s", shown_command(command))
        logger.debug("Its %s", shown_variables(os.environ, command))


# An environment that cannot serve. Each way ends in `_fail`.


async def _fail(
    title: str,
    failure: Failure,
    post: Callable[[Failure], Awaitable[None]],
    code: int,
) -> int:
    """Log and post why no event can be served; return the exit code."""
    from lambda_deno_spawn.errors import RuntimeApiError
    from lambda_deno_spawn.log.writer import logger

    # Until logs are configured, logging itself writes errors to stderr.
    logger.error("%s\t%s", title, failure.log_text, extra={"failure": failure})
    try:
        await post(failure)
    except (ConfigError, RuntimeApiError) as error:
        logger.error("%s", error)
    return code


def _fail_without_loop(
    runtime_api: str,
    error: ConfigError | HandlerError | SecretError | WorkerError,
    early_exit: EarlyExit,
) -> int:
    """Fail where no event loop is running; a signal ends the post."""
    import asyncio

    from lambda_deno_spawn.invocation import Failure
    from lambda_deno_spawn.processes.signals import Signals
    from lambda_deno_spawn.runtime_api.client import RuntimeApiClient
    from lambda_deno_spawn.serving.loop import Stop, run_until

    async def post(failure: Failure) -> None:
        client = RuntimeApiClient(runtime_api, os.getcwd())
        try:
            await client.post_init_error(failure)
        finally:
            await client.aclose()

    async def fail() -> int:
        early_exit.release()  # inside a task it is safe, until `Signals` takes over
        stop = Stop()
        signals = Signals(asyncio.get_running_loop())
        for number in (signal.SIGTERM, signal.SIGINT):
            signals.handle(number, stop.ask)
        failure = Failure.of(error.error_type, str(error))
        failing = _fail("Init Error", failure, post, EXIT_FAILED)
        try:
            code = await run_until(stop.asked, failing)
        finally:
            signals.close()
        return EXIT_OK if code is None else code

    with early_exit:
        return asyncio.run(fail())


def _fail_early(error: ConfigError | WorkerSpawnError, early_exit: EarlyExit) -> int:
    """Fail before there are settings: the Runtime API's address may be unknown."""
    runtime_api = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if runtime_api:
        return _fail_without_loop(runtime_api, error, early_exit)
    sys.stderr.write(f"{error}\n")
    return EXIT_FAILED


if __name__ == "__main__":
    main()
