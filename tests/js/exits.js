// @ts-check
/**
 * A double for `Deno.exit`. To be imported before the parts of runtime.js, which take it
 * when they load.
 */

/** How many exits there were; each wakes `exited`. */
export const exits = { count: 0, exited: Promise.withResolvers() };

// @ts-ignore it returns
Deno.exit = () => {
  exits.count += 1;
  exits.exited.resolve(undefined);
};

/** @returns {Promise<unknown>} Resolves at the next exit. */
export function nextExit() {
  exits.exited = Promise.withResolvers();
  return exits.exited.promise;
}
