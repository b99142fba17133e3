"""The line of measures: names, units and both forms, after CloudWatch's rules."""

from __future__ import annotations

import json

import pytest

from lambda_deno_spawn.config import Metrics
from lambda_deno_spawn.invocation import Failure, Invocation, Success
from lambda_deno_spawn.processes.reaper import ExitStatus
from lambda_deno_spawn.serving.metrics import (
    Measures,
    ReportForm,
    Times,
    report_line,
)
from lambda_deno_spawn.serving.strategy import Facts, Usage

MEASURES = Measures(
    request_id="request-1",
    tenant_id=None,
    status="success",
    start="exec",
    start_reason="it is the first",
    is_warm=True,
    spawn_s=0.0005,
    ready_s=0.0151234,
    idle_s=2.5,
    wait_s=0.00004,
    handler_s=0.25,
    post_s=0.001,
    finish_s=0.0,
    cleanup_s=0.002,
    user_s=0.02,
    system_s=0.01,
    peak_bytes=52_428_800,
    event_bytes=2,
    response_bytes=100,
    left_processes=1,
    left_files=3,
)
# An invocation for which not even a process could be started.
NOTHING = MEASURES._replace(
    start=None,
    start_reason=None,
    tenant_id="blue",
    status="Runtime.InvokeTimeout",
    is_warm=False,
    spawn_s=None,
    ready_s=None,
    idle_s=None,
    wait_s=None,
    handler_s=None,
    post_s=None,
    user_s=None,
    system_s=None,
    peak_bytes=None,
    left_processes=0,
    left_files=0,
)
TIMESTAMP = "2026-11-25T08:08:42.612Z"


def line(measures: Measures, metrics: Metrics, name: str = "shop") -> bytes:
    form = ReportForm(metrics, name, "7")
    return report_line(measures, form, TIMESTAMP, 1_795_594_122_612)


def test_the_json_record_tells_every_measure_with_its_unit() -> None:
    assert json.loads(line(MEASURES, Metrics.JSON)) == {
        "timestamp": TIMESTAMP,
        "level": "INFO",
        "requestId": "request-1",
        "type": "lambda-deno-spawn.report",
        "record": {
            "status": "success",
            "start": "exec",
            "startReason": "it is the first",
            "warm": True,
            "spawnMs": 0.5,
            "readyMs": 15.123,
            "idleMs": 2500.0,
            "waitMs": 0.04,
            "handlerMs": 250.0,
            "postMs": 1.0,
            "finishMs": 0.0,
            "cleanupMs": 2.0,
            "cpuUserMs": 20.0,
            "cpuSystemMs": 10.0,
            "peakMemoryMB": 50.0,
            "bytesIn": 2,
            "bytesOut": 100,
            "leftoverProcesses": 1,
            "leftoverFiles": 3,
        },
    }


def test_what_was_not_measured_is_null_and_the_tenant_is_named() -> None:
    report = json.loads(line(NOTHING, Metrics.JSON))
    assert report["tenantId"] == "blue"
    assert report["record"]["status"] == "Runtime.InvokeTimeout"
    assert report["record"]["handlerMs"] is None
    assert report["record"]["peakMemoryMB"] is None


@pytest.mark.parametrize("measures", [MEASURES, NOTHING], ids=["all", "little"])
def test_the_embedded_format_declares_every_value_it_holds(measures: Measures) -> None:
    """CloudWatch ignores a metric without a value, and wants numbers."""
    report = json.loads(line(measures, Metrics.EMF))
    head = report["_aws"]
    assert head["Timestamp"] == 1_795_594_122_612
    [directive] = head["CloudWatchMetrics"]
    assert directive["Namespace"] == "lambda-deno-spawn"
    assert directive["Dimensions"] == [["FunctionName"]]
    declared = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert set(declared.values()) <= {"Milliseconds", "Megabytes", "Bytes", "Count"}
    assert all(isinstance(report[name], int | float) for name in declared)
    others = {"_aws", "FunctionName", "FunctionVersion", "requestId", "status"}
    assert set(report) - set(declared) - {"tenantId", "startReason"} == others
    assert report["FunctionName"] == "shop"


