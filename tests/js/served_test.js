// @ts-check
/** Which of a module's exports and servers answers, and how a server does. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { beginJob, headOf, sayHello } from "./doubles.js";
import { adaptOrServe } from "../../src/lambda_deno_spawn/js/src/choice.js";
import { run } from "../../src/lambda_deno_spawn/js/src/run.js";
import {
  keepServers,
  watchServers,
} from "../../src/lambda_deno_spawn/js/src/serving.js";

/**
 * @param {string} path
 * @param {object} [more] Members of the event.
 * @param {string} [method]
 */
function eventFor(path, more = {}, method = "GET") {
  return {
    version: "2.0",
    rawPath: path,
    headers: { host: "a.test" },
    requestContext: { http: { method, sourceIp: "203.0.113.7" } },
    ...more,
  };
}

/**
 * @param {import("../../src/lambda_deno_spawn/js/src/run.js").Handler} handler
 * @param {unknown} event
 */
async function send(handler, event) {
  const { job, output } = beginJob();
  const bytes = new TextEncoder().encode(JSON.stringify(event));
  await run(job, handler, headOf(), bytes);
  job.clearTimer();
  const result = JSON.parse(output.frames[0].body.split("\n")[0]);
  // A body without a media type is sent as base64.
  if (result.isBase64Encoded) result.body = atob(result.body);
  return result;
}

/**
 * Load a module that starts a server, and use what answers for it.
 *
 * @param {() => { close: () => unknown, module?: Record<string, unknown> }} load
 * @param {(handler: import(
 *   "../../src/lambda_deno_spawn/js/src/run.js"
 * ).Handler) => Promise<void>} use
 */
async function serving(load, use) {
  sayHello();
  watchServers();
  const { close, module = {} } = load();
  try {
    await use(await adaptOrServe(module, "handler"));
  } finally {
    keepServers();
    await close();
  }
}

/**
 * @param {(request: Request, info: any) => any} app
 * @param {object} [options]
 */
function denoServe(app, options) {
  // @ts-ignore one of the overloads
  const server = Deno.serve({ port: 3000, ...options }, app);
  return { close: () => server.shutdown() };
}

/** @param {import("node:http").RequestListener} listener */
function nodeServe(listener) {
  const server = createServer(listener).listen(3000);
  return { server, close: () => server.close() };
}

Deno.test("a server of Deno.serve gets the request, and facts about it", async () => {
  await serving(
    () =>
      denoServe((request, info) =>
        Response.json({
          url: request.url,
          address: info.remoteAddr,
          event: info.event.rawPath,
          completed: info.completed instanceof Promise,
        })
      ),
    async (handler) => {
      const { statusCode, body } = await send(handler, eventFor("/a"));
      assert.equal(statusCode, 200);
      assert.deepEqual(JSON.parse(body), {
        url: "https://a.test/a",
        address: { transport: "tcp", hostname: "203.0.113.7", port: 0 },
        event: "/a",
        completed: true,
      });
      const { errorType } = await send(handler, { Records: [] });
      assert.equal(errorType, "Runtime.UnsupportedEvent");
    },
  );
});

/** @type {[string, () => any][]} */
const WRONG = [
  ["an error", () => {
    throw new TypeError("broke");
  }],
  ["a rejected promise", () => Promise.reject(new TypeError("broke"))],
  ["no response", () => "text"],
  ["an error response", () => Response.error()],
  ["a response whose body is used", async () => {
    const response = new Response("x");
    await response.text();
    return response;
  }],
];

for (const [what, app] of WRONG) {
  Deno.test(`Deno.serve answers ${what} with onError, or 500`, async () => {
    const { error } = console;
    console.error = () => {};
    try {
      const onError = (/** @type {unknown} */ error) =>
        new Response(`${error}`, { status: 418 });
      await serving(() => denoServe(app, { onError }), async (handler) => {
        const { statusCode, body } = await send(handler, eventFor("/"));
        assert.equal(statusCode, 418);
        assert.match(body, /^TypeError: /);
      });
      for (
        const options of [{}, {
          onError: () => {
            throw new Error("again");
          },
        }]
      ) {
        await serving(() => denoServe(app, options), async (handler) => {
          const { statusCode, body } = await send(handler, eventFor("/"));
          assert.deepEqual([statusCode, body], [500, "Internal Server Error"]);
        });
      }
    } finally {
      console.error = error;
    }
  });
}

