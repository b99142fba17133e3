"""The way out: who hears of it, and how long a process that has served may close."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.local.runtime import isolated_python
from tests.doubles import FakeRuntimeApi, Refusal, cut, hang
from tests.integration.harness import STOP_LIMIT_S, deno_binary

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import Fault
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

# More than a busy machine needs; nobody waits for it where a process closes.
LONG = {"LAMBDA_DENO_CLOSE_GRACE_MS": "50000"}
UNLOAD = 'addEventListener("unload", () => console.log("unloaded"));\n'
HANDLER = "export const handler = () => Deno.pid;\n"
KEEPS_OPEN = "setInterval(() => {}, 1000);\n"
FORKS = "Events are served by forks of process"  # said once
LISTENERS = {
    "flushes": """
Deno.addSignalListener("SIGTERM", async () => {
  console.log("closing");
  await new Promise((resolve) => setTimeout(resolve, 5));
  console.log("flushed");
});
""",
    "exits": """
Deno.addSignalListener("SIGTERM", async () => {
  console.log("closing");
  await new Promise((resolve) => setTimeout(resolve, 5));
  console.log("flushed");
  Deno.exit(0);
});
""",
    "of-node": """
import process from "node:process";
process.on("SIGTERM", () => {
  console.log("closing");
  setTimeout(() => { console.log("flushed"); process.exit(0) }, 5);
});
""",
}


@pytest.mark.cases(1)
@pytest.mark.every_way("reuse", "server")
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("keeps_open", [False, True], ids=["idle", "timer"])
async def test_a_process_that_has_served_may_close(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, listener: str, *, keeps_open: bool
) -> None:
    source = LISTENERS[listener] + UNLOAD + (KEEPS_OPEN if keeps_open else "") + HANDLER
    # It is killed at last, if it neither exits nor runs out of work.
    is_killed = keeps_open and listener == "flushes"
    grace = {"LAMBDA_DENO_CLOSE_GRACE_MS": "4000"} if is_killed else LONG
    async with make_runtime({"function.ts": source}, **grace) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0
    said = [line.split("\t") for line in runtime.log.splitlines()]
    assert [line[-1] for line in said] == ["closing", "flushed", "unloaded"]
    assert {line[1] for line in said} == {"request-1"}, "the last that was served"


@pytest.mark.every_way("reuse", "server")
async def test_unload_is_told_where_nobody_listens(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": UNLOAD + HANDLER}, **LONG) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert runtime.log.count("unloaded") == 1


@pytest.mark.every_way("reuse", "server")
async def test_a_handler_that_replaces_what_we_close_with_ends_as_well(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = (
        KEEPS_OPEN
        + """
globalThis.setTimeout = () => { throw new Error("a fake clock"); };
Deno.exit = () => { throw new Error("no exit"); };
"""
    )
    grace = {"LAMBDA_DENO_CLOSE_GRACE_MS": "3000"}
    files = {"function.js": UNLOAD + source + HANDLER}
    async with make_runtime(files, **grace) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert "unloaded" in runtime.log
    assert "a fake clock" not in runtime.log


@pytest.mark.every_way("reuse", "server")
async def test_what_was_streamed_and_what_is_kept_alive_does_not_hold_up_the_end(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = (
        UNLOAD
        + """
export async function* handler() { yield "a"; yield "b"; }
"""
    )
    async with make_runtime({"function.ts": source}, **LONG) as runtime:
        for _ in range(3):
            await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert runtime.log.count("unloaded") == 1


@pytest.mark.cases(1)
@pytest.mark.every_way("reuse", "server")
@pytest.mark.parametrize(
    "source",
    [
        'Deno.addSignalListener("SIGTERM", () => { for (;;); });',
        'addEventListener("unload", () => { for (;;); });',
        'Deno.addSignalListener("SIGTERM", () => { throw new Error("no") });',
    ],
    ids=["loops", "loops-in-unload", "throws"],
)
async def test_who_does_not_close_in_time_is_killed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, source: str
) -> None:
    async with make_runtime({"function.ts": f"{source}\n{HANDLER}"}) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0


@pytest.mark.every_way
async def test_a_process_that_has_seen_no_event_is_killed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = UNLOAD + LISTENERS["flushes"] + HANDLER
    async with make_runtime({"function.ts": source}, **LONG) as runtime:
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert not [line for line in runtime.log.splitlines() if FORKS not in line]


@pytest.mark.every_way("server")
async def test_a_program_that_a_handler_has_started_hears_of_it_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
const script = 'trap "echo told; exit" TERM; echo ready; sleep 600 & wait';
const program = new Deno.Command("sh", { args: ["-c", script], stdout: "piped" });
const reader = program.spawn().stdout.pipeThrough(new TextDecoderStream()).getReader();
let said = "";
while (!said.includes("ready")) said += (await reader.read()).value;
reader.read().then(({ value }) => console.log(value.trim()));
export const handler = () => 1;
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all", **LONG
    ) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert runtime.log.endswith("\ttold\n")


@pytest.mark.every_way
async def test_a_process_whose_supervisor_is_gone_ends_by_itself(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A server stayed for ever, and so did one for several events with a timer."""
    async with make_runtime({"function.ts": KEEPS_OPEN + HANDLER}) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        await runtime.stop(signal.SIGKILL)
        await runtime.all_gone()
        runtime.clear_temp_root()


