"""Every worker that there is: started, known until its end, and ended for certain.

Does not know which worker serves an invocation, or when one is started.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import LAST_WORDS_S
from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.processes.descendants import newly_lost
from lambda_deno_spawn.processes.inherited import own_inheritance
from lambda_deno_spawn.processes.shared_memory import left_memory
from lambda_deno_spawn.worker.start import start_worker
from lambda_deno_spawn.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.processes.reaper import Reaper
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.serving.credentials import Credentials, CredentialsKeeper
    from lambda_deno_spawn.serving.template import Templates
    from lambda_deno_spawn.worker.start import StartedWorker

# Ending a worker and what it started takes milliseconds, unless the kernel holds it.
SWEEP_LIMIT_S = 5.0
# Why a process is not a copy, as metrics say it.
AS_CHOSEN = "LAMBDA_DENO_START=exec"
NOT_LOADED = "there was no loaded process to copy"
# The least time for it: after the deadline, and where it has failed before.
SWEEP_LEAST_S = 0.2


class WorkerFactory:
    """Makes workers, all in the same way."""

    def __init__(
        self,
        command: DenoCommand,
        state: StateDir,
        cache: ModuleCache,
        writer: LogWriter,
        reaper: Reaper,
    ) -> None:
        """Make none yet.

        Args:
            command: How Deno is started.
            state: Where the folders of workers are.
            cache: What each worker has of Deno's cache.
            writer: Where their logs go.
            reaper: Waits for their exit.
        """
        self._command = command
        self._state = state
        self._cache = cache
        self._writer = writer
        self._reaper = reaper

    def launch(self, variables: Mapping[str, str]) -> StartedWorker:
        """Start a process that is to be adopted at once; do not wait for it.

        Args:
            variables: Set in its environment besides those of the command.

        Raises:
            WorkerError: It cannot be started.
        """
        command = self._command
        if variables:
            command = command._replace(environ={**command.environ, **variables})
        return self._start(command)

    def _start(
        self,
        command: DenoCommand,
        inherited: int | None = None,
        private_dir: str | None = None,
    ) -> StartedWorker:
        if command.may_change_processes:
            own_inheritance.restore()
        try:
            return start_worker(
                command,
                self._state,
                self._cache,
                inherited=inherited,
                private_dir=private_dir,
            )
        except OSError as error:
            action = f"make a folder for the process in {self._state.path!r}"
            raise WorkerSpawnError.from_os_error(action, error) from error
        finally:
            for lost in newly_lost():
                logger.warning("%s", lost)

    def repair_files(self) -> None:
        """Undo what events have done to what a process starts with.

        That is, to the files, and to the limits and priority of this process.
        """
        if self._command.may_change_processes:
            own_inheritance.restore()
        # On a full disk there is no room; a start would fail, and says so.
        with suppress(OSError):
            self._state.write_all(self._command.files)

    def remove_shared_memory(self) -> None:
        """Free memory that programs of an event have left, if handlers start any."""
        if self._command.may_change_processes:
            left_memory.remove()

    def launch_template(
        self,
        variables: Mapping[str, str],
        environ_of: Callable[[Mapping[str, str]], dict[str, str]],
        inherited: int,
        folders: Sequence[str],
        alias: str | None = None,
    ) -> StartedWorker:
        """Start a process that is to be copied; see ``launch``.

        Args:
            variables: See ``launch``.
            environ_of: Adds what makes it a template to its environment.
            inherited: Its end of the control socket.
            folders: Its private folder, which is there, and those of its copies; empty:
                all have the same, which is made.
            alias: A path that leads each copy to its own folder, if there is one.

        Raises:
            WorkerError: It cannot be started.
        """
        command = self._command
        if folders:
            command = command.for_places(folders, alias)
        environ = environ_of({**command.environ, **variables})
        facts = {**command.facts, "template": True}
        command = command._replace(environ=environ, facts=facts)
        return self._start(command, inherited, folders[0] if folders else None)

    def adopt(self, started: StartedWorker) -> Worker:
        """Take charge of a process that was started."""
        loop = asyncio.get_running_loop()
        return Worker(
            started, self._writer, loop, self._reaper, self._state, self._cache
        )


class Workers:
    """The workers that were started here and have not ended.

    Attributes:
        credentials: What is fetched for workers; None: nothing is.
        templates: Copies a loaded process; None: each begins as a ``deno run``.
        make_templates: Returns ``templates`` when they are first needed, or why there
            are none; None: it has been called, or processes are not to be copied.
    """

    def __init__(
        self,
        factory: WorkerFactory,
        private_dir_of: Callable[[int], str | None],
        credentials: CredentialsKeeper | None = None,
        last_words_s: float = LAST_WORDS_S,
    ) -> None:
        """Start none yet.

        Args:
            factory: Makes workers.
            private_dir_of: Returns the private folder in the environment of a process,
                None if there is none.
            credentials: What is fetched for workers; None: nothing is.
            last_words_s: How long the end of a program may take that listens for it.
        """
        self.credentials = credentials
        self._last_words_s = last_words_s
        self.templates: Templates | None = None
        self.make_templates: Callable[[Workers], Templates | str] | None = None
        self._why_not_fork = AS_CHOSEN
        self._factory = factory
        self._private_dir_of = private_dir_of
        self._started_with: dict[Worker, Credentials | None] = {}
        self._running: set[Worker] = set()
        self._stopping: set[Worker] = set()
        self._is_unswept = False
        # The last one that ended while there was nothing that copies processes.
        self._ended_before: Worker | None = None

    def find_templates(self) -> Templates | None:
        """Return what copies a loaded process, made at first; None: nothing does.

        Raises:
            ConfigError: Processes are to be copied, and cannot be.
        """
        if self.make_templates is None:
            return self.templates
        try:
            made = self.make_templates(self)
        except (ImportError, OSError) as error:
            # It may import modules: no descriptor may be left for that.
            logger.warning("Cannot load what copies processes: %s", error)
            return None  # the next event tries again
        self.make_templates = None
        if isinstance(made, str):
            self._why_not_fork = made
        else:
            self.templates = made
            if self._ended_before is not None:
                made.ended(self._ended_before)
        self._ended_before = None
        return self.templates

    @property
    def why_not_fork(self) -> str:
        """Why a process that is started now is not a copy."""
        if self.make_templates is not None:
            return NOT_LOADED
        if self.templates is None:
            return self._why_not_fork
        return self.templates.reason or NOT_LOADED

    def start(self) -> Worker:
        """Start a worker; do not wait for it.

        Raises:
            WorkerError: It cannot be started.
        """
        taken = None if self.templates is None else self.templates.take()
        match taken:
            case None:
                return self.adopt(self.launch())
            case Worker():
                return taken
        worker = self.adopt(taken)
        if self.templates is not None:
            self.templates.note_copy(worker)
            origin = self.templates.worker
            if self.credentials is not None and origin is not None:
                # A copy has those that its template was started with.
                self._started_with[worker] = self._started_with.get(origin)
        return worker

    def repair_files(self) -> None:
        """Write the files again that a process starts with, if they were changed."""
        self._factory.repair_files()

    def start_template(
        self,
        environ_of: Callable[[Mapping[str, str]], dict[str, str]],
        inherited: int,
        folders: Sequence[str],
        alias: str | None = None,
    ) -> Worker:
        """Start a process that is to be copied; see ``WorkerFactory``.

        Raises:
            WorkerError: It cannot be started.
        """
        given = {} if self.credentials is None else self.credentials.given()
        return self.adopt(
            self._factory.launch_template(given, environ_of, inherited, folders, alias)
        )

    def launch(self) -> StartedWorker:
        """Start a process that is to be adopted at once.

        Raises:
            WorkerError: It cannot be started.
        """
        credentials = self.credentials
        return self._factory.launch({} if credentials is None else credentials.given())

    def adopt(self, started: StartedWorker) -> Worker:
        """Take charge of a process that was started."""
        worker = self._factory.adopt(started)
        self._running.add(worker)
        if self.credentials is not None:
            self._started_with[worker] = self.credentials.current
        return worker

    def drop_template(self) -> None:
        """Have no template any more; its process is ended with the others."""
        if self.templates is not None:
            self.templates.drop()

    @property
    def stopping(self) -> int:
        """How many are being ended."""
        return len(self._stopping)

    def is_stopping(self, worker: Worker) -> bool:
        """Tell whether it is being ended."""
        return worker in self._stopping

    def is_outdated(self, worker: Worker, needed_s: float) -> bool:
        """Tell whether its credentials expire in so long, and another's would not."""
        if self.credentials is None:
            return False
        own = self._started_with.get(worker)
        if own == self.credentials.current:
            return False
        return own is None or not self.credentials.lasts(own, needed_s)

    @property
    def are_loaded(self) -> bool:
        """True if no process is loading the handler's module."""
        return all(worker.ready_s is not None for worker in self._running)

    @property
    def is_empty(self) -> bool:
        """True if nothing runs that was started here."""
        return not self._running and not self._is_unswept

    async def close_all(self, grace_s: float) -> None:
        """Let those that have seen an event close, all at once; ``stop`` does the rest.

        Args:
            grace_s: How long they may take.
        """
        closing = [
            worker
            for worker in self._running - self._stopping
            if worker.handed_over or worker.has_last_words
        ]
        await asyncio.gather(*(worker.close(grace_s) for worker in closing))

    async def stop(
        self, worker: Worker, limit_s: float, words_limit_s: float | None = None
    ) -> None:
        """End a worker; what could not be ended is tried again with the next one.

        Args:
            worker: One that serves nothing any more.
            limit_s: Give up after this long.
            words_limit_s: How long its program may take before that, if it listens for
                its end; None: as ``limit_s``.
        """
        if self.templates is not None:
            self.templates.ending(worker)
        if self._is_unswept:  # what could not be ended then will hardly be now
            limit_s = min(limit_s, SWEEP_LEAST_S)
        self._stopping.add(worker)
        try:
            await self._hear_out(
                worker, limit_s if words_limit_s is None else words_limit_s
            )
            is_ended = await worker.stop(limit_s, self._is_of_another)
        finally:
            self._stopping.discard(worker)
        if not is_ended and not self._is_unswept:
            logger.error(
                "Cannot end process %d, or a program that it started, within %.1f s: "
                "the kernel holds it; the runtime tries again after each event",
                worker.pid,
                limit_s,
            )
        self._is_unswept = not is_ended
        self._factory.remove_shared_memory()
        if self.templates is not None:
            self.templates.ended(worker)
        elif self.make_templates is not None:
            self._ended_before = worker
        if worker.is_stopped:
            self._running.discard(worker)
            self._started_with.pop(worker, None)

    async def _hear_out(self, worker: Worker, limit_s: float) -> None:
        limit_s = min(limit_s, self._last_words_s)
        if not await worker.hear_out(limit_s):
            logger.warning(
                "Process %d listens for its end, but did not end within %.2f s: "
                "stopped",
                worker.pid,
                limit_s,
            )

    async def stop_all_but(self, kept: set[Worker], limit_s: float) -> None:
        """End every worker that is not kept, and that is not being ended already."""
        doomed = self._running - kept
        if self.templates is not None:
            doomed -= self.templates.kept
        if len(doomed) > 1:
            for worker in doomed - self._stopping:
                if not worker.has_last_words:
                    worker.kill()  # all at once: each takes its time to end
        for worker in doomed:
            if worker not in self._stopping:
                least_s = min(SWEEP_LIMIT_S, max(limit_s, SWEEP_LEAST_S))
                await self.stop(worker, least_s, limit_s)

    def _is_of_another(self, pid: int) -> bool:
        """Tell whether an orphan was started by a worker that goes on."""
        others = self._running - self._stopping
        if self.templates is not None and self.templates.worker is not None:
            others.discard(self.templates.worker)  # its folder is that of its copy
        folder = self._private_dir_of(pid) if others else None
        return folder is not None and any(
            f"{folder}/".startswith(f"{other.started.private_dir}/") for other in others
        )
