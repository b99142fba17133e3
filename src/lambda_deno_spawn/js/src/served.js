// @ts-check
/**
 * Modules that serve instead of exporting a handler: each event becomes a request to
 * their server, which answers as it would anywhere else. Does not know how a module
 * starts a server; serving.js does.
 *
 * @module
 */

/** @import { Context } from "./context.js" */
/** @import { Job } from "./job.js" */
/** @import { Handler } from "./run.js" */
/** @import { Server } from "./serving.js" */
import { callAndWait } from "./call.js";
import { log } from "./console.js";
import { RuntimeError } from "./errors.js";
import { fetchAdapter, loadHttp, warn } from "./fetch.js";
import { adapt, HTTP_REHEARSAL, pick, rehearse } from "./handlers.js";
import { hello } from "./input.js";
import { STREAMED } from "./run.js";
import {
  isListener,
  isServing,
  keepServers,
  openServer,
  releaseServers,
} from "./serving.js";
import { Sink } from "./stream.js";

/** For an app that does not listen by itself. */
const APP_PORT = 8080;
/** Where a request comes from whose event does not tell it. */
const LOOPBACK = "127.0.0.1";
const NO_UPGRADE =
  "Cannot upgrade to a WebSocket: each event is answered by one HTTP response; use a " +
  "WebSocket API of API Gateway";
/** Thrown at the app that wants an upgrade. */
class UpgradeRefusedError extends TypeError {}
UpgradeRefusedError.prototype.name = "UpgradeRefusedError";

/**
 * Find the module's handler; without one, the module's server is the handler.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {Promise<Handler>}
 * @throws {RuntimeError} It has neither.
 */
export async function adaptOrServe(module, path) {
  const value = exported(module, path);
  const isApp = canListen(value);
  if (value === undefined || isApp || isListener(value)) {
    const isStarted = await isServing(isApp);
    // As anything else would that starts the app.
    if (isApp && !isStarted) await value.listen({ port: APP_PORT });
    if (isStarted || (isApp && await isServing())) {
      keepServers();
      return await serverAdapter();
    }
  }
  releaseServers();
  return await adapt(module, path);
}

/**
 * @param {Record<string, unknown>} module
 * @param {string} path
 * @returns {any} What is named, or stands in for it; undefined: nothing that could be
 *   called.
 */
function exported(module, path) {
  try {
    return pick(module, path).value;
  } catch (error) {
    if (error instanceof RuntimeError) {
      const commonjs = /** @type {any} */ (module["module.exports"]);
      /** @param {any} holder */
      const at = (holder) =>
        path.split(".").reduce((value, name) => value?.[name], holder);
      return [at(module), at(commonjs), module.default, commonjs]
        .find(canListen);
    }
    throw error;
  }
}

/**
 * @param {any} value
 * @returns {boolean} True for an app of a framework, such as Express, Koa or Fastify,
 *   and for a server.
 */
function canListen(value) {
  const isObject = typeof value === "object" || typeof value === "function";
  return isObject && typeof value?.listen === "function" &&
    typeof value.fetch !== "function";
}

/** Load what servers need. */
async function serverAdapter() {
  const http = await loadHttp();
  const fromDeno = await denoAdapter();
  let fromNode = /** @type {((node: any) => Handler) | null} */ (null);
  const { node } = currentServer();
  if (node) {
    const nodeHttp = await import("../node_http.js");
    fromNode = nodeAdapter(http, nodeHttp);
    const trial = fromNode(nodeHttp.trialServer());
    for (let times = 0; times < 3; times += 1) {
      await rehearse(trial, HTTP_REHEARSAL);
    }
  }
  /** @type {(...received: Parameters<Handler>) => Promise<unknown>} */
  const handler = async (event, context, job) => {
    const server = currentServer();
    if (!server.node) return fromDeno(server)(event, context, job);
    fromNode ??= nodeAdapter(http, await import("../node_http.js"));
    return fromNode(server.node)(event, context, job);
  };
  return handler;
}

/** @returns {Server} */
function currentServer() {
  const server = openServer();
  if (server !== undefined) return server;
  throw new RuntimeError(
    "Runtime.ServerClosed",
    "Cannot answer the event: the module has closed its server",
  );
}

/** Load what servers of `Deno.serve` need. */
async function denoAdapter() {
  const adaptFetch = await fetchAdapter(undefined);
  const requests = refuseUpgrades();
  await rehearse(
    adaptFetch({ fetch: () => new Response("{}") }),
    HTTP_REHEARSAL,
  );
  /**
   * @param {Server} server
   * @returns {Handler}
   */
  return (server) => async (event, context, job) => {
    /** @type {PromiseWithResolvers<void>} */
    const { promise: completed, resolve, reject } = Promise.withResolvers();
    completed.catch(() => {});
    Object.assign(context, { completed });
    const app = {
      fetch(/** @type {Request} */ request, /** @type {object} */ info) {
        requests.add(request);
        return answerWith(server, request, info);
      },
    };
    try {
      const result = await adaptFetch(app)(event, context, job);
      resolve();
      return result;
    } catch (error) {
      reject(error);
      throw error;
    }
  };
}

