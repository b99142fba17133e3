"""An execution environment on this machine: one runtime, and the events it is given.

Knows how an environment starts, serves one event after another (several at once as a
Managed Instance), keeps timeout and memory size, freezes, and ends. Does not know which
request it gets: its owner asks ``is_ready`` and calls ``take``. Each runs the real
bootstrap against an emulator of its own. Specification: AWS Lambda Developer Guide,
"Understanding the Lambda execution environment lifecycle".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lambda_deno_spawn.dev.devserver.memory_group import MemoryGroup
from lambda_deno_spawn.dev.local.emulator import Emulator
from lambda_deno_spawn.dev.local.environment import (
    EmulatedInvocation,
    EmulatedOutcome,
    End,
    OutcomeKind,
    Phase,
    exit_text,
)
from lambda_deno_spawn.dev.local.invoke import (
    exit_lines,
    report_for,
    start_line,
    timeout_line,
)
from lambda_deno_spawn.dev.local.log_pipe import LogPipe
from lambda_deno_spawn.dev.local.process_tree import ProcessTree, memory_bytes
from lambda_deno_spawn.dev.local.runtime import (
    LocalRuntime,
    bootstrap_command,
    inspected_command,
    lambda_environ,
    started,
    temp_folder,
)
from lambda_deno_spawn.dev.project.function import INIT_LIMIT_S, InvokeOptions
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from lambda_deno_spawn.dev.devserver.functions import ServedFunction
    from lambda_deno_spawn.dev.devserver.job import Job
    from lambda_deno_spawn.dev.devserver.journal import Journal

REPORT_TYPE = '"type":"lambda-deno-spawn.report"'  # docs/metrics.md
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z\t([^\t]*)\t")
# Jobs that were served before: lines of their log may still come.
REMEMBERED_JOBS = 64
KNOWN_LINES = 1000
CUT_LIMIT_S = 1.0  # for the end of a response to arrive after that of its runtime
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """The facts that an environment needs about its surroundings.

    Attributes:
        arn: ARN of the function.
        environ: The developer's environment, and what is added to it.
        on_change: Called when the environment may take a job, or has ended one.
        on_failure: Called when it cannot be started; it has a ``failure``.
        say: Told lines of its log that belong to no request.
        give_back: Told of a job that was not delivered before the environment ended.
    """

    arn: str
    environ: Mapping[str, str]
    journal: Journal
    on_change: Callable[[], None]
    on_failure: Callable[[Environment], None]
    say: Callable[[str], None]
    give_back: Callable[[Job], None]


class Environment:
    """One execution environment, alive while ``run`` runs.

    Attributes:
        number: Counts the environments of the function from 1.
        code: The version of the function's code that it runs.
        tenant_id: The only tenant that it serves; None: it has served none.
        has_served: It was given an event.
        used_s: When it was given one last, or was made; monotonic clock.
        failure: Why it could not be started; None while it can.
    """

    def __init__(
        self, function: ServedFunction, number: int, code: int, place: Place
    ) -> None:
        """Start nothing yet."""
        self.number = number
        self.code = code
        self.tenant_id: str | None = None
        self.has_served = False
        self.used_s = time.monotonic()
        self.failure: EmulatedOutcome | None = None
        self._function = function
        self._place = place
        self._capacity = function.overrides.concurrency or 1
        self._is_managed = function.overrides.concurrency is not None
        self._jobs: dict[str, Job] = {}
        self._invocations: dict[str, EmulatedInvocation] = {}
        self._remembered: deque[Job] = deque(maxlen=REMEMBERED_JOBS)
        self._serving: set[asyncio.Task[None]] = set()
        self._is_ready = False
        self._is_retiring = False
        self._is_dead = False
        self._is_being_ended = False
        self._is_frozen = False
        self._over = asyncio.Event()
        self._group: MemoryGroup | None = None
        self._init_s: float | None = None
        self._ready_s = 0.0
        self._known_lines: set[str] = set()
        self._shows_measures = "LAMBDA_DENO_METRICS" in function.variables
        self._emulator: Emulator | None = None
        self._runtime: LocalRuntime | None = None

    @property
    def is_starting(self) -> bool:
        """It will take jobs, but cannot yet."""
        return not (self._is_ready or self._is_retiring)

    @property
    def is_ready(self) -> bool:
        """It can take a job now."""
        is_open = self._is_ready and not (self._is_retiring or self._is_dead)
        return is_open and len(self._jobs) < self._capacity

    @property
    def is_idle(self) -> bool:
        """It is ready, and has no job."""
        return self.is_ready and not self._jobs

    @property
    def is_finishing(self) -> bool:
        """It will be ready soon: a job has its answer, and is not over."""
        is_open = self._is_ready and not (self._is_retiring or self._is_dead)
        answered = [job for job in self._jobs.values() if job.outcome is not None]
        return is_open and bool(answered) and not self.is_ready

    def retire(self) -> None:
        """Take no more jobs, and end after those it has."""
        self._is_retiring = True
        self._wake()

    def take(self, job: Job) -> None:
        """Serve a job; only while it is ready."""
        job.takes += 1
        self.has_served = True
        self.used_s = time.monotonic()
        self._jobs[job.record.id] = job
        self._remembered.append(job)
        self.tenant_id = job.record.facts.tenant_id
        self._place.journal.assign(job.record, job.now_ms(), self.number, self.code)
        task = asyncio.create_task(self._serve(job))
        self._serving.add(task)

        def served(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:  # a fault in dev must not keep a caller waiting
                text = f"{type(error).__name__}: {error}"
                job.answer(platform(OutcomeKind.EXIT, "Runtime.Unknown", text))
                job.end(None, "")
                self._jobs.pop(job.record.id, None)
                self.retire()

        task.add_done_callback(served)

    async def run(self) -> None:
        """Be an environment until it is retired or breaks; leave nothing behind."""
        try:
            await self._run()
        finally:
            self._is_dead = True
            for task in self._serving:
                task.cancel()
            for job in list(self._jobs.values()):
                self._jobs.pop(job.record.id)
                self._place.give_back(job)

    async def _run(self) -> None:
        function = self._function
        if function.problem is not None:
            raise UsageError(function.problem)
        sink = cast("BinaryIO", _Lines(self._read_line))
        with (
            LogPipe(sink, expects_next=False) as pipe,
            temp_folder() as temp_dir,
            contextlib.ExitStack() as stack,
        ):
            tree = ProcessTree(temp_dir, self._keep_memory)
            inspect = function.overrides.inspect
            command = (
                bootstrap_command() if inspect is None else inspected_command(inspect)
            )
            group = self._group = MemoryGroup.create(function.memory_mb * MIB)
            if group is not None:
                command = group.command(command)
                stack.callback(group.remove)
            emulator = self._emulator = Emulator(
                self._place.arn,
                on_delivery=lambda _: None,
                on_chunk=self._put,
                is_managed_instance=self._is_managed,
            )
            async with emulator:
                variables = self._variables(emulator.address, temp_dir)
                async with started(
                    command,
                    variables,
                    function.project.function,
                    pipe,
                    tree,
                ) as runtime:
                    self._runtime = runtime
                    exit_watch = asyncio.create_task(self._watch_exit(runtime))
                    try:
                        await self._live(emulator, runtime)
                    finally:
                        exit_watch.cancel()
                        runtime.pipe.catch_up()
                        self._is_being_ended = True
                        self._thaw()
                        self._is_dead = True

    def _variables(self, address: str, temp_dir: str) -> dict[str, str]:
        function = self._function
        options = InvokeOptions(
            function=function.project.function,
            timeout_s=function.timeout_s,
            memory_mb=function.memory_mb,
            warm=function.overrides.warm,
            variables=function.variables,
            is_verbose=function.overrides.is_verbose,
        )
        variables = lambda_environ(options, address, temp_dir, self._place.environ)
        variables["AWS_LAMBDA_FUNCTION_NAME"] = function.name
        variables["AWS_LAMBDA_LOG_GROUP_NAME"] = f"/aws/lambda/{function.name}"
        variables.setdefault("LAMBDA_DENO_METRICS", "json")
        if self._is_managed:
            variables["AWS_LAMBDA_MAX_CONCURRENCY"] = str(self._capacity)
            variables["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
        return variables

    async def _live(self, emulator: Emulator, runtime: LocalRuntime) -> None:
        """Get ready, and wait for the end."""
        limit_s = INIT_LIMIT_S + self._function.timeout_s
        state = emulator.state
        is_over = await emulator.wait_until(
            lambda: (
                state.init_finished_s is not None
                or state.init_error is not None
                or self._is_dead
                or self._is_retiring
            ),
            limit_s,
        )
        if self._is_retiring and not self._jobs:
            return
        if state.init_finished_s is None:
            self.failure = state.init_error or self.failure
            if not is_over:
                text = f"Init timed out after {limit_s:.2f} seconds"
                self.failure = platform(OutcomeKind.TIMEOUT, "Sandbox.Timedout", text)
            runtime.pipe.catch_up()
            self._is_retiring = True
            self._place.on_failure(self)
            return
        self._ready_s = state.init_finished_s
        self._init_s = self._ready_s - runtime.started_s
        self._is_ready = True
        self._rest(runtime)
        self._place.on_change()
        # No limit: an environment lives until it is retired or breaks.
        await self._over.wait()

    async def _watch_exit(self, runtime: LocalRuntime) -> None:
        emulator = self._emulator
        assert emulator is not None
        returncode = await runtime.process.wait()
        # First whatever the runtime had sent, and the end of its connections.
        await emulator.catch_up()
        await emulator.wait_until(lambda: not self._is_responding(), CUT_LIMIT_S)
        jobs = list(self._jobs)
        state = emulator.state
        if not self._is_ready and state.init_error is None:
            text = exit_text(returncode)
            self.failure = platform(OutcomeKind.EXIT, "Runtime.ExitError", text)
        state.record_exit(returncode)
        if not jobs and self._is_ready and not self._is_retiring:
            self._place.say(f"Between two events: {exit_text(returncode)}")
        self._is_dead = True
        self._wake()

    def _is_responding(self) -> bool:
        values = self._invocations.values()
        return any(invocation.phase is Phase.RESPONDING for invocation in values)

    # One job.

    async def _serve(self, job: Job) -> None:
        emulator, runtime = self._emulator, self._runtime
        assert emulator is not None
        assert runtime is not None
        facts = job.record.facts
        self._thaw()
        runtime.tree.work()
        invocation = self._invocations[facts.request_id] = emulator.state.queue(
            facts.event,
            timeout_s=facts.timeout_s,
            trace_id=facts.trace_id,
            client_context=facts.client_context,
            cognito_identity=facts.cognito_identity,
            tenant_id=facts.tenant_id,
            invocation_id=secrets.token_hex(8),
            request_id=facts.request_id,
            function_arn=facts.arn,
        )
        await emulator.wait_until(
            lambda: invocation.delivered_s is not None or self._is_dead,
            facts.timeout_s,
        )
        if invocation.delivered_s is None and self._is_dead:
            return  # `run` gives it back
        init_s = self._init_s if job.received_s < self._ready_s else None
        self._init_s = None
        init_ms = None if init_s is None else init_s * 1000
        self._place.journal.deliver(job.record, job.now_ms(), init_ms)
        self._say(job, start_line(invocation))
        await self._follow(job, invocation)
        if invocation.outcome is None:
            return  # dev ends; `run` gives it back
        self._finish(job, invocation, runtime, init_s)

    async def _follow(self, job: Job, invocation: EmulatedInvocation) -> None:
        """Wait for the outcome, and for the end, each until the deadline."""
        emulator = self._emulator
        assert emulator is not None
        begun_s = invocation.delivered_s or time.monotonic()
        deadline_s = begun_s + invocation.timeout_s

        def left_s() -> float:
            return max(0.0, deadline_s - time.monotonic())

        await emulator.wait_until(
            lambda: invocation.outcome is not None or self._is_dead, left_s()
        )
        if invocation.outcome is not None:
            job.answer(invocation.outcome)
            self._place.on_change()
            await emulator.wait_until(
                lambda: invocation.end is not None or self._is_dead, left_s()
            )
        if invocation.end is None and not self._is_dead:
            emulator.state.time_out(invocation)
        if invocation.outcome is not None:
            job.answer(invocation.outcome)

    def _finish(
        self,
        job: Job,
        invocation: EmulatedInvocation,
        runtime: LocalRuntime,
        init_s: float | None,
    ) -> None:
        runtime.pipe.catch_up()
        if invocation.end is End.TIMEOUT:
            runtime.tree.sample()
            self._say(job, timeout_line(invocation))
            if not self._is_managed:
                self._is_dead = True  # the platform ends the environment
        elif invocation.end is End.EXIT:
            returncode = runtime.process.returncode or 0
            for line in exit_lines(invocation, returncode).splitlines():
                self._say(job, line)
        elif not runtime.tree.peak_bytes:
            runtime.tree.sample()
        report = report_for(invocation, runtime, self._function.memory_mb, init_s)
        line = report.line(invocation.request_id)
        self._say(job, f"END RequestId: {invocation.request_id}")
        self._say(job, line)
        self._jobs.pop(job.record.id, None)
        self._invocations.pop(job.record.id, None)
        job.end(report.max_memory_used_mb, line)
        if not self._jobs:
            self._rest(runtime)
        self._wake()
        self._place.on_change()

    def _rest(self, runtime: LocalRuntime) -> None:
        """Do no more than a frozen environment does, while there is no event."""
        runtime.tree.rest()
        if self._function.overrides.is_frozen and not self._is_dead:
            runtime.tree.suspend()
            self._is_frozen = True

    def _thaw(self) -> None:
        if self._is_frozen and self._runtime is not None:
            self._runtime.tree.resume()
            self._is_frozen = False

    async def _put(self, invocation: EmulatedInvocation, chunk: bytes) -> None:
        job = self._jobs.get(invocation.request_id)
        if job is not None:
            await job.put(chunk, invocation.content_type)

    def _keep_memory(self, used_bytes: int) -> None:
        """End the largest process, as the kernel does when an environment is full.

        Here the kernel does it only where there is a group.
        """
        is_within = used_bytes <= self._function.memory_mb * MIB
        if is_within or self._group is not None or self._runtime is None:
            return
        import psutil

        with contextlib.suppress(psutil.Error, ProcessLookupError):
            root = psutil.Process(self._runtime.process.pid)
            # The runtime has asked the kernel to be the last one.
            below = root.children(recursive=True)
            largest = max(below, key=memory_bytes, default=root)
            os.kill(largest.pid, signal.SIGKILL)

    # Its log.

    def _say(self, job: Job, text: str) -> None:
        self._place.journal.log(job.record, job.now_ms(), text)

    def _read_line(self, text: str) -> None:
        """Find the request that a line of the runtime's log belongs to."""
        fields = _parse(text) if text.startswith("{") else None
        match = TEXT_LINE.match(text)
        request_id = None
        if fields is not None:
            request_id = fields.get("requestId")
        elif match is not None:
            request_id = match[1]
        jobs = reversed(self._remembered)  # it is one of the last, most of the time
        job = next((job for job in jobs if job.record.id == request_id), None)
        if job is not None and fields is not None and REPORT_TYPE in text:
            measures = fields.get("record")
            if isinstance(measures, dict):
                self._place.journal.measure(job.record, measures)
            if not self._shows_measures:
                return
        if job is None and match is None and fields is None:
            # Not of our own making: what runs at the moment has printed it.
            job = next(iter(self._jobs.values()), None)
        if job is not None:
            self._say(job, text)
            return
        plain = TEXT_LINE.sub("", text)
        if plain in self._known_lines:
            return  # each process loads the module, and prints the same
        if len(self._known_lines) < KNOWN_LINES:
            self._known_lines.add(plain)
        if not self._is_being_ended:
            self._place.say(text)

    def _wake(self) -> None:
        if self._is_dead or (self._is_retiring and not self._jobs):
            self._over.set()
        if self._emulator is not None:
            self._emulator.wake()


class _Lines:
    """A file that calls a function with each line written to it."""

    def __init__(self, read_line: Callable[[str], None]) -> None:
        self._read_line = read_line

    def write(self, data: bytes) -> None:
        # A record is one line, whose line breaks are carriage returns.
        for line in data.rstrip(b"\n").split(b"\n"):
            text = line.decode(errors="replace")
            self._read_line(text.replace("\r", "\n"))

    def flush(self) -> None:
        pass


def _parse(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def platform(kind: OutcomeKind, error_type: str, text: str) -> EmulatedOutcome:
    """Return an outcome that no runtime has sent."""
    body = json.dumps({"errorType": error_type, "errorMessage": text}).encode()
    return EmulatedOutcome(kind, body, error_type=error_type)
