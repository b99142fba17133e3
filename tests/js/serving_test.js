// @ts-check
/** Servers that the handler's module starts: kept, or let go. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { sayHello } from "./doubles.js";

const URL_OF_PART = "../../src/lambda_deno_spawn/js/src/serving.js";
let count = 0;

/**
 * @returns {Promise<typeof import(
 *   "../../src/lambda_deno_spawn/js/src/serving.js"
 * )>} The part as a process has it that has just started, and that watches.
 */
async function watching() {
  sayHello();
  count += 1;
  const part = await import(`${URL_OF_PART}?${count}`);
  part.watchServers();
  return part;
}

// The tests have no permission to listen: whatever listens here does not.

Deno.test("a server of Deno.serve is kept, and says what it would say", async () => {
  const part = await watching();
  const answer = () => new Response();
  try {
    let heard;
    const server = Deno.serve({
      port: 3000,
      hostname: "127.0.0.1",
      onListen: (address) => (heard = address),
    }, answer);
    const address = { transport: "tcp", hostname: "127.0.0.1", port: 3000 };
    assert.deepEqual(server.addr, address);
    assert.deepEqual(heard, address);
    assert.equal(await part.isServing(), true);
    assert.equal(part.openServer()?.handler, answer);
    assert.equal(part.isListener(answer), true);
    assert.equal(part.isListener(() => new Response()), false);
    server.unref();
    await server.shutdown();
    await server.finished;
    assert.equal(part.openServer(), undefined);
  } finally {
    part.releaseServers();
  }
});

/** @type {[string, () => Deno.HttpServer<any>][]} */
const FORMS = [
  ["a handler", () => Deno.serve(() => new Response())],
  ["options and a handler", () => Deno.serve({}, () => new Response())],
  ["a handler in options", () => Deno.serve({ handler: () => new Response() })],
];

for (const [what, serve] of FORMS) {
  Deno.test(`Deno.serve is understood with ${what}`, async () => {
    const part = await watching();
    try {
      const server = serve();
      assert.deepEqual(server.addr, {
        transport: "tcp",
        hostname: "0.0.0.0",
        port: 8000,
      });
      assert.equal(typeof part.openServer()?.handler, "function");
      await server.shutdown();
    } finally {
      part.releaseServers();
    }
  });
}

Deno.test("a signal ends a server of Deno.serve", async () => {
  const part = await watching();
  try {
    const controller = new AbortController();
    const { signal } = controller;
    const { finished } = Deno.serve({ signal }, () => new Response());
    assert.notEqual(part.openServer(), undefined);
    controller.abort();
    await finished;
    assert.equal(part.openServer(), undefined);
    await Deno.serve({ signal }, () => new Response()).finished;
  } finally {
    part.releaseServers();
  }
});

Deno.test("a port is taken once, on whatever interface of Deno's or Node's", async () => {
  const part = await watching();
  try {
    const server = Deno.serve({ port: 3000 }, () => new Response());
    assert.throws(
      () => Deno.serve({ port: 3000 }, () => new Response()),
      Deno.errors.AddrInUse,
    );
    const options = { port: 3000, reusePort: true };
    await Deno.serve(options, () => new Response()).shutdown();
    const node = createServer();
    node.listen(3000);
    const [error] = await once(node, "error");
    assert.equal(error.code, "EADDRINUSE");
    assert.equal(node.listening, false);
    await server.shutdown();
    node.listen(3000);
    await once(node, "listening");
    assert.equal(part.openServer()?.node, node);
    await new Promise((resolve) => node.close(resolve));
  } finally {
    part.releaseServers();
  }
});

Deno.test("what Deno has to refuse is left to Deno", async () => {
  const part = await watching();
  try {
    // @ts-expect-error neither is a handler
    assert.throws(() => Deno.serve({ port: 3000 }), TypeError);
    assert.throws(
      () => Deno.serve({ port: 70_000 }, () => new Response()),
      RangeError,
    );
    assert.equal(part.openServer(), undefined);
  } finally {
    part.releaseServers();
  }
});

