// @ts-check
/**
 * The worker's other way to be reached: an HTTP server on a Unix socket, for the strategy
 * `server`. Each POST is an invocation: its body is the INVOKE line and the event, the
 * body of its answer the frames that a worker otherwise writes to stdout. Normative text:
 * docs/protocol.md.
 *
 * Its only client is the supervisor, whose requests all look the same: anything else ends
 * the connection. Why not Deno's own server: decision 0022.
 *
 * @module
 */

const READ_BYTES = 65_536;
/** Up to here an answer's head and body are joined: two writes take longer than a copy. */
const JOINED_BYTES = 65_536;
const NEWLINE = 10;
/** How the supervisor asks; all of it in a character a byte. */
const HEAD =
  /^(POST|DELETE) \/(\d+) HTTP\/1\.1\r\nHost: worker\r\nContent-Length: (\d+)\r\n\r\n/;
/** The longest of these is shorter. */
const HEAD_LIMIT_BYTES = 256;
/** Between two attempts to take a connection, when no descriptor is left. */
const ACCEPT_PAUSE_MS = 10;
const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

// @ts-ignore not part of the public types
const { core } = Deno[Deno.internal];
/** @type {(text: string) => Uint8Array<ArrayBuffer>} */
const encode = core.encode;
/** @type {(bytes: Uint8Array) => string} */
const decodeAnything = core.decode;

/**
 * @typedef {object} Output As in runtime.js.
 * @property {(bytes: Uint8Array, isLast: boolean) => void} write
 * @property {(bytes: Uint8Array) => Promise<void>} writeLater
 * @property {() => void} end
 *
 * @typedef {(line: Uint8Array, event: Uint8Array, output: Output) => () => void} Invoke
 *   Begins an invocation, and has read both when it returns; what it returns is called if
 *   nobody takes its stream any more.
 */

/** The answers that come in pieces, by their number. @type {Map<string, Answer>} */
const streams = new Map();

/** Connections on which nothing is asked. @type {Set<Deno.Conn>} */
const idle = new Set();
let isStopping = false;

/**
 * Listen; that has begun when it returns. Nobody is answered yet. Called before the
 * handler's module is loaded, which gets no permission to remove the socket or to connect
 * to it, unless it may read and write everywhere.
 *
 * @param {string} path Of the socket.
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
 * Answer whoever connects.
 *
 * @param {Deno.UnixListener} listener
 * @param {Invoke} invoke
 * @returns {() => void} Ends that: what is asked already is answered.
 */
export function serve(listener, invoke) {
  (async () => {
    while (!isStopping) {
      try {
        converse(await listener.accept(), invoke);
      } catch {
        if (isStopping) return;
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE_MS));
      }
    }
  })();
  return () => {
    isStopping = true;
    listener.close();
    // Each of them is being read from, and would keep the process from its end.
    for (const connection of idle) connection.close();
  };
}

/**
 * Answer one request after another.
 *
 * @param {Deno.Conn} connection
 * @param {Invoke} invoke
 */
async function converse(connection, invoke) {
  const buffer = new Uint8Array(READ_BYTES);
  try {
    while (!isStopping) {
      idle.add(connection);
      const request = await readRequest(connection, buffer);
      idle.delete(connection);
      if (request === null) break;
      const { method, number, body } = request;
      const answer = new Answer(connection, number);
      if (method === "DELETE") {
        streams.get(number)?.cancel();
        answer.write(new Uint8Array(0), true);
        continue;
      }
      const end = body.indexOf(NEWLINE);
      answer.cancel = invoke(
        body.subarray(0, end),
        body.subarray(end + 1),
        answer,
      );
      await answer.ended.promise;
    }
  } catch {
    // It broke; whose answer was on its way hears it from his write.
  }
  idle.delete(connection);
  try {
    connection.close();
  } catch {
    // It was closed while it was read.
  }
}

/**
 * Read a request.
 *
 * @param {Deno.Conn} connection
 * @param {Uint8Array} buffer Holds a short request until the next one is read.
 * @returns {Promise<{ method: string, number: string, body: Uint8Array } | null>} Null
 *   at the end of the connection, or for what is no request of the supervisor's.
 */
async function readRequest(connection, buffer) {
  let come = 0;
  for (;;) {
    const count = await connection.read(buffer.subarray(come));
    if (count === null) return null;
    come += count;
    const head = HEAD.exec(
      decodeAnything(buffer.subarray(0, Math.min(come, HEAD_LIMIT_BYTES))),
    );
    if (head === null) {
      if (come >= HEAD_LIMIT_BYTES) return null;
      continue;
    }
    const method = head[1], number = head[2], length = Number(head[3]);
    const start = head[0].length;
    const end = start + length;
    if (come > end) return null;
    if (come === end) {
      return { method, number, body: buffer.subarray(start, end) };
    }
    const body = new Uint8Array(length);
    body.set(buffer.subarray(start, come));
    for (let at = come - start; at < body.length;) {
      const more = await connection.read(body.subarray(at));
      if (more === null) return null;
      at += more;
    }
    return { method, number, body };
  }
}

/** Frames as the body of an answer: with its length if there is only one. */
class Answer {
  /** Called if nobody takes it to its end. */
  cancel = () => {};
  /** Resolves when the invocation has ended. @type {PromiseWithResolvers<void>} */
  ended = Promise.withResolvers();
  #hasBegun = false;
  #isCancelled = false;
  /** The write that has begun last. @type {Promise<void> | undefined} */
  #lastWrite = undefined;

  /**
   * @param {Deno.Conn} connection
   * @param {string} number Of the invocation.
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

  /** What comes last has ended the body. */
  end() {
    if (this.#hasBegun) streams.delete(this.number);
    this.ended.resolve();
  }

  /**
   * Write behind what is being written.
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
 * @param {string} before In a byte a character, as is what follows the bytes.
 * @param {Uint8Array} bytes
 * @param {string} behind
 */
function joined(before, bytes, behind) {
  const whole = new Uint8Array(before.length + bytes.length + behind.length);
  whole.set(encode(before));
  whole.set(bytes, before.length);
  if (behind !== "") whole.set(encode(behind), before.length + bytes.length);
  return whole;
}

/** Tells invocations apart that run at the same time; loaded if there are any. */
export async function scopes() {
  const { AsyncLocalStorage } = await import("node:async_hooks");
  return new AsyncLocalStorage();
}
