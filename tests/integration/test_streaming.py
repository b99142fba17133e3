"""Answers in pieces: what streams, what the caller gets, and who waits for whom."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from tests.doubles import Answer, FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno, pytest.mark.every_way]

# Between the end of a handler that is stopped and the deadline the trailers are sent,
# on a busy machine too.
PATIENT = {"LAMBDA_DENO_STOP_MARGIN_MS": "3000"}

FORMS = """
/** Waits until the Runtime API has received as many pieces as it was asked about. */
async function received(port: number) {
  const socket = await Deno.connect({ hostname: "127.0.0.1", port });
  await socket.read(new Uint8Array(1));
  socket.close();
}

export async function* generator(event: any) {
  for (let i = 0; i < event.count; i++) {
    if (i === event.failAt) throw new RangeError(`failed at ${i}`);
    yield `piece ${i};`;
    if (event.port) await received(event.port);
  }
}

export const readable = (event: any) => ReadableStream.from(generator(event));

// @ts-ignore the global of AWS's runtime
export const streamified = awslambda.streamifyResponse(
  async (event: any, stream: any, context: any) => {
    stream.setContentType("text/plain");
    for await (const piece of generator(event)) {
      if (!stream.write(piece)) {
        await new Promise((resolve) => stream.once("drain", resolve));
      }
    }
    if (!event.forgetsEnd) stream.end();
  },
);

