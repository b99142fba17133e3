// @ts-check
/**
 * HTTP events as web-standard requests, web-standard responses as the results that
 * API Gateway, function URLs, load balancers and VPC Lattice expect. Knows these
 * formats. Does not know frames, logs or processes; reads no clock and no environment.
 * Loaded only for handlers that need it, so that others do not pay for it.
 *
 * Formats: AWS, "Create Lambda proxy integrations for HTTP APIs" (1.0 and 2.0), "Lambda
 * proxy integrations in API Gateway", "Invoking Lambda function URLs", "Lambda
 * functions as targets for Application Load Balancers", "Lambda functions as targets in
 * VPC Lattice" (event structure versions V1 and V2).
 *
 * @module
 */

/**
 * "v1": REST API, and HTTP API in format 1.0; "v2": HTTP API in format 2.0 and function
 * URL; "alb": Application Load Balancer; "lattice1" and "lattice2": VPC Lattice, by
 * version of the event structure.
 *
 * @typedef {"v1" | "v2" | "alb" | "lattice1" | "lattice2"} Shape
 *
 * @typedef {object} Connection As in the second argument of Deno.serve's handler.
 * @property {"tcp"} transport
 * @property {string} hostname The client's address; "" if the event does not tell it.
 * @property {number} port 0: no event tells it.
 *
 * @typedef {object} Prelude
 * @property {number} statusCode
 * @property {Record<string, string>} headers Lower-case names, without `set-cookie`.
 * @property {string[]} cookies Values of `set-cookie`, one each.
 *
 * @typedef {object} HttpResult
 * @property {number} statusCode
 * @property {string} [statusDescription]
 * @property {Record<string, string>} [headers]
 * @property {Record<string, string[]>} [multiValueHeaders]
 * @property {string[]} [cookies]
 * @property {string} body
 * @property {boolean} isBase64Encoded
 *
 * @callback Warn Receives what could not be converted; never the value of a header.
 * @param {string} message
 * @returns {void}
 */

