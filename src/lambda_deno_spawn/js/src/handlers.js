// @ts-check
/**
 * The forms that a handler may have: finds it among a module's exports, adapts it to
 * the form that `run` calls, and rehearses it before the first event.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Handler } from "./run.js" */
import { complete } from "./completion.js";
import { log } from "./console.js";
import { attempt, kindOf, quote, RuntimeError } from "./errors.js";
import { fetchAdapter, finishResponse } from "./fetch.js";
import { hello, readExactly } from "./input.js";
import { Job } from "./job.js";
import { LINGER_MS, NOWHERE } from "./output.js";
import { encode, parse } from "./primordials.js";
import { run, STREAMED } from "./run.js";
import { invokeStore } from "./store.js";
import { makeSink } from "./stream.js";

/** Marks a handler that writes to a response stream, as AWS's own runtime does. */
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const STREAMS_RESPONSE = "response";
/** The name under which the namespace of a CommonJS module has `module.exports`. */
const COMMONJS = "module.exports";
/** The export for which the default export stands in. */
const CONVENTIONAL_NAME = "handler";
/** How many names a message lists. */
const NAMES_LIMIT = 32;
/** The INVOKE line of a rehearsal. */
const REHEARSAL =
  '{"eventBytes":2,"requestId":"","deadlineEpochMs":0,"abortEpochMs":0,"functionArn":"",' +
  '"traceId":null,"clientContext":null,"identity":null,"tenantId":null}';
/** The event of a rehearsal with a Request. */
const HTTP_REHEARSAL =
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
    handler[STREAMING] = STREAMS_RESPONSE;
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
      stream.beginHttp(prelude);
      return stream;
    },
  },
  InvokeStore: invokeStore,
};

/**
 * Find the handler among a module's exports and adapt it to the form that `run` calls.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @param {{ owner: unknown, value: any }} [found] What `pick` has returned.
 * @returns {Promise<Handler>}
 * @throws {RuntimeError} There is no such export, or it has none of the known forms.
 */
export async function adapt(module, path, found = pick(module, path)) {
  const { owner, value } = found;
  if (!isFetchApp(value)) return await adaptFunction(value, owner);
  // Beside an app a handler may be exported, for events that are not HTTP requests.
  const beside = find(module, CONVENTIONAL_NAME);
  const fallback = beside !== undefined && !isFetchApp(beside.value)
    ? await adaptFunction(beside.value, beside.owner)
    : undefined;
  const adaptFetch = await fetchAdapter(fallback);
  await rehearse(
    adaptFetch({ fetch: () => new Response("{}") }),
    HTTP_REHEARSAL,
  );
  return adaptFetch(value);
}

/**
 * @param {any} value A function.
 * @param {unknown} owner
 * @returns {Promise<Handler>}
 */
