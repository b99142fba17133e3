"""The start of one Deno process, before there is an event loop to serve it.

Knows the private folder, the command line and the first line of stdin. Separate from
``worker.py`` because the first process of an environment is started before any module
that is slow to import. Does not know what becomes of the process.
"""

from __future__ import annotations

import errno
import os
import time

from lambda_deno_spawn.errors import WorkerError
from lambda_deno_spawn.permissions import INPUT, SOCKET
from lambda_deno_spawn.processes.launch import Launched, launch
from lambda_deno_spawn.protocol.hello import MARKER_BYTES, hello
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.launch.command import DenoCommand
    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.processes.state import StateDir


class StartedWorker(NamedTuple):
    """A worker's process that no ``Worker`` is in charge of yet.

    Attributes:
        started_s: When it was about to be started; monotonic clock.
        spawn_s: How long the system call took that started it.
        deno_dir: Deno's cache; its own, unless the cache is read-only.
        sources: Which settings its arguments stem from.
        invocations: How many it serves; 0: no limit.
        socket: Where it listens; None: invocations go to its stdin, or to ``input``.
        input: Pipe that it reads after its stdin; None: nothing follows stdin.
        is_forked: It began as a copy of another process.
    """

    launched: Launched
    marker: str
    private_dir: str
    deno_dir: str
    started_s: float
    spawn_s: float
    sources: str
    invocations: int = 1
    socket: str | None = None
    input: str | None = None
    is_forked: bool = False


def start_worker(
    command: DenoCommand,
    state: StateDir,
    cache: ModuleCache,
    meanwhile: Callable[[], None] = lambda: None,
    inherited: int | None = None,
    private_dir: str | None = None,
) -> StartedWorker:
    """Start one Deno process with an empty private folder; do not wait for it.

    Args:
        command: How this function's processes are started.
        state: Where the private folder is made.
        cache: Makes its ``DENO_DIR``.
        meanwhile: Called while Deno starts, before any code of the handler's can run:
            its module is loaded after HELLO.
        inherited: A descriptor that it gets, see ``launch``.
        private_dir: Its private folder, which is there; None: one is made.

    Raises:
        WorkerSpawnError: The process could not be started.
        OSError: The private folder could not be made.
    """
    state.heal()
    if private_dir is None:
        private_dir = state.make_private()
    deno_dir = ""
    marker = os.urandom(MARKER_BYTES // 2).hex()
    socket = f"{private_dir}{SOCKET}" if command.listens else None
    started_s = time.monotonic()
    pipe: Input | None = None
    try:
        # A process that is copied has no use for it.
        if command.has_input and inherited is None:
            pipe = _make_input(f"{private_dir}{INPUT}")
        input_path = None if pipe is None else pipe.path
        state.write_all(command.files)
        deno_dir = cache.make()
        launched = launch(
            command.argv(private_dir),
            command.process_environ(private_dir, deno_dir),
            command.cwd,
            inherited,
            is_closed=command.is_closed,
        )
        spawn_s = time.monotonic() - started_s
        meanwhile()
        facts = {**command.facts, "socket": socket, "input": input_path}
        launched.write_first(hello(marker, facts))
    except (WorkerError, OSError):
        if pipe is not None:
            os.close(pipe.fd)
            state.remove_private(pipe.path)
        state.remove_private(private_dir)
        if deno_dir:
            cache.remove(deno_dir)
        raise
    if pipe is not None:
        os.close(launched.stdin)
        launched = launched._replace(stdin=pipe.fd)
    return StartedWorker(
        launched,
        marker,
        private_dir,
        deno_dir,
        started_s,
        spawn_s,
        command.sources,
        command.invocations,
        socket,
        input_path,
    )


class Input(NamedTuple):
    """A pipe with a name, and our end of it."""

    path: str
    fd: int


def _make_input(path: str) -> Input | None:
    """Make the pipe that a process reads when its stdin has ended.

    Returns:
        None if there is no room for it on a full disk: stdin goes on in its place.
    """
    try:
        os.mkfifo(path, 0o600)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return None
    # For reading too: it could not be opened before the process opens its end.
    return Input(path, os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
