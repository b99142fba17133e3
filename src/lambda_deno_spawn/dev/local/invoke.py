"""One invocation on this machine, by the runtime that Lambda would start.

Knows how long init and an invocation may take, what ends one, what a REPORT line says,
and what a caller sees of a streamed response. Refuses to know the command line (its
options arrive checked) and how the runtime works: that is a process of its own, against
the emulator. Specification: AWS Lambda Developer Guide, "Understanding the Lambda
execution environment lifecycle"; API Gateway Developer Guide, "Set up a Lambda proxy
integration with payload response streaming in API Gateway".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import select
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from lambda_deno_spawn.dev.local.runtime import (
    STOP_GRACE_S,
    LocalRuntime,
    LogPipe,
    ProcessTree,
    bootstrap_command,
    lambda_environ,
    region,
    run_until_signalled,
    started,
)
from lambda_deno_spawn.dev.project.function import InvokeOptions, function_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.dev.local.emulator import Emulator
    from lambda_deno_spawn.dev.local.environment import (
        EmulatedInvocation,
        EmulatedOutcome,
    )

HTTP_CONTENT_TYPE = "application/vnd.awslambda.http-integration-response"
PRELUDE_END = b"\0" * 8
PRELUDE_LIMIT_BYTES = 16 * 1024  # API Gateway looks no further for its end


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
class HttpPrelude:
    """What a streamed response says of itself to HTTP before its body.

    Attributes:
        fields: ``statusCode``, ``headers``, ``cookies``, and whatever else was sent.
    """

    fields: dict[str, Any]

    @classmethod
    def from_bytes(cls, text: bytes) -> HttpPrelude | None:
        """Parse what stands before the eight zeros; None if it is no prelude."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        return cls({"statusCode": 200, "headers": {}, "cookies": [], **fields})

    def line(self) -> str:
        """Write status, headers and cookies in one line, as HTTP names them."""
        headers: list[tuple[object, object]] = []
        for member in ("headers", "multiValueHeaders"):
            if isinstance(values := self.fields.get(member), dict):
                headers += values.items()
        if isinstance(cookies := self.fields["cookies"], list):
            headers.append(("set-cookie", cookies))
        parts = [f"HTTP {self.fields['statusCode']}"]
        for name, value in headers:
            values = value if isinstance(value, list) else [value]
            parts += [f"{name}: {each}" for each in values]
        return " ".join("; ".join(parts).split())


def split_prelude(
    payload: bytes | bytearray, content_type: str
) -> tuple[HttpPrelude | None, bytes] | None:
    """Split what came of a streamed response into HTTP prelude and body.

    Returns:
        None while the prelude is incomplete; no prelude if there cannot be one.
    """
    if not _is_http(content_type):
        return None, bytes(payload)
    head, end, body = bytes(payload).partition(PRELUDE_END)
    if end and len(head) <= PRELUDE_LIMIT_BYTES:
        prelude = HttpPrelude.from_bytes(head)
        return (None, bytes(payload)) if prelude is None else (prelude, body)
    if len(payload) >= PRELUDE_LIMIT_BYTES + len(PRELUDE_END):
        return None, bytes(payload)
    return None


