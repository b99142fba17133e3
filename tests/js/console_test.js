// @ts-check
/** What a handler prints becomes a record; what it reads is at its end. */

import assert from "node:assert/strict";
import { stderr, stdout, take } from "./streams.js";
import { beginJob, KeptOutput, MARKER, sayHello } from "./doubles.js";
import { log, reroute } from "../../src/lambda_deno_spawn/js/src/console.js";
import { ourFiles } from "../../src/lambda_deno_spawn/js/src/errors.js";
import { beginLoading } from "../../src/lambda_deno_spawn/js/src/job.js";
import { end } from "../../src/lambda_deno_spawn/js/src/outcome.js";

/** @returns {{ text: string, fields: string[] }} The one record that was written. */
function record() {
  const written = take(stderr);
  assert.ok(written.startsWith(MARKER), written);
  assert.equal(written.indexOf("\n"), written.length - 1, written);
  const text = written.slice(MARKER.length, -1);
  return { text, fields: text.split("\t") };
}

/** @returns {any} The one record that was written. */
const json = () => JSON.parse(record().text);

/** @param {() => void} work @param {Record<string, string>} [head] */
function within(work, head = {}) {
  const { job } = beginJob(head);
  try {
    work();
  } finally {
    end(job);
  }
}

Deno.test("a record in text has time, request, level and message", () => {
  sayHello();
  within(() => log("INFO", ["several", { a: 1 }, "words"]));
  const { fields } = record();
  assert.match(fields[0], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(fields.slice(1), [
    "request-1",
    "INFO",
    "several { a: 1 } words",
  ]);
});

Deno.test("a record in text names the tenant, and keeps its lines together", () => {
  sayHello();
  within(() => log("WARN", ["one\ntwo"]), { tenantId: "blue" });
  assert.deepEqual(record().fields.slice(1), [
    "request-1",
    "WARN",
    "TenantId: blue",
    "one\rtwo",
  ]);
});

Deno.test("a record in text is cut at 262,144 characters", () => {
  sayHello();
  log("INFO", ["x".repeat(300_000)]);
  assert.equal(record().fields.at(-1)?.length, 262_144);
});

Deno.test("a record advises on a denied access and hides our own stack frames", () => {
  sayHello();
  log("INFO", [
    'Requires run access to "git", run again with the --allow-run flag',
  ]);
  assert.match(
    record().text,
    /: set LAMBDA_DENO_PERMISSIONS="default --allow-run=git"/,
  );
  log("INFO", [
    `Error: m\n    at a (file:///f.ts:1:1)\n    at b (${ourFiles()}x.js:1:1)`,
  ]);
  assert.match(record().text, /at a \(file:\/\/\/f\.ts:1:1\)$/);
});

Deno.test("a record in JSON keeps a single value, and formats several", () => {
  sayHello({ logFormat: "json" });
  within(() => log("INFO", [{ a: [1] }]), { tenantId: "blue" });
  const one = json();
  assert.match(one.timestamp, /Z$/);
  assert.deepEqual({ ...one, timestamp: "" }, {
    timestamp: "",
    level: "INFO",
    requestId: "request-1",
    tenantId: "blue",
    message: { a: [1] },
  });
  log("INFO", ["%s and", 2, 3]);
  assert.equal(json().message, "2 and 3");
});

Deno.test("a record in JSON describes an error as an error body does", () => {
  sayHello({ logFormat: "json" });
  log("ERROR", [new TypeError("alone")]);
  const { message } = json();
  assert.equal(message.errorType, "TypeError");
  assert.equal(message.errorMessage, "alone");
  log("ERROR", ["it failed", new RangeError("beside")]);
  const several = json();
  assert.match(several.message, /^it failed RangeError: beside/);
  assert.equal(several.errorType, "RangeError");
  assert.ok(Array.isArray(several.stackTrace));
});

for (
  const [level, written] of /** @type {const} */ ([
    ["TRACE", false],
    ["DEBUG", false],
    ["INFO", false],
    ["WARN", true],
    ["ERROR", true],
    ["FATAL", true],
  ])
) {
  Deno.test(`a level of WARN ${written ? "writes" : "drops"} ${level} in JSON only`, () => {
    sayHello({ logFormat: "json", logLevel: "WARN" });
    log(level, ["m"]);
    assert.equal(take(stderr) !== "", written);
    sayHello({ logFormat: "text", logLevel: "WARN" });
    log(level, ["m"]);
    assert.notEqual(take(stderr), "");
  });
}

Deno.test("what JSON cannot hold, or the log cannot, is written as text", () => {
  sayHello({ logFormat: "json" });
  const circle = /** @type {any} */ ({});
  circle.self = circle;
  log("INFO", [circle]);
  assert.match(json().message, /Circular/);
  log("INFO", [2n]);
  assert.equal(json().message, "2n");
  log("INFO", [{ long: "x".repeat(300_000) }]);
  assert.match(json().message, /^\{\s+long: "x+/);
});

Deno.test("a value that breaks its printer is still a record", () => {
  sayHello();
  const hostile = new Proxy({}, {
    getPrototypeOf() {
      throw new Error("trap");
    },
  });
  log("INFO", [hostile]);
  assert.equal(record().fields[2], "INFO");
});

/** The rest works on this process's own console and streams, which stay rerouted. */
const rerouted = (/** @type {Parameters<typeof sayHello>[0]} */ members) => {
  sayHello(members);
  beginLoading(new KeptOutput());
  reroute();
};

for (
  const [method, level] of /** @type {const} */ ([
    ["debug", "DEBUG"],
    ["log", "INFO"],
    ["info", "INFO"],
    ["warn", "WARN"],
    ["error", "ERROR"],
  ])
) {
  Deno.test(`console.${method}() is a record of level ${level} in both formats`, () => {
    rerouted({});
    console[method]("a %s", "b");
    assert.deepEqual(record().fields.slice(1), ["-", level, "a b"]);
    rerouted({ logFormat: "json" });
    console[method]({ a: 1 });
    const { level: shown, message } = json();
    assert.deepEqual([shown, message], [level, { a: 1 }]);
  });
}

Deno.test("other methods of the console keep their behaviour", () => {
  rerouted({});
  console.table([{ a: 1 }]);
  assert.match(record().text, /INFO\t.* a .*\r.* 1 /s);
  console.group("outer");
  console.log("inner");
  console.groupEnd();
  assert.match(take(stderr), /outer\n.*INFO\t {2,4}inner\n$/);
  console.assert(false, "so");
  assert.match(record().text, /ERROR\tAssertion failed: so$/);
  console.clear();
  assert.equal(take(stderr), "");
});

Deno.test("stdout goes to the log in every way, and never to the frames", async () => {
  rerouted({});
  const bytes = new TextEncoder().encode("rubbish");
  assert.equal(Deno.stdout.writeSync(bytes), 7);
  assert.equal(await Deno.stdout.write(bytes), 7);
  const writer = Deno.stdout.writable.getWriter();
  await writer.write(bytes);
  Deno.stdout.close();
  assert.equal(take(stderr), "rubbishrubbishrubbish");
  assert.equal(take(stdout), "");
});

Deno.test("stdin is at its end in every way", async () => {
  rerouted({});
  const buffer = new Uint8Array(1);
  assert.equal(Deno.stdin.readSync(buffer), null);
  assert.equal(await Deno.stdin.read(buffer), null);
  assert.deepEqual(await Array.fromAsync(Deno.stdin.readable), []);
  Deno.stdin.close();
});

Deno.test("nothing that is stored is kept on disk", () => {
  rerouted({});
  assert.equal(globalThis.localStorage, sessionStorage);
  assert.equal("caches" in globalThis, false);
});

Deno.test("a record in JSON keeps the members of errors, at any depth", () => {
  sayHello({ logFormat: "json" });
  const error = Object.assign(new Error("m"), { code: "E1", level: "FATAL" });
  log("ERROR", [error]);
  assert.equal(json().message.code, "E1");
  log("ERROR", ["it failed", error]);
  const several = json();
  assert.deepEqual([several.code, several.level], ["E1", "ERROR"]);
  const inner = Object.assign(new RangeError("inner"), {
    toJSON: () => ({}),
    error,
  });
  log("ERROR", [{ at: new Date(0), a: { b: [inner] } }]);
  const { message } = json();
  assert.equal(message.at, "1970-01-01T00:00:00.000Z");
  const [described] = message.a.b;
  assert.equal(described.errorType, "RangeError");
  assert.equal(described.error.errorMessage, "m");
  assert.equal(described.error.code, "E1");
});

Deno.test("errors that go in circles, or are many, are still a record in JSON", () => {
  sayHello({ logFormat: "json" });
  const error = /** @type {any} */ (new Error("m"));
  error.self = error;
  log("ERROR", [{ error }]);
  assert.equal(json().message.error.self, "[Circular]");
  log("ERROR", [Array.from({ length: 100 }, () => new Error("m"))]);
  assert.equal(json().message.length, 100);
});

Deno.test("lines of a stack in the runtime's files are left out, however they begin", () => {
  sayHello();
  const path = ourFiles().slice("file://".length);
  log("ERROR", [
    `Error: m\n  at run (${ourFiles()}run.js:1:1)\n  at start (${path}main.js:1:1)\n` +
    `  at mine (/var/task/a.ts:1:1)\nread ${path}main.js`,
  ]);
  assert.match(
    record().text,
    /ERROR\tError: m\r {2}at mine \(\/var\/task\/a\.ts:1:1\)\rread \/.*main\.js$/,
  );
});

Deno.test("a line that only has a stack inside is kept, such as JSON", () => {
  sayHello();
  const error = { stack: `Error: m\n    at run (${ourFiles()}run.js:1:1)` };
  const line = JSON.stringify(error);
  log("ERROR", [line]);
  assert.equal(record().fields.at(-1), line);
  log("ERROR", [`\x1b[90m    at \x1b[39mrun (${ourFiles()}run.js:1:1)\nnext`]);
  assert.equal(record().fields.at(-1), "next");
});

Deno.test("members of an error keep their brace when our frames are left out", () => {
  sayHello();
  const ours = import.meta.resolve("../../src/lambda_deno_spawn/js/src/run.js");
  log("ERROR", [
    `Error: m\n    at a (file:///f.ts:1:1)\n    at run (${ours}:1:1) {\n  code: 1\n}`,
  ]);
  assert.match(
    record().text,
    /a \(file:\/\/\/f\.ts:1:1\) \{\r {2}code: 1\r\}$/,
  );
});

Deno.test("console.fatal() is there, as in Node's runtime", () => {
  const own = { ...console };
  sayHello({ logFormat: "json" });
  try {
    reroute();
    /** @type {any} */ (console).fatal("lost", 1);
  } finally {
    Object.assign(console, own);
  }
  const { level, message } = json();
  assert.deepEqual([level, message], ["FATAL", "lost 1"]);
});
