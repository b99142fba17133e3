// @ts-check
/**
 * The outputs for frames: stdout, or nowhere. The third output is in server.js.
 *
 * @module
 */

/** @import { Output } from "./job.js" */
import { log } from "./console.js";
import { endProgram, isAwaited, timeLeftMs } from "./ending.js";
import { writeAll } from "./frames.js";
import { exit, writeStdout, writeStdoutLater } from "./primordials.js";

/** How long a finished worker waits for its supervisor to end it, until it exits. */
export const LINGER_MS = 10_000;

/** @type {Output} */
export const STDOUT = {
  write(bytes) {
    write(bytes);
  },
  async writeLater(bytes) {
    for (let offset = 0; offset < bytes.length;) {
      offset += await writeStdoutLater(bytes.subarray(offset));
    }
  },
  end(job) {
    if (job.servesMore) return;
    if (isAwaited()) endProgram(timeLeftMs(job));
    else standStill();
  },
};

/** For an invocation whose frames are thrown away. @type {Output} */
export const NOWHERE = {
  write() {},
  async writeLater() {},
  end() {},
  isNowhere: true,
};

/** @param {Uint8Array} bytes A frame. */
export function write(bytes) {
  try {
    writeAll(writeStdout, bytes);
  } catch (error) {
    // The handler has closed stdout for good; the supervisor recognizes these words.
    log("FATAL", ["Cannot write to stdout:", error]);
    exit(1);
  }
}

/**
 * Stop the worker's work for good: none of its timers and promises runs any more, while
 * the supervisor, which has the response, ends the process.
 */
function standStill() {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LINGER_MS);
  exit(0);
}
