// @ts-check
/**
 * Servers that the handler's module starts. Until it is known whether the module has a
 * handler, a server on a port does not listen: it is kept, so that events can be handed
 * to it without a socket, or listens later. Does not know how a server answers.
 *
 * Other processes of the function may be about to use the same port, and a process with
 * an open socket cannot be forked.
 *
 * @module
 */

import { log } from "./console.js";
import { cancelTimer, createSystemTimer } from "./primordials.js";

/**
 * @typedef {object} Server
 * @property {string | null} hostname
 * @property {number} port
 * @property {() => boolean} isOpen
 * @property {() => void} listen Has it listen on its port after all.
 * @property {any} [node] Server of node:http.
 * @property {(request: Request, info: object) => unknown} [handler] From `Deno.serve`.
 * @property {(error: unknown) => unknown} [onError] From `Deno.serve`.
 */

/** How long loading may go on once a server has started. */
const LOADING_LIMIT_MS = 500;
/** How long a module that has loaded may take to start a server. */
const START_LIMIT_MS = 5_000;
/** The same for one that exports an app. */
const APP_LIMIT_MS = 1_000;
/** Every constructor of a server of Node's sets it, and nothing else does. */
const SET_BY_CONSTRUCTOR = "_listeningId";
const ADDRESS_IN_USE = -98;
const WILDCARDS = [null, undefined, "0.0.0.0", "::"];

/** In the order in which they were started. @type {Server[]} */
const servers = [];
/**
 * "watching": it is not known yet whether the module has a handler; "serving": it has
 * none, its server answers; "off": servers listen as they would without a runtime.
 *
 * @type {"off" | "watching" | "serving"}
 */
let mode = "off";
/** Resolves when a server has started. */
const started = Promise.withResolvers();
/** Resolves when waiting has no point any more. */
const waited = Promise.withResolvers();
/** Timers that end the waiting. @type {number[]} */
const timers = [];
/** `Deno.serve` as Deno has it: reading its value loads it. */
let serveProperty = /** @type {PropertyDescriptor} */ ({});
/** Makes `listen` of Node's servers what it was. @type {(() => void) | null} */
let restoreNode = null;

/** Keep servers that are started from now on. */
export function watchServers() {
  mode = "watching";
  serveProperty = /** @type {PropertyDescriptor} */ (
    Object.getOwnPropertyDescriptor(Deno, "serve")
  );
  // As a value instead it would take Deno three times as long.
  Object.defineProperty(Deno, "serve", { get: getServe, set: setServe });
  // Loading node:net for every handler would take time, so it is caught when the first
  // server is made.
  Object.defineProperty(Object.prototype, SET_BY_CONSTRUCTOR, {
    configurable: true,
    set(value) {
      Object.defineProperty(this, SET_BY_CONSTRUCTOR, {
        value,
        writable: true,
        enumerable: true,
        configurable: true,
      });
      watchNode(this);
    },
  });
}

/**
 * Wait until the module has loaded. A module that has started a server may wait for the
 * end of it, at its top level.
 *
 * @param {Promise<Record<string, unknown>>} loading
 * @returns {Promise<Record<string, unknown>>} What it exports.
 */
export function loaded(loading) {
  let isOver = false;
  const note = () => (isOver = true);
  loading.then(note, note);
  return Promise.race([
    loading,
    waited.promise.then(() => {
      // Its further work may fail an event.
      if (!isOver) loading.catch(reportError);
      return /** @type {Record<string, unknown>} */ ({});
    }),
  ]);
}

/**
 * Decide that the module has a handler: its servers listen as they would without a
 * runtime.
 *
 * @throws {Error} One of them may not, or its port is taken.
 */
export function releaseServers() {
  mode = "off";
  stopWatching();
  if (Object.getOwnPropertyDescriptor(Deno, "serve")?.get === getServe) {
    Object.defineProperty(Deno, "serve", serveProperty);
  }
  restoreNode?.();
  for (const server of servers) server.listen();
}

/**
 * Wait until the module has started a server.
 *
 * @param {boolean} [canListen] The module exports an app, which can be told to listen.
 * @returns {Promise<boolean>} False: it has not, and will not soon.
 */
