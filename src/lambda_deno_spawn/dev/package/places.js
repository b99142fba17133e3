// @ts-check
/**
 * The places that a bundle's source map gives: those in the files on disk.
 *
 * Deno's bundler prints JavaScript modules anew before esbuild reads them, and keeps no
 * map of that. So the bundle's map leads to lines and columns of the printed text. This
 * program takes the path of a map and the indexes of sources, with commas between, and
 * writes JSON to stdout: `mappings`, those that lead to the files, and `sources`, the
 * indexes of the sources for which they are others.
 * Does not know how a bundle is made. JavaScript, because Python took seven times the
 * processor time for a bundle of 4 MB.
 * Specification: ECMA-426, source map format; Deno's `cli/tools/bundle`.
 *
 * @module
 */

import { Alignment } from "./alignment.js";

const DIGITS = new TextEncoder().encode(
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
);
const VALUES = new Uint8Array(128);
DIGITS.forEach((digit, value) => VALUES[digit] = value);
const CONTINUES = 32;
const COMMA = 44, SEMICOLON = 59;
// Less than this part of a text found in another one: they are not the same code.
const SAME_CODE = 0.5;

/**
 * Returns the mappings that lead to other places in some sources.
 *
 * @param {string} mappings
 * @param {Map<number, Pick<Alignment, "original">>} alignments Of sources, by index.
 */
export function moved(mappings, alignments) {
  const read = new TextEncoder().encode(mappings);
  // A number, of at least one digit, becomes one of at most seven.
  const written = new Uint8Array(7 * read.length);
  let at = 0, end = 0;
  let source = 0, line = 0, column = 0;
  let lastLine = 0, lastColumn = 0; // as written

  function take() {
    let value = 0, shift = 0, digit;
    do {
      digit = VALUES[read[at++]];
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & CONTINUES);
    return value & 1 ? -(value >>> 1) : value >>> 1;
  }

  /** @param {number} number */
  function put(number) {
    let value = number < 0 ? -number << 1 | 1 : number << 1;
    for (; value > 31; value >>>= 5) {
      written[end++] = DIGITS[value & 31 | CONTINUES];
    }
    written[end++] = DIGITS[value];
  }

  function isInSegment() {
    return at < read.length && read[at] !== COMMA && read[at] !== SEMICOLON;
  }

  while (at < read.length) {
    if (!isInSegment()) {
      written[end++] = read[at++];
      continue;
    }
    put(take()); // column in the bundle
    if (!isInSegment()) continue;
    const other = take();
    source += other;
    line += take();
    column += take();
    const place = alignments.get(source)?.original(line, column);
    const newLine = place ? place[0] : line;
    const newColumn = place ? place[1] : column;
    put(other);
    put(newLine - lastLine);
    put(newColumn - lastColumn);
    lastLine = newLine;
    lastColumn = newColumn;
    if (isInSegment()) put(take()); // name
  }
  return new TextDecoder().decode(written.subarray(0, end));
}

/** @param {string} file */
function contentOf(file) {
  try {
    // As Deno decodes modules: without a byte order mark, whatever the bytes are.
    return new TextDecoder().decode(Deno.readFileSync(file));
  } catch {
    return undefined; // not a file: the map leads to where it did
  }
}

/**
 * @param {string} file
 * @param {number[]} indexes
 */
function main(file, indexes) {
  const map = JSON.parse(Deno.readTextFileSync(file));
  const folder = file.slice(0, file.lastIndexOf("/"));
  /** @type {Map<number, Alignment>} */
  const alignments = new Map();
  for (const index of indexes) {
    const printed = map.sourcesContent[index];
    const path = decodeURIComponent(map.sources[index]);
    const content = contentOf(
      path.startsWith("/") ? path : `${folder}/${path}`,
    );
    if (!printed || content === undefined || content === printed) continue;
    const alignment = new Alignment(printed, content);
    if (alignment.share >= SAME_CODE) alignments.set(index, alignment);
  }
  const mappings = moved(map.mappings, alignments);
  console.log(JSON.stringify({ mappings, sources: [...alignments.keys()] }));
}

if (import.meta.main) main(Deno.args[0], Deno.args[1].split(",").map(Number));
