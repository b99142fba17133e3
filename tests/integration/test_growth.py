"""Nothing in the supervisor grows with the number of events, however each one ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

# How often each kind of event is sent; a leak shows with few, and surely with 500.
ROUNDS = int(os.environ.get("LDS_GROWTH_ROUNDS", "8"))
SOURCE = """
const pause = (ms: number) => new Promise((go) => setTimeout(go, ms));
const kinds: Record<string, (event: any, context: any) => unknown> = {
  responds: (event) => event,
  throws: () => { throw new RangeError("as told"); },
  hangs: () => pause(60_000),
  exits: () => Deno.exit(3),
  isTooLarge: () => "x".repeat(6 * 1024 * 1024 + 100),
  worksOn: (_event, context) => { context.waitUntil(pause(2)); return 1; },
  leavesFiles: () => {
    const folder = Deno.env.get("TMPDIR")!;
    for (let n = 0; n < 5; n++) Deno.writeTextFileSync(`${folder}/${n}`, "");
    return 1;
  },
  logs: () => { for (let n = 0; n < 50; n++) console.log("x".repeat(1000)); },
};
const streams: Record<string, (context: any) => AsyncGenerator<string>> = {
  ends: async function* () { yield "a"; yield "b"; },
  breaksOff: async function* () { yield "a"; await pause(1); throw new Error("b"); },
  isCut: async function* (context) {
    while (!context.signal.aborted) { yield "a".repeat(1000); await pause(1); }
  },
};
export function handler(event: any, context: any) {
  const stream = streams[event.kind];
  return stream === undefined ? kinds[event.kind](event, context) : stream(context);
}
"""
KINDS = (
    "responds", "throws", "hangs", "exits", "isTooLarge", "worksOn", "leavesFiles",
    "logs", "ends", "breaksOff", "isCut",
)  # fmt: skip
# Runs in the supervisor, whenever it is asked.
PROBE = """
def count(*_):
    import asyncio, gc, os
    gc.collect()
    loop = asyncio.get_running_loop()
    found = {
        "tasks": len(asyncio.all_tasks(loop)),
        "timers": sum(not one.cancelled() for one in loop._scheduled),
        "objects": len(gc.get_objects()),
    }
    with open(COUNTS + ".new", "w") as file:
        file.write(repr(found).replace("'", '"'))
    os.rename(COUNTS + ".new", COUNTS)
import signal
signal.signal(signal.SIGUSR2, count)
"""


async def counts(runtime: RuntimeUnderTest, file: Path) -> dict[str, int]:
    """Return how much there is of everything."""
    file.unlink(missing_ok=True)
    os.kill(runtime.pid, signal.SIGUSR2)
    async with asyncio.timeout(LIMIT_S):
        while not file.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    [state] = runtime.temp_root.iterdir()
    found: dict[str, int] = json.loads(file.read_text())
    return {
        **found,
        "descriptors": runtime.descriptor_count(),
        "entries": len(list(state.iterdir())),
        "processes": len(runtime.survivors()),
    }


@pytest.mark.every_way("fork", "server")
async def test_nothing_grows_with_events_however_they_end(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path, way: str
) -> None:
    file = tmp_path / "counts"
    (tmp_path / "probe.py").write_text(f"COUNTS = {str(file)!r}\n{PROBE}")
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_STOP_MARGIN_MS="100")
    runtime.keeps_log = False
    runtime.wrapper = f'exec "$1" "$2" "$3" "$4" "$(cat \'{tmp_path}/probe.py\')\n$5"'

    async def send(kind: str) -> None:
        api.cut_after_chunks = 2 if kind == "isCut" else None
        event = json.dumps({"kind": kind}).encode()
        api.deliver(event, timeout_s=0.4 if kind == "hangs" else 10)
        if kind != "isCut":
            await api.answer()
        await api.wait_for_next()  # all that follows the answer has been done

    async with runtime:
        await api.wait_for_next()
        for kind in KINDS * 2:
            await send(kind)
        before = await counts(runtime, file)
        for _ in range(ROUNDS):
            for kind in KINDS:
                await send(kind)
        after = await counts(runtime, file)
        grown = {name: after[name] - before[name] for name in before}
        # One more for each event of one kind would be as many as there are rounds. A
        # process that still ends moves a count by a few.
        events = ROUNDS * len(KINDS)
        assert grown.pop("objects") < events, grown
        assert max(grown.values()) < max(6, ROUNDS), grown
        assert after["tasks"] == before["tasks"]
