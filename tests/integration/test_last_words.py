"""What a program does at its end: listeners, buffered loggers, telemetry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.packages import install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

PROJECT = Path(__file__).parents[1] / "fixtures" / "last-words"
EVENTS = (PROJECT / "events.js").read_text(encoding="utf-8")
# How the process for an event comes to be, and how it comes to its end after one.
STARTS: dict[str, dict[str, str]] = {
    "exec": {},
    "fork": {"LAMBDA_DENO_START": "fork"},
    "reuse": {"LAMBDA_DENO_MAX_INVOCATIONS": "2"},
    "server": {"LAMBDA_DENO_MAX_INVOCATIONS": "1"},
}
# Whatever is slow here is not what is tested.
PATIENT = {"LAMBDA_DENO_LAST_WORDS_MS": "10000", "LAMBDA_DENO_STOP_MARGIN_MS": "5000"}
each_start = pytest.mark.parametrize(
    ("way", "start"),
    [("fresh", "exec"), ("fresh", "fork"), ("reuse", "reuse"), ("server", "server")],
    indirect=["way"],
)

LISTENERS = """
import process from "node:process";
import { obey } from "./events.js";

const say = (what) => () => console.log(`heard ${what}`);
process.on("SIGTERM", say("SIGTERM"));
process.on("beforeExit", say("beforeExit"));
process.on("exit", say("exit"));
addEventListener("beforeunload", say("beforeunload"));
addEventListener("unload", say("unload"));
process.on("unhandledRejection", say("unhandledRejection"));
addEventListener("unhandledrejection", say("unhandledrejection"));
process.on("uncaughtException", say("uncaughtException"));
addEventListener("error", say("error"));
export const handler = obey;
"""
THE_END = ["SIGTERM", "beforeunload", "beforeExit", "unload", "exit"]
ACCIDENT = ["unhandledRejection", "unhandledrejection"]


class Collector:
    """A collector of telemetry: keeps what is posted to it, by path."""

    def __init__(self) -> None:
        self.address = ""
        self.bodies: list[tuple[str, Any]] = []
        self.requests: list[bytes] = []
        self._grew = asyncio.Event()

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Respond to every request with an empty object."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await _read_body(reader, head)
                self.requests.append(head)
                path = head.split()[1].decode()
                if body:
                    self.bodies.append((path, json.loads(body)))
                self._grew.set()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 2\r\n\r\n{}"
                )
                await writer.drain()
        writer.close()

    @property
    def text(self) -> str:
        """Everything that was posted."""
        return json.dumps([body for _, body in self.bodies])

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The spans that were posted."""
        return [
            span
            for path, body in self.bodies
            if path == "/v1/traces"
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"chunked" in head.lower():
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return await reader.readexactly(int(length[1]) if length else 0)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    collector.address = f"http://127.0.0.1:{port}"
    async with server:
        yield collector


def heard(log: str) -> dict[str, list[str]]:
    """Return what the program of each event has heard."""
    said: dict[str, list[str]] = {}
    for line in log.splitlines():
        _, request_id, *_, message = line.split("\t")
        if message.startswith("heard "):
            said.setdefault(request_id, []).append(message.removeprefix("heard "))
    return said


@pytest.mark.cases(1)
@each_start
async def test_each_program_hears_of_its_end_and_of_accidents(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    files = {"function.mjs": LISTENERS, "events.js": EVENTS}
    served = {"reuse": 2, "fork": 3}.get(start, 1)  # several copies of one template
    async with make_runtime(files, **PATIENT, **STARTS[start]) as runtime:
        for _ in range(served):
            assert (await api.invoke({"n": 1})).json() == 1
        thrown = await api.invoke({"ends": "throws", "n": 2})
        assert thrown.json()["errorMessage"] == "2"
        rejected = await api.invoke({"ends": "rejects", "n": 3})
        assert rejected.json()["errorType"] == "Runtime.UnhandledPromiseRejection"
        assert rejected.json()["errorMessage"] == "RangeError: 3"
        uncaught = await api.invoke({"ends": "falls", "n": 4})
        assert uncaught.json()["errorType"] == "RangeError"
        stuck = await api.invoke({"ends": "sticks"})
        assert stuck.json()["errorType"] == "Runtime.HandlerNeverSettled"
        late = await api.invoke({"ends": "hangs"}, timeout_s=7.0)
        assert late.json()["errorType"] == "Runtime.InvokeTimeout"
        assert (await api.invoke({"n": 5})).json() == 5
        await api.wait_for_next()
    said = heard(runtime.log)
    assert said[f"request-{served}"] == THE_END
    assert said[thrown.request_id] == THE_END
    if start != "server":  # its process goes on
        assert said[stuck.request_id] == THE_END
    assert Counter(said[rejected.request_id]) == Counter([*ACCIDENT, *THE_END])
    assert set(said[rejected.request_id][:2]) == set(ACCIDENT), "before the end"
    assert said[uncaught.request_id][2:] == THE_END
    assert set(said[uncaught.request_id][:2]) == {"uncaughtException", "error"}
    assert Counter(said[late.request_id]) == Counter(THE_END)
    if start == "reuse":
        assert "request-1" not in said, "its process goes on"


BAD = """
import process from "node:process";

const ends = {
  loops: () => { for (;;); },
  waits: () => { setInterval(() => {}, 1000); },
  throws: () => { throw new Error("at the end"); },
  prints: () => console.log("x".repeat(10 * 1024 * 1024)),
  exits: () => process.exit(3),
  frames: () => {
    const { op_print } = Deno[Deno.internal].core.ops;
    Deno[Deno.internal].core.print("{}\\n");
  },
};
export function handler({ on, what, n }) {
  process.on(on, () => {
    console.log(`begins ${n}`);
    ends[what]();
  });
  return n;
}
"""


DUE = """
import { setImmediate } from "node:timers";

const ways = {
  immediate: (say) => setImmediate(() => setImmediate(say)),
  tick: (say) => process.nextTick(say),
  microtask: (say) => queueMicrotask(say),
  timeout: (say) => setTimeout(say, 0),
  message(say) {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (say(), port1.close());
    port2.postMessage(null);
  },
  // The runtime's timer for what is due has passed before the event loop looks at it.
  async stalled(say) {
    ways.message(say);
    Promise.resolve().then(async () => {
      for (let n = 0; n < 200; n += 1) await null;
      for (const end = Date.now() + 20; Date.now() < end;);
    });
  },
  throws(say) {
    setImmediate(say);
    throw new Error("the handler threw");
  },
  // In a turn after the response, and after that.
  waits: (say, context) =>
    setImmediate(() => context.waitUntil(
      new Promise((resolve) => setTimeout(resolve, 20)).then(() => setImmediate(say)),
    )),
  // Has no end.
  again(say) {
    say();
    const again = () => setImmediate(again);
    again();
  },
};

export async function handler({ way }, context) {
  const { awsRequestId } = context;
  ways[way](() => console.log("heard", way, awsRequestId), context);
  return way;
}
"""


@pytest.mark.cases(4)  # each way
@each_start
async def test_what_is_due_after_the_response_still_runs(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    ways = [
        "immediate",
        "tick",
        "microtask",
        "timeout",
        "message",
        "stalled",
        "throws",
        "waits",
        "again",
    ]
    async with make_runtime({"function.mjs": DUE}, **STARTS[start]) as runtime:
        await api.wait_for_next()
        for way in ways:
            api.deliver(json.dumps({"way": way}).encode())
            await api.answer()
            await api.wait_for_next()  # nothing of the event comes later
        said = [
            (message, request_id)
            for request_id, messages in heard(runtime.log).items()
            for message in messages
        ]
        assert said == [
            (f"{way} request-{number}", f"request-{number}")
            for number, way in enumerate(ways, 1)
        ]


@pytest.mark.cases(1)
@pytest.mark.parametrize("start", ["exec", "fork"])
async def test_whatever_the_last_words_are_the_next_event_is_served(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    short = {"LAMBDA_DENO_LAST_WORDS_MS": "300"}
    n = 0
    async with make_runtime({"function.mjs": BAD}, **short, **STARTS[start]) as runtime:
        for on in ("SIGTERM", "beforeExit", "exit"):
            for what in ("loops", "waits", "throws", "prints", "exits", "frames"):
                n += 1
                answer = await api.invoke({"on": on, "what": what, "n": n})
                assert answer.json() == n
        await api.wait_for_next()
    begun = re.findall(r"\t(request-\d+)\tINFO\tbegins (\d+)", runtime.log)
    assert {(f"request-{i}", str(i)) for i in range(1, n + 1)} <= set(begun)
    assert "did not end within 0.30 s: stopped" in runtime.log
    assert "something is still open" in runtime.log
    assert "Uncaught error at the end of the process Error: at the end" in runtime.log


async def test_a_program_that_does_not_load_has_last_words_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
import process from "node:process";
process.on("exit", () => console.log("the last"));
throw new Error("at load");
"""
    async with make_runtime({"function.mjs": source}) as runtime:
        assert await runtime.wait() == 1
    assert "the last" in runtime.log


async def test_without_time_nothing_is_heard(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.mjs": LISTENERS, "events.js": EVENTS}
    async with make_runtime(files, LAMBDA_DENO_LAST_WORDS_MS="0") as runtime:
        await api.invoke({"n": 1})
        await api.invoke({"ends": "rejects", "n": 3})
        await api.wait_for_next()
    assert heard(runtime.log) == {}


def ways_of(*cases: tuple[str, str]) -> pytest.MarkDecorator:
    """Run a test for these pairs of a start and another value, named ``what``."""
    ways = {"reuse": "reuse", "server": "server"}
    return pytest.mark.parametrize(
        ("way", "start", "what"),
        [(ways.get(start, "fresh"), start, what) for start, what in cases],
        indirect=["way"],
    )


@pytest.mark.cases(1)
@ways_of(
    ("exec", "pino_buffered"),
    ("fork", "pino_buffered"),
    ("reuse", "pino_buffered"),
    ("exec", "pino_transport"),
    ("server", "pino_transport"),
    ("exec", "winston"),
    ("server", "winston"),
)
async def test_loggers_lose_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str, what: str
) -> None:
    root = install(PROJECT)
    settings = {**PATIENT, **STARTS[start]}
    async with make_runtime(root, f"{what}.handler", **settings) as runtime:
        for n, ends in enumerate(("returns", "returns", "throws", "rejects"), 1):
            await api.invoke({"ends": ends, "n": n})
        await api.invoke({"ends": "hangs", "n": 5}, timeout_s=6.5)
        await api.wait_for_next()
    for n in range(1, 6):
        found = re.findall(rf'kept.*"n":{n}\b|"n":{n}\b.*kept', runtime.log)
        assert len(found) == 1, n


@pytest.mark.cases(1)
@ways_of(
    ("exec", "SIGTERM"),
    ("server", "SIGTERM"),
    ("fork", "beforeExit"),
    ("reuse", "beforeExit"),
)
async def test_the_sdk_s_spans_arrive(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    collector: Collector,
    start: str,
    what: str,
) -> None:
    root = install(PROJECT)
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "SHUTDOWN": what,
        **PATIENT,
        **STARTS[start],
    }
    async with make_runtime(root, "otel_sdk.handler", **settings):
        for n, ends in enumerate(("returns", "returns", "throws", "rejects"), 1):
            await api.invoke({"ends": ends, "n": n})
        await api.invoke({"ends": "hangs", "n": 5}, timeout_s=7.0)
        await api.wait_for_next()
    names = sorted(span["name"] for span in collector.spans)
    assert names[:4] == [f"span-{n}" for n in range(1, 5)]
    # A busy machine may need more time than there is after a deadline.
    assert names[4:] in ([], ["span-5"])


TRACE = "5759e988bd862e3fe1be46a994272793"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent=53995c3f42cd8ad8;Sampled=1"
SENT = {"Lambda-Runtime-Trace-Id": XRAY}
W3C = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("way", "start"),
    [("fresh", "exec"), ("reuse", "reuse"), ("server", "server")],
    indirect=["way"],
)
async def test_deno_s_own_telemetry_arrives_in_the_trace_of_the_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, collector: Collector, start: str
) -> None:
    settings = {
        "OTEL_DENO": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        **PATIENT,
        **STARTS[start],
    }
    files = {
        "function.js": (PROJECT / "otel_deno.js").read_text(encoding="utf-8"),
        "events.js": EVENTS,
    }
    url = f"{collector.address}/called"
    async with make_runtime(files, **settings) as runtime:
        await api.invoke({"url": url, "n": 1}, headers=SENT)
        request = {"url": url, "n": 2, "headers": {"traceparent": W3C}}
        await api.invoke(request, headers=SENT)
        await api.invoke({"url": url, "n": 3, "ends": "throws"})
        await api.invoke({"url": url, "n": 4, "ends": "rejects"})
        await api.invoke({"url": url, "n": 5, "ends": "hangs"}, timeout_s=7.0)
        await api.wait_for_next()
    for n in range(1, 5):
        assert f"log-{n}" in runtime.log
        assert f"log-{n}" in collector.text
    called = [span for span in collector.spans if span["name"] == "GET"]
    # A busy machine may need more time than there is after a deadline.
    assert len(called) in (4, 5)
    assert {"traceId": TRACE, "parentSpanId": "53995c3f42cd8ad8"}.items() <= (
        called[0].items()
    )
    assert {"traceId": W3C[3:35], "parentSpanId": W3C[36:52]}.items() <= (
        called[1].items()
    )
    requests = [head for head in collector.requests if b"GET /called" in head]
    assert TRACE.encode() in requests[0], "and the next program knows it"


async def test_a_collector_that_is_gone_costs_a_bounded_time(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {
        "OTEL_DENO": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "LAMBDA_DENO_LAST_WORDS_MS": "300",
    }
    source = "export const handler = ({ n }) => (console.log(n), n);\n"
    async with server, make_runtime({"function.js": source}, **settings) as runtime:
        for n in range(3):
            assert (await api.invoke({"n": n})).json() == n
        await api.wait_for_next()
        assert "did not end within 0.30 s: stopped" in runtime.log
