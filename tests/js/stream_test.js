// @ts-check
/** Responses in pieces: when they begin, how they end, what a piece may be. */

import assert from "node:assert/strict";
import { beginJob, MARKER, sayHello } from "./doubles.js";
import {
  bytesOf,
  isStream,
  Sink,
} from "../../src/lambda_deno_spawn/js/src/stream.js";

/** @typedef {import("../../src/lambda_deno_spawn/js/src/job.js").Phase} Phase */

/**
 * Begin a job with a stream, in a process with a socket, which listens for no signal.
 *
 * @param {Parameters<typeof sayHello>[0]} [members]
 */
function begin(members = {}) {
  sayHello({ socket: "/s", invocations: 0, ...members });
  const { job, output } = beginJob();
  return { job, output, sink: new Sink(job) };
}

/** Its phase, which TypeScript does not believe to change. @param {any} job */
const phaseOf = (job) => /** @type {Phase} */ (job.phase);

Deno.test("the first piece goes out with STREAM, by the same call", async () => {
  const { output, sink } = begin();
  sink.contentType = "text/plain";
  await sink.write("first");
  assert.equal(output.writes.length, 1);
  await sink.write("second");
  await sink.end();
  assert.deepEqual(output.frames.map(({ kind, body }) => [kind, body]), [
    ["STREAM", ""],
    ["CHUNK", "first"],
    ["CHUNK", "second"],
    ["END", ""],
    ["DONE", ""],
  ]);
  assert.equal(output.frames[0].contentType, "text/plain");
  assert.deepEqual(output.isLast, [false, false, true]);
});

Deno.test("a stream without a piece has STREAM and END", async () => {
  const { output, sink } = begin();
  await sink.write("");
  await sink.write(new Uint8Array(0));
  assert.equal(output.writes.length, 0);
  await sink.end();
  assert.deepEqual(output.kinds, ["STREAM", "END", "DONE"]);
  assert.equal(output.frames[0].contentType, "application/octet-stream");
});

Deno.test("an HTTP stream begins with its prelude and eight zero bytes", async () => {
  const { output, sink } = begin();
  sink.beginHttp({ statusCode: 201 });
  await sink.write("body");
  const [stream, chunk] = output.frames;
  assert.equal(
    stream.contentType,
    "application/vnd.awslambda.http-integration-response",
  );
  assert.equal(chunk.body, '{"statusCode":201}\0\0\0\0\0\0\0\0body');
  await sink.end();
});

for (const partBytes of [0, 4_096]) {
  Deno.test(`a long piece is cut to chunks, with parts of ${partBytes}`, async () => {
    const { output, sink } = begin({ partBytes });
    sink.beginHttp({ statusCode: 200, headers: { long: "h".repeat(70_000) } });
    await sink.write("x".repeat(200_000));
    await sink.end();
    const { frames } = output;
    const bodies = frames.filter(({ kind }) => kind === "CHUNK");
    for (const { bytes } of bodies) assert.ok(bytes <= 65_536);
    if (partBytes > 0) {
      for (const write of output.writes) assert.ok(write.length <= partBytes);
    }
    const whole = bodies.map(({ body }) => body).join("");
    assert.ok(whole.startsWith('{"statusCode":200'));
    assert.ok(whole.endsWith(`\0${"x".repeat(200_000)}`));
  });
}

Deno.test("pieces keep their order even if they are not awaited", async () => {
  const { output, sink } = begin();
  const { promise, resolve } = Promise.withResolvers();
  output.room = /** @type {Promise<void>} */ (promise);
  const writes = ["a", "b"].map((piece) => sink.write(piece));
  await new Promise((resolve) => setTimeout(resolve));
  // The next one has room at once, and must wait for the one before all the same.
  output.room = Promise.resolve();
  writes.push(sink.write("c"), sink.end());
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK"]);
  resolve(undefined);
  await Promise.all(writes);
  const bodies = output.frames.map(({ body }) => body).join("");
  assert.equal(bodies, "abc");
  assert.equal(output.kinds.at(-2), "END");
});

Deno.test("pump() writes what a source yields, and its end", async () => {
  const { output, job, sink } = begin();
  await sink.pump((async function* () {
    yield "text";
    yield Uint8Array.of(0x31);
    yield new Uint16Array([0x3233]);
    yield new Uint8Array([0x34]).buffer;
  })());
  assert.equal(output.frames.map(({ body }) => body).join(""), "text1324");
  assert.equal(phaseOf(job), "finishing");
});

