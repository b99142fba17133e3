// @ts-check
/**
 * Log records, and everything that a handler can print or read: console, stdout and
 * stdin of Deno and Node. Knows the two log formats. Does not know of frames: stdout is
 * theirs.
 *
 * @module
 */

/** @import { LogLevel } from "./input.js" */
import {
  advise,
  attempt,
  describe,
  describeWhole,
  isError,
  ourFiles,
  ourPath,
} from "./errors.js";
import { writeAll } from "./frames.js";
import { hello } from "./input.js";
import { currentJob } from "./job.js";
import { capture } from "./telemetry.js";
import {
  Console,
  encode,
  inspectArgs,
  stdin,
  stdout,
  stringify,
  writeStderr,
} from "./primordials.js";

/** @type {Record<LogLevel, number>} */
const LEVELS = { TRACE: 0, DEBUG: 1, INFO: 2, WARN: 3, ERROR: 4, FATAL: 5 };
/** Levels in the order of the numbers that Deno's console passes to its printer. */
const PRINTER_LEVELS =
  /** @type {const} */ (["DEBUG", "INFO", "WARN", "ERROR", "TRACE"]);
/** Characters of a log record, of up to three bytes each; CloudWatch takes 1 MB. */
const RECORD_LIMIT = 256 * 1024;
/** Fields of a record that a member of an error does not take. */
const LABELS = ["timestamp", "level", "requestId", "tenantId", "message"];
/** A line of a stack, in whatever indents and colours it. Not all that has one inside. */
// deno-lint-ignore no-control-regex
const STACK_LINE = /^(?:\x1b\[[\d;]*m|\W)*at /;
/** How many errors inside of a value are described with their members. */
const INNER_ERRORS_LIMIT = 32;
/** Labels of a record whose invocation is not known. */
const UNKNOWN = { requestId: "", tenantId: null };

/**
 * Keep stdout for frames and stdin for the runtime: whatever a handler writes becomes a
 * log record, and whatever it reads is at its end.
 */
export function reroute() {
  // Deno's own console with another printer: every method keeps its behaviour.
  let pending = "";
  const rerouted = new Console(
    (/** @type {string} */ message, /** @type {number} */ level) => {
      pending += message;
      // A call may print in pieces; the last one ends the line.
      if (!pending.endsWith("\n")) return;
      const record = pending.slice(0, -1);
      pending = "";
      log(PRINTER_LEVELS[level] ?? "INFO", [record]);
    },
  );
  Object.assign(console, rerouted, {
    clear: () => {},
    // As in AWS's Node runtime.
    fatal: (/** @type {unknown[]} */ ...args) => log("FATAL", args),
  });
  if (hello.logFormat === "json") {
    // In JSON a value stays a value, so the arguments are needed, not their text.
    Object.assign(console, {
      trace: (/** @type {unknown[]} */ ...args) => log("TRACE", args),
      debug: (/** @type {unknown[]} */ ...args) => log("DEBUG", args),
      log: (/** @type {unknown[]} */ ...args) => log("INFO", args),
      info: (/** @type {unknown[]} */ ...args) => log("INFO", args),
      warn: (/** @type {unknown[]} */ ...args) => log("WARN", args),
      error: (/** @type {unknown[]} */ ...args) => log("ERROR", args),
    });
  }
  capture(/** @type {any} */ (console));
  // Deno keeps both on disk, where the next event's process would find them.
  Object.defineProperty(globalThis, "localStorage", {
    configurable: true,
    enumerable: true,
    get: () => sessionStorage,
  });
  // @ts-ignore Node does not have it either
  delete globalThis.caches;
  // Node's process.stdout and process.stdin are built on these two objects.
  /** @param {Uint8Array} bytes */
  const writeSync = (bytes) => (writeAll(writeStderr, bytes), bytes.length);
  /** @type {WritableStream<Uint8Array> | undefined} */
  let writable;
  const inherited = { configurable: true, enumerable: true };
  Object.defineProperties(stdout, {
    writeSync: { ...inherited, writable: true, value: writeSync },
    write: {
      ...inherited,
      writable: true,
      value: (/** @type {Uint8Array} */ bytes) =>
        Promise.resolve(writeSync(bytes)),
    },
    close: { ...inherited, writable: true, value: () => {} },
    writable: {
      ...inherited,
      get: () =>
        writable ??= new WritableStream({ write: (c) => void writeSync(c) }),
    },
  });
  Object.defineProperties(stdin, {
    readSync: { ...inherited, writable: true, value: () => null },
    read: {
      ...inherited,
      writable: true,
      value: () => Promise.resolve(null),
    },
    close: { ...inherited, writable: true, value: () => {} },
    readable: {
      ...inherited,
      get: () =>
        new ReadableStream({ start: (controller) => controller.close() }),
    },
  });
}

/**
 * Write one log record to stderr, with the marker that tells the supervisor that it is
 * complete.
 *
 * @param {LogLevel} level
 * @param {unknown[]} args As given to the console method.
 */
export function log(level, args) {
  const timestamp = new Date().toISOString();
  let record;
  if (hello.logFormat === "json") {
    // The platform filters levels in JSON format only.
    if (LEVELS[level] < LEVELS[hello.logLevel]) return;
    // @ts-ignore no prototype: members that a handler adds to Object's stay out
    record = jsonRecord({ __proto__: null, timestamp, level }, args);
  } else {
    // A carriage return keeps the lines of a record together in CloudWatch.
    const message = format(args).replaceAll("\n", "\r");
    const { requestId, tenantId } = currentJob() ?? UNKNOWN;
    const tenant = tenantId === null ? "" : `TenantId: ${tenantId}\t`;
    record = `${timestamp}\t${requestId || "-"}\t${level}\t${tenant}${
      message.slice(0, RECORD_LIMIT)
    }`;
  }
  writeAll(writeStderr, encode(`${hello.marker}${record}\n`));
}

/**
 * The fields of Node's runtime: a single argument stays a JSON value, several are
 * formatted, and the first error among them gets fields of its own.
 *
 * @param {Record<string, unknown>} record
 * @param {unknown[]} args
 * @returns {string}
 */
function jsonRecord(record, args) {
  const { requestId, tenantId } = currentJob() ?? UNKNOWN;
  if (requestId) record.requestId = requestId;
  if (tenantId !== null) record.tenantId = tenantId;
  const error = args.find(isError);
  const labels = { ...record };
  let line;
  if (args.length === 1) {
    record.message = error === undefined ? args[0] : describeWhole(error);
    line = attempt(() => stringify(record, error ? undefined : innerErrors()));
  } else {
    record.message = format(args);
    const whole = error === undefined ? {} : describeWhole(error);
    for (const [name, value] of Object.entries(whole)) {
      if (!LABELS.includes(name)) record[name] = value;
    }
    line = attempt(() => stringify(record));
  }
  if (line !== undefined && line.length <= RECORD_LIMIT) return line;
  // The value cannot be JSON or exceeds what the log takes: write its text, shortened.
  const message = format(args).slice(0, RECORD_LIMIT / 8);
  // @ts-ignore no prototype, as above
  return stringify({
    __proto__: null,
    ...labels,
    ...(args.length > 1 && error !== undefined ? describe(error) : {}),
    message,
    stackTrace: undefined,
  });
}

/**
 * @returns {(this: any, name: string, value: unknown) => unknown} Replaces the errors
 *   inside of a value, which JSON would write as `{}`, by their descriptions.
 */
function innerErrors() {
  let left = INNER_ERRORS_LIMIT;
  return function (name, value) {
    if (typeof value !== "object") return value;
    // The result of an error's own `toJSON` may lack its message and its stack.
    const held = attempt(() =>
      Object.getOwnPropertyDescriptor(this, name)?.value
    );
    const error = isError(held) ? held : value;
    if (!isError(error)) return value;
    left -= 1;
    return left < 0
      ? describe(error, { left: 1, text: RECORD_LIMIT / 1024 })
      : describeWhole(error, RECORD_LIMIT / 16);
  };
}

/**
 * @param {unknown[]} args
 * @returns {string} The text that the console would print for them.
 */
function format(args) {
  const text = advise(
    args.length === 1 && typeof args[0] === "string"
      ? args[0]
      : attempt(() => /** @type {string} */ (inspectArgs(args))) ??
        "a value that cannot be shown",
  );
  // Stack frames of the runtime are of no use to the handler's author.
  const folder = ourFiles(), path = ourPath();
  if (!text.includes(folder) && !text.includes(path)) return text;
  const isOurs = (/** @type {string} */ line) =>
    STACK_LINE.test(line) && (line.includes(folder) || line.includes(path));
  const kept = /** @type {string[]} */ ([]);
  for (const line of text.split("\n")) {
    if (!isOurs(line)) kept.push(line);
    // The members of an error follow.
    else if (line.endsWith(" {") && kept.length > 0) {
      kept.push(`${kept.pop()} {`);
    }
  }
  return kept.join("\n");
}
