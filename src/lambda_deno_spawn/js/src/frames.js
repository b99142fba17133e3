// @ts-check
/**
 * Frames as bytes: what a worker sends to its supervisor. Does not know where they are
 * written.
 *
 * @module
 */

import { hello } from "./input.js";
import { encode, stringify } from "./primordials.js";

/**
 * @typedef {"READY" | "PART" | "RESULT" | "STREAM" | "CHUNK" | "END" | "ERROR" |
 *   "LAST" | "DONE"} FrameKind
 */

/** More than what a frame adds to its body, with LAST and DONE behind it. */
const FRAME_OVERHEAD_BYTES = 512;
/** Longest body of a CHUNK frame: the capacity of a pipe. */
export const CHUNK_BYTES = 65_536;

/**
 * Build one frame: marker, header, newline, body, marker, newline. In one piece, so
 * that a short frame arrives whole even if other programs write to the same pipe.
 *
 * @param {FrameKind} kind
 * @param {Uint8Array} [body]
 * @param {string} [errorType]
 * @param {string} [behind] Written behind the frame, by the same call.
 * @param {string} [contentType]
 * @returns {Uint8Array}
 */
export function frame(
  kind,
  body,
  errorType,
  behind = "",
  contentType = undefined,
) {
  const { marker } = hello;
  const length = body?.length ?? 0;
  let more = errorType ? `,"errorType":${stringify(errorType)}` : "";
  if (contentType) more += `,"contentType":${stringify(contentType)}`;
  const head = `${marker}{"kind":"${kind}","bytes":${length}${more}}\n`;
  const tail = `${marker}\n${behind}`;
  if (body === undefined) return encode(head + tail);
  const before = encode(head), after = encode(tail);
  const bytes = new Uint8Array(before.length + length + after.length);
  bytes.set(before);
  bytes.set(body, before.length);
  bytes.set(after, before.length + length);
  return bytes;
}

/**
 * @param {boolean} servesMore The process accepts another invocation.
 * @returns {string} The frame that says that nothing is left to do.
 */
export function doneFrame(servesMore) {
  const more = servesMore ? ',"more":true' : "";
  return `${hello.marker}{"kind":"DONE","bytes":0${more}}\n${hello.marker}\n`;
}

/**
 * @param {FrameKind} kind
 * @returns {string} A frame without a body.
 */
export function emptyFrame(kind) {
  return `${hello.marker}{"kind":"${kind}","bytes":0}\n${hello.marker}\n`;
}

/**
 * Frame a response, in parts if other programs may write to the same pipe.
 *
 * @param {FrameKind} kind
 * @param {Uint8Array} body
 * @param {string} errorType
 * @param {string} behind What follows the last frame.
 * @returns {Uint8Array[]} Each is to be written by a single call.
 */
export function framesOf(kind, body, errorType, behind) {
  const frames = [];
  if (hello.partBytes > 0) {
    const room = hello.partBytes - FRAME_OVERHEAD_BYTES;
    for (; body.length > room; body = body.subarray(room)) {
      frames.push(frame("PART", body.subarray(0, room)));
    }
  }
  frames.push(frame(kind, body, errorType, behind));
  return frames;
}

/** @returns {number} Longest body of a CHUNK frame for this process. */
export function chunkRoom() {
  return hello.partBytes > 0
    ? hello.partBytes - FRAME_OVERHEAD_BYTES
    : CHUNK_BYTES;
}

/**
 * @param {(bytes: Uint8Array) => number} write
 * @param {Uint8Array} bytes
 */
export function writeAll(write, bytes) {
  // A single write may be short.
  for (let offset = 0; offset < bytes.length;) {
    offset += write(bytes.subarray(offset));
  }
}
