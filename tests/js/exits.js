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

/**
 * The timer that ends a process does not keep the event loop going: another one has to,
 * as it depends on the machine's speed whether there is anything else left to do.
 *
 * @returns {Promise<void>} Resolves at the next exit.
 */
export async function nextExit() {
  exits.exited = Promise.withResolvers();
  const open = setInterval(() => {}, 60_000);
  await exits.exited.promise;
  clearInterval(open);
}
