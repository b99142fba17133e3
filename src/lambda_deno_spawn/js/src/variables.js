// @ts-check
/**
 * Environment variables that Deno itself obeys, as the handler sees them.
 *
 * @module
 */

/**
 * Let code read and set copies of the variables that Deno itself obeys. The real ones
 * say where Deno's module loader connects and what it trusts, so Deno denies them to
 * code (decision 0028); the copies are for libraries that look at them. `process.env`
 * is served as well, because it asks `Deno.env`. A Web Worker has no copies.
 *
 * @param {string} names With commas between them.
 * @param {Record<string, string>} given Those of them that are set.
 */
export function standIn(names, given) {
  const { env } = Deno;
  const { get, set, has, toObject } = env;
  const remove = env.delete;
  /** Null: not set. @type {Record<string, string | null>} */
  let variables;
  /** @type {(name: string) => boolean} */
  const isOurs = (name) => {
    // Not before code asks for one: that takes longer than all else here.
    variables ??= copiesOf(names, given);
    return typeof name === "string" && name in variables;
  };
  Object.assign(env, {
    get: (/** @type {string} */ name) =>
      isOurs(name) ? variables[name] ?? undefined : get(name),
    has: (/** @type {string} */ name) =>
      isOurs(name) ? variables[name] !== null : has(name),
    set(/** @type {string} */ name, /** @type {string} */ value) {
      if (isOurs(name)) variables[name] = String(value);
      else set(name, value);
    },
    delete(/** @type {string} */ name) {
      if (isOurs(name)) variables[name] = null;
      else remove(name);
    },
    toObject() {
      const all = toObject();
      isOurs("");
      for (const name in variables) {
        const value = variables[name];
        if (value !== null) all[name] = value;
      }
      return all;
    },
  });
}

/**
 * @param {string} names
 * @param {Record<string, string>} given
 * @returns {Record<string, string | null>} Without a prototype.
 */
function copiesOf(names, given) {
  const copies = Object.create(null);
  for (const name of names === "" ? [] : names.split(",")) {
    copies[name] = given[name] ?? null;
  }
  return copies;
}
