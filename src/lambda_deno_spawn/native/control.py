"""The supervisor's end of a template's control socket.

A template is a Deno process that has loaded the handler's module and waits for an event
that never comes: a library that is preloaded into it (``LD_PRELOAD``) forks it for each
event. Knows the messages, which are those of ``message.h``, and the socket. Refuses to
know when to fork, and what becomes of a child. What comes from a template is as hostile
as the code that it has loaded: its size, its version and its place in the conversation
are checked, and a process number is believed only if it is that of a child of ours.
Specification: docs/native.md.
"""

from __future__ import annotations

import os
import socket
import struct

from lambda_deno_spawn.errors import TemplateError
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# Which descriptor the library finds its socket at; it removes the variable.
VARIABLE = "DENO_SPAWN_FORK_FD"
# Set if each copy has a DENO_DIR of its own.
OWN_CACHE = "DENO_SPAWN_FORK_CACHE"
# A path that leads each copy into its private folder: ``ALIAS_LINK`` is a link to
# ``ALIAS_TARGET``, where the library has that folder, and ``ALIAS_END`` is made in it.
# A folder in the folder, as a handler can remove or rename what the whole path names.
ALIAS = "DENO_SPAWN_FORK_ALIAS"
ALIAS_LINK, ALIAS_END = "self", "own"
ALIAS_TARGET = "/proc/self/fd/9"
# Set where other events run beside a process: the library closes it to them, and then
# takes its standard streams from the socket with this number.
CLOSE = "DENO_SPAWN_CLOSE"
PRELOAD = "LD_PRELOAD"
LIBRARY = "lambda-deno-fork.so"  # the name by which it removes itself from LD_PRELOAD
MAGIC = 0x4653444C  # "LDSF"
VERSION = 2
REQUEST = struct.Struct("=IHHIi32s32s")
ANSWER = struct.Struct("=IHHIii108s")
NAME_LIMIT = 32  # of a folder, with its zero byte
ID_LIMIT = 2**32
PROBE, FORK, OBSERVE, LEARN = 1, 2, 3, 4
KINDS = {PROBE: "probe", FORK: "fork", OBSERVE: "observe", LEARN: "learn"}

OK = 0
BAD_REQUEST = 1
# Not now: the process may be asked again.
NOT_LOADED, BUSY = 2, 3
# Never: the handler's module has something that two processes cannot share.
CHILD_PROCESS, WORKER, THREAD, SOCKET, WATCHER = 10, 11, 12, 13, 14
PIPE, FILE_FOR_WRITING, DESCRIPTOR, MEMORY, EVENT_LOOP, STDIO = 15, 16, 17, 18, 19, 20
RANDOM, FOLDER = 21, 22
# Not here: library, Deno, C library and kernel do not fit together.
C_LIBRARY, LIMIT, SYSTEM = 30, 31, 32
# Not this time.
FORK_FAILED, CHILD_FAILED, NO_CHILD = 40, 41, 42
NAMES = {
    OK: "ok",
    BAD_REQUEST: "bad request",
    NOT_LOADED: "not loaded",
    BUSY: "busy",
    CHILD_PROCESS: "child process",
    WORKER: "worker",
    THREAD: "thread",
    SOCKET: "socket",
    WATCHER: "watcher",
    PIPE: "pipe",
    FILE_FOR_WRITING: "file open for writing",
    DESCRIPTOR: "descriptor",
    MEMORY: "shared memory",
    EVENT_LOOP: "event loop",
    STDIO: "standard streams",
    RANDOM: "random numbers",
    FOLDER: "private folder",
    C_LIBRARY: "C library",
    LIMIT: "limit",
    SYSTEM: "system",
    FORK_FAILED: "fork failed",
    CHILD_FAILED: "child failed",
    NO_CHILD: "no child",
}
FROM_MODULE = range(CHILD_PROCESS, FOLDER + 1)
NOT_NOW = (NOT_LOADED, BUSY, FORK_FAILED)