/** Limit of the whole result as JSON; AWS, "Lambda functions as targets", limits. */
const ALB_LIMIT_BYTES = 1024 * 1024;
/** Members of other events that look like HTTP: authorizers, and Bedrock agents. */
const FOREIGN_MEMBERS = ["methodArn", "routeArn", "apiPath"];
/** Headers about one connection, and the length, which the gateway counts. */
const DROPPED_HEADERS = new Set([
  "connection",
  "content-length",
  "keep-alive",
  "transfer-encoding",
]);
/** Methods that `Request` refuses, as the fetch standard says. */
const FORBIDDEN_METHOD = /^(?:connect|trace|track)$/i;
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i;
/** Host and port, without a character that begins another part of a URL. */
const HOST = /^[^\s/\\?#@]+$/;
/** Characters that a URL would cut off, lose, or take for another part. */
const NOT_IN_PATH = /[\s?#\\]|\p{Cc}|%(?![0-9a-f]{2})/giu;
const NOT_IN_TARGET = /[^!-~]/gu;
const NOT_IN_QUERY = /[\s#]|\p{Cc}/gu;
const NOT_IN_HEADER = /[\0\r\n]|[^\0-\xff]/;
/** The first byte of three. */
const BYTE_ORDER_MARK = 0xef;
/**
 * Media types of text, beside those that a suffix tells. A REST API without binary types
 * would show the base64 of what is not here.
 */
const TEXT_TYPE = new RegExp(
  "^(?:text/.+" +
    // Suffixes of RFC 6839, 7464, 8091 and 9512.
    "|.+\\+(?:json|xml|yaml|json-seq|jwt)" +
    "|message/(?:rfc822|http|global|partial)" +
    "|(?:audio|application)/(?:x-)?mpegurl|application/vnd\\.apple\\.mpegurl" +
    "|application/(?:x-)?(?:" + [
    "json|json5|jsonc|hjson|jsonl|jsonlines|json-lines|ndjson|json-seq|geojson",
    "xml|xml-dtd|xml-external-parsed-entity|www-form-urlencoded",
    "javascript|ecmascript|typescript|httpd-php|php|perl|python|ruby|sh|csh|bash",
    "yaml|yml|toml|ini|properties|hcl|terraform|nginx-conf|protobuf-text",
    "graphql|sql|sparql-query|sparql-update|cypher-query|xquery|jsonpath|mathematica",
    "n-quads|n-triples|trig|turtle|node|rdf|relax-ng-compact-syntax",
    "pem-file|pem|pem-certificate-chain|x509-ca-cert|x509-user-cert|pkix-cert|pkcs8",
    "pkcs10|jwt|jose|pgp-keys|pgp-signature|pgp-encrypted|ssh-key|authorized-keys",
    "csv|tsv|tab-separated-values|ldif|bibtex|tex|latex|texinfo|rtf|markdown|troff",
    "subrip|srt|ttml|sdp|sieve|cdni|ns-proxy-autoconfig|mbox|wspolicy|webvtt|gcode",
    "openmetrics-text|diff|patch|log|text|rss|atom",
  ].join("|") + "))$",
);
/** Reason phrases of RFC 9110, and of RFC 6585 for 428 to 511. */
const REASONS = /** @type {Record<number, string>} */ ({
  200: "OK",
  201: "Created",
  202: "Accepted",
  203: "Non-Authoritative Information",
  204: "No Content",
  205: "Reset Content",
  206: "Partial Content",
  300: "Multiple Choices",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  402: "Payment Required",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  408: "Request Timeout",
  409: "Conflict",
  410: "Gone",
  411: "Length Required",
  412: "Precondition Failed",
  413: "Content Too Large",
  414: "URI Too Long",
  415: "Unsupported Media Type",
  416: "Range Not Satisfiable",
  417: "Expectation Failed",
  421: "Misdirected Request",
  422: "Unprocessable Content",
  426: "Upgrade Required",
  428: "Precondition Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  511: "Network Authentication Required",
});

// Taken before a handler can replace them.
const { stringify } = JSON;
const { entries, fromEntries } = Object;
const { Headers, Request, TextDecoder, URL, encodeURIComponent } = globalThis;
// @ts-ignore not part of the public types
const { core } = Deno[Deno.internal];
/** @type {(text: string) => Uint8Array<ArrayBuffer>} */
const encode = core.encode;
/** @type {(bytes: Uint8Array) => string} */
const decodeLossy = core.decode;
const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
/** @type {(bytes: Uint8Array) => string} */
const toBase64 = Function.prototype.call.bind(Uint8Array.prototype.toBase64);

/** A `Request` cannot have the method of an event: the response is 405. */
export class MethodNotAllowedError extends Error {
  /** @param {string} method As spelled in the event. */
  constructor(method) {
    super(`Cannot make a Request with method '${method}': it is forbidden`);
    this.name = "MethodNotAllowedError";
    this.method = method;
  }
}

/** An error whose name the caller sees. */
class HttpError extends Error {
  /**
   * @param {string} name
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(name, message, options) {
    super(message, options);
    this.name = name;
  }
}

export const httpShape = (
  /**
   * Tell which service an event comes from. Never throws.
   *
   * @param {any} event Any value.
   * @returns {Shape | null} Null: it is not an HTTP request that expects a response.
   */
  function (event) {
    try {
      if (FOREIGN_MEMBERS.some((name) => event[name] !== undefined)) {
        return null;
      }
      const { version, httpMethod, method, requestContext } = event;
      if (requestContext?.elb) {
        return typeof httpMethod === "string" ? "alb" : null;
      }
      if (version === "2.0") {
        if (typeof requestContext?.http?.method === "string") return "v2";
        const isLattice = typeof method === "string" &&
          typeof requestContext?.serviceArn === "string";
        return isLattice ? "lattice2" : null;
      }
      if (typeof method === "string" && typeof event.raw_path === "string") {
        return "lattice1";
      }
      if (version !== undefined && version !== "1.0") return null;
      return typeof httpMethod === "string" ? "v1" : null;
    } catch {
      return null; // null, undefined, or an object with a getter that throws
    }
  }
);

export const toRequest = (
  /**
   * Make the request that the client sent, as far as the event describes it.
   *
   * The URL has no stage, so that routes are the same in each: a REST API leaves it out
   * of `path`, and here it is taken out of what an HTTP API sends. Segments `.` and `..`
   * are resolved, as the URL standard says. The redirect mode is "manual", so that a
   * handler which forwards the request returns redirects.
   *
   * @param {any} event
   * @param {AbortSignal | null} [signal] The request's own signal follows it.
   * @param {Warn} [warn]
   * @returns {Request}
   * @throws {MethodNotAllowedError} CONNECT, TRACE, TRACK, or not a method at all.
   * @throws {Error} Named `Runtime.UnmarshalError`: not an HTTP event, or its body is
   *   not a string, or not the base64 it claims to be.
   */
  function (event, signal, warn = ignore) {
    const shape = shapeOf(event);
    const method = methodOf(event, shape);
    if (FORBIDDEN_METHOD.test(method) || !TOKEN.test(method)) {
      throw new MethodNotAllowedError(method);
    }
    const headers = headersOf(event, shape, warn);
    let body = bodyOf(event, shape);
    if (body !== null && /^(?:get|head)$/i.test(method)) {
      warn(
        `Cannot pass on the body of a ${method} request: Request takes none`,
      );
      body = null;
      headers.delete("content-length");
    }
    const url = urlOf(event, shape, headers, warn);
    return new Request(url, {
      method,
      headers,
      body,
      signal,
      redirect: "manual",
    });
  }
);

export const toParts = (
  /**
   * Take the request apart for a server that reads HTTP itself.
   *
   * @param {any} event
   * @param {Warn} [warn]
   * @returns {{ method: string, target: string, headers: Headers,
   *   body: Uint8Array<ArrayBuffer> | null }} `target`: path and query, in ASCII.
   * @throws {Error} As `toRequest`, but only CONNECT is refused.
   */
  function (event, warn = ignore) {
    const shape = shapeOf(event);
    const method = methodOf(event, shape);
    if (/^connect$/i.test(method) || !TOKEN.test(method)) {
      throw new MethodNotAllowedError(method);
    }
    const headers = headersOf(event, shape, warn);
    if (!headers.has("host")) {
      headers.set("host", new URL(urlOf(event, shape, headers, warn)).host);
    }
    const query = queryOf(event, shape);
    const path = encodePath(pathOf(event, shape));
    const target = `${path}${query && `?${query}`}`
      .replace(NOT_IN_TARGET, encodeOne);
    return { method, target, headers, body: bodyOf(event, shape) };
  }
);

export const fromResponse = (
  /**
   * Make the result that the sender of an event expects.
   *
   * A response with status 0, such as `Response.error()`, becomes 502. VPC Lattice, and
   * a load balancer that accepts one value for each header, receive several cookies
   * under names that differ in case, which they send unchanged.
   *
   * @param {Response} response Its body is read to the end.
   * @param {any} event The event that the response is for.
   * @param {Warn} [warn]
   * @returns {Promise<HttpResult>}
   * @throws {TypeError} Not a response, or its body was used before.
   * @throws {Error} Named `Function.ResponseSizeTooLarge`: more than a load balancer
   *   accepts. Named `Runtime.UnmarshalError`: not an HTTP event. Or the error that the
   *   body's stream fails with.
   */
  async function (response, event, warn = ignore) {
    const shape = shapeOf(event);
    const { statusCode, headers, cookies } = streamPrelude(response);
    const head = /** @type {Partial<HttpResult>} */ ({ statusCode });
    if (shape === "v2") {
      head.headers = headers;
      if (cookies.length > 0) head.cookies = cookies;
    } else if (shape === "v1") {
      head.headers = headers;
      if (cookies.length > 0) {
        head.multiValueHeaders = { "set-cookie": cookies };
      }
    } else if (shape !== "alb") {
      head.headers = {
        ...headers,
        ...caseVariants("set-cookie", cookies, warn),
      };
    } else {
      head.statusDescription = describeStatus(statusCode, response);
      // A target group reads one of the two and ignores the other.
      if (isRecord(event.multiValueHeaders)) {
        const lists = entries(headers).map(([name, value]) => [name, [value]]);
        if (cookies.length > 0) lists.push(["set-cookie", cookies]);
        head.multiValueHeaders = fromEntries(lists);
      } else {
        head.headers = {
          ...headers,
          ...caseVariants("set-cookie", cookies, warn),
        };
      }
    }
    const bytes = isBodyless(response, event)
      ? discard(response)
      : new Uint8Array(await response.arrayBuffer());
    const result = /** @type {HttpResult} */ ({
      ...head,
      ...encodeBody(bytes, headers),
    });
    if (shape === "alb") refuseOversize(result);
    return result;
  }
);

export const streamPrelude = (
  /**
   * Make the part of a streamed response that is sent before its body.
   *
   * @param {Response} response Its body is not read.
   * @returns {Prelude}
   * @throws {TypeError} Not a response.
   */
  function (response) {
    if (
      typeof response?.headers?.getSetCookie !== "function" ||
      typeof response.arrayBuffer !== "function" ||
      !Number.isInteger(response.status)
    ) {
      const type = response === null ? "null" : typeof response;
      throw new TypeError(
        `Cannot answer with what the fetch handler returned: it is of type ${type}, ` +
          "not a Response",
      );
    }
    const { status, headers } = response;
    if (status === 0) return { statusCode: 502, headers: {}, cookies: [] };
    const kept = [...headers].filter(([name]) =>
      name !== "set-cookie" && !DROPPED_HEADERS.has(name)
    );
    return {
      statusCode: status,
      headers: fromEntries(kept),
      cookies: headers.getSetCookie(),
    };
  }
);

export const isBodyless = (
  /**
   * Tell whether the client must not receive a body, whatever the response holds.
   *
   * @param {Response} response
   * @param {any} event The event that the response is for.
   * @returns {boolean}
   * @throws {Error} Named `Runtime.UnmarshalError`: not an HTTP event.
   */
  function ({ status }, event) {
    return status < 200 || status === 204 || status === 205 || status === 304 ||
      /^head$/i.test(methodOf(event, shapeOf(event)));
  }
);

const shapeOf = (
  /**
   * @param {any} event
   * @returns {Shape}
   * @throws {HttpError} `Runtime.UnmarshalError`: not an HTTP event.
   */
  function (event) {
    const shape = httpShape(event);
    if (shape !== null) return shape;
    throw new HttpError(
      "Runtime.UnmarshalError",
      "Cannot treat the event as an HTTP request: it is from neither API Gateway, a " +
        "function URL, a load balancer nor VPC Lattice; export a handler function for it",
    );
  }
);

const methodOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @returns {string}
   */
  function (event, shape) {
    if (shape === "v2") return event.requestContext.http.method;
    return isLattice(shape) ? event.method : event.httpMethod;
  }
);

/** @param {Shape} shape */
function isLattice(shape) {
  return shape === "lattice1" || shape === "lattice2";
}

export const connectionOf = (
  /**
   * Tell where a request comes from: what the service says, or the last address of
   * `x-forwarded-for`, which the service has added.
   *
   * @param {any} event An HTTP event.
   * @param {Headers} headers Those of its request.
   * @returns {Connection}
   */
  function ({ requestContext }, headers) {
    const said = requestContext?.http?.sourceIp ??
      requestContext?.identity?.sourceIp;
    const hostname = typeof said === "string" && said !== ""
      ? said
      : headers.get("x-forwarded-for")?.split(",").at(-1)?.trim() ?? "";
    return { transport: "tcp", hostname, port: 0 };
  }
);

const urlOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @param {Headers} headers
   * @param {Warn} warn
   * @returns {string}
   */
  function (event, shape, headers, warn) {
    const proto = headers.get("x-forwarded-proto")?.split(",")[0].trim();
    const scheme = proto?.toLowerCase() === "http" ? "http" : "https";
    const hosts = [headers.get("host"), event.requestContext?.domainName];
    const host = hosts.find((name) => isHost(name)) ?? "localhost";
    if (headers.has("host") && host !== hosts[0]) {
      warn(`Cannot use header 'host' in a URL: using '${host}' in its place`);
    }
    const query = queryOf(event, shape);
    const path = encodePath(pathOf(event, shape));
    return `${scheme}://${host}${path}${query && `?${query}`}`;
  }
);

const pathOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @returns {unknown} Without the stage.
   */
  function (event, shape) {
    if (shape === "lattice1") return event.raw_path.split("?", 1)[0];
    const path = shape === "v2" ? event.rawPath : event.path;
    // An HTTP API, which has a version, puts the name of its stage in front of the path.
    const stage = shape === "alb" ? undefined : event.requestContext?.stage;
    const isNamed = typeof stage === "string" && stage !== "" &&
      stage !== "$default";
    if (event.version === undefined || !isNamed || typeof path !== "string") {
      return path;
    }
    return `${path}/`.startsWith(`/${stage}/`)
      ? path.slice(stage.length + 1)
      : path;
  }
);

