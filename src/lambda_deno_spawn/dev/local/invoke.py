"""One invocation on this machine, by the runtime that Lambda would start.

Knows how long init and an invocation may take, how one ends, and the content of a
REPORT line. Does not know the command line (its options arrive checked) or how the
runtime works: that is a process of its own, against the emulator. Specification: AWS
Lambda Developer Guide, "Understanding the Lambda execution environment lifecycle".
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from lambda_deno_spawn.dev.local.inspector import inspected
from lambda_deno_spawn.dev.local.log_pipe import LogPipe
from lambda_deno_spawn.dev.local.process_tree import ProcessTree
from lambda_deno_spawn.dev.local.response_stream import (
    HttpPrelude,
    StreamView,
    split_prelude,
)
from lambda_deno_spawn.dev.local.runtime import (
    STOP_GRACE_S,
    LocalRuntime,
    bootstrap_command,
    inspected_command,
    lambda_environ,
    region,
    run_until_signalled,
    started,
    temp_folder,
)
from lambda_deno_spawn.dev.project.function import InvokeOptions, function_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_deno_spawn.dev.local.emulator import Emulator
    from lambda_deno_spawn.dev.local.environment import (
        EmulatedInvocation,
        EmulatedOutcome,
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a REPORT line.

    Attributes:
        duration_ms: From delivery until the runtime asked for the next event; from the
            start of the runtime, if init failed.
        billed_duration_ms: Init and duration, rounded up.
        init_duration_ms: From the start of the runtime to its first ``next``; None if
            it never asked.
        max_memory_used_mb: Peak of the runtime and all its processes.
        response_latency_ms: From delivery until the runtime had sent the response; None
            if it sent none.
        status: ``timeout`` or ``error`` if the platform had to end the invocation;
            None after a response or a function error.
    """

    duration_ms: float
    billed_duration_ms: int
    init_duration_ms: float | None
    memory_size_mb: int
    max_memory_used_mb: int
    response_latency_ms: float | None
    status: str | None

    def line(self, request_id: str) -> str:
        """Return the report in Lambda's form."""
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_duration_ms} ms",
            f"Memory Size: {self.memory_size_mb} MB",
            f"Max Memory Used: {self.max_memory_used_mb} MB",
        ]
        if self.init_duration_ms is not None:
            parts.append(f"Init Duration: {self.init_duration_ms:.2f} ms")
        if self.response_latency_ms is not None:
            parts.append(f"Response Latency: {self.response_latency_ms:.2f} ms")
        if self.status is not None:
            parts.append(f"Status: {self.status}")
        return "\t".join(parts)


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """The result of an invocation, as its caller receives it.

    Attributes:
        is_ok: False for an init error, a function error, an exit or a timeout before
            the response.
        payload: Bytes of the response, or the JSON error body. If the response was
            streamed: the bytes that were sent, without the HTTP prelude.
        content_type: As the runtime sent it.
        is_streamed: The response was streamed, whether to its end or not.
        http: The HTTP prelude of a streamed response.
        error: The JSON error body, if it is not ok: after a streamed response it
            follows the payload, else it is the payload.
        trace_id: X-Ray's header, as the runtime was told.
        arn: Invoked function's ARN, as the runtime was told.
    """

    request_id: str
    is_ok: bool
    payload: bytes
    content_type: str
    report: Report
    is_streamed: bool = False
    http: HttpPrelude | None = None
    error: bytes | None = None
    trace_id: str | None = None
    arn: str = ""


