// @ts-check
/** How errors are described: whatever was thrown, and within limits. */

import assert from "node:assert/strict";
import { runInNewContext } from "node:vm";
import { sayHello } from "./doubles.js";
import {
  advise,
  attempt,
  describe,
  errorBody,
  isError,
  loadErrorType,
  noteDenials,
  ourFiles,
  remedy,
  RuntimeError,
  untoldDenials,
} from "../../src/lambda_deno_spawn/js/src/errors.js";

/**
 * @param {unknown} error
 * @param {string} [errorType]
 */
function bodyOf(error, errorType) {
  const { bytes, type } = errorBody(error, errorType);
  assert.ok(bytes.length <= 262_144);
  const body = JSON.parse(
    new TextDecoder("utf-8", { fatal: true }).decode(bytes),
  );
  assert.equal(body.errorType, type);
  assert.ok(type.length <= 128);
  return body;
}

/**
 * @param {string} message
 * @param {object} members
 */
const errorWith = (message, members) =>
  Object.assign(new Error(message), members);

Deno.test("describe() names an error by its own name, with its stack", () => {
  sayHello();
  const body = describe(new RangeError("too far"));
  assert.equal(body.errorType, "RangeError");
  assert.equal(body.errorMessage, "too far");
  assert.match(body.stackTrace[0], /^at .*errors_test\.js:\d+:\d+\)?$/);
});

Deno.test("describe() leaves our own files out of a stack", () => {
  sayHello();
  const stack = `Error: m\n    at theirs (file:///var/task/f.ts:1:2)
    at run (${ourFiles()}runtime.js:9:9)\n    at async other (file:///a.ts:3:4)`;
  assert.deepEqual(describe(errorWith("m", { stack })).stackTrace, [
    "at theirs (file:///var/task/f.ts:1:2)",
    "at async other (file:///a.ts:3:4)",
  ]);
});

/** @type {[string, unknown, string, string][]} */
const VALUES = [
  ["text", "only text", "string", "only text"],
  ["null", null, "null", "null"],
  ["undefined", undefined, "undefined", "undefined"],
  ["a number", 42, "number", "42"],
  ["a bigint", 42n, "bigint", "42"],
  ["a symbol", Symbol("s"), "symbol", "Symbol(s)"],
  ["an object", { a: [1] }, "object", '{"a":[1]}'],
  ["a circle", circle(), "object", "a value that cannot be shown"],
  ["a hostile proxy", hostileProxy(), "object", "a value that cannot be shown"],
  ["an error whose message throws", hostileError(), "Error", ""],
  [
    "a name that is a symbol",
    errorWith("m", { name: Symbol("n") }),
    "Symbol(n)",
    "m",
  ],
  ["an empty name", errorWith("m", { name: "" }), "Error", "m"],
  [
    "a long name",
    errorWith("m", { name: "N".repeat(1_000) }),
    "N".repeat(128),
    "m",
  ],
  [
    "half a surrogate pair",
    errorWith("m", { name: "a\ud83d" }),
    "a\ufffd",
    "m",
  ],
  ["a message that is a number", errorWith("", { message: 7 }), "Error", "7"],
  ["no message at all", errorWith("", { message: undefined }), "Error", ""],
];

function circle() {
  const value = /** @type {Record<string, unknown>} */ ({});
  value.self = value;
  return value;
}

function hostileProxy() {
  const trap = () => {
    throw new Error("trap");
  };
  return new Proxy({}, { get: trap, getPrototypeOf: trap, ownKeys: trap });
}

function hostileError() {
  const error = new Error("hidden");
  for (const name of ["message", "stack", "cause", "errors"]) {
    Object.defineProperty(error, name, {
      get() {
        throw new Error("hostile");
      },
    });
  }
  return error;
}

for (const [what, value, type, message] of VALUES) {
  Deno.test(`${what} can be thrown`, () => {
    sayHello();
    const body = bodyOf(value);
    assert.equal(body.errorType, type);
    assert.equal(body.errorMessage, message);
    assert.ok(Array.isArray(body.stackTrace));
  });
}

