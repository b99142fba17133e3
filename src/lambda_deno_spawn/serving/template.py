"""The template: a loaded process that is forked for each event, and never serves one.

Knows when there is a template, when a copy of it may be made, and why not. Does not
know which invocation a copy serves. Decision 0033; docs/native.md has the native part.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import TemplateError, WorkerError, WorkerSpawnError
from lambda_deno_spawn.limits import MEBIBYTE
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.native.control import (
    ALIAS_END,
    ALIAS_LINK,
    ALIAS_TARGET,
    FROM_MODULE,
    NOT_NOW,
    OK,
    ControlSocket,
    Folders,
    template_environ,
)
from lambda_deno_spawn.processes.launch import INHERITED, Launched, make_pipes
from lambda_deno_spawn.protocol.hello import MARKER_BYTES, resume
from lambda_deno_spawn.records import Protocol
from lambda_deno_spawn.worker.start import StartedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.native.control import Answer
    from lambda_deno_spawn.processes.inherited import Inherited
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.worker.worker import Worker

# A copy takes 1 to 3 ms. The event loop waits for it, as it waits for posix_spawn.
ANSWER_LIMIT_S = 1.0
# After so many failures in a row, whatever their reason, a template is not worth it.
FAILURES_LIMIT = 3
# On a busy machine, a thread of Deno's may still be at work: how often to ask again.
BUSY_LIMIT = 5
BUSY_PAUSE_S = 0.05
# The supervisor's own memory; decision 0039.
SUPERVISOR_BYTES = 20 * MEBIBYTE
NO_MEMORY_LEFT = "memory ran out beside a loaded process"


class Starter(Protocol):
    """Starts the process that becomes a template; ``workers.Workers``."""

    def start_template(
        self,
        environ_of: Callable[[Mapping[str, str]], dict[str, str]],
        inherited: int,
        folders: Sequence[str],
        alias: str | None = None,
    ) -> Worker:
        """Start a process with these variables, this descriptor and these folders."""

    def repair_files(self) -> None:
        """Write the files again that each process starts with, if they were changed."""

    def is_outdated(self, worker: Worker, needed_s: float) -> bool:
        """Tell whether its credentials expire in so long, and another's would not."""


