// @ts-check
/** Who listens for the end of a process, and how the end comes. */

import assert from "node:assert/strict";
import process from "node:process";
import { stderr, stdout, take } from "./streams.js";
import { exits, nextExit } from "./exits.js";
import { beginJob, framesIn, MARKER, sayHello } from "./doubles.js";
import { NOWHERE } from "../../src/lambda_deno_spawn/js/src/output.js";
import {
  onNothingLeft,
  onUnhandledRejection,
} from "../../src/lambda_deno_spawn/js/src/uncaught.js";

/** @typedef {typeof import("../../src/lambda_deno_spawn/js/src/ending.js")} Ending */

const LAST = `${MARKER}{"kind":"LAST","bytes":0}\n${MARKER}\n`;
const nothing = () => {};
let copies = 0;
// @ts-ignore not part of the public types
const internals = Deno[Deno.internal];

/**
 * @returns {Promise<Ending>} A process of its own, as far as its end is concerned.
 */
async function anotherProcess() {
  sayHello();
  copies += 1;
  const path = "../../src/lambda_deno_spawn/js/src/ending.js";
  const ending = await import(`${path}?${copies}`);
  ending.watchForListeners();
  // The test's own process goes on.
  internals.dispatchProcessExitEvent = () => process.emit("exit", 0);
  return ending;
}

/**
 * Wait until there were so many exits. A timer that ends a process, left behind, would
 * end the process of the next test.
 *
 * @param {number} count
 */
async function untilExits(count) {
  while (exits.count < count) await nextExit();
}

/** @type {[string, () => void, () => void][]} */
const LISTENERS = [
  [
    "unload",
    () => addEventListener("unload", nothing),
    () => removeEventListener("unload", nothing),
  ],
  [
    "onunload",
    () => globalThis.onunload = nothing,
    () => {
      removeAllOf("unload");
    },
  ],
  [
    "beforeunload",
    () => addEventListener("beforeunload", nothing),
    () => removeEventListener("beforeunload", nothing),
  ],
  [
    "process.on exit",
    () => process.on("exit", nothing),
    () => process.off("exit", nothing),
  ],
  [
    "process.once beforeExit",
    () => process.once("beforeExit", nothing),
    () => process.off("beforeExit", nothing),
  ],
  [
    "process.on SIGTERM",
    () => process.on("SIGTERM", nothing),
    () => process.off("SIGTERM", nothing),
  ],
  [
    "Deno.addSignalListener",
    () => Deno.addSignalListener("SIGTERM", nothing),
    () => Deno.removeSignalListener("SIGTERM", nothing),
  ],
];

/**
 * Empty a list of Deno's that a handler attribute is in: setting it to null keeps it.
 *
 * @param {string} type
 */
function removeAllOf(type) {
  /** @type {Record<symbol, any>} */
  const global = globalThis;
  for (const symbol of Object.getOwnPropertySymbols(globalThis)) {
    if (global[symbol]?.listeners) global[symbol].listeners[type] = [];
  }
}

for (const [name, listen, leave] of LISTENERS) {
  Deno.test(`the supervisor is told, once, of a listener: ${name}`, async () => {
    const ending = await anotherProcess();
    assert.equal(ending.announcement(beginJob().job), "");
    assert.equal(ending.isAwaited(), false);
    listen();
    try {
      assert.equal(ending.announcement(beginJob().job), LAST);
      assert.equal(ending.isAwaited(), true);
      assert.equal(ending.announcement(beginJob().job), "");
    } finally {
      leave();
    }
  });

  Deno.test(`nothing is told of a listener that is gone: ${name}`, async () => {
    const ending = await anotherProcess();
    listen();
    leave();
    assert.equal(ending.announcement(beginJob().job), "");
  });
}

Deno.test("a listener for another signal, or an accident, is not a listener for the end", async () => {
  const ending = await anotherProcess();
  Deno.addSignalListener("SIGUSR1", nothing);
  process.on("unhandledRejection", nothing);
  addEventListener("error", nothing);
  try {
    assert.equal(ending.announcement(beginJob().job), "");
    ending.noteAccident();
    assert.equal(
      ending.announcement(beginJob().job),
      LAST,
      "an accident has happened",
    );
  } finally {
    Deno.removeSignalListener("SIGUSR1", nothing);
    process.off("unhandledRejection", nothing);
    removeEventListener("error", nothing);
  }
});

Deno.test("what nothing reads tells nothing", async () => {
  const ending = await anotherProcess();
  addEventListener("unload", nothing);
  try {
    const { job } = beginJob();
    assert.equal(
      ending.announcement(Object.assign(job, { output: NOWHERE })),
      "",
    );
    assert.equal(ending.isAwaited(), false);
  } finally {
    removeEventListener("unload", nothing);
  }
});

Deno.test("an accident that nothing listens for leaves nothing to wait for", async () => {
  const ending = await anotherProcess();
  ending.noteAccident();
  assert.equal(ending.announcement(beginJob().job), "");
});

Deno.test("without time for last words there are none", async () => {
  const ending = await anotherProcess();
  sayHello({ lastWordsMs: 0 });
  addEventListener("unload", nothing);
  try {
    ending.noteAccident();
    assert.equal(ending.announcement(beginJob().job), "");
  } finally {
    removeEventListener("unload", nothing);
  }
});

