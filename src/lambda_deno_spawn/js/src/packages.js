// @ts-check
/**
 * Packages of layers, and of `NODE_PATH`: Deno's `require` does not look there, and
 * functions for Lambda's Node.js runtime rely on it.
 *
 * @module
 */

/**
 * Let `require` look in more folders, after all others. As in Node, `import` does not.
 *
 * @param {string[]} folders
 */
export async function searchFolders(folders) {
  /** @type {any} */
  const { default: Module } = await import("node:module");
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
