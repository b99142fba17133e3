// @ts-check
/**
 * Handlers with a `fetch` method, and the `Response` that any handler may return. The
 * formats of HTTP events are in http.js, which is loaded when the first of them is
 * needed.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Job } from "./job.js" */
/** @import { Handler } from "./run.js" */
import { log } from "./console.js";
import { kindOf, RuntimeError } from "./errors.js";
import { hello } from "./input.js";
import { STREAMED } from "./run.js";
import { makeSink } from "./stream.js";

/**
 * @typedef {{ fetch: (request: Request, ...context: object[]) => unknown }} FetchApp
 */

/** The methods that a Request can have, for a response that lists them. */
const ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/** @type {AsyncIterable<Uint8Array>} */
const NO_BODY = { async *[Symbol.asyncIterator]() {} };

/**
 * Load what fetch handlers need.
 *
 * @param {Handler} [fallback] Handles events that are not HTTP requests.
 */
export async function fetchAdapter(fallback) {
  const http = await loadHttp();
  /**
   * @param {FetchApp} app
   * @returns {Handler}
   */
  return (app) => (event, context, job) =>
    fetchFrom(app, event, context, job, http, fallback);
}

/**
 * @param {FetchApp} app
 * @param {unknown} event
 * @param {Context} context
 * @param {Job} job
 * @param {typeof import("../http.js")} http
 * @param {Handler} [fallback] Handles an event that is not an HTTP request.
 */
async function fetchFrom(app, event, context, job, http, fallback) {
  if (http.httpShape(event) === null) {
    if (fallback !== undefined) return fallback(event, context, job);
    throw new RuntimeError(
      "Runtime.UnsupportedEvent",
      "Cannot turn the event into a Request: it is not an HTTP event of API Gateway, " +
        "a function URL, a load balancer or VPC Lattice; for other events export a function " +
        "`handler` beside the default export, and name the latter: file.default",
    );
  }
  let request;
  try {
    request = http.toRequest(event, context.signal, warn);
  } catch (error) {
    if (!(error instanceof http.MethodNotAllowedError)) throw error;
    const headers = { allow: ALLOWED_METHODS };
    return finishResponse(
      new Response(null, { status: 405, headers }),
      event,
      job,
    );
  }
  const facts = factsOf(
    event,
    context,
    http.connectionOf(event, request.headers),
  );
  // Frameworks for Workers look for `waitUntil` in the third argument.
  const response = await app.fetch(request, facts, facts);
  if (!isResponse(response)) {
    throw new RuntimeError(
      "Runtime.InvalidResponse",
      `Cannot answer with what fetch returned: it is ${kindOf(response)}, ` +
        "not a Response",
    );
  }
  return finishResponse(response, event, job);
}

/**
 * Give a context what frameworks look for in the second argument of `fetch`: that of
 * hono's adapter for Lambda, and of `Deno.serve`.
 *
 * @param {any} event
 * @param {Context} context
 * @param {import("../http.js").Connection} remoteAddr
 */
function factsOf(event, context, remoteAddr) {
  const { requestContext = {} } = event;
  const facts = Object.assign(context, { event, requestContext, remoteAddr });
  // Not enumerable: JSON cannot hold a context that holds itself.
  return Object.defineProperty(facts, "lambdaContext", { value: context });
}

/**
 * Turn a `Response` into the result that the event's sender expects; leave other values
 * as they are.
 *
 * @param {unknown} result
 * @param {unknown} event
 * @param {Job} job
 */
export async function finishResponse(result, event, job) {
  if (!isResponse(result)) return result;
  const { fromResponse, httpShape, isBodyless, streamPrelude } =
    await loadHttp();
  if (httpShape(event) === null) {
    throw new RuntimeError(
      "Runtime.UnsupportedEvent",
      "Cannot answer with a Response: the event is not an HTTP event; return a value",
    );
  }
  if (hello.responseMode === "buffered") {
    return fromResponse(result, event, warn);
  }
  const sink = makeSink(job);
  sink.beginHttp(streamPrelude(result));
  const hasBody = result.body !== null && !isBodyless(result, event);
  if (!hasBody) result.body?.cancel().catch(() => {}); // its source need not go on
  await sink.pump(hasBody ? result.body : NO_BODY);
  return STREAMED;
}

/**
 * Deno loads its fetch code when `Response` is first named, which takes 3 ms. The name
 * is reached only for a value that looks like a response, whose maker has named it
 * before.
 *
 * @param {any} value
 * @returns {value is Response}
 */
function isResponse(value) {
  return typeof value === "object" && value !== null &&
    value[Symbol.toStringTag] === "Response" && value instanceof Response;
}

/** @param {string} message What could not be converted between event and Request. */
export function warn(message) {
  log("WARN", [message]);
}

/** Only handlers that speak HTTP pay for this. */
export function loadHttp() {
  return import("../http.js");
}
