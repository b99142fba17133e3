// @ts-check
/**
 * Doubles for the standard streams. To be imported before the parts of runtime.js, which
 * take the streams when they load.
 */

/** Each call to `readSync` receives the next of these; null: the end of stdin. */
export const stdin = /** @type {Uint8Array[]} */ ([]);
export const stdout = /** @type {Uint8Array[]} */ ([]);
export const stderr = /** @type {Uint8Array[]} */ ([]);
/** Longest write that the doubles accept, as a pipe that is nearly full does. */
export const limits = { writeBytes: Infinity };

/** @param {Uint8Array[]} written */
const writeTo = (written) => (/** @type {Uint8Array} */ bytes) => {
  const accepted = bytes.slice(0, limits.writeBytes);
  written.push(accepted);
  return accepted.length;
};

Deno.stdin.readSync = (/** @type {Uint8Array} */ buffer) => {
  const bytes = stdin.shift();
  if (bytes === undefined) return null;
  buffer.set(bytes.subarray(0, buffer.length));
  if (bytes.length <= buffer.length) return bytes.length;
  stdin.unshift(bytes.subarray(buffer.length));
  return buffer.length;
};
Deno.stdout.writeSync = writeTo(stdout);
const writeSync = Deno.stdout.writeSync;
Deno.stdout.write = (/** @type {Uint8Array} */ bytes) =>
  Promise.resolve(writeSync(bytes));
Deno.stderr.writeSync = writeTo(stderr);

/**
 * Take what was written.
 *
 * @param {Uint8Array[]} written `stdout` or `stderr`.
 * @returns {string}
 */
export function take(written) {
  return new TextDecoder().decode(joined(written.splice(0)));
}

/**
 * @param {Uint8Array[]} pieces
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function joined(pieces) {
  return Uint8Array.from(pieces.flatMap((piece) => [...piece]));
}
