"""When there is a template, when it is copied, and when it is given up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest

from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.limits import MEBIBYTE
from lambda_deno_spawn.native import control
from lambda_deno_spawn.native.control import ANSWER, BUSY, MAGIC, OK, SOCKET, VERSION
from lambda_deno_spawn.processes.child import Footprint
from lambda_deno_spawn.processes.inherited import Inherited
from lambda_deno_spawn.processes.launch import Launched
from lambda_deno_spawn.processes.reaper import ExitStatus
from lambda_deno_spawn.serving import template as module
from lambda_deno_spawn.serving.template import FAILURES_LIMIT, Templates
from lambda_deno_spawn.worker.start import StartedWorker

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.launch.module_cache import ModuleCache
    from lambda_deno_spawn.processes.state import StateDir
    from lambda_deno_spawn.worker.worker import Worker

pytestmark = pytest.mark.as_lambda

PID = 4_000_000  # larger than any process has
NO_FD = -1


def answer(request: int, code: int = OK, pid: int = 0, detail: str = "") -> bytes:
    return ANSWER.pack(MAGIC, VERSION, code, request, pid, 0, detail.encode())


@dataclass(eq=False)
class FakeWorker:
    """A process that has loaded, as far as a template asks."""

    started: StartedWorker
    pid: int = PID
    ready_s: float | None = 1.0
    failure: Failure | None = None
    usable: bool = True
    is_stopped: bool = False
    is_killed: bool = False
    handed_over: int = 0
    exit_status: object = None
    is_out_of_memory: bool = False

    def footprint(self) -> Footprint:
        return Footprint(40 * MEBIBYTE, 30 * MEBIBYTE, 6)

    async def ready(self) -> Failure | None:
        return self.failure

    def is_usable(self) -> bool:
        return self.usable

    def kill(self) -> None:
        self.is_killed, self.usable = True, False


@dataclass
class FakeStarter:
    """Starts templates whose answers a test has written beforehand."""

    answers: list[list[bytes]]
    started: list[FakeWorker] = field(default_factory=list)
    outdated: bool = False
    repaired: int = 0
    deno_dir: str = ""
    aliases: list[tuple[str | None, str | None]] = field(default_factory=list)

    def start_template(
        self,
        environ_of: Callable[[Mapping[str, str]], dict[str, str]],
        inherited: int,
        folders: Sequence[str],
        alias: str | None = None,
    ) -> Worker:
        assert "LD_PRELOAD" in environ_of({})
        self.aliases.append((alias, environ_of({}).get("DENO_SPAWN_FORK_ALIAS")))
        peer = socket.socket(fileno=os.dup(inherited))
        for packet in [answer(0, pid=PID), *self.answers.pop(0)]:
            peer.send(packet)
        PEERS.append(peer)
        worker = FakeWorker(
            StartedWorker(
                Launched(PID, NO_FD, NO_FD, NO_FD),
                "m",
                folders[0] if folders else "/p",
                self.deno_dir,
                1.0,
                0.0,
                "",
            )
        )
        self.started.append(worker)
        return cast("Worker", worker)

    def repair_files(self) -> None:
        self.repaired += 1

    def is_outdated(self, _worker: Worker, _needed_s: float) -> bool:
        return self.outdated


@dataclass
class FakeCache:
    path: ClassVar[str]
    is_known: bool = True
    is_own: bool = True
    made: int = 0

    def make_for_copy(self) -> str:
        self.made += 1
        return self.path

    def give_back(self, _path: str) -> None:
        self.made -= 1


class FakeState:
    path = "/state"

    def __init__(self, *, has_room: bool = True) -> None:
        self._has_room = has_room

    def link(self, name: str, target: str) -> None:
        assert (name, target) == ("self", "/proc/self/fd/9")
        if not self._has_room:
            raise OSError("no room")

    def heal(self) -> None: ...

    def have_private(self, _path: str) -> None: ...

    def remove_private(self, _path: str) -> None: ...

    def new_private(self) -> str:
        return f"/{os.urandom(8).hex()}"

    make_private = new_private


PEERS: list[socket.socket] = []
MADE: list[Templates] = []


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(FakeCache, "path", str(tmp_path), raising=False)
    monkeypatch.setattr(control, "is_child", lambda _pid: True)
    monkeypatch.setattr(module, "ANSWER_LIMIT_S", 0.0)
    yield
    while MADE:
        MADE.pop().drop()
    while PEERS:
        PEERS.pop().close()


def make(
    *answers: list[bytes],
    cache: FakeCache | None = None,
    places: int = 1,
    memory_mb: int | None = None,
    inherited_of: Callable[[int], Inherited | None] | None = None,
    state: FakeState | None = None,
    may_have_alias: bool = False,
) -> tuple[Templates, FakeStarter, FakeCache]:
    starter, cache = FakeStarter([*answers]), cache or FakeCache()
    templates = Templates(
        starter,
        cast("StateDir", state or FakeState()),
        cast("ModuleCache", cache),
        "/lib.so",
        None,
        places,
        memory_mb,
        inherited_of,
        may_have_alias=may_have_alias,
    )
    MADE.append(templates)
    return templates, starter, cache


def prepare(templates: Templates, **options: Any) -> None:
    options = {"limit_s": 1.0, "waits": True, **options}
    asyncio.run(templates.prepare(60.0, **options))


def test_a_template_is_asked_once_and_copied_then() -> None:
    templates, starter, _ = make([answer(1), answer(2, pid=PID + 1)])
    prepare(templates)
    prepare(templates)
    assert len(starter.started) == 1
    copy = templates.take()
    assert isinstance(copy, StartedWorker)
    assert copy.is_forked
    assert copy.launched.pid == PID + 1
    assert copy.marker != "m"
    for fd in copy.launched[1:]:
        os.close(fd)


@pytest.mark.parametrize(
    ("places", "may_have_alias", "has_room", "alias"),
    [
        (4, True, True, "/state/self/own"),
        (4, True, False, None),
        (4, False, True, None),
        (1, True, True, None),  # the copies' folder is the template's own
    ],
)
def test_a_template_whose_copies_have_other_folders_gets_a_path_to_each(
    places: int, may_have_alias: bool, has_room: bool, alias: str | None
) -> None:
    templates, starter, _ = make(
        [answer(1)],
        places=places,
        state=FakeState(has_room=has_room),
        may_have_alias=may_have_alias,
    )
    prepare(templates)
    assert starter.aliases == [(alias, alias)]


def test_nothing_is_copied_before_what_is_cached_is_known() -> None:
    templates, starter, cache = make([answer(1)], cache=FakeCache(is_known=False))
    prepare(templates)
    assert (starter.started, templates.take()) == ([], None)
    cache.is_known = True
    prepare(templates)
    assert len(starter.started) == 1


def test_a_module_that_holds_something_is_served_by_its_process_once() -> None:
    templates, starter, _ = make([answer(1, SOCKET, detail="a socket (descriptor 9)")])
    prepare(templates)
    assert templates.reason == "the handler's module has a socket (descriptor 9)"
    assert templates.kept == {cast("Worker", starter.started[0])}
    assert templates.take() is cast("object", starter.started[0])
    assert templates.take() is None
    prepare(templates)
    assert len(starter.started) == 1


def test_one_that_is_busy_is_asked_again_and_given_up_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUSY_PAUSE_S", 0)
    busy = [answer(n, BUSY, detail="a thread is at work") for n in range(1, 9)]
    templates, _, _ = make([busy[0], busy[1], answer(3)])
    prepare(templates)
    assert templates.reason is None
    templates, _, _ = make(busy)
    prepare(templates)
    assert templates.reason == "busy: a thread is at work"


def test_one_that_does_not_answer_is_replaced_and_given_up_at_last() -> None:
    templates, starter, _ = make(*[[]] * FAILURES_LIMIT)
    for _ in range(FAILURES_LIMIT + 2):
        prepare(templates)
    assert len(starter.started) == FAILURES_LIMIT
    assert all(worker.is_killed for worker in starter.started)
    assert templates.reason is not None
    assert "no answer" in templates.reason


def test_a_copy_waits_until_the_folder_of_the_one_before_is_free() -> None:
    templates, starter, _ = make([answer(1), answer(2, pid=PID + 1)])
    prepare(templates)
    copy = templates.take()
    assert isinstance(copy, StartedWorker)
    assert starter.repaired == 1
    worker = FakeWorker(copy)
    templates.note_copy(cast("Worker", worker))
    assert templates.take() is None
    for fd in copy.launched[1:]:
        os.close(fd)


@pytest.mark.parametrize("why", ["ended", "outdated", "unknown"])
def test_what_would_be_wrong_for_the_next_event_is_replaced(why: str) -> None:
    templates, starter, cache = make([answer(1)], [answer(1)])
    prepare(templates)
    if why == "ended":
        starter.started[0].usable = False
    starter.outdated = why == "outdated"
    cache.is_known = why != "unknown"
    if why == "unknown":
        prepare(templates)
        cache.is_known = True
    prepare(templates)
    assert len(starter.started) == 2
    assert starter.started[0].is_killed
    assert templates.worker is cast("object", starter.started[1])


def inherited(priority: int) -> Inherited:
    return Inherited((), priority, 0, frozenset({0}))


@pytest.mark.parametrize("places", [1, 2])
def test_no_copy_is_made_of_a_template_that_an_event_has_slowed(places: int) -> None:
    priority = 0
    templates, starter, _ = make(
        [answer(1)],
        [answer(1)],
        places=places,
        inherited_of=lambda _: inherited(priority),
    )
    prepare(templates)
    priority = 19
    if places > 1:  # other events end between the two
        assert templates.take() is None
    prepare(templates)
    assert len(starter.started) == 2
    assert starter.started[0].is_killed
    assert templates.reason is None


def test_no_copy_is_made_of_a_template_whose_credentials_run_out() -> None:
    templates, starter, _ = make([answer(1), answer(2, pid=PID + 1)])
    prepare(templates)
    starter.outdated = True
    assert templates.take() is None
    assert starter.started[0].is_killed


def has_used(templates: Templates, worker: FakeWorker, peak_mb: int) -> None:
    worker.exit_status = ExitStatus(0, peak_bytes=peak_mb * MEBIBYTE)
    worker.handed_over = 1
    templates.ended(cast("Worker", worker))


def test_a_template_goes_where_events_need_its_memory() -> None:
    """Beside supervisor (20 MB) and template (40 MB, half of it shared)."""
    templates, starter, _ = make([answer(1), answer(2, pid=PID + 1)], memory_mb=128)
    prepare(templates)
    copy = templates.take()
    assert isinstance(copy, StartedWorker)
    close(copy)
    worker = FakeWorker(copy)
    has_used(templates, worker, 88)
    assert templates.reason is None
    has_used(templates, worker, 89)
    assert "an event has used 89 MB" in str(templates.reason)
    assert starter.started[0].is_killed
    prepare(templates)
    assert templates.take() is None


def test_a_template_that_would_have_no_room_serves_an_event_itself() -> None:
    templates, starter, _ = make([answer(1)], memory_mb=128)
    launched = Launched(PID, NO_FD, NO_FD, NO_FD)
    first = FakeWorker(StartedWorker(launched, "m", "/p", "", 1.0, 0.0, ""))
    has_used(templates, first, 30 + 89)  # 30 MB of them are Deno's program
    prepare(templates)
    assert "an event has used 89 MB" in str(templates.reason)
    assert templates.take() is cast("object", starter.started[0])


def started(peak_mb: int, load_s: float = 0.1) -> FakeWorker:
    """Return a process of its own start that took so long to load."""
    launched = Launched(PID, NO_FD, NO_FD, NO_FD)
    worker = FakeWorker(StartedWorker(launched, "m", "/p", "", 1.0, 0.0, ""))
    worker.ready_s = 1.0 + load_s
    worker.exit_status = ExitStatus(0, peak_bytes=peak_mb * MEBIBYTE)
    worker.handed_over = 1
    return worker


def test_no_template_loads_beside_an_event_that_may_need_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Supervisor (20 MB) and twice 80 MB are more than 128."""
    templates, starter, _ = make([answer(1)], [answer(1)], memory_mb=128)
    templates.ended(cast("Worker", started(80)))
    monkeypatch.setattr(FakeWorker, "ready", lambda _self: asyncio.sleep(60))
    prepare(templates, limit_s=0.1001)
    assert len(starter.started) == 1
    # It is what serves the event; another one follows behind that.
    assert templates.take() is cast("object", starter.started[0])
    assert templates.kept == set()
    starter.started[0].handed_over = 1
    prepare(templates, limit_s=0.1001)
    assert len(starter.started) == 2


