"""Memory is the events': no event has less of it because of a loaded process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.native.control import library_path
from tests.cgroups import MIB, Cgroup, unavailable
from tests.integration.harness import LIMIT_S, reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [
    pytest.mark.deno,
    pytest.mark.as_lambda,
    pytest.mark.skipif(library_path() is None, reason="make native builds the library"),
]
needs_memory = pytest.mark.skipif(
    unavailable("memory") != "", reason=unavailable("memory")
)

# Takes all the memory that there is.
TAKES = """
const kept = [new Uint8Array(60 << 20).fill(1)];
export const handler = ({ takes }) => {
  while (takes) kept.push(new Uint8Array(8 << 20).fill(1));
  return takes;
};
"""
# Takes longer to load than the time that its event leaves, and so much memory that
# two such processes are too much for a small function.
LATE = """
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const kept = new Uint8Array(24 << 20).fill(1);
await pause(2_500);
export async function handler({ isLate }, context) {
  if (isLate) await pause(context.getRemainingTimeInMillis() - 2_400);
  return isLate ?? null;
}
"""


@needs_memory
@pytest.mark.parametrize("start", ["auto", "fork"])
async def test_where_memory_has_run_out_beside_a_template_there_is_none_any_more(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    runtime = make_runtime(
        {"function.js": TAKES},
        # What the function is told leaves room for both, so only the kernel can tell.
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1024",
        LAMBDA_DENO_START=start,
        LAMBDA_DENO_METRICS="json",
    )
    with Cgroup.create(memory_bytes=200 * MIB) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            for takes in (False, False, True, False):
                answer = await api.invoke({"takes": takes}, timeout_s=LIMIT_S)
                if takes:
                    assert answer.json()["errorType"] == "Runtime.OutOfMemory"
                else:
                    assert answer.json() is False
            await api.wait_for_next()
            starts = [report["start"] for report in reports(runtime.log)]
            first = "fork" if start == "fork" else "exec"
            assert starts == [first, "fork", "fork", "exec"]
            assert group.oom_kills() in (1, 2)
            line = await runtime.logged("Events are served by processes of their own")
            assert "memory ran out beside a loaded process" in line
            report = reports(runtime.log)[-1]
            assert "memory ran out" in report["startReason"]


async def test_no_process_loads_beside_an_event_of_a_small_function(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """There is no time to load one before the next event, and no room during it."""
    runtime = make_runtime(
        {"function.js": LATE},
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="128",
        LAMBDA_DENO_METRICS="json",
    )
    async with runtime:
        assert (await api.invoke({"isLate": True}, timeout_s=4)).json() is True
        await api.wait_for_next()
        async with asyncio.timeout(LIMIT_S):  # one that was loading may still end
            while len(runtime.survivors()) != 2:  # noqa: ASYNC110 - a look at /proc
                await asyncio.sleep(0.01)
        for _ in range(2):
            api.deliver(b"{}")
            assert (await api.answer()).json() is None
            await api.wait_for_next()
        async with asyncio.timeout(LIMIT_S):
            while len(runtime.survivors()) != 3:  # noqa: ASYNC110 - a look at /proc
                await asyncio.sleep(0.01)
        starts = [report["start"] for report in reports(runtime.log)]
        assert starts == ["exec", "exec", "fork"]
