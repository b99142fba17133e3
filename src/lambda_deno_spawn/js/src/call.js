// @ts-check
/**
 * Calls of the handler's functions from an empty stack: what their errors show, wherever
 * they are printed, has no frame of the runtime.
 *
 * @module
 */

import { withResolvers } from "./primordials.js";

/**
 * @typedef {object} Receiver
 * @property {(result: any) => void} onResult Gets what was returned, promise or not.
 * @property {(error: unknown) => void} onError Gets what was thrown.
 */

/** Of the call that is being prepared. */
let receiver = /** @type {Receiver} */ (/** @type {unknown} */ (null));

/**
 * What `then` makes in place of a promise: it takes a result as it is.
 *
 * @param {(onResult: unknown, onError: unknown) => void} executor
 */
function Taker(executor) {
  executor(receiver.onResult, receiver.onError);
}

// The promises whose `then` makes it have its prototype: that leads `then` to it.
Taker.prototype = Object.create(Promise.prototype, {
  constructor: { value: { [Symbol.species]: Taker } },
});

// Taken before the handler's module can replace them.
const { construct } = Reflect;
/** @type {(promise: Promise<unknown>, callee: () => unknown) => void} */
const thenCall = Function.prototype.call.bind(Promise.prototype.then);
const OwnPromise = Promise;
/** @type {(callee: Function, owner: unknown, ...args: unknown[]) => any} */
export const bind = Function.prototype.call.bind(Function.prototype.bind);

/**
 * Call a function from the queue of microtasks.
 *
 * @param {Receiver} receiving
 * @param {Function} callee
 * @param {unknown} owner
 * @param {unknown[]} args
 */
export function call(receiving, callee, owner, args) {
  receiver = receiving;
  // What a promise has is passed on as the last argument.
  const last = args.pop();
  const promise = construct(
    OwnPromise,
    [(/** @type {(value: unknown) => void} */ resolve) => resolve(last)],
    Taker,
  );
  thenCall(promise, bind(callee, owner, ...args));
}

/**
 * Call a function, and wait for its result without being on its stack.
 *
 * @param {Function} callee
 * @param {unknown} owner
 * @param {unknown[]} args
 * @returns {Promise<any>}
 */
export function callAndWait(callee, owner, args) {
  const { promise, resolve, reject } = withResolvers();
  const onResult = bind(passOn, undefined, resolve, reject);
  call({ onResult, onError: reject }, callee, owner, args);
  return promise;
}

/**
 * @param {(value: unknown) => void} resolve
 * @param {(error: unknown) => void} reject
 * @param {any} result What was returned.
 */
function passOn(resolve, reject, result) {
  try {
    // Resolved with the promise itself, ours would add frames to its stack.
    if (typeof result?.then !== "function") resolve(result);
    else result.then(bind(resolve, undefined), bind(reject, undefined));
  } catch (error) {
    reject(error);
  }
}
