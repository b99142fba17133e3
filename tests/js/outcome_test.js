// @ts-check
/** How a job ends: result or error, work after it, DONE; and uncaught errors. */

import assert from "node:assert/strict";
import { stderr, take } from "./streams.js";
import { beginJob, KeptOutput, sayHello } from "./doubles.js";
import { readEvent } from "../../src/lambda_deno_spawn/js/src/input.js";
import {
  beginLoading,
  currentJob,
  tellApart,
} from "../../src/lambda_deno_spawn/js/src/job.js";
import {
  end,
  fail,
  finish,
  respond,
  resultFrames,
} from "../../src/lambda_deno_spawn/js/src/outcome.js";
import { Sink } from "../../src/lambda_deno_spawn/js/src/stream.js";
import {
  onNothingLeft,
  onUncaughtError,
  onUnhandledRejection,
} from "../../src/lambda_deno_spawn/js/src/uncaught.js";

/** An event for our listeners. @param {object} members */
const eventOf = (members) => /** @type {any} */ ({
  preventDefault() {},
  ...members,
});

Deno.test("a result has DONE behind it, in the same write", async () => {
  sayHello();
  readEvent(0);
  const { job, output } = beginJob();
  respond(job, resultFrames(job, { a: "\u20ac" }));
  await finish(job);
  assert.equal(output.writes.length, 1);
  assert.deepEqual(output.isLast, [true]);
  assert.deepEqual(output.frames, [
    { kind: "RESULT", bytes: 11, body: '{"a":"\u20ac"}' },
    { kind: "DONE", bytes: 0, body: "" },
  ]);
  assert.equal(output.ends, 1);
});

Deno.test("DONE waits for what waitUntil was given, also by what it was given", async () => {
  sayHello({ invocations: 2 });
  const { job, output } = beginJob();
  job.afterwards.push(
    Promise.resolve().then(() => {
      const rejected = Promise.reject(new Error("of the second"));
      rejected.catch(() => {}); // as waitUntil does
      job.afterwards.push(rejected);
    }),
  );
  respond(job, resultFrames(job, undefined));
  assert.deepEqual(output.kinds, ["RESULT"]);
  assert.deepEqual(output.isLast, [false]);
  assert.equal(output.frames[0].body, "null");
  await finish(job);
  assert.deepEqual(output.kinds, ["RESULT", "DONE"]);
  assert.equal(output.frames[1].more, true);
  assert.match(
    take(stderr),
    /waitUntil: a promise was rejected Error: of the second/,
  );
});

Deno.test("DONE waits for what is due, and for what is due then", async () => {
  sayHello();
  readEvent(0);
  const { job, output } = beginJob();
  const ran = /** @type {string[]} */ ([]);
  setImmediate(() => setImmediate(() => ran.push("immediate")));
  setTimeout(() => ran.push("timeout"), 0);
  respond(job, resultFrames(job, 1));
  assert.deepEqual(output.kinds, ["RESULT"]);
  await finish(job);
  assert.deepEqual(ran.sort(), ["immediate", "timeout"]);
  assert.deepEqual(output.kinds, ["RESULT", "DONE"]);
});

/** @type {[string, Parameters<typeof sayHello>[0], boolean, boolean][]} */
const AFTER = [
  ["the only result", { invocations: 1 }, true, false],
  ["the first result of two", { invocations: 2 }, true, true],
  ["the first error of two", { invocations: 2 }, false, false],
  ["a result of a server", { socket: "/s", invocations: 0 }, true, true],
  ["an error of a server", { socket: "/s", invocations: 0 }, false, true],
];

for (const [what, members, isResult, servesMore] of AFTER) {
  Deno.test(`after ${what} the process ${servesMore ? "serves more" : "ends"}`, () => {
    sayHello(members);
    readEvent(0);
    const { job, output } = beginJob();
    if (isResult) respond(job, resultFrames(job, 1));
    else fail(job, new Error("m"));
    end(job);
    assert.equal(output.frames.at(-1)?.more ?? false, servesMore);
    assert.equal(job.servesMore, servesMore);
  });
}

for (
  const [what, value] of /** @type {[string, unknown][]} */ ([
    ["a bigint", 1n],
    ["a hostile toJSON", {
      toJSON() {
        throw new Error("no JSON of me");
      },
    }],
  ])
) {
  Deno.test(`${what} as result is an error that names JSON`, () => {
    sayHello();
    const { job } = beginJob();
    assert.throws(() => resultFrames(job, value), {
      name: "Runtime.JSONStringifyError",
      message: /^Cannot write the handler's result as JSON: /,
    });
  });
}

Deno.test("a result may be as large as the limit, counted in bytes", () => {
  sayHello({ resultLimitBytes: 10 });
  const { job } = beginJob();
  assert.equal(resultFrames(job, "12345678").length, 1);
  assert.throws(() => resultFrames(job, "1234\u20ac\u20ac"), {
    name: "Function.ResponseSizeTooLarge",
    message: /^Cannot return 12 bytes: the limit is 10; /,
  });
});

