// @ts-check
/**
 * What http.js promises: events of four services become requests, responses become
 * results. Expected values are written out from AWS's documentation; the properties at
 * the end build events and read results by code of their own, as the gateways do.
 */

import assert from "node:assert/strict";
import process from "node:process";
import fc from "npm:fast-check@4";
import {
  connectionOf,
  fromResponse,
  httpShape,
  isBodyless,
  MethodNotAllowedError,
  streamPrelude,
  toParts,
  toRequest,
} from "../../src/lambda_deno_spawn/js/http.js";

/** @typedef {"v1" | "http1" | "v2" | "url" | "alb" | "albMulti"} Door */
/** @typedef {Record<string, any>} Members */

const DOORS = /** @type {const} */ ([
  "v1",
  "http1",
  "v2",
  "url",
  "alb",
  "albMulti",
]);
const encoder = new TextEncoder();
/** Every byte value once, which is not valid UTF-8. */
const BINARY = Uint8Array.from({ length: 256 }, (_, index) => index);
const BINARY_BASE64 = btoa(String.fromCharCode(...BINARY));
const MEGABYTE = 1_048_576;

/**
 * The smallest event of a service.
 *
 * @param {Door} door
 * @param {Members} [members] Override the members of the event.
 * @returns {Members}
 */
function eventOf(door, members = {}) {
  switch (door) {
    case "v1":
    case "http1":
      return {
        ...(door === "http1" ? { version: "1.0" } : {}),
        resource: "/{proxy+}",
        path: "/orders",
        httpMethod: "GET",
        headers: null,
        multiValueHeaders: null,
        queryStringParameters: null,
        multiValueQueryStringParameters: null,
        requestContext: {
          stage: "prod",
          path: "/prod/orders",
          domainName: "abc.execute-api.eu-west-1.amazonaws.com",
        },
        body: null,
        isBase64Encoded: false,
        ...members,
      };
    case "v2":
    case "url": {
      const { method = "GET", ...rest } = members;
      return {
        version: "2.0",
        routeKey: "$default",
        rawPath: "/orders",
        rawQueryString: "",
        headers: {},
        requestContext: {
          domainName: door === "url"
            ? "xyz.lambda-url.eu-west-1.on.aws"
            : "abc.execute-api.eu-west-1.amazonaws.com",
          http: { method, path: "/orders" },
        },
        isBase64Encoded: false,
        ...rest,
      };
    }
    default:
      return {
        requestContext: { elb: { targetGroupArn: "arn:aws:tg" } },
        httpMethod: "GET",
        path: "/orders",
        ...(door === "alb"
          ? { queryStringParameters: {}, headers: { host: "lb.example" } }
          : {
            multiValueQueryStringParameters: {},
            multiValueHeaders: { host: ["lb.example"] },
          }),
        body: "",
        isBase64Encoded: false,
        ...members,
      };
  }
}

/**
 * @param {Door} door
 * @param {string} method
 * @param {Members} [members]
 */
function eventWithMethod(door, method, members = {}) {
  const isV2 = door === "v2" || door === "url";
  return eventOf(door, {
    ...(isV2 ? { method } : { httpMethod: method }),
    ...members,
  });
}

/**
 * @param {Door} door
 * @param {string} path
 */
function eventWithPath(door, path) {
  return eventOf(door, { path, rawPath: path });
}

/** @param {Door} door */
function hostOf(door) {
  const hosts = {
    v1: "abc.execute-api.eu-west-1.amazonaws.com",
    http1: "abc.execute-api.eu-west-1.amazonaws.com",
    v2: "abc.execute-api.eu-west-1.amazonaws.com",
    url: "xyz.lambda-url.eu-west-1.on.aws",
    alb: "lb.example",
    albMulti: "lb.example",
  };
  return hosts[door];
}

/**
 * @param {Members} event
 * @returns {{ request: Request, warnings: string[] }}
 */
function convert(event) {
  const warnings = /** @type {string[]} */ ([]);
  const request = toRequest(event, null, (message) => warnings.push(message));
  return { request, warnings };
}

/**
 * @param {BodyInit | null} body
 * @param {Record<string, string>} [headers]
 * @returns {Promise<[body: string, isBase64Encoded: boolean]>}
 */
async function encoded(body, headers) {
  const response = new Response(body, { headers });
  // A string brings a content type of its own.
  if (headers?.["content-type"] === undefined) {
    response.headers.delete("content-type");
  }
  const result = await fromResponse(response, eventOf("v2"));
  return [result.body, result.isBase64Encoded];
}

// ------------------------------------------------------------------- httpShape

Deno.test("httpShape() tells the services apart", () => {
  const shapes = DOORS.map((door) => httpShape(eventOf(door)));
  assert.deepEqual(shapes, ["v1", "v1", "v2", "v2", "alb", "alb"]);
});

Deno.test("httpShape() takes nothing else for HTTP", () => {
  const others = {
    webSocket: {
      requestContext: { connectionId: "c", routeKey: "$connect" },
      headers: {},
    },
    webSocketMessage: { requestContext: { connectionId: "c" }, body: "x" },
    s3: { Records: [{ eventSource: "aws:s3", s3: {} }] },
    schedule: { version: "0", source: "aws.events", detail: {} },
    restAuthorizer: {
      ...eventOf("v1"),
      type: "REQUEST",
      methodArn: "arn:aws:execute-api",
    },
    httpAuthorizer: {
      ...eventOf("v2"),
      type: "REQUEST",
      routeArn: "arn:aws:execute-api",
    },
    bedrockAgent: { messageVersion: "1.0", apiPath: "/x", httpMethod: "GET" },
    unknownVersion: { ...eventOf("v1"), version: "3.0" },
    elbAlone: { requestContext: { elb: {} } },
    methodIsNoString: { ...eventOf("v1"), httpMethod: 7 },
    v2MethodIsNoString: { version: "2.0", requestContext: { http: {} } },
    edge: { Records: [{ cf: { request: { method: "GET", uri: "/" } } }] },
  };
  for (const [name, event] of Object.entries(others)) {
    assert.equal(httpShape(event), null, name);
  }
});

Deno.test("httpShape() survives anything", () => {
  const hostile = new Proxy({}, {
    get() {
      throw new Error("do not look");
    },
  });
  const values = [null, undefined, 1, "text", true, [], {}, Symbol("s"), 1n];
  for (const value of [...values, hostile, { requestContext: null }]) {
    assert.equal(httpShape(value), null);
  }
  fc.assert(fc.property(fc.anything(), (value) => {
    assert.ok([null, "v1", "v2", "alb"].includes(httpShape(value)));
  }));
});

// ------------------------------------------------------------------- toRequest

Deno.test("toRequest() takes method, host and path from where each sender puts them", () => {
  for (const door of DOORS) {
    const event = eventWithMethod(door, "PATCH");
    const { request, warnings } = convert(event);
    assert.equal(request.method, "PATCH", door);
    assert.equal(request.url, `https://${hostOf(door)}/orders`, door);
    assert.equal(request.body, null, door);
    assert.deepEqual(warnings, [], door);
  }
});