const isHost = (
  /**
   * @param {unknown} host
   * @returns {host is string} True if a URL with it has this host and nothing else.
   */
  function (host) {
    return typeof host === "string" && HOST.test(host) &&
      URL.canParse(`https://${host}`);
  }
);

const encodePath = (
  /**
   * Encode characters that a gateway has decoded and a URL cannot hold; encode nothing
   * twice.
   *
   * @param {unknown} path
   * @returns {string} Begins with a slash, so that it cannot become part of the host.
   */
  function (path) {
    const given = typeof path === "string" ? path : "";
    const absolute = given.startsWith("/") ? given : `/${given}`;
    return absolute.replace(NOT_IN_PATH, encodeOne);
  }
);

const queryOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @returns {string} Without the question mark.
   */
  function (event, shape) {
    if (shape === "v2") {
      return `${event.rawQueryString ?? ""}`.replace(NOT_IN_QUERY, encodeOne);
    }
    const inPath = shape === "lattice1" ? event.raw_path.indexOf("?") : -1;
    if (inPath >= 0) {
      return event.raw_path.slice(inPath + 1).replace(NOT_IN_QUERY, encodeOne);
    }
    const parameters = pairs(
      isLattice(shape)
        ? event.queryStringParameters ?? event.query_string_parameters
        : fuller(
          event.multiValueQueryStringParameters,
          event.queryStringParameters,
        ),
    );
    // API Gateway decodes names and values; the others do not.
    return shape === "v1"
      ? parameters.map((pair) => pair.map(encodeOne).join("=")).join("&")
      : parameters.map((pair) => pair.join("=")).join("&")
        .replace(NOT_IN_QUERY, encodeOne);
  }
);

