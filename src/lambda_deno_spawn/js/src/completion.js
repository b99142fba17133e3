// @ts-check
/**
 * How a handler ends: by what it returns or throws, by its callback, or by `done`,
 * `succeed` and `fail` of its context, as in AWS's runtimes for Node up to version 22.
 * Whichever comes first counts. Does not know what is sent.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Job } from "./job.js" */
import { log } from "./console.js";
import { attempt } from "./errors.js";
import { hello } from "./input.js";
import {
  bind,
  cancelTimer,
  core,
  createSystemTimer,
  withResolvers,
} from "./primordials.js";
import { isStream } from "./stream.js";

/** The report of Node's runtime for `context.fail()` without an error. */
const NO_ERROR = "handled";
const HOW_TO_END =
  "call the callback, context.done, context.succeed or context.fail, or return a " +
  "promise";
const HOW_NOT_TO_WAIT =
  "end what keeps it busy (timers, servers, connections), or set " +
  "context.callbackWaitsForEmptyEventLoop to false before calling the callback";

/**
 * Call a handler and wait for its end.
 *
 * @param {Job} job
 * @param {(...args: any[]) => unknown} handler Called with event, context and callback.
 * @param {unknown} owner
 * @param {unknown} event
 * @param {Context & Record<string, unknown>} context Gets the functions by which older
 *   handlers end.
 * @returns {Promise<unknown>} The handler's result.
 */
export function complete(job, handler, owner, event, context) {
  const outcome = withResolvers();
  job.outcome = outcome;
  const callback = (
    /** @type {unknown} */ error,
    /** @type {unknown} */ value,
  ) => endWith(job, error, value, context.callbackWaitsForEmptyEventLoop);
  context.done = (
    /** @type {unknown} */ error,
    /** @type {unknown} */ value,
  ) => endWith(job, error, value);
  context.succeed = (/** @type {unknown} */ value) => endWith(job, null, value);
  context.fail = (/** @type {unknown} */ error) =>
    endWith(job, error ?? NO_ERROR, null);
  try {
    const result = handler.call(owner, event, context, callback);
    endBy(job, result, handler.length > 2);
  } catch (error) {
    endWithError(job, error);
  }
  return outcome.promise;
}

/**
 * End with what a handler has returned, or wait for its end.
 *
 * @param {Job} job
 * @param {any} result What it has returned.
 * @param {boolean} declaresCallback It has a parameter for its callback, so that a
 *   value which it returns is not its result.
 */
function endBy(job, result, declaresCallback) {
  if (typeof result?.then === "function") {
    // Not awaited here: the stack of its error would show the runtime.
    result.then(
      bind(endWith, undefined, job, null),
      bind(endWithError, undefined, job),
    );
  } else if (isResult(result, declaresCallback)) {
    endWith(job, null, result, false);
  } else if (!job.hasEnded) {
    waitForEnd(job, result, declaresCallback);
  }
}

/**
 * End, unless the handler has ended.
 *
 * @param {Job} job
 * @param {unknown} error If it is neither null nor undefined, the handler has failed.
 * @param {unknown} value
 * @param {boolean} [waits] The value is sent when the event loop is empty.
 */
function endWith(job, error, value, waits = false) {
  if (job.hasEnded) return;
  if (error !== null && error !== undefined) return endWithError(job, error);
  job.hasEnded = true;
  // Invocations that share an event loop cannot wait until it is empty.
  if (waits && hello.concurrency === 1) {
    waitForNothing(job, HOW_NOT_TO_WAIT, () => job.outcome?.resolve(value));
  } else {
    job.stopWaiting?.();
    job.outcome?.resolve(value);
  }
}

/**
 * @param {Job} job
 * @param {unknown} error
 */
function endWithError(job, error) {
  if (job.hasEnded) {
    log("ERROR", ["The handler failed after it had ended:", error]);
    return;
  }
  job.hasEnded = true;
  job.stopWaiting?.();
  job.outcome?.reject(error);
}

/**
 * Let a handler that has returned neither result nor promise go on. Its result is null
 * if it leaves nothing to do and has not called anything.
 *
 * @param {Job} job
 * @param {unknown} result
 * @param {boolean} declaresCallback
 */
function waitForEnd(job, result, declaresCallback) {
  if (declaresCallback && result !== undefined) {
    log("WARN", [
      "The handler has a parameter for its callback, so what it returned is not its " +
      `result: ${HOW_TO_END}`,
    ]);
  }
  const end = () => endWith(job, null, null, false);
  if (hello.concurrency === 1) waitForNothing(job, HOW_TO_END, end);
  else if (!declaresCallback) end();
}

/**
 * Go on when the event loop is empty, and warn if that does not happen in time.
 *
 * @param {Job} job
 * @param {string} advice
 * @param {() => void} goOn
 */
function waitForNothing(job, advice, goOn) {
  job.stopWaiting?.();
  const warn = () =>
    log("WARN", [
      "The handler has returned, and its response waits for an empty event loop: " +
      advice,
    ]);
  const leftMs = Math.max(0, job.abortEpochMs - Date.now());
  // The first timer of a process takes a millisecond, which a handler that has left
  // nothing to do would wait for. False: it does not keep the process alive.
  const timer = core.eventLoopHasMoreWork()
    ? createSystemTimer(warn, leftMs, false)
    : null;
  job.onNothingLeft = () => {
    job.stopWaiting?.();
    goOn();
  };
  job.stopWaiting = () => {
    job.onNothingLeft = null;
    job.stopWaiting = null;
    if (timer !== null) cancelTimer(timer);
  };
}

/**
 * @param {any} value What a handler has returned, not a promise.
 * @param {boolean} declaresCallback
 * @returns {boolean} True if it is the handler's result. Node's runtime uses no value
 *   that is returned without a promise; here it counts, unless it is returned by the
 *   way: a timer, a request, a child process.
 */
function isResult(value, declaresCallback) {
  if (typeof value !== "object" || value === null) {
    return value !== undefined && !declaresCallback;
  }
  if (isStream(value)) return true;
  return attempt(() => {
    const isWork = typeof value.hasRef === "function" ||
      typeof value.on === "function" && typeof value.emit === "function";
    if (isWork) return false;
    return !declaresCallback || value[Symbol.toStringTag] === "Response";
  }) ?? !declaresCallback;
}