Deno.test("toRequest() believes the host header before the domain name", () => {
  const events = [
    eventOf("v1", { multiValueHeaders: { Host: ["shop.example"] } }),
    eventOf("v1", { headers: { Host: "shop.example" } }),
    eventOf("v2", { headers: { host: "shop.example" } }),
    eventOf("alb", { headers: { host: "shop.example" } }),
  ];
  for (const event of events) {
    assert.equal(toRequest(event).url, "https://shop.example/orders");
  }
});

Deno.test("toRequest() keeps the port of the host header", () => {
  const headers = { host: "lb.example:8443" };
  const { request } = convert(eventOf("alb", { headers }));
  assert.equal(request.url, "https://lb.example:8443/orders");
});

Deno.test("toRequest() lets no host header become another part of the URL", () => {
  const hosts = [
    "evil.example/path",
    "user@evil.example",
    "evil.example?",
    "evil.example#",
    "evil.example\\x",
    "a b",
    "h:99999",
    "a.example, b.example",
    "",
    "[",
  ];
  for (const host of hosts) {
    const { request, warnings } = convert(eventOf("v2", { headers: { host } }));
    assert.equal(request.url, `https://${hostOf("v2")}/orders`, host);
    assert.equal(warnings.length, 1, host);
    assert.match(warnings[0], /^Cannot use header 'host'/);
  }
});

Deno.test("toRequest() finds some host where there is none", () => {
  const { request, warnings } = convert(eventOf("alb", { headers: {} }));
  assert.equal(request.url, "https://localhost/orders");
  assert.deepEqual(warnings, []);
});

Deno.test("toRequest() takes the scheme from x-forwarded-proto, else https", () => {
  const cases = {
    "http": "http:",
    "HTTP": "http:",
    "https": "https:",
    "http, https": "http:",
    "https,http": "https:",
    "javascript": "https:",
    "file": "https:",
    "": "https:",
  };
  for (const door of DOORS) {
    for (const [proto, expected] of Object.entries(cases)) {
      const headers = { "X-Forwarded-Proto": proto };
      const event = door === "albMulti"
        ? eventOf(door, { multiValueHeaders: { "x-forwarded-proto": [proto] } })
        : eventOf(door, { headers });
      assert.equal(new URL(toRequest(event).url).protocol, expected, proto);
    }
  }
});

Deno.test("toRequest() encodes in a path what a URL cannot hold, and nothing twice", () => {
  const paths = {
    "": "/",
    "/": "/",
    "/a b": "/a%20b",
    "/a%20b": "/a%20b",
    "/a%2Fb": "/a%2Fb",
    "/a%252Fb": "/a%252Fb",
    "/100%": "/100%25",
    "/%zz%4": "/%25zz%254",
    "/é/€/🦕": "/%C3%A9/%E2%82%AC/%F0%9F%A6%95",
    "//evil.example/": "//evil.example/",
    "///": "///",
    "/a?b#c": "/a%3Fb%23c",
    "/a\\b": "/a%5Cb",
    "/\\evil.example": "/%5Cevil.example",
    "/a\tb\nc\rd": "/a%09b%0Ac%0Dd",
    "/end ": "/end%20",
    "/end\u0001": "/end%01",
    '/"<>`{}': "/%22%3C%3E%60%7B%7D",
    "/a;b=c,d:e@f!$&'()*+": "/a;b=c,d:e@f!$&'()*+",
    "/\ud800": "/%EF%BF%BD",
    "no/slash": "/no/slash",
    "@evil.example/": "/@evil.example/",
    ".evil.example": "/.evil.example",
    ":80/x": "/:80/x",
    "*": "/*",
    "https://evil.example/": "/https://evil.example/",
  };
  for (const door of DOORS) {
    for (const [path, expected] of Object.entries(paths)) {
      const { url } = toRequest(eventWithPath(door, path));
      assert.equal(
        url,
        `https://${hostOf(door)}${expected}`,
        `${door} ${path}`,
      );
    }
  }
});

Deno.test("toRequest() takes a path that is missing for the root", () => {
  for (const door of DOORS) {
    const { url } = toRequest(
      eventOf(door, { path: null, rawPath: undefined }),
    );
    assert.equal(new URL(url).pathname, "/", door);
  }
});

Deno.test("toRequest() leaves the stage out of a v1 path", () => {
  assert.equal(new URL(toRequest(eventOf("v1")).url).pathname, "/orders");
});

Deno.test("toRequest() keeps a raw query verbatim", () => {
  const queries = [
    "a=1&a=2&b",
    "a=%20+%2B&b=%zz&%E2%82%AC=1",
    "x[]=1&x[]=2&y=a,b",
    "q=a/b?c:d@e",
    "=&&=",
    "redirect=https://other.example/?x=1%26y",
  ];
  for (const rawQueryString of queries) {
    const event = eventOf("v2", {
      rawQueryString,
      // Joined by commas: the query must not be made of this.
      queryStringParameters: { a: "1,2" },
    });
    const { url } = toRequest(event);
    assert.equal(new URL(url).search, `?${rawQueryString}`);
  }
  const odd = toRequest(eventOf("url", { rawQueryString: "a=b#c d\n" }));
  assert.equal(new URL(odd.url).search, "?a=b%23c%20d%0A");
  assert.equal(new URL(odd.url).hash, "");
});

Deno.test("toRequest() encodes a v1 query again", () => {
  const multi = {
    "a b": ["1&2", "3=4"],
    "€": ["é#?+%"],
    "empty": [""],
    "half": ["\ud800"],
    "list[]": ["x", "y"],
  };
  const { url } = toRequest(eventOf("v1", {
    multiValueQueryStringParameters: multi,
    queryStringParameters: { "a b": "3=4" },
  }));
  assert.equal(
    new URL(url).search,
    "?a%20b=1%262&a%20b=3%3D4&%E2%82%AC=%C3%A9%23%3F%2B%25&empty=&half=%EF%BF%BD" +
      "&list%5B%5D=x&list%5B%5D=y",
  );
  assert.deepEqual([...new URL(url).searchParams], [
    ["a b", "1&2"],
    ["a b", "3=4"],
    ["€", "é#?+%"],
    ["empty", ""],
    ["half", "\ufffd"],
    ["list[]", "x"],
    ["list[]", "y"],
  ]);
});

Deno.test("toRequest() falls back to single query values and headers in v1", () => {
  for (const multi of [null, undefined, {}]) {
    const { url, headers } = toRequest(eventOf("v1", {
      multiValueQueryStringParameters: multi,
      queryStringParameters: { a: "1 2", b: null },
      multiValueHeaders: multi,
      headers: { "X-One": "1" },
    }));
    assert.equal(new URL(url).search, "?a=1%202&b=");
    assert.equal(headers.get("x-one"), "1");
  }
});

Deno.test("toRequest() leaves the query of a load balancer as it came", () => {
  const single = toRequest(eventOf("alb", {
    queryStringParameters: { "a%20b": "1%262", "c": "x+y", "%zz": "" },
  }));
  assert.equal(new URL(single.url).search, "?a%20b=1%262&c=x+y&%zz=");
  const multi = toRequest(eventOf("albMulti", {
    multiValueQueryStringParameters: { "a%5B%5D": ["1", "2%2C3"], b: [""] },
  }));
  assert.equal(new URL(multi.url).search, "?a%5B%5D=1&a%5B%5D=2%2C3&b=");
});