Deno.test("describe() follows causes and aggregated errors, 32 in all", () => {
  sayHello();
  const inner = new TypeError("inner");
  const { cause, errors } = bodyOf(
    new AggregateError([inner, "text"], "outer", { cause: inner }),
  );
  assert.equal(cause.errorMessage, "inner");
  assert.deepEqual(
    errors.map((/** @type {any} */ one) => one.errorType),
    ["TypeError", "string"],
  );
  const both = new SuppressedError(inner, "text", "of using");
  assert.deepEqual(
    bodyOf(both).errors.map((/** @type {any} */ one) => one.errorMessage),
    ["inner", "text"],
  );
  const round = new Error("round");
  round.cause = round;
  assert.equal(JSON.stringify(bodyOf(round)).split('"round"').length - 1, 32);
  const many = new AggregateError(Array.from({ length: 99 }, () => inner), "m");
  assert.equal(bodyOf(many).errors.length, 31);
});

for (
  const [what, character] of [["ASCII", "x"], ["quotes", '"'], ["NUL", "\0"]]
) {
  Deno.test(`an error of 10 MB of ${what} is shortened, and says so`, () => {
    sayHello();
    const body = bodyOf(new Error(character.repeat(10_000_000)));
    assert.match(body.errorMessage, /\u2026 \(\d+ characters more\)$/);
    assert.ok(body.errorMessage.length > 20_000);
  });
}

Deno.test("several errors share the limit, the first ones whole", () => {
  sayHello();
  const long = Array.from({ length: 9 }, () => "x".repeat(50_000));
  const { errors } = bodyOf(new AggregateError(long, "m"));
  const [whole, cut, none] = [errors[0], errors[3], errors[8]].map(
    ({ errorMessage }) => errorMessage.length,
  );
  assert.equal(whole, 50_000);
  assert.ok(cut > 40_000 && cut < 50_000, `${cut}`);
  assert.ok(none < 100);
});

Deno.test("a long stack is shortened by the same limit as the message", () => {
  sayHello();
  const stack = `Error: m\n${"    at f (file:///f.ts:1:1)\n".repeat(20_000)}`;
  const { stackTrace } = bodyOf(errorWith("m", { stack }));
  assert.match(stackTrace.at(-1), /^\u2026 \(\d+ characters more\)$/);
  assert.equal(stackTrace[0], "at f (file:///f.ts:1:1)");
});

Deno.test("errorBody() takes a name of ours over the error's own", () => {
  sayHello();
  const body = bodyOf(new TypeError("m"), "Runtime.ImportModuleError");
  assert.equal(body.errorType, "Runtime.ImportModuleError");
  assert.equal(body.errorMessage, "m");
});

/** @type {[unknown, string][]} */
const REJECTIONS = [
  [new TypeError("m"), "TypeError: m"],
  [new Error("m"), "m"],
  [{ name: "mine", message: "m", stack: "s" }, "mine: m"],
  ["text", "text"],
  [undefined, "undefined"],
];

for (const [reason, message] of REJECTIONS) {
  Deno.test(`a rejection that is not handled keeps its name: ${message}`, () => {
    sayHello();
    const body = bodyOf(reason, "Runtime.UnhandledPromiseRejection");
    assert.equal(body.errorType, "Runtime.UnhandledPromiseRejection");
    assert.equal(body.errorMessage, message);
  });
}

/** @type {[unknown, string][]} */
const THROWN = [
  [{ code: 5 }, '{"code":5}'],
  [{ code: 5, toString: () => "custom" }, "custom"],
  [/x/, "/x/"],
  [new Map(), "[object Map]"],
  [{}, "[object Object]"],
  [Object.create(null), "{}"],
  [[{ a: 1 }], '[{"a":1}]'],
];

for (const [value, message] of THROWN) {
  Deno.test(`errorBody() shows what is thrown and not an error: ${message}`, () => {
    sayHello();
    const body = bodyOf(value);
    assert.equal(body.errorType, "object");
    assert.equal(body.errorMessage, message);
  });
}

