// @ts-check
/** Requests to a server of node:http, without a socket. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import {
  collect,
  exchange,
  trialServer,
} from "../../src/lambda_deno_spawn/js/node_http.js";

/** @typedef {import("node:http").RequestListener} RequestListener */

/**
 * @param {RequestListener} listener
 * @param {object} [request]
 */
async function ask(listener, request = {}) {
  const answer = await exchange(createServer(listener), {
    method: "GET",
    target: "/a?b=c",
    headers: [["host", "a.test"]],
    body: null,
    ...request,
  }, "203.0.113.7");
  const bytes = await collect(answer.body);
  return { ...answer, text: new TextDecoder().decode(bytes) };
}

Deno.test("a server sees the request as from a client", async () => {
  const body = new Uint8Array([0, 255, 10]);
  const { status, statusText, headers, text } = await ask(
    async (request, response) => {
      const pieces = await Array.fromAsync(request);
      response.writeHead(203, "Fine", [["X-A", "1"], ["x-a", "2"]].flat());
      response.end(JSON.stringify({
        method: request.method,
        url: request.url,
        version: request.httpVersion,
        headers: request.headers,
        address: request.socket.remoteAddress,
        family: request.socket.remoteFamily,
        bytes: [...Buffer.concat(pieces)],
      }));
    },
    {
      method: "POST",
      headers: [["host", "a.test"], ["x-name", "\xfc"], ["connection", "x"]],
      body,
    },
  );
  assert.deepEqual([status, statusText], [203, "Fine"]);
  assert.deepEqual(
    headers.filter(([name]) => name.toLowerCase() === "x-a"),
    [["X-A", "1"], ["x-a", "2"]],
  );
  assert.deepEqual(JSON.parse(text), {
    method: "POST",
    url: "/a?b=c",
    version: "1.1",
    headers: { host: "a.test", "x-name": "\xfc", "content-length": "3" },
    address: "203.0.113.7",
    family: "IPv4",
    bytes: [0, 255, 10],
  });
});

/** @type {[string, RequestListener, string][]} */
const BODIES = [
  ["with a length", (_, response) => response.end("whole"), "whole"],
  ["with length 0", (_, response) => response.end(), ""],
  ["in chunks", (_, response) => {
    response.write("one ");
    response.write("two ");
    response.end("three");
  }, "one two three"],
  ["in chunks over time", (_, response) => {
    response.write("one ");
    setTimeout(() => response.end("two"), 1);
  }, "one two"],
  ["with trailers", (_, response) => {
    response.setHeader("trailer", "x-sum");
    response.write("one");
    response.addTrailers({ "x-sum": "1" });
    response.end();
  }, "one"],
  ["until the end of the connection", (_, response) => {
    response.useChunkedEncodingByDefault = false;
    response.shouldKeepAlive = false;
    response.write("one ");
    response.end("two");
  }, "one two"],
  ["of status 204", (_, response) => {
    response.statusCode = 204;
    response.end();
  }, ""],
  ["of status 304", (_, response) => {
    response.writeHead(304, { "content-length": "7" }).end();
  }, ""],
  ["larger than any buffer", (_, response) => {
    response.write("x".repeat(300_000));
    response.end("y".repeat(300_000));
  }, "x".repeat(300_000) + "y".repeat(300_000)],
  ["behind early hints", (_, response) => {
    response.writeEarlyHints({ link: "</a>; rel=preload" });
    response.end("late");
  }, "late"],
  ["in single bytes", (_, response) => {
    const bytes = Buffer.from(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    );
    for (const byte of bytes) response.socket?.write(Buffer.from([byte]));
  }, "one"],
];

for (const [what, listener, body] of BODIES) {
  Deno.test(`a body ${what} is read`, async () => {
    assert.equal((await ask(listener)).text, body);
  });
}

Deno.test("a HEAD request has the headers of the body and no body", async () => {
  const { headers, text } = await ask((_, response) => {
    response.setHeader("content-length", "5");
    response.end("whole");
  }, { method: "HEAD" });
  assert.equal(new Headers(headers).get("content-length"), "5");
  assert.equal(text, "");
});

Deno.test("100 Continue is not the response", async () => {
  const { status, text } = await ask(
    (request, response) => request.pipe(response),
    {
      method: "POST",
      headers: [["host", "a.test"], ["expect", "100-continue"]],
      body: new TextEncoder().encode("sent"),
    },
  );
  assert.deepEqual([status, text], [200, "sent"]);
});

Deno.test("the app hears of the end of its response before the answer is complete", async () => {
  /** @type {string[]} */
  const heard = [];
  await ask((_, response) => {
    response.on("finish", () => heard.push("finish"));
    response.on("close", () => heard.push("close"));
    response.end("x");
  });
  assert.deepEqual(heard, ["finish", "close"]);
});

Deno.test("a response whose end the app does not declare ends with its length", async () => {
  const { text } = await ask((_, response) => {
    response.setHeader("content-length", "3");
    response.write("one");
  });
  assert.equal(text, "one");
});

Deno.test("a server that closes the connection has not answered", async () => {
  await assert.rejects(
    ask((request) => void request.socket.destroy()),
    /closed the connection before its response was complete/,
  );
  await assert.rejects(
    ask((_, response) => {
      response.setHeader("content-length", "5");
      response.write("one");
      setTimeout(() => response.destroy(), 1);
    }),
    /closed the connection before its response was complete/,
  );
});

Deno.test("a request that is not HTTP is answered by the server itself", async () => {
  const { status } = await ask(() => {}, { target: "/a b c" });
  assert.equal(status, 400);
});

Deno.test("bytes that are not a response are named", async () => {
  await assert.rejects(
    ask((request) => void request.socket.write("SSH-2.0\r\n\r\n")),
    /Cannot read the server's response: "SSH-2.0"/,
  );
});

Deno.test("a server writes as fast as its response is read", async () => {
  let written = 0;
  /** @type {PromiseWithResolvers<void>} */
  const closed = Promise.withResolvers();
  const answer = await exchange(
    createServer(async (_, response) => {
      response.on("close", closed.resolve);
      for (let piece = 0; piece < 40; piece += 1) {
        written += 1;
        if (!response.write("x".repeat(65_536))) {
          await new Promise((resolve) => response.once("drain", resolve));
        }
      }
      response.end();
    }),
    { method: "GET", target: "/", headers: [["host", "a"]], body: null },
    "::1",
  );
  const body = answer.body[Symbol.asyncIterator]();
  await body.next();
  await body.return(undefined);
  await closed.promise;
  assert.ok(written < 10, `${written}`);
});

Deno.test("the server of a rehearsal answers in turns", async () => {
  const server = trialServer();
  for (const type of ["application/json; charset=utf-8", "text/plain"]) {
    const { headers, body } = await exchange(server, {
      method: "POST",
      target: "/",
      headers: [["host", "a"]],
      body: new TextEncoder().encode("{}"),
    }, "127.0.0.1");
    assert.equal(new Headers(headers).get("content-type"), type);
    assert.equal(new TextDecoder().decode(await collect(body)), "{}");
  }
});