Deno.test("a job ends once", () => {
  sayHello();
  const { job, output } = beginJob();
  respond(job, resultFrames(job, 1));
  end(job);
  end(job);
  assert.deepEqual(output.kinds, ["RESULT", "DONE"]);
  assert.equal(output.ends, 1);
});

Deno.test("an uncaught error is the response, and the end of the process", () => {
  sayHello({ invocations: 0, socket: "/s" });
  for (
    const [listener, event, type] of /** @type {[any, any, string][]} */ ([
      [onUncaughtError, { error: new EvalError("m") }, "EvalError"],
      [
        onUnhandledRejection,
        { reason: new EvalError("m") },
        "Runtime.UnhandledPromiseRejection",
      ],
    ])
  ) {
    const { job, output } = beginJob();
    listener(eventOf(event));
    assert.deepEqual(output.kinds, ["ERROR", "DONE"]);
    assert.equal(output.frames[0].errorType, type);
    assert.equal(output.frames[1].more, undefined);
    assert.equal(job.phase, "done");
  }
});

Deno.test("an uncaught error while the module loads is its error", () => {
  sayHello();
  const output = new KeptOutput();
  beginLoading(output);
  onUncaughtError(eventOf({ error: new TypeError("at the top") }));
  assert.deepEqual(output.kinds, ["ERROR", "DONE"]);
});

Deno.test("an uncaught error after the response is only logged", async () => {
  sayHello();
  const { job, output } = beginJob();
  respond(job, resultFrames(job, 1));
  onUncaughtError(eventOf({ error: new Error("late") }));
  await finish(job);
  assert.deepEqual(output.kinds, ["RESULT", "DONE"]);
  assert.match(take(stderr), /Uncaught error after the response Error: late/);
});

Deno.test("an uncaught error in a stream waits for the piece that is being written", async () => {
  sayHello({ socket: "/s", invocations: 0 });
  const { job, output } = beginJob();
  const sink = new Sink(job);
  await sink.write("first");
  const writing = sink.write("second");
  onUncaughtError(eventOf({ error: new EvalError("m") }));
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK"]);
  await writing;
  while (output.ends === 0) await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(output.kinds, ["STREAM", "CHUNK", "CHUNK", "ERROR", "DONE"]);
});

Deno.test("a promise that can never settle is an error, once nothing is left", () => {
  sayHello({ invocations: 2 });
  for (const phase of /** @type {const} */ (["running", "streaming"])) {
    const { job, output } = beginJob();
    job.phase = phase;
    onNothingLeft(new Event("beforeunload", { cancelable: true }));
    assert.deepEqual(output.kinds, ["ERROR", "DONE"]);
    assert.equal(output.frames[0].errorType, "Runtime.HandlerNeverSettled");
    assert.equal(output.frames[1].more, undefined);
  }
});

Deno.test("in a process with a socket it is an error too, and the process goes on", () => {
  sayHello({ socket: "/s", invocations: 0 });
  for (const phase of /** @type {const} */ (["running", "finishing"])) {
    const { job, output } = beginJob();
    if (phase === "finishing") {
      job.afterwards.push(new Promise(() => {}));
      respond(job, resultFrames(job, 1));
    }
    const event = new Event("beforeunload", { cancelable: true });
    onNothingLeft(event);
    assert.equal(event.defaultPrevented, true);
    assert.deepEqual(output.kinds, [
      phase === "running" ? "ERROR" : "RESULT",
      "DONE",
    ]);
    assert.equal(output.frames[1].more, true);
  }
  take(stderr);
});

Deno.test("waitUntil work that can never settle is logged, and ends the process", () => {
  sayHello({ invocations: 2 });
  const { job, output } = beginJob();
  job.afterwards.push(new Promise(() => {}));
  respond(job, resultFrames(job, 1));
  onNothingLeft(new Event("beforeunload", { cancelable: true }));
  assert.deepEqual(output.kinds, ["RESULT", "DONE"]);
  assert.equal(output.frames[1].more, undefined);
  assert.match(take(stderr), /WARN\twaitUntil: a promise can never settle/);
});

Deno.test("a module that never loads is left to the supervisor", () => {
  sayHello();
  const output = new KeptOutput();
  beginLoading(output);
  onNothingLeft(new Event("beforeunload", { cancelable: true }));
  assert.deepEqual(output.kinds, []);
});

Deno.test("an error belongs to its own invocation of several, or to all if it has none", () => {
  sayHello({ concurrency: 2, socket: "/s", invocations: 0 });
  let current = /** @type {ReturnType<typeof beginJob>["job"] | undefined} */ (
    undefined
  );
  tellApart(() => current);
  const one = beginJob(), two = beginJob(), three = beginJob();
  current = two.job;
  assert.equal(currentJob(), two.job);
  onUncaughtError(eventOf({ error: new Error("of the second") }));
  assert.deepEqual([one, two, three].map(({ output }) => output.kinds.length), [
    0,
    2,
    0,
  ]);
  current = undefined;
  assert.equal(currentJob(), null);
  onUncaughtError(eventOf({ error: new Error("of all") }));
  assert.deepEqual([one, two, three].map(({ output }) => output.kinds.length), [
    2,
    2,
    2,
  ]);
  const last = beginJob();
  assert.equal(currentJob(), last.job);
  end(last.job);
});
