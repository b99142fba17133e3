// @ts-check
/**
 * The choice of what answers events: an export of the handler's module, or its server.
 *
 * @module
 */

/** @import { Handler } from "./run.js" */
import { log } from "./console.js";
import { attempt, RuntimeError } from "./errors.js";
import { fetchAdapter, finishResponse, warn } from "./fetch.js";
import { adapt, pick, rehearse } from "./handlers.js";
import { hello } from "./input.js";
import { STREAMED } from "./run.js";
import {
  isListener,
  isServing,
  keepServers,
  openServer,
  releaseServers,
  warnOfMore,
} from "./serving.js";
import { makeSink } from "./stream.js";

/** For an app that does not listen by itself. */
const APP_PORT = 8080;

/**
 * Find the module's handler; without one, the module's server is the handler.
 *
 * @param {Record<string, unknown>} module
 * @param {string} path Names joined by dots.
 * @returns {Promise<Handler>}
 * @throws {RuntimeError} It has neither.
 */
export async function adaptOrServe(module, path) {
  let looked = look(module, path);
  // A module that has to wait before it can export: AWS's runtime waits for it, too.
  const exports =
    /** @type {any} */ (module["module.exports"] ?? module.default);
  if (looked.found === undefined && attempt(() => isThenable(exports))) {
    module = { "module.exports": await exports };
    looked = look(module, path);
  }
  const { found, value } = looked;
  const serves = has(value, "fetch");
  const isApp = !serves && has(value, "listen");
  if (value === undefined || isApp || isListener(value)) {
    const isStarted = await isServing(isApp);
    // As anything else would that starts the app.
    if (isApp && !isStarted) await value.listen({ port: APP_PORT });
    if (isStarted || (isApp && await isServing())) {
      warnOfMore();
      keepServers();
      return await handToServer();
    }
  }
  // A server beside an app with `fetch` is the same app, for other places than this.
  if (serves) keepServers();
  else releaseServers();
  return await adapt(module, path, found);
}

/** @param {any} value */
function isThenable(value) {
  return typeof value?.then === "function";
}

/**
 * @param {Record<string, unknown>} module
 * @param {string} path
 * @returns {{ found?: { owner: unknown, value: any }, value: any }} What is named, or
 *   stands in for it; without `found` an app that cannot be called, if there is one.
 */
function look(module, path) {
  try {
    const found = pick(module, path);
    return { found, value: found.value };
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error;
    const commonjs = /** @type {any} */ (module["module.exports"]);
    /** @param {any} holder */
    const at = (holder) =>
      path.split(".").reduce((value, name) => value?.[name], holder);
    const value = [at(module), at(commonjs), module.default, commonjs]
      .find((candidate) => has(candidate, "listen"));
    return { value };
  }
}

/**
 * @param {any} value
 * @param {"fetch" | "listen"} method `listen`: an app of a framework, such as Express,
 *   Koa or Fastify, or a server.
 */
function has(value, method) {
  const isObject = typeof value === "object" || typeof value === "function";
  return isObject && attempt(() => typeof value?.[method] === "function");
}

/** @returns {Promise<Handler>} Hands events to the module's server. */
async function handToServer() {
  const { serverAdapter } = await import("../served.js");
  return await serverAdapter({
    fetchAdapter,
    finishResponse,
    log,
    openServer,
    rehearse,
    responseMode: hello.responseMode,
    RuntimeError,
    makeSink: (job) => makeSink(job),
    STREAMED,
    warn,
  });
}