Deno.test("the process exits at once if listeners have no time to ask for, but not before those of now are heard", async () => {
  const ending = await anotherProcess();
  /** @type {string[]} */
  const heard = [];
  const listener = () => heard.push("exit");
  process.on("exit", listener);
  try {
    const exited = nextExit();
    ending.endProgram(60_000);
    assert.equal(ending.hasEnded(), true);
    assert.deepEqual(heard, []);
    await exited;
    assert.deepEqual(heard, ["exit"]);
  } finally {
    process.off("exit", listener);
  }
});

Deno.test("what is still open after half of the time is told, and exits after all of it", async () => {
  const ending = await anotherProcess();
  /** @type {string[]} */
  const heard = [];
  const onSigterm = () => {
    heard.push("SIGTERM");
    throw new Error("of a listener");
  };
  const onBeforeUnload = () => heard.push("beforeunload");
  const onBeforeExit = () => heard.push("beforeExit");
  Deno.addSignalListener("SIGTERM", onSigterm);
  addEventListener("beforeunload", onBeforeUnload);
  process.on("beforeExit", onBeforeExit);
  const open = setInterval(nothing, 60_000);
  try {
    const exited = nextExit();
    ending.endProgram(20);
    await exited;
    assert.deepEqual(heard, ["SIGTERM", "beforeunload", "beforeExit"]);
    const said = take(stderr);
    assert.match(said, /Uncaught error at the end of the process Error: of a/);
    assert.match(said, /WARN\tThe program listens for its end, and something/);
  } finally {
    clearInterval(open);
    Deno.removeSignalListener("SIGTERM", onSigterm);
    removeEventListener("beforeunload", onBeforeUnload);
    process.off("beforeExit", onBeforeExit);
  }
});

Deno.test("a second end can only come sooner", async () => {
  const ending = await anotherProcess();
  const count = exits.count;
  const exited = nextExit();
  ending.endProgram(60_000, true);
  ending.endProgram(1, true, true);
  await exited;
  assert.equal(exits.count, count + 1);
  ending.endProgram(0, true, true);
  await untilExits(count + 2);
  take(stderr);
});

Deno.test("where Deno has told of the end, the process exits", async () => {
  const ending = await anotherProcess();
  /** @type {string[]} */
  const heard = [];
  const { count } = exits;
  const listener = () => {
    heard.push("exit");
    throw new Error("of a listener");
  };
  process.on("exit", listener);
  try {
    ending.endProgram(60_000, true);
    const exited = nextExit();
    internals.dispatchProcessExitEvent(); // as Deno does
    await exited;
    assert.deepEqual(heard, ["exit"]);
    take(stderr);
  } finally {
    process.off("exit", listener);
    ending.endProgram(0, true, true); // in place of the timer of 60 s
    await untilExits(count + 2);
  }
});

Deno.test("what serves stops at the end", async () => {
  const ending = await anotherProcess();
  let stopped = 0;
  ending.beforeTheEnd(() => stopped += 1);
  const { count } = exits;
  ending.endProgram(0);
  ending.endProgram(0);
  await untilExits(count + 2); // when it was told, and when its time is over
  assert.equal(stopped, 1);
});

Deno.test("last words have a part of the time until the deadline", async () => {
  const ending = await anotherProcess();
  const { job } = beginJob({ deadlineEpochMs: Date.now() + 1_500 });
  const ms = ending.timeLeftMs(job);
  assert.ok(ms > 300 && ms <= 900, `${ms}`);
  const late = beginJob({ deadlineEpochMs: Date.now() - 500 });
  assert.equal(ending.timeLeftMs(late.job), 0);
  const early = beginJob({ deadlineEpochMs: Date.now() + 3_600_000 });
  assert.equal(ending.timeLeftMs(early.job), 1000, "lastWordsMs");
});

Deno.test("an unhandled rejection is the response, and Node's listener is told", () => {
  sayHello({ socket: "/s", invocations: 0 });
  /** @type {unknown[]} */
  const heard = [];
  const listener = (/** @type {unknown} */ reason) => {
    heard.push(reason);
    throw new Error("of the listener");
  };
  process.on("unhandledRejection", listener);
  try {
    const { output } = beginJob();
    const reason = new RangeError("m");
    const event = new PromiseRejectionEvent("unhandledrejection", {
      cancelable: true,
      promise: Promise.resolve(),
      reason,
    });
    onUnhandledRejection(event);
    assert.deepEqual(output.kinds, ["ERROR", "LAST", "DONE"]);
    assert.equal(
      output.frames[0].errorType,
      "Runtime.UnhandledPromiseRejection",
    );
    assert.deepEqual(heard, [reason]);
    assert.match(take(stderr), /in a listener for rejections Error: of the/);
  } finally {
    process.off("unhandledRejection", listener);
  }
});

Deno.test("an event loop that is empty at the end is no accident", async () => {
  const { endProgram } = await import(
    "../../src/lambda_deno_spawn/js/src/ending.js"
  );
  sayHello();
  const { job, output } = beginJob();
  const { count } = exits;
  endProgram(0);
  onNothingLeft(new Event("beforeunload"));
  assert.equal(job.phase, "running");
  assert.deepEqual(output.kinds, []);
  await untilExits(count + 1);
  assert.deepEqual(framesIn(stdout.splice(0)[0] ?? new Uint8Array(0)), []);
});