/**
 * @param {string} text
 * @returns {string} Percent-encoded; half a surrogate pair becomes U+FFFD.
 */
function encodeOne(text) {
  return encodeURIComponent(text.toWellFormed());
}

const headersOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @param {Warn} warn
   * @returns {Headers}
   */
  function (event, shape, warn) {
    const headers = new Headers();
    const source = shape === "v2" || isLattice(shape)
      ? event.headers
      : fuller(event.multiValueHeaders, event.headers);
    for (const [name, value] of pairs(source)) {
      try {
        headers.append(name, value);
      } catch {
        warn(`Cannot pass on header '${name}': its name or value is not legal`);
      }
    }
    if (shape === "v2" && Array.isArray(event.cookies)) {
      const cookies = event.cookies.filter((/** @type {unknown} */ cookie) =>
        typeof cookie === "string" && !NOT_IN_HEADER.test(cookie)
      );
      if (cookies.length < event.cookies.length) {
        warn("Cannot pass on every cookie: one is not legal in a header");
      }
      // Replaces a header `cookie`, which some senders have as well.
      if (cookies.length > 0) headers.set("cookie", cookies.join("; "));
    }
    return headers;
  }
);

const bodyOf = (
  /**
   * @param {any} event
   * @param {Shape} shape
   * @returns {Uint8Array<ArrayBuffer> | null} Bytes, even for text: a string would set
   *   a content type that the client did not send.
   * @throws {HttpError} `Runtime.UnmarshalError`
   */
  function (event, shape) {
    const { body } = event;
    const isBase64Encoded = shape === "lattice1"
      ? event.is_base64_encoded
      : event.isBase64Encoded;
    if (body === null || body === undefined || body === "") return null;
    if (typeof body !== "string") {
      throw new HttpError(
        "Runtime.UnmarshalError",
        `Cannot read the event's body: it is of type ${typeof body}, not a string`,
      );
    }
    if (isBase64Encoded !== true) return encode(body);
    try {
      return fromBase64(body);
    } catch (cause) {
      throw new HttpError(
        "Runtime.UnmarshalError",
        "Cannot read the event's body: it is not the base64 it claims to be",
        { cause },
      );
    }
  }
);

