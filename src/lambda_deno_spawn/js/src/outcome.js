// @ts-check
/**
 * The end of a job: its result or error, and the DONE frame when the work
 * after it is finished. Does not know what the job did.
 *
 * @module
 */

/** @import { Job } from "./job.js" */
import { log } from "./console.js";
import { announcement } from "./ending.js";
import { describe, errorBody, RuntimeError, untoldDenials } from "./errors.js";
import { doneFrame, framesOf } from "./frames.js";
import { hello, invocationsLeft } from "./input.js";
import { forget } from "./job.js";
import { core, createSystemTimer, encode, stringify } from "./primordials.js";

/** How often work that is due may make more of it, after the response. */
const TURNS_LIMIT = 8;

/**
 * The result as RESULT frame, in parts if other programs may write to the same pipe,
 * with the DONE frame behind it if nothing is left to do.
 *
 * @param {Job} job
 * @param {unknown} result
 * @returns {Uint8Array[]} Each is to be written by a single call.
 * @throws {RuntimeError} The result is too large or cannot be written as JSON.
 */
export function resultFrames(job, result) {
  let text;
  try {
    text = stringify(result) ?? "null";
  } catch (error) {
    throw new RuntimeError(
      "Runtime.JSONStringifyError",
      `Cannot write the handler's result as JSON: ${
        describe(error).errorMessage
      }`,
      error,
    );
  }
  const body = encode(text);
  if (body.length > hello.resultLimitBytes) {
    throw new RuntimeError(
      "Function.ResponseSizeTooLarge",
      `Cannot return ${body.length} bytes: the limit is ${hello.resultLimitBytes}; ` +
        "store the result and return where it is, or stream it",
    );
  }
  return framesOf("RESULT", body, "", doneBehind(job, false));
}

/**
 * @param {Job} job
 * @param {unknown} error Anything that was thrown.
 * @param {string} [errorType] Overrides the error's own name.
 * @returns {Uint8Array[]} The frames of an error; each is to be written by a single
 *   call.
 */
export function errorFrames(job, error, errorType) {
  const { bytes, type } = errorBody(error, errorType);
  return framesOf("ERROR", bytes, type, doneBehind(job, true));
}

/**
 * Write what ends the response, with the DONE frame behind it if nothing is left to do.
 *
 * @param {Job} job
 * @param {Uint8Array[]} frames Each is written by a single call; the last one was made
 *   with `doneBehind`.
 */
export function respond(job, frames) {
  job.phase = "finishing";
  const last = frames.length - 1;
  for (const [at, bytes] of frames.entries()) {
    job.write(bytes, at === last && job.isDoneSent);
  }
}

/**
 * Respond with an error. Only for a job that has not responded.
 *
 * @param {Job} job
 * @param {unknown} error
 * @param {string} [errorType]
 */
export function fail(job, error, errorType) {
  respond(job, errorFrames(job, error, errorType));
}

/**
 * Decide what stands behind the last frame of a response.
 *
 * @param {Job} job
 * @param {boolean} isError
 * @returns {string} The DONE frame if nothing is left to do, else nothing.
 */
export function doneBehind(job, isError) {
  // A long-lived process survives an ordinary error, as it does in other runtimes.
  const isSpent = hello.socket === null && (invocationsLeft === 0 || isError);
  job.servesMore = !job.isFatal && !isSpent;
  tellDenials(job);
  // As isWorkLeft() does, which V8 would compile anew in each process.
  const hasMoreToDo = (hello.socket === null || hello.invocations === 1) &&
    core.eventLoopHasMoreWork();
  job.isDoneSent = job.afterwards.length === 0 && !hasMoreToDo;
  return job.isDoneSent ? lastFrames(job) : "";
}

/**
 * @param {Job} job
 * @returns {string} The frames that end it.
 */
function lastFrames(job) {
  return announcement(job) + doneFrame(job.servesMore);
}

/**
 * Log which access was denied, where the error was caught or lost.
 *
 * @param {Job} job
 */
function tellDenials(job) {
  for (const denial of untoldDenials(job)) {
    log("WARN", [`The handler did not pass this error on: ${denial}`]);
  }
}

/**
 * @returns {boolean} True if something may have been scheduled to run after the
 *   response. A process that listens and serves more runs on anyway.
 */
function isWorkLeft() {
  return (hello.socket === null || hello.invocations === 1) &&
    core.eventLoopHasMoreWork();
}

/**
 * Call back after a millisecond, and after what was due by then.
 *
 * @param {(value?: unknown) => void} resolve
 */
function afterDue(resolve) {
  // A timer is not enough: one that is late, as on a busy machine, comes before the
  // messages of a `MessageChannel`. The event loop is given these between two turns, so
  // the second immediate comes after them.
  createSystemTimer(() => atEndOfTurn(() => atEndOfTurn(resolve)), 1, true);
}

/**
 * Call back when this turn of the event loop ends, as `setImmediate` does, which would
 * load what belongs to Node.
 *
 * @param {(value?: unknown) => void} callback
 */
function atEndOfTurn(callback) {
  const { immediateRefCount, queueImmediate } = core;
  if (immediateRefCount === undefined || queueImmediate === undefined) {
    createSystemTimer(callback, 1, true);
    return;
  }
  // While it is counted, the event loop does not wait for anything else.
  immediateRefCount(true);
  queueImmediate({
    asyncId: 0,
    triggerAsyncId: 0,
    _argv: null,
    _destroyed: false,
    _idleNext: null,
    _idlePrev: null,
    _onImmediate() {
      immediateRefCount(false);
      callback();
    },
  });
}

/**
 * Let run what is due, as it would in a process that goes on: `setImmediate`,
 * `process.nextTick`, `setTimeout` without a delay, listeners for the end of a stream.
 * Express logs so. What takes longer is for `waitUntil`.
 *
 * @param {Job} job
 */
async function runDueWork({ nextTurn }) {
  // If there is a quick way to it, one turn of the event loop may be enough.
  if (nextTurn !== null) await new Promise(nextTurn);
  for (let turns = 0; turns < TURNS_LIMIT && isWorkLeft(); turns += 1) {
    await new Promise(afterDue);
    if (!core.hasTickScheduled() && !core.getActiveImmediateCount?.()) return;
  }
}

/**
 * Wait for work that is due, and for what `waitUntil` was given, then end the job.
 *
 * @param {Job} job
 */
export async function finish(job) {
  for (;;) {
    if (!job.isDoneSent && isWorkLeft()) await runDueWork(job);
    if (job.afterwards.length === 0) break;
    const batch = job.afterwards;
    job.afterwards = [];
    for (const outcome of await Promise.allSettled(batch)) {
      if (outcome.status === "rejected") {
        log("ERROR", ["waitUntil: a promise was rejected", outcome.reason]);
      }
    }
  }
  if (!job.isDoneSent) tellDenials(job);
  end(job);
}

/**
 * Say that nothing is left to do.
 *
 * @param {Job} job
 */
export function end(job) {
  if (job.phase === "done") return;
  job.phase = "done";
  forget(job);
  job.stopWaiting?.();
  // A listener of the signal must not receive the deadline of a later invocation.
  job.clearTimer();
  if (!job.isDoneSent) {
    job.write(encode(lastFrames(job)), true);
  }
  job.output.end(job);
}
