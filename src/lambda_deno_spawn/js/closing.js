// @ts-check
/**
 * The end of a worker that serves more than one event, whether it waits for the next one
 * or not: time for what its handler has open. Loaded for such workers only. Normative
 * text: docs/protocol.md.
 *
 * @module
 */

// Taken before the handler's module can replace them.
const { addSignalListener, exit } = Deno;
// @ts-ignore not part of the public types; setTimeout would load Node's timers
const { cancelTimer, createSystemTimer } = Deno[Deno.internal].core;

/**
 * Listen to the supervisor's word that the end has come, as the handler may too. A
 * process in which nobody listened would end at once, without `unload`; one in which
 * only a handler does might never end.
 *
 * @param {number} limitMs After the word, until it exits whatever is open.
 * @param {() => void} onClosing Called when the word has come.
 * @returns {() => Promise<void>} To be called at the end of stdin: waits for the word,
 *   which may come behind it. If it does not, the supervisor is gone: exits.
 */
export function listenForTheEnd(limitMs, onClosing) {
  /** @type {PromiseWithResolvers<void>} */
  const { promise, resolve } = Promise.withResolvers();
  let isClosing = false;
  addSignalListener("SIGTERM", () => {
    if (isClosing) return;
    isClosing = true;
    // Not awaited by the event loop: with nothing left to do the process ends earlier.
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