/**
 * Call the app, and answer for it as `Deno.serve` does if it fails.
 *
 * @param {Server} server
 * @param {Request} request
 * @param {object} info
 * @returns {Promise<Response>}
 */
async function answerWith({ handler, onError }, request, info) {
  try {
    return checked(
      await callAndWait(
        /** @type {Function} */ (handler),
        undefined,
        [request, info],
      ),
    );
  } catch (error) {
    if (error instanceof UpgradeRefusedError) {
      return new Response(error.message, { status: 501 });
    }
    try {
      if (onError) return checked(await onError(error));
      log("ERROR", [error]);
    } catch (failure) {
      log("ERROR", ["Exception in onError while handling exception", failure]);
    }
    return new Response("Internal Server Error", { status: 500 });
  }
}

/**
 * @param {unknown} response
 * @returns {Response}
 * @throws {TypeError} `Deno.serve` would not send it.
 */
function checked(response) {
  if (!(response instanceof Response)) {
    throw new TypeError(
      "Return value from serve handler must be a response or a promise resolving to a " +
        "response",
    );
  }
  if (response.type === "error") {
    throw new TypeError(
      "Return value from serve handler must not be an error response (like " +
        "Response.error())",
    );
  }
  if (response.bodyUsed) {
    throw new TypeError(
      "The body of the Response returned from the serve handler has already been " +
        "consumed",
    );
  }
  return response;
}

/**
 * Have `Deno.upgradeWebSocket` refuse requests that were made of events.
 *
 * @returns {WeakSet<Request>} To be told of these requests.
 */
function refuseUpgrades() {
  /** @type {WeakSet<Request>} */
  const requests = new WeakSet();
  const property = /** @type {PropertyDescriptor} */ (
    Object.getOwnPropertyDescriptor(Deno, "upgradeWebSocket")
  );
  /** @type {typeof Deno.upgradeWebSocket} */
  const value = (request, options) => {
    if (requests.has(request)) {
      log("WARN", [NO_UPGRADE]);
      throw new UpgradeRefusedError(NO_UPGRADE);
    }
    const upgrade = property.value ?? property.get?.call(Deno);
    return upgrade(request, options);
  };
  Object.defineProperty(Deno, "upgradeWebSocket", {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
  return requests;
}

/**
 * @param {typeof import("../http.js")} http
 * @param {typeof import("../node_http.js")} nodeHttp
 */
function nodeAdapter(http, nodeHttp) {
  /**
   * @param {any} node Server of node:http.
   * @returns {Handler}
   */
  return (node) => async (event, _context, job) => {
    if (http.httpShape(event) === null) {
      throw new RuntimeError(
        "Runtime.UnsupportedEvent",
        "Cannot turn the event into a request to the module's server: it is not an " +
          "HTTP event of API Gateway, a function URL, a load balancer or VPC Lattice; " +
          "for other events export a function `handler`",
      );
    }
    const request = http.toParts(event, warn);
    if (
      request.headers.get("upgrade")?.toLowerCase() === "websocket" &&
      node.listenerCount("upgrade") > 0
    ) {
      log("WARN", [NO_UPGRADE]);
      return http.fromResponse(
        new Response(NO_UPGRADE, { status: 501 }),
        event,
        warn,
      );
    }
    const { hostname } = http.connectionOf(event, request.headers);
    const answer = await nodeHttp.exchange(
      node,
      request,
      hostname || LOOPBACK,
    );
    const headers = new Headers();
    for (const [name, value] of answer.headers) {
      try {
        headers.append(name, value);
      } catch {
        warn(`Cannot pass on header '${name}': its name or value is not legal`);
      }
    }
    const response = /** @type {any} */ ({
      status: answer.status,
      statusText: answer.statusText,
      headers,
      arrayBuffer: () => bytes,
    });
    /** @type {Uint8Array | undefined} */
    let bytes;
    if (hello.responseMode === "buffered") {
      // Also a body that is not sent: the app hears of its end.
      bytes = await nodeHttp.collect(answer.body);
      return await http.fromResponse(response, event, warn);
    }
    const sink = new Sink(job);
    sink.beginHttp(http.streamPrelude(response));
    await sink.pump(answer.body);
    return STREAMED;
  };
}
