// @ts-check
/**
 * The context object and the trace id, which a handler is given besides its event.
 *
 * @module
 */

/** @import { Head } from "./input.js" */
/** @import { Job } from "./job.js" */
import { attempt, quote, RuntimeError } from "./errors.js";
import { hello } from "./input.js";
import {
  cancelTimer,
  createSystemTimer,
  parse,
  TIMER_LIMIT_MS,
} from "./primordials.js";

/** @typedef {ReturnType<typeof makeContext>} Context */

let hasTraceId = false;

/**
 * Build the context object of Node's runtime, and what this runtime adds to it.
 *
 * @param {Job} job
 * @param {Head} head
 */
export function makeContext(job, head) {
  /** @type {AbortController | undefined} */
  let controller;
  let waitsForEmptyEventLoop = true;
  return {
    ...hello.context,
    awsRequestId: head.requestId,
    invokedFunctionArn: head.functionArn,
    clientContext: parseContext(head.clientContext, "client context"),
    identity: parseContext(head.identity, "Cognito identity"),
    tenantId: head.tenantId ?? undefined,
    xRayTraceId: head.traceId ?? undefined,
    // As in Node's runtime also through an object that inherits from this one.
    get callbackWaitsForEmptyEventLoop() {
      return waitsForEmptyEventLoop;
    },
    set callbackWaitsForEmptyEventLoop(waits) {
      waitsForEmptyEventLoop = Boolean(waits);
    },
    /** @returns {number} Milliseconds until the deadline, never below zero. */
    getRemainingTimeInMillis: () =>
      Math.max(0, head.deadlineEpochMs - Date.now()),
    /** @param {unknown} promise Awaited after the response, before the process ends. */
    waitUntil(promise) {
      if (job.phase === "done") return;
      // Handled from now on: `finish` reports a rejection, not the event for unhandled.
      const settled = Promise.resolve(promise);
      settled.catch(() => {});
      job.afterwards.push(settled);
    },
    /** Aborts shortly before the worker is stopped for its deadline. */
    get signal() {
      controller ??= abortController(job, head);
      return controller.signal;
    },
  };
}

/**
 * @param {Job} job
 * @param {Head} head
 * @returns {AbortController} For `context.signal`.
 */
function abortController(job, head) {
  const controller = new AbortController();
  if (job.callerGone !== null) controller.abort(job.callerGone);
  job.abortSignal = (reason) => controller.abort(reason);
  const abort = () =>
    controller.abort(
      new DOMException(
        "The invocation is about to time out",
        "TimeoutError",
      ),
    );
  const leftMs = Math.max(0, head.abortEpochMs - Date.now());
  // False: the timer does not keep the process alive.
  const timer = createSystemTimer(
    abort,
    Math.min(TIMER_LIMIT_MS, leftMs),
    false,
  );
  job.clearTimer = () => cancelTimer(timer);
  return controller;
}

/**
 * @param {string | null} text
 * @param {string} what
 * @throws {RuntimeError} The text is not JSON.
 */
function parseContext(text, what) {
  if (text === null) return undefined;
  try {
    return parse(text);
  } catch {
    const shown = quote(text.slice(0, 64));
    const message = `Cannot read the ${what} as JSON: it begins with ${shown}`;
    throw new RuntimeError("Runtime.LambdaContextUnmarshalError", message);
  }
}

/** @param {string | null} traceId */
export function setTraceId(traceId) {
  // One variable cannot serve several invocations at once; their contexts have it.
  if (hello.concurrency > 1 || (traceId === null && !hasTraceId)) return;
  hasTraceId = traceId !== null;
  // Without env permission no code could read the variable.
  attempt(() =>
    traceId === null
      ? Deno.env.delete("_X_AMZN_TRACE_ID")
      : Deno.env.set("_X_AMZN_TRACE_ID", traceId)
  );
}
