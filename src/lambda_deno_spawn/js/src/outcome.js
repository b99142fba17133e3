// @ts-check
/**
 * What a job sends at its end: its result or error, and the DONE frame when the work
 * after it is finished. Does not know what the job did.
 *
 * @module
 */

/** @import { Job } from "./job.js" */
import { log } from "./console.js";
import { describe, errorBody, RuntimeError, untoldDenials } from "./errors.js";
import { doneFrame, framesOf } from "./frames.js";
import { hello, invocationsLeft } from "./input.js";
import { forget } from "./job.js";
import { encode, stringify } from "./primordials.js";

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
  job.isDoneSent = job.afterwards.length === 0;
  return job.isDoneSent ? doneFrame(job.servesMore) : "";
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
 * Wait for what `waitUntil` was given, then end the job.
 *
 * @param {Job} job
 */
export async function finish(job) {
  while (job.afterwards.length > 0) {
    const batch = job.afterwards;
    job.afterwards = [];
    for (const outcome of await Promise.allSettled(batch)) {
      if (outcome.status === "rejected") {
        log("ERROR", ["waitUntil: a promise was rejected", outcome.reason]);
      }
    }
    tellDenials(job);
  }
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
  // A listener of the signal must not receive the deadline of a later invocation.
  job.clearTimer();
  if (!job.isDoneSent) {
    job.write(encode(doneFrame(job.servesMore)), true);
  }
  job.output.end(job);
}
