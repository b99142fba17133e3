// @ts-check
/**
 * The worker as an HTTP server on a Unix socket, for the strategy `server`. Each POST
 * is an invocation: the request's body is the INVOKE line and the event, the response's
 * body the frames that a worker otherwise writes to stdout. Does not know what an
 * invocation does. Normative text: docs/protocol.md.
 *
 * The only client is the supervisor, whose requests all have the same form: any other
 * form ends the connection. Decision 0022 says why this is not Deno's own server.
 *
 * @module
 */

const READ_BYTES = 65_536;
/** Up to this size a response is copied into one write: two writes take longer. */
const JOINED_BYTES = 65_536;
const NEWLINE = 10;
/** Deno's number for it. */
const STDIN = 0;
/** The head of a request of the supervisor, which is ASCII. */
const HEAD =
  /^(POST|DELETE) \/(\d+) HTTP\/1\.1\r\nHost: worker\r\nContent-Length: (\d+)\r\n\r\n/;
/** More than the longest of these heads. */
const HEAD_LIMIT_BYTES = 256;
/** More than the line by which the supervisor ends the process. */
const LINE_LIMIT_BYTES = 256;
/** Pause between two attempts to accept a connection, when no descriptor is left. */
const ACCEPT_PAUSE_MS = 10;
const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

// @ts-ignore not part of the public types
const { core } = Deno[Deno.internal];
/** @type {(text: string) => Uint8Array<ArrayBuffer>} */
const encode = core.encode;
/** @type {(bytes: Uint8Array) => string} */
const decodeLossy = core.decode;

/**
 * @typedef {object} Output As in src/job.js.
 * @property {(bytes: Uint8Array, isLast: boolean) => void} write
 * @property {(bytes: Uint8Array) => Promise<void>} writeLater
 * @property {() => void} end
 *
 * @typedef {(line: Uint8Array, event: Uint8Array, output: Output) => () => void} Invoke
 *   Begins an invocation, and has read line and event when it returns. Returns a
 *   function to call when the caller no longer reads the stream.
 */

/** Responses that are sent in pieces, by number. @type {Map<string, HttpResponse>} */
const streams = new Map();

/** Connections that wait for a request. @type {Set<Deno.UnixConn>} */
const idle = new Set();
let isStopping = false;
/** False while the event loop may end although connections wait for requests. */
let isKept = true;

/**
 * Listen; connections wait from now on. Called before the handler's module is loaded:
 * it gets no permission to remove the socket or to connect to it, unless it may read
 * and write everywhere.
 *
 * @param {string} path Where the socket is made.
 * @returns {Deno.UnixListener}
 */
export function open(path) {
  const listener = Deno.listen({ transport: "unix", path });
  for (const name of /** @type {const} */ (["read", "write"])) {
    Deno.permissions.revokeSync({ name, path });
  }
  return listener;
}

/**
 * Open the pipe that the supervisor holds, and give up the permission to do so again.
 *
 * @param {string | null} path Null: stdin.
 * @returns {number} Its resource.
 */
export function openInput(path) {
  if (!path) return STDIN;
  const before = core.resources();
  Deno.openSync(path);
  Deno.permissions.revokeSync({ name: "read", path });
  const opened = Object.keys(core.resources()).find((one) => !(one in before));
  return Number(opened);
}

/**
 * Wait for the last line of that pipe. The event loop may end before. Not while the
 * module loads: Deno would not notice a top-level await that never settles.
 *
 * @param {number} rid
 * @returns {Promise<Uint8Array | null>} Null: it has ended without one.
 */
export async function endOf(rid) {
  const line = new Uint8Array(LINE_LIMIT_BYTES);
  const end = core.read(rid, line);
  core.unrefOpPromise(end);
  const length = await end;
  return length ? line.subarray(0, length) : null;
}

/**
 * Accept connections and respond to their requests.
 *
 * @param {Deno.UnixListener} listener
 * @param {Invoke} invoke
 * @param {boolean} isAlone No other invocation comes before the end of one. The event
 *   loop can then be empty during an invocation: nothing is left that could wake it.
 * @returns {() => void} Stops accepting; requests that were received get a response.
 */
export function serve(listener, invoke, isAlone) {
  /** @param {boolean} isNeeded False: connections do not keep the event loop busy. */
  const keep = (isNeeded) => {
    isKept = isNeeded;
    for (const waiting of [listener, ...idle]) {
      if (isKept) waiting.ref();
      else waiting.unref();
    }
  };
  /** @type {Invoke} */
  const invokeAlone = (line, event, output) => {
    keep(false);
    return invoke(line, event, {
      write: (bytes, isLast) => output.write(bytes, isLast),
      writeLater: (bytes) => output.writeLater(bytes),
      end() {
        keep(true);
        output.end();
      },
    });
  };
  const handle = isAlone ? invokeAlone : invoke;
  (async () => {
    while (!isStopping) {
      try {
        handleConnection(await listener.accept(), handle);
      } catch {
        if (isStopping) return;
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE_MS));
      }
    }
  })();
  return () => {
    isStopping = true;
    listener.close();
    // A read is in progress on each of them, which would keep the process alive.
    for (const connection of idle) connection.close();
  };
}

