// @ts-check
/**
 * One invocation, from its event to the frames of its outcome.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Head } from "./input.js" */
/** @import { Job } from "./job.js" */
import { makeContext, setTraceId } from "./context.js";
import { describe, RuntimeError } from "./errors.js";
import { decode } from "./input.js";
import { errorFrames, respond, resultFrames } from "./outcome.js";
import { parse } from "./primordials.js";
import { isStream, makeSink } from "./stream.js";
import { traceOf } from "./telemetry.js";

/** @typedef {(event: unknown, context: Context, job: Job) => unknown} Handler */

/** Returned by a handler's adapter when the response has been streamed. */
export const STREAMED = Symbol("streamed");

/**
 * Run the handler and write the frames of its outcome.
 *
 * @param {Job} job
 * @param {Handler} handler
 * @param {Head} head
 * @param {Uint8Array} eventBytes
 */
export async function run(job, handler, head, eventBytes) {
  let frames;
  try {
    setTraceId(head.traceId);
    const context = makeContext(job, head);
    const event = parseEvent(eventBytes);
    const within = traceOf(head, event);
    const result = await (within === null
      ? handler(event, context, job)
      : within(() =>
        handler(event, context, job)
      ));
    if (result === STREAMED) return;
    if (isStream(result)) return await makeSink(job).pump(result);
    frames = resultFrames(job, result);
  } catch (error) {
    if (job.stream !== null) return await job.stream.fail(error);
    frames = errorFrames(job, error);
  }
  // An uncaught error in the meantime was the response already.
  if (job.phase === "running") respond(job, frames);
}

/**
 * @param {Uint8Array} bytes
 * @throws {RuntimeError} The bytes are not JSON text.
 */
function parseEvent(bytes) {
  try {
    return parse(decode(bytes));
  } catch (error) {
    throw new RuntimeError(
      "Runtime.UnmarshalError",
      `Cannot read the event as JSON: ${describe(error).errorMessage}`,
    );
  }
}
