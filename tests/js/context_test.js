// @ts-check
/** The context object of a handler. */

import assert from "node:assert/strict";
import { beginJob, headOf, sayHello } from "./doubles.js";
import {
  makeContext,
  setTraceId,
} from "../../src/lambda_deno_spawn/js/src/context.js";
import { end } from "../../src/lambda_deno_spawn/js/src/outcome.js";

/** @param {Parameters<typeof headOf>[0]} [members] */
function contextOf(members = {}) {
  const head = headOf(members);
  const { job } = beginJob(members);
  return { job, context: /** @type {any} */ (makeContext(job, head)) };
}

Deno.test("a context has what HELLO and INVOKE say", () => {
  sayHello({ context: { functionName: "orders", functionVersion: "3" } });
  const { context } = contextOf({
    traceId: "Root=1",
    tenantId: "blue",
    clientContext: '{"custom":{"a":1}}',
    identity: '{"cognitoIdentityId":"x"}',
  });
  const { getRemainingTimeInMillis: _, waitUntil: __, ...facts } = context;
  assert.deepEqual({ ...facts, signal: null }, {
    functionName: "orders",
    functionVersion: "3",
    awsRequestId: "request-1",
    invokedFunctionArn: "arn:aws:lambda:eu-west-1:1:function:test",
    clientContext: { custom: { a: 1 } },
    identity: { cognitoIdentityId: "x" },
    tenantId: "blue",
    xRayTraceId: "Root=1",
    callbackWaitsForEmptyEventLoop: true,
    signal: null,
  });
});

Deno.test("what INVOKE does not have is undefined, as in Node's runtime", () => {
  sayHello();
  const { context } = contextOf();
  for (const name of ["clientContext", "identity", "tenantId", "xRayTraceId"]) {
    assert.equal(context[name], undefined);
    assert.ok(name in context);
  }
});

for (const name of /** @type {const} */ (["clientContext", "identity"])) {
  Deno.test(`${name} that is not JSON is named, and shown by its beginning`, () => {
    sayHello();
    assert.throws(() => contextOf({ [name]: `{${"x".repeat(100)}` }), {
      name: "Runtime.LambdaContextUnmarshalError",
      message: new RegExp(`as JSON: it begins with '\\{x{63}'$`),
    });
  });
}

Deno.test("the remaining time is that to the deadline, and never negative", () => {
  sayHello();
  const { context } = contextOf({ deadlineEpochMs: Date.now() + 60_000 });
  const left = context.getRemainingTimeInMillis();
  assert.ok(left > 50_000 && left <= 60_000);
  const late = contextOf({ deadlineEpochMs: Date.now() - 1 });
  assert.equal(late.context.getRemainingTimeInMillis(), 0);
});

Deno.test("waitUntil() keeps promises and values, until the invocation is done", async () => {
  sayHello();
  const { context, job } = contextOf();
  context.waitUntil(Promise.reject(new Error("handled by finish")));
  context.waitUntil("a value");
  assert.equal(job.afterwards.length, 2);
  // Time enough for a rejection to be reported as unhandled, which fails a test.
  await new Promise((resolve) => setTimeout(resolve, 5));
  const outcomes = await Promise.allSettled(job.afterwards);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["rejected", "fulfilled"],
  );
  job.phase = "done";
  context.waitUntil("too late");
  assert.equal(job.afterwards.length, 2);
});

Deno.test("the signal is one, and aborts with a TimeoutError at its time", async () => {
  sayHello();
  const { context } = contextOf({ abortEpochMs: Date.now() + 5 });
  const { signal } = context;
  assert.equal(context.signal, signal);
  assert.equal(signal.aborted, false);
  // The signal's own timer does not keep a process alive, so another one has to.
  const alive = setInterval(() => {}, 1_000);
  await new Promise((resolve) => signal.addEventListener("abort", resolve));
  clearInterval(alive);
  assert.equal(signal.reason.name, "TimeoutError");
});

Deno.test("the signal of an invocation that is done never aborts", async () => {
  sayHello();
  const { context, job } = contextOf({ abortEpochMs: Date.now() + 1 });
  const { signal } = context;
  end(job);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(signal.aborted, false);
});

Deno.test("the signal waits for a deadline that no timer can hold", async () => {
  sayHello();
  const { context, job } = contextOf({ abortEpochMs: Date.now() + 2 ** 40 });
  const { signal } = context;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(signal.aborted, false);
  job.clearTimer();
});

for (const isReadFirst of [true, false]) {
  Deno.test(`a caller who left aborts the signal that is read ${isReadFirst ? "before" : "after"}`, () => {
    sayHello();
    const { context, job } = contextOf({ abortEpochMs: Date.now() + 60_000 });
    if (isReadFirst) assert.equal(context.signal.aborted, false);
    job.abandon();
    assert.equal(context.signal.aborted, true);
    assert.equal(context.signal.reason.name, "AbortError");
    job.clearTimer();
  });
}

Deno.test("the trace id is the variable of one invocation at a time", () => {
  const { env } = Deno;
  const calls = /** @type {string[]} */ ([]);
  const own = { set: env.set, delete: env.delete };
  env.set = (name, value) => void calls.push(`${name}=${value}`);
  env.delete = (name) => void calls.push(`no ${name}`);
  try {
    sayHello();
    setTraceId(null);
    setTraceId("Root=1");
    setTraceId(null);
    setTraceId(null);
    assert.deepEqual(calls.splice(0), [
      "_X_AMZN_TRACE_ID=Root=1",
      "no _X_AMZN_TRACE_ID",
    ]);
    sayHello({ concurrency: 2, socket: "/s" });
    setTraceId("Root=2");
    assert.deepEqual(calls, []);
    sayHello();
    env.set = () => {
      throw new Deno.errors.NotCapable("no env");
    };
    setTraceId("Root=3");
  } finally {
    Object.assign(env, own);
  }
});