Deno.test("prototypes that a handler has changed have no part in an error body", () => {
  sayHello();
  const spoilt = /** @type {any[]} */ ([Object.prototype, Array.prototype]);
  for (const prototype of spoilt) prototype.toJSON = () => "spoilt";
  try {
    assert.deepEqual(bodyOf(new Error("m")).errorMessage, "m");
    assert.ok(Array.isArray(bodyOf("text").stackTrace));
  } finally {
    for (const prototype of spoilt) delete prototype.toJSON;
  }
});

Deno.test("errorBody() says something even if nothing can be described", () => {
  sayHello();
  const { toWellFormed } = String.prototype;
  String.prototype.toWellFormed = () => {
    throw new Error("broken");
  };
  try {
    assert.deepEqual(bodyOf(new Error("m"), "Runtime.Ours"), {
      errorType: "Runtime.Ours",
      errorMessage: "an error that cannot be shown",
      stackTrace: [],
    });
  } finally {
    String.prototype.toWellFormed = toWellFormed;
  }
});

Deno.test("RuntimeError keeps its cause, and has none if it is given none", () => {
  assert.equal(new RuntimeError("Runtime.X", "m", 1).cause, 1);
  assert.equal("cause" in new RuntimeError("Runtime.X", "m"), false);
});

Deno.test("attempt() returns nothing for what throws", () => {
  assert.equal(attempt(() => 1), 1);
  assert.equal(attempt(() => JSON.parse("{")), undefined);
});

// How Deno 2.9 words a denied access, and the same text with the advice.
const OR_LIST =
  "(permissions in lambda.toml; `lambda-deno-spawn explain` tells more), " +
  'or list what the function may do under "permissions" in deno.json';
/** @type {[string, string][]} */
const DENIALS = [
  [
    'Requires read access to "/etc/passwd", run again with the --allow-read flag',
    'Requires read access to "/etc/passwd": set LAMBDA_DENO_PERMISSIONS="default ' +
    `--allow-read=/etc/passwd" ${OR_LIST}`,
  ],
  [
    "Requires env access, run again with the --allow-env flag",
    `Requires env access: set LAMBDA_DENO_PERMISSIONS="default --allow-env" ${OR_LIST}`,
  ],
  [
    "Requires write access to <TMP>, run again with the --allow-write flag",
    'Requires write access: set LAMBDA_DENO_PERMISSIONS="default ' +
    `--allow-write=$TMPDIR" ${OR_LIST}`,
  ],
  [
    "getaddrinfo EPERM a.test",
    'getaddrinfo EPERM a.test: set LAMBDA_DENO_PERMISSIONS="default ' +
    `--allow-net=a.test" ${OR_LIST}`,
  ],
];

for (const [said, advised] of DENIALS) {
  Deno.test(`advise() names the setting: ${said}`, () => {
    sayHello();
    assert.equal(advise(said), advised);
    assert.equal(advise(`one; ${said} two`), `one; ${advised} two`);
    assert.equal(describe(new Error(said)).errorMessage, advised);
  });
}

Deno.test("advise() says that a file which looks missing may be one that is hidden", () => {
  sayHello();
  const bare = "No such file or directory (os error 2)";
  const hint = /: if the path is one that the function may not read, .*=PATH"/;
  assert.match(advise(bare), hint);
  assert.match(
    advise(`NotFound: ${bare}\n    at f`),
    /PATH" .*, or .*\n {4}at f$/,
  );
  assert.match(describe(new Error(bare)).errorMessage, hint);
  for (
    const text of [`${bare}: readfile 'x'`, `Failed to spawn 'x': ${bare}`]
  ) {
    assert.equal(advise(text), text);
  }
  const own =
    `ENOENT: no such file or directory, open '${import.meta.filename}'`;
  assert.equal(advise(own), own);
  sayHello({}, { hidden: false });
  assert.equal(advise(bare), bare);
});

