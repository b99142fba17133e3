"""What a handler prints: every record, in order, and nobody waits for its reader."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [
    pytest.mark.as_lambda,
    pytest.mark.deno,
    pytest.mark.every_way("fresh", "server"),
]

MIB = 1024 * 1024
# A supervisor that kept a burst would need as much more.
BURST_BYTES = 40 * MIB
GROWTH_LIMIT_KIB = 12 * 1024

SOURCE = """
const encoder = new TextEncoder();
export async function handler(event: any) {
  const line = "x".repeat((event.width ?? 100) - 1);
  switch (event.how) {
    case "console":
      for (let n = 0; n < event.lines; n++) console.log(`${n} ${line}`);
      break;
    case "stderr": {
      const text = encoder.encode(`${line}\\n`.repeat(500));
      for (let n = 0; n < event.lines; n += 500) Deno.stderr.writeSync(text);
      break;
    }
    case "levels":
      console.trace("trace");
      console.debug("debug");
      console.log("one\\ntwo");
      console.info({ a: 1 });
      console.warn("warn", new Error("attached"));
      console.error(new TypeError("alone"));
      console.table([{ a: 1 }]);
      console.group("group");
      console.log("indented");
      Deno.stderr.writeSync(encoder.encode("raw stderr\\n"));
      break;
  }
  if (event.ends === "kill") Deno.kill(Deno.pid, "SIGKILL");
  if (event.ends === "exit") Deno.exit(3);
  if (event.ends === "throw") throw new Error("thrown");
  if (event.ends === "hang") {
    // Without the processor that an endless loop would take from other tests.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
  return "answered";
}
"""


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize("ends", ["kill", "exit", "throw", "hang", "returns"])
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
async def test_no_record_is_lost_or_moved_however_the_handler_ends(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, ends: str, log_format: str
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE},
        LAMBDA_DENO_PERMISSIONS="all",
        AWS_LAMBDA_LOG_FORMAT=log_format,
    ) as runtime:
        event = {"how": "console", "lines": 3_000, "ends": ends}
        answer = await api.invoke(event, timeout_s=6 if ends == "hang" else 60)
        assert (answer.call == "response") == (ends == "returns")
        await api.wait_for_next()
        await runtime.logged_often(" xxxx", 3_000)
        records = [line for line in runtime.log.split("\n") if " xxxx" in line]
        # The error's record quotes the last of them once more.
        records = [line for line in records if "errorType" not in line]
        numbers = [int(re.search(r"(\d+) xxxx", line)[1]) for line in records]  # type: ignore[index]
        assert numbers == list(range(3_000))
        for line in records:
            assert answer.request_id in line
        if ends != "returns":
            error = await runtime.logged("errorType")
            assert runtime.log.index(error) > runtime.log.index(records[-1])


@pytest.mark.cases(1)
@pytest.mark.parametrize("how", ["console", "stderr"])
async def test_a_burst_of_40_megabytes_is_logged_and_not_kept(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, how: str
) -> None:
    width = 1_000
    lines = BURST_BYTES // width // 500 * 500
    runtime = make_runtime({"function.ts": SOURCE})
    async with runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        before_kib = resident_kib(runtime.pid)
        api.deliver(json.dumps({"how": how, "lines": lines, "width": width}).encode(),
                    timeout_s=150)  # fmt: skip
        assert (await api.answer(limit_s=150)).json() == "answered"
        await api.wait_for_next()
        assert resident_kib(runtime.pid) - before_kib < GROWTH_LIMIT_KIB
        await runtime.logged_often("x" * (width - 1), lines)
        assert runtime.log.count("x" * (width - 1)) == lines
        assert "were dropped" not in runtime.log


async def test_a_log_that_nobody_reads_holds_up_no_answer_and_no_deadline(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_STOP_MARGIN_MS="5000")
    async with runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        before_kib = resident_kib(runtime.pid)
        runtime.log_gate.clear()
        # Whoever floods the log waits for its reader, until the deadline ...
        deadline_s = time.monotonic() + 8
        event = {"how": "stderr", "lines": BURST_BYTES // 100}
        api.deliver(json.dumps(event).encode(), timeout_s=8)
        answer = await api.answer()
        assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
        assert answer.received_s < deadline_s
        # ... everybody else is served.
        await api.wait_for_next()
        for _ in range(3):
            api.deliver(b'{"how":"console","lines":10}')
            assert (await api.answer()).json() == "answered"
            await api.wait_for_next()
        assert resident_kib(runtime.pid) - before_kib < GROWTH_LIMIT_KIB
        runtime.log_gate.set()
        await runtime.logged("9 xxxx")
        api.deliver(b'{"how":"console","lines":1}')
        answer = await api.answer()
        await runtime.logged(f"{answer.request_id}\tINFO\t0 xxxx")
        await api.wait_for_next()
        torn = [
            line
            for line in runtime.log.split("\n")
            if line and not re.match(r"\d{4}-\d\d-\d\dT.{13}\t[^\t]+\t[A-Z]+\t", line)
        ]
        assert torn == []


async def test_an_answer_behind_stray_output_does_not_wait_for_the_log(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A program that printed one line to stdout made its handler time out."""
    source = """
export function handler(event: any) {
  const line = "x".repeat(1_000);
  for (let n = 0; n < event.lines; n++) console.log(line);
  new Deno.Command("echo", { args: ["stray"], stdout: "inherit" }).outputSync();
  return "answered";
}
"""
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all")
    async with runtime:
        await api.wait_for_next()
        runtime.log_gate.clear()
        api.deliver(b'{"lines":900}', timeout_s=1)
        await api.answer()
        await api.wait_for_next()
        for _ in range(2):
            api.deliver(b'{"lines":0}')
            assert (await api.answer()).json() == "answered"
            await api.wait_for_next()
        runtime.log_gate.set()
        await runtime.logged("log records were dropped")


async def test_records_tell_level_request_and_tenant_in_text(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": SOURCE}) as runtime:
        headers = {"Lambda-Runtime-Aws-Tenant-Id": "blue"}
        answer = await api.invoke({"how": "levels", "ends": "throw"}, headers=headers)
        await api.wait_for_next()
        lines = [line for line in runtime.log.split("\n") if line]
        found = []
        for line in lines:
            timestamp, request_id, level, tenant, message = line.split("\t", 4)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
            assert (request_id, tenant) == (answer.request_id, "TenantId: blue")
            found.append((level, message.split("\r")[0]))
        assert found[:6] == [
            ("TRACE", "Trace: trace"),
            ("DEBUG", "debug"),
            ("INFO", "one"),
            ("INFO", "{ a: 1 }"),
            ("WARN", "warn Error: attached"),
            ("ERROR", "TypeError: alone"),
        ]
        assert ("INFO", "raw stderr") in found
        assert found[-1][0] == "ERROR"
        assert found[-1][1].startswith("Invoke Error\t")


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        ("TRACE", ["TRACE", "DEBUG", "INFO", "INFO", "WARN", "ERROR"]),
        ("WARN", ["WARN", "ERROR"]),
        ("FATAL", []),
    ],
)
async def test_records_in_json_are_those_of_nodes_runtime_and_filtered(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, least: str, expected: list[str]
) -> None:
    async with make_runtime(
        {"function.ts": SOURCE},
        AWS_LAMBDA_LOG_FORMAT="JSON",
        AWS_LAMBDA_LOG_LEVEL=least,
    ) as runtime:
        headers = {"Lambda-Runtime-Aws-Tenant-Id": "blue"}
        answer = await api.invoke({"how": "levels"}, headers=headers)
        await api.wait_for_next()
        records = [json.loads(line) for line in runtime.log.split("\n") if line]
        ours = [r for r in records if r.get("requestId") == answer.request_id]
        assert [r["level"] for r in ours][: len(expected)] == expected
        assert {r["tenantId"] for r in ours} <= {"blue"}
        messages = [r["message"] for r in ours]
        if least == "TRACE":
            assert messages[2:4] == ["one\ntwo", {"a": 1}]
            assert ours[4]["errorMessage"] == "attached"
            assert messages[5]["errorType"] == "TypeError"
            assert "raw stderr" in messages


