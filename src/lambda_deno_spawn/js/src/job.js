// @ts-check
/**
 * Jobs: an invocation, or the loading of the module before the first. Knows which are
 * in progress. Does not know what a job sends, or when.
 *
 * @module
 */

/** @import { Head } from "./input.js" */
/** @import { Sink } from "./stream.js" */

/**
 * @typedef {"loading" | "idle" | "running" | "streaming" | "finishing" | "done"} Phase
 *
 * @typedef {object} Output Where the frames of an invocation go.
 * @property {(bytes: Uint8Array, isLast: boolean) => void} write Write at once;
 *   `isLast`: no other frame follows.
 * @property {(bytes: Uint8Array) => Promise<void>} writeLater Resolves once there is
 *   room for more.
 * @property {(job: Job) => void} end Called when all is done, or never will be.
 * @property {boolean} [isNowhere] Nothing of it is read.
 */

/** The state of a job, which decides how it responds if something goes wrong. */
export class Job {
  requestId = "";
  tenantId = /** @type {string | null} */ (null);
  traceId = /** @type {string | null} */ (null);
  /**
   * What `awslambda.InvokeStore` has of it, once that is asked.
   *
   * @type {Record<string | symbol, any> | null}
   */
  values = null;
  /** When the platform stops waiting for it. */
  deadlineEpochMs = Infinity;
  /** The response stream, once its first byte is written. @type {Sink | null} */
  stream = null;
  /** True if the handler is to write to a stream. */
  opensStream = false;
  /** True if a server of the module's is to end the response. */
  isServed = false;
  /** Why the caller no longer reads the response stream. @type {DOMException | null} */
  callerGone = null;
  /** Aborts `context.signal`, once the handler has read it. */
  abortSignal = (/** @type {unknown} */ _reason) => {};
  /** Cancels the timer of `context.signal`, once there is one. */
  clearTimer = () => {};
  /** Given to `waitUntil`: finished after the response. @type {Promise<unknown>[]} */
  afterwards = [];
  /** True once the handler has ended: what it does after that has no effect. */
  hasEnded = false;
  /**
   * Result or error of the handler, while it is called.
   *
   * @type {PromiseWithResolvers<unknown> | null}
   */
  outcome = null;
  /** Called when the event loop is empty. @type {(() => void) | null} */
  onNothingLeft = null;
  /** Has `onNothingLeft` not be called any more. @type {(() => void) | null} */
  stopWaiting = null;
  /**
   * Calls back in the next turn of the event loop, if there is a quick way to it.
   *
   * @type {((resolve: (value: unknown) => void) => void) | null}
   */
  nextTurn = null;
  /** When `context.signal` aborts; Unix time, milliseconds. */
  abortEpochMs = 0;
  /** True once the DONE frame is written, or is on its way behind the response. */
  isDoneSent = false;
  /** True if the process may be in any state, so that it must not serve another. */
  isFatal = false;
  /** True if the process may serve another invocation afterwards. */
  servesMore = false;
  /** The write that `writeLater` began last. */
  lastWrite = /** @type {Promise<void>} */ (Promise.resolve());

  /**
   * @param {Phase} phase
   * @param {Output} output
   * @param {Head} [head]
   */
  constructor(phase, output, head) {
    this.phase = phase;
    this.output = output;
    if (head === undefined) return;
    this.requestId = head.requestId;
    this.tenantId = head.tenantId;
    this.traceId = head.traceId;
    this.deadlineEpochMs = head.deadlineEpochMs;
    this.abortEpochMs = head.abortEpochMs;
  }

  /**
   * @param {Uint8Array} bytes A frame.
   * @param {boolean} [isLast]
   */
  write(bytes, isLast = false) {
    this.output.write(bytes, isLast);
  }

  /**
   * Write a frame without blocking: while the caller is slow, the handler's timers run
   * on.
   *
   * @param {Uint8Array} bytes A frame.
   */
  writeLater(bytes) {
    const previous = this.lastWrite;
    this.lastWrite = (async () => {
      await previous;
      await this.output.writeLater(bytes);
    })();
    return this.lastWrite;
  }

  /** Stop the stream and abort the signal: the caller no longer reads the response. */
  abandon() {
    if (this.stream !== null) this.stream.isAbandoned = true;
    const message = "The caller no longer reads the response";
    this.callerGone = new DOMException(message, "AbortError");
    this.abortSignal(this.callerGone);
  }
}

/** The job that began last. */
export let latestJob = /** @type {Job} */ (/** @type {unknown} */ (null));
/** Invocations in progress, where there may be several. @type {Set<Job> | null} */
let runningJobs = null;
/** Finds the job that the calling code belongs to; null: one of several. */
let findCurrent = /** @type {() => Job | null} */ (() => latestJob);
/**
 * @param {Output} output
 * @returns {Job} The loading of the handler's module, which is current from now on.
 */
export function beginLoading(output) {
  latestJob = new Job("loading", output);
  return latestJob;
}

/**
 * @param {Output} output
 * @param {Head} head
 * @returns {Job} An invocation, which is current from now on.
 */
export function beginInvocation(output, head) {
  latestJob = new Job("running", output, head);
  runningJobs?.add(latestJob);
  return latestJob;
}

/** @param {Job} job An invocation that has nothing left to do. */
export function forget(job) {
  runningJobs?.delete(job);
}

/**
 * Tell apart invocations that run at the same time.
 *
 * @param {() => Job | undefined} find Returns the job that the calling code belongs to.
 */
export function tellApart(find) {
  const running = new Set();
  runningJobs = running;
  findCurrent = () => find() ?? onlyOf(running);
}

/** @returns {Job | null} The job that the calling code belongs to; null: unknown. */
export function currentJob() {
  return findCurrent();
}

/** @returns {Job[]} Those that the calling code may belong to. */
export function currentJobs() {
  const job = findCurrent();
  return job === null ? [...runningJobs ?? []] : [job];
}

/**
 * @param {Set<Job>} jobs
 * @returns {Job | null} The only one there is, if there is only one.
 */
function onlyOf(jobs) {
  const [job] = jobs;
  return jobs.size === 1 ? job : null;
}