// @ts-ignore the global of AWS's runtime
export const http = awslambda.streamifyResponse(
  async (event: any, stream: any) => {
    // @ts-ignore the global of AWS's runtime
    stream = awslambda.HttpResponseStream.from(stream, {
      statusCode: 201,
      headers: { "content-type": "text/html" },
      cookies: ["a=1"],
    });
    if (event.throws) throw new Error("before the first byte");
    stream.write("<p>");
    stream.write({ a: 1 });
    stream.end("</p>");
  },
);
"""


def assert_streamed(answer: Answer, content_type: str) -> None:
    assert answer.call == "response"
    headers = answer.headers
    assert headers["lambda-runtime-function-response-mode"] == "streaming"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["trailer"] == (
        "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
    )
    assert headers["content-type"] == content_type
    assert "content-length" not in headers


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("generator", "application/octet-stream"),
        ("readable", "application/octet-stream"),
        ("streamified", "text/plain"),
    ],
)
async def test_every_form_of_stream_reaches_the_caller_as_it_is_made(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, form: str, content_type: str
) -> None:
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await api.chunks_received.acquire()
        writer.close()

    async with (
        await asyncio.start_server(tell, "127.0.0.1", 0) as server,
        make_runtime({"function.ts": FORMS}, f"function.{form}"),
    ):
        port = server.sockets[0].getsockname()[1]
        answer = await api.invoke({"count": 4, "port": port})
        assert_streamed(answer, content_type)
        assert answer.body == b"piece 0;piece 1;piece 2;piece 3;"
        assert answer.trailers == {}
        assert [chunk for _, chunk in answer.chunks] == [
            b"piece 0;", b"piece 1;", b"piece 2;", b"piece 3;"
        ]  # fmt: skip
        empty = await api.invoke({"count": 0})
        assert_streamed(empty, content_type)
        assert empty.body == b""
        await api.wait_for_next()
        # One for other calls and one for each stream; that for the next one may have
        # come already.
        assert api.connections in (3, 4)


async def test_an_http_stream_begins_with_its_prelude_and_eight_zeros(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": FORMS}, "function.http"):
        answer = await api.invoke({})
        assert_streamed(answer, "application/vnd.awslambda.http-integration-response")
        prelude, _, body = answer.body.partition(b"\0" * 8)
        assert json.loads(prelude) == {
            "statusCode": 201,
            "headers": {"content-type": "text/html"},
            "cookies": ["a=1"],
        }
        assert body == b'<p>{"a":1}</p>'
        failed = await api.invoke({"throws": True})
        assert failed.call == "error"
        assert failed.json()["errorMessage"] == "before the first byte"
        await api.wait_for_next()


USES = """
const ways = {
  late(stream) {
    stream.write("body;");
    try {
      awslambda.HttpResponseStream.from(stream, { statusCode: 404 });
    } catch (error) {
      stream.write(`${error.name};`);
    }
    try {
      stream.setContentType("text/html");
    } catch (error) {
      stream.end(error.message);
    }
  },
  // As it was done before HttpResponseStream existed.
  byHand(stream) {
    stream.setContentType("application/vnd.awslambda.http-integration-response");
    stream.write(JSON.stringify({ statusCode: 202 }));
    stream.write(new Uint8Array(8));
    stream.end("body");
  },
  before(stream) {
    stream._onBeforeFirstWrite = (write) => write("first;");
    stream.write("second");
    stream.end();
  },
  returns(stream) {
    stream.end("body");
    return { statusCode: 200 };
  },
};
export const handler = awslambda.streamifyResponse(
  async ({ way }, stream) => ways[way](stream),
  { highWaterMark: 1024 },
);
"""


async def test_a_stream_is_used_as_that_of_aws(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.mjs": USES}) as runtime:
        late = await api.invoke({"way": "late"})
        assert late.body == (
            b"body;Runtime.InvalidStreamingOperation;Cannot set the content type: the "
            b"response has begun; do it before the first write"
        )
        by_hand = await api.invoke({"way": "byHand"})
        assert_streamed(by_hand, "application/vnd.awslambda.http-integration-response")
        assert by_hand.body == b'{"statusCode":202}' + b"\0" * 8 + b"body"
        assert (await api.invoke({"way": "before"})).body == b"first;second"
        assert "ignored" not in runtime.log
        assert (await api.invoke({"way": "returns"})).body == b"body"
        await runtime.logged("so what it returned is ignored")


@pytest.mark.cases(1)
@pytest.mark.parametrize("form", ["generator", "readable", "streamified"])
async def test_an_error_is_an_error_before_the_first_byte_and_a_trailer_after_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, form: str
) -> None:
    async with make_runtime({"function.ts": FORMS}, f"function.{form}") as runtime:
        before = await api.invoke({"count": 3, "failAt": 0})
        assert before.call == "error"
        assert before.json()["errorType"] == "RangeError"
        after = await api.invoke({"count": 3, "failAt": 2})
        assert after.call == "response"
        assert after.body == b"piece 0;piece 1;"
        assert after.trailers["lambda-runtime-function-error-type"] == (
            "Function.RangeError"
        )
        body = json.loads(
            base64.b64decode(after.trailers["lambda-runtime-function-error-body"])
        )
        assert (body["errorType"], body["errorMessage"]) == (
            "RangeError",
            "failed at 2",
        )
        assert "function.ts:" in body["stackTrace"][0]
        logged = await runtime.logged(f"{after.request_id}\tERROR\tInvoke Error")
        assert "failed at 2" in logged
        assert (await api.invoke({"count": 1})).body == b"piece 0;"
        await api.wait_for_next()


# What a generator does behind its first piece, and the error that comes of it.
ENDS = {
    "exits": ("Deno.exit(3)", "Runtime.ExitError", "status 3"),
    "loops": ("for (;;);", "Runtime.InvokeTimeout", "did not end its answer"),
    "never-settles": (
        "await new Promise(() => {})", "Runtime.HandlerNeverSettled", "",
    ),
    "rejects-unawaited": (
        "Promise.reject(new Error('lost')); "
        "await new Promise((r) => setTimeout(r, 5000))",
        "Runtime.UnhandledPromiseRejection", "lost",
    ),
    "throws-in-timer": (
        "setTimeout(() => { throw new EvalError('late') }, 1); "
        "await new Promise((r) => setTimeout(r, 5000))", "EvalError", "late",
    ),
    "wrong-chunk": ("yield { a: 1 }", "Runtime.InvalidStreamingOperation", "object"),
}  # fmt: skip


async def test_whatever_ends_a_stream_too_early_is_named_in_the_trailers(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    cases = "".join(
        f"case '{name}': {body}; break;\n" for name, (body, *_) in ENDS.items()
    )
    source = (
        "export async function* handler(event: any) {\n"
        f"yield 'a';\nswitch (event.ends) {{\n{cases}}}\n}}"
    )
    async with make_runtime({"function.ts": source}, **PATIENT):
        for name, (_, error_type, message) in ENDS.items():
            limit_s = 5 if error_type == "Runtime.InvokeTimeout" else 60
            answer = await api.invoke({"ends": name}, timeout_s=limit_s)
            assert answer.body == b"a", name
            assert answer.trailers["lambda-runtime-function-error-type"] in (
                error_type,
                f"Function.{error_type}",
            ), name
            error = json.loads(
                base64.b64decode(answer.trailers["lambda-runtime-function-error-body"])
            )
            assert error["errorType"] == error_type, name
            assert message in error["errorMessage"], name
        await api.wait_for_next()


async def test_a_stream_that_is_never_ended_is_an_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.ts": FORMS}
    async with make_runtime(files, "function.streamified", **PATIENT):
        answer = await api.invoke({"count": 1, "forgetsEnd": True})
        assert answer.trailers["lambda-runtime-function-error-type"] == (
            "Runtime.HandlerNeverSettled"
        )
        await api.wait_for_next()


LARGE = """
export async function* handler(event: any, context: any) {
  const piece = new Uint8Array(event.pieceBytes).fill(97);
  context.signal.addEventListener("abort", () =>
    console.log(`aborted after ${made}: ${context.signal.reason.name}`));
  try {
    for (let i = 0; i < event.count; i++) {
      yield piece;
      made += 1;
    }
  } finally {
    console.log("the generator has cleaned up");
  }
}
let made = 0;
setInterval(() => console.log(`made ${made}`), 50);
"""


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


async def test_a_large_stream_is_complete_and_costs_the_supervisor_no_memory(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.ts": LARGE}) as runtime:
        answer = await api.invoke(
            {"pieceBytes": 1_000_000, "count": 100}, timeout_s=150
        )
        assert len(answer.body) == 100_000_000
        assert answer.body.count(b"a") == 100_000_000
        assert answer.trailers == {}
        await api.wait_for_next()
        assert resident_mb(runtime.pid) < 64


async def test_a_slow_caller_makes_the_handler_wait(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.chunk_gate = asyncio.Event()
    async with make_runtime({"function.ts": LARGE}) as runtime:
        await api.wait_for_next()
        api.deliver(b'{"pieceBytes":65536,"count":2000}', timeout_s=150)
        async with asyncio.timeout(LIMIT_S):
            await api.first_chunk.wait()
        # The handler's timer goes on while its stream stands still.
        await runtime.logged("made ")
        held = await steady_count(runtime)
        assert held < 200, "131 MB were not made in advance"
        api.chunk_gate.set()
        answer = await api.answer()
        assert len(answer.body) == 2000 * 65536
        await api.wait_for_next()
        assert resident_mb(runtime.pid) < 64


async def steady_count(runtime: object) -> int:
    """Wait until the same count was logged three times in a row."""
    position = 0
    last: list[str] = []
    async with asyncio.timeout(LIMIT_S):
        while True:
            log: str = runtime.log  # type: ignore[attr-defined]
            counts = [
                line.rsplit(" ", 1)[1]
                for line in log.split("\n")[:-1]
                if "\tINFO\tmade " in line
            ]
            last = counts[-3:]
            if len(counts) > position and len(last) == 3 and len(set(last)) == 1:
                return int(last[0])
            position = len(counts)
            runtime._log_grew.clear()  # type: ignore[attr-defined]
            await runtime._log_grew.wait()  # type: ignore[attr-defined]


async def test_a_caller_who_left_aborts_the_signal_of_the_handler(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.cut_after_chunks = 3
    async with make_runtime({"function.ts": LARGE}) as runtime:
        await api.wait_for_next()
        api.deliver(b'{"pieceBytes":65536,"count":100000}')
        await runtime.logged("aborted after ")
        assert "AbortError" in runtime.log
        await runtime.logged("the generator has cleaned up")
        await runtime.logged("Cannot complete Runtime API call 'response'")
        api.cut_after_chunks = None
        answer = await api.invoke({"pieceBytes": 1, "count": 2})
        assert answer.body == b"aa"
        await api.wait_for_next()


async def test_a_caller_who_never_reads_cannot_hold_the_environment(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.chunk_gate = asyncio.Event()
    async with make_runtime({"function.ts": LARGE}) as runtime:
        await api.wait_for_next()
        api.deliver(b'{"pieceBytes":65536,"count":100000}', timeout_s=3)
        await api.wait_for_next()
        assert "before the deadline" in runtime.log
        api.chunk_gate.set()
        api.deliver(b'{"pieceBytes":1,"count":1}')
        while (await api.answer()).body != b"a":
            pass  # what was left of the first one
        await api.wait_for_next()


async def test_wait_until_works_behind_a_stream(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
/** Waits until the test has the answer. */
async function seen() {
  for (;;) {
    try {
      return Deno.statSync(`${import.meta.dirname}/seen`);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}
export async function* handler(_: unknown, context: any) {
  context.waitUntil(seen().then(() => console.log("later work is done")));
  yield "now";
}
"""
    async with make_runtime({"function.ts": source}) as runtime:
        await api.wait_for_next()
        api.deliver(b"{}")
        assert (await api.answer()).body == b"now"
        assert "later work" not in runtime.log
        (runtime.task_root / "seen").touch()
        await api.wait_for_next()
        assert "later work is done" in runtime.log


async def test_a_callback_answers_for_handlers_of_the_older_form(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler(event: any, _context: unknown, callback: any) {
  setTimeout(() => event.fails ? callback(new Error("called back")) :
    callback(null, { got: event }), 1);
}
"""
    async with make_runtime({"function.ts": source}):
        assert (await api.invoke({"a": 1})).json() == {"got": {"a": 1}}
        failed = await api.invoke({"fails": True})
        assert failed.json()["errorMessage"] == "called back"
        await api.wait_for_next()
