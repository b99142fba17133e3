"""What the runtime promises of every process, looked at in every process.

A refusal of the system's that nobody looks at is a promise that nobody keeps; so these
tests count, and run as Lambda's user too (``tests/as_lambda.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.local.runtime import isolated_python
from tests.integration import harness
from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest


def is_proc_writable() -> bool:
    is_there = sys.platform == "linux"
    return is_there and not os.statvfs("/proc").f_flag & os.ST_RDONLY


pytestmark = [
    pytest.mark.as_lambda,
    pytest.mark.deno,
    pytest.mark.skipif(not is_proc_writable(), reason="no /proc to write to"),
]
EVENTS = 30
# It runs for as long as somebody looks at it.
WATCHED = """
export async function handler(event: any) {
  const socket = await Deno.connect({ port: event.port });
  await socket.read(new Uint8Array(1));
  socket.close();
  return Deno.pid;
}
"""
PROGRAM = """
export async function handler() {
  const file = "/proc/self/oom_score_adj";
  const { stdout } = await new Deno.Command("cat", { args: [file] }).output();
  return Number(new TextDecoder().decode(stdout));
}
"""


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@pytest.fixture(autouse=True)
def one_processor() -> Iterator[None]:
    """Let all that is started share one, as small functions do on Lambda.

    Who of parent and child goes on first after a start is then decided the other way.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


OWN = score_of(os.getpid()) if sys.platform == "linux" else 0


@asynccontextmanager
async def watching(look: Callable[[], None]) -> AsyncIterator[int]:
    """Look while a handler waits for that; yield the port that it connects to."""

    async def looked_at(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        look()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(looked_at, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# A template ends before what serves an event.
WORKER, TEMPLATE = 300, 1000


async def scores(
    runtime: RuntimeUnderTest, api: FakeRuntimeApi, others: int = 0
) -> list[int]:
    """Serve events; return the scores of all processes seen, the runtime's left out.

    Args:
        runtime: It.
        api: Where its events come from.
        others: How many processes more than the supervisor have a score of their own.
    """
    looks: list[list[int]] = []

    def look() -> None:
        looks.append(sorted(score_of(pid) for pid in runtime.survivors()))

    async with watching(look) as port:
        for _ in range(EVENTS):
            api.deliver(json.dumps({"port": port}).encode())
            answer = await api.answer()
            assert answer.call == "response", answer.body
            await api.wait_for_next()
    assert len(looks) == EVENTS
    assert [look[: 1 + others] for look in looks] == [[OWN] * (1 + others)] * EVENTS
    return [score for look in looks for score in look[1 + others :]]


@pytest.mark.every_way
async def test_every_process_ends_before_the_runtime_when_memory_runs_out(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str
) -> None:
    """The score was written while exec kept the process closed: 0 in nine of ten."""
    async with make_runtime({"function.ts": WATCHED}) as runtime:
        template = {TEMPLATE} if way == "fork" else set()
        assert set(await scores(runtime, api)) == {WORKER} | template
        assert "Cannot let the kernel" not in runtime.log
        # Raised while it starts a process: it starts one now, for an event to come.
        async with asyncio.timeout(LIMIT_S):
            while score_of(runtime.pid) != OWN:  # noqa: ASYNC110 - a look at /proc
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("warm", ["background", "off"])
async def test_it_does_so_whenever_it_is_started(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    async with make_runtime({"function.ts": WATCHED}, LAMBDA_DENO_WARM=warm) as runtime:
        assert set(await scores(runtime, api)) <= {WORKER, TEMPLATE}


async def test_it_does_so_where_the_runtime_has_left_its_first_process(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A descriptor of ``/proc/self`` means the process that opened it."""
    runtime = make_runtime({"function.ts": WATCHED})
    runtime.wrapper = f'sleep 300 >{os.devnull} 2>&1 & echo helper $!; exec "$@"'
    async with runtime:
        helper = int((await runtime.logged("helper")).split()[1])
        # The first process, which stands for the supervisor, and the helper.
        assert set(await scores(runtime, api, others=2)) <= {WORKER, TEMPLATE}
        assert "Cannot" not in runtime.log
        await harness.kill_and_wait(helper)


async def test_what_a_handler_starts_ends_before_the_runtime_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": PROGRAM}, LAMBDA_DENO_PERMISSIONS="all"):
        for _ in range(5):
            assert (await api.invoke({})).json() == WORKER
        await api.wait_for_next()


LOST = {
    "score": (
        "d.OOM_SCORE_FILE = '/proc/self/none'",
        "Cannot let the kernel end a handler's process before the runtime",
    ),
    "orphans": (
        "d.PR_SET_CHILD_SUBREAPER = -1",
        "Cannot become the parent of orphans",
    ),
    "memory": ("d.PR_SET_DUMPABLE = -1", "Cannot close the runtime to its own user"),
}


@pytest.mark.parametrize(("damage", "said"), LOST.values(), ids=LOST.keys())
async def test_what_the_system_refuses_is_said_once_and_events_are_served(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    said: str,
) -> None:
    """Nobody looked at what came of it."""
    script = (
        "import lambda_deno_spawn.bootstrap as b, "
        "lambda_deno_spawn.processes.descendants as d"
    )
    command = isolated_python(f"{script}; {damage}; b.main()")
    monkeypatch.setattr(harness, "bootstrap_command", lambda: command)
    async with make_runtime(
        {"function.ts": "export const handler = () => 1"}
    ) as runtime:
        for _ in range(3):
            assert (await api.invoke({})).json() == 1
        await api.wait_for_next()
        lines = [line for line in runtime.log.splitlines() if said in line]
        assert len(lines) == 1, runtime.log
        assert "\tWARN\t" in lines[0]