def test_no_template_is_started_that_would_not_load_in_time() -> None:
    templates, starter, _ = make([answer(1)], memory_mb=128)
    templates.ended(cast("Worker", started(80, load_s=0.5)))
    assert templates.is_due(60.0)
    prepare(templates, limit_s=0.4)
    assert (starter.started, templates.take(), templates.reason) == ([], None, None)
    prepare(templates, limit_s=0.6)
    assert not templates.is_due(60.0)


def test_a_template_is_waited_for_where_nothing_may_be_beside_it() -> None:
    templates, _, _ = make([answer(1), answer(2, pid=PID + 1)], memory_mb=128)
    templates.ended(cast("Worker", started(80)))
    prepare(templates, waits=False)
    copy = templates.take()
    assert isinstance(copy, StartedWorker)
    close(copy)


def test_a_template_loads_beside_events_where_there_is_room() -> None:
    templates, starter, _ = make([answer(1)], memory_mb=256)
    templates.ended(cast("Worker", started(80, load_s=60.0)))
    prepare(templates, limit_s=0.0)
    assert len(starter.started) == 1
    assert templates.take() is None


@pytest.mark.parametrize("when", ["loading", "waiting", "copied"])
def test_a_template_that_the_kernel_ends_for_memory_is_the_last(when: str) -> None:
    templates, starter, _ = make([answer(1)], [answer(1)], memory_mb=512)
    if when == "loading":
        prepare(templates, limit_s=-1.0)
    else:
        prepare(templates)
    starter.started[0].usable = False
    starter.started[0].is_out_of_memory = True
    if when == "copied":  # nothing answers any more
        assert templates.take() is None
    prepare(templates)
    assert "memory ran out beside a loaded process" in str(templates.reason)
    assert len(starter.started) == 1


