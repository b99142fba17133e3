// @ts-check
/**
 * Calls of the handler's functions from an empty stack: what their errors show, wherever
 * they are printed, has no frame of the runtime.
 *
 * @module
 */

/**
 * @typedef {object} Receiver
 * @property {(result: any) => void} onResult Gets what was returned, promise or not.
 * @property {(error: unknown) => void} onError Gets what was thrown.
 */

/** Of the call that is being prepared. */
let receiver = /** @type {Receiver} */ (/** @type {unknown} */ (null));

/** What `then` makes in place of a promise: it takes a result as it is. */
class Taker {
  /** @param {(onResult: unknown, onError: unknown) => void} executor */
  constructor(executor) {
    executor(receiver.onResult, receiver.onError);
  }
}

/** Promises whose `then` makes no other promise. */
class Start extends Promise {}
Object.defineProperty(Start, Symbol.species, { value: Taker });

// Taken before the handler's module can replace them.
/** @type {(promise: Promise<unknown>, callee: () => unknown) => void} */
const thenCall = Function.prototype.call.bind(Promise.prototype.then);
/** @type {(callee: Function, owner: unknown, ...args: unknown[]) => () => unknown} */
const bind = Function.prototype.call.bind(Function.prototype.bind);

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
  thenCall(
    new Start((resolve) => resolve(last)),
    bind(callee, owner, ...args),
  );
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
  return new Promise((resolve, reject) => {
    const onError = (/** @type {unknown} */ error) => reject(error);
    const onResult = (/** @type {any} */ result) => {
      try {
        if (typeof result?.then !== "function") resolve(result);
        else {
          result.then(
            (/** @type {unknown} */ value) => resolve(value),
            onError,
          );
        }
      } catch (error) {
        reject(error);
      }
    };
    call({ onResult, onError }, callee, owner, args);
  });
}