Deno.test("toRequest() appends every value of a header", () => {
  const multi = {
    "Accept": ["text/html", "application/json;q=0.9"],
    "X-Date": ["Mon, 23 Nov 2026 12:00:00 GMT"],
    "Cookie": ["a=1; b=2"],
  };
  for (const door of /** @type {Door[]} */ (["v1", "http1", "albMulti"])) {
    const { headers } = toRequest(eventOf(door, {
      multiValueHeaders: multi,
      headers: { Accept: "application/json;q=0.9" },
    }));
    assert.equal(headers.get("accept"), "text/html, application/json;q=0.9");
    assert.equal(headers.get("x-date"), "Mon, 23 Nov 2026 12:00:00 GMT");
    assert.equal(headers.get("cookie"), "a=1; b=2");
  }
});

Deno.test("toRequest() splits no header at its commas", () => {
  const value = "Mozilla/5.0 (X11, Linux), like Gecko";
  const { headers } = toRequest(eventOf("v2", {
    headers: { "user-agent": value, "accept": "a/b,c/d" },
  }));
  assert.equal(headers.get("user-agent"), value);
  assert.equal(headers.get("accept"), "a/b,c/d");
});

Deno.test("toRequest() drops an illegal header and warns of it without its value", () => {
  const secret = "secret\u0000";
  const headers = {
    "x-nul": secret,
    "x-line": "a\r\nx-injected: 1",
    "x-wide": "€",
    "bad name": "1",
    "": "1",
    "x-latin": "é",
    "x-control": "\u0001\u007f",
    "x-null": null,
    "x-number": 5,
    "x-object": { toString: 1, valueOf: 1 },
  };
  const { request, warnings } = convert(eventOf("v2", { headers }));
  assert.deepEqual([...request.headers], [
    ["x-control", "\u0001\u007f"],
    ["x-latin", "é"],
    ["x-null", ""],
    ["x-number", "5"],
    ["x-object", ""],
  ]);
  assert.equal(warnings.length, 5);
  assert.ok(
    warnings.every((warning) => /^Cannot pass on header '/.test(warning)),
  );
  assert.ok(!warnings.join().includes("secret"));
  // Without `warn` there is no warning and no error.
  assert.equal(
    toRequest(eventOf("v2", { headers })).headers.has("x-nul"),
    false,
  );
});

Deno.test("toRequest() survives headers and queries that are no maps", () => {
  for (const wrong of [null, undefined, "text", 7, []]) {
    for (const door of DOORS) {
      const { url } = toRequest(eventOf(door, {
        headers: wrong,
        multiValueHeaders: wrong,
        queryStringParameters: wrong,
        multiValueQueryStringParameters: wrong,
        cookies: wrong,
      }));
      assert.equal(new URL(url).pathname, "/orders");
    }
  }
});

Deno.test("toRequest() joins the cookies of v2 under cookie, not set-cookie", () => {
  const cookies = ["a=1", "b=2,3", "c=%20"];
  for (const headers of [{}, { cookie: "a=1" }, { Cookie: "a=1;b=2,3" }]) {
    const { request } = convert(eventOf("url", { cookies, headers }));
    assert.equal(request.headers.get("cookie"), "a=1; b=2,3; c=%20");
    assert.equal(request.headers.has("set-cookie"), false);
  }
  const stray = toRequest(eventOf("v1", { cookies }));
  assert.equal(stray.headers.has("cookie"), false, "v1 has no such member");
  const { request } = convert(eventOf("v2", { headers: { cookie: "a=1" } }));
  assert.equal(request.headers.get("cookie"), "a=1");
});

Deno.test("toRequest() drops the one cookie that is illegal", () => {
  const cookies = ["a=1", "b=\u0000", "c=€", 7, "d=4"];
  const { request, warnings } = convert(eventOf("v2", { cookies }));
  assert.equal(request.headers.get("cookie"), "a=1; d=4");
  assert.equal(warnings.length, 1);
});

Deno.test("toRequest() takes binary and text bodies byte for byte", async () => {
  for (const door of DOORS) {
    const binary = toRequest(eventWithMethod(door, "POST", {
      body: BINARY_BASE64,
      isBase64Encoded: true,
    }));
    assert.deepEqual(await binary.bytes(), BINARY, door);
    const text = toRequest(
      eventWithMethod(door, "PUT", { body: "é€🦕\u0000" }),
    );
    assert.equal(text.headers.has("content-type"), false, "none was sent");
    assert.deepEqual(await text.bytes(), encoder.encode("é€🦕\u0000"), door);
  }
});

Deno.test("toRequest() takes null, absent and empty for no body", () => {
  for (const door of DOORS) {
    for (const body of [null, undefined, ""]) {
      for (const isBase64Encoded of [true, false]) {
        const event = eventWithMethod(door, "POST", { body, isBase64Encoded });
        assert.equal(toRequest(event).body, null);
      }
    }
  }
});

Deno.test("toRequest() refuses a body that cannot be read, with a name", () => {
  const bodies = [
    { body: "?!", isBase64Encoded: true },
    { body: { a: 1 }, isBase64Encoded: false },
    { body: 7, isBase64Encoded: false },
  ];
  for (const members of bodies) {
    assert.throws(
      () => toRequest(eventWithMethod("v2", "POST", members)),
      {
        name: "Runtime.UnmarshalError",
        message: /^Cannot read the event's body: /,
      },
    );
  }
});

Deno.test("toRequest() drops the body of GET and HEAD, and its length", () => {
  for (const door of DOORS) {
    for (const method of ["GET", "HEAD"]) {
      const warnings = /** @type {string[]} */ ([]);
      const event = eventWithMethod(door, method, {
        body: "text",
        headers: { "content-length": "4" },
        multiValueHeaders: { "content-length": ["4"] },
      });
      const request = toRequest(event, null, (text) => warnings.push(text));
      assert.equal(request.method, method);
      assert.equal(request.body, null);
      assert.equal(request.headers.has("content-length"), false);
      assert.deepEqual(warnings, [
        `Cannot pass on the body of a ${method} request: Request takes none`,
      ]);
    }
  }
});

Deno.test("toRequest() refuses methods that no Request can have", () => {
  for (const door of DOORS) {
    for (
      const method of ["CONNECT", "TRACE", "TRACK", "trace", "B@D", "", "A B"]
    ) {
      assert.throws(
        () => toRequest(eventWithMethod(door, method)),
        (error) =>
          error instanceof MethodNotAllowedError &&
          error.name === "MethodNotAllowedError" && error.method === method,
      );
    }
  }
  for (const method of ["DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "QUERY"]) {
    assert.equal(toRequest(eventWithMethod("alb", method)).method, method);
  }
});

Deno.test("toRequest() refuses an event that is not HTTP, with a name", () => {
  for (const event of [{}, null, { Records: [] }]) {
    assert.throws(() => toRequest(event), { name: "Runtime.UnmarshalError" });
  }
});

Deno.test("toRequest() gives a request that follows the signal and no redirect", () => {
  const controller = new AbortController();
  const request = toRequest(eventOf("v2"), controller.signal);
  assert.equal(request.redirect, "manual");
  assert.equal(request.signal.aborted, false);
  const reason = new DOMException(
    "The invocation is about to time out",
    "TimeoutError",
  );
  controller.abort(reason);
  assert.equal(request.signal.aborted, true);
  assert.equal(request.signal.reason, reason);
});

Deno.test("toRequest() gives a request that can be cloned, changed and sent on", async () => {
  const event = eventWithMethod("v1", "POST", { body: "a=1" });
  const request = toRequest(event);
  assert.equal(await request.clone().text(), "a=1");
  const next = new Request("http://other.example/", request);
  assert.equal(next.method, "POST");
  assert.equal(await next.text(), "a=1");
});

// ---------------------------------------------------------------- fromResponse

Deno.test("fromResponse() writes the result that each sender understands", async () => {
  const expected = /** @type {Record<Door, Members>} */ ({
    v1: {
      headers: { "content-type": "text/plain", "x-many": "1, 2" },
      multiValueHeaders: { "set-cookie": ["a=1; Path=/", "b=2, 3"] },
    },
    http1: {
      headers: { "content-type": "text/plain", "x-many": "1, 2" },
      multiValueHeaders: { "set-cookie": ["a=1; Path=/", "b=2, 3"] },
    },
    v2: {
      headers: { "content-type": "text/plain", "x-many": "1, 2" },
      cookies: ["a=1; Path=/", "b=2, 3"],
    },
    url: {
      headers: { "content-type": "text/plain", "x-many": "1, 2" },
      cookies: ["a=1; Path=/", "b=2, 3"],
    },
    alb: {
      statusDescription: "201 Created",
      headers: {
        "content-type": "text/plain",
        "x-many": "1, 2",
        "set-cookie": "a=1; Path=/",
        "Set-cookie": "b=2, 3",
      },
    },
    albMulti: {
      statusDescription: "201 Created",
      multiValueHeaders: {
        "content-type": ["text/plain"],
        "x-many": ["1, 2"],
        "set-cookie": ["a=1; Path=/", "b=2, 3"],
      },
    },
  });
  for (const door of DOORS) {
    const response = new Response("é", {
      status: 201,
      headers: [
        ["Content-Type", "text/plain"],
        ["X-Many", "1"],
        ["X-Many", "2"],
        ["Set-Cookie", "a=1; Path=/"],
        ["Set-Cookie", "b=2, 3"],
      ],
    });
    assert.deepEqual(
      await fromResponse(response, eventOf(door)),
      { statusCode: 201, ...expected[door], body: "é", isBase64Encoded: false },
      door,
    );
  }
});

Deno.test("fromResponse() writes no member for cookies where there are none", async () => {
  const empty = { statusCode: 200, body: "", isBase64Encoded: false };
  const expected = {
    v1: { ...empty, headers: {} },
    http1: { ...empty, headers: {} },
    v2: { ...empty, headers: {} },
    url: { ...empty, headers: {} },
    alb: { ...empty, headers: {}, statusDescription: "200 OK" },
    albMulti: { ...empty, multiValueHeaders: {}, statusDescription: "200 OK" },
  };
  for (const door of DOORS) {
    const result = await fromResponse(new Response(null), eventOf(door));
    assert.deepEqual(result, expected[door], door);
  }
});

Deno.test("fromResponse() decides between text and base64 by type, encoding and bytes", async () => {
  const texts = [
    "text/html",
    "text/html; charset=utf-8",
    "TEXT/CSV",
    "text/event-stream",
    "application/json",
    "application/json;charset=UTF-8",
    "application/problem+json",
    "application/xml",
    "application/atom+xml",
    "image/svg+xml",
    "application/javascript",
    "application/x-javascript",
    "application/x-www-form-urlencoded",
    "application/yaml",
    "application/x-yaml",
    "application/openapi+yaml",
    "application/x-ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/geo+json-seq",
    "application/graphql",
    "application/graphql-response+json",
    "application/sql",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/x-mpegURL",
    "audio/mpegurl",
    "application/x-pem-file",
    "application/pem-certificate-chain",
    "application/x-sh",
    "application/typescript",
    "application/jwt",
    "application/n-triples",
    "application/sparql-query",
    "application/rtf",
    "application/x-subrip",
    "message/rfc822",
  ];
  for (const type of texts) {
    assert.deepEqual(
      await encoded("é", { "content-type": type }),
      ["é", false],
      type,
    );
  }
  const others = [
    "image/png",
    "application/octet-stream",
    "application/jsonp",
    "application/zip",
    "multipart/form-data; boundary=x",
    "textual/html",
    "x",
  ];
  for (const type of others) {
    assert.deepEqual(await encoded("é", { "content-type": type }), [
      "w6k=",
      true,
    ], type);
  }
  // Without a type, what can be text is text.
  assert.deepEqual(await encoded("é"), ["é", false]);
  assert.deepEqual(await encoded(Uint8Array.of(0xe9)), ["6Q==", true]);
  assert.deepEqual(await encoded(Uint8Array.of(0, 65)), ["AEE=", true]);
  assert.deepEqual(await encoded(null), ["", false]);
  assert.deepEqual(await encoded("", { "content-type": "image/png" }), [
    "",
    false,
  ]);
});

Deno.test("fromResponse() sends a compressed body, or one that is not UTF-8, as base64", async () => {
  const type = { "content-type": "text/html" };
  for (const encoding of ["gzip", "br", "Deflate", "zstd", "identity, gzip"]) {
    const headers = { ...type, "content-encoding": encoding };
    assert.deepEqual(await encoded("a", headers), ["YQ==", true], encoding);
  }
  for (const encoding of ["identity", " Identity ", ""]) {
    const headers = { ...type, "content-encoding": encoding };
    assert.deepEqual(await encoded("a", headers), ["a", false], encoding);
  }
  const latin = Uint8Array.of(0xe9);
  const headers = { "content-type": "text/html; charset=iso-8859-1" };
  assert.deepEqual(await encoded(latin, headers), ["6Q==", true]);
  assert.deepEqual(await encoded(BINARY, type), [BINARY_BASE64, true]);
});

Deno.test("fromResponse() sends a certificate as text if it is that", async () => {
  const type = { "content-type": "application/x-x509-ca-cert" };
  assert.deepEqual(await encoded("-----BEGIN", type), ["-----BEGIN", false]);
  const der = Uint8Array.of(0x30, 0x82, 1, 2);
  assert.deepEqual(await encoded(der, type), ["MIIBAg==", true]);
});

Deno.test("fromResponse() keeps a byte order mark", async () => {
  const bytes = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61);
  const headers = { "content-type": "text/csv" };
  assert.deepEqual(await encoded(bytes, headers), ["\ufeffa", false]);
});

Deno.test("fromResponse() encodes six megabytes in little time", async () => {
  const bytes = new Uint8Array(6_000_000).fill(200);
  const before = process.cpuUsage();
  const [body, isBase64] = await encoded(bytes);
  // 15 ms of the processor; a loop over characters takes seconds.
  assert.ok(process.cpuUsage(before).user < 1_000_000);
  assert.equal(body.length, 8_000_000);
  assert.equal(isBase64, true);
});

Deno.test("fromResponse() drops headers that are not the handler's to set", async () => {
  const dropped = {
    "Connection": "close",
    "Keep-Alive": "timeout=5",
    "Transfer-Encoding": "chunked",
    "Content-Length": "999",
  };
  for (const door of DOORS) {
    const headers = { ...dropped, "etag": '"1"' };
    const response = new Response("x", { headers });
    const result = await fromResponse(response, eventOf(door));
    const names = Object.keys(result.headers ?? result.multiValueHeaders ?? {});
    assert.deepEqual(names.sort(), ["content-type", "etag"], door);
  }
});

Deno.test("fromResponse() keeps a header whatever its name is", async () => {
  const headers = new Headers();
  headers.append("__proto__", "1");
  headers.append("constructor", "2");
  const result = await fromResponse(
    new Response(null, { headers }),
    eventOf("v2"),
  );
  assert.deepEqual(
    Object.entries(result.headers ?? {}),
    [["__proto__", "1"], ["constructor", "2"]],
  );
});

Deno.test("fromResponse() keeps status and location of a redirect", async () => {
  for (const status of [301, 302, 303, 307, 308]) {
    const response = Response.redirect("https://other.example/é?a=1#b", status);
    const result = await fromResponse(response, eventOf("v2"));
    assert.deepEqual(result, {
      statusCode: status,
      headers: { location: "https://other.example/%C3%A9?a=1#b" },
      body: "",
      isBase64Encoded: false,
    });
  }
});

Deno.test("fromResponse() makes status 0 a 502", async () => {
  for (const door of DOORS) {
    const result = await fromResponse(Response.error(), eventOf(door));
    assert.equal(result.statusCode, 502, door);
    assert.equal(result.body, "", door);
    if (door.startsWith("alb")) {
      assert.equal(result.statusDescription, "502 Bad Gateway");
    }
  }
});

Deno.test("fromResponse() describes every status to a load balancer", async () => {
  const cases = /** @type {[ResponseInit, string][]} */ ([
    [{ status: 200 }, "200 OK"],
    [{ status: 404 }, "404 Not Found"],
    [{ status: 418 }, "418 Unknown"],
    [{ status: 418, statusText: "I am a teapot" }, "418 I am a teapot"],
    [{ status: 599 }, "599 Unknown"],
  ]);
  for (const [init, expected] of cases) {
    const result = await fromResponse(new Response(null, init), eventOf("alb"));
    assert.equal(result.statusDescription, expected);
  }
});

/** A response with a body where the standard's own class would refuse one. */
class StubbornResponse extends Response {
  /** @param {number} status */
  constructor(status) {
    super(new ReadableStream({ cancel: () => void (this.isCancelled = true) }));
    this.isCancelled = false;
    Object.defineProperty(this, "status", { value: status });
  }
}

Deno.test("fromResponse() sends no body where none is allowed, and cancels its source", async () => {
  for (const status of [100, 101, 103, 204, 205, 304]) {
    const response = new StubbornResponse(status);
    const result = await fromResponse(response, eventOf("v2"));
    assert.deepEqual([result.statusCode, result.body], [status, ""]);
    assert.equal(response.isCancelled, true);
  }
  for (const door of DOORS) {
    const response = new StubbornResponse(200);
    const event = eventWithMethod(door, "HEAD");
    const result = await fromResponse(response, event);
    assert.deepEqual([result.body, result.isBase64Encoded], ["", false], door);
    assert.equal(response.isCancelled, true, door);
  }
});

Deno.test("fromResponse() keeps the content type of an answer to HEAD", async () => {
  const event = eventWithMethod("v1", "HEAD");
  const response = new Response("text", {
    headers: { "content-type": "text/css" },
  });
  const result = await fromResponse(response, event);
  assert.deepEqual(result.headers, { "content-type": "text/css" });
});

Deno.test("fromResponse() does not mind a locked body that it does not need", async () => {
  const response = new Response("text");
  response.body?.getReader();
  const result = await fromResponse(response, eventWithMethod("v2", "HEAD"));
  assert.equal(result.body, "");
});

Deno.test("isBodyless() goes by status and method", () => {
  const get = eventOf("v2");
  assert.equal(isBodyless(new Response("x"), get), false);
  assert.equal(isBodyless(new Response(null, { status: 204 }), get), true);
  assert.equal(isBodyless(new Response(null, { status: 304 }), get), true);
  assert.equal(isBodyless(Response.error(), get), true);
  assert.equal(
    isBodyless(new Response("x"), eventWithMethod("alb", "HEAD")),
    true,
  );
});

Deno.test("fromResponse() gives a load balancer of single values a spelling for each cookie", async () => {
  const headers = new Headers();
  for (let index = 0; index < 513; index++) {
    headers.append("set-cookie", `c${index}=1`);
  }
  const warnings = /** @type {string[]} */ ([]);
  const response = new Response(null, { headers });
  const result = await fromResponse(
    response,
    eventOf("alb"),
    (message) => warnings.push(message),
  );
  const pairs = Object.entries(result.headers ?? {});
  assert.equal(pairs.length, 512);
  assert.deepEqual(pairs.slice(0, 4), [
    ["set-cookie", "c0=1"],
    ["Set-cookie", "c1=1"],
    ["sEt-cookie", "c2=1"],
    ["SEt-cookie", "c3=1"],
  ]);
  assert.deepEqual(warnings, ["Cannot send 513 headers 'set-cookie': 512 fit"]);
});

Deno.test("fromResponse() refuses more than a load balancer takes", async () => {
  for (const door of /** @type {Door[]} */ (["alb", "albMulti"])) {
    const event = eventOf(door);
    const init = { headers: { "content-type": "text/plain" } };
    const frame = JSON.stringify(
      await fromResponse(new Response("x", init), event),
    );
    const room = MEGABYTE - frame.length + 1;
    const fitting = await fromResponse(
      new Response("x".repeat(room), init),
      event,
    );
    assert.equal(JSON.stringify(fitting).length, MEGABYTE);
    await assert.rejects(
      fromResponse(new Response("x".repeat(room + 1), init), event),
      {
        name: "Function.ResponseSizeTooLarge",
        message:
          /^Cannot return 1048577 bytes: the limit of a load balancer is /,
      },
    );
    // The limit counts what is sent: bytes of JSON in UTF-8.
    for (const body of ["é".repeat(room - 9), '"'.repeat(room - 9)]) {
      await assert.rejects(fromResponse(new Response(body, init), event), {
        name: "Function.ResponseSizeTooLarge",
      });
    }
    await assert.rejects(
      fromResponse(new Response(new Uint8Array(800_000)), event),
      {
        name: "Function.ResponseSizeTooLarge",
      },
    );
  }
  const large = new Response(new Uint8Array(2 * MEGABYTE));
  assert.equal((await fromResponse(large, eventOf("v2"))).statusCode, 200);
});

Deno.test("fromResponse() rejects with the error of the body's stream", async () => {
  for (
    const reason of [new RangeError("the source broke"), "text", undefined]
  ) {
    for (const door of DOORS) {
      let pulls = 0;
      const stream = new ReadableStream({
        pull(controller) {
          if (pulls++ === 0) controller.enqueue(encoder.encode("first"));
          else controller.error(reason);
        },
      });
      const response = new Response(stream);
      await fromResponse(response, eventOf(door)).then(
        () => assert.fail("it resolved"),
        (error) => assert.equal(error, reason),
      );
    }
  }
});

Deno.test("fromResponse() collects a body that comes in pieces", async () => {
  // The body ends in the middle of a character.
  const [first, second] = [Uint8Array.of(0xe2, 0x82), Uint8Array.of(0xac)];
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(first);
      controller.enqueue(second);
      controller.close();
    },
  });
  const response = new Response(stream, {
    headers: { "content-type": "text/plain" },
  });
  assert.equal((await fromResponse(response, eventOf("v1"))).body, "€");
});

