"""Invocations that are recorded, found and run again, here and in AWS."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.recording.store import parse
from lambda_deno_spawn.recording.form import KIND, Parts
from tests.doubles import TIMEOUT_S
from tests.fixtures.command import run_command
from tests.integration.dev_server import DevServer, write

if TYPE_CHECKING:
    import subprocess

    from tests.doubles import FakeRuntimeApi
    from tests.fixtures.cloud import Cloud
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.deno

SOURCE = """\
export function handler(event: { n: number; headers: object }, context: any) {
  console.log(`n is ${event.n}`, context.awsRequestId);
  if (event.n > 2) throw new TypeError(`too large: ${event.n}`);
  const stage = Deno.env.get("STAGE");
  const body = { n: event.n, tenant: context.tenantId, at: "x", stage };
  return { statusCode: 200, body: JSON.stringify(body) };
}
"""
EVENT = {"n": 1, "headers": {"authorization": "Bearer abcdefghij"}}
REQUEST_ID = "8f507cfc-0f4e-4b9c-8d1b-2b0f8f3f3f3f"


class Desk:
    """A function, and the recordings of a user who has no others."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "orders"
        self.project.mkdir()
        self.source = self.project / "function.ts"
        self.source.write_text(SOURCE)
        self.state = folder / "state"
        self.environ = {**os.environ, "XDG_STATE_HOME": str(self.state)}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return run_command(*arguments, cwd=self.project, environ=self.environ)

    def record(self, n: int = 1, *options: str) -> tuple[Path, dict[str, Any]]:
        """Record an invocation, the only one so far; return its file and content."""
        event = json.dumps({**EVENT, "n": n})
        done = self.run("invoke", ".", "-e", event, "--record", "failures", *options)
        if n <= 2:
            assert self.files() == []
            done = self.run("invoke", ".", "-e", event, "--record", "all", *options)
        assert done.returncode == (n > 2), done.stderr
        (path,) = self.files()
        assert repr(str(path)) in done.stderr.decode()
        return path, json.loads(path.read_bytes())

    def files(self) -> list[Path]:
        return sorted(self.state.rglob("*.json"))

    def differences(self, *arguments: str | Path) -> dict[str, tuple[str, str]]:
        done = self.run("replay", *arguments, "-o", "json")
        found = json.loads(done.stdout)
        assert done.returncode == (not found["same"])
        return {
            one["what"]: (one["recorded"], one["replayed"])
            for one in found["differences"]
        }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_recording_is_private_whole_and_without_secrets(desk: Desk) -> None:
    path, form = desk.record(3, "--env", "API_TOKEN=sesamsesam", "--tenant-id", "blue")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    text = path.read_text()
    assert "abcdefghij" not in text
    assert "sesamsesam" not in text
    assert json.loads(form["event"]["text"])["n"] == 3
    assert form["outcome"]["status"] == "TypeError"
    assert form["function"]["handler"] == "function.handler"
    assert form["context"]["tenantId"] == "blue"
    assert "n is 3" in form["log"]
    assert form["code"].startswith("files:sha256:")
    assert set(form["redacted"]) == {
        "event.headers.authorization",
        "variables.API_TOKEN",
    }


def test_the_same_invocation_runs_again_and_an_error_may_be_the_same(
    desk: Desk,
) -> None:
    path, form = desk.record(3)
    done = desk.run("replay", form["requestId"][:8], "--log")
    assert (done.returncode, done.stdout) == (
        0,
        b"Same outcome as recorded: TypeError\n",
    )
    log = done.stderr.decode()
    assert f"START RequestId: {form['requestId']}" in log
    assert "redacted in the recording: event.headers.authorization" in log
    assert "has changed" not in log
    assert desk.run("replay", path).returncode == 0


def test_what_differs_is_told_with_its_path(desk: Desk) -> None:
    desk.record(1, "--env", "STAGE=test")
    desk.source.write_text(SOURCE.replace('"x"', '"y"').replace(": 200", ": 201"))
    done = desk.run("replay", "last")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == [
        "HTTP status: 200 \u2192 201",
        "result.body.at: x \u2192 y",
        "result.body.stage: test \u2192 (nothing)",
    ]
    log = done.stderr.decode()
    assert "Note: The code has changed since the recording" in log
    assert "Note: Variables differ from the recorded ones: STAGE" in log
    desk.source.write_text(SOURCE.replace("> 2", "> 0").replace("n is", "n was"))
    found = desk.differences("last", "--log", "--env", "STAGE=test")
    assert found["outcome"] == ("response", "error")
    assert found["error type"] == ("none", "TypeError")
    assert found["error message"] == ("none", "too large: 1")
    assert "log line 1" in found


def test_a_recording_of_another_person_chooses_no_program_and_no_permission(
    desk: Desk, tmp_path: Path
) -> None:
    path, form = desk.record(1)
    witness = tmp_path / "witness"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    hostile = {
        "LAMBDA_DENO_BIN": str(program),
        "LAMBDA_DENO_PERMISSIONS": "all",
        "LD_PRELOAD": str(program),
    }
    form["settings"] |= hostile
    form["variables"] |= hostile
    path.write_text(json.dumps(form))
    assert desk.run("replay", path).returncode == 0
    assert not witness.exists()


