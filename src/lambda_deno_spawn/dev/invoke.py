"""One invocation on this machine, by the runtime that Lambda would start.

Knows how long init and an invocation may take, what ends one, and what a REPORT line
says. Refuses to know the command line (its options arrive checked) and how the runtime
works: that is a process of its own, against the emulator. Specification: AWS Lambda
Developer Guide, "Understanding the Lambda execution environment lifecycle".
"""

from __future__ import annotations

import asyncio
import math
import secrets
import signal
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from lambda_deno_spawn.dev.function import InvokeOptions, function_name
from lambda_deno_spawn.dev.local_runtime import (
    STOP_GRACE_S,
    LocalRuntime,
    LogPipe,
    ProcessTree,
    bootstrap_command,
    lambda_environ,
    region,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_deno_spawn.dev.emulator import EmulatedInvocation, Emulator


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a REPORT line.

    Attributes:
        duration_ms: From delivery until the runtime asked for the next event; from the
            start of the runtime, if init failed.
        billed_duration_ms: Init and duration, rounded up.
        init_duration_ms: From the start of the runtime to its first ``next``; None if
            it did not get there.
        max_memory_used_mb: Peak of the runtime and all its processes.
        status: ``timeout`` or ``error`` if the platform had to end the invocation; a
            function error is an ordinary end.
    """

    duration_ms: float
    billed_duration_ms: int
    init_duration_ms: float | None
    memory_size_mb: int
    max_memory_used_mb: int
    status: str | None

    def line(self, request_id: str) -> str:
        """Write the report as Lambda does."""
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_duration_ms} ms",
            f"Memory Size: {self.memory_size_mb} MB",
            f"Max Memory Used: {self.max_memory_used_mb} MB",
        ]
        if self.init_duration_ms is not None:
            parts.append(f"Init Duration: {self.init_duration_ms:.2f} ms")
        if self.status is not None:
            parts.append(f"Status: {self.status}")
        return "\t".join(parts)


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """What the caller got.

    Attributes:
        is_ok: False for an init error, a function error, an exit or a timeout before
            the response.
        payload: Bytes of the response, or the JSON error body.
        content_type: As the runtime sent it.
    """

    request_id: str
    is_ok: bool
    payload: bytes
    content_type: str
    report: Report


def run(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Invoke once, from a program without an event loop.

    SIGINT and SIGTERM end everything that was started before they take effect.

    Raises:
        KeyboardInterrupt: SIGINT came.
        asyncio.CancelledError: SIGTERM or SIGHUP came.
    """

    async def cancelled_by_signals() -> InvokeResult:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Cannot run outside a task")
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await invoke(options, environ=environ, log=log, command=command)

    return asyncio.run(cancelled_by_signals())


async def invoke(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Start a runtime, invoke the function once, and end the runtime again.

    Nothing that was started is left when this returns, raises or is cancelled.

    Args:
        options: What to invoke.
        environ: The caller's environment.
        log: Where the runtime's output and the START, END and REPORT lines go, as they
            come.
        command: How to start the runtime; None: the real one.
    """
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.emulator import Emulator

    function = options.function
    arn = (
        f"arn:aws:lambda:{region(environ)}:000000000000:"
        f"function:{function_name(function)}"
    )
    with (
        LogPipe(log) as pipe,
        # What a killed runtime leaves in its temporary folder goes with the folder.
        tempfile.TemporaryDirectory(
            prefix="lambda-deno-spawn-", ignore_cleanup_errors=True
        ) as temp_dir,
    ):
        tree = ProcessTree(mark=temp_dir)
        emulator = Emulator(
            arn,
            on_delivery=lambda invocation: pipe.say(_start_line(invocation)),
            on_answer=tree.sample_while_held,
        )
        async with emulator:
            invocation = emulator.state.queue(
                options.event,
                timeout_s=options.timeout_s,
                trace_id=_trace_id(),
                client_context=options.client_context,
                tenant_id=options.tenant_id,
                invocation_id=secrets.token_hex(8),
            )
            variables = lambda_environ(options, emulator.address, temp_dir, environ)
            async with started(
                command or bootstrap_command(), variables, function, pipe, tree
            ) as runtime:
                report = await _follow(emulator, invocation, runtime, options)
                pipe.say(f"END RequestId: {invocation.request_id}")
                pipe.say(report.line(invocation.request_id))
    return _result(invocation, report)


async def _follow(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    runtime: LocalRuntime,
    options: InvokeOptions,
) -> Report:
    """See an invocation through to its end, whatever that is."""
    from lambda_deno_spawn.dev.emulator import End

    exit_watch = asyncio.create_task(_record_exit(emulator, runtime))
    try:
        await _wait_for_end(emulator, invocation, options)
    finally:
        exit_watch.cancel()
    end = invocation.end
    if end is End.TIMEOUT:
        runtime.tree.sample()
        runtime.tree.kill()
    elif end is End.INIT_ERROR:
        await runtime.has_exited(STOP_GRACE_S)
    if invocation.delivered_s is None:
        runtime.pipe.say(_start_line(invocation))
    if end is End.TIMEOUT:
        runtime.pipe.say(_timeout_line(invocation))
    elif end is End.EXIT:
        runtime.pipe.say(_exit_lines(invocation, runtime.process.returncode or 0))
    return _report(invocation, runtime, options.memory_mb)


async def _record_exit(emulator: Emulator, runtime: LocalRuntime) -> None:
    # No limit: whoever waits for the invocation's end has one.
    emulator.state.record_exit(await runtime.process.wait())


async def _wait_for_end(
    emulator: Emulator, invocation: EmulatedInvocation, options: InvokeOptions
) -> None:
    """Wait until the invocation is over, at the latest until its deadline.

    Lambda gives init its own limit, and on failure repeats it under the function's
    timeout; here it is not repeated, but may take as long as both together.
    """
    is_begun = await emulator.wait_until(
        lambda: invocation.delivered_s is not None or invocation.end is not None,
        options.init_limit_s + options.timeout_s,
    )
    if is_begun and invocation.delivered_s is not None:
        await emulator.wait_until(
            lambda: invocation.end is not None,
            invocation.delivered_s + options.timeout_s - time.monotonic(),
        )
    emulator.state.time_out(invocation)  # no effect on one that has ended


def _report(
    invocation: EmulatedInvocation, runtime: LocalRuntime, memory_size_mb: int
) -> Report:
    from lambda_deno_spawn.dev.emulator import End

    delivered_s = invocation.delivered_s
    begun_s = runtime.started_s if delivered_s is None else delivered_s
    ended_s = begun_s if invocation.ended_s is None else invocation.ended_s
    duration_s = max(0.0, ended_s - begun_s - runtime.tree.held_s)
    if delivered_s is not None and invocation.end is End.TIMEOUT:
        duration_s = min(duration_s, invocation.timeout_s)
    init_s = None if delivered_s is None else delivered_s - runtime.started_s
    statuses = {None: None, End.NEXT: None, End.TIMEOUT: "timeout"}
    return Report(
        duration_ms=duration_s * 1000,
        billed_duration_ms=math.ceil((duration_s + (init_s or 0.0)) * 1000),
        init_duration_ms=None if init_s is None else init_s * 1000,
        memory_size_mb=memory_size_mb,
        max_memory_used_mb=math.ceil(runtime.tree.peak_bytes / 2**20),
        status=statuses.get(invocation.end, "error"),
    )


def _result(invocation: EmulatedInvocation, report: Report) -> InvokeResult:
    from lambda_deno_spawn.dev.emulator import OutcomeKind

    outcome = invocation.outcome
    if outcome is None:  # an invocation that ended has one
        raise RuntimeError(f"Cannot find the outcome of {invocation.request_id}")
    return InvokeResult(
        request_id=invocation.request_id,
        is_ok=outcome.kind is OutcomeKind.RESPONSE,
        payload=outcome.body,
        content_type=outcome.content_type,
        report=report,
    )


def _start_line(invocation: EmulatedInvocation) -> str:
    return f"START RequestId: {invocation.request_id} Version: $LATEST"


def _timeout_line(invocation: EmulatedInvocation) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = f"Task timed out after {invocation.timeout_s:.2f} seconds"
    return f"{now} {invocation.request_id} {text}"


def _exit_lines(invocation: EmulatedInvocation, returncode: int) -> str:
    from lambda_deno_spawn.dev.emulator import exit_text

    text = exit_text(returncode)
    return f"RequestId: {invocation.request_id} Error: {text}\nRuntime.ExitError"


def _trace_id() -> str:
    """Return an X-Ray header as Lambda makes it for a caller without one."""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    lineage = f"1:{secrets.token_hex(4)}:0"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=0;Lineage={lineage}"
