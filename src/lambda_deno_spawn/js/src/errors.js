// @ts-check
/**
 * Error bodies: anything that can be thrown, described for the supervisor within
 * limits. Cannot throw, however hostile the value is. Does not know of jobs and frames.
 *
 * @module
 */

import { hello } from "./input.js";
import { encode, isNativeError, stringify } from "./primordials.js";

/**
 * @typedef {object} ErrorBody
 * @property {string} errorType
 * @property {string} errorMessage
 * @property {string[]} stackTrace
 * @property {ErrorBody} [cause]
 * @property {ErrorBody[]} [errors]
 */

/**
 * The room that is left in an error body; reduced while it is written.
 *
 * @typedef {object} Budget
 * @property {number} left Errors.
 * @property {number} text Characters.
 * @property {[any, ErrorBody][]} [described] Collects each error with its description.
 */
/**
 * The room that is left for the members of errors.
 *
 * @typedef {Budget & { values: number, path: unknown[] }} MemberBudget
 */

/** How many errors an error body describes, causes and aggregated ones included. */
const ERRORS_LIMIT = 32;
/** How many characters of messages and stacks it keeps, all errors together. */
const ERROR_TEXT_LIMIT = 196_608;
/** How many characters and values the members of errors may have, all together. */
const MEMBERS_TEXT_LIMIT = 32_768;
const MEMBERS_LIMIT = 1_000;
/** How deep they may be nested. */
const MEMBERS_DEPTH = 32;
/** Members of an error that its description has by other names, or as its own. */
const DESCRIBED = [
  "name",
  "message",
  "stack",
  "cause",
  "errorType",
  "errorMessage",
  "stackTrace",
];
const CANNOT_BE_SHOWN = "a value that cannot be shown";
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
/** How Deno words that it does not find a package. */
const NO_PACKAGE =
  /(?:Import|Could not find|Could not resolve) "((?:@[^"/]+\/)?[^"/]+)[^"]*"/;
/** Kinds of access that a program asks for because it needs it, not to find out. */
const NEEDED = /^Requires (read|write|net|run|ffi) access/;
/** The name of a rejection that no code has awaited. */
export const NOT_HANDLED = "Runtime.UnhandledPromiseRejection";
/** Codes of errors by which modules are not found or cannot be loaded. */
const NOT_LOADED =
  /^(?:MODULE_NOT_FOUND|ERR_(?:MODULE|PACKAGE|INVALID_(?:MODULE|PACKAGE)|UNSUPPORTED_(?:DIR|ESM)|UNKNOWN_(?:BUILTIN|FILE|MODULE)|REQUIRE|IMPORT|TYPES|NETWORK_IMPORT|LOAD|UNSUPPORTED_RESOLVE)_)/;
/** How Deno words that a module may not be downloaded, and what it means here. */
const NOT_CACHED = "--cached-only is specified";
const NOT_PACKAGED =
  "and LAMBDA_DENO_PERMISSIONS (none, or --cached-only) lets nothing be loaded from " +
  "the network: it has to come with the function";
/** How Deno words that it cannot add a package to its cache, and what helps here. */
const NOT_ADDED = "Failed caching npm package";
/** How Deno words that it has not found an alias, which compilers know. */
const ALIAS =
  /^(Import "((?:@|~|\$[\w-]*)\/)[^"]*" not a dependency)\n\s*hint: .*/;
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

/** The words of a text that needs advice. */
const NEEDS_ADVICE =
  /, run again with the --allow-|getaddrinfo EPERM |o such file or directory|^Command failed: |--cached-only is specified|^Failed caching npm package|Import "|Could not (?:find|resolve) "/;
const CREDENTIALS_ERROR = "CredentialsProviderError";

let ourFolder = "";
/** Code of Deno's own in the line of a stack. */
const DENOS_OWN = /\b(?:ext|node):[\w/]/;

/** @returns {string} Folder of the runtime's own files, as lines of a stack show it. */
export function ourFiles() {
  // Not while this is loaded: Deno makes `import.meta` when it is first used.
  return ourFolder ||= import.meta.url.slice(
    0,
    import.meta.url.lastIndexOf("/") + 1,
  );
}

/** @returns {string} The same in the form of loggers that shorten the lines of a stack. */
export function ourPath() {
  return ourFiles().slice("file://".length);
}

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
 * Encode an error as the body of an ERROR frame: what the caller gets and, if the error
 * has members of its own, a newline and the same with these, for the log only.
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
      /** @type {[any, ErrorBody][]} */
      const described = [];
      const body = describe(error, {
        left: ERRORS_LIMIT,
        text: room,
        described,
      });
      if (errorType) rename(body, errorType, described.length > 0);
      type = body.errorType;
      const whole = encode(stringify(body));
      if (whole.length <= ERROR_LIMIT_BYTES) {
        bytes = attempt(() => withMembers(whole, body, described)) ?? whole;
      } else if (room < ERROR_TYPE_LIMIT) throw whole;
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
 * Give an error another name. A rejection that is not handled may be of any kind, so its
 * own name goes into the message, as in AWS's Node runtime.
 *
 * @param {ErrorBody} body
 * @param {string} errorType
 * @param {boolean} isError False: something else was thrown.
 */
