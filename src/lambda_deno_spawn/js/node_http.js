// @ts-check
/**
 * Requests to a server of node:http in this process, without a socket: bytes go through
 * a stream that stands in for a connection, so that the server parses and writes HTTP
 * as it does for any client. Loaded only for modules that have started such a server.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import { Duplex } from "node:stream";
import { clearImmediate, setImmediate } from "node:timers";

/**
 * @typedef {object} Request
 * @property {string} method
 * @property {string} target Path and query.
 * @property {Iterable<[string, string]>} headers Values hold a byte in each character.
 * @property {Uint8Array | null} body
 *
 * @typedef {object} Answer
 * @property {number} status
 * @property {string} statusText
 * @property {[string, string][]} headers In the order in which they were sent.
 * @property {AsyncGenerator<Uint8Array, void>} body
 *
 * @typedef {"head" | "length" | "size" | "chunk" | "crlf" | "trailer" | "rest" | "end"} Part
 */

const EMPTY = Buffer.alloc(0);
const STATUS_LINE = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/;
/** Headers about the connection that a request of an event does not have. */
const CONNECTION_HEADERS = new Set([
  "connection",
  "content-length",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

/**
 * Have a server answer a request.
 *
 * @param {any} server A server of node:http or node:https that listens.
 * @param {Request} request
 * @param {string} remoteAddress Of the client.
 * @returns {Promise<Answer>} Resolves when the head of the response is complete.
 */
export function exchange(server, request, remoteAddress) {
  const connection = new Connection(request.method === "HEAD", remoteAddress);
  // That of node:https. Listeners for its events are no sign: restify's servers have
  // them in any case.
  const isSecure = typeof server.setSecureContext === "function";
  connection.encrypted = isSecure || undefined;
  server.emit(isSecure ? "secureConnection" : "connection", connection);
  connection.push(bytesOf(request));
  return connection.answer.promise;
}

/** @param {(value: unknown) => void} resolve Called in the next turn of the event loop. */
export function nextTurn(resolve) {
  setImmediate(resolve);
}

/**
 * @param {AsyncIterable<Uint8Array>} body
 * @returns {Promise<Uint8Array>}
 */
export async function collect(body) {
  const pieces = [];
  for await (const piece of body) pieces.push(piece);
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
}

/**
 * Make a server of our own for rehearsals. It reads and writes in turns in the ways in
 * which apps do, as each is slow when it is first used.
 */
export function trialServer() {
  let count = 0;
  return createServer(async (request, response) => {
    count += 1;
    if (count % 2 === 0) {
      response.writeHead(200, { "content-type": "text/plain" });
      request.on("data", (piece) => response.write(piece));
      request.on("end", () => response.end());
      return;
    }
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    response.statusCode = 200;
    response.setHeader("content-type", "application/json; charset=utf-8");
    response.end(Buffer.concat(pieces).toString());
  });
}

/** @param {Request} request */
function bytesOf({ method, target, headers, body }) {
  let head = `${method} ${target} HTTP/1.1\r\n`;
  for (const [name, value] of headers) {
    if (!CONNECTION_HEADERS.has(name)) head += `${name}: ${value}\r\n`;
  }
  if (body !== null) head += `content-length: ${body.length}\r\n`;
  const start = Buffer.from(`${head}\r\n`, "latin1");
  return body === null ? start : Buffer.concat([start, body]);
}

/** The object that the server takes for the socket of a client. */
class Connection extends Duplex {
  /** @type {PromiseWithResolvers<Answer>} */
  answer = Promise.withResolvers();
  /** As in node:tls. @type {boolean | undefined} */
  encrypted = undefined;
  remotePort = 0;
  localAddress = "127.0.0.1";
  localPort = 0;
  #isHead;
  /** The part that is read next. @type {Part} */
  #part = "head";
  /** Bytes of a line or a head that is not complete yet. */
  #unread = EMPTY;
  /** How many bytes of the body, or of a chunk, are missing. */
  #missing = 0;
  /** Pieces of the body that nothing has read yet. @type {Uint8Array[]} */
  #pieces = [];
  /** Lets the server write more. @type {(() => void) | null} */
  #accept = null;
  /** Wakes what reads the body. */
  #wake = () => {};
  #isOver = false;
  /** @type {Error | null} */
  #failure = null;

  /**
   * @param {boolean} isHead The response has no body, whatever its headers say.
   * @param {string} remoteAddress
   */
  constructor(isHead, remoteAddress) {
    super();
    this.#isHead = isHead;
    this.remoteAddress = remoteAddress;
    this.remoteFamily = remoteAddress.includes(":") ? "IPv6" : "IPv4";
  }

  /** @override */
  _read() {}

  /**
   * @override
   * @param {Buffer} bytes
   * @param {string} _encoding
   * @param {() => void} callback
   */
  _write(bytes, _encoding, callback) {
    this.#receive(bytes);
    this.#continueWith(callback);
  }

  /**
   * @override
   * @param {{ chunk: Buffer }[]} chunks
   * @param {() => void} callback
   */
  _writev(chunks, callback) {
    for (const { chunk } of chunks) this.#receive(chunk);
    this.#continueWith(callback);
  }

  /**
   * @override
   * @param {() => void} callback
   */
  _final(callback) {
    if (this.#part === "rest") this.#end();
    callback();
    if (!this.#isOver) this.destroy();
  }

  /**
   * @override
   * @param {Error | null} error
   * @param {(error: Error | null) => void} callback
   */
  _destroy(error, callback) {
    if (!this.#isOver) {
      // Without a length the end of the connection is that of the body.
      if (this.#part !== "end" && this.#part !== "rest") {
        this.#failure = error ?? new Error(
          "The server has closed the connection before its response was complete",
        );
      }
      this.#finish();
    }
    callback(null);
  }

  setTimeout() {
    return this;
  }

  setNoDelay() {
    return this;
  }

  setKeepAlive() {
    return this;
  }

  ref() {
    return this;
  }

  unref() {
    return this;
  }

  address() {
    const { localAddress: address, localPort: port } = this;
    return { address, family: "IPv4", port };
  }

  destroySoon() {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  /**
   * The server may write on once what it has written is read.
   *
   * @param {() => void} callback
   */
  #continueWith(callback) {
    if (this.#pieces.length > 0 && this.#part !== "end") {
      this.#accept = callback;
    } else {
      callback();
    }
    this.#wake();
  }

  /** @returns {AsyncGenerator<Uint8Array, void>} The body. */
  async *#body() {
    try {
      for (;;) {
        for (const piece of this.#pieces.splice(0)) yield piece;
        const accept = this.#accept;
        this.#accept = null;
        accept?.();
        if (this.#pieces.length > 0) continue;
        if (this.#failure !== null) throw this.#failure;
        if (this.#isOver) return;
        /** @type {PromiseWithResolvers<void>} */
        const { promise, resolve } = Promise.withResolvers();
        this.#wake = resolve;
        await promise;
      }
    } finally {
      this.destroy();
    }
  }

  /** @param {Buffer} bytes Of the response. */
  #receive(bytes) {
    let rest = bytes;
    while (rest.length > 0 && this.#part !== "end") {
      if (this.#part === "rest") {
        this.#pieces.push(rest);
        return;
      }
      if (this.#part === "length" || this.#part === "chunk") {
        const piece = rest.subarray(0, this.#missing);
        rest = rest.subarray(piece.length);
        this.#missing -= piece.length;
        this.#pieces.push(piece);
        if (this.#missing > 0) return;
        if (this.#part === "length") this.#end();
        else this.#part = "crlf";
        continue;
      }
      // A line, or the lines of a head.
      const end = this.#part === "head" ? "\r\n\r\n" : "\r\n";
      const text = this.#unread.length === 0
        ? rest
        : Buffer.concat([this.#unread, rest]);
      const at = text.indexOf(end);
      if (at < 0) {
        this.#unread = Buffer.from(text);
        return;
      }
      this.#unread = EMPTY;
      rest = text.subarray(at + end.length);
      this.#receiveLine(text.toString("latin1", 0, at));
    }
  }

  /** @param {string} text A line, or the lines of a head. */
  #receiveLine(text) {
    if (this.#part === "head") return this.#receiveHead(text);
    if (this.#part === "crlf") {
      this.#part = "size";
    } else if (this.#part === "size") {
      this.#missing = Number.parseInt(text, 16);
      this.#part = this.#missing > 0 ? "chunk" : "trailer";
    } else if (text === "") {
      this.#end();
    }
  }

  /** @param {string} head */
  #receiveHead(head) {
    const [first, ...lines] = head.split("\r\n");
    const [, code, statusText = ""] = STATUS_LINE.exec(first) ?? [];
    if (code === undefined || code === "101") {
      const what = JSON.stringify(first.slice(0, 64));
      this.destroy(new Error(`Cannot read the server's response: ${what}`));
      return;
    }
    const status = Number(code);
    // Continue, or early hints: the response follows.
    if (status < 200) return;
    const headers = lines.map((line) => {
      const at = line.indexOf(":");
      return /** @type {[string, string]} */ (
        [line.slice(0, at), line.slice(at + 1).trim()]
      );
    });
    /** @param {string} wanted */
    const valueOf = (wanted) =>
      headers.find(([name]) => name.toLowerCase() === wanted)?.[1];
    const length = valueOf("content-length");
    if (this.#isHead || status === 204 || status === 304) {
      this.#end();
    } else if (/chunked$/i.test(valueOf("transfer-encoding") ?? "")) {
      this.#part = "size";
    } else if (length === undefined) {
      this.#part = "rest";
    } else {
      this.#missing = Number(length);
      if (this.#missing > 0) this.#part = "length";
      else this.#end();
    }
    const body = this.#body();
    this.answer.resolve({ status, statusText, headers, body });
  }

  /** All bytes of the response are there. */
  #end() {
    this.#part = "end";
    // The app hears that its response is finished, and may write to its log, before
    // the process has answered.
    const latest = setImmediate(() => this.#finish());
    /** @type {any} */ (this)._httpMessage?.once("close", () => {
      clearImmediate(latest);
      this.#finish();
    });
  }

  /** Nothing follows. */
  #finish() {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#failure !== null) this.answer.reject(this.#failure);
    this.#wake();
    this.destroy();
  }
}
