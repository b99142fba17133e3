"""The events in ``dev``: its requests, one record each, and notices.

Knows what is kept of a request, for how long, and how subscribers hear of changes. Does
not know HTTP, processes or clocks: its owner passes on what happens and when.
Everything is bounded: bytes of a result, lines of a log, records, and what a slow
subscriber has not read. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections import deque
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from lambda_deno_spawn.dev.local.environment import EmulatedOutcome

RECORDS_LIMIT = 1000
# Events and results of all records together; the oldest records are dropped first.
BYTES_LIMIT = 128 * 1024 * 1024
# An event is never longer than Lambda allows, so it is kept whole and can be replayed.
RESULT_LIMIT_BYTES = 6 * 1024 * 1024
LOG_LIMIT_LINES = 2000
LOG_LIMIT_BYTES = 1024 * 1024
NOTICES_LIMIT = 500
CHANGES_LIMIT = 2000  # changes that a subscriber has not read


class Source(StrEnum):
    """How a request came in."""

    URL = "url"  # as to a function URL, or as ``--events`` says
    INVOKE = "invoke"  # Invoke, RequestResponse
    STREAM = "stream"  # InvokeWithResponseStream
    ASYNC = "async"  # Invoke, Event
    CONSOLE = "console"  # a page or a command of ours


class Phase(StrEnum):
    """How far a request has come."""

    WAITING = "waiting"  # for an execution environment
    RUNNING = "running"  # the event was delivered to the runtime
    RESPONDING = "responding"  # a part of a streamed response was received
    ANSWERED = "answered"  # the caller has its answer; the environment still works
    ENDED = "ended"


class ChangeKind(StrEnum):
    """What changed."""

    BEGUN = "begun"
    CHANGED = "changed"
    LOG = "log"
    ENDED = "ended"
    DROPPED = "dropped"  # the record is not kept any longer
    NOTICE = "notice"
    LOST = "lost"  # the subscriber was too slow: read everything again


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about a request that are known when it arrives.

    Attributes:
        request_id: ``awsRequestId`` of the handler's context.
        function: Name of the function.
        source: How the request came in.
        event: What the handler is given, byte for byte.
        received_epoch_ms: When it came in; Unix time.
        arn: ``invokedFunctionArn``.
        timeout_s: The function's timeout.
        memory_mb: The function's memory size.
        client_context: JSON text.
        cognito_identity: JSON text.
        method: Method of an HTTP request; None for an event.
        target: Path and query of an HTTP request, as they were sent.
        replay_of: Id of the request that this one repeats.
        attempt: Counts the attempts of an event without a caller, from 1.
    """

    request_id: str
    function: str
    source: Source
    event: bytes
    received_epoch_ms: float
    arn: str = ""
    timeout_s: float = 0.0
    memory_mb: int = 0
    qualifier: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None
    trace_id: str | None = None
    method: str | None = None
    target: str | None = None
    replay_of: str | None = None
    attempt: int = 1