async function adaptFunction(value, owner) {
  if (writesToStream(value)) {
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
  return adaptPlain(value, owner);
}

/**
 * Find an export that can be a handler.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {{ owner: unknown, value: any }} A function, or an object with `fetch`.
 * @throws {RuntimeError} There is no such export, or it is something else.
 */
export function pick(module, path) {
  const found = find(module, path);
  if (found !== undefined) return found;
  const exports = COMMONJS in module ? module[COMMONJS] : module;
  throw noHandler(exports, path, follow(exports, path).value);
}

/**
 * Find an export that can be a handler: in the namespace of the module, then in its
 * default export. The default export stands in for `handler`, the conventional name.
 * The namespace of a CommonJS module has only the names that can be seen without running
 * the module, so there `module.exports` comes first.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {{ owner: unknown, value: any } | undefined}
 */
function find(module, path) {
  const exports = /** @type {any} */ (module[COMMONJS]);
  const holders = COMMONJS in module
    ? [exports, module, exports?.default]
    : [module, module.default];
  for (const holder of holders) {
    const { owner, value } = follow(holder, path);
    if (isHandler(value)) {
      return { owner: owner === module ? ownerOf(module, path) : owner, value };
    }
  }
  const isThere = (follow(holders[0], path).value ?? null) !== null;
  if (path !== CONVENTIONAL_NAME || isThere) return undefined;
  const value = holders.find((holder) =>
    holder !== module && isHandler(holder)
  );
  return value === undefined ? undefined : { owner: undefined, value };
}

/**
 * A namespace is not an object that methods could be called on. But a bundle of a
 * CommonJS module has what `module.exports` holds as its default export.
 *
 * @param {Record<string, any>} module
 * @param {string} name Of an export.
 * @returns {unknown} What the export is a method of.
 */
function ownerOf(module, name) {
  const exports = module.default;
  const isOwner = attempt(() =>
    exports !== module[name] && exports?.[name] === module[name]
  );
  return isOwner ? exports : undefined;
}

/**
 * @param {any} holder
 * @param {string} path Names joined by dots.
 * @returns {{ owner: unknown, value: any }} What they lead to, and what has it.
 */
function follow(holder, path) {
  let owner = /** @type {unknown} */ (undefined);
  let value = holder;
  for (const name of path.split(".")) {
    owner = value;
    value = value?.[name];
  }
  return { owner, value };
}

/** @param {any} value */
function isHandler(value) {
  return typeof value === "function" || isFetchApp(value);
}

/**
 * @param {any} value A function. Wrappers copy the mark, also where there is none.
 * @returns {boolean} True if it is to write to AWS's response stream.
 */
function writesToStream(value) {
  return value[STREAMING] === STREAMS_RESPONSE;
}

/**
 * @param {any} value
 * @returns {boolean} True for an object, or a function, that has a `fetch` method. What
 *   writes to AWS's response stream is a plain handler.
 */
function isFetchApp(value) {
  const isObject = typeof value === "object" && value !== null;
  if (typeof value === "function" ? writesToStream(value) : !isObject) {
    return false;
  }
  return attempt(() => typeof value.fetch === "function") ?? false;
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
 * @param {unknown} exports What the module exports.
 * @param {string} path
 * @param {unknown} value What the export holds.
 */
function noHandler(exports, path, value) {
  const where = quote(hello.module);
  const names = attempt(() => namesIn(exports)) ?? [];
  const dots = names.length > NAMES_LIMIT ? ", \u2026" : "";
  const found = names.slice(0, NAMES_LIMIT).join(", ") + dots || "nothing";
  const isNot = (/** @type {unknown} */ it) =>
    `is ${kindOf(it)}, not a function or an object with a fetch method`;
  const standIn = path === CONVENTIONAL_NAME
    ? follow(exports, "default").value
    : undefined;
  const more = standIn === undefined
    ? ""
    : `; the default export, which could stand in, ${isNot(standIn)}`;
  const noServer = names.length > 0
    ? ""
    : " and has started no server (import.meta.main is false here)";
  const isNamed = names.includes(path.split(".")[0]);
  return new RuntimeError(
    "Runtime.HandlerNotFound",
    value === undefined && isNamed && !path.includes(".")
      ? `Cannot call export ${
        quote(path)
      } of ${where}: it is undefined when the module has loaded`
      : value === undefined
      ? `Cannot find export ${
        quote(path)
      } in ${where}: it exports ${found}${more}${noServer}`
      : `Cannot call export ${quote(path)} of ${where}: it ${isNot(value)}`,
  );
}

/**
 * @param {(...args: any[]) => unknown} value Called with event, context and callback.
 * @param {unknown} owner
 * @returns {Handler}
 */
function adaptPlain(value, owner) {
  return async (event, context, job) =>
    finishResponse(
      await complete(job, value, owner, event, context),
      event,
      job,
    );
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
    job.opensStream = true;
    const { stream, finished } = responseStream(makeSink(job));
    const result = await value.call(owner, event, stream, context);
    if (result !== undefined) {
      log("WARN", [
        "The handler writes its response to a stream, so what it returned is ignored",
      ]);
    }
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