@pytest.mark.parametrize(
    ("returncode", "is_kept"), [(-signal.SIGKILL, False), (-signal.SIGTRAP, True)]
)
def test_a_template_goes_where_an_event_was_ended_for_memory(
    returncode: int, *, is_kept: bool
) -> None:
    """Not at V8's own limit, which is the same without a template."""
    templates, _, _ = make([answer(1)], memory_mb=1024)
    prepare(templates)
    worker = started(80)
    worker.exit_status = ExitStatus(returncode, peak_bytes=80 * MEBIBYTE)
    worker.is_out_of_memory = True
    templates.ended(cast("Worker", worker))
    assert (templates.reason is None) is is_kept


@pytest.mark.parametrize("memory_mb", [None, 1024])
def test_a_template_stays_where_there_is_room(memory_mb: int | None) -> None:
    templates, starter, _ = make([answer(1)], memory_mb=memory_mb)
    prepare(templates)
    has_used(templates, starter.started[0], 900)
    assert templates.reason is None


def test_each_copy_has_a_folder_until_none_is_left() -> None:
    forks = [answer(2 + n, pid=PID + 1 + n) for n in range(3)]
    templates, _, cache = make([answer(1), *forks], places=2)
    prepare(templates)
    workers = []
    for _ in range(2):
        copy = templates.take()
        assert isinstance(copy, StartedWorker)
        close(copy)
        workers.append(FakeWorker(copy))
        templates.note_copy(cast("Worker", workers[-1]))
    assert templates.take() is None
    assert cache.made == 2
    workers[0].is_stopped = True
    again = templates.take()
    assert isinstance(again, StartedWorker)
    close(again)
    assert again.private_dir == workers[0].started.private_dir
    assert again.private_dir != workers[1].started.private_dir