Deno.test("a server of Node's is kept, and says what it would say", async () => {
  const part = await watching();
  try {
    const listener = () => {};
    const server = createServer(listener);
    const isHeard = new Promise((resolve) => {
      assert.equal(
        server.listen(3000, "127.0.0.1", () => resolve(true)),
        server,
      );
    });
    assert.equal(await part.isServing(), true);
    assert.equal(await isHeard, true);
    assert.deepEqual(server.address(), {
      address: "127.0.0.1",
      family: "IPv4",
      port: 3000,
    });
    assert.equal(server.listening, true);
    assert.equal(part.openServer()?.node, server);
    assert.equal(part.isListener(listener), true);
    assert.throws(() => server.listen(3001), {
      code: "ERR_SERVER_ALREADY_LISTEN",
    });
    server.unref().ref();
    part.keepServers();
    await new Promise((resolve) => server.close(resolve));
    assert.equal(part.openServer(), undefined);
  } finally {
    part.releaseServers();
  }
});

Deno.test("without a handler of its own, a server of Node's on every address", async () => {
  const part = await watching();
  try {
    const server = createServer().listen(3000);
    await once(server, "listening");
    assert.deepEqual(server.address(), {
      address: "::",
      family: "IPv6",
      port: 3000,
    });
    part.keepServers();
    await new Promise((resolve) => server.close(resolve));
  } finally {
    part.releaseServers();
  }
});

Deno.test("a server of Node's that does not speak HTTP is left alone", async () => {
  const part = await watching();
  try {
    const server = createTcpServer();
    const failed = once(server, "error");
    try {
      server.listen(3000);
      const [{ code }] = await failed;
      assert.equal(code, "EACCES");
    } catch (error) {
      assert.ok(error instanceof Deno.errors.NotCapable, `${error}`);
    }
    assert.equal(part.openServer(), undefined);
  } finally {
    part.releaseServers();
  }
});

for (const kind of ["Deno", "Node"]) {
  Deno.test(`for a module with a handler a server of ${kind}'s listens`, async () => {
    const before = Object.getOwnPropertyDescriptor(Deno, "serve");
    const part = await watching();
    const listening = kind === "Deno"
      ? Deno.serve({ port: 3000 }, () => new Response())
      : createServer().listen(3000);
    // It tries to listen now.
    assert.throws(() => part.releaseServers(), Deno.errors.NotCapable);
    assert.deepEqual(Object.getOwnPropertyDescriptor(Deno, "serve"), before);
    assert.equal("_listeningId" in Object.prototype, false);
    assert.throws(
      () => Deno.serve({ port: 3001 }, () => new Response()),
      Deno.errors.NotCapable,
    );
    if ("shutdown" in listening) await listening.shutdown();
  });
}

Deno.test("loading ends where a module waits for the end of its server", async () => {
  const part = await watching();
  try {
    const server = Deno.serve(() => new Response());
    const loading = (async () => {
      await server.finished;
      return { late: true };
    })();
    assert.deepEqual(await part.loaded(loading), {});
    assert.equal(await part.isServing(), true);
    await server.shutdown();
    assert.deepEqual(await loading, { late: true });
  } finally {
    part.releaseServers();
  }
});

Deno.test("a module that starts no server is not waited for in vain", async () => {
  const part = await watching();
  try {
    const nothingIsLeft = () =>
      !globalThis.dispatchEvent(
        new Event("beforeunload", { cancelable: true }),
      );
    assert.equal(nothingIsLeft(), false);
    const serving = part.isServing();
    assert.equal(nothingIsLeft(), true);
    assert.equal(await serving, false);
    assert.equal(nothingIsLeft(), false);
  } finally {
    part.releaseServers();
  }
});
