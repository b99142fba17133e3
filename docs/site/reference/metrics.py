"""The table of metrics: fields, metrics and units from serving/metrics.py."""

from __future__ import annotations

import json

from docs.site.reference.markdown import code, complete, table

from lambda_deno_spawn.config import Metrics
from lambda_deno_spawn.serving.metrics import (
    EMF_METRICS,
    Measures,
    ReportForm,
    report_line,
)

MEANINGS = {
    "status": "`success`, or the [error type](reference/errors.md) that was reported "
    "to the caller. The metric is 0 or 1",
    "start": "how the process began: `exec` or `fork` ([forks](fork.md)). The metric "
    "is 1 for a fork",
    "startReason": "why it was not `fork`: something in the module that cannot be "
    "copied, a setting that excludes it, or no loaded process yet, as for the first "
    "event of an environment",
    "warm": "whether the process had been started before the event arrived. The "
    "metric is 0 or 1",
    "spawnMs": "the system call that starts the process",
    "readyMs": "from that call until the handler's module was loaded",
    "idleMs": "how long the process then waited for its event; includes time in which "
    "it was frozen if the system's clock does",
    "waitMs": "how long the event waited for the process: the part of the process's "
    "start that the caller notices",
    "handlerMs": "from handing over the event to the end of the response",
    "postMs": "from then until the Runtime API accepted the response",
    "finishMs": "work passed to `waitUntil` that ran after that",
    "cleanupMs": "ending the process and everything that it started, and removing its "
    "folder",
    "cpuUserMs": "CPU time in user code of the process, including its start, and of "
    "the programs that it waited for (wait4(2))",
    "cpuSystemMs": "the same for CPU time in the kernel",
    "peakMemoryMB": "largest resident memory of the process, or of a program that it "
    "waited for",
    "bytesIn": "size of the event",
    "bytesOut": "size of the response or the error",
    "leftoverProcesses": "programs that were still running and were ended. If several "
    "events run at once, all that were ended in the environment during this invocation",
    "leftoverFiles": "files and folders in the private folder, which are removed. If "
    "removal takes longer than a few milliseconds, the number removed by the time the "
    "line is written",
}
# Metrics that are no field's value, but follow from one.
DERIVED = {"status": "Errors", "start": "ForkedStarts", "warm": "WarmStarts"}


def metrics_table() -> str:
    """Return the table of docs/metrics.md.

    Raises:
        ReferenceGapError: A field or a metric is not described.
    """
    measures = Measures("id", None, "success", 0, 0, 0, 0)
    complete("field", measures.fields(), MEANINGS)
    units = {field: (name, unit) for name, unit, field in EMF_METRICS}
    units |= {field: (name, "Count") for field, name in DERIVED.items()}
    report = json.loads(report_line(measures, ReportForm(Metrics.EMF), "", 0))
    (directive,) = report["_aws"]["CloudWatchMetrics"]
    written = {metric["Name"] for metric in directive["Metrics"]}
    names = {name: field for field, (name, _) in units.items()}
    complete("metric", sorted(written | {name for name, *_ in EMF_METRICS}), names)
    return table(
        ["Field", "Metric (`emf`)", "Unit", "Meaning"],
        (
            [code(field), *metric(units.get(field)), MEANINGS[field]]
            for field in MEANINGS
        ),
    )


def metric(found: tuple[str, str] | None) -> list[str]:
    """Return name and unit of a metric."""
    return ["a property", ""] if found is None else [code(found[0]), found[1]]
