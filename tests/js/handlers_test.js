// @ts-check
/** The forms of a handler, and the variables that it sees. */

import assert from "node:assert/strict";
import { beginJob, headOf, sayHello } from "./doubles.js";
import {
  adapt,
  awslambda,
  pick,
} from "../../src/lambda_deno_spawn/js/src/handlers.js";
import { adaptOrServe } from "../../src/lambda_deno_spawn/js/src/choice.js";
import { run } from "../../src/lambda_deno_spawn/js/src/run.js";
import { onUncaughtError } from "../../src/lambda_deno_spawn/js/src/uncaught.js";
import { standIn } from "../../src/lambda_deno_spawn/js/src/variables.js";

/**
 * Load a module and send it one event.
 *
 * @param {Record<string, unknown>} module
 * @param {unknown} event
 * @param {string} [path]
 */
async function invoke(module, event, path = "handler") {
  const handler = await adapt(module, path);
  const { job, output } = beginJob();
  const bytes = new TextEncoder().encode(JSON.stringify(event));
  await run(job, handler, headOf(), bytes);
  job.clearTimer();
  return output.frames.filter(({ kind }) => kind !== "DONE");
}

const HTTP_EVENT = {
  version: "2.0",
  rawPath: "/orders",
  headers: { host: "a.test" },
  requestContext: { http: { method: "GET" } },
};
const echo = (/** @type {unknown} */ event) => event;

/** @type {[string, Record<string, unknown>, string][]} */
const FOUND = [
  ["a function", { handler: echo }, "handler"],
  ["a nested one", { api: { users: { get: echo } } }, "api.users.get"],
  ["the default export for `handler`", { default: echo }, "handler"],
];

for (const [what, module, path] of FOUND) {
  Deno.test(`pick() finds ${what}`, () => {
    sayHello();
    assert.equal(pick(module, path).value, echo);
  });
}

Deno.test("pick() gives a method its owner, and a function of the module none", () => {
  sayHello();
  const api = { get: echo };
  assert.equal(pick({ api }, "api.get").owner, api);
  assert.equal(pick({ handler: echo }, "handler").owner, undefined);
});

Deno.test("pick() finds the owner in the bundle of a CommonJS module", () => {
  sayHello();
  class Service {
    handler() {}
  }
  const service = new Service();
  const { handler } = service;
  assert.equal(pick({ handler, default: service }, "handler").owner, service);
  // Modules of their own make.
  for (const other of [{ handler: echo }, handler, null, undefined]) {
    const module = { handler, default: other };
    assert.equal(pick(module, "handler").owner, undefined);
  }
});

Deno.test("a handler with a mark that is not set does not write to a stream", async () => {
  sayHello();
  const mark = Symbol.for("aws.lambda.runtime.handler.streaming");
  for (const value of [undefined, null, false]) {
    const handler = Object.assign((/** @type {any} */ event) => event, {
      [mark]: value,
    });
    const [frame] = await invoke({ handler }, { a: 1 });
    assert.equal(frame.body, '{"a":1}');
  }
});

Deno.test("exports that are a promise are waited for", async () => {
  sayHello();
  const exports = Promise.resolve({ handler: echo });
  for (const name of ["module.exports", "default"]) {
    const handler = await adaptOrServe({ [name]: exports }, "handler");
    assert.equal(typeof handler, "function");
  }
  await assert.rejects(
    adaptOrServe(
      { "module.exports": Promise.reject(new RangeError("m")) },
      "a",
    ),
    RangeError,
  );
});

/** @type {[string, Record<string, unknown>, string, string][]} */
const MISSING = [
  [
    "nothing",
    {},
    "handler",
    "Cannot find export 'handler' in '/var/task/function.ts': it exports nothing",
  ],
  ["another name", { other: echo }, "handler", "it exports other"],
  [
    "a default export for another name",
    { default: echo },
    "other",
    "it exports default",
  ],
  [
    "a number",
    { handler: 42 },
    "handler",
    "it is of type number, not a function or an object with a fetch method",
  ],
  ["null", { handler: null }, "handler", "it is null, not a function"],
  [
    "a path through nothing",
    { api: null },
    "api.get.it",
    "Cannot find export 'api.get.it'",
  ],
];