@dataclass(slots=True, kw_only=True)
class Times:
    """When what happened, in milliseconds since the request was received.

    Attributes:
        assigned_ms: An environment took the request from the queue.
        delivered_ms: The runtime was given the event.
        first_byte_ms: The first byte of the response was received.
        answered_ms: The response was complete, or failed.
        ended_ms: The environment was done with the request: work passed to
            ``waitUntil``, the end of its process, perhaps the start of the next one.
    """

    assigned_ms: float | None = None
    delivered_ms: float | None = None
    first_byte_ms: float | None = None
    answered_ms: float | None = None
    ended_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log.

    Attributes:
        number: Counts the lines of its request from 1, also those that are not kept.
            Details and changes reach a page on two connections: the number tells which
            lines the details already have.
        at_ms: When it was read: milliseconds since the request came in.
    """

    number: int
    at_ms: float
    text: str

    def to_json(self) -> dict[str, object]:
        """Return the line as JSON has it."""
        at_ms = _rounded(self.at_ms)
        return {"number": self.number, "atMs": at_ms, "text": self.text}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# Members of a summary: each change of a request makes one.
FACTS_SHOWN = [
    (each.name, _camel(each.name)) for each in fields(Facts) if each.name != "event"
]
TIMES_SHOWN = [(each.name, _camel(each.name)) for each in fields(Times)]


@dataclass(slots=True, eq=False, kw_only=True)
class Record:
    """One request; ``Journal`` changes it, others only read it.

    Attributes:
        number: Counts all requests from 1.
        environment: Number of the execution environment of the function.
        code: Counts the versions of the function's code since the start, from 1.
        init_ms: How long the environment took to start, if it was started for this
            request.
        measures: ``record`` of the runtime's own report (docs/metrics.md): how the
            process started, whether it was warm, times, memory, leftovers.
        outcome: Value of ``OutcomeKind``; None while there is none.
        status: Status of the response to the caller, if it was sent.
        headers: Headers of that response.
        content_type: Content type as the runtime sent it.
        is_streamed: The runtime streamed the response.
        result: The response's bytes, at most ``RESULT_LIMIT_BYTES``; of a streamed
            response with the HTTP prelude.
        result_bytes: How many there were.
        error: JSON error body, if the outcome is one.
        error_type: As the runtime sent it.
        max_memory_mb: Peak of the environment with all its processes.
        report: Lambda's REPORT line.
        log: Lines of the request's log, at most ``LOG_LIMIT_LINES``.
        lines_dropped: Lines that were not kept.
    """

    number: int
    facts: Facts
    phase: Phase = Phase.WAITING
    times: Times = field(default_factory=Times)
    environment: int | None = None
    code: int | None = None
    init_ms: float | None = None
    measures: dict[str, Any] | None = None
    outcome: str | None = None
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    content_type: str = ""
    is_streamed: bool = False
    result: bytearray = field(default_factory=bytearray)
    result_bytes: int = 0
    error: bytes | None = None
    error_type: str | None = None
    max_memory_mb: int | None = None
    report: str | None = None
    log: list[LogLine] = field(default_factory=list)
    lines_dropped: int = 0
    _log_bytes: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def id(self) -> str:
        """The request id."""
        return self.facts.request_id

    @property
    def is_ok(self) -> bool:
        """True if the function has answered without an error."""
        return self.outcome == "response"

    @property
    def result_sha256(self) -> str:
        """Digest of the whole result, also of the part that was not kept."""
        return str(self._hash.hexdigest())

    @property
    def kept_bytes(self) -> int:
        """Bytes of event, result and log that the record holds."""
        return len(self.facts.event) + len(self.result) + self._log_bytes

    def summary(self) -> dict[str, object]:
        """Return everything but event, result and log, as JSON has it."""
        facts, times = self.facts, self.times
        return {
            "id": self.id,
            "number": self.number,
            **{shown: getattr(facts, name) for name, shown in FACTS_SHOWN},
            "eventBytes": len(facts.event),
            "phase": self.phase,
            "times": {n: _rounded(getattr(times, name)) for name, n in TIMES_SHOWN},
            "environment": self.environment,
            "code": self.code,
            "initMs": _rounded(self.init_ms),
            "measures": self.measures,
            "outcome": self.outcome,
            "ok": self.is_ok,
            "status": self.status,
            "headers": [list(pair) for pair in self.headers],
            "contentType": self.content_type,
            "streamed": self.is_streamed,
            "resultBytes": self.result_bytes,
            "errorType": self.error_type,
            "maxMemoryMB": self.max_memory_mb,
            "report": self.report,
            "logLines": len(self.log) + self.lines_dropped,
        }

    def details(self) -> dict[str, object]:
        """Return all of the record, as JSON has it; bytes that are not text in base64.

        ``event``, ``result`` and ``error`` are objects with ``text`` or ``base64``.
        """
        return {
            **self.summary(),
            "event": _shown(self.facts.event),
            "result": _shown(bytes(self.result)),
            "resultSha256": self.result_sha256,
            "error": None if self.error is None else _shown(self.error),
            "log": [line.to_json() for line in self.log],
            "linesDropped": self.lines_dropped,
        }


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened outside of any request.

    Attributes:
        at_epoch_ms: Unix time.
        level: ``info``, ``error``, ``reload``, or ``log``: a line of a function's log
            that belongs to no request, such as one that its module prints when it is
            loaded.
        function: The function that it is about; None: all.
    """

    at_epoch_ms: float
    level: str
    text: str
    function: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the notice as JSON has it."""
        return {
            "atEpochMs": self.at_epoch_ms,
            "level": self.level,
            "function": self.function,
            "text": self.text,
        }


class Change(NamedTuple):
    """A change of the journal.

    Attributes:
        record: The record that changed; None for a notice, and after a loss.
        line: The line that was added to its log.
    """

    kind: ChangeKind
    record: Record | None = None
    line: LogLine | None = None
    notice: Notice | None = None

    def to_json(self) -> dict[str, object]:
        """Return the change as JSON has it; a record without event, result and log."""
        if self.kind is ChangeKind.DROPPED and self.record is not None:
            return {"kind": self.kind, "id": self.record.id}
        if self.line is not None and self.record is not None:
            line = self.line.to_json()
            return {"kind": self.kind, "id": self.record.id, "line": line}
        if self.record is not None:
            return {"kind": self.kind, "record": self.record.summary()}
        if self.notice is not None:
            return {"kind": self.kind, "notice": self.notice.to_json()}
        return {"kind": self.kind}

    def sse(self) -> bytes:
        """Return the change as a message of server-sent events."""
        data = json.dumps(self.to_json(), separators=(",", ":"))
        return f"event: {self.kind}\ndata: {data}\n\n".encode()


class Subscription:
    """Changes from the time of its making; iterate over it in one task."""

    def __init__(self, limit: int = CHANGES_LIMIT) -> None:
        """Expect changes; hold at most ``limit`` that were not read."""
        self._changes: deque[Change] = deque()
        self._limit = limit
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def add(self, change: Change) -> None:
        """Add a change; too many replace all by one of kind LOST."""
        if self._is_closed:
            return
        if len(self._changes) >= self._limit:
            self._changes.clear()
            change = Change(ChangeKind.LOST)
        self._changes.append(change)
        self._wake()

    def close(self) -> None:
        """End the iteration after the changes that are left."""
        self._is_closed = True
        self._wake()

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes until the subscription is closed."""
        while True:
            while self._changes:
                yield self._changes.popleft()
            if self._is_closed:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter  # no limit: nothing may happen for hours

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Journal:
    """The records of the last requests, and notices."""

    def __init__(
        self, records_limit: int = RECORDS_LIMIT, bytes_limit: int = BYTES_LIMIT
    ) -> None:
        """Begin with an empty journal.

        Args:
            records_limit: How many records are kept.
            bytes_limit: How many bytes of events, results and logs are kept in all.
        """
        self._records: dict[str, Record] = {}
        self._records_limit = records_limit
        self._bytes_limit = bytes_limit
        self._count = 0
        self._kept_bytes = 0
        self._notices: deque[Notice] = deque(maxlen=NOTICES_LIMIT)
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Change], None]] = []

    # Reading.

    def records(self) -> Sequence[Record]:
        """Return the records that are kept, oldest first."""
        return list(self._records.values())

    def find(self, request_id: str) -> Record | None:
        """Return the record of a request; None if it is not kept."""
        return self._records.get(request_id)

    def notices(self) -> Sequence[Notice]:
        """Return the last notices, oldest first."""
        return list(self._notices)

    @contextlib.contextmanager
    def subscribe(self, limit: int = CHANGES_LIMIT) -> Iterator[Subscription]:
        """Subscribe to changes while the context is entered."""
        subscription = Subscription(limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call a function with each change, at once, from now on.

        It misses nothing, and everything waits for it; it must not raise. A record
        has its result until it is dropped, which comes after it has ended.
        """
        self._listeners.append(listener)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()

    # Writing: the functions' side.

    def begin(self, facts: Facts) -> Record:
        """Add the record of a request that came in.

        It takes the place of an earlier attempt, which had the same id.
        """
        former = self._records.pop(facts.request_id, None)
        if former is not None:
            self._kept_bytes -= former.kept_bytes
        self._count += 1
        record = Record(number=self._count, facts=facts)
        self._records[facts.request_id] = record
        self._kept_bytes += len(facts.event)
        self._tell(Change(ChangeKind.BEGUN, record))
        self._drop()
        return record

    def assign(self, record: Record, at_ms: float, environment: int, code: int) -> None:
        """Note that an environment took the request."""
        record.times.assigned_ms = at_ms
        record.environment, record.code = environment, code
        self._tell(Change(ChangeKind.CHANGED, record))

    def deliver(self, record: Record, at_ms: float, init_ms: float | None) -> None:
        """Note that the runtime was given the event."""
        record.times.delivered_ms = at_ms
        record.init_ms = init_ms
        record.phase = Phase.RUNNING
        self._tell(Change(ChangeKind.CHANGED, record))

    def begin_response(
        self, record: Record, at_ms: float, content_type: str, *, is_streamed: bool
    ) -> None:
        """Note that a response has begun."""
        record.times.first_byte_ms = at_ms
        record.content_type, record.is_streamed = content_type, is_streamed
        record.phase = Phase.RESPONDING
        self._tell(Change(ChangeKind.CHANGED, record))

    def add_result(self, record: Record, chunk: bytes) -> None:
        """Add bytes of the result, of which a limited number is kept."""
        kept = chunk[: max(0, RESULT_LIMIT_BYTES - len(record.result))]
        record.result += kept
        self._kept_bytes += len(kept)
        record.result_bytes += len(chunk)
        record._hash.update(chunk)

    def answer(self, record: Record, at_ms: float, outcome: EmulatedOutcome) -> None:
        """Note the outcome; its bytes were added before, except those of an error."""
        record.times.answered_ms = at_ms
        record.outcome = outcome.kind.value
        record.content_type = outcome.content_type
        record.is_streamed = outcome.is_streamed
        if not record.is_ok:
            record.error, record.error_type = outcome.body, outcome.error_type
        record.phase = Phase.ANSWERED
        self._tell(Change(ChangeKind.CHANGED, record))

    def respond(
        self, record: Record, status: int, headers: Sequence[tuple[str, str]]
    ) -> None:
        """Note what the caller was sent."""
        record.status, record.headers = status, list(headers)
        self._tell(Change(ChangeKind.CHANGED, record))

    def measure(self, record: Record, measures: dict[str, Any]) -> None:
        """Note the runtime's own report."""
        record.measures = measures
        self._tell(Change(ChangeKind.CHANGED, record))

    def log(self, record: Record, at_ms: float, text: str) -> None:
        """Add a line of the request's log, of which a limited number is kept."""
        line = LogLine(len(record.log) + record.lines_dropped + 1, at_ms, text)
        size_bytes = len(text)
        if (
            len(record.log) >= LOG_LIMIT_LINES
            or record._log_bytes + size_bytes > LOG_LIMIT_BYTES
        ):
            record.lines_dropped += 1
        else:
            record.log.append(line)
            record._log_bytes += size_bytes
            self._kept_bytes += size_bytes
        self._tell(Change(ChangeKind.LOG, record, line))

    def end(
        self, record: Record, at_ms: float, max_memory_mb: int | None, report: str
    ) -> None:
        """Note that the environment is done with the request."""
        record.times.ended_ms = at_ms
        record.max_memory_mb, record.report = max_memory_mb, report
        record.phase = Phase.ENDED
        self._tell(Change(ChangeKind.ENDED, record))
        self._drop()

    def notice(self, notice: Notice) -> None:
        """Add a notice."""
        self._notices.append(notice)
        self._tell(Change(ChangeKind.NOTICE, notice=notice))

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)
        for subscription in self._subscriptions:
            subscription.add(change)

    def _drop(self) -> None:
        """Drop the oldest records that have ended, as far as there are too many."""
        while self._is_full():
            ended = (r for r in self._records.values() if r.phase is Phase.ENDED)
            oldest = next(ended, None)
            if oldest is None:
                return
            del self._records[oldest.id]
            self._kept_bytes -= oldest.kept_bytes
            self._tell(Change(ChangeKind.DROPPED, oldest))

    def _is_full(self) -> bool:
        is_long = len(self._records) > self._records_limit
        return is_long or self._kept_bytes > self._bytes_limit


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _shown(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
