"""Nothing in the supervisor grows with the number of events, however each one ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

# How often each kind of event is sent in a span; a leak shows with few, and surely with
# 500.
ROUNDS = int(os.environ.get("LDS_GROWTH_ROUNDS", "8"))
# A leak grows in every span. Objects made once (a module imported late) or found only
# at the moment of counting (the next process starts) show in one.
SPANS = 3
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
    import asyncio, collections, gc, os
    gc.collect()
    loop = asyncio.get_running_loop()
    objects = gc.get_objects()
    found = {
        "tasks": len(asyncio.all_tasks(loop)),
        "timers": sum(not one.cancelled() for one in loop._scheduled),
        "objects": len(objects),
        "types": dict(collections.Counter(type(one).__qualname__ for one in objects)),
    }
    with open(COUNTS + ".new", "w") as file:
        file.write(repr(found).replace("'", '"'))
    os.rename(COUNTS + ".new", COUNTS)
import signal
signal.signal(signal.SIGUSR2, count)
"""


async def counts(runtime: RuntimeUnderTest, file: Path) -> dict[str, Any]:
    """Return how much there is of everything."""
    file.unlink(missing_ok=True)
    os.kill(runtime.pid, signal.SIGUSR2)
    async with asyncio.timeout(LIMIT_S):
        while not file.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    [state] = runtime.temp_root.iterdir()
    found: dict[str, Any] = json.loads(file.read_text())
    return {
        **found,
        "descriptors": runtime.descriptor_count(),
        "entries": len(list(state.iterdir())),
        "processes": len(runtime.survivors()),
    }


def growth(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what there is more of than before; of objects by type, most first."""
    types = Counter(after.pop("types")) - Counter(before.pop("types"))
    return {
        **{name: after[name] - before[name] for name in before},
        "types": types.most_common(12),
    }


def has_grown(grown: dict[str, Any]) -> bool:
    """Tell whether there is one more for each event of one kind, or of all kinds."""
    few = max(6, ROUNDS)  # a process that still ends moves a count by a few
    most = {"objects": ROUNDS * len(KINDS), "tasks": 1}
    return any(
        count >= most.get(name, few) for name, count in grown.items() if name != "types"
    )


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
        api.deliver(event, timeout_s=0.4 if kind == "hangs" else 60)
        if kind != "isCut":
            await api.answer()
        await api.wait_for_next()  # all that follows the answer has been done

    async with runtime:
        await api.wait_for_next()
        for kind in KINDS * 2:
            await send(kind)
        spans = []
        for _ in range(SPANS):
            before = await counts(runtime, file)
            for kind in KINDS * ROUNDS:
                await send(kind)
            spans.append(growth(before, await counts(runtime, file)))
            if not has_grown(spans[-1]):
                break
        else:
            pytest.fail("\n".join(map(str, spans)))
