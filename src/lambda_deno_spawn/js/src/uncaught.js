// @ts-check
/**
 * Errors that no handler caught, and promises that nothing can settle: whose response
 * they spoil.
 *
 * @module
 */

/** @import { Job } from "./job.js" */
import { log } from "./console.js";
import { hasEnded, noteAccident, tellOfEnd } from "./ending.js";
import { attempt, NOT_HANDLED, RuntimeError } from "./errors.js";
import { hello } from "./input.js";
import { currentJobs, latestJob } from "./job.js";
import { end, fail } from "./outcome.js";
import { internals, processProperty } from "./primordials.js";

/** @param {PromiseRejectionEvent} event */
export function onUnhandledRejection(event) {
  event.preventDefault();
  failCurrent(event.reason, NOT_HANDLED);
  // Deno tells listeners of Node's `process` only what no other has dealt with.
  try {
    internals.nodeProcessUnhandledRejectionCallback?.(event);
  } catch (error) {
    log("ERROR", ["Uncaught error in a listener for rejections", error]);
  }
}

/** @param {ErrorEvent} event */
export function onUncaughtError(event) {
  event.preventDefault();
  if (!attempt(() => isCaptured())) failCurrent(event.error);
}

/**
 * @returns {boolean} True if the program takes the error itself, so that it is not
 *   uncaught: by a domain, or by `process.setUncaughtExceptionCaptureCallback`. Deno
 *   hands it over when it has told all listeners of the event.
 */
function isCaptured() {
  // Nothing may load what belongs to Node for this: it takes 10 ms.
  if (internals.dispatchProcessBeforeExitEvent === undefined) return false;
  const process = processProperty?.get?.call(globalThis);
  const { domain } = process;
  return domain
    ? domain.listenerCount("error") > 0
    : process.hasUncaughtExceptionCaptureCallback();
}

/**
 * Respond with an error that no handler caught; after the response it is only logged.
 *
 * @param {unknown} error
 * @param {string} [errorType]
 */
function failCurrent(error, errorType) {
  noteAccident();
  // Without a job that it belongs to, the error may have spoilt what each relies on.
  const affected = currentJobs().filter(isResponseDue);
  if (affected.length === 0) {
    log("ERROR", ["Uncaught error after the response", error]);
  }
  for (const job of affected) failUncaught(job, error, errorType);
}

/**
 * @param {Job} job
 * @returns {boolean} True until its response is decided.
 */
function isResponseDue({ phase }) {
  return phase === "loading" || phase === "running" || phase === "streaming";
}

/**
 * @param {Job} job
 * @param {unknown} error
 * @param {string} [errorType]
 */
function failUncaught(job, error, errorType) {
  job.isFatal = true;
  if (job.phase === "streaming") {
    // The frame that is being written has to be complete first.
    job.stream?.fail(error, errorType).then(() => end(job));
    job.stream?.reject(error);
  } else {
    fail(job, error, errorType);
    end(job);
  }
}

/**
 * The event loop is empty: what is still awaited can never happen, unless it is that.
 *
 * @param {Event} [event]
 */
export function onNothingLeft(event) {
  if (hasEnded()) return tellOfEnd();
  const job = latestJob;
  const goOn = () => {
    event?.stopImmediatePropagation();
    event?.preventDefault();
  };
  if (job.onNothingLeft !== null) {
    // The response may take more work, and the process serve more invocations.
    goOn();
    return job.onNothingLeft();
  }
  const isUnanswered = job.phase === "running" || job.phase === "streaming";
  if (isUnanswered) {
    // In a process that reads stdin, nothing would read on behind the handler.
    job.isFatal = hello.socket === null;
    const message = job.opensStream
      ? "The response stream can never end: no timer, request or other work is left " +
        "that could write to it; call its end()"
      : job.isServed
      ? "The module's server can never end its response: no timer, request or other " +
        "work is left that could; call the response's end()"
      : `The handler's ${
        job.phase === "streaming" ? "stream" : "promise"
      } can never ` +
        "settle: it waits, and no timer, request or other work is left that could " +
        "wake it";
    fail(job, new RuntimeError("Runtime.HandlerNeverSettled", message));
  }
  if (!isUnanswered && job.phase === "finishing") {
    // `finish` waits for the promise for ever, so no other invocation can follow.
    if (hello.socket === null) job.servesMore = false;
    log("WARN", [
      "waitUntil: a promise can never settle, nothing is left to wake it",
    ]);
  }
  if (job.phase !== "loading" && job.phase !== "idle") end(job);
  // A process that serves goes on; if the end comes later, nothing else hears of it
  // until then.
  const serves = hello.socket !== null && hello.concurrency === 1;
  if (hasEnded() || (serves && job.phase === "done")) goOn();
}
