// @ts-check
/**
 * Error bodies: anything that can be thrown, described for the supervisor within
 * limits. Cannot throw, however hostile the value is. Does not know of jobs and frames.
 *
 * @module
 */

import { hello } from "./input.js";
import { encode, stringify } from "./primordials.js";

/**
 * @typedef {object} ErrorBody
 * @property {string} errorType
 * @property {string} errorMessage
 * @property {string[]} stackTrace
 * @property {ErrorBody} [cause]
 * @property {ErrorBody[]} [errors]
 */

/** How many errors an error body describes, causes and aggregated ones included. */
const ERRORS_LIMIT = 32;
/** How many characters of messages and stacks it keeps, all errors together. */
const ERROR_TEXT_LIMIT = 196_608;
/** Longest body of an ERROR frame, as in protocol/frames.py; up to six a character. */
const ERROR_LIMIT_BYTES = 262_144;
/** Characters kept of an error's name: it is sent in a header, which is short. */
const ERROR_TYPE_LIMIT = 128;
/** How Deno words a denied access, and how Node's resolver does. */
const DENIED =
  /Requires (\w+) access(?: to (?:"(.*?)"|(<\w+>)))?, run again with the --allow-\w+ flag/g;
const DENIED_LOOKUP = /getaddrinfo EPERM (\S+)/g;
/**
 * How Deno and Node word that a file is not there. Deno names no path if it has not
 * looked, because reading there is not allowed.
 */
const NOT_THERE =
  /(^|NotFound: )No such file or directory \(os error 2\)(?=\n|$)/g;