Deno.test("advise() tells of a layer that has what an import did not find", () => {
  const [, folder, name] = /(.*)\/([^/]+)$/.exec(import.meta.dirname ?? "") ??
    [];
  sayHello({ packageFolders: ["/none", folder] });
  for (
    const said of [
      `Import "${name}/sub" not a dependency\n  hint: try it`,
      `Could not find "${name}" in a node_modules folder.`,
    ]
  ) {
    assert.ok(
      advise(said).startsWith(`${said}\n  It is in ${folder}, where only`),
    );
  }
  for (
    const text of ['Import "@a/b" not a dependency', 'Import "" ', "Import"]
  ) {
    assert.equal(advise(text), text);
  }
});

Deno.test("advise() tells what an alias of tsconfig.json is in Deno", () => {
  sayHello();
  const hint = "hint: If you want to use a JSR or npm package, try …";
  for (const alias of ["@/", "~/", "$lib/"]) {
    const said = `Import "${alias}a/b" not a dependency`;
    const advised = advise(`${said}\n  ${hint}\n    at file:///a.ts:1:1`);
    assert.ok(advised.includes(`"imports": {"${alias}": "./src/"}`), advised);
    assert.ok(advised.endsWith("\n    at file:///a.ts:1:1"));
  }
  const other = `Import "@scope/a" not a dependency\n  ${hint}`;
  assert.equal(advise(other), other);
});