def test_the_embedded_format_counts_warm_starts_and_errors() -> None:
    good = json.loads(line(MEASURES, Metrics.EMF))
    assert (good["WarmStarts"], good["Errors"]) == (1, 0)
    assert good["startReason"] == "it is the first"
    assert (good["HandlerTime"], good["PeakMemory"]) == (250.0, 50.0)
    bad = json.loads(line(NOTHING, Metrics.EMF))
    assert (bad["WarmStarts"], bad["Errors"]) == (0, 1)
    assert bad["tenantId"] == "blue"
    assert "HandlerTime" not in bad


def test_a_dimension_is_never_empty() -> None:
    """CloudWatch refuses an empty dimension, and with it the whole line."""
    assert json.loads(line(MEASURES, Metrics.EMF, ""))["FunctionName"] == "unknown"


INVOCATION = Invocation("request-1", 0, "arn", b"{}", tenant_id="blue")
TIMES = Times(
    arrived_s=10.0, responded_s=12.0, posted_s=12.5, finished_s=14.0, ended_s=14.25
)
FACTS = Facts(
    why_not_forked="it is the first",
    number=1,
    is_first=True,
    started_s=4.0,
    spawn_s=0.5,
    ready_s=7.0,
    handed_over_s=10.125,
)
USAGE = Usage(ExitStatus(0, 0.25, 0.5, 1024), 2, 3)


def measured(
    outcome: Success | Failure = Success(b"123"),  # noqa: B008 - it is frozen
    refusal: str | None = None,
    times: Times = TIMES,
    facts: Facts | None = FACTS,
    usage: Usage = USAGE,
) -> Measures:
    measures = Measures.of(INVOCATION, outcome, refusal, times)
    return measures if facts is None else measures.in_worker(times, facts, usage)


def test_measures_are_the_lengths_between_what_happened() -> None:
    assert measured() == Measures(
        request_id="request-1",
        tenant_id="blue",
        status="success",
        finish_s=1.5,
        cleanup_s=0.25,
        event_bytes=2,
        response_bytes=3,
        start="exec",
        start_reason="it is the first",
        is_warm=True,
        spawn_s=0.5,
        ready_s=3.0,
        idle_s=3.0,
        wait_s=0.125,
        handler_s=1.875,
        post_s=0.5,
        user_s=0.25,
        system_s=0.5,
        peak_bytes=1024,
        left_processes=2,
        left_files=3,
    )


def test_a_worker_that_was_started_for_its_event_was_not_idle() -> None:
    found = measured(facts=FACTS._replace(started_s=10.0, ready_s=10.1))
    assert (found.is_warm, found.idle_s) == (False, 0.0)


def test_a_copy_needs_no_reason() -> None:
    found = measured(facts=FACTS._replace(why_not_forked=None))
    assert (found.start, found.start_reason) == ("fork", None)


def test_what_did_not_happen_has_no_length() -> None:
    facts = FACTS._replace(ready_s=None, handed_over_s=None, number=0)
    found = measured(times=TIMES._replace(responded_s=None), facts=facts)
    assert (found.ready_s, found.idle_s, found.wait_s, found.handler_s) == (None,) * 4
    assert found.post_s == 0.0


def test_a_response_that_ends_after_its_post_ends_with_it() -> None:
    """A caller who left is told before the handler has ended its stream."""
    found = measured(times=TIMES._replace(responded_s=13.0))
    assert (found.handler_s, found.post_s) == (2.375, 0.0)


def test_starting_belongs_to_the_first_event_and_usage_to_a_process_that_ended() -> (
    None
):
    facts, usage = FACTS._replace(is_first=False, number=2), USAGE._replace(exited=None)
    found = measured(facts=facts, usage=usage)
    assert (found.spawn_s, found.ready_s, found.idle_s) == (None,) * 3
    assert (found.user_s, found.system_s, found.peak_bytes) == (None,) * 3
    assert found.wait_s == 0.125


@pytest.mark.parametrize(
    ("outcome", "refusal", "status", "response_bytes"),
    [
        (Success(b"123"), None, "success", 3),
        (Success(b"123"), "Refused", "Refused", 3),
        (Failure("RangeError", b"{}"), None, "RangeError", 2),
        (Failure("RangeError", b"{}"), "Refused", "Refused", 2),
    ],
)
def test_the_status_is_what_the_caller_was_told(
    outcome: Success | Failure, refusal: str | None, status: str, response_bytes: int
) -> None:
    found = measured(outcome, refusal, facts=None)
    assert (found.status, found.response_bytes) == (status, response_bytes)
