"""The measures of an invocation, taken from real processes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.doubles import TIMEOUT_S, Refusal
from tests.integration.harness import reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SOURCE = """
import process from "node:process";
const encoder = new TextEncoder();
export async function handler(event: any, context: any) {
  // On a busy machine a millisecond of the clock is less of the processor.
  const spentMs = () => process.cpuUsage().user / 1000;
  if (event.works) for (const end = spentMs() + event.works; spentMs() < end;);
  if (event.keeps) new Uint8Array(event.keeps).fill(1);
  if (event.waits) await new Promise((resolve) => setTimeout(resolve, event.waits));
  if (event.later) {
    context.waitUntil(new Promise((resolve) => setTimeout(resolve, event.later)));
  }
  if (event.leaves) {
    const folder = Deno.env.get("TMPDIR") + "/folder";
    Deno.mkdirSync(folder);
    for (let n = 0; n < event.leaves; n++) Deno.writeTextFileSync(`${folder}/${n}`, "");
  }
  if (event.fails) throw new RangeError("failed");
  if (event.exits) Deno.exit(1);
  if (event.streams) return new Blob(["x".repeat(event.streams)]).stream();
  return "answered";
}
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize("warm", ["ready", "background", "off"])
async def test_every_invocation_leaves_one_line_that_is_true(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE}, LAMBDA_DENO_WARM=warm, LAMBDA_DENO_METRICS="json"
    ) as runtime:
        events: list[dict[str, object]] = [
            {},
            {"works": 150},
            {"keeps": 80 * 1024 * 1024},
            {"waits": 100},
            {"later": 2000},
            {"leaves": 3},
            {"fails": True},
            {"exits": True},
            {"streams": 200_000},
            {"waits": 60_000},
        ]
        sent, answers = [], []
        for event in events:
            await api.wait_for_next()
            sent.append(json.dumps(event).encode())
            api.deliver(sent[-1], timeout_s=5 if event is events[-1] else TIMEOUT_S)
            answers.append(await api.answer())
        await api.wait_for_next()
        found = reports(runtime.log)
        assert len(found) == len(events)
        for report, raw, answer in zip(found, sent, answers, strict=True):
            assert report["bytesIn"] == len(raw)
            assert report["bytesOut"] == len(answer.body)
            assert report["warm"] == (warm != "off")
            assert report["leftoverProcesses"] == 0
            assert 10 < report["peakMemoryMB"] < 400
            assert all(v is None or v >= 0 for k, v in report.items() if "Ms" in k)
            assert report["cpuUserMs"] + report["cpuSystemMs"] > 0
        names = [next(iter(event), "nothing") for event in events]
        by_event = dict(zip(names, found, strict=True))
        assert by_event["works"]["handlerMs"] > 140  # its clock counts whole ms
        assert by_event["works"]["cpuUserMs"] > by_event["nothing"]["cpuUserMs"]
        # The work of two seconds, of which a busy machine may spend some on the answer.
        later = by_event["later"]
        assert later["postMs"] + later["finishMs"] > 1000
        assert later["handlerMs"] < 1000
        assert by_event["leaves"]["leftoverFiles"] == 4
        assert by_event["nothing"]["leftoverFiles"] == 0
        large, small = by_event["keeps"], by_event["nothing"]
        # Of 80 MB: a copy has read less of Deno's program than a process that started.
        assert large["peakMemoryMB"] - small["peakMemoryMB"] > 40
        assert [r["status"] for r in found] == [
            "success", "success", "success", "success", "success", "success",
            "RangeError", "Runtime.ExitError", "success", "Runtime.InvokeTimeout",
        ]  # fmt: skip
        if warm == "ready":
            # The module was loaded before the event came: it waited for nothing.
            assert all(r["waitMs"] < r["readyMs"] for r in found)
            assert all(r["idleMs"] > 0 for r in found)
        if warm == "off":
            assert all(r["waitMs"] >= r["readyMs"] for r in found)
            assert all(r["idleMs"] == 0 for r in found)


