// @ts-check
/** How handlers end: by results, promises, callbacks and their context. */

import assert from "node:assert/strict";
import { beginJob, headOf, sayHello } from "./doubles.js";
import { adapt } from "../../src/lambda_deno_spawn/js/src/handlers.js";
import { run } from "../../src/lambda_deno_spawn/js/src/run.js";
import { onNothingLeft } from "../../src/lambda_deno_spawn/js/src/uncaught.js";

/** @typedef {(event: any, context: any, callback: any) => unknown} Older */

/** Let promises go on. */
const settle = async () => {
  for (let times = 0; times < 3; times += 1) {
    await new Promise((resolve) => setTimeout(resolve));
  }
};

/** The event loop is empty. @returns {boolean} True if it is to go on. */
function emptyLoop() {
  let isKept = false;
  onNothingLeft(/** @type {any} */ ({ preventDefault: () => (isKept = true) }));
  return isKept;
}

/**
 * Call a handler, and tell when it has answered.
 *
 * @param {Older} handler
 * @param {Parameters<typeof sayHello>[0]} [hello]
 * @returns {Promise<{ answer: () => any, ended: Promise<void> }>}
 */
async function call(handler, hello) {
  sayHello(hello);
  const adapted = await adapt({ handler }, "handler");
  const head = { abortEpochMs: Date.now() + 60_000 };
  const { job, output } = beginJob(head);
  const bytes = new TextEncoder().encode("{}");
  const ended = run(job, adapted, headOf(head), bytes);
  await settle();
  return {
    ended,
    answer() {
      const [frame] = output.frames.filter(({ kind }) => kind !== "DONE");
      if (frame === undefined) return "nothing yet";
      const body = JSON.parse(frame.body.split("\n")[0]);
      return frame.kind === "ERROR"
        ? [body.errorType, body.errorMessage]
        : body;
    },
  };
}

/** What answers at once. @type {[string, Older, unknown][]} */
const AT_ONCE = [
  ["a value", () => 1, 1],
  ["null", () => null, null],
  ["false", () => false, false],
  ["a promise", () => Promise.resolve(2), 2],
  ["a promise of nothing", async () => {}, null],
  ["a thenable", () => ({ then: (/** @type {any} */ go) => go(3) }), 3],
  ["context.done", (_, context) => context.done(null, 4), 4],
  ["context.done of nothing", (_, context) => context.done(), null],
  ["context.succeed", (_, context) => context.succeed(5), 5],
  ["context.fail", (_, context) => context.fail(new RangeError("m")), [
    "RangeError",
    "m",
  ]],
  ["context.fail of nothing", (_, context) => context.fail(), [
    "string",
    "handled",
  ]],
  ["context.done of an error", (_, context) => context.done("m", 1), [
    "string",
    "m",
  ]],
  [
    "an error for the callback",
    (_, _context, callback) => callback(new RangeError("m"), 1),
    ["RangeError", "m"],
  ],
  ["an error that is thrown", () => {
    throw new RangeError("m");
  }, ["RangeError", "m"]],
  ["a promise that rejects", () => Promise.reject(new RangeError("m")), [
    "RangeError",
    "m",
  ]],
  ["a callback that is not to wait", (_, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    callback(null, 6);
  }, 6],
  ["one that is not to wait, set where it is inherited", (
    _,
    context,
    callback,
  ) => {
    Object.create(context).callbackWaitsForEmptyEventLoop = false;
    callback(null, 7);
  }, 7],
  // By two ways: the first counts.
  ["done, then a value", (_, context) => {
    context.done(null, 1);
    return 2;
  }, 1],
  ["done, then a promise", async (_, context) => {
    await null;
    context.done(null, 1);
    return 2;
  }, 1],
  ["done, then an error", (_, context) => {
    context.succeed(1);
    throw new Error("m");
  }, 1],
  ["a promise, then done", (_, context) => {
    setTimeout(() => context.fail(new Error("m")));
    return Promise.resolve(1);
  }, 1],
  ["fail, then succeed", (_, context) => {
    context.fail("m");
    context.succeed(1);
  }, ["string", "m"]],
  ["a value of a function with rest parameters", (...args) => args.length, 3],
  ["a callback behind a default", (_, context, callback = null) => {
    context.callbackWaitsForEmptyEventLoop = false;
    callback(null, 8);
  }, 8],
];

