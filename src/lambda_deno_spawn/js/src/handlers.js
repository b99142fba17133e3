// @ts-check
/**
 * The forms that a handler may have: finds it among a module's exports, adapts it to
 * the form that `run` calls, and rehearses it before the first event.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Handler } from "./run.js" */
import { attempt, kindOf, quote, RuntimeError } from "./errors.js";
import { fetchAdapter, finishResponse } from "./fetch.js";
import { hello, readExactly } from "./input.js";
import { Job } from "./job.js";
import { LINGER_MS, NOWHERE } from "./output.js";
import { encode, parse } from "./primordials.js";
import { run, STREAMED } from "./run.js";
import { Sink } from "./stream.js";

/** Marks a handler that writes to a response stream, as AWS's own runtime does. */
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
/** Where the namespace of a CommonJS module has what `module.exports` holds. */
const COMMONJS = "module.exports";
/** How many names a message lists. */
const NAMES_LIMIT = 32;
/** The INVOKE line of a rehearsal. */
const REHEARSAL =
  '{"eventBytes":2,"requestId":"","deadlineEpochMs":0,"abortEpochMs":0,"functionArn":"",' +
  '"traceId":null,"clientContext":null,"identity":null,"tenantId":null}';
/** The event of a rehearsal with a Request. */
export const HTTP_REHEARSAL =
  '{"version":"2.0","rawPath":"/","headers":{"host":"localhost"},' +
  '"requestContext":{"http":{"method":"GET"}}}';

/** The global of AWS's own runtime. */
export const awslambda = {
  /**
   * Mark a handler as one that writes its response to a stream.
   *
   * @template {Function} H
   * @param {H} handler Called with event, response stream and context.
   * @returns {H}
   */
  streamifyResponse(handler) {
    // @ts-ignore a mark, as AWS's runtime makes it
    handler[STREAMING] = "response";
    return handler;
  },
  HttpResponseStream: {
    /**
     * Give a stream a status and headers.
     *
     * @param {import("../node_stream.js").ResponseStream} stream
     * @param {object} prelude `statusCode`, `headers`, `cookies`.
     */
    from(stream, prelude) {
      stream.sink.beginHttp(prelude);
      return stream;
    },
  },
};

/**
 * Find the handler among a module's exports and adapt it to the form that `run` calls.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {Promise<Handler>}
 * @throws {RuntimeError} There is no such export, or it has none of the known forms.
 */
export async function adapt(module, path) {
  const { owner, value } = pick(module, path);
  if (typeof value !== "function") {
    const commonjs = /** @type {any} */ (module[COMMONJS]);
    const adaptFetch = await fetchAdapter(module.handler ?? commonjs?.handler);
    await rehearse(
      adaptFetch({ fetch: () => new Response("{}") }),
      HTTP_REHEARSAL,
    );
    return adaptFetch(value);
  }
  if (STREAMING in value) {
    const adaptStreaming = await streamingAdapter();
    // V8 compiles code again that has run a few times: not while the event waits.
    for (let times = 0; times < 3; times += 1) {
      await rehearse(adaptStreaming(async (_event, stream) => {
        await new Promise((resolve) => stream.write("1", resolve));
        stream.end("2");
      }, undefined));
    }
    return adaptStreaming(value, owner);
  }
  await rehearse(adaptPlain((event) => event, undefined));
  if (value[Symbol.toStringTag] === "AsyncGeneratorFunction") {
    await rehearse(adaptPlain(async function* () {
      yield "1";
      yield "2";
    }, undefined));
  }
  return adaptPlain(value.length > 2 ? withCallback(value) : value, owner);
}

/**
 * Find an export. The default export stands in for `handler`, the conventional name.
 * The namespace of a CommonJS module has only the names that can be seen without running
 * the module; where it does not help, `module.exports` itself is asked.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {{ owner: unknown, value: any }} A function, or an object with `fetch`.
 * @throws {RuntimeError} There is no such export, or it is something else.
 */
export function pick(module, path) {
  const commonjs = module[COMMONJS];
  let owner = /** @type {unknown} */ (undefined);
  let value = /** @type {any} */ (module);
  for (const name of path.split(".")) {
    owner = value === module ? commonjs : value;
    value = value?.[name];
  }
  if (value === undefined && path === "handler" && commonjs === undefined) {
    value = module.default;
  }
  if (typeof value === "function" || typeof value?.fetch === "function") {
    return { owner, value };
  }
  if (commonjs !== undefined) return pickCommonJs(commonjs, path);
  throw noHandler(Object.keys(module), path, value);
}

