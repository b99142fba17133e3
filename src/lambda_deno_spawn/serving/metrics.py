"""What one invocation took, as one line of the log.

Knows the measures, their units, and how they are written: as a JSON record beside the
platform's own reports, or in CloudWatch's embedded metric format. Refuses to know
clocks, processes and the log. Specification: Amazon CloudWatch User Guide, "Embedded
metric format"; docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from lambda_deno_spawn.config import Metrics

if TYPE_CHECKING:
    from lambda_deno_spawn.config import Settings

RECORD_TYPE = "lambda-deno-spawn.report"
NAMESPACE = "lambda-deno-spawn"
SUCCESS = "success"
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one invocation; None: there was nothing to measure.

    Attributes:
        request_id: Of the invocation.
        tenant_id: Of the invocation.
        status: ``success``, or the error type that the caller was told.
        finish_s: ``waitUntil`` work after the answer was posted.
        cleanup_s: Ending the process and all it started, removing its folder.
        event_bytes: Size of the event.
        answer_bytes: Size of the answer, or of the error.
        is_warm: Its process had been started before the event came.
        spawn_s: The call that starts the process.
        ready_s: From that call until the handler's module was loaded.
        idle_s: How long the process then waited for its event.
        wait_s: How long the event waited for the process: what a caller feels of it.
        handler_s: From handing over the event to the (end of the) answer.
        post_s: From the end of the answer until the Runtime API had taken it.
        user_s: Processor time of the process in its own code.
        system_s: Processor time of the process in the kernel.
        peak_bytes: Most resident memory of the process, or of a program it ran.
        left_processes: Programs it had left running; they were ended.
        left_files: Files and folders it had left in its own folder; they are gone.
    """

    request_id: str
    tenant_id: str | None
    status: str
    finish_s: float
    cleanup_s: float
    event_bytes: int
    answer_bytes: int
    is_warm: bool = False
    spawn_s: float | None = None
    ready_s: float | None = None
    idle_s: float | None = None
    wait_s: float | None = None
    handler_s: float | None = None
    post_s: float | None = None
    user_s: float | None = None
    system_s: float | None = None
    peak_bytes: int | None = None
    left_processes: int = 0
    left_files: int = 0

    def fields(self) -> dict[str, object]:
        """Return the measures under the names of the JSON record."""
        return {
            "status": self.status,
            "warm": self.is_warm,
            "spawnMs": _ms(self.spawn_s),
            "readyMs": _ms(self.ready_s),
            "idleMs": _ms(self.idle_s),
            "waitMs": _ms(self.wait_s),
            "handlerMs": _ms(self.handler_s),
            "postMs": _ms(self.post_s),
            "finishMs": _ms(self.finish_s),
            "cleanupMs": _ms(self.cleanup_s),
            "cpuUserMs": _ms(self.user_s),
            "cpuSystemMs": _ms(self.system_s),
            "peakMemoryMB": None
            if self.peak_bytes is None
            else round(self.peak_bytes / MEBIBYTE, 1),
            "bytesIn": self.event_bytes,
            "bytesOut": self.answer_bytes,
            "leftoverProcesses": self.left_processes,
            "leftoverFiles": self.left_files,
        }


# The metrics of the embedded format, their units, and the field each has its value of.
EMF_METRICS = (
    ("SpawnTime", "Milliseconds", "spawnMs"),
    ("ReadyTime", "Milliseconds", "readyMs"),
    ("IdleTime", "Milliseconds", "idleMs"),
    ("WaitTime", "Milliseconds", "waitMs"),
    ("HandlerTime", "Milliseconds", "handlerMs"),
    ("PostTime", "Milliseconds", "postMs"),
    ("FinishTime", "Milliseconds", "finishMs"),
    ("CleanupTime", "Milliseconds", "cleanupMs"),
    ("CpuUserTime", "Milliseconds", "cpuUserMs"),
    ("CpuSystemTime", "Milliseconds", "cpuSystemMs"),
    ("PeakMemory", "Megabytes", "peakMemoryMB"),
    ("BytesIn", "Bytes", "bytesIn"),
    ("BytesOut", "Bytes", "bytesOut"),
    ("LeftoverProcesses", "Count", "leftoverProcesses"),
    ("LeftoverFiles", "Count", "leftoverFiles"),
)


def report_line(
    measures: Measures, settings: Settings, timestamp: str, epoch_ms: int
) -> bytes:
    """Return the line for one invocation, without a newline.

    Args:
        measures: What was measured.
        settings: Which form is wanted (not ``off``), and the function's name.
        timestamp: Now, as log records have it.
        epoch_ms: Now; Unix time, milliseconds.
    """
    if settings.metrics is Metrics.EMF:
        return orjson.dumps(_embedded(measures, settings, epoch_ms))
    record: dict[str, object] = {
        "timestamp": timestamp,
        "level": "INFO",
        "requestId": measures.request_id,
    }
    if measures.tenant_id is not None:
        record["tenantId"] = measures.tenant_id
    return orjson.dumps({**record, "type": RECORD_TYPE, "record": measures.fields()})


def _embedded(
    measures: Measures, settings: Settings, epoch_ms: int
) -> dict[str, object]:
    fields = measures.fields()
    values: dict[str, object] = {
        name: fields[field]
        for name, _, field in EMF_METRICS
        if fields[field] is not None
    }
    values["WarmStarts"] = int(measures.is_warm)
    values["Errors"] = int(measures.status != SUCCESS)
    units = {name: unit for name, unit, _ in EMF_METRICS}
    tenant = {} if measures.tenant_id is None else {"tenantId": measures.tenant_id}
    return {
        "_aws": {
            "Timestamp": epoch_ms,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        {"Name": name, "Unit": units.get(name, "Count")}
                        for name in values
                    ],
                }
            ],
        },
        "FunctionName": settings.function_name or "unknown",
        "FunctionVersion": settings.function_version,
        "requestId": measures.request_id,
        **tenant,
        "status": measures.status,
        **values,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