for (const [what, module, path, message] of MISSING) {
  Deno.test(`pick() refuses ${what}`, () => {
    sayHello();
    assert.throws(() => pick(module, path), (/** @type {Error} */ error) => {
      assert.equal(error.name, "Runtime.HandlerNotFound");
      assert.ok(error.message.includes(message), error.message);
      return true;
    });
  });
}

Deno.test("a handler's result is one frame, and rehearsals write none", async () => {
  sayHello();
  const frames = await invoke({ handler: echo }, { a: 1 });
  assert.deepEqual(frames, [{ kind: "RESULT", bytes: 7, body: '{"a":1}' }]);
});

Deno.test("a generator, an iterable and a web stream are streams", async () => {
  sayHello({ socket: "/s" });
  async function* pieces() {
    yield "one";
    yield "two";
  }
  for (
    const handler of [
      pieces,
      () => pieces(),
      () => ReadableStream.from(pieces()),
    ]
  ) {
    const frames = await invoke({ handler }, {});
    assert.deepEqual(frames.map(({ kind }) => kind), [
      "STREAM",
      "CHUNK",
      "CHUNK",
      "END",
    ]);
  }
});

Deno.test("streamifyResponse() gives a handler a stream, with status and headers", async () => {
  sayHello({ socket: "/s" });
  const handler = awslambda.streamifyResponse(
    (/** @type {unknown} */ _event, /** @type {any} */ stream) => {
      const http = awslambda.HttpResponseStream.from(stream, {
        statusCode: 201,
      });
      http.write("one");
      http.end();
    },
  );
  const frames = await invoke({ handler }, {});
  assert.deepEqual(
    frames.map(({ body }) => body).join(""),
    '{"statusCode":201}\0\0\0\0\0\0\0\0one',
  );
});

Deno.test("a fetch handler gets a Request, and its Response becomes a result", async () => {
  sayHello();
  const app = {
    fetch: (/** @type {Request} */ request) =>
      new Response(new URL(request.url).pathname, { status: 201 }),
  };
  const [frame] = await invoke({ default: app }, HTTP_EVENT);
  const { statusCode, body } = JSON.parse(frame.body);
  assert.deepEqual([statusCode, body], [201, "/orders"]);
});

Deno.test("a fetch handler's Response is streamed where that is set", async () => {
  sayHello({ socket: "/s", responseMode: "stream" });
  const app = { fetch: () => new Response("body") };
  const frames = await invoke({ default: app }, HTTP_EVENT);
  assert.equal(frames[0].kind, "STREAM");
  assert.ok(frames[1].body.endsWith("\0body"));
});

Deno.test("an event that is not HTTP goes to `handler` beside fetch, or is an error", async () => {
  sayHello();
  const app = { fetch: () => new Response() };
  const both = { default: app, handler: echo };
  assert.equal((await invoke(both, { a: 1 }, "default"))[0].body, '{"a":1}');
  const [frame] = await invoke({ default: app }, { a: 1 });
  assert.equal(frame.errorType, "Runtime.UnsupportedEvent");
});

Deno.test("fetch has to return a Response, and a Request cannot have every method", async () => {
  sayHello();
  const app = { fetch: () => "text" };
  const [frame] = await invoke({ default: app }, HTTP_EVENT);
  assert.equal(frame.errorType, "Runtime.InvalidResponse");
  const requestContext = { http: { method: "TRACE" } };
  const [refused] = await invoke({ default: app }, {
    ...HTTP_EVENT,
    requestContext,
  });
  assert.equal(JSON.parse(refused.body).statusCode, 405);
});