/**
 * Find an export of a CommonJS module that was made while the module ran.
 *
 * @param {any} exports What `module.exports` holds.
 * @param {string} path Names joined by dots.
 * @returns {{ owner: unknown, value: any }}
 * @throws {RuntimeError} There is no such export, or it is something else.
 */
function pickCommonJs(exports, path) {
  let owner = /** @type {any} */ (undefined);
  let value = exports;
  for (const name of path.split(".")) {
    owner = value;
    value = value?.[name];
  }
  if (isHandler(value)) return { owner, value };
  if (value === undefined && path === "handler") {
    // Compilers write a default export as a member, beside a mark.
    const standIn = exports?.__esModule ? exports.default : exports;
    if (isHandler(standIn)) return { owner: undefined, value: standIn };
  }
  throw noHandler(attempt(() => namesIn(exports)) ?? [], path, value);
}

/** @param {any} value */
function isHandler(value) {
  return typeof value === "function" || typeof value?.fetch === "function";
}

/**
 * @param {unknown} exports What `module.exports` holds.
 * @returns {string[]} Names of its members, the methods of its class included.
 */
function namesIn(exports) {
  const names = new Set();
  const ends = [null, Object.prototype, Function.prototype, Array.prototype];
  // A primitive has no members that anyone has exported.
  let holder = typeof exports === "object" || typeof exports === "function"
    ? exports
    : null;
  for (let depth = 0; depth < 8 && !ends.includes(holder); depth += 1) {
    const isOwn = holder === exports;
    const found = isOwn
      ? Object.keys(/** @type {object} */ (holder))
      : Object.getOwnPropertyNames(holder);
    for (const name of found) {
      if (name !== "constructor" && name !== "__esModule") names.add(name);
    }
    holder = Object.getPrototypeOf(holder);
  }
  return [...names];
}

/**
 * @param {string[]} names What the module exports.
 * @param {string} path
 * @param {unknown} value What the export holds.
 */
function noHandler(names, path, value) {
  const where = quote(hello.module);
  const more = names.length > NAMES_LIMIT ? ", \u2026" : "";
  const found = names.slice(0, NAMES_LIMIT).join(", ") + more || "nothing";
  const kind = kindOf(value);
  return new RuntimeError(
    "Runtime.HandlerNotFound",
    value === undefined
      ? `Cannot find export ${quote(path)} in ${where}: it exports ${found}`
      : `Cannot call export ${quote(path)} of ${where}: it is ${kind}, ` +
        "not a function or an object with a fetch method",
  );
}

/**
 * @param {(event: unknown, context: Context) => unknown} value
 * @param {unknown} owner
 * @returns {Handler}
 */
function adaptPlain(value, owner) {
  return async (event, context, job) =>
    finishResponse(await value.call(owner, event, context), event, job);
}

/**
 * Adapt a handler of the older form, which takes a callback, to the form of today.
 *
 * @param {Function} handler
 */
export function withCallback(handler) {
  return function (
    /** @type {unknown} */ event,
    /** @type {Context} */ context,
  ) {
    // @ts-ignore called as a method of its owner
    const owner = /** @type {unknown} */ (this);
    return new Promise((resolve, reject) => {
      const result = handler.call(
        owner,
        event,
        context,
        (/** @type {unknown} */ error, /** @type {unknown} */ value) =>
          error === null || error === undefined
            ? resolve(value)
            : reject(error),
      );
      // A function that declares a callback and returns a promise means the promise.
      if (typeof result?.then === "function") resolve(result);
    });
  };
}

/** Load what handlers of AWS's streaming form need. */
async function streamingAdapter() {
  const { responseStream } = await import("../node_stream.js");
  /**
   * @param {(event: unknown, stream: any, context: Context) => unknown} value
   * @param {unknown} owner
   * @returns {Handler}
   */
  return (value, owner) => async (event, context, job) => {
    const { stream, finished } = responseStream(new Sink(job));
    await value.call(owner, event, stream, context);
    await finished;
    return STREAMED;
  };
}

/**
 * Run an invocation with a handler of our own and throw its frames away. V8 compiles a
 * function, and Deno loads parts of itself, when they are first used: after a rehearsal
 * the first event does not wait for that.
 *
 * @param {Handler} handler
 * @param {string} [event] JSON text.
 */
export async function rehearse(handler, event = "{}") {
  const head = parse(REHEARSAL);
  head.abortEpochMs = Date.now() + LINGER_MS;
  readExactly(0);
  const job = new Job("running", NOWHERE, head);
  await run(job, handler, head, encode(event));
  job.clearTimer();
}