const pairs = (
  /**
   * @param {unknown} map Names with one value or a list of values.
   * @returns {[string, string][]} Each name with each of its values.
   */
  function (map) {
    if (!isRecord(map)) return [];
    return entries(map).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).map((
        one,
      ) => /** @type {[string, string]} */ (
        [name, one === null || typeof one === "object" ? "" : `${one}`]
      ))
    );
  }
);

/**
 * @param {unknown} multi Names with lists of values.
 * @param {unknown} single The same names with one value each.
 * @returns {unknown} `multi`, unless it is missing or empty.
 */
function fuller(multi, single) {
  return isRecord(multi) && entries(multi).length > 0 ? multi : single;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
function isRecord(value) {
  return typeof value === "object" && value !== null;
}

const encodeBody = (
  /**
   * Choose the form in which every byte reaches the client: text or base64.
   *
   * @param {Uint8Array} bytes
   * @param {Record<string, string>} headers
   * @returns {{ body: string, isBase64Encoded: boolean }}
   */
  function (bytes, headers) {
    const encoding = headers["content-encoding"]?.trim().toLowerCase();
    const type = headers["content-type"]?.split(/[;,]/)[0].trim().toLowerCase();
    const isEncoded = Boolean(encoding) && encoding !== "identity";
    if (bytes.length === 0) return { body: "", isBase64Encoded: false };
    // Without a type, what is UTF-8 is text to everyone: a REST API without binary media
    // types would serve the base64 of it.
    const isText = type === undefined
      ? !bytes.includes(0)
      : TEXT_TYPE.test(type);
    if (!isEncoded && isText) {
      try {
        return { body: decode(bytes), isBase64Encoded: false };
      } catch {
        // Another charset, or a wrong label: as base64 the bytes arrive unchanged.
      }
    }
    return { body: toBase64(bytes), isBase64Encoded: true };
  }
);

const decode = (
  /**
   * Decode as src/input.js does, but keep a byte order mark, which is part of the body.
   *
   * @param {Uint8Array} bytes
   * @returns {string}
   * @throws {TypeError} The bytes are not UTF-8.
   */
  function (bytes) {
    const text = decodeLossy(bytes);
    return bytes[0] === BYTE_ORDER_MARK || text.includes("\ufffd")
      ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
      : text;
  }
);

/**
 * Cancel a body that is not sent, so that its source can stop.
 *
 * @param {Response} response
 * @returns {Uint8Array} An empty body.
 */
function discard({ body }) {
  // Whether the stream is locked or fails does not matter any more.
  body?.cancel?.().catch(ignore);
  return new Uint8Array(0);
}

/**
 * @param {number} statusCode
 * @param {Response} response
 * @returns {string} Such as "200 OK".
 */
function describeStatus(statusCode, { statusText }) {
  return `${statusCode} ${statusText || (REASONS[statusCode] ?? "Unknown")}`;
}

/**
 * Spell a name in as many ways as there are values.
 *
 * @param {string} name
 * @param {string[]} values
 * @param {Warn} warn
 * @returns {Record<string, string>}
 */
function caseVariants(name, values, warn) {
  const letters = name.match(/[a-z]/g)?.length ?? 0;
  const sendable = values.slice(0, 2 ** letters);
  if (sendable.length < values.length) {
    warn(
      `Cannot send ${values.length} headers '${name}': ${sendable.length} fit`,
    );
  }
  return fromEntries(sendable.map((value, index) => {
    // The bits of a value's position give the case of the letters.
    let bits = index;
    const spelled = name.replace(/[a-z]/g, (letter) => {
      const isUpper = bits & 1;
      bits >>= 1;
      return isUpper ? letter.toUpperCase() : letter;
    });
    return [spelled, value];
  }));
}

/**
 * @param {HttpResult} result
 * @throws {HttpError} `Function.ResponseSizeTooLarge`
 */
function refuseOversize(result) {
  const size = encode(stringify(result)).length;
  if (size <= ALB_LIMIT_BYTES) return;
  throw new HttpError(
    "Function.ResponseSizeTooLarge",
    `Cannot return ${size} bytes: the limit of a load balancer is ` +
      `${ALB_LIMIT_BYTES}; store the result and return where it is`,
  );
}

/** For warnings and failures that need no attention. */
function ignore() {}
