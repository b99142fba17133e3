// @ts-check
/** The same code in two texts, and the mappings that lead from one to the other. */

import assert from "node:assert/strict";
import { Alignment } from "../../src/lambda_deno_spawn/dev/package/alignment.js";
import { moved } from "../../src/lambda_deno_spawn/dev/package/places.js";

/**
 * Returns the place of a text in another one.
 *
 * @param {string} text
 * @param {string} part
 * @returns {[line: number, column: number]}
 */
function placeOf(text, part) {
  const lines = text.slice(0, text.indexOf(part)).split(
    /\r\n?|[\n\u2028\u2029]/,
  );
  return [lines.length - 1, lines[lines.length - 1].length];
}

for (
  const [name, original, printed] of [
    ["blank lines", "\n\na\n\n  .  HERE ( )", "a.HERE();\n"],
    ["a line feed as on Windows", "a\r\n\r\n\r\nHERE", "a;\nHERE;\n"],
    ["a line feed of old", "a\r\r\rHERE", "a;\nHERE;\n"],
    ["rare line feeds", "a\u2028\u2029HERE", "a;\nHERE;\n"],
    ["comments", "/* a\nb */ // c ' \"\n HERE", "/* a\nb */ // c\nHERE;\n"],
    ["a hashbang", "#!/bin/x \"'`\nHERE", "HERE;\n"],
    ["parentheses", "x => (  a), HERE", "(x)=>a, HERE"],
    ["commas", "[1,2,], HERE", "[\n1,\n2\n], HERE"],
    ["quotes", "'it\\'s' + HERE", '"it\'s" + HERE'],
    ["escapes", "'\\x41é' + HERE", '"A\\xe9" + HERE'],
    ["a string on two lines", "'a\\\r\nb' + HERE", "'ab' + HERE"],
    ["a string without an end", "' + HERE", "'  + HERE"],
    [
      "templates",
      "`a ${ `b ${ {c : '}'} }` } '` + HERE",
      "`a ${`b ${{c: '}'}}`} '` + HERE",
    ],
    ["code in a template", "`a\n${\n  HERE }`", "`a\n${HERE}`"],
    [
      "regular expressions",
      "a = /[/'`]\\/\"/g.b ; HERE",
      "a = /[/'`]\\/\"/g.b;HERE",
    ],
    ["one after a word", "return /'/ . HERE", "return /'/.HERE"],
    ["divisions", "a  /  2  /  g['b'] / HERE", "a / 2 / g['b'] / HERE"],
    [
      "division of a regular expression",
      "/a/ / b / '/' + HERE",
      "/a/ / b / '/' + HERE",
    ],
    ["characters beyond 16 bits", "'😀';  𝒳 . HERE", "'😀'; 𝒳.HERE"],
    [
      "code that is replaced",
      "\n\nif (import.meta.main) ;\n a ; HERE",
      "if (false) ;a;HERE",
    ],
    ["code that is added", "a\n\n\nb\nc\nd\nHERE", "a;x + y;b;c;d;HERE"],
    ["the end of a token", "b  .  aHERE", "b.aHERE"],
    ["optional tokens", "a  =  b  (HERE", "a = b(HERE"],
  ]
) {
  Deno.test(`original() finds a place despite ${name}`, () => {
    const alignment = new Alignment(printed, original);
    assert.deepEqual(
      alignment.original(...placeOf(printed, "HERE")),
      placeOf(original, "HERE"),
    );
  });
}

Deno.test("original() finds a place of a parenthesis", () => {
  const alignment = new Alignment("a(b);\n", "a /* ( */\n  ( b )\n");
  assert.deepEqual(alignment.original(0, 1), [1, 2]);
});

Deno.test("original() stays before what is not in the original", () => {
  const alignment = new Alignment("a\nx + y", "\n\na\n\n\n\n");
  assert.deepEqual(alignment.original(1, 4), [2, 0]);
  assert.deepEqual(alignment.original(9, 99), [2, 0]);
  assert.deepEqual(new Alignment("a", "b").original(0, 0), [0, 0]);
});

Deno.test("share says whether the texts are the same code", () => {
  assert.equal(new Alignment("a(b);\n", "a ( b )").share, 1);
  assert.equal(new Alignment("a b c d", "e f g").share, 0);
  assert.equal(new Alignment("", "").share, 0);
});

// Numbers that are the same in each run.
let seed = 1;

/** @param {number} limit */
function random(limit) {
  seed = seed * 48271 % 2147483647;
  return seed % limit;
}

Deno.test("original() finds every token of random code in random white space", () => {
  const tokens = [
    "a",
    "b1",
    "$",
    "return",
    "1.5",
    "'s\"'",
    '"s\\\n"',
    "`t`",
    "{",
    "}",
  ];
  tokens.push("(", ")", "[", "]", ";", ",", ".", "=", "=>", "+", "?", "é", "𝒳");
  const spaces = [
    " ",
    "\n",
    "\r\n",
    "\t ",
    "\n\n",
    " /* ' */ ",
    " // `\n",
    "\u2028",
  ];
  for (let turn = 0; turn < 300; turn++) {
    let original = "", printed = "";
    const places = [];
    for (let count = random(40); count > 0; count--) {
      const token = tokens[random(tokens.length)];
      if (!"(),;".includes(token)) {
        places.push([printed.length, original.length]);
      }
      if (!"(),;".includes(token) || random(2)) printed += token + " ";
      original += token + spaces[random(spaces.length)];
    }
    const alignment = new Alignment(printed, original);
    for (const [place, expected] of places) {
      const [line, column] = placeOf(`${printed.slice(0, place)}\0`, "\0");
      const found = alignment.original(line, column);
      assert.deepEqual(
        found,
        placeOf(`${original.slice(0, expected)}\0`, "\0"),
      );
    }
  }
});

Deno.test("a long string and a long template are read", () => {
  const long = "x\\n".repeat(1_000_000);
  const text = `a = "${long}" + \`${long}\` + b`;
  const alignment = new Alignment(text, `\n\n${text}`);
  assert.deepEqual(alignment.original(0, text.length - 1), [
    2,
    text.length - 1,
  ]);
});

// In each line: column in the bundle, source, line, column; or the first one alone.
const MAPPINGS = "AAAA;;EACEA,C;ACDF,IAIA;ADAA";

Deno.test("moved() leaves mappings of other sources as they are", () => {
  assert.equal(moved(MAPPINGS, new Map()), MAPPINGS);
  assert.equal(moved("", new Map()), "");
  /** @type {(line: number, column: number) => [number, number]} */
  const original = (line, column) => [line, column];
  for (const sources of [[0], [1], [0, 1]]) {
    const same = new Map(sources.map((index) => [index, { original }]));
    assert.equal(moved(MAPPINGS, same), MAPPINGS);
  }
});

Deno.test("moved() changes the mappings of a source, and what follows from them", () => {
  /** @type {(line: number, column: number) => [number, number]} */
  const original = (line, column) => [line + 1000, column + 16];
  const there = moved(MAPPINGS, new Map([[1, { original }]]));
  assert.equal(there, "AAAA;;EACEA,C;ACu+Bc,IAIA;ADx+BhB");
  /** @type {(line: number, column: number) => [number, number]} */
  const back = (line, column) => [line - 1000, column - 16];
  assert.equal(moved(there, new Map([[1, { original: back }]])), MAPPINGS);
});