class Answer(NamedTuple):
    """An answer of a template.

    Attributes:
        id: Of the request; 0: unasked, when Deno has just been started.
        code: ``OK``, or why not.
        pid: The child's number; 0: there is none.
        error: ``errno`` of what failed; 0: nothing of the system's.
        detail: For people: what was found, such as ``a socket (descriptor 21)``.
    """

    id: int
    code: int
    pid: int
    error: int
    detail: str

    @property
    def name(self) -> str:
        """Name of the code, for metrics and messages."""
        return NAMES[self.code]

    def __str__(self) -> str:
        """Say it in one line."""
        why = f" ({os.strerror(self.error)})" if self.error else ""
        return (
            f"{self.name}: {self.detail}{why}" if self.detail else f"{self.name}{why}"
        )


def library_path() -> str | None:
    """Return the library for this machine, None if there is none for it."""
    folder = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(folder, "lib", os.uname().machine, LIBRARY)
    return path if os.path.isfile(path) else None


class Folders(NamedTuple):
    """Names of folders beside the template's that a copy has in their place.

    Attributes:
        private: In the place of ``TMPDIR`` and ``HOME``; empty: the template's.
        cache: In the place of ``DENO_DIR``; empty: the template's.
    """

    private: str = ""
    cache: str = ""


def encode_request(
    kind: int, request_id: int, pid: int = 0, folders: Folders | None = None
) -> bytes:
    """Return the packet of a request."""
    private, cache = (name.encode() for name in folders or Folders())
    return REQUEST.pack(MAGIC, VERSION, kind, request_id, pid, private, cache)


def decode_answer(packet: bytes) -> Answer:
    """Return what a packet says.

    Raises:
        TemplateError: It is not an answer of this version.
    """
    if len(packet) != ANSWER.size:
        raise TemplateError(f"{len(packet)} bytes instead of {ANSWER.size}")
    magic, version, code, request_id, pid, error, text = ANSWER.unpack(packet)
    if magic != MAGIC or version != VERSION:
        raise TemplateError(f"version {version} (mark {magic:#x}) instead of {VERSION}")
    if code not in NAMES or pid < 0 or error < 0:
        raise TemplateError(f"code {code}, process {pid}, error {error}")
    detail = text.partition(b"\0")[0].decode("ascii", "backslashreplace")
    printable = "".join(c if c.isprintable() else "?" for c in detail)
    return Answer(request_id, code, pid, error, printable)


def template_environ(
    environ: Mapping[str, str],
    library: str,
    descriptor: int,
    *,
    has_own_cache: bool = False,
    alias: str | None = None,
) -> dict[str, str]:
    """Return a process's variables with those that make it a template.

    Args:
        environ: The variables it would have anyway.
        library: Path of the library; neither a space nor a colon may be in it.
        descriptor: The number that the process inherits ``ControlSocket``'s end by.
        has_own_cache: Each copy has a ``DENO_DIR`` of its own.
        alias: The path that is to lead each copy to its private folder; all copies know
            the folder by it. None: a module that reads the path of its folder while it
            loads is not copied.
    """
    own = {VARIABLE: str(descriptor)}
    if has_own_cache:
        own[OWN_CACHE] = "1"
    if alias is not None:
        own[ALIAS] = alias
    return {**_preloading(environ, library), **own}


def closed_environ(
    environ: Mapping[str, str], library: str, descriptor: int
) -> dict[str, str]:
    """Return a process's variables with those that close it to others of its user.

    Args:
        environ: The variables it would have anyway.
        library: See ``template_environ``.
        descriptor: The number of the socket that it is sent its streams through.
    """
    return {**_preloading(environ, library), CLOSE: str(descriptor)}


def _preloading(environ: Mapping[str, str], library: str) -> dict[str, str]:
    preloaded = environ.get(PRELOAD)
    value = library if not preloaded else f"{library}:{preloaded}"
    return {**environ, PRELOAD: value}


