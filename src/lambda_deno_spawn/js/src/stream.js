// @ts-check
/**
 * Responses that are sent in pieces. Knows when a stream begins, how it ends and what
 * its pieces may be. Does not know which interface the handler uses.
 *
 * @module
 */

/** @import { Job } from "./job.js" */
import { quote, RuntimeError } from "./errors.js";
import { CHUNK_BYTES, chunkRoom, frame } from "./frames.js";
import { hello } from "./input.js";
import { latestJob } from "./job.js";
import { doneBehind, fail, respond } from "./outcome.js";
import { encode, stringify } from "./primordials.js";

/** Longest media type of a stream: it is sent in a header. */
const CONTENT_TYPE_LIMIT = 256;
const MEDIA_TYPE = /^[!-~](?:[ -~]*[!-~])?$/;
const HTTP_CONTENT_TYPE = "application/vnd.awslambda.http-integration-response";
/** Sent by the supervisor when the caller no longer reads the stream. */
const CALLER_GONE_SIGNAL = "SIGUSR2";

let isListening = false;

/**
 * A response that is sent in pieces. Until its first byte nothing is decided: an error
 * is an ordinary error, and type and prelude can be set. After it an error ends the
 * stream, and the caller receives it behind the pieces.
 */
export class Sink {
  /** Media type of the response. */
  contentType = "application/octet-stream";
  /** Bytes in front of the first byte. */
  #prelude = new Uint8Array(0);
  /** Set once the caller no longer reads. */
  isAbandoned = false;
  /** Rejects when an uncaught error ends the stream while it waits for its source. */
  #uncaught = Promise.withResolvers();

  /** @param {Job} job The job that responds with it. */
  constructor(job) {
    this.job = job;
    this.#uncaught.promise.catch(() => {});
  }

  /**
   * Respond as HTTP: status and headers as JSON, eight zero bytes, then the body.
   *
   * @param {object} prelude
   */
  beginHttp(prelude) {
    this.contentType = HTTP_CONTENT_TYPE;
    this.#prelude = encode(`${stringify(prelude)}\0\0\0\0\0\0\0\0`);
  }

  /**
   * Write all pieces of a source, and the end.
   *
   * @param {AsyncIterable<unknown>} source
   */
  async pump(source) {
    const iterator = source[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = iterator.next();
        const { done, value } = /** @type {IteratorResult<unknown>} */ (
          await Promise.race([next, this.#uncaught.promise])
        );
        if (done) break;
        await this.write(value);
        if (this.isAbandoned) {
          await iterator.return?.();
          break;
        }
      }
      await this.end();
    } catch (error) {
      await this.fail(error);
    }
  }

  /**
   * Write one piece; resolves when the pipe has accepted it.
   *
   * @param {unknown} chunk Text or bytes.
   * @throws {RuntimeError} The piece is neither.
   */
  async write(chunk) {
    let bytes = bytesOf(chunk);
    if (bytes.length === 0 || this.isAbandoned) return;
    const { job } = this;
    const room = chunkRoom();
    if (job.phase === "running") {
      for (const first of this.#begin(bytes.subarray(0, room))) {
        job.write(first);
      }
      bytes = bytes.subarray(room);
    }
    for (; bytes.length > 0; bytes = bytes.subarray(room)) {
      if (job.phase !== "streaming" || this.isAbandoned) return;
      await job.writeLater(frame("CHUNK", bytes.subarray(0, room)));
    }
  }

  /** Say that nothing follows. */
  async end() {
    const { job } = this;
    if (job.phase === "running") {
      for (const first of this.#begin(new Uint8Array(0))) job.write(first);
    }
    if (job.phase !== "streaming") return;
    await job.lastWrite;
    respond(job, [frame("END", undefined, "", doneBehind(job, false))]);
  }

  /**
   * End with an error.
   *
   * @param {unknown} error
   * @param {string} [errorType]
   */
  async fail(error, errorType) {
    const { job } = this;
    if (job.phase === "streaming") await job.lastWrite;
    if (job.phase === "streaming" || job.phase === "running") {
      fail(job, error, errorType);
    }
  }

  /** @param {unknown} error An error that no handler caught. */
  reject(error) {
    this.#uncaught.reject(error);
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {Uint8Array[]} The beginning; each is to be written by a single call.
   */
  #begin(bytes) {
    const type = String(this.contentType);
    if (type.length > CONTENT_TYPE_LIMIT || !MEDIA_TYPE.test(type)) {
      throw new RuntimeError(
        "Runtime.InvalidStreamingOperation",
        `Cannot stream as ${
          quote(type.slice(0, 64))
        }: a media type is at most ` +
          `${CONTENT_TYPE_LIMIT} characters of ASCII, without a blank at its ends`,
      );
    }
    listenForCallerGone();
    this.job.phase = "streaming";
    this.job.stream = this;
    const head = frame("STREAM", undefined, "", "", type);
    const room = chunkRoom();
    if (
      hello.partBytes > 0 || this.#prelude.length + bytes.length > CHUNK_BYTES
    ) {
      const frames = [head];
      for (let piece of [this.#prelude, bytes]) {
        for (; piece.length > 0; piece = piece.subarray(room)) {
          frames.push(frame("CHUNK", piece.subarray(0, room)));
        }
      }
      return frames;
    }
    const body = new Uint8Array(this.#prelude.length + bytes.length);
    body.set(this.#prelude);
    body.set(bytes, this.#prelude.length);
    if (body.length === 0) return [head];
    const chunk = frame("CHUNK", body);
    const both = new Uint8Array(head.length + chunk.length);
    both.set(head);
    both.set(chunk, head.length);
    return [both];
  }
}

/**
 * Make one. The class itself is for tests only: few events need it.
 *
 * @param {Job} job
 */
export function makeSink(job) {
  return new Sink(job);
}

/** Listen for the supervisor's signal, which would end a process without a listener. */
function listenForCallerGone() {
  if (isListening || hello.socket !== null) return;
  isListening = true;
  Deno.addSignalListener(CALLER_GONE_SIGNAL, () => {
    // The signal may be meant for a stream that has ended by itself.
    if (latestJob.stream !== null) latestJob.abandon();
  });
}

/**
 * @param {unknown} result
 * @returns {result is AsyncIterable<unknown>}
 */
export function isStream(result) {
  return typeof result === "object" && result !== null &&
    Symbol.asyncIterator in result;
}

/**
 * @param {unknown} chunk
 * @returns {Uint8Array}
 * @throws {RuntimeError} The chunk is neither text nor bytes.
 */
export function bytesOf(chunk) {
  if (typeof chunk === "string") return encode(chunk);
  if (chunk instanceof Uint8Array) return chunk;
  if (ArrayBuffer.isView(chunk)) {
    return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  }
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new RuntimeError(
    "Runtime.InvalidStreamingOperation",
    `Cannot stream a chunk of type ${
      chunk === null ? "null" : typeof chunk
    }: ` +
      "a chunk is text or bytes; write JSON.stringify(value) for a value",
  );
}
