// @ts-check
/**
 * Functions that few events need, in the joined file.
 *
 * @module
 */

/**
 * Make all of them, in a process that is to be forked: no child has to do it. Written by
 * build.py, as among modules there is nothing to make.
 */
export function makeLate() {}