Deno.test("an event that is not JSON is an error", async () => {
  sayHello();
  const { job, output } = beginJob();
  await run(job, echo, headOf(), new TextEncoder().encode("{"));
  assert.equal(output.frames[0].errorType, "Runtime.UnmarshalError");
});

Deno.test("a result behind an uncaught error is dropped", async () => {
  sayHello();
  const handler = () => {
    onUncaughtError(
      /** @type {any} */ ({
        error: new EvalError("m"),
        preventDefault() {},
      }),
    );
    return "result";
  };
  const frames = await invoke({ handler }, {});
  assert.deepEqual(frames.map(({ kind }) => kind), ["ERROR"]);
});

Deno.test("variables that Deno obeys are read and set as copies", () => {
  const { env } = Deno;
  const own = { ...env };
  const real = /** @type {Record<string, string>} */ (Object.create(null));
  real.OTHER = "1";
  Object.assign(env, {
    get: (/** @type {string} */ name) => real[name],
    has: (/** @type {string} */ name) => name in real,
    set: (/** @type {string} */ name, /** @type {string} */ value) => {
      real[name] = value;
    },
    delete: (/** @type {string} */ name) => delete real[name],
    toObject: () => ({ ...real }),
  });
  try {
    standIn("HTTP_PROXY,HTTPS_PROXY", { HTTP_PROXY: "http://proxy" });
    assert.equal(env.get("HTTP_PROXY"), "http://proxy");
    assert.equal(env.get("HTTPS_PROXY"), undefined);
    assert.deepEqual([env.has("HTTP_PROXY"), env.has("HTTPS_PROXY")], [
      true,
      false,
    ]);
    env.set("HTTPS_PROXY", /** @type {any} */ (7));
    env.delete("HTTP_PROXY");
    env.set("OTHER", "2");
    // A name that Object's prototype has is not ours.
    assert.equal(env.get("toString"), undefined);
    assert.deepEqual(env.toObject(), { OTHER: "2", HTTPS_PROXY: "7" });
    assert.deepEqual({ ...real }, { OTHER: "2" });
    env.delete("OTHER");
    assert.equal(env.has("OTHER"), false);
    assert.deepEqual({ ...real }, {});
  } finally {
    Object.assign(env, own);
  }
});

/**
 * The namespace that Deno gives a CommonJS module of which it has seen no names.
 *
 * @param {any} exports
 * @param {object} [seen] Names that it has seen.
 */
const commonjs = (exports, seen = {}) => ({
  default: exports,
  "module.exports": exports,
  ...seen,
});

class Service {
  answer = 42;
  handler() {
    return this.answer;
  }
}

for (
  const [what, exports, path, answer] of /** @type {const} */ ([
    ["a member", { handler: () => 1 }, "handler", 1],
    ["any name", { main: () => 2 }, "main", 2],
    ["a nested one", { a: { b: new Service() } }, "a.b.handler", 42],
    ["a method of an instance", new Service(), "handler", 42],
    ["a function", () => 3, "handler", 3],
    ["a default", { __esModule: true, default: () => 4 }, "default", 4],
    ["one for `handler`", { __esModule: true, default: () => 5 }, "handler", 5],
  ])
) {
  Deno.test(`a CommonJS module may export ${what}`, async () => {
    sayHello();
    const [frame] = await invoke(commonjs(exports), {}, path);
    assert.equal(frame.body, `${answer}`);
  });
}

Deno.test("module.exports comes before the namespace of a CommonJS module", () => {
  sayHello();
  const exports = { handler: echo };
  const seen = { handler: () => "seen", main: echo };
  const { owner, value } = pick(commonjs(exports, seen), "handler");
  assert.equal(value, echo);
  assert.equal(owner, exports);
  assert.equal(pick(commonjs(exports, seen), "main").value, echo);
});

