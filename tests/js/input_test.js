// @ts-check
/** What stdin brings, in whatever pieces the pipe gives. */

import assert from "node:assert/strict";
import { stdin } from "./streams.js";
import { sayHello } from "./doubles.js";
import {
  decode,
  hello,
  invocationsLeft,
  readEvent,
  readExactly,
  readLine,
  receiveHello,
} from "../../src/lambda_deno_spawn/js/src/input.js";

/**
 * @param {string} text
 * @param {number} step Bytes of each read.
 */
function send(text, step) {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += step) {
    stdin.push(bytes.subarray(at, at + step));
  }
}

/** @param {Uint8Array | null} bytes */
const shown = (bytes) => bytes && new TextDecoder().decode(bytes);

for (const step of [1, 2, 7, 65_536, 200_000]) {
  Deno.test(`lines and events survive reads of ${step} bytes`, () => {
    const long = "\u00e9".repeat(Math.min(50 * step, 70_000));
    send(`first\n{"\u20ac":1}${long}\n\nlast\n`, step);
    assert.equal(readLine(), "first");
    assert.equal(shown(readExactly(9)), '{"\u20ac":1}');
    assert.equal(readLine(), long);
    assert.equal(readLine(), "");
    assert.equal(shown(readExactly(0)), "");
    assert.equal(shown(readExactly(5)), "last\n");
    assert.equal(readLine(), null);
  });
}

Deno.test("an event that was cut off is none, and is not counted", () => {
  sayHello({ invocations: 2 });
  send("12345", 3);
  assert.equal(shown(readEvent(4)), "1234");
  assert.equal(invocationsLeft, 1);
  assert.equal(readEvent(2), null);
  assert.equal(invocationsLeft, 1);
});

Deno.test("decode() refuses what is not UTF-8 and takes U+FFFD that was sent", () => {
  const encoder = new TextEncoder();
  assert.equal(decode(encoder.encode("a\ufffdb")), "a\ufffdb");
  assert.equal(decode(Uint8Array.of(0xef, 0xbb, 0xbf, 0x31)), "1");
  for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x61, 0x80]]) {
    assert.throws(() => decode(Uint8Array.from(bytes)), TypeError);
  }
});

Deno.test("HELLO of another version is refused, and 0 invocations mean no limit", () => {
  assert.throws(
    () => receiveHello('{"version":1}'),
    new Error("Cannot speak protocol 1: this is 3"),
  );
  sayHello({ invocations: 0, module: "/task/a.ts" });
  assert.equal(invocationsLeft, Infinity);
  assert.equal(hello.module, "/task/a.ts");
});