PROGRAMS = """
export async function handler(event: any) {
  const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
  new Deno.Command("sleep", { args: ["300"], ...quiet }).spawn();
  new Deno.Command("setsid", { args: ["sleep", "300"], ...quiet }).spawn();
  await new Promise((resolve) => setTimeout(resolve, 50));
  if (event.ends === "exit") Deno.exit(3);
  if (event.ends === "throw") throw new Error("x");
  if (event.ends === "wait") await new Promise((resolve) => setTimeout(resolve, 9_000));
}
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize("ends", ["return", "throw", "exit", "wait"])
async def test_programs_left_running_are_counted_however_the_handler_ends(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, ends: str
) -> None:
    """What died with the group of a process that ended by itself was not counted."""
    async with make_runtime(
        {"function.ts": PROGRAMS},
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_PERMISSIONS="all",
    ) as runtime:
        await api.invoke({"ends": ends}, timeout_s=6 if ends == "wait" else TIMEOUT_S)
        await api.wait_for_next()
        [report] = reports(runtime.log)
        # At a timeout Deno and its child hear SIGTERM at once, and Deno may be second.
        assert report["leftoverProcesses"] in ((1, 2) if ends == "wait" else (2,))


REFUSED = """
export function handler(event: any) {
  if (!event.streams) return "answered";
  let sent = 0;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      controller.enqueue(new Uint8Array(20_000));
      if (++sent === event.streams) controller.close();
    },
  });
}
"""


async def test_the_status_is_what_the_caller_was_told(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """What the Runtime API did not take was a success all the same."""
    async with make_runtime(
        {"function.ts": REFUSED}, LAMBDA_DENO_METRICS="json"
    ) as runtime:

        async def status(event: bytes, timeout_s: float = TIMEOUT_S) -> object:
            api.deliver(event, timeout_s=timeout_s)
            await api.wait_for_next()
            report = reports(runtime.log)[-1]
            assert report["postMs"] >= 0
            assert report["handlerMs"] >= 0
            return report["status"]

        await api.wait_for_next()
        for refused, expected in (
            (413, "Function.ResponseSizeTooLarge"),
            (410, "Sandbox.Timedout"),
            (403, "Runtime.LambdaRuntimeClientError"),
        ):
            for event in (b"{}", b'{"streams":2}'):
                api.refusals.append(Refusal(refused))
                assert await status(event) == expected
        api.cut_after_chunks = 3  # the caller left
        assert await status(b'{"streams":90}') == "Runtime.LambdaRuntimeClientError"
        api.cut_after_chunks = None
        api.chunk_gate = asyncio.Event()  # nobody takes it before the deadline
        assert await status(b'{"streams":900}', 4.0) == (
            "Runtime.LambdaRuntimeClientError"
        )
        api.chunk_gate = None
        api.stop_listening()
        assert await status(b'{"streams":2}') == "Runtime.StreamUnavailable"
        assert await status(b"{}") == "success"


async def test_the_embedded_format_is_one_line_of_json_in_either_log_format(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE}, LAMBDA_DENO_METRICS="EMF", AWS_LAMBDA_LOG_FORMAT="JSON"
    ) as runtime:
        answer = await api.invoke({}, headers={"Lambda-Runtime-Aws-Tenant-Id": "blue"})
        await api.wait_for_next()
        [line] = [line for line in runtime.log.split("\n") if '"_aws"' in line]
        report = json.loads(line)
        assert report["requestId"] == answer.request_id
        assert report["tenantId"] == "blue"
        assert report["FunctionName"] == "test"
        assert report["Errors"] == 0


async def test_without_the_setting_there_is_no_line(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    # Forks are announced, once.
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_START="exec")
    async with runtime:
        await api.invoke({})
        await api.wait_for_next()
        assert runtime.log == ""


async def test_an_unknown_form_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_METRICS="xml"):
        message = (await api.answer()).json()["errorMessage"]
        assert "LAMBDA_DENO_METRICS: its value is 'xml'" in message
        assert "off or json or emf" in message