Deno.test("remedy() names the event's own folder, and no path of this machine", () => {
  sayHello();
  assert.match(
    remedy("write", "/tmp/x"),
    /^each event .*use os\.tmpdir\(\) or \$TMPDIR; to share/,
  );
  assert.match(remedy("read", "/tmp"), /^each event /);
  assert.match(remedy("write", "/tmpx"), /^set /);
  assert.match(
    remedy("write", "/var/task/a b"),
    /^on Lambda .*--allow-write='\$LAMBDA_TASK_ROOT\/a b'"/,
  );
  assert.match(remedy("read", "/var/task"), /^set .*=\$LAMBDA_TASK_ROOT"/);
  assert.match(remedy("read", "/var/tasks"), /^set .*=\/var\/tasks"/);
  sayHello({}, { taskRoot: "/tmp/task" });
  assert.match(remedy("read", "/tmp/task/x"), /^set .*\$LAMBDA_TASK_ROOT\/x/);
  assert.match(
    remedy("run", "/var/task/x"),
    /^set .*--allow-run=\/var\/task\/x"/,
  );
});

Deno.test("untoldDenials() returns what was denied and caught, once for each kind", () => {
  sayHello();
  const job = { phase: "running" };
  let owner = job;
  noteDenials(() => owner);
  const deny = (/** @type {string} */ text) =>
    new Deno.errors.NotCapable(`Requires ${text}`);
  const { name, message } = deny(
    'run access to "ls", run again with the --allow-run flag',
  );
  assert.equal(name, "NotCapable");
  deny('run access to "cat", run again with the --allow-run flag');
  deny('env access to "A", run again with the --allow-env flag');
  assert.match(
    advise("Command failed: ls"),
    /^Command failed: ls: Requires run/,
  );
  assert.deepEqual(untoldDenials(job), []);
  // Another invocation's, until that is over.
  owner = { phase: "running" };
  deny('ffi access to "/a", run again with the --allow-ffi flag');
  assert.deepEqual(untoldDenials(job), []);
  owner.phase = "done";
  assert.match(
    untoldDenials(job).join(),
    /^Requires ffi access to "\/a": set /,
  );
  deny('ffi access to "/b", run again with the --allow-ffi flag');
  assert.deepEqual(untoldDenials(job), []);
  advise(message);
});

Deno.test("advise() leaves other texts alone, and lives with what it cannot read", () => {
  sayHello();
  for (const text of ["", "Requires read access", "EPERM"]) {
    assert.equal(advise(text), text);
  }
  const said = DENIALS[0][0];
  sayHello({}, { denies: /** @type {any} */ (null) });
  assert.equal(advise(said), said);
});

Deno.test("advise() tells what is missing from a package, from a cache, and from the environment", () => {
  sayHello();
  assert.match(
    advise('Module not found, --cached-only is specified, "npm:a"'),
    /^Module not found, and LAMBDA_DENO_PERMISSIONS .* come with the function, "npm:a"$/,
  );
  assert.match(
    advise("Failed caching npm package 'a'"),
    /'a': an event cannot add/,
  );
  const name = "CredentialsProviderError";
  assert.equal(advise("none", name), "none");
  sayHello({}, { credentialsWithheld: true });
  assert.match(advise("none", name), /^none: LAMBDA_DENO_ENV withholds/);
  assert.equal(advise("none", "Error"), "none");
});

Deno.test("remedy() never suggests to open the Runtime API", () => {
  sayHello();
  for (
    const target of ["169.254.100.1:9001", "localhost:9001", "127.0.0.9:9001"]
  ) {
    assert.match(remedy("net", target), /which no permission opens/);
  }
  assert.match(remedy("net", "127.0.0.1:80"), /--allow-net=127\.0\.0\.1:80"/);
});

Deno.test("remedy() quotes for the shell what a shell would read otherwise", () => {
  sayHello();
  assert.match(remedy("read", "/a b"), /--allow-read='\/a b'"/);
  assert.match(remedy("read", "/it's"), /--allow-read='\/it'\\''s'"/);
});

Deno.test("remedy() builds on the permissions that there are", () => {
  sayHello({}, { base: "" });
  assert.match(
    remedy("run", "git"),
    /^set LAMBDA_DENO_PERMISSIONS="--allow-run=git"/,
  );
  sayHello({}, { set: "mine", denies: ["run"] });
  assert.match(
    remedy("run", "git"),
    /or add it to the permission set "mine" in deno\.json; what is denied for run/,
  );
  sayHello({}, { everything: true });
  assert.match(
    remedy("run", "git"),
    /^everything is allowed but what a --deny-run/,
  );
  assert.match(remedy("sys", "hostname"), /--allow-sys=hostname among them$/);
});

Deno.test("remedy() warns of variables that Deno's module loader obeys", () => {
  sayHello({ steering: "HTTP_PROXY" });
  assert.match(
    remedy("env", undefined),
    /^process\.loadEnvFile would also set/,
  );
  assert.match(remedy("env", "A"), /--allow-env=A/);
});

/** @type {[unknown, string | undefined][]} */
const LOAD_ERRORS = [
  [new SyntaxError("m"), "Runtime.UserCodeSyntaxError"],
  [errorWith("SyntaxError: m", {}), "Runtime.UserCodeSyntaxError"],
  [
    errorWith("m", { code: "ERR_MODULE_NOT_FOUND" }),
    "Runtime.ImportModuleError",
  ],
  [errorWith("m", { code: "MODULE_NOT_FOUND" }), "Runtime.ImportModuleError"],
  [errorWith("m", { code: "ERR_REQUIRE_ESM" }), "Runtime.ImportModuleError"],
  [
    errorWith("m", { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" }),
    "Runtime.ImportModuleError",
  ],
  // Of the module's own making: what it called was called wrongly.
  [errorWith("m", { code: "ERR_INVALID_ARG_TYPE" }), undefined],
  [errorWith("m", { code: "ERR_INVALID_URL" }), undefined],
  [errorWith("m", { code: "ENOENT" }), undefined],
  [errorWith("m", { code: 7 }), undefined],
  [new URIError("m"), undefined],
  ["text", undefined],
  [null, undefined],
  [hostileProxy(), undefined],
  [hostileError(), undefined],
];

for (const [at, [error, type]] of LOAD_ERRORS.entries()) {
  Deno.test(`loadErrorType() names the reason: case ${at}, ${type}`, () => {
    assert.equal(loadErrorType(error), type);
  });
}

/** @param {unknown} error What the caller gets, and what the log does. */
function halves(error) {
  const { bytes } = errorBody(error);
  assert.ok(bytes.length <= 262_144);
  const [answer, logged] = new TextDecoder("utf-8", { fatal: true })
    .decode(bytes).split("\n");
  return { answer: JSON.parse(answer), logged: logged && JSON.parse(logged) };
}

Deno.test("errorBody() keeps an error's own members for the log only", () => {
  sayHello();
  const cause = errorWith("inner", { code: "ECONNRESET" });
  const error = errorWith("m", {
    code: "23505",
    detail: "Key (id)=(1)",
    $metadata: { httpStatusCode: 400, at: new Date(0), big: 2n },
    inner: [new TypeError("nested")],
    none: undefined,
    call() {},
    cause,
  });
  const { answer, logged } = halves(error);
  assert.deepEqual(Object.keys(answer), [
    "errorType",
    "errorMessage",
    "stackTrace",
    "cause",
  ]);
  assert.equal("code" in answer.cause, false);
  assert.equal(logged.code, "23505");
  assert.equal(logged.detail, "Key (id)=(1)");
  assert.deepEqual(logged.$metadata, {
    httpStatusCode: 400,
    at: "1970-01-01T00:00:00.000Z",
    big: "2",
  });
  assert.equal(logged.inner[0].errorMessage, "nested");
  assert.equal(logged.cause.code, "ECONNRESET");
  assert.deepEqual(logged.stackTrace, answer.stackTrace);
  assert.equal("none" in logged || "call" in logged, false);
  assert.equal(halves(new Error("m")).logged, undefined);
});

Deno.test("members of an error cannot change what it is, break it or grow", () => {
  sayHello();
  const error = /** @type {any} */ (errorWith("m", {
    errorType: "Other",
    big: Array.from({ length: 5_000 }, () => "x".repeat(1_000)),
    bytes: new Uint8Array(1_000_000),
    proxy: hostileProxy(),
    toJSON() {
      throw new Error("hostile");
    },
    code: "last",
  }));
  error.self = { error };
  let deep = /** @type {any} */ ("end");
  for (let depth = 0; depth < 10_000; depth += 1) deep = { deep };
  error.deep = deep;
  Object.defineProperty(error, "thrower", {
    enumerable: true,
    get() {
      throw new Error("hostile");
    },
  });
  const { answer, logged } = halves(error);
  assert.equal(answer.errorType, "Error");
  assert.equal(logged.errorType, "Error");
  assert.equal(logged.code, "last");
  assert.equal(logged.thrower, "a value that cannot be shown");
  assert.ok(JSON.stringify(logged).length < 120_000);
  const short = errorWith("m", { self: null, proxy: hostileProxy() });
  Object.assign(short, { self: { short } });
  assert.equal(halves(short).logged.self.short, "[Circular]");
});

Deno.test("a message that takes all the room leaves some to the members", () => {
  sayHello();
  const error = errorWith("x".repeat(150_000), { code: "E" });
  const { answer, logged } = halves(error);
  assert.equal(answer.errorMessage.length, 150_000);
  assert.equal(logged.code, "E");
});

Deno.test("errors of other realms, and objects like errors, are errors", () => {
  sayHello();
  const foreign = runInNewContext("new TypeError('there')");
  assert.equal(foreign instanceof Error, false);
  const like = {
    name: "Like",
    message: "m",
    stack: "Like: m\n    at f (a:1:1)",
  };
  assert.deepEqual(
    [describe(foreign), describe(like)].map((body) => [
      body.errorType,
      body.errorMessage,
      body.stackTrace.length > 0,
    ]),
    [["TypeError", "there", true], ["Like", "m", true]],
  );
  for (
    const other of [null, "text", { name: "n", message: "m" }, hostileProxy()]
  ) {
    assert.equal(isError(other), false);
  }
});

Deno.test("errors of the runtime's own show no code of Deno's, others do", () => {
  sayHello();
  const stack = "X: m\n    at dispatch (ext:deno_web/02_event.js:1:1)\n" +
    "    at emit (node:events:1:1)\n    at mine (/var/task/a.ts:1:1)";
  const ours = Object.assign(new RuntimeError("Runtime.X", "m"), { stack });
  assert.deepEqual(describe(ours).stackTrace, ["at mine (/var/task/a.ts:1:1)"]);
  assert.equal(describe(errorWith("m", { stack })).stackTrace.length, 3);
});
