"""The measures of an invocation, taken from real processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.deno

SOURCE = """
const encoder = new TextEncoder();
export async function handler(event: any, context: any) {
  if (event.works) for (const end = Date.now() + event.works; Date.now() < end;);
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
            {"later": 200},
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
            api.deliver(sent[-1], timeout_s=1)
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
        later = by_event["later"]
        assert later["postMs"] + later["finishMs"] > 150
        assert later["handlerMs"] < 150
        assert by_event["leaves"]["leftoverFiles"] == 4
        assert by_event["nothing"]["leftoverFiles"] == 0
        large, small = by_event["keeps"], by_event["nothing"]
        assert large["peakMemoryMB"] - small["peakMemoryMB"] > 60
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
    async with make_runtime({"function.ts": SOURCE}) as runtime:
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
