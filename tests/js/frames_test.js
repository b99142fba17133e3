// @ts-check
/** Frames, compared with the text of docs/protocol.md. */

import assert from "node:assert/strict";
import { limits, stdout, take } from "./streams.js";
import { framesIn, MARKER, sayHello } from "./doubles.js";
import {
  chunkRoom,
  doneFrame,
  emptyFrame,
  frame,
  framesOf,
  writeAll,
} from "../../src/lambda_deno_spawn/js/src/frames.js";
import { write } from "../../src/lambda_deno_spawn/js/src/output.js";

const text = (/** @type {Uint8Array} */ bytes) =>
  new TextDecoder().decode(bytes);
const bytes = (/** @type {string} */ text) => new TextEncoder().encode(text);

Deno.test("frame() is marker, header, newline, body, marker, newline", () => {
  sayHello();
  assert.equal(
    text(frame("READY")),
    `${MARKER}{"kind":"READY","bytes":0}\n${MARKER}\n`,
  );
  assert.equal(
    text(frame("RESULT", bytes('"\u20ac"'), "", doneFrame(false))),
    `${MARKER}{"kind":"RESULT","bytes":5}\n"\u20ac"${MARKER}\n` +
      `${MARKER}{"kind":"DONE","bytes":0}\n${MARKER}\n`,
  );
  assert.equal(
    text(frame("ERROR", bytes("{}"), 'Odd"Name\n')),
    `${MARKER}{"kind":"ERROR","bytes":2,"errorType":"Odd\\"Name\\n"}\n{}${MARKER}\n`,
  );
  assert.equal(
    text(frame("STREAM", undefined, "", "", "text/plain")),
    `${MARKER}{"kind":"STREAM","bytes":0,"contentType":"text/plain"}\n${MARKER}\n`,
  );
});

Deno.test("doneFrame() says whether the process takes another invocation", () => {
  sayHello();
  assert.equal(
    doneFrame(true),
    `${MARKER}{"kind":"DONE","bytes":0,"more":true}\n${MARKER}\n`,
  );
});

Deno.test("framesOf() sends everything in one frame while nothing else can write", () => {
  sayHello({ partBytes: 0 });
  const frames = framesOf("RESULT", new Uint8Array(1_000_000), "", "");
  assert.equal(frames.length, 1);
});

for (const length of [0, 1, 3_583, 3_584, 3_585, 10_000]) {
  Deno.test(`framesOf() keeps a result of ${length} bytes in writes of 4096`, () => {
    sayHello({ partBytes: 4_096 });
    const body = bytes("x".repeat(length));
    const behind = emptyFrame("LAST") + doneFrame(true);
    const frames = framesOf("RESULT", body, "", behind);
    for (const one of frames) assert.ok(one.length <= 4_096);
    const parts = frames.flatMap(framesIn);
    assert.equal(parts.map(({ body }) => body).join(""), text(body));
    const kinds = parts.map(({ kind }) => kind);
    assert.deepEqual(kinds.splice(-3), ["RESULT", "LAST", "DONE"]);
    assert.ok(kinds.every((kind) => kind === "PART"));
    assert.equal(kinds.length, Math.max(0, Math.ceil(length / 3_584) - 1));
  });
}

Deno.test("framesOf() has room for the longest error type", () => {
  sayHello({ partBytes: 4_096 });
  const frames = framesOf(
    "ERROR",
    bytes("x".repeat(3_584)),
    "N".repeat(128),
    emptyFrame("LAST") + doneFrame(true),
  );
  assert.equal(frames.length, 1);
  assert.ok(frames[0].length <= 4_096);
});

Deno.test("chunkRoom() is what a pipe holds, or what one write of it takes", () => {
  sayHello({ partBytes: 0 });
  assert.equal(chunkRoom(), 65_536);
  sayHello({ partBytes: 4_096 });
  assert.equal(chunkRoom(), 3_584);
});

Deno.test("write() goes on where a short write has ended", () => {
  sayHello();
  limits.writeBytes = 7;
  write(frame("READY"));
  limits.writeBytes = Infinity;
  assert.ok(stdout.length > 1);
  assert.equal(take(stdout), text(frame("READY")));
});

Deno.test("writeAll() writes nothing of nothing", () => {
  writeAll(() => assert.fail("it was called"), new Uint8Array(0));
});