class Template:
    """One process that can be copied.

    Attributes:
        worker: The process.
        is_checked: It has been asked, and may be copied.
        inherited: What its copies begin with, if others may change that.
        own_bytes: Memory of its own, once it has loaded.
        file_bytes: Its memory that is read from files, mostly Deno's program.
        folders: Its private folder and those of its copies; empty: all have the same.
    """

    def __init__(
        self, worker: Worker, control: ControlSocket, folders: Sequence[str]
    ) -> None:
        """Take charge of a process.

        Args:
            worker: It holds the other end of ``control``.
            control: The conversation with it.
            folders: Its private folder and those of its copies; empty: all have its
                own, so there is one copy at a time.
        """
        self.worker = worker
        self.is_checked = False
        self.inherited: Inherited | None = None
        self.own_bytes = self.file_bytes = 0
        self._control = control
        self.folders = folders
        # Workers by their folders; None: a copy that no worker has adopted yet.
        self._copies: dict[str, Worker | None] = {}
        self._observed = 0
        self._has_learned = False

    @property
    def is_loaded(self) -> bool:
        """True once the handler's module is loaded."""
        return self.worker.ready_s is not None

    def has_library(self) -> bool:
        """Tell whether the library is in the process, which has loaded.

        Raises:
            TemplateError: It cannot be a template.
        """
        if not self._control.is_greeted:
            greeting = self._control.receive()
            if greeting is not None:
                _check(greeting)
        return self._control.is_greeted

    def probe(self) -> Answer:
        """Ask whether it may be copied.

        Raises:
            TemplateError: It does not answer.
        """
        names = [_name(folder) for folder in self.folders[:1]]
        return self._answer_to(self._control.probe(Folders(*names)))

    def has_place(self) -> bool:
        """Tell whether a folder is free for one more copy."""
        return self._free_place() is not None

    def note_copy(self, worker: Worker) -> None:
        """Note the worker that has charge of a copy."""
        self._copies[worker.started.private_dir] = worker

    def is_copy(self, worker: Worker) -> bool:
        """Tell whether a worker is a copy of this process."""
        return self._copies.get(worker.started.private_dir) is worker

    def _free_place(self) -> int | None:
        """Return the index of a folder that no copy has, None if there is none."""
        # In the first one of several, files of the loading module may be left.
        places = range(1, len(self.folders)) if self.folders else (0,)
        for place in places:
            folder = self._folder_of(place)
            copy = self._copies.get(folder)
            if copy is None or copy.is_stopped:
                return place
        return None

    def _folder_of(self, place: int) -> str:
        if self.folders:
            return self.folders[place]
        return self.worker.started.private_dir

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

    def fork(self, state: StateDir, cache: ModuleCache) -> StartedWorker:
        """Make a copy, which says READY like a process that has just loaded.

        There must be a place for it.

        Raises:
            TemplateError: The template does not answer, or refuses.
            WorkerSpawnError: The system has nothing left to make one with.
        """
        place = self._free_place()
        assert place is not None
        folder = self._folder_of(place)
        state.heal()
        state.have_private(folder)
        try:
            deno_dir = cache.make_for_copy()
        except OSError as error:
            raise WorkerSpawnError.from_os_error("make a cache", error) from error
        try:
            return self._fork(place if self.folders else None, folder, deno_dir)
        except (TemplateError, WorkerSpawnError):
            cache.give_back(deno_dir)
            raise

    def _fork(self, place: int | None, folder: str, deno_dir: str) -> StartedWorker:
        origin = self.worker.started
        marker = os.urandom(MARKER_BYTES // 2).hex()
        started_s = time.monotonic()
        pipes = make_pipes("fork a process")
        (child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr) = pipes
        theirs = [child_stdin, child_stdout, child_stderr]
        try:
            own = None
            if deno_dir != origin.deno_dir:
                own = _open_folder(deno_dir)
                theirs.append(own)
            folders = Folders(
                _name(folder) if place is not None else "",
                _name(deno_dir) if own is not None else "",
            )
            request = self._control.fork(
                child_stdin, child_stdout, child_stderr, own, folders
            )
            answer = self._answer_to(request)
            _check(answer)
            for fd in (stdin, stdout, stderr):
                os.set_blocking(fd, False)
            launched = Launched(answer.pid, stdin, stdout, stderr)
            line = resume(
                marker, answer.pid, lingers=not self._has_learned, place=place
            )
            launched.write_first(line)
        except (TemplateError, WorkerSpawnError):
            for fd in (stdin, stdout, stderr):
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        return origin._replace(
            launched=launched,
            marker=marker,
            private_dir=folder,
            deno_dir=deno_dir,
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
        reason: Why processes are not copied; None: they are, as soon as one may be.
    """

    def __init__(
        self,
        workers: Starter,
        state: StateDir,
        cache: ModuleCache,
        library: str,
        max_age_s: float | None,
        places: int = 1,
        memory_mb: int | None = None,
        inherited_of: Callable[[int], Inherited | None] | None = None,
        *,
        may_have_alias: bool = False,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Starts the process.
            state: Has the folders of copies.
            cache: Makes the ``DENO_DIR`` of copies.
            library: Path of the native library.
            max_age_s: A template that is older is replaced; None: no limit.
            places: How many copies there may be at once.
            memory_mb: What the environment has for one event and the template; None:
                there is a template in any case.
            inherited_of: Returns what the children of a process begin with, if handlers
                may change that of a template; None: they may not.
            may_have_alias: A path may lead each copy to its own folder.
        """
        self.reason: str | None = None
        self._workers = workers
        self._state = state
        self._cache = cache
        self._library = library
        self._max_age_s = max_age_s
        self._places = places
        self._memory_mb = memory_mb
        self._inherited_of = inherited_of
        self._may_have_alias = may_have_alias
        # By whether it was a copy: a copy has read little of Deno's program.
        self._peaks_bytes = {False: 0, True: 0}
        # The shortest time that a process has taken to load: some are frozen meanwhile.
        self._load_s = 0.0
        # So long the credentials of a process have to last.
        self._needed_s = 0.0
        self._template: Template | None = None
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
        """Processes that must not be ended: the template, and one that is waiting."""
        return {one for one in (self.worker, self._ordinary) if one is not None}

    def is_due(self, needed_s: float) -> bool:
        """Tell whether ``prepare`` is going to start a process."""
        if self.reason is not None or not self._cache.is_known:
            return False
        template = self._template
        return template is None or self._problem_of(template, needed_s) is not None

    async def prepare(self, needed_s: float, limit_s: float, *, waits: bool) -> None:
        """Have a template, if there can be one.

        Args:
            needed_s: So long its credentials have to last.
            limit_s: Time for that.
            waits: Wait until it has loaded.
        """
        self._close_handed_over()
        self._needed_s = needed_s
        if self.reason is not None:
            return
        if not self._cache.is_known and self._template is not None:
            self._replace(self._template, "")
        template = self._template
        if template is not None:
            problem = self._problem_of(template, needed_s)
            if problem is not None:
                self._replace(template, problem)
                template = None
        # The first process writes packages to a folder that later ones share.
        if template is None and self._may_start(limit_s):
            template = self._start()
        if template is None or template.is_checked:
            return
        if waits or template.is_loaded or self._is_tight:
            await self._load(template, limit_s)

    async def check(self, limit_s: float) -> str | None:
        """Have a template; return why there can be none, None if there can.

        If it takes longer than ``limit_s``, that is found out with the first events.
        """
        template = self._start()
        if template is not None:
            await self._load(template, limit_s)
        return self.reason

    def take(self) -> Worker | StartedWorker | None:
        """Return a process for an event, None if one has to be started."""
        if self._ordinary is not None:
            worker, self._ordinary = self._ordinary, None
            return worker
        template = self._template
        if template is None:
            return None
        if not template.is_checked:
            if self._is_tight and template.worker.is_usable():
                # There is no room for both: the event has the process that loads.
                self._hand_over(template)
                self._ordinary = None
                return template.worker
            return None
        if not self._cache.is_known or not template.has_place():
            return None
        # Other events may have ended since `prepare`.
        is_changed = self._places > 1 and self._is_changed(template)
        if is_changed or self._workers.is_outdated(template.worker, self._needed_s):
            self._replace(template, "")
            return None
        # A copy reads them as little as its template does any more; but what an event
        # has done to them shall not be there for the next one.
        self._workers.repair_files()
        try:
            started = template.fork(self._state, self._cache)
        except (TemplateError, WorkerSpawnError) as error:
            self._replace(template, str(error))
            return None
        self._failures = 0
        return started

    def note_copy(self, worker: Worker) -> None:
        """Note the worker that has charge of the copy that was taken."""
        if self._template is not None:
            self._template.note_copy(worker)

    def waiting(self, worker: Worker) -> None:
        """Look at a copy that waits for its event."""
        template = self._template
        if template is not None and template.is_copy(worker):
            try:
                template.observe(worker.pid)
            except TemplateError as error:
                self._replace(template, str(error))

    def ending(self, worker: Worker) -> None:
        """Learn from a copy that is about to be ended."""
        template = self._template
        if template is None or not template.is_copy(worker):
            return
        status = worker.exit_status
        if status is not None:
            if worker.ready_s is None and status.returncode > 0:
                self._replace(template, "a copy has ended before it was ready")
        elif worker.handed_over:
            try:
                template.learn(worker.pid)
            except TemplateError as error:
                self._replace(template, str(error))

    def ended(self, worker: Worker) -> None:
        """Look at what a process had used that has ended: is there room for both?"""
        status = worker.exit_status
        if status is not None and worker.handed_over:
            peaks = self._peaks_bytes
            kind = worker.started.is_forked
            peaks[kind] = max(peaks[kind], status.peak_bytes)
            if not kind and worker.ready_s is not None:
                load_s = worker.ready_s - worker.started.started_s
                self._load_s = min(self._load_s or load_s, load_s)
            template = self._template
            if template is None or not template.is_checked:
                return
            problem = self._lack_of_room(template)
            # By the kernel, not at V8's own limit.
            is_killed = worker.is_out_of_memory and status.returncode == -signal.SIGKILL
            if problem is None and is_killed and self._memory_mb is not None:
                problem = NO_MEMORY_LEFT
            if problem is not None:
                self._replace(template, "")
                if self.reason is None:
                    self._give_up(problem)

    def _lack_of_room(self, template: Template) -> str | None:
        """Return why events may need the memory of a template; None: there is room.

        They change about half of what it has loaded at most, which is then there twice.
        """
        if self._memory_mb is None:
            return None
        # Pages of files need not stay in memory.
        peak_bytes = max(
            self._peaks_bytes[True], self._peaks_bytes[False] - template.file_bytes
        )
        needed_bytes = SUPERVISOR_BYTES + peak_bytes + template.own_bytes // 2
        if needed_bytes <= self._memory_mb * MEBIBYTE:
            return None
        return (
            f"an event has used {peak_bytes // MEBIBYTE} MB, and beside the "
            f"{template.own_bytes // MEBIBYTE} MB of a loaded process too little would "
            f"be left of the function's {self._memory_mb} MB"
        )

    def drop(self) -> None:
        """Have no template any more; its process is ended with the others."""
        for template in (self._template, self._handed_over):
            if template is not None:
                template.close()
        self._template = self._handed_over = self._ordinary = None

    @property
    def _is_tight(self) -> bool:
        """True if a process that loads must not be there beside an event's."""
        if self._memory_mb is None:
            return False
        two_bytes = 2 * max(self._peaks_bytes.values())
        return SUPERVISOR_BYTES + two_bytes > self._memory_mb * MEBIBYTE

    def _may_start(self, limit_s: float) -> bool:
        if self.reason is not None or not self._cache.is_known:
            return False
        # Else it would be left for the next event to wait for.
        return not self._is_tight or limit_s > self._load_s

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
            folders = self._make_folders()
            alias = self._make_alias() if folders else None
            worker = self._workers.start_template(
                lambda environ: template_environ(
                    environ,
                    self._library,
                    INHERITED,
                    has_own_cache=self._cache.is_own,
                    alias=alias,
                ),
                peer.fileno(),
                folders,
                alias,
            )
        except WorkerError as error:
            control.close()
            self._fail(str(error))
            return None
        peer.close()
        self._template = Template(worker, control, folders)
        return self._template

    def _make_folders(self) -> list[str]:
        """Make the folder of a template, and choose those of its copies.

        Raises:
            WorkerSpawnError: It cannot be made.
        """
        if self._places == 1:
            return []
        try:
            self._state.heal()
            own = self._state.make_private()
        except OSError as error:
            action = "make a folder for the template"
            raise WorkerSpawnError.from_os_error(action, error) from error
        return [own, *(self._state.new_private() for _ in range(self._places))]

    def _make_alias(self) -> str | None:
        """Make the path that leads each copy to its own folder; None: there is none."""
        if not self._may_have_alias:
            return None
        try:
            self._state.link(ALIAS_LINK, ALIAS_TARGET)
        except OSError:
            return None  # a module that reads the path of its folder is not copied
        return f"{self._state.path}/{ALIAS_LINK}/{ALIAS_END}"

    async def _load(self, template: Template, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                failure = await template.worker.ready()
        except TimeoutError:
            return  # it goes on loading beside the next event
        except WorkerError as error:
            self._replace(template, str(error))
            return
        if template is not self._template or template.is_checked:
            return  # beside another event
        if failure is not None:
            self._replace(template, failure.error_type)
            return
        footprint = template.worker.footprint()
        if footprint is not None:
            template.own_bytes, template.file_bytes, _ = footprint
        problem = self._lack_of_room(template)
        if problem is not None:
            self._give_up(problem)
            self._hand_over(template)
            return
        try:
            if not template.has_library():
                self._replace(template, "")
                self._give_up("the loader has not taken the library")
                return
            answer = await self._probe(template)
        except TemplateError as error:
            self._replace(template, str(error))
            return
        if template is not self._template:
            return
        if answer.code == OK:
            template.is_checked = True
            if self._inherited_of is not None:
                template.inherited = self._inherited_of(template.worker.pid)
            if template.folders:
                # No copy may use it, also not one whose module has found out its path.
                self._state.remove_private(template.folders[0])
            logger.info("Events are served by forks of process %d", template.worker.pid)
            return
        if answer.code in FROM_MODULE:
            self._give_up(f"the handler's module has {answer.detail}")
        else:
            self._give_up(str(answer))
        self._hand_over(template)

    async def _probe(self, template: Template) -> Answer:
        """Ask whether it may be copied, and ask again while it is busy."""
        answer = template.probe()
        for _ in range(BUSY_LIMIT):
            if answer.code not in NOT_NOW:
                break
            await asyncio.sleep(BUSY_PAUSE_S)
            if template is not self._template:  # replaced, its socket is closed
                break
            answer = template.probe()
        return answer

    def _hand_over(self, template: Template) -> None:
        """Let a template that is not copied serve an event itself."""
        self._template = None
        if self._places > 1:  # it may use the folders of all copies
            template.worker.kill()
            template.close()
            return
        self._handed_over, self._ordinary = template, template.worker

    def _problem_of(self, template: Template, needed_s: float) -> str | None:
        worker = template.worker
        if not worker.is_usable():
            return "it has ended"
        age_s = time.monotonic() - worker.started.started_s
        if self._max_age_s is not None and age_s > self._max_age_s:
            return ""
        if self._workers.is_outdated(worker, needed_s) or self._is_changed(template):
            return ""
        return None

    def _is_changed(self, template: Template) -> bool:
        """Tell whether an event has changed what later copies would begin with."""
        if self._inherited_of is None or template.inherited is None:
            return False
        if self._inherited_of(template.worker.pid) == template.inherited:
            return False
        logger.info("Replacing the template: its limits or priority were changed")
        return True

    def _replace(self, template: Template, problem: str) -> None:
        """Do without a template, and count its fault, if it had one."""
        is_gone = not template.worker.is_usable()
        template.worker.kill()  # what ends a worker does the rest
        template.close()
        self._template = None
        if is_gone and template.worker.is_out_of_memory and self._memory_mb is not None:
            self._give_up(NO_MEMORY_LEFT)
        elif problem:
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


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _open_folder(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise WorkerSpawnError.from_os_error(f"open {path!r}", error) from error


def _check(answer: Answer) -> None:
    if answer.code != OK:
        raise TemplateError(str(answer))