const UPGRADE = {
  headers: { host: "a.test", upgrade: "websocket", connection: "Upgrade" },
};

Deno.test("a WebSocket upgrade is refused", async () => {
  await serving(
    () => denoServe((request) => Deno.upgradeWebSocket(request).response),
    async (handler) => {
      const { statusCode, body } = await send(handler, eventFor("/", UPGRADE));
      assert.equal(statusCode, 501);
      assert.match(body, /Cannot upgrade to a WebSocket/);
    },
  );
  await serving(() => {
    const { server, close } = nodeServe((_, response) => response.end("no"));
    server.on("upgrade", (_, socket) => socket.end("HTTP/1.1 101 X\r\n\r\n"));
    return { close };
  }, async (handler) => {
    const { statusCode, body } = await send(handler, eventFor("/", UPGRADE));
    assert.equal(statusCode, 501);
    assert.match(body, /Cannot upgrade to a WebSocket/);
    assert.equal((await send(handler, eventFor("/"))).body, "no");
  });
  // Without a listener it is a request like any other.
  await serving(
    () => nodeServe((_, response) => response.end("plain")),
    async (handler) => {
      const { body } = await send(handler, eventFor("/", UPGRADE));
      assert.equal(body, "plain");
    },
  );
});

Deno.test("a server of Node's gets the request, whatever its method", async () => {
  await serving(
    () =>
      nodeServe(async (request, response) => {
        const pieces = await Array.fromAsync(request);
        response.setHeader("x-method", `${request.method}`);
        response.end(`${request.url} ${Buffer.concat(pieces)}`);
      }),
    async (handler) => {
      const event = eventFor("/a/../b", {
        rawQueryString: "x=%C3%BC",
        body: "b",
      });
      const { headers, body } = await send(handler, event);
      assert.equal(headers["x-method"], "GET");
      assert.equal(body, "/a/../b?x=%C3%BC b");
      const trace = await send(handler, eventFor("/", {}, "TRACE"));
      assert.equal(trace.headers["x-method"], "TRACE");
      const connect = await send(handler, eventFor("/", {}, "CONNECT"));
      assert.equal(connect.statusCode, 405);
      const { errorType } = await send(handler, { Records: [] });
      assert.equal(errorType, "Runtime.UnsupportedEvent");
    },
  );
});

Deno.test("an app that an export can start is started", async () => {
  const server = createServer((_, response) => response.end("started"));
  await serving(
    () => ({ close: () => server.close(), module: { default: server } }),
    async (handler) => {
      assert.equal((await send(handler, eventFor("/"))).statusCode, 200);
    },
  );
});

Deno.test("an export that is the listener of a server is not a handler", async () => {
  /** @type {import("node:http").RequestListener} */
  const app = (_request, response) => void response.end("listened");
  await serving(
    () => ({ ...nodeServe(app), module: { default: app } }),
    async (handler) => {
      const { statusCode } = await send(handler, eventFor("/"));
      assert.equal(statusCode, 200);
    },
  );
});

Deno.test("a closed server cannot answer", async () => {
  let close = async () => {};
  await serving(
    () => ({ close } = denoServe(() => new Response())),
    async (handler) => {
      assert.equal((await send(handler, eventFor("/"))).statusCode, 200);
      await close();
      const { errorType } = await send(handler, eventFor("/"));
      assert.equal(errorType, "Runtime.ServerClosed");
    },
  );
});

Deno.test("without handler and server the error is that of the export", async () => {
  sayHello();
  watchServers();
  const adapting = adaptOrServe({ other: 1 }, "handler");
  globalThis.dispatchEvent(new Event("beforeunload", { cancelable: true }));
  await assert.rejects(adapting, { name: "Runtime.HandlerNotFound" });
});
