"""The runtime under AWS's own emulator, invoked by AWS's own SDK.

The reference when our emulator and a guess disagree. What this one cannot show (freeze,
streams, trace ids, answers before ``next``) is tested against ours.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.rie import OUTLIVE_TIMEOUT_S, run_rie

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.rie import Rie

pytestmark = [pytest.mark.as_lambda, pytest.mark.rie, pytest.mark.deno]

# Long enough for a cold start on a busy machine, short enough to wait for once.
TIMEOUT_S = 10
RESPONSE_LIMIT_BYTES = 6_291_556  # AWS's 413: "Exceeded maximum allowed payload size"

FUNCTION_TS = """
let calls = 0;

// deno-lint-ignore no-explicit-any
export async function handler(event: any, context: any): Promise<unknown> {
  calls += 1;
  switch (event.do) {
    case "echo":
      return event.value;
    case "throw":
      throw new TypeError("Grüße: not today");
    case "exit":
      return Deno.exit(3);
    case "hang":
      if (event.port !== undefined) await Deno.connect({ port: event.port });
      setInterval(() => {}, 1000);
      return await new Promise(() => {});
    case "who":
      return { calls, pid: Deno.pid, supervisor: Deno.ppid };
    case "context":
      return {
        awsRequestId: context.awsRequestId,
        clientContext: context.clientContext,
        functionName: context.functionName,
        remaining: context.getRemainingTimeInMillis(),
        tenantId: context.tenantId,
      };
    case "large":
      return "x".repeat(event.bytes - 2);
  }
}
"""


@pytest.fixture(scope="module")
def task_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    (folder / "function.ts").write_text(FUNCTION_TS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def rie(
    rie_binary: Path, task_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rie]:
    log = tmp_path_factory.mktemp("rie") / "log.txt"
    with run_rie(
        rie_binary, task_root, "function.handler", log, timeout_s=TIMEOUT_S
    ) as running:
        yield running


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('Grüße 🦕 \u2028 \x00 \\ "', id="unicode"),
        pytest.param([0, -1, 0.1, 1e-7, 2**53 - 1], id="numbers"),
        pytest.param({"a": [None, True, {}], "b": ""}, id="nested"),
        pytest.param("é" * 500_000, id="1-mb"),
    ],
)
def test_result_is_what_the_handler_returned(rie: Rie, value: object) -> None:
    assert rie.invoke({"do": "echo", "value": value}) == value


def test_result_is_null_if_the_handler_returns_nothing(rie: Rie) -> None:
    assert rie.invoke({"do": "nothing"}) is None


def test_error_has_name_message_and_stack_if_the_handler_throws(rie: Rie) -> None:
    error = rie.invoke({"do": "throw"})

    assert error["errorType"] == "TypeError"
    assert error["errorMessage"] == "Grüße: not today"
    assert any("function.ts" in line for line in error["stackTrace"])


def test_every_event_gets_a_process_of_its_own(rie: Rie) -> None:
    answers = [rie.invoke({"do": "who"}) for _ in range(3)]

    assert [answer["calls"] for answer in answers] == [1, 1, 1]
    assert len({answer["pid"] for answer in answers}) == 3
    assert len({answer["supervisor"] for answer in answers}) == 1


def test_supervisor_serves_the_next_event_after_an_exit(rie: Rie) -> None:
    before = rie.invoke({"do": "who"})

    error = rie.invoke({"do": "exit"})

    assert error["errorType"] == "Runtime.ExitError"
    assert "status 3" in error["errorMessage"]
    assert rie.invoke({"do": "who"})["supervisor"] == before["supervisor"]


def test_supervisor_serves_the_next_event_after_a_timeout(rie: Rie) -> None:
    before = rie.invoke({"do": "who"})

    error = rie.invoke({"do": "hang"})

    # The emulator's own timeout is plain text: this came from us, before it.
    assert error["errorType"] == "Runtime.InvokeTimeout"
    after = rie.invoke({"do": "who"})
    assert after["supervisor"] == before["supervisor"]
    assert after["calls"] == 1


def test_supervisor_serves_the_next_event_after_an_oversize_response(rie: Rie) -> None:
    before = rie.invoke({"do": "who"})

    error = rie.invoke({"do": "large", "bytes": RESPONSE_LIMIT_BYTES + 1})

    assert error["errorType"] == "Function.ResponseSizeTooLarge"
    assert rie.invoke({"do": "who"})["supervisor"] == before["supervisor"]


def test_largest_allowed_response_arrives(rie: Rie) -> None:
    result = rie.invoke({"do": "large", "bytes": RESPONSE_LIMIT_BYTES})

    assert len(result) == RESPONSE_LIMIT_BYTES - 2  # the two quotation marks


def test_context_has_what_the_caller_sent(rie: Rie) -> None:
    client_context = {"client": {"app_title": "Dino"}, "custom": {"a": "ü"}}
    request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

    context = rie.invoke(
        {"do": "context"},
        headers={"X-Amzn-RequestId": request_id},
        ClientContext=base64.b64encode(json.dumps(client_context).encode()).decode(),
        TenantId="tenant-7",
    )

    assert context["awsRequestId"] == request_id
    assert context["clientContext"] == client_context
    assert context["functionName"] == "function"
    assert 0 < context["remaining"] <= TIMEOUT_S * 1000
    assert context["tenantId"] == "tenant-7"


def test_context_lacks_what_the_caller_did_not_send(rie: Rie) -> None:
    context = rie.invoke({"do": "context"})

    assert context["awsRequestId"]
    assert context.get("clientContext") is None
    assert context.get("tenantId") is None


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("handler", "error_type"),
    [
        ("missing.handler", "Runtime.ImportModuleError"),
        ("function.missing", "Runtime.HandlerNotFound"),
        ("function", "Runtime.MalformedHandlerName"),
    ],
    ids=["no-such-file", "no-such-export", "malformed"],
)
def test_init_error_reaches_the_caller_if_the_handler_is_wrong(
    rie_binary: Path, task_root: Path, tmp_path: Path, handler: str, error_type: str
) -> None:
    log = tmp_path / "log.txt"
    with run_rie(rie_binary, task_root, handler, log, timeout_s=TIMEOUT_S) as rie:
        answer = rie.post({"do": "echo"})

        assert answer.status_code == 502
        assert answer.json()["errorType"] == error_type
        assert handler.rpartition(".")[0] in answer.json()["errorMessage"]
        _, left = psutil.wait_procs(rie.processes(), timeout=OUTLIVE_TIMEOUT_S)
        assert left == []


def test_nothing_is_left_running_when_an_idle_environment_ends(
    rie_binary: Path, task_root: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    with run_rie(
        rie_binary, task_root, "function.handler", log, timeout_s=TIMEOUT_S
    ) as rie:
        supervisor = rie.invoke({"do": "who"})["supervisor"]
        running = {process.pid for process in rie.processes()}
        assert {supervisor} < running, "it and the process for the next event"

        assert rie.stop() == []


STREAM_TS = """
// deno-lint-ignore no-explicit-any
export async function* handler(event: any) {
  yield "first";
  const error = new RangeError(event.unit.repeat(event.times));
  if (event.name) error.name = event.name.repeat(500);
  if (event.lines) {
    error.stack = "RangeError\\n" + "    at f (file:///x.ts:1:1)\\n".repeat(event.lines);
  }
  if (event.times > 0) throw error;
}
"""
# AWS's server is written in Go, which takes 4,096 bytes of trailers.
BEHIND_STREAMS = [
    *(
        {"unit": "m", "times": times}
        for times in (1, 2_000, 2_400, 2_700, 2_900, 4_000)
    ),
    {"unit": "m", "times": 1_000_000},
    {"unit": "\N{EURO SIGN}\N{GRINNING FACE}", "times": 2_000},
    {"unit": "\x01", "times": 4_000},
    {"unit": "m", "times": 10, "name": "N"},
    {"unit": "m", "times": 10, "lines": 3_000},
]


def test_an_error_behind_a_stream_is_taken_and_the_next_event_served(
    rie_binary: Path, tmp_path: Path
) -> None:
    """It ended the environment if it was longer than about 2.9 KB."""
    (tmp_path / "function.ts").write_text(STREAM_TS, encoding="utf-8")
    log = tmp_path / "log.txt"
    with run_rie(
        rie_binary, tmp_path, "function.handler", log, timeout_s=TIMEOUT_S
    ) as rie:
        for event in BEHIND_STREAMS:
            answer = rie.post(event)
            assert (answer.status_code, answer.text) == (200, "first"), event
            assert rie.post({"unit": "", "times": 0}).text == "first", event
        assert rie.stop() == []
    said = log.read_text(encoding="utf-8")
    assert "suspiciously long trailer" not in said
    assert said.count("Invoke Error") == len(BEHIND_STREAMS)


CLOSING_JS = """
addEventListener("unload", () => console.log("unloaded"));
Deno.addSignalListener("SIGTERM", () => console.log("closing"));
export const handler = () => Deno.pid;
"""


@pytest.mark.parametrize("strategy", ["server", "reuse"])
@pytest.mark.parametrize("sigterm", ["on", "off"])
def test_a_process_hears_of_the_end_if_the_runtime_is_an_extension(
    rie_binary: Path, short_tmp_path: Path, strategy: str, sigterm: str
) -> None:
    (short_tmp_path / "function.js").write_text(CLOSING_JS, encoding="utf-8")
    log = short_tmp_path / "log.txt"
    settings = {
        "LAMBDA_DENO_SIGTERM": sigterm,
        "LAMBDA_DENO_CLOSE_GRACE_MS": "400",  # of 600 that the emulator leaves
    }
    if strategy == "server":
        settings["LAMBDA_DENO_STRATEGY"] = "server"
    else:
        settings["LAMBDA_DENO_MAX_INVOCATIONS"] = "100"
    with run_rie(
        rie_binary,
        short_tmp_path,
        "function.handler",
        log,
        timeout_s=TIMEOUT_S,
        settings=settings,
    ) as rie:
        assert rie.invoke({}) == rie.invoke({}), "one process for both"

        assert rie.stop() == []
    said = log.read_text(encoding="utf-8")
    assert ("\tclosing\n" in said) == (sigterm == "on")
    assert ("\tunloaded\n" in said) == (sigterm == "on")
    assert "may send no SIGTERM" not in said
