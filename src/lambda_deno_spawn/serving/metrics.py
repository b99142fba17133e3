"""The measurements of one invocation, as one line of the log.

Knows the measures, their units, and how they are written: as a JSON record beside the
platform's own reports, or in CloudWatch's embedded metric format. Does not know clocks,
processes or the log. Specification: Amazon CloudWatch User Guide, "Embedded metric
format"; docs/metrics.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Metrics
from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.limits import MEBIBYTE
from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.strict_json import dumps

if TYPE_CHECKING:
    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.serving.strategy import Facts, Usage
    from lambda_deno_spawn.serving.streaming import WorkerChunks

RECORD_TYPE = "lambda-deno-spawn.report"
NAMESPACE = "lambda-deno-spawn"
SUCCESS = "success"


class ReportForm(NamedTuple):
    """How measures are written.

    Attributes:
        metrics: JSON or EMF.
        function_name: Dimension of the metrics.
        function_version: Told beside them.
    """

    metrics: Metrics
    function_name: str = ""
    function_version: str = ""


class Times(NamedTuple):
    """When what happened to an invocation; monotonic clock, seconds.

    Attributes:
        arrived_s: Its event arrived.
        responded_s: The response was complete; None: it never was.
        posted_s: The Runtime API had accepted it.
        finished_s: ``waitUntil`` work was over.
        ended_s: Its worker had ended, or was free again.
    """

    arrived_s: float
    responded_s: float | None
    posted_s: float
    finished_s: float
    ended_s: float


class Measures(NamedTuple):
    """The measurements of one invocation; None: there was nothing to measure.

    Attributes:
        request_id: Of the invocation.
        tenant_id: Of the invocation.
        status: ``success``, or the error type that the caller was told.
        finish_s: ``waitUntil`` work after the response was posted.
        cleanup_s: Ending the process and all it started, removing its folder.
        event_bytes: Size of the event.
        response_bytes: Size of the response, or of the error.
        start: How its process began: ``fork`` or ``exec``; None: it had none.
        start_reason: Why it is not a fork; None: it is one, or it had none.
        is_warm: Its process had been started before the event arrived.
        spawn_s: The system call that starts the process.
        ready_s: From that call until the handler's module was loaded.
        idle_s: How long the process then waited for its event.
        wait_s: How long the event waited for the process, which its caller feels.
        handler_s: From handing over the event to the (end of the) response.
        post_s: From the end of the response until the Runtime API had accepted it.
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
    response_bytes: int
    start: str | None = None
    start_reason: str | None = None
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

    @classmethod
    def of(
        cls,
        invocation: Invocation,
        outcome: Success | Failure | WorkerChunks,
        refusal: str | None,
        times: Times,
    ) -> Measures:
        """Measure an invocation, as if it had never had a worker.

        Args:
            invocation: Event and facts.
            outcome: What came of it.
            refusal: Error type that the caller was told instead; None: nothing else.
            times: When what happened.
        """
        match outcome:
            case Success():
                failure, response_bytes = None, len(outcome.payload)
            case Failure():
                failure, response_bytes = outcome, len(outcome.answer)
            case _:
                failure, response_bytes = outcome.failure, outcome.sent_bytes
        return cls(
            request_id=invocation.request_id,
            tenant_id=invocation.tenant_id,
            status=refusal or (failure.error_type if failure else SUCCESS),
            finish_s=times.finished_s - times.posted_s,
            cleanup_s=times.ended_s - times.finished_s,
            event_bytes=len(invocation.event),
            response_bytes=response_bytes,
        )

    def in_worker(self, times: Times, facts: Facts, usage: Usage) -> Measures:
        """Add what its worker tells.

        Args:
            times: When what happened.
            facts: What was measured of the worker until the hand-over.
            usage: What was left behind.
        """
        arrived_s, ready_s = times.arrived_s, facts.ready_s
        responded_s = min(times.responded_s or times.posted_s, times.posted_s)
        measures = self._replace(
            start="fork" if facts.why_not_forked is None else "exec",
            start_reason=facts.why_not_forked,
            is_warm=facts.started_s < arrived_s,
            wait_s=_between(arrived_s, facts.handed_over_s),
            handler_s=_between(facts.handed_over_s, responded_s),
            post_s=times.posted_s - responded_s,
            left_processes=usage.left_processes,
            left_files=usage.left_files,
        )
        if facts.is_first:
            # Starting and waiting belong to the worker's first invocation only.
            measures = measures._replace(
                spawn_s=facts.spawn_s,
                ready_s=_between(facts.started_s, ready_s),
                idle_s=_between(ready_s, max(arrived_s, ready_s or 0.0)),
            )
        if usage.exited is not None:
            measures = measures._replace(
                user_s=usage.exited.user_s,
                system_s=usage.exited.system_s,
                peak_bytes=usage.exited.peak_bytes,
            )
        return measures

    def fields(self) -> dict[str, object]:
        """Return the measures under the names of the JSON record."""
        return {
            "status": self.status,
            "start": self.start,
            "startReason": self.start_reason,
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
            "bytesOut": self.response_bytes,
            "leftoverProcesses": self.left_processes,
            "leftoverFiles": self.left_files,
        }


# The metrics of the embedded format: name, unit, and the field that holds the value.
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
    measures: Measures, form: ReportForm, timestamp: str, epoch_ms: int
) -> bytes:
    """Return the line for one invocation, without a newline.

    Args:
        measures: What was measured.
        form: How it is written.
        timestamp: Now, as log records have it.
        epoch_ms: Now; Unix time, milliseconds.
    """
    if form.metrics is Metrics.EMF:
        return dumps(_embedded(measures, form, epoch_ms))
    record: dict[str, object] = {
        "timestamp": timestamp,
        "level": "INFO",
        "requestId": measures.request_id,
    }
    if measures.tenant_id is not None:
        record["tenantId"] = measures.tenant_id
    return dumps({**record, "type": RECORD_TYPE, "record": measures.fields()})


def _embedded(measures: Measures, form: ReportForm, epoch_ms: int) -> dict[str, object]:
    fields = measures.fields()
    values: dict[str, object] = {
        name: fields[field]
        for name, _, field in EMF_METRICS
        if fields[field] is not None
    }
    values["WarmStarts"] = int(measures.is_warm)
    values["ForkedStarts"] = int(measures.start == "fork")
    values["Errors"] = int(measures.status != SUCCESS)
    units = {name: unit for name, unit, _ in EMF_METRICS}
    more = {"tenantId": measures.tenant_id, "startReason": measures.start_reason}
    properties = {name: value for name, value in more.items() if value is not None}
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
        "FunctionName": form.function_name or "unknown",
        "FunctionVersion": form.function_version,
        "requestId": measures.request_id,
        **properties,
        "status": measures.status,
        **values,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _between(begin_s: float | None, end_s: float | None) -> float | None:
    return None if begin_s is None or end_s is None else end_s - begin_s