def _is_http(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == HTTP_CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """What the caller got.

    Attributes:
        is_ok: False for an init error, a function error, an exit or a timeout before
            the response.
        payload: Bytes of the response, or the JSON error body. Of a streamed response
            what came, without the HTTP prelude.
        content_type: As the runtime sent it.
        is_streamed: The response was streamed, be it to its end or not.
        http: The HTTP prelude of a streamed response.
        error: The JSON error body, if it is not ok: of a streamed response it comes
            after the payload, else it is the payload.
    """

    request_id: str
    is_ok: bool
    payload: bytes
    content_type: str
    report: Report
    is_streamed: bool = False
    http: HttpPrelude | None = None
    error: bytes | None = None


class StreamView:
    """Shows a streamed response to whoever waits for it, as it comes.

    The body goes to a file, flushed piece by piece; the HTTP prelude is a line of the
    log. A reader who is slow makes the handler wait, and nothing else.

    Attributes:
        error: Why the file takes no more; None while it does.

    Args:
        file: Where the body goes; it has a descriptor. None: nothing is shown.
        say: Writes a line of the log.
        on_error: Called when ``error`` is set.
    """

    def __init__(
        self,
        file: BinaryIO | None,
        say: Callable[[str], None],
        on_error: Callable[[], None],
    ) -> None:
        self.error: OSError | None = None
        self._file = file
        self._say = say
        self._on_error = on_error
        self._head: bytearray | None = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._poll = select.poll()
        if file is not None:
            self._poll.register(file, select.POLLOUT)

    async def take(self, invocation: EmulatedInvocation, chunk: bytes) -> None:
        """Show the next piece; return when the reader has room for more."""
        if self._head is None:
            await self._write(chunk)
            return
        self._head += chunk
        parts = split_prelude(self._head, invocation.content_type)
        if parts is None:
            return
        self._head = None
        prelude, body = parts
        if _is_http(invocation.content_type):
            self._say_prelude(prelude)
        await self._write(body)

    async def finish(self) -> None:
        """Show what was held back for a prelude that never came."""
        if self._head:
            head, self._head = bytes(self._head), None
            self._say_prelude(None)
            await self._write(head)

    def close(self) -> None:
        """Show nothing any more, whoever waits."""
        self._file = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _say_prelude(self, prelude: HttpPrelude | None) -> None:
        if self._file is None:
            return
        if prelude is not None:
            self._say(prelude.line())
            return
        self._say(
            f"Note: the content type is {HTTP_CONTENT_TYPE!r}, but the response does "
            "not begin with a JSON object and 8 zeros; it is shown as it is"
        )

    async def _write(self, data: bytes) -> None:
        # A pipe that has room takes PIPE_BUF bytes without blocking (pipe(7)). Files
        # always have room, and could not be waited for.
        try:
            for start in range(0, len(data), select.PIPE_BUF):
                if self._file is not None and not self._poll.poll(0):
                    await self._room(self._file.fileno())
                if self._file is not None:
                    self._file.write(data[start : start + select.PIPE_BUF])
                    self._file.flush()
        except OSError as error:
            self.error = error
            self.close()
            self._on_error()

    async def _room(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()

        def wake() -> None:
            loop.remove_writer(descriptor)
            if not waiter.done():
                waiter.set_result(None)

        loop.add_writer(descriptor, wake)
        try:
            await waiter  # no limit: `close` ends it
        finally:
            loop.remove_writer(descriptor)


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
        KeyboardInterrupt: SIGINT came.
        asyncio.CancelledError: SIGTERM or SIGHUP came.
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
        options: What to invoke.
        environ: The caller's environment.
        log: Where the runtime's output and the START, END and REPORT lines go, as they
            come.
        output: Where the body of a streamed response goes as it comes, and its HTTP
            prelude to the log; None: they are in the result only.
        command: How to start the runtime; None: the real one.

    Raises:
        OSError: The output takes no more; a BrokenPipeError if its reader left.
    """
    # Slow to import, and not needed for a usage error.
    from lambda_deno_spawn.dev.local.emulator import Emulator

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
            on_chunk=lambda invocation, chunk: view.take(invocation, chunk),
            on_answer=tree.sample_while_held,
        )
        view = StreamView(output, pipe.say, emulator.wake)
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
                # Closed before the others: what waits for a reader would hold them up.
                with contextlib.closing(view):
                    report = await _follow(emulator, invocation, runtime, options, view)
                pipe.say(f"END RequestId: {invocation.request_id}")
                pipe.say(report.line(invocation.request_id))
    return _result(invocation, report)


async def _follow(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    runtime: LocalRuntime,
    options: InvokeOptions,
    view: StreamView,
) -> Report:
    """See an invocation through to its end, whatever that is."""
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
        runtime.pipe.say(_start_line(invocation))
    if end is End.TIMEOUT:
        runtime.pipe.say(_timeout_line(invocation))
    elif end is End.EXIT:
        runtime.pipe.say(_exit_lines(invocation, runtime.process.returncode or 0))
    return _report(invocation, runtime, options.memory_mb)


async def _record_exit(
    emulator: Emulator, invocation: EmulatedInvocation, runtime: LocalRuntime
) -> None:
    from lambda_deno_spawn.dev.local.environment import Phase

    # No limits: whoever waits for the invocation's end has one.
    returncode = await runtime.process.wait()
    # What the runtime had sent comes first, and the end of its connection.
    await emulator.catch_up()
    await emulator.wait_until(lambda: invocation.phase is not Phase.RESPONDING)
    emulator.state.record_exit(returncode)


async def _wait_for_end(
    emulator: Emulator,
    invocation: EmulatedInvocation,
    options: InvokeOptions,
    view: StreamView,
) -> None:
    """Wait until the invocation is over, at the latest until its deadline.

    Or until nobody looks at its response any more.

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


def _report(
    invocation: EmulatedInvocation, runtime: LocalRuntime, memory_size_mb: int
) -> Report:
    from lambda_deno_spawn.dev.local.environment import End

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


def _start_line(invocation: EmulatedInvocation) -> str:
    return f"START RequestId: {invocation.request_id} Version: $LATEST"


def _timeout_line(invocation: EmulatedInvocation) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = f"Task timed out after {invocation.timeout_s:.2f} seconds"
    return f"{now} {invocation.request_id} {text}"


def _exit_lines(invocation: EmulatedInvocation, returncode: int) -> str:
    from lambda_deno_spawn.dev.local.environment import exit_text

    text = exit_text(returncode)
    return f"RequestId: {invocation.request_id} Error: {text}\nRuntime.ExitError"


def _trace_id() -> str:
    """Return an X-Ray header as Lambda makes it for a caller without one."""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    lineage = f"1:{secrets.token_hex(4)}:0"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=0;Lineage={lineage}"
