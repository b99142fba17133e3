"""What differs between a fresh process, a process for several events, and a server."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SOURCE = """
let served = 0;
export async function handler(event: any) {
  served += 1;
  if (event.log) console.log(event.log);
  const left = [...Deno.readDirSync(Deno.env.get("TMPDIR")!)].map((e) => e.name);
  Deno.writeTextFileSync(Deno.env.get("TMPDIR") + "/left.txt", "left behind");
  switch (event.ends) {
    case "throws": throw new RangeError("thrown");
    case "rejects": Promise.reject(new EvalError("nobody awaits it"));
      await new Promise((resolve) => setTimeout(resolve, 5000));
      break;
    case "timer": setTimeout(() => { throw new EvalError("in a timer"); }, 1);
      await new Promise((resolve) => setTimeout(resolve, 5000));
      break;
    case "exits": Deno.exit(3);
    case "loops": for (;;);
    case "fills": { const all = []; for (;;) all.push(new Array(1e5).fill(1)); }
  }
  return { pid: Deno.pid, served, left: left.includes("left.txt") };
}
"""
HEAP = {"LAMBDA_DENO_V8_FLAGS": "--max-old-space-size=64"}


@pytest.mark.every_way("reuse")
async def test_a_process_serves_as_many_events_as_it_is_told_to(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE}, LAMBDA_DENO_MAX_INVOCATIONS="3"
    ) as runtime:
        found = [(await api.invoke({})).json() for _ in range(7)]
        await api.wait_for_next()
        assert [f["served"] for f in found] == [1, 2, 3, 1, 2, 3, 1]
        assert [f["left"] for f in found] == [
            False,
            True,
            True,
            False,
            True,
            True,
            False,
        ]
        assert len({f["pid"] for f in found}) == 3
        # The supervisor, and the process that waits for the eighth.
        assert len(runtime.survivors()) == 2


@pytest.mark.every_way("server")
async def test_a_server_is_replaced_after_as_many_events_as_it_is_told_to(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE}, LAMBDA_DENO_MAX_INVOCATIONS="2"
    ) as runtime:
        found = [(await api.invoke({})).json() for _ in range(5)]
        await api.wait_for_next()
        assert [f["served"] for f in found] == [1, 2, 1, 2, 1]
        # The next one was started before its event came.
        assert "Replacing" not in runtime.log


@pytest.mark.cases(1)
@pytest.mark.every_way("reuse", "server")
@pytest.mark.parametrize("warm", ["ready", "background", "off"])
async def test_whatever_leaves_a_process_in_doubt_ends_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str, warm: str
) -> None:
    endings = {
        "throws": "RangeError",
        "rejects": "Runtime.UnhandledPromiseRejection",
        "timer": "EvalError",
        "exits": "Runtime.ExitError",
        "loops": "Runtime.InvokeTimeout",
        "fills": "Runtime.OutOfMemory",
    }
    async with make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_WARM=warm, **HEAP):
        before = (await api.invoke({})).json()["pid"]
        for ends, error_type in endings.items():
            limit_s = 1 if ends == "loops" else 60
            answer = await api.invoke({"ends": ends}, timeout_s=limit_s)
            assert answer.json()["errorType"] == error_type, answer
            after = (await api.invoke({})).json()["pid"]
            # What a handler throws is its answer, for a server as for everybody.
            stays = way == "server" and ends == "throws"
            assert (after == before) == stays, ends
            before = after
        await api.wait_for_next()


@pytest.mark.every_way("reuse", "server")
async def test_an_error_tells_nothing_of_what_was_logged_for_another(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}):
        await api.invoke({"log": "of the first caller"})
        answer = await api.invoke({"log": "of the second", "ends": "exits"})
        tail = "\n".join(answer.json()["logTail"])
        assert "of the second" in tail
        assert "of the first" not in tail
        await api.wait_for_next()


@pytest.mark.every_way("server")
@pytest.mark.parametrize(
    "permissions", ["none", "all", "--allow-net=127.0.0.1:9", "default"]
)
async def test_a_server_listens_whatever_its_handler_may_do(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, permissions: str
) -> None:
    source = """
export async function handler() {
  const may = async (descriptor: any) =>
    (await Deno.permissions.query(descriptor)).state === "granted";
  return {
    net: await may({ name: "net", host: "192.0.2.1:80" }),
    write: await may({ name: "write", path: "/mnt" }),
  };
}
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS=permissions
    ):
        may = (await api.invoke({})).json()
        assert may["net"] == (permissions in ("all", "default"))
        assert may["write"] == (permissions == "all")
        await api.wait_for_next()


@pytest.mark.every_way("reuse", "server")
async def test_a_waiting_process_ends_with_a_supervisor_that_was_killed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert await runtime.stop(signal.SIGKILL) == -signal.SIGKILL
        await runtime.all_gone()
        runtime.clear_temp_root()


@pytest.mark.every_way("server")
async def test_what_a_server_is_not_asked_for_reads_nothing_of_ours(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
    export const handler = async () => await Deno.stdin.read(new Uint8Array(9));
    """
    async with make_runtime({"function.ts": source}):
        assert (await api.invoke({})).json() is None
        assert (await api.invoke({})).json() is None


async def test_a_server_says_which_folder_is_too_deep_for_its_socket(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_STRATEGY="server")
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    runtime.environ["TMPDIR"] = str(deep)
    async with runtime:
        error = (await api.answer()).json()
        assert error["errorType"] == "Runtime.InvalidConfiguration"
        assert "Cannot use TMPDIR" in error["errorMessage"]
        assert "a path of at most 48 bytes" in error["errorMessage"]
        assert await runtime.wait() == 1
        assert list(deep.iterdir()) == []


@pytest.mark.every_way("server")
async def test_the_deepest_folder_that_is_not_too_deep_is_used(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, short_tmp_path: Path
) -> None:
    runtime = make_runtime({"function.ts": SOURCE})
    deepest = short_tmp_path / ("d" * (47 - len(str(short_tmp_path))))
    deepest.mkdir()
    runtime.environ["TMPDIR"] = str(deepest)
    async with runtime:
        assert (await api.invoke({})).call == "response"