export async function isServing(canListen = false) {
  stopWaitingAfter(canListen ? APP_LIMIT_MS : START_LIMIT_MS, false);
  // The event loop is empty.
  const stopWaiting = (/** @type {Event} */ event) => {
    event.preventDefault();
    waited.resolve(undefined);
  };
  globalThis.addEventListener("beforeunload", stopWaiting);
  await Promise.race([started.promise, waited.promise]);
  globalThis.removeEventListener("beforeunload", stopWaiting);
  return openServer() !== undefined;
}

/** Decide that the module's servers do not listen. */
export function keepServers() {
  mode = "serving";
  stopWatching();
}

/** Say that events go to one of several servers. */
export function warnOfMore() {
  const ports = [...new Set(servers.map(({ port }) => port))];
  if (ports.length > 1) {
    const more = ports.slice(1).join(", ");
    log("WARN", [
      `The module serves on port ${
        ports[0]
      }, which gets the events, and on ${more}`,
    ]);
  }
}

/** @returns {Server | undefined} The one that answers events. */
export function openServer() {
  return servers.find((server) => server.isOpen());
}

/**
 * Tell whether an export is what a server of the module calls for each request.
 *
 * @param {unknown} value
 */
export function isListener(value) {
  return servers.some(({ node, handler }) =>
    handler === value || node?.listeners("request").includes(value)
  );
}

/**
 * @param {number} limitMs
 * @param {boolean} staysAlive The event loop waits for it: to Deno, a top level that
 *   waits while nothing is left to do is an error.
 */
function stopWaitingAfter(limitMs, staysAlive) {
  timers.push(createSystemTimer(waited.resolve, limitMs, staysAlive));
}

/** Stop noticing servers: it is decided what responds to events. */
function stopWatching() {
  timers.forEach(cancelTimer);
  Reflect.deleteProperty(Object.prototype, SET_BY_CONSTRUCTOR);
}

/** @param {Server} server One that can answer from now on. */
function register(server) {
  servers.push(server);
  if (mode === "watching") stopWaitingAfter(LOADING_LIMIT_MS, true);
}

/**
 * @param {string | null} hostname
 * @param {number} port
 */
function isTaken(hostname, port) {
  return servers.some((other) =>
    other.port === port && other.isOpen() &&
    (other.hostname === hostname || WILDCARDS.includes(other.hostname) ||
      WILDCARDS.includes(hostname))
  );
}

/**
 * Stands in for `Deno.serve`.
 *
 * @param {any} first
 * @param {any} second
 */
function serveOrKeep(first, second) {
  const options = typeof first === "function" ? {} : first ?? {};
  const handler = [first, second, options.handler].find((candidate) =>
    typeof candidate === "function"
  );
  if (mode === "off" || handler === undefined) return ownServe(first, second);
  const { onError, onListen, path, cid, signal } = options;
  const hostname = options.hostname ?? "0.0.0.0";
  const port = Number(options.port ?? 8000);
  // No other process can use the same one, or Deno has to say what is wrong with it.
  if (path !== undefined || cid !== undefined || !isPort(port)) {
    const server = ownServe(first, second);
    let isOpen = true;
    const close = () => (isOpen = false);
    server.finished.then(close, close);
    register({
      hostname,
      port: /** @type {any} */ (server.addr).port ?? 0,
      isOpen: () => isOpen,
      listen() {},
      handler,
      onError,
    });
    started.resolve(undefined);
    return server;
  }
  if (!options.reusePort && isTaken(hostname, port)) {
    throw new Deno.errors.AddrInUse("Address already in use (os error 98)");
  }
  const { server, isOpen, listen } = keptServer(
    hostname,
    port,
    () => ownServe({ ...options, onListen() {} }, handler),
  );
  onListen?.(server.addr);
  signal?.addEventListener("abort", () => server.shutdown(), { once: true });
  if (signal?.aborted) server.shutdown();
  register({ hostname, port, isOpen, listen, handler, onError });
  started.resolve(undefined);
  return server;
}

/** @type {(...args: any[]) => Deno.HttpServer<any>} */
function ownServe(...args) {
  // Here, as it is loaded now: few need it.
  const serve = serveProperty.value ?? serveProperty.get?.call(Deno);
  return serve(...args);
}