def run(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    output: BinaryIO | None = None,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Invoke once, from a program without an event loop.

    SIGINT and SIGTERM end everything that was started before they take effect.

    Raises:
        KeyboardInterrupt: SIGINT was received.
        asyncio.CancelledError: SIGTERM or SIGHUP was received.
        OSError: As for ``invoke``.
    """
    return run_until_signalled(
        invoke(options, environ=environ, log=log, output=output, command=command)
    )


async def invoke(
    options: InvokeOptions,
    *,
    environ: Mapping[str, str],
    log: BinaryIO,
    output: BinaryIO | None = None,
    command: Sequence[str] | None = None,
) -> InvokeResult:
    """Start a runtime, invoke the function once, and end the runtime again.

    Nothing that was started is left when this returns, raises or is cancelled.

    Args:
        options: The function, its event and its settings.
        environ: The caller's environment.
        log: Receives the runtime's output and the START, END and REPORT lines at once.
        output: Receives the body of a streamed response piece by piece, while its HTTP
            prelude goes to the log; None: they are in the result only. With it, the
            log says nothing about the process for the next event, except problems,
            unless it is to be verbose.
        command: Command that starts the runtime; None: the real one.

    Raises:
        OSError: The output cannot be written to; BrokenPipeError: its reader left.
    """
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.local.emulator import Emulator

    # Read by a person who wants the result of one event.
    is_brief = output is not None and not options.is_verbose
    start = bootstrap_command
    if options.inspect is not None:
        start = partial(inspected_command, options.inspect)
        options = inspected(options)
    function = options.function
    again = options.again
    arn = (again and again.function_arn) or (
        f"arn:aws:lambda:{region(environ)}:000000000000:"
        f"function:{function_name(function)}"
    )
    with (
        LogPipe(log, is_brief=is_brief) as pipe,
        temp_folder() as temp_dir,
    ):
        tree = ProcessTree(mark=temp_dir)

        def answered() -> None:
            pipe.expect_next(invocation.request_id)
            tree.sample_while_held()

        emulator = Emulator(
            arn,
            on_delivery=lambda invocation: pipe.say(start_line(invocation)),
            on_chunk=lambda invocation, chunk: view.show(invocation, chunk),
            on_answer=answered,
        )
        view = StreamView(output, pipe.say, emulator.wake)
        async with emulator:
            invocation = emulator.state.queue(
                options.event,
                timeout_s=options.timeout_s,
                trace_id=(again and again.trace_id) or trace_id(),
                client_context=options.client_context,
                cognito_identity=None if again is None else again.cognito_identity,
                tenant_id=options.tenant_id,
                invocation_id=secrets.token_hex(8),
                request_id=None if again is None else again.request_id,
            )
            variables = lambda_environ(options, emulator.address, temp_dir, environ)
            async with started(
                command or start(), variables, function, pipe, tree
            ) as runtime:
                # Closed first: a wait for the output's reader would hold up the rest.
                with contextlib.closing(view):
                    report = await _follow(emulator, invocation, runtime, options, view)
                pipe.say(f"END RequestId: {invocation.request_id}")
                pipe.say(report.line(invocation.request_id))
    return replace(_result(invocation, report), trace_id=invocation.trace_id, arn=arn)


async def _follow(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    runtime: LocalRuntime,
    options: InvokeOptions,
    view: StreamView,
) -> Report:
    """Follow an invocation to its end, whichever that is."""
    from lambda_deno_spawn.dev.local.environment import End

    exit_watch = asyncio.create_task(_record_exit(emulator, invocation, runtime))
    try:
        await _wait_for_end(emulator, invocation, options, view)
        await view.finish()
    finally:
        exit_watch.cancel()
    if view.error is not None:
        raise view.error
    end = invocation.end
    if end is End.TIMEOUT:
        runtime.tree.sample()
        runtime.tree.kill()
    elif end is End.INIT_ERROR:
        await runtime.has_exited(STOP_GRACE_S)
    if invocation.delivered_s is None:
        runtime.pipe.say(start_line(invocation))
    if end is End.TIMEOUT:
        runtime.pipe.say(timeout_line(invocation))
    elif end is End.EXIT:
        runtime.pipe.say(exit_lines(invocation, runtime.process.returncode or 0))
    delivered_s = invocation.delivered_s
    init_s = None if delivered_s is None else delivered_s - runtime.started_s
    return report_for(invocation, runtime, options.memory_mb, init_s)


async def _record_exit(
    emulator: Emulator, invocation: EmulatedInvocation, runtime: LocalRuntime
) -> None:
    from lambda_deno_spawn.dev.local.environment import Phase

    # No limits: `_wait_for_end` has one.
    returncode = await runtime.process.wait()
    # First whatever the runtime had sent, and the end of its connection.
    await emulator.catch_up()
    await emulator.wait_until(lambda: invocation.phase is not Phase.RESPONDING)
    emulator.state.record_exit(returncode)


async def _wait_for_end(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    options: InvokeOptions,
    view: StreamView,
) -> None:
    """Wait until the invocation is over, its deadline is reached or ``view`` fails.

    Lambda gives init its own limit, and on failure repeats it under the function's
    timeout; here it is not repeated, but may take as long as both together.
    """
    is_begun = await emulator.wait_until(
        lambda: invocation.delivered_s is not None or invocation.end is not None,
        options.init_limit_s + options.timeout_s,
    )
    if is_begun and invocation.delivered_s is not None:
        await emulator.wait_until(
            lambda: invocation.end is not None or view.error is not None,
            invocation.delivered_s + options.timeout_s - time.monotonic(),
        )
    if view.error is None:
        emulator.state.time_out(invocation)  # no effect on one that has ended


def report_for(
    invocation: EmulatedInvocation,
    runtime: LocalRuntime,
    memory_size_mb: int,
    init_s: float | None,
) -> Report:
    """Return the figures of an invocation that has ended.

    Args:
        invocation: The invocation.
        runtime: The runtime that served it.
        memory_size_mb: The function's memory size.
        init_s: How long init took, if the invocation was the first one.
    """
    from lambda_deno_spawn.dev.local.environment import End

    delivered_s = invocation.delivered_s
    begun_s = runtime.started_s if delivered_s is None else delivered_s
    ended_s = begun_s if invocation.ended_s is None else invocation.ended_s
    duration_s = max(0.0, ended_s - begun_s - runtime.tree.held_s)
    if delivered_s is not None and invocation.end is End.TIMEOUT:
        duration_s = min(duration_s, invocation.timeout_s)
    is_response = invocation.end is End.NEXT and invocation.answered_s is not None
    latency_s = (invocation.answered_s or begun_s) - begun_s - runtime.tree.held_s
    statuses = {None: None, End.NEXT: None, End.TIMEOUT: "timeout"}
    return Report(
        duration_ms=duration_s * 1000,
        billed_duration_ms=math.ceil((duration_s + (init_s or 0.0)) * 1000),
        init_duration_ms=None if init_s is None else init_s * 1000,
        memory_size_mb=memory_size_mb,
        max_memory_used_mb=math.ceil(runtime.tree.peak_bytes / 2**20),
        response_latency_ms=max(0.0, latency_s) * 1000 if is_response else None,
        status=statuses.get(invocation.end, "error"),
    )


def _result(invocation: EmulatedInvocation, report: Report) -> InvokeResult:
    from lambda_deno_spawn.dev.local.environment import OutcomeKind

    outcome = invocation.outcome
    if outcome is None:  # an invocation that ended has one
        raise RuntimeError(f"Cannot find the outcome of {invocation.request_id}")
    is_ok = outcome.kind is OutcomeKind.RESPONSE
    prelude, payload = _caller_sees(outcome)
    return InvokeResult(
        request_id=invocation.request_id,
        is_ok=is_ok,
        payload=payload,
        content_type=outcome.content_type,
        report=report,
        is_streamed=outcome.is_streamed,
        http=prelude,
        error=None if is_ok else outcome.body,
    )


def _caller_sees(outcome: EmulatedOutcome) -> tuple[HttpPrelude | None, bytes]:
    from lambda_deno_spawn.dev.local.environment import OutcomeKind

    if not outcome.is_streamed:
        return None, outcome.body
    is_ok = outcome.kind is OutcomeKind.RESPONSE
    payload = outcome.body if is_ok else outcome.partial
    return split_prelude(payload, outcome.content_type) or (None, payload)


def start_line(invocation: EmulatedInvocation) -> str:
    """Return the platform's line before the log of an invocation."""
    return f"START RequestId: {invocation.request_id} Version: $LATEST"


def timeout_line(invocation: EmulatedInvocation) -> str:
    """Return the platform's line about a timeout."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = f"Task timed out after {invocation.timeout_s:.2f} seconds"
    return f"{now} {invocation.request_id} {text}"


def exit_lines(invocation: EmulatedInvocation, returncode: int) -> str:
    """Return the platform's lines about a runtime that exited."""
    from lambda_deno_spawn.dev.local.environment import exit_text

    text = exit_text(returncode)
    return f"RequestId: {invocation.request_id} Error: {text}\nRuntime.ExitError"


def trace_id() -> str:
    """Return an X-Ray header such as Lambda makes for a caller without one."""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    lineage = f"1:{secrets.token_hex(4)}:0"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=0;Lineage={lineage}"