function rename(body, errorType, isError) {
  const { errorType: own } = body;
  if (isError && errorType === NOT_HANDLED && own !== "Error") {
    body.errorMessage = `${own}: ${body.errorMessage}`;
  }
  body.errorType = errorType;
}

/**
 * @param {Uint8Array<ArrayBuffer>} whole The body without members.
 * @param {ErrorBody} body The same, not encoded.
 * @param {[any, ErrorBody][]} described
 * @returns {Uint8Array<ArrayBuffer>} The body with that for the log behind it, if it
 *   says more.
 */
function withMembers(whole, body, described) {
  if (!addMembers(described)) return whole;
  let logged = encode(stringify(body));
  const room = ERROR_LIMIT_BYTES - whole.length - 1;
  if (logged.length > room) {
    // A long message or stack takes the room: members matter more, and the whole text
    // is in the other half. A character takes up to six bytes.
    const [error] = described[0];
    const { errorType } = body;
    logged = encode(stringify({
      // @ts-ignore no prototype, as in `describe`
      __proto__: null,
      ...describeWhole(error, Math.floor(room / 24)),
      errorType,
    }));
    if (logged.length > room) return whole;
  }
  const both = new Uint8Array(whole.length + 1 + logged.length);
  both.set(whole);
  both[whole.length] = 10;
  both.set(logged, whole.length + 1);
  return both;
}

/**
 * Describe an error for the log, with the members that it has beside name, message and
 * stack, such as `code`.
 *
 * @param {unknown} error
 * @param {number} [text] Characters that it may have, and its members again.
 * @returns {ErrorBody & Record<string, unknown>}
 */
export function describeWhole(error, text = ERROR_TEXT_LIMIT) {
  /** @type {[any, ErrorBody][]} */
  const described = [];
  const body = describe(error, { left: ERRORS_LIMIT, text, described });
  attempt(() => addMembers(described, Math.min(text, MEMBERS_TEXT_LIMIT)));
  return /** @type {ErrorBody & Record<string, unknown>} */ (body);
}

/**
 * Add to the descriptions of errors the enumerable members that these have.
 *
 * @param {[any, ErrorBody][]} described
 * @param {number} [text] Characters that all of them may have.
 * @returns {boolean} True if there were any.
 */
function addMembers(described, text = MEMBERS_TEXT_LIMIT) {
  /** @type {MemberBudget} */
  const budget = { left: ERRORS_LIMIT, text, values: MEMBERS_LIMIT, path: [] };
  let isAny = false;
  for (const [error, body] of described) {
    isAny = copyMembers(error, body, budget) || isAny;
  }
  return isAny;
}

/**
 * @param {any} error
 * @param {any} body Its description, which gets the members.
 * @param {MemberBudget} budget
 * @returns {boolean} True if there were any.
 */
function copyMembers(error, body, budget) {
  if (!isError(error)) return false;
  const names = (attempt(() => Object.keys(error)) ?? [])
    .filter((name) => !DESCRIBED.includes(name) && !(name in body));
  const members = names.slice(0, Math.max(budget.values, 0))
    .map((name) => ({ name, value: valueOf(error, name) }));
  // The short ones first, so that a large object does not take their room.
  const isLong = (/** @type {unknown} */ value) =>
    typeof value === "object" && value !== null;
  budget.path.push(error);
  const kind = hello.logFormat === "json" && attempt(() => classOf(error));
  const isRenamed = kind && body.errorType !== attempt(() => error.name);
  let isAny = false;
  if (kind && !isRenamed) {
    body.errorType = kind;
    isAny = true;
  }
  for (const long of [false, true]) {
    for (const { name, value } of members) {
      if (isLong(value) !== long) continue;
      const copied = copy(value, budget);
      if (copied === undefined) continue;
      body[shortened(name.toWellFormed(), budget)] = copied;
      isAny = true;
    }
  }
  budget.path.pop();
  return isAny;
}

/**
 * @param {any} error
 * @returns {string | undefined} The name of its class, if only an ancestor has given it
 *   a name: AWS's Node runtime logs that in JSON. Callers get the error's own.
 */
function classOf(error) {
  const prototype = Object.getPrototypeOf(error);
  if (Object.hasOwn(error, "name") || Object.hasOwn(prototype, "name")) {
    return undefined;
  }
  const { name } = prototype.constructor;
  return typeof name === "string"
    ? name.slice(0, ERROR_TYPE_LIMIT).toWellFormed()
    : undefined;
}

