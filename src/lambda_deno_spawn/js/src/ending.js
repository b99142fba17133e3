// @ts-check
/**
 * The end of a process, as its program hears of it. Knows what listens for the end, and
 * lets the program come to it: signal, `beforeunload` and `beforeExit`, `exit` and
 * `unload`. Does not know why the end has come. Decision 0036.
 *
 * @module
 */

/** @import { Job } from "./job.js" */
import { log } from "./console.js";
import { attempt } from "./errors.js";
import { emptyFrame, writeAll } from "./frames.js";
import { hello } from "./input.js";
import { latestJob } from "./job.js";
import {
  addSignalListener,
  cancelTimer,
  core,
  createSystemTimer,
  dispatchEvent,
  encode,
  Event,
  exit,
  internals,
  processProperty,
  removeSignalListener,
  TIMER_LIMIT_MS,
  writeStdout,
} from "./primordials.js";

/** Nothing listens for the end. */
const NOTHING = 0;
/** Listeners that have finished when they return. */
const AT_ONCE = 1;
/** Listeners that may begin work that takes time. */
const IN_TIME = 2;
/** How long the supervisor may take to look at a process that has served its event. */
const LOOKED_AT_MS = 50;
/** Part of the time until the deadline; the supervisor waits for four fifths of it. */
const DEADLINE_SHARE = 0.6;
const TOO_LONG =
  "The program listens for its end, and something is still open: a timer, a server or " +
  "a pool of connections; close it, or exit in the listener. The process exits now";
/** Events of the global object that tell of an end, or of an accident. */
const TYPES = /** @type {const} */ ([
  "unload",
  "beforeunload",
  "error",
  "unhandledrejection",
]);

/**
 * The listeners of the global object by type, where Deno keeps them; null: elsewhere.
 *
 * @type {Record<string, unknown[]> | null}
 */
let listeners = {};
/** How many of them are the runtime's. @type {Record<string, number>} */
const own = {};
/** The handler's listeners for SIGTERM, those of Node's `process` included. */
const terminating = /** @type {Set<() => void>} */ (new Set());
/** True if Deno itself keeps spans and records until its end. */
let hasTelemetry = false;
/** True once something listens for an accident that has happened. */
let isShaken = false;
/** True once the supervisor knows that it has to wait. */
let isAnnounced = false;
let listensForSigterm = false;
let lingerMs = 0;
/** When the process exits at the latest; null: the end has not come. */
let endMs = /** @type {number | null} */ (null);
/** Exits then. */
let timer = /** @type {number | null} */ (null);
/** True while `beforeExit` may have to be told because something is still open. */
let hasToHurry = false;
/** True once the program has been told that nothing is left to do. */
let isTold = false;
/** Waits for the signal after stdin has ended. */
let patience = /** @type {number | null} */ (null);
/** Called when the end comes. */
let onEnding = () => {};

/** Note listeners from now on. Called before the handler's module is loaded. */
export function watchForListeners() {
  /** @type {Record<symbol, any>} */
  const global = globalThis;
  listeners = null;
  for (const symbol of Object.getOwnPropertySymbols(globalThis)) {
    const kept = global[symbol]?.listeners;
    if (kept !== undefined) listeners = kept;
  }
  for (const type of TYPES) own[type] = listeners?.[type]?.length ?? 0;
  hasTelemetry = internals.__telemetry !== undefined;
  Object.assign(Deno, {
    addSignalListener(
      /** @type {Deno.Signal} */ signal,
      /** @type {() => void} */ listener,
    ) {
      addSignalListener(signal, listener);
      if (signal === "SIGTERM") terminating.add(listener);
    },
    removeSignalListener(
      /** @type {Deno.Signal} */ signal,
      /** @type {() => void} */ listener,
    ) {
      removeSignalListener(signal, listener);
      if (signal === "SIGTERM") terminating.delete(listener);
    },
  });
}

/**
 * @param {typeof TYPES[number]} type
 * @returns {boolean} True if code of the handler's listens.
 */
function isHeard(type) {
  return listeners === null || (listeners[type]?.length ?? 0) > own[type];
}

/**
 * @param {string} name
 * @returns {boolean} True if a listener was given to Node's `process`.
 */
function isHeardInNode(name) {
  // Without a listener, nothing may load what belongs to Node: it takes 10 ms.
  if (internals.dispatchProcessBeforeExitEvent === undefined) return false;
  const counted = attempt(
    () => /** @type {number} */ (processProperty?.get?.call(globalThis)
      .listenerCount(name)),
  );
  return counted !== 0;
}

/** @returns {number} Whether the end of this process is heard, and how. */
function lastWords() {
  if (hello.lastWordsMs === 0) return NOTHING;
  if (
    isShaken || terminating.size > 0 || isHeard("beforeunload") ||
    isHeardInNode("beforeExit")
  ) return IN_TIME;
  return hasTelemetry || isHeard("unload") || isHeardInNode("exit")
    ? AT_ONCE
    : NOTHING;
}

/** Note that an error was not caught; what listens for that needs time as well. */
export function noteAccident() {
  isShaken ||= hello.lastWordsMs > 0 && (
    isHeard("error") || isHeard("unhandledrejection") ||
    isHeardInNode("unhandledRejection") || isHeardInNode("uncaughtException") ||
    isHeardInNode("uncaughtExceptionMonitor")
  );
}

/**
 * @param {Job} job
 * @returns {string} What stands before DONE: the frame by which the supervisor knows
 *   that the process ends by itself, once; nothing if nothing listens.
 */
export function announcement({ output }) {
  if (isAnnounced || output.isNowhere || lastWords() === NOTHING) return "";
  isAnnounced = true;
  return emptyFrame("LAST");
}

