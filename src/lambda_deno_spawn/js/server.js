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
 * @returns {Promise<() => void>} Takes no more invocations, but ends those that run.
 */
export async function listen(path, invoke) {
  /** @type {PromiseWithResolvers<void>} */
  const { promise, resolve } = Promise.withResolvers();
  /** What ends the answers that are on their way. @type {Map<string, () => void>} */
  const cancels = new Map();
  const server = Deno.serve(
    { path, onListen: () => resolve() },
    async (request) => {
      const { method, url } = request;
      const number = url.slice(url.lastIndexOf("/"));
      if (method === "DELETE") {
        cancels.get(number)?.();
        return new Response();
      }
      const body = await request.bytes();
      const end = body.indexOf(NEWLINE);
      const answer = new Answer();
      const line = body.subarray(0, end);
      const cancel = invoke(line, body.subarray(end + 1), answer);
      cancels.set(number, cancel);
      answer.onCancel = cancel;
      answer.onEnd = () => cancels.delete(number);
      return answer.response;
    },
  );
  await promise;
  return () => void server.shutdown();
}

/** Frames as the body of a `Response`: in one piece if there is only one. */
class Answer {
  /** Called if the body is not taken to its end. */
  onCancel = () => {};
  /** Called at the end of the invocation. */
  onEnd = () => {};
  /** @type {PromiseWithResolvers<Response>} */
  #response = Promise.withResolvers();
  /** @type {ReadableStreamDefaultController<any> | undefined} */
  #controller;
  /** Resolves the wait of `writeLater`. */
  #onRoom = () => {};
  #isCancelled = false;

  get response() {
    return this.#response.promise;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {boolean} isLast
   */
  write(bytes, isLast) {
    if (this.#controller === undefined) {
      if (isLast) {
        return this.#response.resolve(
          new Response(/** @type {BodyInit} */ (bytes)),
        );
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
    this.onEnd();
  }

  #begin() {
    const body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#onRoom(),
      cancel: () => {
        this.#isCancelled = true;
        this.onCancel();
        this.#onRoom();
      },
    }, { highWaterMark: BUFFER_BYTES, size: (bytes) => bytes.byteLength });
    this.#response.resolve(new Response(body));
  }
}

/** Tells invocations apart that run at the same time; loaded if there are any. */
export async function scopes() {
  const { AsyncLocalStorage } = await import("node:async_hooks");
  return new AsyncLocalStorage();
}