/**
 * @param {any} holder
 * @param {string | number} name
 * @returns {unknown} The member, or a text if it cannot be read.
 */
function valueOf(holder, name) {
  try {
    return holder[name];
  } catch {
    return CANNOT_BE_SHOWN;
  }
}

/**
 * Copy what an error holds, as JSON would have it, but within limits.
 *
 * @param {any} value
 * @param {MemberBudget} budget
 * @returns {any} Undefined if JSON has no such value.
 */
function copy(value, budget) {
  if ((budget.values -= 1) < 0 || budget.text <= 0) return undefined;
  if (typeof value === "string") return shortened(value.toWellFormed(), budget);
  if (typeof value === "bigint") return shortened(String(value), budget);
  if (typeof value === "number" || typeof value === "boolean") return value;
  if (value === null) return null;
  if (typeof value !== "object") return undefined;
  const { path } = budget;
  const depth = path.length;
  if (path.includes(value)) return "[Circular]";
  if (depth >= MEMBERS_DEPTH) return "[Object]";
  try {
    return copyObject(value, budget);
  } catch {
    path.length = depth;
    return CANNOT_BE_SHOWN;
  }
}

/**
 * @param {any} value
 * @param {MemberBudget} budget
 * @returns {unknown}
 * @throws {unknown} It cannot be read.
 */
function copyObject(value, budget) {
  if (isError(value)) {
    if (budget.left <= 0) return undefined;
    /** @type {[any, ErrorBody][]} */
    const described = [];
    budget.described = described;
    const body = describe(value, budget);
    budget.described = undefined;
    for (const [error, inner] of described) copyMembers(error, inner, budget);
    return body;
  }
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  const { path } = budget;
  path.push(value);
  /** @type {any} */
  let copied;
  if (typeof value.toJSON === "function") {
    const json = value.toJSON("");
    copied = json === value ? CANNOT_BE_SHOWN : copy(json, budget);
  } else if (Array.isArray(value)) {
    copied = plain([]);
    for (let at = 0; at < value.length; at += 1) {
      if (budget.values <= 0 || budget.text <= 0) {
        copied.push(`\u2026 (${value.length - at} values more)`);
        break;
      }
      copied.push(copy(valueOf(value, at), budget) ?? null);
    }
  } else {
    copied = { __proto__: null };
    for (const name of Object.keys(value)) {
      if (budget.values <= 0 || budget.text <= 0) break;
      const member = copy(valueOf(value, name), budget);
      if (member === undefined) continue;
      copied[shortened(name.toWellFormed(), budget)] = member;
    }
  }
  path.pop();
  return copied;
}

/**
 * Tell errors, those of other realms (`node:vm`) and objects that are like them
 * included, from other values.
 *
 * @param {any} value
 * @returns {boolean}
 */
export function isError(value) {
  if (typeof value !== "object" || value === null) return false;
  return attempt(() =>
    isNativeError?.(value) || value instanceof Error ||
    isText(value.stack) && isText(value.name) &&
      typeof value.message === "string"
  ) ?? false;
}

/** @param {unknown} value */
function isText(value) {
  return typeof value === "string" && value !== "";
}

/**
 * Describe anything that was thrown.
 *
 * @param {any} error
 * @param {Budget} [budget] What the body may still hold; reduced by this call.
 * @returns {ErrorBody}
 */
export function describe(
  error,
  budget = { left: ERRORS_LIMIT, text: ERROR_TEXT_LIMIT },
) {
  budget.left -= 1;
  if (!isError(error)) {
    return {
      // @ts-ignore no prototype: members that a handler adds to Object's stay out
      __proto__: null,
      errorType: error === null ? "null" : typeof error,
      errorMessage: shortened(
        attempt(() =>
          typeof error === "object" ? textOfObject(error) : String(error)
        ) ?? CANNOT_BE_SHOWN,
        budget,
      ),
      stackTrace: plain([]),
    };
  }
  // The supervisor does not accept half a surrogate pair as JSON.
  const errorType =
    textOf(() => error.name).slice(0, ERROR_TYPE_LIMIT).toWellFormed() ||
    "Error";
  const message = advise(textOf(() => error.message), errorType);
  const errorMessage = shortened(message, budget);
  /** @type {ErrorBody} */
  const body = {
    // @ts-ignore no prototype, as above
    __proto__: null,
    errorType,
    errorMessage,
    stackTrace: plain(stackOf(error, budget)),
  };
  budget.described?.push([error, body]);
  const cause = attempt(() => error.cause);
  if (cause !== undefined && budget.left > 0) {
    body.cause = describe(cause, budget);
  }
  // An AggregateError, or a SuppressedError, which `using` throws.
  const errors =
    attempt(() =>
      Array.isArray(error.errors)
        ? [...error.errors]
        : "suppressed" in error
        ? [error.error, error.suppressed]
        : []
    ) ?? [];
  const described = [];
  for (const inner of errors) {
    if (budget.left <= 0) break;
    described.push(describe(inner, budget));
  }
  if (described.length > 0) body.errors = plain(described);
  return body;
}

