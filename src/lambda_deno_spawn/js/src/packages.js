// @ts-check
/**
 * The folders in which `require` looks for modules. Deno's does not look in layers and
 * `NODE_PATH`, on which functions for Lambda's Node.js runtime rely, and fails at a file
 * that it may not read, although that is to look as if it did not exist.
 *
 * @module
 */

/**
 * @typedef {(request: string, paths: string[], ...more: unknown[]) =>
 *   string | false | null} FindPath Null: it has failed.
 */

/** Set once, as a member of the constructor of modules, where Deno loads `require`. */
const SET_WHERE_LOADED = "_findPath";

/**
 * Let `require` go on where a file looks as if it did not exist. Deno loads `require`
 * when it is first needed; to load it for every handler would take time.
 */
export function mendRequire() {
  Object.defineProperty(Function.prototype, SET_WHERE_LOADED, {
    configurable: true,
    set(value) {
      const isRequire = "_pathCache" in this;
      Object.defineProperty(this, SET_WHERE_LOADED, {
        value: isRequire ? findingOn(value) : value,
        writable: true,
        enumerable: true,
        configurable: true,
      });
      if (isRequire) {
        Reflect.deleteProperty(Function.prototype, SET_WHERE_LOADED);
      }
    },
  });
}

/**
 * @param {FindPath} find Fails at a path that may not be read.
 * @returns {FindPath} Does not.
 */
function findingOn(find) {
  const { NotFound } = Deno.errors;
  /** @type {FindPath} */
  const findIn = (request, paths, ...more) => {
    try {
      return find(request, paths, ...more);
    } catch (error) {
      if (error instanceof NotFound) return null;
      throw error;
    }
  };
  return (request, paths, ...more) => {
    const found = findIn(request, paths, ...more);
    if (found !== null) return found;
    for (const path of paths) {
      const foundThere = findIn(request, [path], ...more);
      if (foundThere) return foundThere;
    }
    return false;
  };
}

/**
 * Let `require` look in other folders. As in Node, `import` does not.
 *
 * @param {string[]} folders Looked at after all others.
 * @param {string[]} closed Not looked at.
 */
export async function searchFolders(folders, closed) {
  /** @type {any} */
  const { default: Module } = await import("node:module");
  const above = Module._nodeModulePaths;
  /** @param {string} from */
  Module._nodeModulePaths = function (from) {
    return above.call(Module, from).filter((/** @type {string} */ path) =>
      !closed.includes(path)
    );
  };
  const lookUp = Module._resolveLookupPaths;
  /**
   * @param {string} request
   * @param {unknown} parent
   */
  Module._resolveLookupPaths = function (request, parent) {
    const paths = lookUp.call(Module, request, parent);
    const isPackage = Array.isArray(paths) && !/^\.{0,2}\//.test(request) &&
      request !== "." && request !== "..";
    return isPackage ? [...paths, ...folders] : paths;
  };
}
