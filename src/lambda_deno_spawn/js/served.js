// @ts-check
/**
 * The module's server as its handler: each event becomes a request to the server, which
 * answers as it would anywhere else. Does not know how a module starts a server;
 * src/serving.js does. Loaded only for modules that serve.
 *
 * @module
 */

import * as http from "./http.js";

/**
 * @typedef {(event: any, context: any, job: any) => unknown} Handler As in src/run.js.
 *
 * @typedef {object} Server As in src/serving.js.
 * @property {any} [node]
 * @property {Function} [handler]
 * @property {(error: unknown) => unknown} [onError]
 *
 * @typedef {object} Tools What other handlers are made of.
 * @property {() => Promise<(app: {
 *   fetch: (request: Request, info: object) => unknown,
 * }) => Handler>} fetchAdapter
 * @property {(response: Response, event: unknown, job: any) => unknown} finishResponse
 * @property {(level: "WARN" | "ERROR", values: unknown[]) => void} log
 * @property {() => Server | undefined} openServer
 * @property {(handler: Handler, event: string) => Promise<void>} rehearse
 * @property {string} responseMode
 * @property {new (errorType: string, message: string) => Error} RuntimeError
 * @property {(job: any) => {
 *   beginHttp: (prelude: object) => void,
 *   pump: (source: AsyncIterable<unknown>) => Promise<void>,
 * }} makeSink
 * @property {symbol} STREAMED
 * @property {(message: string) => void} warn
 */

/** The event of a rehearsal. */
const REHEARSAL =
  '{"version":"2.0","rawPath":"/","rawQueryString":"","headers":{"host":"localhost",' +
  '"content-type":"application/json"},"requestContext":{"http":{"method":"POST",' +
  '"sourceIp":"127.0.0.1"}},"body":"{}"}';
/** The client of a request whose event does not name one. */
const LOOPBACK = "127.0.0.1";
const NO_UPGRADE =
  "Cannot upgrade to a WebSocket: each event is answered by one HTTP response; use a " +
  "WebSocket API of API Gateway";
/** Thrown at the app that wants an upgrade. */
class UpgradeRefusedError extends TypeError {}
UpgradeRefusedError.prototype.name = "UpgradeRefusedError";

let tools = /** @type {Tools} */ (/** @type {unknown} */ (null));

/**
 * Make the handler of a module that serves, and rehearse it with a server of our own.
 *
 * @param {Tools} given
 * @returns {Promise<Handler>}
 */
export async function serverAdapter(given) {
  tools = given;
  const fromDeno = await denoAdapter();
  let fromNode = /** @type {((node: any) => Handler) | null} */ (null);
  if (currentServer().node) {
    const nodeHttp = await import("./node_http.js");
    fromNode = nodeAdapter(nodeHttp);
    const trial = fromNode(nodeHttp.trialServer());
    for (let times = 0; times < 4; times += 1) {
      await tools.rehearse(trial, REHEARSAL);
    }
  } else {
    const trial = fromDeno({ handler: () => new Response("{}") });
    await tools.rehearse(trial, REHEARSAL);
  }
  /** @type {(...received: Parameters<Handler>) => Promise<unknown>} */
  const handler = async (event, context, job) => {
    const server = currentServer();
    if (!server.node) return fromDeno(server)(event, context, job);
    fromNode ??= nodeAdapter(await import("./node_http.js"));
    return fromNode(server.node)(event, context, job);
  };
  return handler;
}

/** @returns {Server} */
function currentServer() {
  const server = tools.openServer();
  if (server !== undefined) return server;
  throw new tools.RuntimeError(
    "Runtime.ServerClosed",
    "Cannot answer the event: the module has closed its server",
  );
}

/** Load what servers of `Deno.serve` need. */
async function denoAdapter() {
  const adaptFetch = await tools.fetchAdapter();
  const requests = refuseUpgrades();
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
    return checked(await handler?.(request, info));
  } catch (error) {
    if (error instanceof UpgradeRefusedError) {
      return new Response(error.message, { status: 501 });
    }
    try {
      if (onError) return checked(await onError(error));
      tools.log("ERROR", [error]);
    } catch (failure) {
      tools.log("ERROR", [
        "Exception in onError while handling exception",
        failure,
      ]);
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
      tools.log("WARN", [NO_UPGRADE]);
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

/** @param {typeof import("./node_http.js")} nodeHttp */
function nodeAdapter(nodeHttp) {
  /**
   * @param {any} node Server of node:http.
   * @returns {Handler}
   */
  return (node) => async (event, _context, job) => {
    if (http.httpShape(event) === null) {
      throw new tools.RuntimeError(
        "Runtime.UnsupportedEvent",
        "Cannot turn the event into a request to the module's server: it is not an " +
          "HTTP event of API Gateway, a function URL, a load balancer or VPC Lattice; " +
          "for other events export a function `handler`",
      );
    }
    let request;
    try {
      request = http.toParts(event, tools.warn);
    } catch (error) {
      if (!(error instanceof http.MethodNotAllowedError)) throw error;
      const response = new Response(null, { status: 405 });
      return tools.finishResponse(response, event, job);
    }
    if (
      request.headers.get("upgrade")?.toLowerCase() === "websocket" &&
      node.listenerCount("upgrade") > 0
    ) {
      tools.log("WARN", [NO_UPGRADE]);
      const response = new Response(NO_UPGRADE, { status: 501 });
      return tools.finishResponse(response, event, job);
    }
    const { hostname } = http.connectionOf(event, request.headers);
    job.nextTurn = nodeHttp.nextTurn;
    job.isServed = true;
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
        tools.warn(
          `Cannot pass on header '${name}': its name or value is not legal`,
        );
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
    if (tools.responseMode === "buffered") {
      // Also a body that is not sent: the app hears of its end.
      bytes = await nodeHttp.collect(answer.body);
      return await http.fromResponse(response, event, tools.warn);
    }
    const sink = tools.makeSink(job);
    sink.beginHttp(http.streamPrelude(response));
    await sink.pump(answer.body);
    return tools.STREAMED;
  };
}
