// @ts-check
/**
 * The worker's other way to be reached: an HTTP server on a Unix socket, for the strategy
 * `server`. Each POST is an invocation: its body is the INVOKE line and the event, the
 * body of its answer the frames that a worker otherwise writes to stdout. Normative text:
 * docs/protocol.md.
 *
 * @module
 */

/** What the supervisor has not taken yet may be this much before the handler waits. */
const BUFFER_BYTES = 65_536;
const NEWLINE = 10;

/**
 * @typedef {object} Output As in runtime.js.
 * @property {(bytes: Uint8Array, isLast: boolean) => void} write
 * @property {(bytes: Uint8Array) => Promise<void>} writeLater
 * @property {() => void} end
 *
 * @typedef {(line: Uint8Array, event: Uint8Array, output: Output) => () => void} Invoke
 *   Begins an invocation; what it returns is called if nobody takes its stream any more.
 */

/**
 * Listen; resolves once that has begun.
 *
 * @param {string} path Of the socket.
 * @param {Invoke} invoke
 */
export async function listen(path, invoke) {
  /** @type {PromiseWithResolvers<void>} */
  const { promise, resolve } = Promise.withResolvers();
  Deno.serve({ path, onListen: () => resolve() }, async (request) => {
    const body = await request.bytes();
    // Deno asks the server for method and address when they are first read; of nearly
    // all requests nobody needs to know them.
    if (body.length === 0) return abandon(request);
    const end = body.indexOf(NEWLINE);
    /** @type {PromiseWithResolvers<Response>} */
    const response = Promise.withResolvers();
    const answer = new Answer(request, response.resolve);
    answer.cancel = invoke(
      body.subarray(0, end),
      body.subarray(end + 1),
      answer,
    );
    return response.promise;
  });
  await promise;
}

/** The answers that come in pieces, by their number. @type {Map<string, Answer>} */
const streams = new Map();

/**
 * Hear that nobody listens to a stream any more.
 *
 * @param {Request} request DELETE, with its number.
 */
function abandon(request) {
  streams.get(numberOf(request))?.cancel();
  return new Response();
}

/** @param {Request} request */
function numberOf({ url }) {
  return url.slice(url.lastIndexOf("/"));
}

/** Frames as the body of a `Response`: in one piece if there is only one. */
class Answer {
  /** Called if the body is not taken to its end. */
  cancel = () => {};
  /** @type {ReadableStreamDefaultController<any> | undefined} */
  #controller = undefined;
  /** Resolves the wait of `writeLater`. */
  #onRoom = () => {};
  #isCancelled = false;
  #number = "";

  /**
   * @param {Request} request
   * @param {(response: Response) => void} respond Called once.
   */
  constructor(request, respond) {
    this.request = request;
    this.respond = respond;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {boolean} isLast
   */
  write(bytes, isLast) {
    if (this.#controller === undefined) {
      if (isLast) {
        return this.respond(new Response(/** @type {BodyInit} */ (bytes)));
      }
      this.#begin();
    }
    if (this.#isCancelled) return;
    this.#controller?.enqueue(bytes);
    if (isLast) this.#controller?.close();
  }

  /** @param {Uint8Array} bytes */
  async writeLater(bytes) {
    this.write(bytes, false);
    while (!this.#isCancelled && (this.#controller?.desiredSize ?? 1) <= 0) {
      await new Promise((resolve) => this.#onRoom = () => resolve(undefined));
    }
  }

  /** What comes last has closed the body. */
  end() {
    streams.delete(this.#number);
  }

  #begin() {
    this.#number = numberOf(this.request);
    streams.set(this.#number, this);
    const body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#onRoom(),
      cancel: () => {
        this.#isCancelled = true;
        this.cancel();
        this.#onRoom();
      },
    }, { highWaterMark: BUFFER_BYTES, size: (bytes) => bytes.byteLength });
    this.respond(new Response(body));
  }
}

/** Tells invocations apart that run at the same time; loaded if there are any. */
export async function scopes() {
  const { AsyncLocalStorage } = await import("node:async_hooks");
  return new AsyncLocalStorage();
}