class ControlSocket:
    """The conversation with one template. Requests are answered in their order.

    Not blocking: wait until ``fileno()`` can be read from, then ``receive()`` until it
    returns None. Once the template has gone ``receive`` raises, and so does a request.

    Attributes:
        peer: The template's end, to be inherited by it and then closed.
    """

    def __init__(self) -> None:
        """Make the pair of sockets.

        Raises:
            OSError: There are no descriptors left.
        """
        self._socket, self.peer = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        self._socket.setblocking(False)
        self._next_id = 1
        self._open: list[tuple[int, int]] = []  # id and kind, in order
        self._is_greeted = False

    @property
    def is_greeted(self) -> bool:
        """True once the library has said that it is there."""
        return self._is_greeted

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the conversation: the template exits. Its children live on."""
        self._socket.close()
        self.peer.close()

    def probe(self, folders: Folders | None = None) -> int:
        """Ask whether the process may be forked. Returns the request's id.

        Args:
            folders: Such names as children will have; the cache's does not count.
        """
        return self._send(PROBE, folders=folders)

    def fork(
        self,
        stdin: int,
        stdout: int,
        stderr: int,
        cache: int | None = None,
        folders: Folders | None = None,
    ) -> int:
        """Ask for a child with these descriptors, which stay the caller's.

        Args:
            stdin: The child's, as the next two.
            stdout: See above.
            stderr: See above.
            cache: The folder that is its ``DENO_DIR``; None: it has the template's.
            folders: Names of its folders; None: it has the template's.
        """
        cached = () if cache is None else (cache,)
        return self._send(
            FORK, descriptors=(stdin, stdout, stderr, *cached), folders=folders
        )

    def observe(self, pid: int) -> int:
        """Note what a child has touched before its event: every child does.

        Args:
            pid: A child that waits for its event, and will be learned from.
        """
        return self._send(OBSERVE, pid)

    def learn(self, pid: int) -> int:
        """Let the next children touch before their events what this one's has touched.

        Args:
            pid: A child that has served an event, and is still there.
        """
        return self._send(LEARN, pid)

    def _send(
        self,
        kind: int,
        pid: int = 0,
        descriptors: tuple[int, ...] = (),
        folders: Folders | None = None,
    ) -> int:
        request_id = self._next_id
        packet = encode_request(kind, request_id, pid, folders)
        try:
            if descriptors:
                socket.send_fds(self._socket, [packet], list(descriptors))
            else:
                self._socket.send(packet)
        except OSError as error:
            raise TemplateError(f"no {KINDS[kind]}: {error}") from error
        self._next_id = self._next_id % (ID_LIMIT - 1) + 1
        self._open.append((request_id, kind))
        return request_id

    def receive(self) -> Answer | None:
        """Return the next message, None if none has come.

        Raises:
            TemplateError: The template has gone, or does not keep to the protocol.
        """
        try:
            # One byte more than an answer, so that a longer one is noticed.
            packet, rest, _, _ = self._socket.recvmsg(ANSWER.size + 1)
        except BlockingIOError:
            return None
        except OSError as error:
            raise TemplateError(str(error)) from error
        if not packet and not rest:
            raise TemplateError("it has gone")
        answer = decode_answer(packet)
        if not self._is_greeted:
            self._check_greeting(answer)
            return answer
        if not self._open or self._open[0][0] != answer.id:
            raise TemplateError(f"an answer to request {answer.id}, which is not open")
        _, kind = self._open.pop(0)
        has_child = answer.code in (OK, CHILD_FAILED) and kind == FORK
        if has_child and not is_child(answer.pid):
            raise TemplateError(f"process {answer.pid} is not a child of this one")
        if not has_child and answer.pid:
            raise TemplateError(f"process {answer.pid}, which was not requested")
        return answer

    def _check_greeting(self, answer: Answer) -> None:
        if answer.id or not is_child(answer.pid):
            raise TemplateError(
                f"no greeting, but process {answer.pid}, id {answer.id}"
            )
        self._is_greeted = True


def is_child(pid: int) -> bool:
    """Tell whether a process is one that this one can wait for."""
    if pid <= 0:
        return False
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, OSError):
        return False
    return True
