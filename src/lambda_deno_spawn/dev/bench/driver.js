// @ts-check
/**
 * The baselines: the handler without this runtime. `once` calls it for one event, in a
 * process that is started for that; `poll` is a runtime built like all others, one
 * long-lived process that polls the Runtime API itself with fetch and calls the handler
 * in its own memory. It isolates nothing, so nothing can be much faster.
 *
 * @module
 */

/**
 * @typedef {(event: any, context: Context) => unknown} Handler
 *
 * @typedef {object} Context
 * @property {string} awsRequestId
 * @property {Promise<unknown>[]} pending What was handed to `waitUntil`.
 * @property {AbortSignal} signal
 */

const { env } = Deno;

/**
 * Call the handler for one event, print the result as JSON, and exit.
 *
 * @param {() => Promise<any>} load Imports the handler's module.
 * @param {string} path Names of the export, joined by dots.
 * @param {string} eventUrl A file.
 * @param {number} lingerMs How long to wait before the exit.
 */
export async function once(load, path, eventUrl, lingerMs) {
  const handler = await find(load, path);
  const event = JSON.parse(Deno.readTextFileSync(new URL(eventUrl)));
  const context = makeContext("00000000-0000-4000-8000-000000000000", null);
  /** @type {any} */
  const result = await handler(event, context);
  console.log(isStream(result) ? await collect(result) : toJson(result));
  await Promise.allSettled(context.pending);
  if (lingerMs > 0) await new Promise((done) => setTimeout(done, lingerMs));
  Deno.exit(0); // an open connection would keep it alive
}

/**
 * Serve events until the Runtime API is gone.
 *
 * @param {() => Promise<any>} load Imports the handler's module.
 * @param {string} path Names of the export, joined by dots.
 */
export async function poll(load, path) {
  const api = `http://${env.get("AWS_LAMBDA_RUNTIME_API")}/2018-06-01/runtime`;
  const handler = await find(load, path);
  while (true) {
    const next = await fetch(`${api}/invocation/next`);
    const id = next.headers.get("lambda-runtime-aws-request-id") ?? "";
    const deadline = next.headers.get("lambda-runtime-deadline-ms");
    const context = makeContext(id, deadline);
    const event = JSON.parse(await next.text());
    let accepted;
    try {
      const result = await handler(event, context);
      accepted = await post(`${api}/invocation/${id}/response`, result);
    } catch (error) {
      const body = JSON.stringify(describe(error));
      const init = { method: "POST", body };
      accepted = await fetch(`${api}/invocation/${id}/error`, init);
    }
    await accepted.body?.cancel();
    await Promise.allSettled(context.pending);
  }
}

/**
 * @param {string} url
 * @param {any} result
 */
function post(url, result) {
  if (!isStream(result)) {
    return fetch(url, { method: "POST", body: toJson(result) });
  }
  return fetch(url, {
    method: "POST",
    headers: { "lambda-runtime-function-response-mode": "streaming" },
    body: ReadableStream.from(bytesOf(result)),
  });
}

/**
 * Load the handler, and adapt it to the form that takes an event and a context.
 *
 * @param {() => Promise<any>} load
 * @param {string} path
 * @returns {Promise<Handler>}
 * @throws {Error} There is none, or its form is one that only Lambda's runtimes know.
 */
async function find(load, path) {
  const module = await load();
  /** @type {any} */
  let owner;
  let value = module;
  for (const name of path.split(".")) {
    owner = value === module ? undefined : value;
    value = value?.[name];
  }
  if (value === undefined && path === "handler") value = module.default;
  if (typeof value?.fetch === "function") return withRequests(value);
  if (typeof value !== "function") {
    throw new TypeError(`Cannot find the handler: there is no export ${path}`);
  }
  if (value.length <= 2) return value.bind(owner);
  return (event, context) =>
    new Promise((resolve, reject) => {
      const result = value.call(
        owner,
        event,
        context,
        (/** @type {unknown} */ error, /** @type {unknown} */ answer) =>
          error ? reject(error) : resolve(answer),
      );
      if (typeof result?.then === "function") resolve(result);
    });
}

/**
 * Adapt a handler of requests, with the same code for both formats as this runtime.
 *
 * @param {{ fetch: (request: Request, ...context: object[]) => unknown }} app
 * @returns {Promise<Handler>}
 */
async function withRequests(app) {
  const { fromResponse, toRequest } = await import("../../js/http.js");
  return async (event, context) => {
    const request = toRequest(event, context.signal);
    const facts = Object.assign(context, { event });
    const response = /** @type {Response} */ (
      await app.fetch(request, facts, facts)
    );
    return fromResponse(response, event);
  };
}

/**
 * @param {string} awsRequestId
 * @param {string | null} deadline Unix time in milliseconds.
 */
function makeContext(awsRequestId, deadline) {
  /** @type {Promise<unknown>[]} */
  const pending = [];
  const until = deadline === null ? Date.now() + 900_000 : Number(deadline);
  return {
    awsRequestId,
    functionName: env.get("AWS_LAMBDA_FUNCTION_NAME"),
    functionVersion: env.get("AWS_LAMBDA_FUNCTION_VERSION"),
    invokedFunctionArn: "arn:aws:lambda:us-east-1:123456789012:function:bench",
    memoryLimitInMB: env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
    logGroupName: env.get("AWS_LAMBDA_LOG_GROUP_NAME"),
    logStreamName: env.get("AWS_LAMBDA_LOG_STREAM_NAME"),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, until - Date.now()),
    waitUntil(/** @type {unknown} */ promise) {
      pending.push(Promise.resolve(promise));
    },
    get signal() {
      return new AbortController().signal;
    },
    pending,
  };
}

/** @param {unknown} result */
function toJson(result) {
  return JSON.stringify(result) ?? "null";
}

/** @param {any} result */
function isStream(result) {
  return typeof result?.[Symbol.asyncIterator] === "function";
}

/** @param {AsyncIterable<string | Uint8Array<ArrayBuffer>>} pieces */
async function* bytesOf(pieces) {
  const encoder = new TextEncoder();
  for await (const piece of pieces) {
    yield typeof piece === "string" ? encoder.encode(piece) : piece;
  }
}

/** @param {AsyncIterable<string | Uint8Array<ArrayBuffer>>} pieces */
async function collect(pieces) {
  const parts = [];
  for await (const piece of bytesOf(pieces)) parts.push(piece);
  return await new Blob(parts).text();
}

/** @param {any} error */
function describe(error) {
  return {
    errorType: String(error?.name ?? "Error"),
    errorMessage: String(error?.message ?? error),
  };
}