Deno.test("an error before the first byte is an ordinary error", async () => {
  const { output, sink } = begin();
  // deno-lint-ignore require-yield
  await sink.pump((async function* () {
    throw new RangeError("early");
  })());
  assert.deepEqual(output.kinds, ["ERROR", "DONE"]);
  assert.equal(output.frames[0].errorType, "RangeError");
});

Deno.test("an error after the first byte ends the stream behind its pieces", async () => {
  const { output, sink } = begin();
  await sink.pump((async function* () {
    yield "first";
    throw new RangeError("late");
  })());
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK", "ERROR", "DONE"]);
});

Deno.test("an uncaught error ends a stream that waits for its source", async () => {
  const { output, sink } = begin();
  const pumping = sink.pump((async function* () {
    yield "first";
    await new Promise(() => {});
  })());
  while (output.writes.length === 0) await Promise.resolve();
  sink.reject(new EvalError("elsewhere"));
  await pumping;
  assert.equal(output.frames[2].errorType, "EvalError");
});

Deno.test("nothing is written behind the end", async () => {
  const { output, sink } = begin();
  await sink.write("first");
  await sink.end();
  await sink.write("late");
  await sink.end();
  await sink.fail(new Error("late"));
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK", "END", "DONE"]);
});

Deno.test("a caller who left ends the source, and the stream with END", async () => {
  const { output, job, sink } = begin();
  let isClosed = false;
  const source = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        if (output.writes.length > 0) job.abandon();
        return Promise.resolve({ done: false, value: "piece" });
      },
      return: () => {
        isClosed = true;
        return Promise.resolve({ done: true, value: undefined });
      },
    }),
  };
  await sink.pump(source);
  assert.ok(isClosed);
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK", "END", "DONE"]);
});

/** @type {[string, boolean][]} */
const TYPES = [
  ["text/html; charset=utf-8", true],
  ["x".repeat(256), true],
  ["x".repeat(257), false],
  ["", false],
  [" text/plain", false],
  ["text/plain\r\nx: y", false],
  ["text/\u00fc", false],
];

for (const [type, isLegal] of TYPES) {
  Deno.test(`a stream ${isLegal ? "takes" : "refuses"} the type ${JSON.stringify(type).slice(0, 40)}`, async () => {
    const { output, sink } = begin();
    sink.contentType = type;
    if (isLegal) {
      await sink.write("x");
      assert.equal(output.frames[0].contentType, type);
      return;
    }
    await assert.rejects(sink.write("x"), {
      name: "Runtime.InvalidStreamingOperation",
      message:
        /^Cannot stream as '.*': a media type is at most 256 characters/s,
    });
    assert.equal(output.writes.length, 0);
  });
}

for (const chunk of [null, undefined, 7, { a: 1 }, ["text"], true]) {
  Deno.test(`a piece cannot be ${JSON.stringify(chunk)}`, () => {
    assert.throws(() => bytesOf(chunk), {
      name: "Runtime.InvalidStreamingOperation",
      message:
        /^Cannot stream a chunk of type (null|undefined|number|object|boolean): /,
    });
  });
}

Deno.test("bytesOf() takes the part that a view shows", () => {
  const buffer = Uint8Array.of(1, 2, 3, 4).buffer;
  assert.deepEqual([...bytesOf(new DataView(buffer, 1, 2))], [2, 3]);
  assert.deepEqual([...bytesOf(buffer)], [1, 2, 3, 4]);
  assert.deepEqual([...bytesOf("\u20ac")], [0xe2, 0x82, 0xac]);
});

Deno.test("isStream() knows async iterables, and takes no others", () => {
  assert.ok(isStream(new ReadableStream()));
  assert.ok(isStream((async function* () {})()));
  for (const other of [null, undefined, "text", [], {}, () => {}]) {
    assert.equal(isStream(other), false);
  }
});

Deno.test("the marker in a piece does not end its frame", async () => {
  const { output, sink } = begin();
  await sink.write(`${MARKER}\n${MARKER}{"kind":"DONE","bytes":0}\n`);
  await sink.end();
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK", "END", "DONE"]);
});