Deno.test("fromResponse() refuses a body that was read before", async () => {
  const response = new Response("text");
  await response.text();
  await assert.rejects(fromResponse(response, eventOf("v2")), TypeError);
});

Deno.test("fromResponse() and streamPrelude() refuse a value that is not a response", async () => {
  const values = [undefined, null, "text", {}, { status: 200 }, {
    statusCode: 200,
  }];
  for (const value of /** @type {any[]} */ (values)) {
    const expected = {
      name: "TypeError",
      message:
        /^Cannot answer with what the fetch handler returned: it is of type /,
    };
    await assert.rejects(fromResponse(value, eventOf("v2")), expected);
    assert.throws(() => streamPrelude(value), expected);
  }
});

Deno.test("fromResponse() refuses an event that is not an HTTP request, with a name", async () => {
  const answer = fromResponse(new Response("x"), { Records: [] });
  await assert.rejects(answer, { name: "Runtime.UnmarshalError" });
});

// --------------------------------------------------------------- streamPrelude

Deno.test("streamPrelude() holds status, headers and cookies, and leaves the body alone", () => {
  const response = new Response(new ReadableStream(), {
    status: 206,
    headers: [
      ["Content-Type", "text/event-stream"],
      ["Content-Length", "7"],
      ["Connection", "close"],
      ["Transfer-Encoding", "chunked"],
      ["Keep-Alive", "timeout=5"],
      ["Vary", "a"],
      ["Vary", "b"],
      ["Set-Cookie", "a=1"],
      ["Set-Cookie", "b=2, 3"],
    ],
  });
  assert.deepEqual(streamPrelude(response), {
    statusCode: 206,
    headers: { "content-type": "text/event-stream", "vary": "a, b" },
    cookies: ["a=1", "b=2, 3"],
  });
  assert.equal(response.bodyUsed, false);
  assert.equal(response.body?.locked, false);
  assert.deepEqual(streamPrelude(new Response(null)), {
    statusCode: 200,
    headers: {},
    cookies: [],
  });
  assert.equal(streamPrelude(Response.error()).statusCode, 502);
});