def test_an_edited_recording_is_a_clean_usage_error(desk: Desk) -> None:
    path, form = desk.record(1)
    whole = path.read_text()
    broken: dict[str, Any] = {
        "it is not JSON, line": whole[: len(whole) // 2],
        "it is not UTF-8": b"\xff{",
        'it has no "type"': "{}",
        "its version is 2": json.dumps({**form, "version": 2}),
        "its 'outcome' is missing": json.dumps({**form, "outcome": 3}),
        "'event' has neither text nor": json.dumps({**form, "event": {"base64": "!"}}),
        "its 'function.timeoutS' is -1": json.dumps(
            {**form, "function": {**form["function"], "timeoutS": -1}}
        ),
        "was too large to be recorded": json.dumps({**form, "event": None}),
        "a value in its 'settings'": json.dumps({**form, "settings": {"A": 1}}),
        "its 'requestId' is not one": json.dumps({**form, "requestId": "a\nb"}),
    }
    for text, content in broken.items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        done = desk.run("replay", path)
        assert (done.returncode, done.stdout) == (2, b""), text
        (line,) = done.stderr.decode().splitlines()
        assert text in line
    assert desk.run("replay", "8f50").returncode == 2
    assert desk.run("replay").returncode == 2


# --- functions in AWS --------------------------------------------------------


async def recorded_by_the_runtime(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, mode: str
) -> list[str]:
    """Return the lines of recordings of a success and a failure."""
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_RECORD=mode)
    async with runtime:
        for n, request_id in ((1, "1" * 8), (3, REQUEST_ID)):
            await api.wait_for_next()
            api.deliver(
                json.dumps({**EVENT, "n": n}).encode(),
                request_id=request_id,
                headers={"Lambda-Runtime-Aws-Tenant-Id": "blue"},
            )
            await api.answer()
        await api.wait_for_next()
        log = runtime.log
    assert "abcdefghij" not in log
    return [line for line in log.splitlines() if f'"{KIND}"' in line]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("mode", "count"), [("off", 0), ("failures", 1), ("all", 2)])
async def test_the_runtime_writes_recordings_to_the_log(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, mode: str, count: int
) -> None:
    lines = await recorded_by_the_runtime(make_runtime, api, mode)
    assert len(lines) == count
    if count:
        parts = Parts(REQUEST_ID)
        assert [parts.take(line) for line in lines][-1]
        form = parse(parts.whole(), "the log")
        assert form["origin"] == "lambda"
        assert form["outcome"]["status"] == "TypeError"
        assert form["context"]["tenantId"] == "blue"
        assert form["function"]["timeoutS"] == TIMEOUT_S
        assert form["code"].startswith("file:function.ts:sha256:")
        assert form["redacted"] == ["event.headers.authorization"]


async def test_a_recording_is_fetched_from_the_log_of_a_function_in_aws(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    empty_cloud: Cloud,
    desk: Desk,
) -> None:
    recorded = await recorded_by_the_runtime(make_runtime, api, "all")
    logs = empty_cloud.client("logs")
    group = "/aws/lambda/orders"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now_ms = round(time.time() * 1000)
    lines = [
        f"2026-01-01T00:00:00.000Z\t{REQUEST_ID}\tINFO\t"
        f"TenantId: blue\tn is 3 {REQUEST_ID}"
    ]
    logs.put_log_events(
        logGroupName=group,
        logStreamName="s",
        logEvents=[{"timestamp": now_ms, "message": m} for m in [*lines, *recorded]],
    )
    desk.environ |= {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    remote = ("--remote", "orders", "--region", "eu-central-1")
    done = desk.run("replay", REQUEST_ID, ".", *remote, "--log")
    log = done.stderr.decode()
    # The log of the platform here has a line for the error, too.
    assert "Replaying " + REQUEST_ID in log
    assert done.stdout.decode().startswith("log line 2: (nothing)"), log
    assert done.returncode == 1
    assert desk.run("replay", REQUEST_ID, ".").returncode == 0  # it was kept
    done = desk.run("replay", "7" * 8, ".", *remote)
    assert done.returncode == 2
    assert b"the log has nothing of it" in done.stderr
    desk.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    desk.environ["AWS_MAX_ATTEMPTS"] = "1"
    assert desk.run("replay", REQUEST_ID, ".", *remote).returncode == 3


STREAM = """
export const handler = awslambda.streamifyResponse(async (event: any, out: any) => {
  if (event.rawPath === "/http") {
    out = awslambda.HttpResponseStream.from(out, { statusCode: 202, cookies: ["a=1"] });
  }
  out.write("one ");
  out.write("two");
  out.end();
});
"""


def test_a_stream_that_dev_has_recorded_is_the_same_again(tmp_path: Path) -> None:
    """Its prelude had been recorded as a part of the body."""
    folder = write(tmp_path / "f", {"function.ts": STREAM})
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    files = []
    with DevServer(folder, "--record", "all", environ=environ) as dev:
        for path, status in (("/http", 202), ("/plain", 200)):
            since = len(dev.changes)
            response = dev.client.get(f"{dev.url}{path}")
            assert (response.status_code, response.text) == (status, "one two")
            text = dev.notice("is recorded in", since)["text"]
            files.append(Path(text.split("'")[1]))
    recorded = [json.loads(file.read_bytes())["outcome"] for file in files]
    assert [each["payloadBytes"] for each in recorded] == [7, 7]
    assert recorded[0]["http"]["statusCode"] == 202
    for file in files:
        done = run_command("replay", file)
        assert done.returncode == 0, done.stderr
