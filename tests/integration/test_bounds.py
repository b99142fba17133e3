"""Whatever comes from a process is bounded before it is kept, read or passed on.

The marker that begins each frame is no secret from a handler, so each of these frames
could have been written by one. An honest handler's errors are cut where they arise.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cgroups import MIB, Cgroup, unavailable

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]
ERROR_LIMIT_BYTES = 256 * 1024
TRAILERS_LIMIT_BYTES = 3 * 1024

# It learns the marker from a frame of its own process, which needs no permission.
FORGER = """
let marker = "";
const { subarray } = Uint8Array.prototype;
Uint8Array.prototype.subarray = function (...range) {
  const found = /^[0-9a-f]{32}(?=[{])/.exec(
    new TextDecoder().decode(subarray.call(this, 0, 33)));
  if (found) marker ||= found[0];
  return subarray.apply(this, range);
};
const write = Object.getPrototypeOf(Deno.stdout).writeSync;

export async function handler(event: any) {
  console.log("a record");
  if (!event.kind) return "served";
  const body = `${event.before}${event.unit.repeat(event.times)}${event.behind}`;
  const fields = event.fields ? `,${event.fields}` : "";
  const frame = `${marker}{"kind":"${event.kind}","bytes":${body.length}${fields}}\\n` +
    `${body}${marker}\\n`;
  const bytes = new TextEncoder().encode(frame.repeat(event.frames ?? 1));
  for (let at = 0; at < bytes.length;) {
    at += write.call(Deno.stdout, subarray.call(bytes, at));
  }
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
"""
# Nothing takes more memory for its size, once it is read.
SMALL = {"before": '{"errorType":"E","stackTrace":[', "behind": "{}]}"}


def forged(kind: str, unit: str = "", times: int = 0, **more: Any) -> dict[str, Any]:
    bare = {"kind": kind, "unit": unit, "times": times, "before": "", "behind": ""}
    return {**bare, **more}


FORGED = {
    "error-of-small-objects": forged("ERROR", "{},", 2_400_000, **SMALL),
    "error-just-too-long": forged("ERROR", "x", ERROR_LIMIT_BYTES + 1),
    "result-too-long": forged("RESULT", "x", 6_291_557),
    "stream-with-a-body": forged("STREAM", "x", 100_000),
    "parts-without-an-end": forged("PART", "x" * 1000, 60, frames=200),
    "error-type-too-long": forged(
        "ERROR", "{}", 1, fields=f'"errorType":"{"E" * 900}"'
    ),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("event", FORGED.values(), ids=FORGED.keys())
async def test_a_frame_that_is_too_long_costs_its_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, event: dict[str, Any]
) -> None:
    """Errors were taken, and read as JSON, if they were as long as a result."""
    async with make_runtime({"function.ts": FORGER}):
        error = (await api.invoke(event)).json()
        assert error["errorType"] == "Runtime.WorkerProtocolError", error
        assert (await api.invoke({})).json() == "served"
        await api.wait_for_next()


@pytest.mark.skipif(unavailable("memory") != "", reason=unavailable("memory"))
async def test_no_error_ends_the_runtime_of_a_small_function(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It read 7 MB of small objects before it looked how many there were."""
    runtime = make_runtime(
        {"function.ts": FORGER},
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="128",
    )
    longest = forged("ERROR", "{},", 80_000, **SMALL)
    with Cgroup.create(memory_bytes=128 * MIB) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            for event in (FORGED["error-of-small-objects"], longest):
                await api.invoke(event, timeout_s=4)
                assert (await api.invoke({})).json() == "served"
            await api.wait_for_next()
            assert runtime.is_running


THROWER = """
const text = (event: any) => event.unit.repeat(event.times);

function fail(event: any): never {
  const error: any = new RangeError(event.in === "message" ? text(event) : "short");
  if (event.in === "name") error.name = text(event);
  if (event.in === "stack") {
    error.stack = "RangeError: short\\n" + "    at f (file:///x.ts:1:1)\\n"
      .repeat(event.times);
  }
  if (event.in === "cause") {
    const cause: any = new Error(text(event));
    cause.name = text(event);
    error.cause = cause;
  }
  if (event.in === "deep") {
    for (let at = error, n = 0; n < 200; n++) at = at.cause = new Error(text(event));
  }
  if (event.in === "errors") {
    error.errors = Array.from({ length: 100 }, () => new Error(text(event)));
  }
  throw error;
}

export const handler = (event: any) => event.fine ? "served" : fail(event);

export async function* stream(event: any) {
  yield "first";
  if (!event.fine) fail(event);
}
"""
UNITS: list[str] = [
    "m",
    "\u00fc",
    "\u20ac",
    "\U0001f600",
    "\u0001",
    '"',
    "\\",
    "\ud83d",
]
THROWN: list[dict[str, Any]] = [
    *(
        {"in": "message", "unit": unit, "times": 5_000_000 // len(unit)}
        for unit in UNITS
    ),
    *(
        {"in": "name", "unit": unit, "times": 300_000}
        for unit in ("N", "\u0001", "\u20ac")
    ),
    {"in": "stack", "unit": "", "times": 100_000},
    {"in": "cause", "unit": "\u0001", "times": 400_000},
    {"in": "deep", "unit": "\u0001", "times": 20_000},
    {"in": "errors", "unit": "x", "times": 100_000},
]
IDS = [f"{event['in']}-of-{event['unit']!a}" for event in THROWN]


@pytest.mark.every_way("fresh", "server")
async def test_an_error_of_any_size_reaches_its_caller_cut(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """One with a long name of its cause was too long for a frame, and was lost."""
    async with make_runtime({"function.ts": THROWER}):
        for event in THROWN:
            answer = await api.invoke(event)
            error = answer.json()
            case = f"{event['in']} of {event['unit']!a}"
            if event["in"] == "name":
                assert error["errorType"] == event["unit"] * 128, case
            else:
                assert error["errorType"] == "RangeError", case
                assert b"characters more)" in answer.body, f"{case} is said to be cut"
            assert len(answer.body) <= ERROR_LIMIT_BYTES, case
            header = answer.headers["lambda-runtime-function-error-type"]
            assert len(header) <= 140, case
        assert (await api.invoke({"fine": True})).json() == "served"
        await api.wait_for_next()


SIZES = [1, 1_000, 1_900, *range(2_000, 2_060, 7), 2_900, 3_072, 4_000, 100_000]


@pytest.mark.every_way("fresh", "server")
async def test_an_error_behind_a_stream_fits_into_what_is_taken_of_trailers(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """AWS's server takes 4,096 bytes of them, and ends the environment for more."""
    events: list[dict[str, Any]] = [
        *({"in": "message", "unit": "m", "times": size} for size in SIZES),
        *THROWN,
    ]
    async with make_runtime({"function.ts": THROWER}, "function.stream"):
        for event in events:
            answer = await api.invoke(event)
            case = f"{event['in']} of {event['times']} {event['unit']!a}"
            assert answer.body == b"first", case
            lines = "".join(
                f"{name}: {value}\r\n" for name, value in answer.trailers.items()
            )
            assert len(lines) + 2 <= TRAILERS_LIMIT_BYTES, case
            body = base64.b64decode(
                answer.trailers["lambda-runtime-function-error-body"]
            )
            error = json.loads(body.decode("utf-8"))
            is_name = event["in"] == "name"
            assert error["errorType"] == (
                event["unit"] * 128 if is_name else "RangeError"
            ), case
            assert error["errorMessage"], case
        assert (await api.invoke({"fine": True})).body == b"first"
        await api.wait_for_next()


BEGINNINGS = """
// @ts-ignore the global of AWS's runtime
export const typed = awslambda.streamifyResponse(async (event: any, stream: any) => {
  stream.setContentType(event.type);
  stream.end("x");
});

// @ts-ignore the global of AWS's runtime
export const http = awslambda.streamifyResponse(async (event: any, stream: any) => {
  const headers = { long: "x".repeat(event.times) };
  // @ts-ignore the global of AWS's runtime
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 200, headers });
  stream.end("body");
});
"""


async def test_a_media_type_that_cannot_be_a_header_is_the_handler_s_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A long one was no frame, and the error was one of ours."""
    longest = "a/" + "b" * 254
    async with make_runtime({"function.ts": BEGINNINGS}, "function.typed"):
        for wrong in (f"{longest}b", "text/plain\n", "t\u00e9xt/plain", "", " a/b"):
            error = (await api.invoke({"type": wrong})).json()
            assert error["errorType"] == "Runtime.InvalidStreamingOperation", wrong
            assert "a media type is at most 256 characters" in error["errorMessage"]
        answer = await api.invoke({"type": longest})
        assert answer.headers["content-type"] == longest
        assert answer.body == b"x"
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.every_way("fresh", "server")
@pytest.mark.parametrize("permissions", ["default", "all"])
async def test_headers_of_a_stream_may_be_longer_than_one_frame(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, permissions: str
) -> None:
    """With ``all`` a frame is no longer than what the kernel keeps in one piece."""
    async with make_runtime(
        {"function.ts": BEGINNINGS},
        "function.http",
        LAMBDA_DENO_PERMISSIONS=permissions,
    ):
        for times in (10, 65_400, 65_480, 200_000):
            answer = await api.invoke({"times": times})
            prelude, _, body = answer.body.partition(b"\0" * 8)
            assert json.loads(prelude)["headers"]["long"] == "x" * times
            assert body == b"body"
        await api.wait_for_next()