/** @type {[string, Record<string, unknown>, string][]} */
const DEFAULTS = [
  ["an object", { default: { handler: echo } }, "handler"],
  ["a nested object", { default: { api: { get: echo } } }, "api.get"],
  ["a function", { default: echo, handler: null }, "handler"],
  ["a compiled object", commonjs({ default: { main: echo } }), "main"],
  ["a function beside others", commonjs({ default: echo, a: 1 }), "handler"],
];

for (const [what, module, path] of DEFAULTS) {
  Deno.test(`a default export may be ${what}`, () => {
    sayHello();
    assert.equal(pick(module, path).value, echo);
  });
}

Deno.test("members are found behind getters, functions, classes and proxies", () => {
  sayHello();
  const withGetter = Object.defineProperty({}, "handler", { get: () => echo });
  const withMember = Object.assign(() => "function", { handler: echo });
  const proxy = new Proxy({}, { get: (_, name) => name === "handler" && echo });
  class Static {
    static handler = echo;
  }
  for (const exports of [withGetter, withMember, proxy, Static]) {
    assert.equal(pick(commonjs(exports), "handler").value, echo);
  }
  const thrower = Object.defineProperty({}, "handler", {
    get() {
      throw new RangeError("mine");
    },
  });
  assert.throws(() => pick(commonjs(thrower), "handler"), RangeError);
});

Deno.test("a function with fetch is an app, one that streams is not", async () => {
  sayHello();
  const app = Object.assign(() => "plain", {
    fetch() {
      return new Response(String(this === app), { status: 202 });
    },
  });
  for (const module of [{ default: app }, { handler: app }, commonjs(app)]) {
    const [frame] = await invoke(module, HTTP_EVENT);
    const { statusCode, body } = JSON.parse(frame.body);
    assert.deepEqual([statusCode, body], [202, "true"]);
  }
  const [frame] = await invoke({ handler: app }, { a: 1 });
  assert.equal(frame.errorType, "Runtime.UnsupportedEvent");
  const streaming = Object.assign(
    awslambda.streamifyResponse((
      /** @type {unknown} */ _event,
      /** @type {any} */ stream,
    ) => stream.end("one")),
    { fetch: () => new Response() },
  );
  sayHello({ socket: "/s" });
  const frames = await invoke({ handler: streaming }, {});
  assert.equal(frames[1].body, "one");
});

Deno.test("an app finds the facts of the connection where frameworks look", async () => {
  sayHello();
  /** @type {any} */
  let facts;
  const app = {
    fetch: (/** @type {Request} */ _request, /** @type {any} */ info) => {
      facts = info;
      return new Response();
    },
  };
  const requestContext = { http: { method: "GET", sourceIp: "192.0.2.1" } };
  await invoke({ default: app }, { ...HTTP_EVENT, requestContext });
  assert.deepEqual(facts.remoteAddr, {
    transport: "tcp",
    hostname: "192.0.2.1",
    port: 0,
  });
  assert.deepEqual(facts.requestContext, requestContext);
  assert.equal(facts.lambdaContext.awsRequestId, "request-1");
  assert.doesNotThrow(() => JSON.stringify(facts));
});

for (
  const [exports, path, message]
    of /** @type {[unknown, string, string][]} */ ([
      [
        { other: echo },
        "handler",
        "'handler' in '/var/task/function.ts': it exports other",
      ],
      [new Service(), "main", "it exports answer, handler"],
      [{ handler: 42 }, "handler", "it is of type number"],
      [{}, "handler", "it exports nothing"],
      [null, "handler", "it exports nothing"],
    ])
) {
  Deno.test(`a message describes module.exports: ${message}`, () => {
    sayHello();
    assert.throws(() => pick(commonjs(exports), path), (
      /** @type {Error} */ error,
    ) => {
      assert.equal(error.name, "Runtime.HandlerNotFound");
      assert.ok(error.message.includes(message), error.message);
      return true;
    });
  });
}