function getServe() {
  return serveOrKeep;
}

/** @param {unknown} value The module has one of its own. */
function setServe(value) {
  Object.defineProperty(Deno, "serve", {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

/** @param {number} port */
function isPort(port) {
  return Number.isInteger(port) && port > 0 && port <= 65_535;
}

/**
 * Make what `Deno.serve` returns, for a server that does not listen.
 *
 * @param {string} hostname
 * @param {number} port
 * @param {() => Deno.HttpServer} serve Starts one that listens.
 */
function keptServer(hostname, port, serve) {
  let real = /** @type {Deno.HttpServer | null} */ (null);
  let isOpen = true;
  let isReferenced = true;
  /** @type {PromiseWithResolvers<void>} */
  const { promise, resolve, reject } = Promise.withResolvers();
  const server = {
    addr: { transport: "tcp", hostname, port },
    get finished() {
      // To wait for it is the last that a module does.
      if (mode === "watching") stopWaitingAfter(1, true);
      return promise;
    },
    shutdown() {
      isOpen = false;
      if (real !== null) return real.shutdown();
      resolve();
      return promise;
    },
    ref() {
      isReferenced = true;
      real?.ref();
    },
    unref() {
      isReferenced = false;
      real?.unref();
    },
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
  const listen = () => {
    if (!isOpen) return;
    real = serve();
    if (!isReferenced) real.unref();
    real.finished.then(resolve, reject);
  };
  return { server, isOpen: () => isOpen, listen };
}

/**
 * Keep servers of Node's, from the first that is made.
 *
 * @param {any} first
 */
function watchNode(first) {
  let prototype = first;
  while (prototype !== null && !Object.hasOwn(prototype, "_listen2")) {
    prototype = Object.getPrototypeOf(prototype);
  }
  if (prototype === null) return;
  Reflect.deleteProperty(Object.prototype, SET_BY_CONSTRUCTOR);
  const ownListen = prototype._listen2;
  /**
   * The last step of `listen`: makes the socket, unless there is one, and says so.
   *
   * @this {any}
   * @param {string | null} hostname
   * @param {number} port
   * @param {unknown[]} more
   */
  function listen(hostname, port, ...more) {
    const isHttp = "httpAllowHalfOpen" in this;
    if (mode === "off" || !isHttp) {
      return ownListen.call(this, hostname, port, ...more);
    }
    // deno-lint-ignore no-this-alias
    const node = this;
    const isKept = isPort(port) && !node._handle;
    const handle = isKept ? handleOf(hostname, port) : null;
    if (handle !== null) node._handle = handle;
    // Last of those who listen for it.
    node.once("listening", started.resolve);
    ownListen.call(node, hostname, port, ...more);
    if (!node._handle) return;
    register({
      hostname,
      port: port > 0 ? port : node.address()?.port ?? 0,
      isOpen: () => node.listening,
      listen() {
        if (handle === null || node._handle !== handle) return;
        node._handle = null;
        const own = Object.getOwnPropertyDescriptor(node, "emit");
        const { emit } = node;
        // It has heard that it listens.
        node.emit = (
          /** @type {string} */ name,
          /** @type {any[]} */ ...values
        ) => {
          if (name === "listening" || name === "error") {
            if (own) Object.defineProperty(node, "emit", own);
            else delete node.emit;
          }
          return name === "listening" || emit.call(node, name, ...values);
        };
        ownListen.call(node, hostname, port, ...more);
      },
      node,
    });
  }
  prototype._listen2 = listen;
  restoreNode = () => {
    if (prototype._listen2 === listen) prototype._listen2 = ownListen;
  };
}

/**
 * Stands in for the socket of a server of Node's.
 *
 * @param {string | null} hostname
 * @param {number} port
 */
function handleOf(hostname, port) {
  const address = hostname ?? "::";
  const family = address.includes(":") ? "IPv6" : "IPv4";
  return {
    listen: () => isTaken(hostname, port) ? ADDRESS_IN_USE : 0,
    close() {},
    ref() {},
    unref() {},
    getsockname(/** @type {object} */ out) {
      Object.assign(out, { address, family, port });
      return 0;
    },
  };
}
