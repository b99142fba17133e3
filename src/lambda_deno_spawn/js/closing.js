// @ts-check
/**
 * The end of a worker that serves more than one event: gives its handler time to close
 * what is open. Loaded for such workers only. Normative text: docs/protocol.md.
 *
 * @module
 */

// Taken before the handler's module can replace them.
const { addSignalListener, exit } = Deno;
// @ts-ignore not part of the public types. setTimeout would load Node's timers.
const { cancelTimer, createSystemTimer } = Deno[Deno.internal].core;

/**
 * Listen for SIGTERM, by which the supervisor says that the end has come; the handler
 * may listen too. A process without a listener would end at once, without `unload`; one
 * whose only listener is the handler's might never end.
 *
 * @param {number} limitMs Time from the signal until the process exits, whatever is
 *   open.
 * @param {() => void} onClosing Called when the signal has come.
 * @returns {() => Promise<void>} To be called at the end of stdin: waits for the
 *   signal, which may come later, and exits if it does not come, as the supervisor is
 *   gone then.
 */
export function listenForTheEnd(limitMs, onClosing) {
  /** @type {PromiseWithResolvers<void>} */
  const { promise, resolve } = Promise.withResolvers();
  let isClosing = false;
  addSignalListener("SIGTERM", () => {
    if (isClosing) return;
    isClosing = true;
    // False: with nothing left to do, the event loop does not wait for this timer.
    createSystemTimer(() => exit(0), limitMs, false);
    onClosing();
    resolve();
  });
  return async () => {
    const timer = createSystemTimer(() => exit(0), limitMs, true);
    await promise;
    cancelTimer(timer);
  };
}
