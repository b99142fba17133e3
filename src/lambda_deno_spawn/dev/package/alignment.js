// @ts-check
/**
 * Places in a JavaScript text, found again in another text of the same code.
 *
 * A printer of code changes white space and comments, quotes and escapes, and adds or
 * drops parentheses, semicolons and trailing commas. The other tokens stay, in their
 * order. Knows neither bundles nor source maps. All places count UTF-16 units from 0.
 * Specification: ECMA-262, "Lexical Grammar".
 *
 * @module
 */

const LINE_END = /\r\n?|[\n\u2028\u2029]/g;
const IN_LINE = /[^\n\r\u2028\u2029]*/y;
const SPACE = /\s/;
const OPTIONAL = "(),;";
// A slash after one of these begins a regular expression, after other words it divides.
const BEFORE_VALUE = new Set(
  ("await case delete do else extends in instanceof new of return throw typeof " +
    "void yield").split(" "),
);
const ENDS_VALUE = ")]}\"'`";
// To go on after a difference: as many equal tokens, within so many.
const RUN = 4;
const WINDOW = 200;

/**
 * The tokens of a text, without those that a printer adds or drops.
 *
 * @typedef {object} Tokens
 * @property {string} text
 * @property {number[]} starts The place of each token.
 * @property {number[]} ends The place after each token.
 */

/** Two texts of the same code. */
export class Alignment {
  /** @type {Tokens} */
  #printed;
  /** @type {Tokens} */
  #original;
  /** Tokens in both: their places as printed, and original indexes. */
  #pairs;
  #lines;
  /** Where the last place was found: among the pairs, and original lines. */
  #near = [0, 0];

  /**
   * @param {string} printed What a printer made of the code.
   * @param {string} original The code.
   */
  constructor(printed, original) {
    this.#printed = tokensOf(printed);
    this.#original = tokensOf(original);
    this.#pairs = pairsOf(this.#printed, this.#original);
    this.#lines = [linesOf(printed), linesOf(original)];
  }

  /** The part of the printed text's tokens that were found: 1 is all of them. */
  get share() {
    return this.#pairs[0].length / (this.#printed.starts.length || 1);
  }

  /**
   * Returns the original's line and column for those of the printed text. If the code
   * there is not in the original, it is the nearest one before that is.
   *
   * @param {number} line
   * @param {number} column
   * @returns {[line: number, column: number]}
   */
  original(line, column) {
    const [printed, original] = this.#lines;
    const place = this.#placeOf(
      printed[Math.min(line, printed.length - 1)] + column,
    );
    const found = last(original, place, this.#near[1]);
    this.#near[1] = found;
    return [found, place - original[found]];
  }

  /** @param {number} place */
  #placeOf(place) {
    const [ours, theirs] = this.#pairs;
    const { text } = this.#printed;
    const at = last(ours, place, this.#near[0]);
    if (at < 0) return 0;
    this.#near[0] = at;
    const anchor = ours[at];
    const begin = this.#original.starts[theirs[at]];
    // In a token, or after it with the same text between.
    if (
      anchor === place ||
      this.#original.text.startsWith(text.slice(anchor, place + 1), begin)
    ) return begin + place - anchor;
    const end = this.#original.starts[theirs[at] + 1] ??
      this.#original.text.length;
    return optionalToken(
      this.#original,
      text[place],
      this.#original.ends[theirs[at]],
      end,
    ) ?? begin;
  }
}

/**
 * Returns the index of the last value that is not larger than another one; -1: all are.
 *
 * @param {number[]} values In order.
 * @param {number} value
 * @param {number} near An index to begin at: most searches end there or at the next one.
 */