Deno.test("streamPrelude() never holds the byte that ends it", () => {
  const headers = { "x-control": "\u0001", "x-latin": "é" };
  const text = JSON.stringify(streamPrelude(new Response("x", { headers })));
  assert.ok(!text.includes("\u0000"));
});

// ------------------------------------------------------------------ properties

/**
 * What a client sends, as the bytes that go over the wire.
 *
 * @typedef {object} Sent
 * @property {string} method
 * @property {string} path Percent-encoded.
 * @property {[string, string][]} query Percent-encoded.
 * @property {[string, string][]} headers Lower-case names, in order.
 * @property {string[]} cookies
 * @property {Uint8Array<ArrayBuffer>} body
 * @property {boolean} isText Whether the gateway sends the body as text.
 */

/**
 * Build the event as the gateway does. Shares nothing with the module under test.
 *
 * @param {Door} door
 * @param {Sent} sent
 * @param {boolean} isPathDecoded HTTP APIs decode it, the others do not.
 * @returns {Members}
 */
function gateway(door, sent, isPathDecoded) {
  const path = isPathDecoded ? decodeURIComponent(sent.path) : sent.path;
  const isV2 = door === "v2" || door === "url";
  const isDecoded = door === "v1" || door === "http1";
  const cookie = sent.cookies.join("; ");
  /** @type {[string, string][]} */
  const fields = cookie && !isV2
    ? [...sent.headers, ["cookie", cookie]]
    : sent.headers;
  const query = sent.query.map((pair) =>
    isDecoded ? pair.map((text) => decodeURIComponent(text)) : pair
  );
  const rawBody = sent.isText
    ? new TextDecoder().decode(sent.body)
    : btoa(Array.from(sent.body, (byte) => String.fromCharCode(byte)).join(""));
  const content = { body: rawBody, isBase64Encoded: !sent.isText };
  const last = (/** @type {string[][]} */ pairs) => Object.fromEntries(pairs);
  const grouped = (/** @type {string[][]} */ pairs) => {
    const groups = /** @type {Record<string, string[]>} */ ({});
    for (const [name, value] of pairs) (groups[name] ??= []).push(value);
    return groups;
  };
  const joined = (/** @type {string[][]} */ pairs) =>
    last(
      Object.entries(grouped(pairs)).map((
        [name, list],
      ) => [name, list.join(",")]),
    );
  const withHost = /** @type {[string, string][]} */ ([
    ["host", "shop.example"],
    ["x-forwarded-proto", "https"],
    ...fields,
  ]);
  if (isV2) {
    return {
      version: "2.0",
      rawPath: path,
      rawQueryString: sent.query.map((pair) => pair.join("=")).join("&"),
      ...(sent.cookies.length > 0 ? { cookies: sent.cookies } : {}),
      headers: joined(withHost),
      requestContext: {
        domainName: "shop.example",
        http: { method: sent.method, path },
      },
      ...(sent.body.length > 0 ? content : { isBase64Encoded: false }),
    };
  }
  const common = { httpMethod: sent.method, path };
  if (isDecoded) {
    return {
      ...common,
      ...(door === "http1" ? { version: "1.0" } : {}),
      headers: last(withHost),
      multiValueHeaders: grouped(withHost),
      queryStringParameters: query.length > 0 ? last(query) : null,
      multiValueQueryStringParameters: query.length > 0 ? grouped(query) : null,
      requestContext: { path: `/prod${path}`, domainName: "shop.example" },
      ...(sent.body.length > 0
        ? content
        : { body: null, isBase64Encoded: false }),
    };
  }
  return {
    ...common,
    requestContext: { elb: { targetGroupArn: "arn" } },
    ...(door === "alb"
      ? { headers: last(withHost), queryStringParameters: last(query) }
      : {
        multiValueHeaders: grouped(withHost),
        multiValueQueryStringParameters: grouped(query),
      }),
    ...content,
  };
}