SECRET = "hunter2-hunter2"
SECRETIVE = """
export function handler(event: any) {
  if (event.fails) throw new Error("failed");
  if (event.exits) Deno.exit(1);
  return event;
}
"""


async def test_nothing_we_write_holds_an_event_a_result_or_a_variable_s_value(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(
        {"function.ts": SECRETIVE},
        AWS_LAMBDA_LOG_LEVEL="DEBUG",
        AWS_SECRET_ACCESS_KEY=SECRET,
        APP_PASSWORD=SECRET,
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_UNKNOWN=SECRET,
    ) as runtime:
        for event in ({}, {"fails": True}, {"exits": True}):
            await api.invoke({"password": SECRET, **event})
        await api.invoke(f'{{"password":"{SECRET}",'.encode())
        headers = {"Lambda-Runtime-Client-Context": '{"custom":{}}'}
        await api.invoke({"password": SECRET}, headers=headers)
        await api.wait_for_next()
        assert "Invoke Error" in runtime.log
        assert SECRET not in runtime.log


async def test_the_telemetry_descriptor_takes_the_log_and_no_worker_has_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    source = """
export function handler() {
  console.warn("one\\ntwo");
  const { stdout } = new Deno.Command("ls", { args: ["-l", `/proc/${Deno.pid}/fd`] })
    .outputSync();
  const files = new TextDecoder().decode(stdout);
  return [files, Object.keys(Deno.env.toObject())];
}
"""
    log = tmp_path / "telemetry"
    runtime = make_runtime(
        {"function.ts": source},
        LAMBDA_DENO_PERMISSIONS="all",
        _LAMBDA_TELEMETRY_LOG_FD="9",
    )
    runtime.wrapper = f"exec \"$@\" 9>'{log}'"
    async with runtime:
        answer = await api.invoke({})
        files, names = answer.json()
        assert "pipe:" in files
        assert str(log) not in files
        assert "_LAMBDA_TELEMETRY_LOG_FD" not in names
        await api.wait_for_next()
        assert runtime.log == ""
        data = log.read_bytes()
        assert data[:4].hex() == "a55a0013"
        assert data[16:].endswith(f"Z\t{answer.request_id}\tWARN\tone\ntwo\n".encode())