/**
 * @param {any} value Not an error, but thrown.
 * @returns {string} What Node's runtime shows of it, or its members where that would be
 *   nothing but its kind.
 */
function textOfObject(value) {
  const text = attempt(() => `${value}`);
  if (text !== undefined && !text.startsWith("[object ")) return text;
  const members = stringify(value) ?? "";
  return members === "{}" && text !== undefined ? text : members;
}

/**
 * Note every denied access from now on. A framework may catch the error, and some parts
 * of Deno drop it, so its advice would be lost.
 *
 * @param {() => { phase: string } | null} findOwner Returns the job that the calling
 *   code belongs to; null: unknown.
 */
export function noteDenials(findOwner) {
  const denied = Deno.errors.NotCapable.prototype;
  // Programs for Node.js look for a code, as where they write to a folder that is not
  // theirs. Not a member of the error's own: the log would have it each time.
  Object.defineProperty(denied, "code", {
    value: "EACCES",
    configurable: true,
    writable: true,
  });
  // Deno's constructor of the error assigns its name.
  Object.defineProperty(denied, "name", {
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
  return attempt(() =>
    errorType === CREDENTIALS_ERROR || NEEDS_ADVICE.test(text)
      ? advised(text, errorType)
      : text
  ) ?? text;
}

/**
 * @param {string} text
 * @param {string} [errorType]
 * @returns {string}
 */
function advised(text, errorType) {
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
    if (ALIAS.test(text)) {
      return text.replace(
        ALIAS,
        (_, said, alias) =>
          `${said}\n  hint: this is not the name of a package; "paths" of ` +
          `tsconfig.json have no effect in Deno: add "imports": {"${alias}": ` +
          '"./src/"} to deno.json',
      );
    }
    const folder = hello.packageFolders.length > 0 && layerWith(text);
    if (folder) {
      return `${text}\n  It is in ${folder}, where only require looks, as in Node: ` +
        "use createRequire of node:module, or bundle the function";
    }
    const isLost = errorType === CREDENTIALS_ERROR &&
      hello.permissions.credentialsWithheld;
    return isLost ? text + CREDENTIALS_WITHHELD : text;
  }) ?? text;
}

/**
 * @param {string} text
 * @returns {string | undefined} The folder for `require` with the package that `import`
 *   did not find.
 */
function layerWith(text) {
  const name = NO_PACKAGE.exec(text)?.[1];
  return hello.packageFolders.find((folder) =>
    name !== undefined && attempt(() => Deno.statSync(`${folder}/${name}`))
  );
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
    kind === "env" && target === undefined &&
    hello.steering.includes("HTTP_PROXY")
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
    ? "on Lambda the function's folder is read-only: use the folder in os.tmpdir() " +
      "and $TMPDIR; elsewhere, "
    : isFile && !isOwn && /^\/tmp(\/|$)/.test(target ?? "")
    ? "each event has its own empty folder: use os.tmpdir() or $TMPDIR; " +
      "to share /tmp with other events, "
    : "";
  return `${instead}set LAMBDA_DENO_PERMISSIONS="${
    base && `${base} `
  }${flag}" (permissions in lambda.toml; \`lambda-deno-spawn explain\` tells more), ${inJson}${unless}`;
}

/**
 * Name the reason why a module could not be loaded.
 *
 * Deno reports what its loader finds as a `TypeError` with a code, `require` as Node
 * does; an error that the module throws keeps its own name.
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
  if (typeof code === "string" && NOT_LOADED.test(code)) {
    return "Runtime.ImportModuleError";
  }
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
  const whole = textOf(() => error.stack);
  const first = whole.search(/^\s+at /m);
  if (first < 0) return [];
  const stack = whole.slice(first, first + budget.text);
  budget.text -= stack.length;
  // The frames in which Deno calls the runtime are of no use to the handler's author.
  const isOurError = error instanceof RuntimeError;
  const lines = stack.split("\n").map((line) => line.trim())
    .filter((line) =>
      line.startsWith("at ") && !line.includes(ourPath()) &&
      !line.includes(ourFiles()) && !(isOurError && DENOS_OWN.test(line))
    );
  const rest = whole.length - first - stack.length;
  if (rest > 0) lines.push(`\u2026 (${rest} characters more)`);
  return lines;
}

/**
 * @param {() => unknown} read
 * @returns {string} The value if it is a string, else an attempt at one.
 */
function textOf(read) {
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