const token = fc.stringMatching(/^[a-z][a-z0-9-]{0,7}$/);
const headerName = token.map((name) => `x-${name}`);
const headerValue = fc.string({
  unit: fc.constantFrom(..."abZ09 ,;=\"'()/:@é\u00ff\t"),
  maxLength: 12,
}).map((value) => value.trim())
  // Deno forgets an empty value in front of another; in a list it means nothing.
  .filter((value) => value !== "");
const word = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 6 }),
  fc.constantFrom(
    "",
    "a b",
    "?",
    "#",
    "%",
    "%2F",
    "é€",
    "🦕",
    "\\",
    "+",
    "&=",
    "..x",
  ),
);
const written = word.map((text) => encodeURIComponent(text));
const segment = written.filter((text) => !/^\.{1,2}$/.test(text));
const cookie = fc.tuple(token, fc.stringMatching(/^[!#-+\--:<-[\]-~]{0,8}$/))
  .map((pair) => pair.join("="));

const sentRequest = fc.record({
  method: fc.constantFrom("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
  path: fc.array(segment, { maxLength: 4 }).map((parts) =>
    `/${parts.join("/")}`
  ),
  query: fc.array(fc.tuple(written, written), { maxLength: 5 }),
  headers: fc.array(fc.tuple(headerName, headerValue), { maxLength: 5 }),
  cookies: fc.array(cookie, { maxLength: 3 }),
  body: fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => ({ bytes, isText: false })),
    fc.string({ unit: "grapheme", maxLength: 20 }).map((text) => ({
      bytes: encoder.encode(text.toWellFormed()),
      isText: true,
    })),
  ),
}).map(({ body, method, ...rest }) => /** @type {Sent} */ ({
  ...rest,
  method,
  body: method === "GET" ? new Uint8Array(0) : new Uint8Array(body.bytes),
  isText: method === "GET" || body.isText,
}));

/**
 * @param {string[][]} pairs
 * @returns {string[][]} Names in the order of their first value, as a map has them.
 */
function inGroups(pairs) {
  const groups = /** @type {Map<string, string[][]>} */ (new Map());
  for (const pair of pairs) {
    groups.set(pair[0], [...groups.get(pair[0]) ?? [], pair]);
  }
  // A JavaScript object lists names that are numbers first, in ascending order.
  const isIndex = (/** @type {string} */ name) =>
    /^(?:0|[1-9]\d{0,8})$/.test(name);
  const names = [...groups.keys()];
  const numbers = names.filter(isIndex).sort((one, two) =>
    Number(one) - Number(two)
  );
  return [...numbers, ...names.filter((name) => !isIndex(name))]
    .flatMap((name) => groups.get(name) ?? []);
}

Deno.test("any request survives the way from client to handler", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...DOORS),
      fc.boolean(),
      sentRequest,
      async (door, wantsDecoded, sent) => {
        const decoded = decodeURIComponent(sent.path);
        // A decoded text that looks encoded cannot be told from an encoded one.
        const isPathDecoded = wantsDecoded && !/%[0-9a-f]{2}/i.test(decoded) &&
          !/(?:^|\/)\.{1,2}(?:\/|$)/.test(decoded);
        // One value for each name: a balancer without the setting keeps the last.
        const isSingle = door === "alb";
        const lastOnly = (
          /** @type {[string, string][]} */ pairs,
        ) => /** @type {[string, string][]} */ ([...new Map(pairs)]);
        const given = isSingle
          ? {
            ...sent,
            query: lastOnly(sent.query),
            headers: lastOnly(sent.headers),
          }
          : sent;
        // An own property of this name cannot be set by assignment in the builder.
        fc.pre(given.query.every(([name]) => name !== "__proto__"));
        const text = JSON.stringify(gateway(door, given, isPathDecoded));
        const { request, warnings } = convert(JSON.parse(text));
        const url = new URL(request.url);

        assert.equal(request.method, given.method);
        assert.equal(url.origin, "https://shop.example");
        assert.equal(url.hash, "");
        assert.equal(decodeURIComponent(url.pathname), decoded);
        if (!isPathDecoded) {
          const original = new URL(`https://shop.example${given.path}`);
          assert.equal(url.pathname, original.pathname);
        }
        const raw = given.query.map((pair) => pair.join("=")).join("&");
        const search = new URL(`https://shop.example/?${raw}`).searchParams;
        if (door === "v2" || door === "url") {
          assert.equal(
            url.search,
            new URL(`https://shop.example/?${raw}`).search,
          );
        } else {
          assert.deepEqual(
            inGroups([...url.searchParams]),
            inGroups([...search]),
          );
        }
        for (const [name] of given.headers) {
          const values = given.headers.filter((pair) => pair[0] === name)
            .map((pair) => pair[1]);
          const separator = door === "v2" || door === "url" ? "," : ", ";
          assert.equal(
            request.headers.get(name),
            values.join(separator).replace(/^[\t ]+|[\t ]+$/g, ""),
          );
        }
        assert.equal(
          request.headers.get("cookie") ?? "",
          given.cookies.join("; "),
        );
        assert.deepEqual(await request.bytes(), given.body);
        assert.deepEqual(warnings, []);
      },
    ),
    { numRuns: 600 },
  );
});

