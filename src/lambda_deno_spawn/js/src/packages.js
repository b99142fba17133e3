// @ts-check
/**
 * Where `require` looks for packages. Deno's does not look in layers and `NODE_PATH`,
 * on which functions for Lambda's Node.js runtime rely, and gives up at a folder that it
 * may not read.
 *
 * @module
 */

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