# The bootstrap, with a signal just after its event loop has taken a callback from the
# queue and before it has run it.
BETWEEN_CALLBACKS = """
import asyncio, collections, os, signal
from lambda_deno_spawn import bootstrap
class Queue(collections.deque):
    taken = 0
    def popleft(self):
        callback = super().popleft()
        self.taken += 1
        if self.taken == {number}:
            os.kill(os.getpid(), signal.SIGTERM)
        return callback
class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        self._ready = Queue()
asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
asyncio.DefaultEventLoopPolicy._loop_factory = Loop
bootstrap.main()
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize("can_start", [True, False])
async def test_a_signal_between_two_callbacks_of_the_loop_ends_it(
    tmp_path: Path, *, can_start: bool
) -> None:
    """The callback was lost, and with it the task that was to be cancelled."""

    async def exit_code(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "function.mjs").write_text(HANDLER)
        async with FakeRuntimeApi() as api:
            process = await asyncio.create_subprocess_exec(
                *isolated_python(BETWEEN_CALLBACKS.format(number=number)),
                env={
                    "AWS_LAMBDA_RUNTIME_API": api.address,
                    "LAMBDA_DENO_BIN": deno_binary(),
                    "LAMBDA_DENO_METRICS": "off" if can_start else "unknown",
                    "LAMBDA_TASK_ROOT": str(folder),
                    "PATH": os.environ["PATH"],
                    "TMPDIR": str(folder),
                    "_HANDLER": "function.handler",
                },
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    return await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                return -signal.SIGKILL

    numbers = range(1, 3 if can_start else 7)
    codes = await asyncio.gather(*map(exit_code, numbers))
    assert codes[0] == 0
    assert set(codes) <= {0, 1}  # 1: the post was over


# Lambda sends no SIGTERM to a runtime without an extension.


async def test_it_is_an_extension_without_events_if_that_is_wanted(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": HANDLER}, LAMBDA_DENO_SIGTERM="on", LAMBDA_DENO_START="exec"
    ) as runtime:
        await api.wait_for_extension()
        await api.wait_for_next()
        assert api.requests[0] == "POST extension register"
        assert api.extensions == [("lambda-deno-spawn", b'{"events":[]}')]
        api.deliver(b"{}")
        assert (await api.answer()).call == "response"
        await api.wait_for_next()
        assert await runtime.stop() == 0
    assert runtime.log == ""
    assert api.requests.count("GET event next") == 1


async def test_it_is_none_otherwise(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": HANDLER}):
        await api.wait_for_next()
    assert api.requests == ["GET invocation next"]


@pytest.mark.cases(1)
@pytest.mark.parametrize("status", [403, 500, None])
async def test_a_refusal_to_be_one_is_a_warning(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, status: int | None
) -> None:
    api.register_refusals.append(Refusal(status))
    async with make_runtime(
        {"function.ts": HANDLER}, LAMBDA_DENO_SIGTERM="on"
    ) as runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        await runtime.logged("Lambda may send no SIGTERM (LAMBDA_DENO_SIGTERM)")
    assert "GET event next" not in api.requests


@pytest.mark.cases(1)
@pytest.mark.parametrize("fault", [hang, cut], ids=["hangs", "cut"])
async def test_a_registration_that_is_not_answered_holds_up_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, fault: Fault
) -> None:
    api.neighbour_faults.append(fault)
    async with make_runtime(
        {"function.ts": HANDLER}, LAMBDA_DENO_SIGTERM="on"
    ) as runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        await runtime.logged("Lambda may send no SIGTERM (LAMBDA_DENO_SIGTERM)")


async def test_an_extension_registers_before_a_snapshot_is_taken(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": HANDLER},
        LAMBDA_DENO_SIGTERM="on",
        AWS_LAMBDA_INITIALIZATION_TYPE="snap-start",
    ):
        await api.wait_for_extension()
        await api.wait_for_snapshot()
        assert api.requests[0] == "POST extension register"
        api.restore()
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
