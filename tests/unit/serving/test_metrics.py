"""The line of measures: names, units and both forms, after CloudWatch's rules."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lambda_deno_spawn.config import Metrics
from lambda_deno_spawn.serving.metrics import Measures, ReportForm, report_line

MEASURES = Measures(
    request_id="request-1",
    tenant_id=None,
    status="success",
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
NOTHING = replace(
    MEASURES,
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
    assert set(report) - set(declared) - {"tenantId"} == others
    assert report["FunctionName"] == "shop"


def test_the_embedded_format_counts_warm_starts_and_errors() -> None:
    good = json.loads(line(MEASURES, Metrics.EMF))
    assert (good["WarmStarts"], good["Errors"]) == (1, 0)
    assert (good["HandlerTime"], good["PeakMemory"]) == (250.0, 50.0)
    bad = json.loads(line(NOTHING, Metrics.EMF))
    assert (bad["WarmStarts"], bad["Errors"]) == (0, 1)
    assert bad["tenantId"] == "blue"
    assert "HandlerTime" not in bad


def test_a_dimension_is_never_empty() -> None:
    """CloudWatch refuses an empty dimension, and with it the whole line."""
    assert json.loads(line(MEASURES, Metrics.EMF, ""))["FunctionName"] == "unknown"
