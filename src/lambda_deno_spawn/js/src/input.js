// @ts-check
/**
 * The supervisor's input: the HELLO line to stdin, then invocations, there or to a
 * pipe that HELLO names. Keeps the facts of HELLO and the bytes that were read ahead.
 * Does not know what is done with an invocation.
 *
 * @module
 */

import {
  decodeLossy,
  decoderProperty,
  openSync,
  parse,
  readStdin,
  revokePermission,
} from "./primordials.js";

/**
 * @typedef {"TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR" | "FATAL"} LogLevel
 *
 * @typedef {object} Hello
 * @property {number} version Version of the protocol.
 * @property {string} marker Random characters that begin and end each frame.
 * @property {string} export Export to call, nested names joined by dots.
 * @property {string} module Path of the handler's file, for messages.
 * @property {number} partBytes Longest single write to stdout; 0: no limit.
 * @property {number} resultLimitBytes Largest result that the platform accepts.
 * @property {"text" | "json"} logFormat
 * @property {LogLevel} logLevel Lowest level written in JSON format.
 * @property {"buffered" | "stream"} responseMode How a `Response` is sent.
 * @property {number} invocations How many this process serves; 0: no limit.
 * @property {string | null} socket Unix socket to listen on; null: invocations come on
 *   stdin.
 * @property {string | null} input Pipe to be read after HELLO; null: stdin goes on.
 * @property {number} concurrency How many invocations may run at once.
 * @property {number} closeMs How long a process that serves several invocations may
 *   take to close.
 * @property {number} lastWordsMs How long the end of a program may take that listens
 *   for it; 0: it is not told.
 * @property {"log" | "both" | "telemetry"} console Where the console's records go: to
 *   the log, to Deno's telemetry.
 * @property {string} steering Names of environment variables that Deno itself obeys,
 *   with commas between them: the handler reads and sets copies instead.
 * @property {Record<string, string>} variables Those of them that are set.
 * @property {Record<string, string>} context Members that every context has.
 * @property {string[]} packageFolders Folders in which `require` looks last.
 * @property {string[]} closedFolders Folders in which `require` must not look.
 * @property {object} permissions What to say about a denied access.
 * @property {string} permissions.base Value of LAMBDA_DENO_PERMISSIONS to add flags to.
 * @property {string | null} permissions.set Permission set of deno.json that is in use.
 * @property {string[]} permissions.denies Kinds of permission with entries that deny.
 * @property {string[]} permissions.runtimeApi Hosts and ports that are always denied.
 * @property {boolean} permissions.everything All is allowed except what is denied.
 * @property {boolean} permissions.hidden A file that may not be read looks as if it did
 *   not exist.
 * @property {string} permissions.taskRoot The function's folder.
 * @property {boolean} permissions.credentialsWithheld
 *
 * @property {boolean} template The supervisor forks this process for each event.
 * @property {Places | null} places Folders of which each fork keeps one; null: there is
 *   one only.
 *
 * @typedef {object} Places
 * @property {string[]} folders
 * @property {["read" | "write", string][]} revoked What a fork may not do in the others:
 *   the permission, and what follows the folder in its path.
 *
 * @typedef {object} Resume The RESUME line, the first of a process that was forked.
 * @property {string} marker Marker of this process.
 * @property {number} pid Its process id.
 * @property {boolean} [lingers] It is looked at when it has served its event.
 * @property {number} [place] Which of the places is its own.
 *
 * @typedef {object} Close The CLOSE line: nothing is served any more.
 * @property {number} limitMs Time for the end of the program.
 *
 * @typedef {object} Head The INVOKE line.
 * @property {number} eventBytes
 * @property {string} requestId
 * @property {number} deadlineEpochMs
 * @property {number} abortEpochMs
 * @property {string} functionArn
 * @property {string | null} traceId
 * @property {string | null} clientContext JSON text.
 * @property {string | null} identity JSON text.
 * @property {string | null} tenantId
 */

const PROTOCOL_VERSION = 3;

