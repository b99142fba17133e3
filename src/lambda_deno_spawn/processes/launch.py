"""The start of a program with pipes, before there is an event loop.

Knows how to start a program in a process group of its own, with three pipes and no
other descriptor. It is needed before anything slow is imported (decision 0020). Does
not know what the bytes mean, nor how a process is watched. Facts used: pipe(7),
posix_spawn(3).
"""

from __future__ import annotations

import errno
import os

from lambda_deno_spawn.early import signal, suppress
from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.processes.descendants import (
    TEMPLATE_SCORE,
    WORKER_SCORE,
    lose,
    oom_score,
)
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    FileAction = tuple[int, int, str, int, int] | tuple[int, int, int]

STDERR = 2
INHERITED = 3  # the number at which a program finds a descriptor that it is given
PASSED = 4  # the same for the socket that a program takes its streams from
# Python ignores these, and an ignored signal stays ignored in a program it starts.
IGNORED_BY_PYTHON = [signal.SIGPIPE, signal.SIGXFSZ]
DESCRIPTORS_LOST = (
    "Cannot keep the descriptors that the runtime has inherited: handlers inherit them"
)


class Launched(NamedTuple):
    """A running process that no event loop watches yet.

    Attributes:
        pid: Its process id, which is also that of its group.
        stdin: Our end of the pipe to its stdin; like the other two, non-blocking.
        stdout: Our end of the pipe from its stdout.
        stderr: Our end of the pipe from its stderr.
    """

    pid: int
    stdin: int
    stdout: int
    stderr: int

    def write_first(self, data: bytes) -> None:
        """Write to its stdin without waiting; the data must fit into a pipe.

        Raises:
            WorkerSpawnError: It does not fit; the process is ended.
        """
        with suppress(BrokenPipeError):  # it died; its exit status says why
            if os.write(self.stdin, data) < len(data):
                self.abort()
                raise WorkerSpawnError(
                    f"Cannot start a process: {len(data)} bytes of settings are more "
                    "than a pipe takes"
                )

    def abort(self) -> None:
        """End a process that will not be watched, and wait for it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


def make_pipes(action: str) -> list[tuple[int, int]]:
    """Return three pipes, each with its reading end first.

    Args:
        action: What they are for, for the error.

    Raises:
        WorkerSpawnError: The system has no descriptors left.
    """
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(3):
            pipes.append(os.pipe())
    except OSError as error:
        for fd in (fd for pipe in pipes for fd in pipe):
            os.close(fd)
        raise WorkerSpawnError.from_os_error(action, error) from error
    return pipes


def launch(
    argv: Sequence[str],
    environ: Mapping[str, str],
    cwd: str,
    inherited: int | None = None,
    *,
    is_closed: bool = False,
) -> Launched:
    """Start a program with pipes, in a process group of its own. Does not wait.

    It does not use subprocess, whose import would delay the first process by 4 ms
    (decision 0020). ``keep_descriptors`` keeps all other descriptors from the program.

    Args:
        argv: Program and arguments.
        environ: Its whole environment.
        cwd: Its working directory, and from now on this process's.
        inherited: A descriptor that it gets as ``INHERITED``; None: it gets none.
        is_closed: The program begins with no streams and takes its own from the socket
            ``PASSED``, once other processes of its user cannot open them any more.

    Raises:
        WorkerSpawnError: The system refused.
    """
    pipes = make_pipes(f"start {argv[0]!r}")
    (child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr) = pipes
    action = f"enter the function's folder {cwd!r}"
    passing: Passing | None = None
    theirs = (child_stdin, child_stdout, child_stderr)
    try:
        passing = Passing() if is_closed else None
        os.chdir(cwd)
        action = f"start {argv[0]!r}"
        arguments = list(argv)
        # In this order: none of these numbers is given away while it is still needed.
        actions: list[FileAction] = []
        if passing is None:
            actions += [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(theirs)]
        if inherited is not None:
            actions.append((os.POSIX_SPAWN_DUP2, inherited, INHERITED))
        if passing is not None:
            actions += passing.file_actions
        with oom_score.of(WORKER_SCORE if inherited is None else TEMPLATE_SCORE):
            pid = os.posix_spawn(
                argv[0],
                arguments,
                environ,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=IGNORED_BY_PYTHON,
            )
        if passing is not None:
            passing.send(theirs)
    except OSError as error:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        raise WorkerSpawnError.from_os_error(action, error) from error
    finally:
        if passing is not None:
            passing.close()
        for fd in theirs:
            os.close(fd)
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    return Launched(pid, stdin, stdout, stderr)


class Passing:
    """A socket through which a program that has been started gets its streams."""

    def __init__(self) -> None:
        """Make it.

        Raises:
            OSError: There are no descriptors left.
        """
        import socket

        self._own, peer = socket.socketpair()
        ends = [peer.detach()]
        try:
            # None of the numbers that are given away: those are given one by one.
            while ends[-1] <= PASSED:
                ends.append(os.dup(ends[-1]))
            self._peer = ends.pop()
        except OSError:
            self._own.close()
            raise
        finally:
            for fd in ends:
                os.close(fd)

    @property
    def file_actions(self) -> list[FileAction]:
        """Actions of ``posix_spawn`` by which the program begins without streams."""
        null: list[FileAction] = [
            (os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)
        ]
        return [*null, (os.POSIX_SPAWN_DUP2, self._peer, PASSED)]

    def send(self, streams: Sequence[int]) -> None:
        """Send the streams, which stay the caller's as well; does not wait."""
        import socket

        socket.send_fds(self._own, [b"."], list(streams))

    def close(self) -> None:
        """Close both ends; the program has its own."""
        self._own.close()
        os.close(self._peer)


def keep_descriptors() -> None:
    """Let every program that is started inherit stdin, stdout and stderr only.

    Exec closes the descriptors that Python opened itself, but not those that this
    process has inherited, such as that of AWS's log.
    """
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(folder)
        except OSError as error:  # other systems have only the second
            reason = str(error)
            continue
        for name in names:
            if int(name) > STDERR:
                _keep_descriptor(int(name))
        return
    lose(DESCRIPTORS_LOST, reason)


def _keep_descriptor(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        if error.errno != errno.EBADF:  # the listing's own descriptor is closed by now
            lose(DESCRIPTORS_LOST, str(error))