const NOT_THERE_IN_NODE =
  /ENOENT: no such file or directory, \w+ '(.*?)'(?= -> '|[\n"),\]]|$)/g;
/** How `node:child_process` words a denial: it drops the reason. */
const COMMAND_FAILED = "Command failed: ";
/** Kinds of access that a program asks for because it needs it, not to find out. */
const NEEDED = /^Requires (read|write|net|run|ffi) access/;
/** How Deno words that a module may not be downloaded, and what it means here. */
const NOT_CACHED = "--cached-only is specified";
const NOT_PACKAGED =
  "and LAMBDA_DENO_PERMISSIONS (none, or --cached-only) lets nothing be loaded from " +
  "the network: it has to come with the function";
/** How Deno words that it cannot add a package to its cache, and what helps here. */
const NOT_ADDED = "Failed caching npm package";
const ADD_BEFORE =
  ": an event cannot add packages beside those that were loaded before it; import it " +
  "at the top of the module, or package it";
/** Added to the AWS SDK's own message. */
const CREDENTIALS_WITHHELD =
  ": LAMBDA_DENO_ENV withholds the credentials, unless it has @credentials";
/**
 * The first denial of each kind that nothing has been said about yet, and whose it is.
 *
 * @type {Map<string, { message: string, owner: { phase: string } | null }>}
 */
const untold = new Map();
/** Kinds of access that a denial was told of. */
const told = /** @type {Set<string>} */ (new Set());

/** Folder of the runtime's own files, as lines of a stack show it. */
export const OUR_FILES = import.meta.url.slice(
  0,
  import.meta.url.lastIndexOf("/") + 1,
);

/** An error of the runtime itself, whose name the caller sees. */
export class RuntimeError extends Error {
  /**
   * @param {string} errorType
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(errorType, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = errorType;
  }
}

/**
 * Encode an error as the body of an ERROR frame.
 *
 * @param {unknown} error Anything that was thrown.
 * @param {string} [errorType] Overrides the error's own name.
 * @returns {{ bytes: Uint8Array, type: string }} The body, and the name in it.
 */
export function errorBody(error, errorType) {
  let type = errorType ?? "Error", bytes;
  try {
    // Text of several bytes a character is shortened again until the body fits.
    for (let room = ERROR_TEXT_LIMIT; bytes === undefined; room /= 2) {
      const body = describe(error, { left: ERRORS_LIMIT, text: room });
      if (errorType) body.errorType = errorType;
      type = body.errorType;
      const whole = encode(stringify(body));
      if (whole.length <= ERROR_LIMIT_BYTES) bytes = whole;
      else if (room < ERROR_TYPE_LIMIT) throw whole;
    }
  } catch {
    // The handler has broken what this is written with; report at least that.
    type = errorType ?? "Error";
    bytes = encode(
      `{"errorType":"${type}","errorMessage":"an error that cannot be shown",` +
        '"stackTrace":[]}',
    );
  }
  return { bytes, type };
}

/**
 * Describe anything that was thrown.
 *
 * @param {any} error
 * @param {{ left: number, text: number }} [budget] Errors and characters that the body
 *   may still hold; reduced by this call.
 * @returns {ErrorBody}
 */
export function describe(
  error,
  budget = { left: ERRORS_LIMIT, text: ERROR_TEXT_LIMIT },
) {
  budget.left -= 1;
  const isError = attempt(() => error instanceof Error) ?? false;
  if (!isError) {
    return {
      // @ts-ignore no prototype: members that a handler adds to Object's stay out
      __proto__: null,
      errorType: error === null ? "null" : typeof error,
      errorMessage: shortened(
        attempt(() =>
          typeof error === "object" ? stringify(error) ?? "" : String(error)
        ) ?? "a value that cannot be shown",
        budget,
      ),
      stackTrace: plain([]),
    };
  }
  // The supervisor does not accept half a surrogate pair as JSON.
  const errorType =
    text(() => error.name).slice(0, ERROR_TYPE_LIMIT).toWellFormed() || "Error";
  const message = advise(text(() => error.message), errorType);
  const errorMessage = shortened(message, budget);
  /** @type {ErrorBody} */
  const body = {
    // @ts-ignore no prototype, as above
    __proto__: null,
    errorType,
    errorMessage,
    stackTrace: plain(stackOf(error, budget)),
  };
  const cause = attempt(() => error.cause);
  if (cause !== undefined && budget.left > 0) {
    body.cause = describe(cause, budget);
  }
  const errors =
    attempt(() => Array.isArray(error.errors) ? [...error.errors] : []) ?? [];
  const described = [];
  for (const inner of errors) {
    if (budget.left <= 0) break;
    described.push(describe(inner, budget));
  }
  if (described.length > 0) body.errors = plain(described);
  return body;
}

/**
 * Note every denied access from now on. A framework may catch the error, and some parts
 * of Deno drop it, so nobody would read what would allow it.
 *
 * @param {() => { phase: string } | null} findOwner Returns the job that the calling
 *   code belongs to; null: unknown.
 */
export function noteDenials(findOwner) {
  // Deno's constructor of the error assigns its name.
  Object.defineProperty(Deno.errors.NotCapable.prototype, "name", {
    configurable: true,
    get: () => "Error",
    set(value) {
      const own = { configurable: true, enumerable: true, writable: true };
      Object.defineProperty(this, "name", { ...own, value });
      attempt(() => {
        const kind = NEEDED.exec(this.message)?.[1];
        if (kind === undefined || told.has(kind) || untold.has(kind)) return;
        untold.set(kind, { message: this.message, owner: findOwner() });
      });
    },
  });
}

/**
 * @param {{ phase: string }} job Those of others that are not over are left to them.
 * @returns {string[]} Denials that nothing was said about; each is returned once.
 */
export function untoldDenials(job) {
  if (untold.size === 0) return [];
  return [...untold.values()]
    .filter(({ owner }) =>
      owner === null || owner === job || owner.phase === "idle" ||
      owner.phase === "done"
    )
    .map(({ message }) => advise(message));
}

/**
 * Add to the message of a denied access what would allow it on Lambda, where a function
 * cannot be "run again with the --allow-read flag".
 *
 * @param {string} text
 * @param {string} [errorType]
 * @returns {string}
 */
export function advise(text, errorType) {
  return attempt(() => {
    const isDenial = text.includes(", run again with the --allow-");
    if (isDenial || text.includes("getaddrinfo EPERM ")) {
      return text.replace(DENIED, (_, kind, target, folder) => {
        told.add(kind);
        untold.delete(kind);
        const what = target === undefined ? "" : ` to "${target}"`;
        const value = folder === "<TMP>" ? "$TMPDIR" : target;
        return `Requires ${kind} access${what}: ${remedy(kind, value)}`;
      }).replace(
        DENIED_LOOKUP,
        (said, host) => `${said}: ${remedy("net", host)}`,
      );
    }
    if (hello.permissions.hidden && text.includes("o such file or directory")) {
      return text.replace(NOT_THERE, (said) => `${said}: ${outOfSight()}`)
        .replace(
          NOT_THERE_IN_NODE,
          (said, path) =>
            isReadable(path) ? said : `${said}: ${outOfSight(path)}`,
        );
    }
    const denial = text.startsWith(COMMAND_FAILED) && untold.get("run");
    if (denial) return `${text}: ${advise(denial.message)}`;
    if (text.includes(NOT_CACHED)) {
      return text.replaceAll(NOT_CACHED, NOT_PACKAGED);
    }
    if (text.startsWith(NOT_ADDED)) return text + ADD_BEFORE;
    const isLost = errorType === "CredentialsProviderError" &&
      hello.permissions.credentialsWithheld;
    return isLost ? text + CREDENTIALS_WITHHELD : text;
  }) ?? text;
}

/** @param {string} path */
function isReadable(path) {
  const state = attempt(() =>
    Deno.permissions.querySync({ name: "read", path }).state
  );
  return state === undefined || state === "granted";
}

/**
 * @param {string} [path]
 * @returns {string} What to say about a file that looks as if it did not exist.
 */
function outOfSight(path) {
  const which = path === undefined
    ? "if the path is one that"
    : "this is a path that";
  return `${which} the function may not read, it looks like this whether the file ` +
    `exists or not; to read it, ${remedy("read", path ?? "PATH")}`;
}

/**
 * @param {string} kind Kind of permission.
 * @param {string | undefined} target What was accessed, if that is known.
 * @returns {string} What allows it.
 */
export function remedy(kind, target) {
  const { base, set, denies, runtimeApi, everything, taskRoot } =
    hello.permissions;
  if (
    kind === "env" && target === undefined && "HTTP_PROXY" in hello.variables
  ) {
    return "process.loadEnvFile would also set variables that Deno's module loader " +
      "obeys, such as HTTP_PROXY; use util.parseEnv and Deno.env.set";
  }
  const port = target?.slice(target.lastIndexOf(":"));
  const isLoopback = target?.startsWith("127.") &&
    runtimeApi[0].endsWith(`${port}`);
  if (target && (runtimeApi.includes(target) || isLoopback)) {
    return "this is the address of the Runtime API, which no permission opens: a " +
      "handler that asked it for events would take them from others (only programs " +
      "that it may start, with run or ffi, are not held back)";
  }
  if (everything) {
    return kind === "sys"
      ? "everything is allowed but this, which would slow down the runtime; list flags " +
        `instead, --allow-sys=${target} among them`
      : `everything is allowed but what a --deny-${kind} flag or deno.json denies`;
  }
  const isFile = kind === "read" || kind === "write";
  const isOwn = isFile && `${target}/`.startsWith(`${taskRoot}/`);
  // On Lambda the function's folder is another than on this machine.
  const place = isOwn
    ? `$LAMBDA_TASK_ROOT${target?.slice(taskRoot.length)}`
    : target;
  const isPlain = place === undefined || /^[\w@%+=:./$-]+$/.test(place);
  const value = isPlain ? place : `'${place.replaceAll("'", `'\\''`)}'`;
  const flag = `--allow-${kind}${value === undefined ? "" : `=${value}`}`;
  const inJson = set === null
    ? 'or list what the function may do under "permissions" in deno.json'
    : `or add it to the permission set "${set}" in deno.json`;
  const unless = denies.includes(kind)
    ? `; what is denied for ${kind} there or in deno.json stays denied`
    : "";
  const instead = isOwn && kind === "write"
    ? "on Lambda the function's folder cannot be written to: use the folder that " +
      "os.tmpdir() and $TMPDIR name; elsewhere, "
    : isFile && /^\/tmp(\/|$)/.test(target ?? "")
    ? "each event has an empty folder of its own, which os.tmpdir() and $TMPDIR name: " +
      "use that; to share /tmp with other events, "
    : "";
  return `${instead}set LAMBDA_DENO_PERMISSIONS="${
    base && `${base} `
  }${flag}", ${inJson}${unless}`;
}

/**
 * Name the reason why a module could not be loaded.
 *
 * Deno reports what its loader finds as a `TypeError` with a code; an error that the
 * module throws keeps its own name.
 *
 * @param {any} error
 * @returns {string | undefined}
 */
export function loadErrorType(error) {
  const { code, message, name } = attempt(() => ({
    code: error.code,
    message: `${error.message}`,
    name: error.name,
  })) ?? {};
  const isSyntaxError = name === "SyntaxError" ||
    message?.startsWith("SyntaxError:");
  if (isSyntaxError) return "Runtime.UserCodeSyntaxError";
  if (code?.startsWith?.("ERR_")) return "Runtime.ImportModuleError";
  return undefined;
}

/**
 * @template T
 * @param {T[]} array
 * @returns {T[]} The same array, safe from a `toJSON` that arrays inherit.
 */
function plain(array) {
  return Object.defineProperty(array, "toJSON", { value: undefined });
}

/**
 * @param {string} text
 * @param {{ text: number }} budget Characters left; reduced by this call.
 * @returns {string} As much of the text as fits into the error body.
 */
function shortened(text, budget) {
  const kept = text.slice(0, budget.text);
  budget.text -= kept.length;
  const rest = text.length - kept.length;
  return rest === 0 ? text : `${kept}\u2026 (${rest} characters more)`;
}

/**
 * The stack as one string per frame, without the message and without our own frames.
 * Positions are those of the TypeScript file: Deno maps them.
 *
 * @param {any} error
 * @param {{ text: number }} budget Characters left; reduced by this call.
 * @returns {string[]}
 */
function stackOf(error, budget) {
  const whole = text(() => error.stack);
  const first = whole.search(/^\s+at /m);
  if (first < 0) return [];
  const stack = whole.slice(first, first + budget.text);
  budget.text -= stack.length;
  const lines = stack.split("\n").map((line) => line.trim())
    .filter((line) => line.startsWith("at ") && !line.includes(OUR_FILES));
  const rest = whole.length - first - stack.length;
  if (rest > 0) lines.push(`\u2026 (${rest} characters more)`);
  return lines;
}

/**
 * @param {() => unknown} read
 * @returns {string} The value if it is a string, else an attempt at one.
 */
function text(read) {
  return attempt(() => {
    const value = read();
    return typeof value === "string"
      ? value
      : value === undefined
      ? ""
      : String(value);
  }) ?? "";
}

/**
 * @template T
 * @param {() => T} read
 * @returns {T | undefined} Undefined if it throws.
 */
export function attempt(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** @param {string} value */
export function quote(value) {
  return `'${value}'`;
}

/**
 * @param {unknown} value
 * @returns {string} What kind of value it is, for a message.
 */
export function kindOf(value) {
  return value === null ? "null" : `of type ${typeof value}`;
}
