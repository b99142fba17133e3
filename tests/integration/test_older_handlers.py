"""Handlers that end as they did on Node 22 and before: by a callback or the context."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.deno, pytest.mark.every_way]

# One module for all shapes. Its handler hides its parameters, as wrappers do.
MODULE = """
const http = require("node:http");
const fs = require("node:fs");

// The flow of CloudFormation's cfn-response: a request, and its end ends the handler.
const respond = (event, context) => {
  const body = JSON.stringify({ Status: "SUCCESS", RequestId: context.awsRequestId });
  const { hostname, port, pathname } = new URL(event.url);
  const headers = { "content-type": "", "content-length": body.length };
  const options = { hostname, port, path: pathname, method: "PUT", headers };
  const request = http.request(options, (response) => {
    context.done(null, response.statusCode);
  });
  request.on("error", (error) => context.done(error));
  request.write(body);
  request.end();
};

const cases = {
  ok: async () => "fine",
  cfn: (event, context) => { respond(event, context); },
  callback: (event, context, callback) => callback(null, 1),
  laterCallback: (event, context, callback) => {
    setTimeout(() => callback(null, 2), 5);
  },
  returnsTimer: (event, context, callback) => setTimeout(callback, 5, null, 3),
  nothing: () => {},
  neverCalled: () => setTimeout(() => console.log("worked before null"), 20),
  worksOn: (event, context, callback) => {
    callback(null, 4);
    setTimeout(() => console.log("worked after the callback"), 20);
  },
  worksOnInFiles: (event, context, callback) => {
    callback(null, 5);
    fs.readFile(__filename, () => console.log("read after the callback"));
  },
  doesNotWait: (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    const timer = setInterval(() => {}, 10);
    setTimeout(() => clearInterval(timer), 60_000);
    callback(null, 6);
  },
  succeeds: (event, context) => setTimeout(context.succeed, 5, 7),
  fails: (event, context) => { context.fail(new RangeError("by fail")); },
  failsByCallback: (event, context, callback) => {
    setTimeout(() => callback(new RangeError("by callback")), 5);
  },
  twice: (event, context, callback) => {
    callback(null, 8);
    callback(null, 9);
    context.done(new Error("too late"));
  },
  callbackThenPromise: async (event, context, callback) => {
    callback(null, 10);
    return 11;
  },
  promiseThenCallback: (event, context, callback) => {
    setTimeout(() => callback(null, 12), 5);
    return Promise.resolve(13);
  },
  throwsAfterwards: (event, context, callback) => {
    callback(null, 14);
    setTimeout(() => { throw new EvalError("after the callback"); }, 5);
  },
  readsStdin: async () => fs.readFileSync(0).length,
};

exports.handler = (...args) => cases[args[0].case](...args);
"""
ANSWERS: list[tuple[str, object]] = [
    ("callback", 1),
    ("laterCallback", 2),
    ("returnsTimer", 3),
    ("nothing", None),
    ("neverCalled", None),
    ("worksOn", 4),
    ("worksOnInFiles", 5),
    ("succeeds", 7),
    ("fails", ["RangeError", "by fail"]),
    ("failsByCallback", ["RangeError", "by callback"]),
    ("twice", 8),
    ("callbackThenPromise", 10),
    ("promiseThenCallback", 13),
    ("readsStdin", 0),
    ("throwsAfterwards", ["EvalError", "after the callback"]),
    ("doesNotWait", 6),
]
# What is in the log, and how long the answer waits for it at least; a timer of Deno's
# may be a millisecond early.
WORK = {
    "neverCalled": ("worked before null", 19),
    "worksOn": ("worked after the callback", 19),
    "worksOnInFiles": ("read after the callback", 0),
}


@contextlib.asynccontextmanager
async def bucket() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve the address that a custom resource answers to, and keep what it gets."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/answer", received


async def test_older_handlers_end_as_on_node(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.cjs": MODULE}) as runtime, bucket() as sink:
        url, received = sink
        answer = await api.invoke({"case": "cfn", "url": url})
        assert answer.json() == 200
        assert json.loads(received[0])["RequestId"] == answer.request_id
        for case, expected in ANSWERS:
            await api.wait_for_next()
            begun_s = time.monotonic()
            api.deliver(json.dumps({"case": case}).encode())
            answer = await api.answer()
            found: Any = answer.json()
            if answer.call == "error":
                found = [found["errorType"], found["errorMessage"]]
            assert found == expected, case
            assert (await api.invoke({"case": "ok"})).json() == "fine", case
            if case in WORK:
                text, least_ms = WORK[case]
                assert f"{answer.request_id}\tINFO\t{text}" in runtime.log
                assert (answer.received_s - begun_s) * 1000 >= least_ms, case


async def test_an_event_loop_that_is_never_empty_is_named(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
    exports.handler = (event, context, callback) => {
      setInterval(() => {}, 10);
      callback(null, 1);
    };
    """
    runtime = make_runtime({"function.cjs": source}, LAMBDA_DENO_STOP_MARGIN_MS="2000")
    async with runtime:
        answer = await api.invoke({}, timeout_s=5)
        assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
        line = await runtime.logged("waits for an empty event loop")
        assert "callbackWaitsForEmptyEventLoop" in line


STUCK = """
let events = 0;
process.on("beforeExit", () => console.log("told of an end that is not one"));
exports.handler = (event, context) => {
  events += 1;
  if (event === "waits") return new Promise(() => {});
  if (event === "waits after") context.waitUntil(new Promise(() => {}));
  return Promise.resolve([process.pid, events]);
};
"""


@pytest.mark.every_way("server")
async def test_what_never_settles_costs_a_process_that_serves_all_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.cjs": STUCK}) as runtime:
        pid, _ = (await api.invoke("returns")).json()
        failed = await api.invoke("waits")
        assert failed.json()["errorType"] == "Runtime.HandlerNeverSettled"
        assert (await api.invoke("waits after")).json() == [pid, 3]
        assert (await api.invoke("returns")).json() == [pid, 4]
        await runtime.logged("waitUntil: a promise can never settle")
        assert "told of an end" not in runtime.log