/**
 * Send what the gateway sends for a result. Shares nothing with the module under test.
 *
 * @param {Door} door
 * @param {Members} result As it comes out of JSON.
 */
function wire(door, result) {
  const fields = /** @type {[string, string][]} */ ([]);
  const single = result.headers ?? {};
  const multi = result.multiValueHeaders ?? {};
  if (door === "v1" || door === "http1") {
    for (const [name, value] of Object.entries(single)) {
      if (!(name in multi)) fields.push([name, value]);
    }
  } else if (door !== "albMulti") {
    fields.push(.../** @type {[string, string][]} */ (Object.entries(single)));
  }
  if (door === "v1" || door === "http1" || door === "albMulti") {
    for (const [name, values] of Object.entries(multi)) {
      for (const value of values) fields.push([name, value]);
    }
  }
  if (door === "v2" || door === "url") {
    for (const value of result.cookies ?? []) {
      fields.push(["set-cookie", value]);
    }
  }
  const body = result.isBase64Encoded
    ? Uint8Array.from(atob(result.body), (letter) => letter.charCodeAt(0))
    : encoder.encode(result.body);
  const names = fields.map(([name, value]) => [name.toLowerCase(), value]);
  return {
    status: result.statusCode,
    cookies: names.filter(([name]) => name === "set-cookie").map((pair) =>
      pair[1]
    ),
    headers: names.filter(([name]) => name !== "set-cookie").sort(),
    body,
  };
}

const contentType = fc.constantFrom(
  undefined,
  "text/html",
  "text/plain; charset=iso-8859-1",
  "application/json",
  "image/png",
  "image/svg+xml",
  "nonsense",
);

Deno.test("any response survives the way from handler to client", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        door: fc.constantFrom(...DOORS),
        method: fc.constantFrom("GET", "HEAD", "POST"),
        status: fc.oneof(
          fc.constantFrom(200, 204, 205, 304, 404, 500),
          fc.integer({ min: 200, max: 599 }),
        ),
        headers: fc.array(fc.tuple(headerName, headerValue), { maxLength: 5 }),
        cookies: fc.array(cookie, { maxLength: 5 }),
        type: contentType,
        encoding: fc.constantFrom(undefined, "gzip", "identity"),
        body: fc.oneof(
          fc.uint8Array({ maxLength: 40 }),
          fc.string({ unit: "grapheme", maxLength: 20 }).map((text) =>
            encoder.encode(text)
          ),
        ),
      }),
      async (made) => {
        const headers = new Headers(made.headers);
        for (const value of made.cookies) headers.append("set-cookie", value);
        if (made.type) headers.set("content-type", made.type);
        if (made.encoding) headers.set("content-encoding", made.encoding);
        const isNullBody = [204, 205, 304].includes(made.status);
        const body = isNullBody ? null : new Uint8Array(made.body);
        const response = new Response(body, { status: made.status, headers });
        const event = eventWithMethod(made.door, made.method);
        const result = JSON.parse(
          JSON.stringify(await fromResponse(response, event)),
        );

        const got = wire(made.door, result);
        assert.equal(got.status, made.status);
        assert.deepEqual(got.cookies, made.cookies);
        assert.deepEqual(
          got.headers,
          [...headers].filter(([name]) => name !== "set-cookie").sort(),
        );
        const isEmpty = isNullBody || made.method === "HEAD";
        assert.deepEqual(
          got.body,
          isEmpty ? new Uint8Array(0) : new Uint8Array(made.body),
        );
      },
    ),
    { numRuns: 600 },
  );
});

