"""A recording as an invocation on this machine, and the recording of that.

Knows which parts of a recording are used: event, context, limits and the kind of
process. A recording is data, which may come from another person: it never chooses a
program, a permission or a variable. Does not know the command line.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from lambda_deno_spawn.dev.local.invoke import run
from lambda_deno_spawn.dev.project.function import Again, InvokeOptions
from lambda_deno_spawn.dev.project.quotas import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S
from lambda_deno_spawn.dev.recording.capture import capture, same_code, status_of
from lambda_deno_spawn.dev.recording.compare import body_bytes
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.recording.form import SETTINGS, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.local.invoke import InvokeResult
    from lambda_deno_spawn.dev.project.function import Function, Inspect

SHOWN_PATHS = 5


@dataclass(frozen=True, slots=True)
class Rerun:
    """A second run.

    Attributes:
        form: Its recording.
        result: The result as its caller would get it.
    """

    form: dict[str, Any]
    result: InvokeResult


class Tee(io.BytesIO):
    """Passes a log on and keeps it."""

    def __init__(self, sink: BinaryIO) -> None:
        """Pass everything on to ``sink``."""
        super().__init__()
        self._sink = sink

    def write(self, data: Any, /) -> int:
        """Write and keep."""
        self._sink.write(data)
        return super().write(data)

    def flush(self) -> None:
        """Flush."""
        self._sink.flush()

    @property
    def text(self) -> str:
        """Everything that was written."""
        return self.getvalue().decode(errors="replace")


def options_of(
    form: Mapping[str, Any],
    function: Function,
    *,
    variables: Mapping[str, str],
    inspect: Inspect | None = None,
    is_verbose: bool = False,
) -> InvokeOptions:
    """Return how to invoke a function once more as it was recorded.

    Args:
        form: The recording, checked.
        function: The code that is to run.
        variables: Variables of the function now; those recorded are not used.
        inspect: Have a debugger attach.
        is_verbose: Log the commands that start the function's processes.

    Raises:
        UsageError: The recording does not have the event.
    """
    event = body_bytes(form.get("event"))
    if event is None:
        raise UsageError(
            f"Cannot replay {form['requestId']}: its event of "
            f"{form.get('eventBytes')} bytes was too large to be recorded; send it "
            "with `invoke --event-file`"
        )
    recorded, context = form["function"], form["context"]
    arn = recorded.get("arn")
    return InvokeOptions(
        function=function,
        event=event,
        timeout_s=recorded.get("timeoutS") or DEFAULT_TIMEOUT_S,
        memory_mb=int(recorded.get("memoryMb") or DEFAULT_MEMORY_MB),
        variables={**variables, **_process_settings(form)},
        client_context=context.get("clientContext"),
        tenant_id=context.get("tenantId"),
        is_verbose=is_verbose,
        inspect=inspect,
        again=Again(
            form["requestId"],
            context.get("traceId"),
            context.get("cognitoIdentity"),
            arn if isinstance(arn, str) and arn else None,
        ),
    )


def _process_settings(form: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that give the same kind of process."""
    settings = {n: v for n, v in form["settings"].items() if n in SETTINGS}
    process = form.get("process")
    start = process.get("start") if isinstance(process, dict) else None
    # A process that was forked is one again, where that is possible.
    begun = {"exec": "exec", "fork": "auto"}.get(start) if start else None
    if begun is not None:
        settings["LAMBDA_DENO_START"] = begun
    return settings


def notes_on(
    form: Mapping[str, Any], function: Function, variables: Mapping[str, str]
) -> list[str]:
    """Return the reasons why a second run may differ, as sentences."""
    notes: list[str] = []
    redacted = [path for path in form["redacted"] if isinstance(path, str)]
    hidden = [path for path in redacted if path.startswith(("event", "context"))]
    if hidden:
        shown = ", ".join(hidden[:SHOWN_PATHS])
        more = len(hidden) - SHOWN_PATHS
        rest = f" and {more} more" if more > 0 else ""
        notes.append(f"Secrets were redacted in the recording: {shown}{rest}")
    if same_code(form["code"], function) is False:
        notes.append("The code has changed since the recording")
    recorded = form.get("variables")
    if isinstance(recorded, dict):
        changed = sorted(
            name
            for name, value in recorded.items()
            if f"variables.{name}" not in redacted and variables.get(name) != value
        )
        if changed:
            names = ", ".join(changed[:SHOWN_PATHS])
            notes.append(f"Variables differ from the recorded ones: {names}")
    return notes


def rerun(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    output: BinaryIO | None = None,
) -> Rerun:
    """Invoke and record, from a program without an event loop; see ``invoke.run``.

    Raises:
        KeyboardInterrupt: SIGINT was received.
        asyncio.CancelledError: SIGTERM or SIGHUP was received.
    """
    tee = Tee(log)
    begun_epoch_s = time.time()
    result = run(options, environ=environ, log=tee, output=output)
    return Rerun(record_of(options, result, environ, begun_epoch_s, tee.text), result)


def record_of(
    options: InvokeOptions,
    result: InvokeResult,
    environ: Mapping[str, str],
    begun_epoch_s: float,
    log: str,
) -> dict[str, Any]:
    """Return the recording of a local invocation.

    Args:
        options: How it was run.
        result: The result as its caller got it.
        environ: The caller's environment.
        begun_epoch_s: When it began; Unix time.
        log: Its log.
    """
    again = options.again
    body = result.payload if result.is_ok or not result.is_streamed else result.error
    everything = {**environ, **options.variables}
    return capture(
        function=options.function,
        arn=result.arn,
        request_id=result.request_id,
        received_epoch_s=begun_epoch_s,
        event=options.event,
        timeout_s=options.timeout_s,
        memory_mb=options.memory_mb,
        variables={
            name: value
            for name, value in options.variables.items()
            if name not in SETTINGS
        },
        environ=environ,
        context={
            "traceId": result.trace_id,
            "clientContext": options.client_context,
            "cognitoIdentity": None if again is None else again.cognito_identity,
            "tenantId": options.tenant_id,
        },
        result=Result(
            status=status_of(result.error),
            payload=body,
            sent_bytes=len(body or b""),
            content_type=result.content_type,
            is_streamed=result.is_streamed,
            http=None if result.http is None else result.http.fields,
        ),
        process={"start": everything["LAMBDA_DENO_START"]}
        if everything.get("LAMBDA_DENO_START") in ("exec", "fork")
        else {},
        log=log,
    )