/** @returns {boolean} True if the supervisor waits until this process has ended. */
export function isAwaited() {
  return isAnnounced;
}

/** Do not end at once: the supervisor looks at the process when it has served. */
export function linger() {
  lingerMs = LOOKED_AT_MS;
}

/** @returns {boolean} True once the end has come: nothing is served any more. */
export function hasEnded() {
  return endMs !== null;
}

/**
 * @param {() => void} callback Called when the end comes.
 */
export function beforeTheEnd(callback) {
  onEnding = callback;
}

/**
 * Let the program end, as it would without a supervisor. Returns before it does.
 *
 * @param {number} limitMs Until the process exits, whatever is open.
 * @param {boolean} [waits] Let what is open finish, also if nothing listens.
 * @param {boolean} [isSignalled] The program has heard the signal already.
 */
export function endProgram(limitMs, waits = false, isSignalled = false) {
  const ms = Math.max(0, Math.min(limitMs, endMs ?? Infinity));
  if (timer !== null) cancelTimer(timer);
  if (patience !== null) cancelTimer(patience);
  const isFirst = endMs === null;
  endMs = ms;
  if (isFirst) {
    onEnding();
    exitWhereDenoReturns();
    // Not at once: what listens for the error that led here is heard first.
    createSystemTimer(() => tell(waits, isSignalled), lingerMs, true);
  }
  const stop = () => {
    hurry();
    if (!isSignalled) log("WARN", [TOO_LONG]);
    leave();
  };
  // False: with nothing left to do, the event loop does not wait for this timer.
  timer = createSystemTimer(stop, ms, false);
}

/**
 * @param {boolean} waits
 * @param {boolean} isSignalled
 */
function tell(waits, isSignalled) {
  const words = lastWords();
  if (!isSignalled) {
    for (const listener of terminating) callLast(listener);
  }
  if (!waits && words !== IN_TIME) return leave();
  hasToHurry = true;
  createSystemTimer(hurry, Math.floor((endMs ?? 0) / 2), false);
}

/**
 * Tell of the end although something is open that may never close: a timer, a pool of
 * connections. With nothing open, Deno ends the program, and tells of it.
 */
function hurry() {
  if (!hasToHurry || isTold || !core.eventLoopHasMoreWork()) return;
  hasToHurry = false;
  callLast(() =>
    dispatchEvent(new Event("beforeunload", { cancelable: true }))
  );
  callLast(() => internals.dispatchProcessBeforeExitEvent?.());
}

/**
 * Nothing is left to do at the end, and `beforeunload` and `beforeExit` tell of that.
 * Once, as in AWS's Node runtime: Deno would tell again after what the listeners have
 * begun, and one that always begins something would never come to its end.
 */
export function tellOfEnd() {
  if (isTold) leave();
  isTold = true;
}

/**
 * When nothing is left to do, and Deno has told of that, have the process exit. Deno
 * would take down the whole machinery, which takes 3 ms of CPU time, and write to its
 * cache, so that no other process could be forked from the same one.
 */
function exitWhereDenoReturns() {
  const tellNode = internals.dispatchProcessExitEvent;
  internals.dispatchProcessExitEvent = () => {
    callLast(() => tellNode?.());
    callLast(exit);
  };
}

/** Exit, as the program would: `exit` and `unload` are heard, telemetry is sent. */
function leave() {
  internals.dispatchProcessExitEvent();
}

/** @param {() => unknown} call */
function callLast(call) {
  try {
    call();
  } catch (error) {
    log("ERROR", ["Uncaught error at the end of the process", error]);
  }
}

/**
 * @param {Job} job
 * @returns {number} Milliseconds that its last words may take.
 */
export function timeLeftMs({ deadlineEpochMs }) {
  const leftMs = (deadlineEpochMs - Date.now()) * DEADLINE_SHARE;
  return Math.min(hello.lastWordsMs, Math.max(0, leftMs));
}

/**
 * Shortly before a job is stopped for its deadline, see to it that the program hears of
 * that, if it listens when the job begins. Not earlier: listening for a signal takes
 * half a millisecond. Not for every job: the first timer takes nearly as long.
 *
 * @param {Job} job
 */
export function watchDeadline({ abortEpochMs }) {
  if (lastWords() === NOTHING) return;
  const leftMs = Math.max(0, abortEpochMs - Date.now());
  const limitMs = Math.min(TIMER_LIMIT_MS, leftMs);
  createSystemTimer(listenForSigterm, limitMs, false);
}

/**
 * Listen for SIGTERM, by which the supervisor ends what a job does, or all. A process
 * without a listener would end at once, without `unload`; one whose only listener is
 * the handler's might never end.
 */
export function listenForSigterm() {
  if (listensForSigterm) return;
  listensForSigterm = true;
  addSignalListener("SIGTERM", () => {
    const { phase } = latestJob;
    const isIdle = phase === "done" || phase === "idle";
    // By this the supervisor knows that the program has heard, and is not in a loop.
    if (lastWords() !== NOTHING) {
      attempt(() => writeAll(writeStdout, encode(emptyFrame("LAST"))));
    }
    endProgram(isIdle ? hello.closeMs : timeLeftMs(latestJob), isIdle, true);
  });
}

/**
 * The supervisor wants the end, or is gone.
 *
 * @param {number | null} limitMs Time for it; null: stdin has ended without a word.
 */
export function close(limitMs) {
  if (limitMs !== null) return endProgram(limitMs, true);
  // The signal comes on another way than the end of stdin, and may come later.
  if (!hasEnded()) {
    patience = createSystemTimer(() => endProgram(0), hello.closeMs, true);
  }
}