function last(values, value, near) {
  let low = 0, high = values.length;
  for (let at = near; at <= near + 1 && at < high; at++) {
    if (values[at] <= value) low = at + 1;
    else high = at;
  }
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** @param {string} text */
function linesOf(text) {
  const starts = [0];
  for (const end of text.matchAll(LINE_END)) {
    starts.push(end.index + end[0].length);
  }
  return starts;
}

/**
 * Returns the place of a token that is one character, between two places.
 *
 * @param {Tokens} tokens
 * @param {string} character
 * @param {number} begin
 * @param {number} end
 */
function optionalToken({ text }, character, begin, end) {
  for (
    let at = afterSpace(text, begin);
    at < end;
    at = afterSpace(text, at + 1)
  ) {
    if (text[at] === character) return at;
  }
}

// Which tokens are the same.

/**
 * Returns the tokens that are in both texts, in order: their places in the first one,
 * and their indexes in the second one.
 *
 * @param {Tokens} ours
 * @param {Tokens} theirs
 * @returns {[number[], number[]]}
 */
function pairsOf(ours, theirs) {
  /** @type {number[]} */
  const found = [];
  /** @type {number[]} */
  const others = [];
  let one = 0, other = 0;
  while (one < ours.starts.length && other < theirs.starts.length) {
    if (isSame(ours, one, theirs, other)) {
      found.push(ours.starts[one++]);
      others.push(other++);
    } else {
      const skipped = difference(ours, one, theirs, other);
      if (skipped === undefined) break;
      one += skipped[0];
      other += skipped[1];
    }
  }
  return [found, others];
}

/**
 * Returns how many tokens differ from two places on, as few as possible; undefined: all,
 * as far as it sees.
 *
 * @param {Tokens} ours
 * @param {number} one
 * @param {Tokens} theirs
 * @param {number} other
 */
function difference(ours, one, theirs, other) {
  for (let sum = 1; sum < WINDOW; sum++) {
    for (let ahead = 0; ahead <= sum; ahead++) {
      if (isRun(ours, one + ahead, theirs, other + sum - ahead)) {
        return [ahead, sum - ahead];
      }
    }
  }
}

/**
 * @param {Tokens} ours
 * @param {number} one
 * @param {Tokens} theirs
 * @param {number} other
 */
function isRun(ours, one, theirs, other) {
  for (let ahead = 0; ahead < RUN; ahead++, one++, other++) {
    const isEnd = one >= ours.starts.length;
    if (isEnd !== other >= theirs.starts.length) return false;
    if (isEnd) return ahead > 0;
    if (!isSame(ours, one, theirs, other)) return false;
  }
  return true;
}

/**
 * Whether two tokens are the same. All strings are, and all parts of templates: their
 * quotes and escapes may differ.
 *
 * @param {Tokens} ours
 * @param {number} one
 * @param {Tokens} theirs
 * @param {number} other
 */
function isSame(ours, one, theirs, other) {
  const begin = ours.starts[one], otherBegin = theirs.starts[other];
  const length = ours.ends[one] - begin;
  const otherLength = theirs.ends[other] - otherBegin;
  const kind = kindOf(ours.text, begin, length);
  if (kind !== kindOf(theirs.text, otherBegin, otherLength)) return false;
  if (kind === '"' || kind === "`") return true;
  if (length !== otherLength) return false;
  for (let at = 1; at < length; at++) {
    const code = ours.text.charCodeAt(begin + at);
    if (code !== theirs.text.charCodeAt(otherBegin + at)) return false;
  }
  return true;
}

/**
 * @param {string} text
 * @param {number} begin
 * @param {number} length
 */
function kindOf(text, begin, length) {
  const first = text[begin];
  if (first === "'") return '"';
  return first === "}" && length > 1 ? "`" : first;
}

// Where tokens begin and end. Each function returns the place after what it reads. They
// read character by character: expressions for this fail at long strings.

/**
 * @param {string} text
 * @returns {Tokens}
 */
export function tokensOf(text) {
  /** @type {Tokens} */
  const tokens = { text, starts: [], ends: [] };
  /** Braces in each template that is open. @type {number[]} */
  const depths = [];
  let begin = 0, end = text.startsWith("#!") ? afterLine(text, 0) : 0;
  for (
    let at = afterSpace(text, end);
    at < text.length;
    at = afterSpace(text, end)
  ) {
    const first = text[at];
    if (first === "/") {
      end = beginsValue(text, begin, end) ? afterRegExp(text, at) : at + 1;
    } else {
      end = afterToken(text, at, depths);
    }
    if (!OPTIONAL.includes(first)) {
      tokens.starts.push(at);
      tokens.ends.push(end);
    }
    begin = at;
  }
  return tokens;
}

/**
 * @param {string} text
 * @param {number} at
 * @param {number[]} depths
 */
function afterToken(text, at, depths) {
  const inner = depths.length - 1;
  switch (text[at]) {
    case '"':
    case "'":
      return afterString(text, at);
    case "{":
      if (inner >= 0) depths[inner]++;
      return at + 1;
    case "}":
      if (inner < 0 || depths[inner]-- > 0) return at + 1;
      depths.pop();
      return afterTemplate(text, at, depths);
    case "`":
      return afterTemplate(text, at, depths);
  }
  while (isWord(text.charCodeAt(at))) {
    at++;
    if (!isWord(text.charCodeAt(at))) return at;
  }
  return at + 1;
}

/**
 * @param {string} text
 * @param {number} begin The token before the slash.
 * @param {number} end
 */
function beginsValue(text, begin, end) {
  if (begin === end) return true;
  if (isWord(text.charCodeAt(begin))) {
    return BEFORE_VALUE.has(text.slice(begin, end));
  }
  // A regular expression, too, ends a value.
  return end - begin === 1 && !ENDS_VALUE.includes(text[begin]);
}

/** @param {number} code Not a number: the end. */
function isWord(code) {
  return code >= 97 && code <= 122 || code >= 65 && code <= 90 ||
    code >= 48 && code <= 57 || code === 95 || code === 36 ||
    code > 127 && !SPACE.test(String.fromCharCode(code));
}

/**
 * Reads white space and comments.
 *
 * @param {string} text
 * @param {number} at
 */
function afterSpace(text, at) {
  for (;; at++) {
    const code = text.charCodeAt(at);
    if (code === 32 || code >= 9 && code <= 13) continue;
    if (code === 47) {
      const next = text[at + 1];
      if (next !== "/" && next !== "*") return at;
      if (next === "/") at = afterLine(text, at) - 1;
      else {
        const end = text.indexOf("*/", at + 2);
        if (end < 0) return text.length;
        at = end + 1;
      }
    } else if (!(code > 127 && SPACE.test(text[at]))) {
      return at;
    }
  }
}

/**
 * @param {string} text
 * @param {number} at
 */
function afterLine(text, at) {
  IN_LINE.lastIndex = at;
  IN_LINE.test(text);
  return IN_LINE.lastIndex;
}

/**
 * Reads a string, or its quote alone if it does not end in its line.
 *
 * @param {string} text
 * @param {number} begin
 */
function afterString(text, begin) {
  for (let at = begin + 1; at < text.length; at++) {
    const one = text[at];
    if (one === text[begin]) return at + 1;
    if (one === "\\") at += text.startsWith("\r\n", at + 1) ? 2 : 1;
    else if (one === "\n" || one === "\r") break;
  }
  return begin + 1;
}

/**
 * Reads a template, from its begin or the end of an expression to the next one.
 *
 * @param {string} text
 * @param {number} at
 * @param {number[]} depths
 */
function afterTemplate(text, at, depths) {
  for (at++; at < text.length; at++) {
    const one = text[at];
    if (one === "`") return at + 1;
    if (one === "\\") at++;
    else if (one === "$" && text[at + 1] === "{") {
      depths.push(0);
      return at + 2;
    }
  }
  return at;
}

/**
 * Reads a regular expression, or the slash alone if it is none.
 *
 * @param {string} text
 * @param {number} begin
 */
function afterRegExp(text, begin) {
  let isClass = false;
  for (let at = begin + 1; at < text.length; at++) {
    const one = text[at];
    if (one === "\n" || one === "\r") break;
    if (one === "\\") at++;
    else if (one === "[") isClass = true;
    else if (one === "]") isClass = false;
    else if (one === "/" && !isClass) {
      do at++; while (isWord(text.charCodeAt(at)));
      return at;
    }
  }
  return begin + 1;
}
