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
 * @param {Record<string, string | null>} variables
 */
export function standIn(variables) {
  const { env } = Deno;
  const { get, set, has, toObject } = env;
  const remove = env.delete;
  /** @type {(name: string) => boolean} */
  const isOurs = (name) => typeof name === "string" && name in variables;
  Object.setPrototypeOf(variables, null);
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
      for (const name in variables) {
        const value = variables[name];
        if (value !== null) all[name] = value;
      }
      return all;
    },
  });
}
