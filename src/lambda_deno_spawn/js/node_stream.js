// @ts-check
/**
 * The response stream of `awslambda.streamifyResponse`: a Node `Writable` in front of a
 * sink. Loaded for such handlers only, because loading Node's streams takes time.
 *
 * @module
 */

import { Writable } from "node:stream";

/**
 * @typedef {object} Sink Where the bytes go; see src/stream.js.
 * @property {string} contentType
 * @property {(prelude: object) => void} beginHttp
 * @property {(chunk: unknown) => Promise<void>} write
 * @property {() => Promise<void>} end
 */

/** Thrown at a handler that uses its stream in a wrong way; named as by AWS's runtime. */
class InvalidStreamingOperationError extends Error {}
InvalidStreamingOperationError.prototype.name =
  "Runtime.InvalidStreamingOperation";

/** The stream that a handler writes its response to. */
export class ResponseStream extends Writable {
  /**
   * AWS's own stream has this too: called with a function that writes in front of the
   * first piece.
   *
   * @type {((write: (chunk: string | Uint8Array) => void) => void) | undefined}
   */
  _onBeforeFirstWrite = undefined;
  #sink;
  #hasBegun = false;

  /** @param {Sink} sink */
  constructor(sink) {
    super();
    this.#sink = sink;
  }

  /**
   * @param {string} contentType Media type.
   * @throws {InvalidStreamingOperationError} It is too late for that.
   */
  setContentType(contentType) {
    this.#refuseOnceBegun("the content type");
    this.#sink.contentType = contentType;
  }

  /**
   * @param {object} prelude Status, headers and cookies.
   * @throws {InvalidStreamingOperationError} It is too late for that.
   */
  beginHttp(prelude) {
    this.#refuseOnceBegun("status and headers");
    this.#sink.beginHttp(prelude);
  }

  /** @param {string} what Stands in front of the response. */
  #refuseOnceBegun(what) {
    if (!this.#hasBegun) return;
    throw new InvalidStreamingOperationError(
      `Cannot set ${what}: the response has begun; do it before the first write`,
    );
  }

  /**
   * Write as AWS's own stream does: a value that is neither text nor bytes as JSON.
   *
   * @param {any} chunk
   * @param {...any} rest
   * @returns {boolean}
   */
  // @ts-ignore the overloads of Node's types
  write(chunk, ...rest) {
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      this._onBeforeFirstWrite?.((first) => super.write(first));
    }
    const isData = typeof chunk === "string" || ArrayBuffer.isView(chunk);
    // @ts-ignore the overloads of Node's types
    return super.write(isData ? chunk : JSON.stringify(chunk), ...rest);
  }

  /**
   * @override
   * @param {any} chunk
   * @param {string} _encoding
   * @param {(error?: Error | null) => void} callback
   */
  _write(chunk, _encoding, callback) {
    this.#hasBegun = true;
    this.#sink.write(chunk).then(() => callback(), callback);
  }

  /**
   * @override
   * @param {(error?: Error | null) => void} callback
   */
  _final(callback) {
    this.#sink.end().then(() => callback(), callback);
  }
}

/**
 * @param {Sink} sink
 * @returns {{ stream: ResponseStream, finished: Promise<void> }} `finished` rejects if
 *   the stream is destroyed, with its error.
 */
export function responseStream(sink) {
  const stream = new ResponseStream(sink);
  /** @type {Promise<void>} */
  const finished = new Promise((resolve, reject) => {
    stream.once("finish", resolve);
    stream.once("error", reject);
    stream.once("close", () => {
      if (!stream.writableFinished) {
        const error = new Error(
          "The response stream was destroyed before its end",
        );
        // The lines of its stack would be Deno's own.
        error.stack = `${error.name}: ${error.message}`;
        reject(error);
      }
    });
  });
  finished.catch(() => {});
  return { stream, finished };
}