export let hello = /** @type {Hello} */ (/** @type {unknown} */ (null));
/** How many more invocations this process may serve. */
export let invocationsLeft = 1;

/** Reads what the supervisor writes. */
let readInput = readStdin;
/** Bytes that were read and not used yet. */
let unread = new Uint8Array(0);
/** Used for reads while nothing is unread: allocating a buffer for each takes time. */
const readBuffer = new Uint8Array(65_536);

/**
 * Keep the facts of the HELLO line.
 *
 * @param {string} line
 * @throws {Error} The supervisor speaks another version of the protocol.
 */
export function receiveHello(line) {
  hello = parse(line);
  if (hello.version !== PROTOCOL_VERSION) {
    throw new Error(
      `Cannot speak protocol ${hello.version}: this is ${PROTOCOL_VERSION}`,
    );
  }
  invocationsLeft = hello.invocations || Infinity;
}

/**
 * Read from another pipe from now on, as stdin has ended: the handler may read that. No
 * code opens it again, unless it may read everywhere.
 *
 * @param {string} path
 */
export function continueWith(path) {
  const file = openSync(path);
  revokePermission({ name: "read", path });
  readInput = file.readSync.bind(file);
}

/**
 * Read the event that follows an INVOKE line, and count the invocation.
 *
 * @param {number} length Bytes.
 * @returns {Uint8Array | null} Null if stdin ends before.
 */
export function readEvent(length) {
  const event = readExactly(length);
  if (event !== null) invocationsLeft -= 1;
  return event;
}

/**
 * Read up to the next newline. Blocking: a waiting worker has nothing else to do, and
 * this returns sooner than an asynchronous read.
 *
 * @returns {string | null} Null at the end of stdin.
 */
export function readLine() {
  let searched = 0;
  for (;;) {
    const newline = unread.indexOf(10, searched);
    if (newline >= 0) {
      const line = decode(unread.subarray(0, newline));
      unread = unread.subarray(newline + 1);
      return line;
    }
    searched = unread.length;
    if (!readMore()) return null;
  }
}

/**
 * @param {number} length Bytes.
 * @returns {Uint8Array | null} Null if stdin ends before.
 */
export function readExactly(length) {
  if (unread.length >= length) {
    const bytes = unread.subarray(0, length);
    unread = unread.subarray(length);
    return bytes;
  }
  const bytes = new Uint8Array(length);
  bytes.set(unread);
  const begun = unread.length;
  unread = new Uint8Array(0);
  for (let offset = begun; offset < length;) {
    const count = readInput(bytes.subarray(offset));
    if (count === null) return null;
    offset += count;
  }
  return bytes;
}

/** @returns {boolean} False at the end of stdin. */
function readMore() {
  const chunk = unread.length === 0 ? readBuffer : new Uint8Array(65_536);
  const count = readInput(chunk);
  if (count === null) return false;
  const received = chunk.subarray(0, count);
  if (unread.length === 0) {
    unread = received;
  } else {
    const joined = new Uint8Array(unread.length + count);
    joined.set(unread);
    joined.set(received, unread.length);
    unread = joined;
  }
  return true;
}

/**
 * Decode UTF-8. Deno's TextDecoder takes 0.2 ms when it is first used, and for long
 * texts ten times as long as this.
 *
 * @param {Uint8Array} bytes
 * @returns {string} Without a byte order mark.
 * @throws {TypeError} The bytes are not UTF-8.
 */
export function decode(bytes) {
  const text = decodeLossy(bytes);
  // U+FFFD stands for invalid bytes, but it may also have been sent.
  return text.includes("\ufffd") ? decodeStrictly(bytes) : text;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 * @throws {TypeError} The bytes are not UTF-8.
 */
function decodeStrictly(bytes) {
  const { get, value } = decoderProperty;
  /** @type {typeof TextDecoder} */
  const Decoder = get === undefined ? value : get.call(globalThis);
  return new Decoder("utf-8", { fatal: true }).decode(bytes);
}