def test_a_copy_that_is_refused_gives_its_cache_back() -> None:
    templates, starter, cache = make([answer(1), answer(2, SOCKET)])
    prepare(templates)
    assert templates.take() is None
    assert cache.made == 0
    assert starter.started[0].is_killed


def test_one_that_has_the_folders_of_all_serves_no_event_itself() -> None:
    templates, starter, _ = make([answer(1, SOCKET, detail="a socket")], places=2)
    prepare(templates)
    assert templates.reason == "the handler's module has a socket"
    assert starter.started[0].is_killed
    assert templates.take() is None


def test_copies_that_end_before_they_are_ready_end_their_template() -> None:
    templates, starter, _ = make([answer(1), answer(2, pid=PID + 1)])
    prepare(templates)
    copy = templates.take()
    assert isinstance(copy, StartedWorker)
    close(copy)
    worker = FakeWorker(copy, ready_s=None, exit_status=ExitStatus(70, 0.0, 0))
    templates.note_copy(cast("Worker", worker))
    templates.ending(cast("Worker", worker))
    assert starter.started[0].is_killed
    assert templates.take() is None


def close(copy: StartedWorker) -> None:
    for fd in copy.launched[1:]:
        os.close(fd)


def test_a_check_tells_why_not_and_wastes_no_process() -> None:
    templates, starter, _ = make([answer(1, SOCKET, detail="a socket")])
    reason = asyncio.run(templates.check(1.0))
    assert reason == "the handler's module has a socket"
    assert templates.take() is cast("object", starter.started[0])