for (const [what, handler, expected] of AT_ONCE) {
  Deno.test(`a handler may end by ${what}`, async () => {
    const { answer, ended } = await call(handler);
    await ended;
    assert.deepEqual(answer(), expected);
    assert.equal(emptyLoop(), false);
    assert.deepEqual(answer(), expected);
  });
}

/** What answers when the event loop is empty. @type {[string, Older, unknown][]} */
const WHEN_EMPTY = [
  ["nothing", () => {}, null],
  ["a callback", (_, _context, callback) => callback(null, 1), 1],
  ["a callback of nothing", (_, _context, callback) => callback(), null],
  ["a callback that is one of the rest", (...args) => args[2](null, 2), 2],
  ["a callback, and then others", (_, context, callback) => {
    callback(null, 3);
    callback(null, 4);
    callback(new Error("m"));
    context.done(null, 5);
    context.fail(new Error("m"));
  }, 3],
  ["a callback, then a promise", (_, _context, callback) => {
    callback(null, 4);
    return Promise.resolve(5);
  }, 4],
  ["a callback, then a promise that rejects", (_, _context, callback) => {
    callback(null, 5);
    return Promise.reject(new Error("m"));
  }, 5],
  ["a callback, then an error", (_, _context, callback) => {
    callback(null, 6);
    throw new Error("m");
  }, 6],
  [
    "a value beside a callback that is not called",
    (_, _context, _callback) => 7,
    null,
  ],
  ["a timer that calls nothing", () => setTimeout(() => {}), null],
  ["a callback of a timer", (...args) => setTimeout(() => args[2](null, 8)), 8],
  ["too late a setting", (_, context, callback) => {
    callback(null, 9);
    context.callbackWaitsForEmptyEventLoop = false;
  }, 9],
];

for (const [what, handler, expected] of WHEN_EMPTY) {
  Deno.test(`a handler that ends by ${what} is answered when the loop is empty`, async () => {
    const { answer, ended } = await call(handler);
    assert.equal(answer(), "nothing yet");
    assert.equal(emptyLoop(), true);
    await ended;
    assert.deepEqual(answer(), expected);
    assert.equal(emptyLoop(), false);
  });
}

Deno.test("context.done of a timer comes before the empty loop", async () => {
  const { answer, ended } = await call((_, context) =>
    setTimeout(() => context.done(null, 1), 1)
  );
  await ended;
  assert.equal(answer(), 1);
});

Deno.test("a promise that never settles is an error, whatever else there is", async () => {
  const { answer } = await call((_, _context, _callback) =>
    new Promise(() => {})
  );
  assert.equal(emptyLoop(), false);
  assert.equal(answer()[0], "Runtime.HandlerNeverSettled");
});

Deno.test("a callback may be given a promise or a Response", async () => {
  const promised = await call((_, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    callback(null, Promise.resolve(1));
  });
  await promised.ended;
  assert.equal(promised.answer(), 1);
});

Deno.test("invocations that share an event loop do not wait until it is empty", async () => {
  const shared = { concurrency: 2, socket: "/s" };
  for (
    const [handler, expected] of /** @type {[Older, unknown][]} */ ([
      [() => {}, null],
      [(_, _context, callback) => callback(null, 1), 1],
      [(_, _context, callback) => void setTimeout(() => callback(null, 2)), 2],
    ])
  ) {
    const { answer, ended } = await call(handler, shared);
    await ended;
    assert.equal(answer(), expected);
  }
});