/**
 * Respond to one request after another.
 *
 * @param {Deno.UnixConn} connection
 * @param {Invoke} invoke
 */
async function handleConnection(connection, invoke) {
  const buffer = new Uint8Array(READ_BYTES);
  try {
    while (!isStopping) {
      idle.add(connection);
      if (!isKept) connection.unref();
      const request = await readRequest(connection, buffer);
      idle.delete(connection);
      if (request === null) break;
      const { method, number, body } = request;
      const response = new HttpResponse(connection, number);
      if (method === "DELETE") {
        streams.get(number)?.cancel();
        response.write(new Uint8Array(0), true);
        continue;
      }
      const end = body.indexOf(NEWLINE);
      response.cancel = invoke(
        body.subarray(0, end),
        body.subarray(end + 1),
        response,
      );
      await response.ended.promise;
    }
  } catch {
    // The connection broke; a response in progress learns of it from its failing write.
  }
  idle.delete(connection);
  try {
    connection.close();
  } catch {
    // It was closed during the read.
  }
}

/**
 * Read a request.
 *
 * @param {Deno.Conn} connection
 * @param {Uint8Array} buffer Holds a short request until the next one is read.
 * @returns {Promise<{ method: string, number: string, body: Uint8Array } | null>} Null
 *   at the end of the connection, or if the request is not of the supervisor's form.
 */
async function readRequest(connection, buffer) {
  let received = 0;
  for (;;) {
    const count = await connection.read(buffer.subarray(received));
    if (count === null) return null;
    received += count;
    const head = HEAD.exec(
      decodeLossy(buffer.subarray(0, Math.min(received, HEAD_LIMIT_BYTES))),
    );
    if (head === null) {
      if (received >= HEAD_LIMIT_BYTES) return null;
      continue;
    }
    const method = head[1], number = head[2], length = Number(head[3]);
    const start = head[0].length;
    const end = start + length;
    if (received > end) return null;
    if (received === end) {
      return { method, number, body: buffer.subarray(start, end) };
    }
    const body = new Uint8Array(length);
    body.set(buffer.subarray(start, received));
    for (let at = received - start; at < body.length;) {
      const more = await connection.read(body.subarray(at));
      if (more === null) return null;
      at += more;
    }
    return { method, number, body };
  }
}

/** Frames as the body of a response, with its length if one write holds them all. */
class HttpResponse {
  /** Called if the caller stops reading before the end. */
  cancel = () => {};
  /** Resolves when the invocation has ended. @type {PromiseWithResolvers<void>} */
  ended = Promise.withResolvers();
  #hasBegun = false;
  #isCancelled = false;
  /** The write that began last. @type {Promise<void> | undefined} */
  #lastWrite = undefined;

  /**
   * @param {Deno.Conn} connection
   * @param {string} number Number of the invocation.
   */
  constructor(connection, number) {
    this.connection = connection;
    this.number = number;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {boolean} isLast
   */
  write(bytes, isLast) {
    if (!this.#hasBegun && isLast) {
      this.#send(
        `HTTP/1.1 200 OK\r\nContent-Length: ${bytes.length}\r\n\r\n`,
        bytes,
        "",
      );
      return;
    }
    let head = "";
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      streams.set(this.number, this);
      head = CHUNKED;
    }
    this.#send(
      `${head}${bytes.length.toString(16)}\r\n`,
      bytes,
      isLast ? "\r\n0\r\n\r\n" : "\r\n",
    );
  }

  /** @param {Uint8Array} bytes */
  async writeLater(bytes) {
    this.write(bytes, false);
    await this.#lastWrite;
  }

  /** Finish: the last write has ended the body. */
  end() {
    if (this.#hasBegun) streams.delete(this.number);
    this.ended.resolve();
  }

  /**
   * Begin a write when the one before it is complete.
   *
   * @param {string} before
   * @param {Uint8Array} bytes
   * @param {string} behind
   */
  #send(before, bytes, behind) {
    const parts = bytes.length <= JOINED_BYTES
      ? [joined(before, bytes, behind)]
      : [encode(before), bytes, encode(behind)];
    this.#lastWrite = this.#writeAll(this.#lastWrite, parts);
  }

  /**
   * @param {Promise<void> | undefined} previous
   * @param {Uint8Array[]} parts
   */
  async #writeAll(previous, parts) {
    if (previous !== undefined) await previous;
    try {
      for (const bytes of parts) {
        for (let at = 0; at < bytes.length && !this.#isCancelled;) {
          at += await this.connection.write(bytes.subarray(at));
        }
      }
    } catch {
      this.#isCancelled = true;
      this.cancel();
    }
  }
}

/**
 * @param {string} before ASCII.
 * @param {Uint8Array} bytes
 * @param {string} behind ASCII.
 */
function joined(before, bytes, behind) {
  const whole = new Uint8Array(before.length + bytes.length + behind.length);
  whole.set(encode(before));
  whole.set(bytes, before.length);
  if (behind !== "") whole.set(encode(behind), before.length + bytes.length);
  return whole;
}

/** Load what tells invocations apart that run at the same time. */
export async function scopes() {
  const { AsyncLocalStorage } = await import("node:async_hooks");
  return new AsyncLocalStorage();
}
