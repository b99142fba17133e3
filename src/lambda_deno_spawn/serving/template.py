"""The template: a loaded process that is forked for each event, and never serves one.

Knows when there is a template, when a copy of it may be made, and why not. Does not
know which invocation a copy serves. Decision 0033; docs/native.md has the native part.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import TemplateError, WorkerError, WorkerSpawnError
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.native.control import (
    FROM_MODULE,
    OK,
    ControlSocket,
    template_environ,
)
from lambda_deno_spawn.processes.launch import INHERITED, Launched, make_pipes
from lambda_deno_spawn.protocol.hello import MARKER_BYTES, resume
from lambda_deno_spawn.records import Protocol
from lambda_deno_spawn.worker.start import StartedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.native.control import Answer
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.worker.worker import Worker

# A copy takes 1 to 3 ms. The event loop waits for it, as it waits for posix_spawn.
ANSWER_LIMIT_S = 1.0
# After so many failures in a row, whatever their reason, a template is not worth it.
FAILURES_LIMIT = 3


class Starter(Protocol):
    """Starts the process that becomes a template; ``workers.Workers``."""

    def start_template(
        self, environ_of: Callable[[Mapping[str, str]], dict[str, str]], inherited: int
    ) -> Worker:
        """Start a process with these variables and this descriptor."""

    def is_outdated(self, worker: Worker, needed_s: float) -> bool:
        """Tell whether its credentials expire in so long, and another's would not."""