/** The event of AWS's documentation, structure version V1. */
const LATTICE1 = {
  raw_path: "/path/to/resource",
  method: "POST",
  headers: { "user_agent": "curl/7.64.1", "x-forwarded-for": "10.213.229.10" },
  query_string_parameters: { "order-id": "1", "name": "a%20b" },
  body: "eyJ0ZXN0IjogImV2ZW50In0=",
  is_base64_encoded: true,
};
/** The same in version V2: several values for each name. */
const LATTICE2 = {
  version: "2.0",
  path: "/path/to/resource",
  method: "POST",
  headers: {
    host: ["svc.vpc-lattice-svcs.us-east-2.on.aws"],
    accept: ["text/html", "application/json"],
    "x-forwarded-for": ["10.0.0.1, 10.213.229.10"],
  },
  queryStringParameters: { a: ["1", "2"], "b%26": ["x+y"] },
  body: "text \u00e9",
  isBase64Encoded: false,
  requestContext: {
    serviceNetworkArn: "arn:aws:vpc-lattice:us-east-2:1:servicenetwork/sn-1",
    serviceArn: "arn:aws:vpc-lattice:us-east-2:1:service/svc-1",
    targetGroupArn: "arn:aws:vpc-lattice:us-east-2:1:targetgroup/tg-1",
    identity: { sourceVpcArn: "arn:aws:ec2:us-east-2:1:vpc/vpc-1" },
    region: "us-east-2",
    timeEpoch: "1690497599177430",
  },
};

Deno.test("toRequest() reads both event structures of VPC Lattice", async () => {
  assert.equal(httpShape(LATTICE1), "lattice1");
  assert.equal(httpShape(LATTICE2), "lattice2");
  const first = toRequest(LATTICE1);
  assert.equal(
    first.url,
    "https://localhost/path/to/resource?order-id=1&name=a%20b",
  );
  assert.deepEqual([first.method, await first.json()], [
    "POST",
    { test: "event" },
  ]);
  const second = toRequest(LATTICE2);
  assert.equal(
    second.url,
    "https://svc.vpc-lattice-svcs.us-east-2.on.aws/path/to/resource" +
      "?a=1&a=2&b%26=x+y",
  );
  assert.equal(second.headers.get("accept"), "text/html, application/json");
  assert.equal(await second.text(), "text \u00e9");
});

Deno.test("toRequest() takes the query from a path of VPC Lattice that has one", () => {
  const event = { ...LATTICE1, raw_path: "/a?b=c%20d&b=%2B" };
  assert.equal(toRequest(event).url, "https://localhost/a?b=c%20d&b=%2B");
});

Deno.test("httpShape() takes no other event for one of VPC Lattice", () => {
  for (
    const event of [
      { ...LATTICE2, method: undefined },
      { ...LATTICE2, requestContext: {} },
      { ...LATTICE1, raw_path: undefined },
      { ...LATTICE1, method: 1 },
    ]
  ) {
    assert.equal(httpShape(event), null);
  }
});

Deno.test("fromResponse() answers VPC Lattice with one value for each name", async () => {
  const headers = new Headers({ "content-type": "text/plain", etag: '"1"' });
  headers.append("set-cookie", "a=1");
  headers.append("set-cookie", "b=2");
  for (const event of [LATTICE1, LATTICE2]) {
    const response = new Response("\u00e9", { status: 201, headers });
    assert.deepEqual(await fromResponse(response, event), {
      statusCode: 201,
      headers: {
        "content-type": "text/plain",
        etag: '"1"',
        "set-cookie": "a=1",
        "Set-cookie": "b=2",
      },
      body: "\u00e9",
      isBase64Encoded: false,
    });
  }
});

Deno.test("connectionOf() tells the client's address in every kind of event", () => {
  const forwarded = { "x-forwarded-for": "203.0.113.9, 192.0.2.1" };
  const events = [
    eventOf("v1", { requestContext: { identity: { sourceIp: "192.0.2.1" } } }),
    eventOf("v2", {
      requestContext: { http: { method: "GET", sourceIp: "192.0.2.1" } },
    }),
    eventOf("alb", { headers: forwarded }),
    { ...LATTICE1, headers: forwarded },
    { ...LATTICE2, headers: { "x-forwarded-for": ["192.0.2.1"] } },
  ];
  for (const event of events) {
    const { headers } = toRequest(event);
    assert.deepEqual(connectionOf(event, headers), {
      transport: "tcp",
      hostname: "192.0.2.1",
      port: 0,
    });
  }
  const unknown = eventOf("v2");
  const { headers } = toRequest(unknown);
  assert.equal(connectionOf(unknown, headers).hostname, "");
});

Deno.test("toRequest() takes the stage out of the path that an HTTP API sends", () => {
  /** @type {[Door, string, string, string][]} */
  const cases = [
    ["v2", "prod", "/prod/orders", "/orders"],
    ["v2", "prod", "/prod", "/"],
    ["v2", "prod", "/prod/prod/a", "/prod/a"],
    ["v2", "prod", "/product", "/product"],
    ["v2", "$default", "/$default/a", "/$default/a"],
    ["v2", "", "/a", "/a"],
    ["url", "$default", "/prod/a", "/prod/a"],
    ["http1", "prod", "/prod/orders", "/orders"],
    // A REST API has taken it out already.
    ["v1", "prod", "/prod/orders", "/prod/orders"],
  ];
  for (const [door, stage, path, expected] of cases) {
    const event = eventWithPath(door, path);
    Object.assign(event.requestContext, { stage });
    assert.equal(new URL(toRequest(event).url).pathname, expected, path);
  }
});

Deno.test("toParts() gives the target as the client sent it", () => {
  for (const door of DOORS) {
    const { method, target, headers, body } = toParts(
      eventWithPath(door, "/a/../b"),
    );
    assert.deepEqual([method, target, body], ["GET", "/a/../b", null]);
    assert.equal(headers.get("host"), hostOf(door));
  }
  const query = { rawQueryString: "x=%20&y=\u00fc" };
  assert.equal(toParts(eventOf("v2", query)).target, "/orders?x=%20&y=%C3%BC");
  const spaced = eventWithPath("v1", "/a b\r\nx: y");
  assert.equal(toParts(spaced).target, "/a%20b%0D%0Ax:%20y");
});

Deno.test("toParts() keeps the body of a GET, and every method but CONNECT", () => {
  const body = { body: BINARY_BASE64, isBase64Encoded: true };
  for (const door of DOORS) {
    assert.deepEqual(toParts(eventOf(door, body)).body, BINARY);
    assert.equal(toParts(eventWithMethod(door, "TRACE")).method, "TRACE");
    for (const method of ["CONNECT", "connect", "GE T", "GET / HTTP/1.1\r\n"]) {
      const event = eventWithMethod(door, method);
      assert.throws(() => toParts(event), MethodNotAllowedError);
    }
  }
});