class Template:
    """One process that can be copied.

    Attributes:
        worker: The process.
        is_checked: It has been asked, and may be copied.
    """

    def __init__(self, worker: Worker, control: ControlSocket) -> None:
        """Take charge of a process that holds the other end of ``control``."""
        self.worker = worker
        self.is_checked = False
        self._control = control
        self._observed = 0
        self._has_learned = False

    @property
    def is_loaded(self) -> bool:
        """True once the handler's module is loaded."""
        return self.worker.ready_s is not None

    def probe(self) -> Answer:
        """Ask whether it may be copied.

        Raises:
            TemplateError: It does not answer.
        """
        return self._answer_to(self._control.probe())

    def observe(self, pid: int) -> None:
        """Note what a copy has touched that waits for its event; once.

        Raises:
            TemplateError: The template does not answer.
        """
        if not self._observed:
            self._observed = pid
            self._answer_to(self._control.observe(pid))

    def learn(self, pid: int) -> None:
        """Have later copies touch beforehand the memory that an event touches; once.

        Args:
            pid: The copy that was observed: it has served its event, and not ended.

        Raises:
            TemplateError: The template does not answer.
        """
        if self._observed == pid and not self._has_learned:
            self._has_learned = True
            answer = self._answer_to(self._control.learn(pid))
            logger.debug("Memory that an event touches: %s", answer)

    def fork(self, state: StateDir) -> StartedWorker:
        """Make a copy, which says READY like a process that has just loaded.

        Its folder has the template's path, which is part of the permission flags.

        Raises:
            TemplateError: The template does not answer, or refuses.
            WorkerSpawnError: The system has nothing left to make one with.
        """
        origin = self.worker.started
        state.heal()
        state.have_private(origin.private_dir)
        marker = os.urandom(MARKER_BYTES // 2).hex()
        started_s = time.monotonic()
        pipes = make_pipes("fork a process")
        (child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr) = pipes
        try:
            request = self._control.fork(child_stdin, child_stdout, child_stderr)
            answer = self._answer_to(request)
            _check(answer)
            for fd in (stdin, stdout, stderr):
                os.set_blocking(fd, False)
            launched = Launched(answer.pid, stdin, stdout, stderr)
            line = resume(marker, answer.pid, lingers=not self._has_learned)
            launched.write_first(line)
        except (TemplateError, WorkerSpawnError):
            for fd in (stdin, stdout, stderr):
                os.close(fd)
            raise
        finally:
            for fd in (child_stdin, child_stdout, child_stderr):
                os.close(fd)
        return origin._replace(
            launched=launched,
            marker=marker,
            started_s=started_s,
            spawn_s=time.monotonic() - started_s,
            is_forked=True,
        )

    def close(self) -> None:
        """End the conversation, and with it the process, unless it has an event."""
        self._control.close()

    def _answer_to(self, request: int) -> Answer:
        end_s = time.monotonic() + ANSWER_LIMIT_S
        while True:
            answer = self._control.receive()
            if answer is not None:
                if answer.id == request:
                    return answer
                _check(answer)  # the greeting
                continue
            left_s = end_s - time.monotonic()
            if left_s <= 0.0:
                raise TemplateError(f"no answer within {ANSWER_LIMIT_S:.0f} s")
            poll = select.poll()
            poll.register(self._control.fileno(), select.POLLIN)
            poll.poll(left_s * 1000)


class Templates:
    """Has a template while one is possible and worth it.

    Attributes:
        reason: Why processes are not copied; None: they are, as soon as there is one
            that has learned what Deno caches.
    """

    def __init__(
        self,
        workers: Starter,
        state: StateDir,
        cache: ModuleCache,
        library: str,
        max_age_s: float | None,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Starts the process.
            state: Has the folders of copies.
            cache: Tells whether a template's ``DENO_DIR`` is as it was.
            library: Path of the native library.
            max_age_s: A template that is older is replaced; None: no limit.
        """
        self.reason: str | None = None
        self._workers = workers
        self._state = state
        self._cache = cache
        self._library = library
        self._max_age_s = max_age_s
        self._template: Template | None = None
        self._copy: Worker | None = None
        self._ordinary: Worker | None = None
        # Its socket stays open until it has an event: it would end without.
        self._handed_over: Template | None = None
        self._failures = 0

    @property
    def worker(self) -> Worker | None:
        """The template's process; None: there is none."""
        return None if self._template is None else self._template.worker

    @property
    def kept(self) -> set[Worker]:
        """What must not be ended: the template, and a process that waits for use."""
        return {one for one in (self.worker, self._ordinary) if one is not None}

    async def prepare(self, needed_s: float, limit_s: float, *, waits: bool) -> None:
        """Have a template, if there can be one.

        Args:
            needed_s: So long its credentials have to last.
            limit_s: Time for that.
            waits: Wait until it has loaded.
        """
        self._close_handed_over()
        if self.reason is not None:
            return
        template = self._template
        if template is not None:
            problem = self._problem_of(template, needed_s)
            if problem is not None:
                self._replace(template, problem)
                template = None
        # What the first processes find out is written down where all can write.
        if template is None and self._may_start() and self._cache.is_learned:
            template = self._start()
        if template is None or template.is_checked:
            return
        if waits or template.is_loaded:
            await self._load(template, limit_s)

    async def check(self, limit_s: float) -> str | None:
        """Return why the handler's process cannot be copied, None if it can.

        The process that was asked serves an event later, as any other.
        """
        template = self._start()
        if template is not None:
            await self._load(template, limit_s)
        if self._template is not None:
            self._hand_over(self._template)
        return self.reason

    def take(self) -> Worker | StartedWorker | None:
        """Return a process for an event, None if one has to be started."""
        if self._ordinary is not None:
            worker, self._ordinary = self._ordinary, None
            return worker
        template = self._template
        if template is None or not template.is_checked:
            return None
        if self._copy is not None and not self._copy.is_stopped:
            return None  # its folder is the one that this copy would have
        try:
            started = template.fork(self._state)
        except (TemplateError, WorkerSpawnError) as error:
            self._replace(template, str(error))
            return None
        self._failures = 0
        return started

    def note_copy(self, worker: Worker) -> None:
        """Note who has charge of the copy that was taken."""
        self._copy = worker

    def waiting(self, worker: Worker) -> None:
        """Look at a copy that waits for its event."""
        if self._template is not None and worker is self._copy:
            try:
                self._template.observe(worker.pid)
            except TemplateError as error:
                self._replace(self._template, str(error))

    def ending(self, worker: Worker) -> None:
        """Learn from a copy that is about to be ended."""
        template = self._template
        if template is None or worker is not self._copy or not worker.handed_over:
            return
        if worker.exit_status is None:
            try:
                template.learn(worker.pid)
            except TemplateError as error:
                self._replace(template, str(error))

    def drop(self) -> None:
        """Have no template any more; its process is ended with the others."""
        for template in (self._template, self._handed_over):
            if template is not None:
                template.close()
        self._template = self._handed_over = self._ordinary = None

    def _may_start(self) -> bool:
        return self.reason is None

    def _close_handed_over(self) -> None:
        template = self._handed_over
        if template is not None:
            worker = template.worker
            if worker.handed_over or not worker.is_usable():
                template.close()
                self._handed_over = None

    def _start(self) -> Template | None:
        try:
            control = ControlSocket()
        except OSError as error:
            self._fail(str(WorkerSpawnError.from_os_error("make a socket", error)))
            return None
        try:
            peer = control.peer
            worker = self._workers.start_template(
                lambda environ: template_environ(environ, self._library, INHERITED),
                peer.fileno(),
            )
        except WorkerError as error:
            control.close()
            self._fail(str(error))
            return None
        peer.close()
        self._template = Template(worker, control)
        return self._template

    async def _load(self, template: Template, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                failure = await template.worker.ready()
        except TimeoutError:
            return  # it goes on loading beside the next event
        except WorkerError as error:
            self._replace(template, str(error))
            return
        if failure is not None:
            self._replace(template, failure.error_type)
            return
        try:
            answer = template.probe()
        except TemplateError as error:
            self._replace(template, str(error))
            return
        if answer.code == OK:
            template.is_checked = True
            logger.info("Events are served by forks of process %d", template.worker.pid)
            return
        if answer.code in FROM_MODULE:
            self._give_up(f"the handler's module has {answer.detail}")
        else:
            self._give_up(str(answer))
        self._hand_over(template)

    def _hand_over(self, template: Template) -> None:
        """Let a template that is not copied serve an event itself."""
        self._template = None
        self._handed_over, self._ordinary = template, template.worker

    def _problem_of(self, template: Template, needed_s: float) -> str | None:
        worker = template.worker
        if not worker.is_usable():
            return "it has ended"
        age_s = time.monotonic() - worker.started.started_s
        if self._max_age_s is not None and age_s > self._max_age_s:
            return ""
        if self._workers.is_outdated(worker, needed_s):
            return ""
        if template.is_checked and not self._cache.is_as_lent(worker.started.deno_dir):
            return "an event has added to Deno's cache"
        return None

    def _replace(self, template: Template, problem: str) -> None:
        """Do without a template, and count what was wrong with it, if anything."""
        template.worker.kill()  # what ends a worker does the rest
        template.close()
        self._template = None
        if problem:
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        self._failures += 1
        if self._failures >= FAILURES_LIMIT:
            self._give_up(problem)
        else:
            logger.info("Replacing the template: %s", problem)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        logger.info("Events are served by processes of their own start: %s", reason)


def _check(answer: Answer) -> None:
    if answer.code != OK:
        raise TemplateError(str(answer))
