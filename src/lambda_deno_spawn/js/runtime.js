// @ts-check
/**
 * The worker's end: loads the handler, reads an invocation from stdin, runs it, frames
 * the outcome on stdout; or, for the strategy `server`, both over HTTP (server.js).
 * Normative text: docs/protocol.md; the supervisor's end is protocol.py. It loads for
 * every event, so each line has to earn its place, and what can be done in Python is
 * done there.
 *
 * What every event runs through stands in brackets, `const run = (function ...)`: V8
 * compiles such a function together with the file, and so it is in Deno's code cache.
 * Any other is compiled when it is first called, by each process anew (decision 0026).
 *
 * @module
 */

/**
 * @typedef {object} Hello
 * @property {number} version Version of the protocol.
 * @property {string} marker Random bytes that begin and end each frame.
 * @property {string} export Export to call, nested names joined by dots.
 * @property {string} module Path of the handler's file, for messages.
 * @property {number} partBytes Write no more than this at a time; 0: no limit.
 * @property {number} resultLimitBytes Largest result the platform takes.
 * @property {"text" | "json"} logFormat
 * @property {keyof typeof LEVELS} logLevel Least level written in JSON format.
 * @property {"buffered" | "stream"} responseMode How a `Response` is sent.
 * @property {number} invocations How many this process serves; 0: no limit.
 * @property {string | null} socket Where it listens; null: invocations come on stdin.
 * @property {number} concurrency How many may run at once.
 * @property {number} closeMs How long one that serves more than one event may close.
 * @property {Record<string, string | null>} variables Variables that Deno itself reads:
 *   the code sees and sets these instead; null: not set.
 * @property {Record<string, string>} context What every invocation has in common.
 * @property {object} permissions What to say about a denied access.
 * @property {string} permissions.base What LAMBDA_DENO_PERMISSIONS holds, or could hold.
 * @property {string | null} permissions.set Permission set of deno.json that counts.
 * @property {string[]} permissions.denies Kinds with entries that deny.
 * @property {string[]} permissions.runtimeApi Hosts and ports that nobody may reach.
 * @property {boolean} permissions.everything All is allowed but what is denied.
 * @property {boolean} permissions.credentialsWithheld
 *
 * @typedef {object} Head
 * @property {number} eventBytes
 * @property {string} requestId
 * @property {number} deadlineEpochMs
 * @property {number} abortEpochMs
 * @property {string} functionArn
 * @property {string | null} traceId
 * @property {string | null} clientContext JSON text.
 * @property {string | null} identity JSON text.
 * @property {string | null} tenantId
 *
 * @typedef {"READY" | "PART" | "RESULT" | "STREAM" | "CHUNK" | "END" | "ERROR" | "DONE"}
 *   FrameKind
 *
 * @typedef {(event: unknown, context: Context, job: Job) => unknown} Handler
 *
 * @typedef {ReturnType<typeof makeContext>} Context
 *
 * @typedef {{ fetch: (request: Request, ...context: object[]) => unknown }} FetchApp
 *
 * @typedef {object} Output Where the frames of an invocation go.
 * @property {(bytes: Uint8Array, isLast: boolean) => void} write At once; `isLast`: no
 *   other frame follows.
 * @property {(bytes: Uint8Array) => Promise<void>} writeLater Resolves once there is
 *   room for more.
 * @property {(job: Job) => void} end All is done, or will never be.
 *
 * @typedef {"loading" | "idle" | "running" | "streaming" | "finishing" | "done"} Phase
 *
 * @typedef {object} ErrorBody
 * @property {string} errorType
 * @property {string} errorMessage
 * @property {string[]} stackTrace
 * @property {ErrorBody} [cause]
 * @property {ErrorBody[]} [errors]
 */

const PROTOCOL_VERSION = 2;
const LEVELS = { TRACE: 0, DEBUG: 1, INFO: 2, WARN: 3, ERROR: 4, FATAL: 5 };
/** Levels in the order of the numbers that Deno's console passes to its printer. */
const PRINTER_LEVELS =
  /** @type {const} */ (["DEBUG", "INFO", "WARN", "ERROR", "TRACE"]);
/** How many errors an error body describes, causes and aggregated ones together. */
const ERRORS_LIMIT = 32;
/** How many characters of messages and stacks it keeps, all errors together. */
const ERROR_TEXT_LIMIT = 196_608;
/** Longest body of an ERROR frame; of protocol.py too. A character takes up to six bytes. */
const ERROR_LIMIT_BYTES = 262_144;
/** Characters of a log record; CloudWatch takes 1 MB, and one may take several bytes. */
const RECORD_LIMIT = 256 * 1024;
/** What is kept of an error's name: it stands in a header, which is short. */
const ERROR_TYPE_LIMIT = 128;
/** Longest media type of a stream, which is a header too. */
const CONTENT_TYPE_LIMIT = 256;
/** The longest time a timer takes; a longer one would fire at once. */
const TIMER_LIMIT_MS = 2 ** 31 - 1;
/** More than what a RESULT frame and the DONE frame behind it add to the body. */
const FRAME_OVERHEAD_BYTES = 256;
/** Longest body of a CHUNK frame: what a pipe holds. */
const CHUNK_BYTES = 65_536;
/** The mark of AWS's own runtime on a handler that writes to a response stream. */
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const MEDIA_TYPE = /^[!-~](?:[ -~]*[!-~])?$/;
const HTTP_CONTENT_TYPE = "application/vnd.awslambda.http-integration-response";
/** The supervisor's word that nobody listens to the stream any more. */
const CALLER_GONE_SIGNAL = "SIGUSR2";
/** An invocation as it could come, for `rehearse`. */
const REHEARSAL =
  '{"eventBytes":2,"requestId":"","deadlineEpochMs":0,"abortEpochMs":0,"functionArn":"",' +
  '"traceId":null,"clientContext":null,"identity":null,"tenantId":null}';
/** What a Request can have, for an answer that says so. */
const ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/** The same, for handlers that take a Request. */
const HTTP_REHEARSAL =
  '{"version":"2.0","rawPath":"/","headers":{"host":"localhost"},' +
  '"requestContext":{"http":{"method":"GET"}}}';
/** What Deno says of a denied access, and what Node's resolver does. */
const DENIED =
  /Requires (\w+) access(?: to (?:"(.*?)"|(<\w+>)))?, run again with the --allow-\w+ flag/g;
const DENIED_LOOKUP = /getaddrinfo EPERM (\S+)/g;
/** What Deno says of a module that it may not download, and what that means here. */
const NOT_CACHED = "--cached-only is specified";
const NOT_PACKAGED =
  "and LAMBDA_DENO_PERMISSIONS (none, or --cached-only) lets nothing be loaded from " +
  "the network: it has to come with the function";
/** What Deno says of a package that it cannot add to its cache, and what helps here. */
const NOT_ADDED = "Failed caching npm package";
const ADD_BEFORE =
  ": an event cannot add packages beside those that were loaded before it; import it " +
  "at the top of the module, or package it";
/** Added to what AWS's SDK says. */
const CREDENTIALS_WITHHELD =
  ": LAMBDA_DENO_ENV withholds the credentials, unless it has @credentials";
/** The folder of this file, in lines of a stack. */
const OUR_FILES = import.meta.url.slice(
  0,
  import.meta.url.lastIndexOf("/") + 1,
);
/** A stuck worker is ended by its supervisor; without one it ends after this long. */
const LINGER_MS = 10_000;

// Taken before the handler's module can replace them.
const { parse, stringify } = JSON;
const { TextDecoder } = globalThis;
const { stdin, stdout, stderr, exit } = Deno;
// @ts-ignore not part of the public types
const { Console, core, inspectArgs } = Deno[Deno.internal];
/** @type {(text: string) => Uint8Array<ArrayBuffer>} */
const encode = core.encode;
/** @type {(bytes: Uint8Array) => string} */
const decodeAnything = core.decode;
const { cancelTimer, createSystemTimer } = core;
const readStdin = stdin.readSync.bind(stdin);
const readStdinLater = stdin.read.bind(stdin);
const writeStdout = stdout.writeSync.bind(stdout);
const writeStdoutLater = stdout.write.bind(stdout);
const writeStderr = stderr.writeSync.bind(stderr);

let hello = /** @type {Hello} */ (/** @type {unknown} */ (null));
/** How many more invocations this process may serve. */
let left = 1;

/**
 * One invocation, or the loading of the module before the first: what it is doing, and
 * which answer an accident has to give.
 */
class Job {
  requestId = "";
  tenantId = /** @type {string | null} */ (null);
  /** The stream that answers, once its first byte is written. @type {Sink | null} */
  answering = null;
  /** Why nobody listens to the stream any more. @type {DOMException | null} */
  callerGone = null;
  /** Aborts `context.signal`, once somebody has asked for it. */
  abortSignal = (/** @type {unknown} */ _reason) => {};
  /** Ends the timer of `context.signal`, once there is one. */
  clearTimer = () => {};
  /** Work that the handler wants finished after its answer. @type {Promise<unknown>[]} */
  afterwards = [];
  /** True once the DONE frame is written, or on its way behind the answer. */
  isDoneSent = false;
  /** True if nobody can tell what state the process is in. */
  isFatal = false;
  /** True if the process may serve others after it. */
  goesOn = false;
  /** The write that `writeLater` has begun last. */
  lastWrite = /** @type {Promise<void>} */ (Promise.resolve());

  /**
   * @param {Phase} phase
   * @param {Output} output
   * @param {Head} [head]
   */
  constructor(phase, output, head) {
    this.phase = phase;
    this.output = output;
    if (head === undefined) return;
    this.requestId = head.requestId;
    this.tenantId = head.tenantId;
  }

  /**
   * @param {Uint8Array} bytes A frame.
   * @param {boolean} [isLast]
   */
  write(bytes, isLast = false) {
    this.output.write(bytes, isLast);
  }

  /**
   * Write a frame without blocking: while the caller is slow, the handler's timers run
   * on.
   *
   * @param {Uint8Array} bytes A frame.
   */
  writeLater(bytes) {
    const previous = this.lastWrite;
    this.lastWrite = (async () => {
      await previous;
      await this.output.writeLater(bytes);
    })();
    return this.lastWrite;
  }

  /**
   * Answer with an error, unless there was an answer.
   *
   * @param {unknown} error
   * @param {string} [errorType]
   */
  fail(error, errorType) {
    answer(this, errorFrames(this, error, errorType));
  }

  /** Hear that nobody listens to the answer any more. */
  abandon() {
    if (this.answering !== null) this.answering.isAbandoned = true;
    const message = "Nobody listens to the response any more";
    this.callerGone = new DOMException(message, "AbortError");
    this.abortSignal(this.callerGone);
  }
}

const answer = (
  /**
   * Write what ends the answer, with the DONE frame behind it if nothing is left to do.
   *
   * @param {Job} job
   * @param {Uint8Array[]} frames Each is to be written at once; the last one was made
   *   with `doneBehind`.
   */
  function (job, frames) {
    job.phase = "finishing";
    const last = frames.length - 1;
    for (const [at, bytes] of frames.entries()) {
      job.write(bytes, at === last && job.isDoneSent);
    }
  }
);

const doneBehind = (
  /**
   * Decide what stands behind the answer's last frame.
   *
   * @param {Job} job
   * @param {boolean} isError
   * @returns {string} The DONE frame if nothing is left to do, else nothing.
   */
  function (job, isError) {
    // A long-lived process goes on after an ordinary error, as everywhere else.
    const isSpent = hello.socket === null && (left === 0 || isError);
    job.goesOn = !job.isFatal && !isSpent;
    job.isDoneSent = job.afterwards.length === 0;
    return job.isDoneSent ? doneFrame(job.goesOn) : "";
  }
);

const finish = (
  /**
   * Wait for what `waitUntil` was given, and say that nothing is left.
   *
   * @param {Job} job
   */
  async function (job) {
    while (job.afterwards.length > 0) {
      const batch = job.afterwards;
      job.afterwards = [];
      for (const outcome of await Promise.allSettled(batch)) {
        if (outcome.status === "rejected") {
          log("ERROR", ["waitUntil: a promise was rejected", outcome.reason]);
        }
      }
    }
    end(job);
  }
);

const end = (
  /**
   * Say that nothing is left to do.
   *
   * @param {Job} job
   */
  function (job) {
    if (job.phase === "done") return;
    job.phase = "done";
    runningJobs.delete(job);
    // What still listens must not hear of a deadline that is another's by then.
    job.clearTimer();
    if (!job.isDoneSent) {
      job.write(encode(doneFrame(job.goesOn)), true);
    }
    job.output.end(job);
  }
);

/** @type {Output} */
const STDOUT = {
  write(bytes) {
    write(bytes);
  },
  async writeLater(bytes) {
    for (let offset = 0; offset < bytes.length;) {
      offset += await writeStdoutLater(bytes.subarray(offset));
    }
  },
  end(job) {
    if (!job.goesOn) standStill();
  },
};

/** Of an invocation that nobody sees. @type {Output} */
const NOWHERE = { write() {}, async writeLater() {}, end() {} };

/** What is being done; of several at once the last that began. */
let latestJob = new Job("loading", STDOUT);
/** All that are being done. @type {Set<Job>} */
const runningJobs = new Set();
/** What is being done where this is called; null: one of several. */
let currentJob = /** @type {() => Job | null} */ (() => latestJob);

/** Bytes read from stdin and not used yet. */
let unread = new Uint8Array(0);

export const start = (
  /**
   * Serve as many invocations as HELLO says, and end.
   *
   * @param {() => Promise<Record<string, unknown>>} load Imports the handler's module; the
   *   import must be written out where Deno can see it. What it sees it reads, so the
   *   others are there only if they are needed.
   * @param {() => Promise<typeof import("./closing.js")>} loadClosing For processes that
   *   serve more than one.
   * @param {() => Promise<typeof import("./server.js")>} loadServer For those that listen.
   */
  async function (load, loadClosing, loadServer) {
    const line = readLine();
    if (line === null) return;
    hello = parse(line);
    if (hello.version !== PROTOCOL_VERSION) {
      throw new Error(
        `Cannot speak protocol ${hello.version}: this is ${PROTOCOL_VERSION}`,
      );
    }
    left = hello.invocations || Infinity;
    reroute();
    standIn(hello.variables);
    // @ts-ignore the global of AWS's own runtime
    globalThis.awslambda = { streamifyResponse, HttpResponseStream };
    globalThis.addEventListener("unhandledrejection", onUnhandledRejection);
    globalThis.addEventListener("error", onUncaughtError);
    globalThis.addEventListener("beforeunload", onNothingLeft);
    const loading = latestJob;
    let handler;
    try {
      // Before the handler's module, which may replace what it takes.
      const servesMore = left > 1 || hello.socket !== null;
      if (servesMore) ({ listenForTheEnd } = await loadClosing());
      const server = hello.socket === null ? null : await loadServer();
      const listener = server?.open(/** @type {string} */ (hello.socket));
      handler = await adapt(await load(), hello.export);
      if (server && listener) await serve(server, listener, handler);
      else if (servesMore) expectTheEnd(() => {});
    } catch (error) {
      loading.isFatal = true;
      loading.fail(error, loadErrorType(error));
      return finish(loading);
    }
    // An accident while the module loaded has been reported already.
    if (loading.phase !== "loading") return;
    loading.phase = "idle";
    write(frame("READY"));
    if (hello.socket === null) await readInvocations(handler);
  }
);

const standIn = (
  /**
   * Let code read and set the variables that Deno itself reads, in a copy. The real ones
   * say where Deno's module loader connects and whom it trusts, so they are closed to
   * code, by Deno (decision 0027); this is for libraries that look at them.
   * `process.env` asks `Deno.env`, so it is served as well. A Web Worker has no copy.
   *
   * @param {Record<string, string | null>} variables
   */
  function (variables) {
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
);

const readInvocations = (
  /** @param {Handler} handler */
  async function (handler) {
    while (left > 0) {
      const line = readLine();
      if (line === null && latestJob.phase === "done") {
        return await untilTheEnd();
      }
      if (line === null) exit(0);
      const head = /** @type {Head} */ (parse(/** @type {string} */ (line)));
      const eventBytes = readExactly(head.eventBytes);
      if (eventBytes === null) exit(0);
      left -= 1;
      const job = latestJob = new Job("running", STDOUT, head);
      await run(job, handler, head, /** @type {Uint8Array} */ (eventBytes));
      await finish(job);
    }
  }
);

/** Of closing.js. @type {typeof import("./closing.js").listenForTheEnd} */
let listenForTheEnd;
/** Waits for the word that the end has come. */
let untilTheEnd = async () => {};

/**
 * Be told of the end, for there may be something to close then. Not while the module
 * loads: who listens keeps Deno from finding that it never will have.
 *
 * @param {() => void} stopServing
 */
function expectTheEnd(stopServing) {
  untilTheEnd = listenForTheEnd(hello.closeMs, stopServing);
}

/**
 * Serve invocations over HTTP, as they come.
 *
 * @param {typeof import("./server.js")} server
 * @param {Deno.UnixListener} listener
 * @param {Handler} handler
 */
async function serve(server, listener, handler) {
  /** @type {(job: Job, work: () => Promise<void>) => Promise<void>} */
  let within = (_job, work) => work();
  if (hello.concurrency > 1) {
    const jobs = await server.scopes();
    within = (job, work) => jobs.run(job, work);
    currentJob = () => jobs.getStore() ?? onlyJob();
  }
  const stopServing = server.serve(listener, (line, eventBytes, output) => {
    const head = /** @type {Head} */ (parse(decode(line)));
    const job = latestJob = new Job("running", output, head);
    runningJobs.add(job);
    within(job, async () => {
      await run(job, handler, head, eventBytes);
      await finish(job);
    });
    return () => job.abandon();
  });
  expectTheEnd(stopServing);
  // Nothing is written to it; it ends with the supervisor, or at the end.
  readStdinLater(new Uint8Array(1)).then(untilTheEnd);
}

/** @returns {Job | null} */
function onlyJob() {
  const [job] = runningJobs;
  return runningJobs.size === 1 ? job : null;
}

/**
 * Mark a handler as one that writes its answer to a stream; AWS's own interface.
 *
 * @template {Function} H
 * @param {H} handler Called with event, response stream and context.
 * @returns {H}
 */
function streamifyResponse(handler) {
  // @ts-ignore a mark, as AWS's runtime makes it
  handler[STREAMING] = "response";
  return handler;
}

/** AWS's own interface to give a stream a status and headers. */
const HttpResponseStream = {
  /**
   * @param {import("./node_stream.js").ResponseStream} stream
   * @param {object} prelude `statusCode`, `headers`, `cookies`.
   */
  from(stream, prelude) {
    stream.sink.beginHttp(prelude);
    return stream;
  },
};

const rehearse = (
  /**
   * Run through an invocation that nobody sees, with a handler of our own. V8 compiles a
   * function, and Deno loads parts of itself, when they are first used: done here, the
   * event that comes does not wait for it.
   *
   * @param {Handler} handler
   * @param {string} [event] JSON text.
   */
  async function (handler, event = "{}") {
    const head = parse(REHEARSAL);
    head.abortEpochMs = Date.now() + LINGER_MS;
    readExactly(0);
    const job = new Job("running", NOWHERE, head);
    await run(job, handler, head, encode(event));
    job.clearTimer();
  }
);

const run = (
  /**
   * Run the handler and write the frames of its outcome.
   *
   * @param {Job} job
   * @param {Handler} handler
   * @param {Head} head
   * @param {Uint8Array} eventBytes
   */
  async function (job, handler, head, eventBytes) {
    let frames;
    try {
      setTraceId(head.traceId);
      const context = makeContext(job, head);
      const event = parseEvent(eventBytes);
      const result = await handler(event, context, job);
      if (result === STREAMED) return;
      if (isStream(result)) return await new Sink(job).pump(result);
      frames = resultFrames(job, result);
    } catch (error) {
      if (job.answering !== null) return await job.answering.fail(error);
      frames = errorFrames(job, error);
    }
    // An accident in the meantime has been answered for already.
    if (job.phase === "running") answer(job, frames);
  }
);

/** What a handler's adapter returns when the answer has been streamed. */
const STREAMED = Symbol("streamed");

const isStream = (
  /**
   * @param {unknown} result
   * @returns {result is AsyncIterable<unknown>}
   */
  function (result) {
    return typeof result === "object" && result !== null &&
      Symbol.asyncIterator in result;
  }
);

/**
 * An answer that goes out in pieces. Until its first byte nothing is decided: an error
 * is an ordinary error, and type and prelude can be set. After it an error ends the
 * stream, which the caller is told behind it.
 */
class Sink {
  /** Media type of the answer. */
  contentType = "application/octet-stream";
  /** Bytes in front of the first byte. */
  #prelude = new Uint8Array(0);
  /** Set once nobody listens any more. */
  isAbandoned = false;
  /** Rejects when an accident ends the stream while it waits for its source. */
  #accident = Promise.withResolvers();

  /** @param {Job} job What it answers. */
  constructor(job) {
    this.job = job;
    this.#accident.promise.catch(() => {});
  }

  /**
   * Answer as HTTP: status and headers as JSON, eight zero bytes, then the body.
   *
   * @param {object} prelude
   */
  beginHttp(prelude) {
    this.contentType = HTTP_CONTENT_TYPE;
    this.#prelude = encode(`${stringify(prelude)}\0\0\0\0\0\0\0\0`);
  }

  /**
   * Write what a source gives, and the end.
   *
   * @param {AsyncIterable<unknown>} source
   */
  async pump(source) {
    const iterator = source[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = iterator.next();
        const { done, value } = /** @type {IteratorResult<unknown>} */ (
          await Promise.race([next, this.#accident.promise])
        );
        if (done) break;
        await this.write(value);
        if (this.isAbandoned) {
          await iterator.return?.();
          break;
        }
      }
      await this.end();
    } catch (error) {
      await this.fail(error);
    }
  }

  /**
   * Write one piece; resolves when the pipe has taken it.
   *
   * @param {unknown} chunk Text or bytes.
   * @throws {RuntimeError} It is neither.
   */
  async write(chunk) {
    let bytes = bytesOf(chunk);
    if (bytes.length === 0 || this.isAbandoned) return;
    const { job } = this;
    const room = chunkRoom();
    if (job.phase === "running") {
      for (const first of this.#begin(bytes.subarray(0, room))) {
        job.write(first);
      }
      bytes = bytes.subarray(room);
    }
    for (; bytes.length > 0; bytes = bytes.subarray(room)) {
      if (job.phase !== "streaming" || this.isAbandoned) return;
      await job.writeLater(frame("CHUNK", bytes.subarray(0, room)));
    }
  }

  /** Say that nothing follows. */
  async end() {
    const { job } = this;
    if (job.phase === "running") {
      for (const first of this.#begin(new Uint8Array(0))) job.write(first);
    }
    if (job.phase !== "streaming") return;
    await job.lastWrite;
    answer(job, [frame("END", undefined, "", doneBehind(job, false))]);
  }

  /**
   * End with an error.
   *
   * @param {unknown} error
   * @param {string} [errorType]
   */
  async fail(error, errorType) {
    const { job } = this;
    if (job.phase === "streaming") await job.lastWrite;
    if (job.phase === "streaming" || job.phase === "running") {
      job.fail(error, errorType);
    }
  }

  /** @param {unknown} error Something that no handler caught. */
  reject(error) {
    this.#accident.reject(error);
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {Uint8Array[]} The beginning; each is to be written at once.
   */
  #begin(bytes) {
    const type = String(this.contentType);
    if (type.length > CONTENT_TYPE_LIMIT || !MEDIA_TYPE.test(type)) {
      throw new RuntimeError(
        "Runtime.InvalidStreamingOperation",
        `Cannot stream as ${
          quote(type.slice(0, 64))
        }: a media type is at most ` +
          `${CONTENT_TYPE_LIMIT} characters of ASCII, without a blank at its ends`,
      );
    }
    listenForCallerGone();
    this.job.phase = "streaming";
    this.job.answering = this;
    const head = frame("STREAM", undefined, "", "", type);
    const room = chunkRoom();
    if (
      hello.partBytes > 0 || this.#prelude.length + bytes.length > CHUNK_BYTES
    ) {
      const frames = [head];
      for (let piece of [this.#prelude, bytes]) {
        for (; piece.length > 0; piece = piece.subarray(room)) {
          frames.push(frame("CHUNK", piece.subarray(0, room)));
        }
      }
      return frames;
    }
    const body = new Uint8Array(this.#prelude.length + bytes.length);
    body.set(this.#prelude);
    body.set(bytes, this.#prelude.length);
    if (body.length === 0) return [head];
    const chunk = frame("CHUNK", body);
    const both = new Uint8Array(head.length + chunk.length);
    both.set(head);
    both.set(chunk, head.length);
    return [both];
  }
}

const chunkRoom = (
  /** @returns {number} Longest body of a CHUNK frame. */
  function () {
    return hello.partBytes > 0
      ? hello.partBytes - FRAME_OVERHEAD_BYTES
      : CHUNK_BYTES;
  }
);

let isListening = false;

/** Hear the supervisor's word that nobody listens any more; without it, it kills. */
function listenForCallerGone() {
  if (isListening || hello.socket !== null) return;
  isListening = true;
  Deno.addSignalListener(CALLER_GONE_SIGNAL, () => {
    // It may have been meant for a stream that has ended by itself.
    if (latestJob.answering !== null) latestJob.abandon();
  });
}

/**
 * @param {unknown} chunk
 * @returns {Uint8Array}
 * @throws {RuntimeError} It is neither text nor bytes.
 */
function bytesOf(chunk) {
  if (typeof chunk === "string") return encode(chunk);
  if (chunk instanceof Uint8Array) return chunk;
  if (ArrayBuffer.isView(chunk)) {
    return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  }
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new RuntimeError(
    "Runtime.InvalidStreamingOperation",
    `Cannot stream a chunk of type ${
      chunk === null ? "null" : typeof chunk
    }: ` +
      "a chunk is text or bytes; write JSON.stringify(value) for a value",
  );
}

const resultFrames = (
  /**
   * The result as RESULT frame, in parts if other programs may write to the same pipe,
   * with the DONE frame behind it if nothing is left to do.
   *
   * @param {Job} job
   * @param {unknown} result
   * @returns {Uint8Array[]} Each is to be written at once.
   * @throws {RuntimeError} It cannot be written as JSON or is too large.
   */
  function (job, result) {
    let text;
    try {
      text = stringify(result) ?? "null";
    } catch (error) {
      throw new RuntimeError(
        "Runtime.JSONStringifyError",
        `Cannot write the handler's result as JSON: ${
          describe(error).errorMessage
        }`,
        error,
      );
    }
    const body = encode(text);
    if (body.length > hello.resultLimitBytes) {
      throw new RuntimeError(
        "Function.ResponseSizeTooLarge",
        `Cannot return ${body.length} bytes: the limit is ${hello.resultLimitBytes}; ` +
          "store the result and return where it is, or stream it",
      );
    }
    return framesOf("RESULT", body, "", doneBehind(job, false));
  }
);

/**
 * @param {Job} job
 * @param {unknown} error Anything that was thrown.
 * @param {string} [errorType] Overrides the error's own name.
 * @returns {Uint8Array[]} The frames of an error; each is to be written at once.
 */
function errorFrames(job, error, errorType) {
  let type = errorType ?? "Error", bytes;
  try {
    // What takes more bytes than it has characters is cut once more, until it fits.
    for (let room = ERROR_TEXT_LIMIT; bytes === undefined; room /= 2) {
      const body = describe(error, { left: ERRORS_LIMIT, text: room });
      if (errorType) body.errorType = errorType;
      type = body.errorType;
      const whole = encode(stringify(body));
      if (whole.length <= ERROR_LIMIT_BYTES) bytes = whole;
      else if (room < ERROR_TYPE_LIMIT) throw whole;
    }
  } catch {
    // The handler has broken what we write with; say at least that.
    type = errorType ?? "Error";
    bytes = encode(
      `{"errorType":"${type}","errorMessage":"an error that cannot be shown",` +
        '"stackTrace":[]}',
    );
  }
  return framesOf("ERROR", bytes, type, doneBehind(job, true));
}

const framesOf = (
  /**
   * Frame an answer, in parts if other programs may write to the same pipe.
   *
   * @param {FrameKind} kind
   * @param {Uint8Array} body
   * @param {string} errorType
   * @param {string} behind What follows the last frame.
   * @returns {Uint8Array[]}
   */
  function (kind, body, errorType, behind) {
    const frames = [];
    if (hello.partBytes > 0) {
      const room = hello.partBytes - FRAME_OVERHEAD_BYTES;
      for (; body.length > room; body = body.subarray(room)) {
        frames.push(frame("PART", body.subarray(0, room)));
      }
    }
    frames.push(frame(kind, body, errorType, behind));
    return frames;
  }
);

const standStill = (
  /**
   * End the worker's work for good: no timer and no promise of it runs any more, while
   * the supervisor, who has the answer, ends the process.
   */
  function () {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LINGER_MS);
    exit(0);
  }
);

/** @param {PromiseRejectionEvent} event */
function onUnhandledRejection(event) {
  event.preventDefault();
  accident(event.reason, "Runtime.UnhandledPromiseRejection");
}

/** @param {ErrorEvent} event */
function onUncaughtError(event) {
  event.preventDefault();
  accident(event.error);
}

/**
 * Answer for an error that no handler caught; after the answer it is only logged.
 *
 * @param {unknown} error
 * @param {string} [errorType]
 */
function accident(error, errorType) {
  const job = currentJob();
  // Whose it is may be unknown: then it may have spoilt what each of them relies on.
  const hit = (job === null ? [...runningJobs] : [job]).filter(isAnswerDue);
  if (hit.length === 0) {
    log("ERROR", ["Uncaught error after the answer", error]);
  }
  for (const one of hit) failByAccident(one, error, errorType);
}

/**
 * @param {Job} job
 * @returns {boolean} True until its answer is decided.
 */
function isAnswerDue({ phase }) {
  return phase === "loading" || phase === "running" || phase === "streaming";
}

/**
 * @param {Job} job
 * @param {unknown} error
 * @param {string} [errorType]
 */
function failByAccident(job, error, errorType) {
  job.isFatal = true;
  if (job.phase === "streaming") {
    // The frame that is being written has to end first.
    job.answering?.fail(error, errorType).then(() => end(job));
    job.answering?.reject(error);
  } else {
    job.fail(error, errorType);
    end(job);
  }
}

/** The event loop ran dry: what is still awaited can never come. */
function onNothingLeft() {
  const job = latestJob;
  const isUnanswered = job.phase === "running" || job.phase === "streaming";
  if (isUnanswered) {
    job.isFatal = true;
    job.fail(
      new RuntimeError(
        "Runtime.HandlerNeverSettled",
        "The handler's promise can never settle: it waits, and no timer, request or " +
          "other work is left that could wake it",
      ),
    );
  }
  if (!isUnanswered && job.phase === "finishing") {
    // What waits for it in `finish` waits for ever, so nothing can follow.
    job.goesOn = false;
    log("WARN", [
      "waitUntil: a promise can never settle, nothing is left to wake it",
    ]);
  }
  if (job.phase !== "loading" && job.phase !== "idle") end(job);
}

/** An error of the runtime's own, with the name that the caller is given. */
class RuntimeError extends Error {
  /**
   * @param {string} errorType
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(errorType, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = errorType;
  }
}

const adapt = (
  /**
   * Find the handler among a module's exports and bring it into the form we call.
   *
   * @param {Record<string, unknown>} module
   * @param {string} path Names joined by dots.
   * @returns {Promise<Handler>}
   * @throws {RuntimeError} There is no such export, or it is none of the known forms.
   */
  async function (module, path) {
    const { owner, value } = pick(module, path);
    if (typeof value !== "function") {
      const adaptFetch = await fetchAdapter(module.handler);
      await rehearse(
        adaptFetch({ fetch: () => new Response("{}") }),
        HTTP_REHEARSAL,
      );
      return adaptFetch(value);
    }
    if (STREAMING in value) {
      const adaptStreaming = await streamingAdapter();
      // V8 compiles once more what has run a few times: not while the event waits.
      for (let times = 0; times < 3; times += 1) {
        await rehearse(adaptStreaming(async (_event, stream) => {
          await new Promise((resolve) => stream.write("1", resolve));
          stream.end("2");
        }, undefined));
      }
      return adaptStreaming(value, owner);
    }
    await rehearse(adaptPlain((event) => event, undefined));
    if (value[Symbol.toStringTag] === "AsyncGeneratorFunction") {
      await rehearse(adaptPlain(async function* () {
        yield "1";
        yield "2";
      }, undefined));
    }
    return adaptPlain(value.length > 2 ? withCallback(value) : value, owner);
  }
);

const adaptPlain = (
  /**
   * @param {(event: unknown, context: Context) => unknown} value
   * @param {unknown} owner
   * @returns {Handler}
   */
  function (value, owner) {
    return async (event, context, job) =>
      finishResponse(await value.call(owner, event, context), event, job);
  }
);

/** Load what handlers of AWS's streaming form need. */
async function streamingAdapter() {
  const { responseStream } = await import("./node_stream.js");
  /**
   * @param {(event: unknown, stream: any, context: Context) => unknown} value
   * @param {unknown} owner
   * @returns {Handler}
   */
  return (value, owner) => async (event, context, job) => {
    const { stream, finished } = responseStream(new Sink(job));
    await value.call(owner, event, stream, context);
    await finished;
    return STREAMED;
  };
}

/**
 * Load what fetch handlers need.
 *
 * @param {unknown} fallback For events that are no HTTP requests.
 */
async function fetchAdapter(fallback) {
  const http = await loadHttp();
  /**
   * @param {FetchApp} app
   * @returns {Handler}
   */
  return (app) => (event, context, job) =>
    fetchFrom(app, event, context, job, http, fallback);
}

const fetchFrom = (
  /**
   * @param {FetchApp} app
   * @param {unknown} event
   * @param {Context} context
   * @param {Job} job
   * @param {typeof import("./http.js")} http
   * @param {unknown} fallback For an event that is no HTTP request.
   */
  async function (app, event, context, job, http, fallback) {
    if (http.httpShape(event) === null) {
      if (typeof fallback === "function") return fallback(event, context);
      throw new RuntimeError(
        "Runtime.UnsupportedEvent",
        "Cannot turn the event into a Request: it is no HTTP event of API Gateway, " +
          "a function URL or a load balancer; for other events export a function " +
          "`handler` beside the default export, and name the latter: file.default",
      );
    }
    let request;
    try {
      request = http.toRequest(event, context.signal, warn);
    } catch (error) {
      if (!(error instanceof http.MethodNotAllowedError)) throw error;
      const headers = { allow: ALLOWED_METHODS };
      return finishResponse(
        new Response(null, { status: 405, headers }),
        event,
        job,
      );
    }
    const facts = Object.assign(context, { event });
    // Frameworks that know Workers look for `waitUntil` in the third.
    const response = await app.fetch(request, facts, facts);
    if (!isResponse(response)) {
      throw new RuntimeError(
        "Runtime.InvalidResponse",
        `Cannot answer with what fetch returned: it is ${kindOf(response)}, ` +
          "not a Response",
      );
    }
    return finishResponse(response, event, job);
  }
);

/** @param {string} message What could not be carried over between event and Request. */
function warn(message) {
  log("WARN", [message]);
}

/** Loaded for handlers that speak HTTP only. */
function loadHttp() {
  return import("./http.js");
}

const finishResponse = (
  /**
   * Turn a `Response` into what the event's sender understands; leave all else alone.
   *
   * @param {unknown} result
   * @param {unknown} event
   * @param {Job} job
   */
  async function (result, event, job) {
    if (!isResponse(result)) return result;
    const { fromResponse, httpShape, isBodyless, streamPrelude } =
      await loadHttp();
    if (httpShape(event) === null) {
      throw new RuntimeError(
        "Runtime.UnsupportedEvent",
        "Cannot answer with a Response: the event is no HTTP event; return a value",
      );
    }
    if (hello.responseMode === "buffered") {
      return fromResponse(result, event, warn);
    }
    const sink = new Sink(job);
    sink.beginHttp(streamPrelude(result));
    const hasBody = result.body !== null && !isBodyless(result, event);
    if (!hasBody) result.body?.cancel().catch(() => {}); // its source need not go on
    await sink.pump(hasBody ? result.body : NO_BODY);
    return STREAMED;
  }
);

const isResponse = (
  /**
   * Deno loads its fetch code when `Response` is first named, which takes 3 ms; whoever
   * made a response has paid for that, others need not.
   *
   * @param {any} value
   * @returns {value is Response}
   */
  function (value) {
    return typeof value === "object" && value !== null &&
      value[Symbol.toStringTag] === "Response" && value instanceof Response;
  }
);

/** @type {AsyncIterable<Uint8Array>} */
const NO_BODY = { async *[Symbol.asyncIterator]() {} };

/**
 * Give a handler of the older form, with a callback, the form of today.
 *
 * @param {Function} handler
 */
function withCallback(handler) {
  return function (
    /** @type {unknown} */ event,
    /** @type {Context} */ context,
  ) {
    // @ts-ignore called as a method of its owner
    const owner = /** @type {unknown} */ (this);
    return new Promise((resolve, reject) => {
      const result = handler.call(
        owner,
        event,
        context,
        (/** @type {unknown} */ error, /** @type {unknown} */ value) =>
          error === null || error === undefined
            ? resolve(value)
            : reject(error),
      );
      // A function that declares a callback and returns a promise means the promise.
      if (typeof result?.then === "function") resolve(result);
    });
  };
}

const pick = (
  /**
   * Find an export. The default export stands in for `handler`, the conventional name.
   *
   * @param {Record<string, unknown>} module
   * @param {string} path Names joined by dots.
   * @returns {{ owner: unknown, value: any }} A function, or an object with `fetch`.
   * @throws {RuntimeError} There is no such export, or it is something else.
   */
  function (module, path) {
    let owner = /** @type {unknown} */ (undefined);
    let value = /** @type {any} */ (module);
    for (const name of path.split(".")) {
      owner = value === module ? undefined : value;
      value = value?.[name];
    }
    if (value === undefined && path === "handler") value = module.default;
    if (typeof value === "function" || typeof value?.fetch === "function") {
      return { owner, value };
    }
    throw noHandler(module, path, value);
  }
);

/**
 * @param {Record<string, unknown>} module
 * @param {string} path
 * @param {unknown} value What stands there.
 */
function noHandler(module, path, value) {
  const where = quote(hello.module);
  const found = Object.keys(module).join(", ") || "nothing";
  const kind = kindOf(value);
  return new RuntimeError(
    "Runtime.HandlerNotFound",
    value === undefined
      ? `Cannot find export ${quote(path)} in ${where}: it exports ${found}`
      : `Cannot call export ${quote(path)} of ${where}: it is ${kind}, ` +
        "not a function or an object with a fetch method",
  );
}

/**
 * @param {unknown} value
 * @returns {string} What it is, for a message.
 */
function kindOf(value) {
  return value === null ? "null" : `of type ${typeof value}`;
}

/**
 * Name the reason why a module could not be loaded.
 *
 * Deno reports what its loader finds as a `TypeError` with a code; what the module
 * throws itself keeps its own name.
 *
 * @param {any} error
 * @returns {string | undefined}
 */
function loadErrorType(error) {
  const { code, message, name } = attempt(() => ({
    code: error.code,
    message: `${error.message}`,
    name: error.name,
  })) ?? {};
  const isSyntaxError = name === "SyntaxError" ||
    message?.startsWith("SyntaxError:");
  if (isSyntaxError) return "Runtime.UserCodeSyntaxError";
  if (code?.startsWith?.("ERR_")) return "Runtime.ImportModuleError";
  return undefined;
}

const parseEvent = (
  /**
   * Parse the event.
   *
   * @param {Uint8Array} bytes
   * @throws {RuntimeError} It is no JSON text.
   */
  function (bytes) {
    try {
      return parse(decode(bytes));
    } catch (error) {
      throw new RuntimeError(
        "Runtime.UnmarshalError",
        `Cannot read the event as JSON: ${describe(error).errorMessage}`,
      );
    }
  }
);

const abortController = (
  /**
   * @param {Job} job
   * @param {Head} head
   * @returns {AbortController} For `context.signal`.
   */
  function (job, head) {
    const controller = new AbortController();
    if (job.callerGone !== null) controller.abort(job.callerGone);
    job.abortSignal = (reason) => controller.abort(reason);
    const abort = () =>
      controller.abort(
        new DOMException(
          "The invocation is about to time out",
          "TimeoutError",
        ),
      );
    const leftMs = Math.max(0, head.abortEpochMs - Date.now());
    // Not setTimeout: Deno loads Node's timers when that is first named, which takes a
    // process 6 ms of CPU time and 4 MB. This one keeps nothing alive.
    const timer = createSystemTimer(
      abort,
      Math.min(TIMER_LIMIT_MS, leftMs),
      false,
    );
    job.clearTimer = () => cancelTimer(timer);
    return controller;
  }
);

const makeContext = (
  /**
   * Build the context object of Node's runtime, and what we add to it.
   *
   * @param {Job} job
   * @param {Head} head
   */
  function (job, head) {
    /** @type {AbortController | undefined} */
    let controller;
    return {
      ...hello.context,
      awsRequestId: head.requestId,
      invokedFunctionArn: head.functionArn,
      clientContext: parseContext(head.clientContext, "client context"),
      identity: parseContext(head.identity, "Cognito identity"),
      tenantId: head.tenantId ?? undefined,
      xRayTraceId: head.traceId ?? undefined,
      callbackWaitsForEmptyEventLoop: true,
      /** @returns {number} Milliseconds until the deadline, never below zero. */
      getRemainingTimeInMillis: () =>
        Math.max(0, head.deadlineEpochMs - Date.now()),
      /** @param {unknown} promise Finished after the answer, before the process ends. */
      waitUntil(promise) {
        if (job.phase === "done") return;
        // Marked as handled at once: it is reported by `finish`, not as unhandled.
        const settled = Promise.resolve(promise);
        settled.catch(() => {});
        job.afterwards.push(settled);
      },
      /** Aborts shortly before the worker is stopped for its deadline. */
      get signal() {
        controller ??= abortController(job, head);
        return controller.signal;
      },
    };
  }
);

const parseContext = (
  /**
   * @param {string | null} text
   * @param {string} what
   * @throws {RuntimeError} It is no JSON text.
   */
  function (text, what) {
    if (text === null) return undefined;
    try {
      return parse(text);
    } catch {
      const shown = quote(text.slice(0, 64));
      const message =
        `Cannot read the ${what} as JSON: it begins with ${shown}`;
      throw new RuntimeError("Runtime.LambdaContextUnmarshalError", message);
    }
  }
);

let hasTraceId = false;

const setTraceId = (
  /** @param {string | null} traceId */
  function (traceId) {
    // Of several at once none may speak for all: it is in the context.
    if (hello.concurrency > 1 || (traceId === null && !hasTraceId)) return;
    hasTraceId = traceId !== null;
    // Without env permission there is nobody who could read it.
    attempt(() =>
      traceId === null
        ? Deno.env.delete("_X_AMZN_TRACE_ID")
        : Deno.env.set("_X_AMZN_TRACE_ID", traceId)
    );
  }
);

/**
 * Describe anything that was thrown. Cannot throw, however hostile the value is.
 *
 * @param {any} error
 * @param {{ left: number, text: number }} [budget] Errors and characters that the body
 *   may still take; less afterwards.
 * @returns {ErrorBody}
 */
function describe(
  error,
  budget = { left: ERRORS_LIMIT, text: ERROR_TEXT_LIMIT },
) {
  budget.left -= 1;
  const isError = attempt(() => error instanceof Error) ?? false;
  if (!isError) {
    return {
      // @ts-ignore no prototype: what a handler puts into Object's has no part in it
      __proto__: null,
      errorType: error === null ? "null" : typeof error,
      errorMessage: shortened(
        attempt(() =>
          typeof error === "object" ? stringify(error) ?? "" : String(error)
        ) ?? "a value that cannot be shown",
        budget,
      ),
      stackTrace: plain([]),
    };
  }
  // Half a surrogate pair is no valid JSON for the supervisor.
  const errorType =
    text(() => error.name).slice(0, ERROR_TYPE_LIMIT).toWellFormed() || "Error";
  const message = advise(text(() => error.message), errorType);
  const errorMessage = shortened(message, budget);
  /** @type {ErrorBody} */
  const body = {
    // @ts-ignore no prototype, as above
    __proto__: null,
    errorType,
    errorMessage,
    stackTrace: plain(stackOf(error, budget)),
  };
  const cause = attempt(() => error.cause);
  if (cause !== undefined && budget.left > 0) {
    body.cause = describe(cause, budget);
  }
  const errors =
    attempt(() => Array.isArray(error.errors) ? [...error.errors] : []) ?? [];
  const described = [];
  for (const inner of errors) {
    if (budget.left <= 0) break;
    described.push(describe(inner, budget));
  }
  if (described.length > 0) body.errors = plain(described);
  return body;
}

/**
 * Say of a denied access what would allow it here: nobody can run a function again
 * "with the --allow-read flag".
 *
 * @param {string} text
 * @param {string} [errorType]
 * @returns {string}
 */
function advise(text, errorType) {
  return attempt(() => {
    const isDenial = text.includes(", run again with the --allow-");
    if (isDenial || text.includes("getaddrinfo EPERM ")) {
      return text.replace(DENIED, (_, kind, target, folder) => {
        const what = target === undefined ? "" : ` to "${target}"`;
        const value = folder === "<TMP>" ? "$TMPDIR" : target;
        return `Requires ${kind} access${what}: ${remedy(kind, value)}`;
      }).replace(
        DENIED_LOOKUP,
        (said, host) => `${said}: ${remedy("net", host)}`,
      );
    }
    if (text.includes(NOT_CACHED)) {
      return text.replaceAll(NOT_CACHED, NOT_PACKAGED);
    }
    if (text.startsWith(NOT_ADDED)) return text + ADD_BEFORE;
    const isLost = errorType === "CredentialsProviderError" &&
      hello.permissions.credentialsWithheld;
    return isLost ? text + CREDENTIALS_WITHHELD : text;
  }) ?? text;
}

/**
 * @param {string} kind Kind of permission.
 * @param {string | undefined} target What was accessed, if that is known.
 * @returns {string} What allows it.
 */
function remedy(kind, target) {
  const { base, set, denies, runtimeApi, everything } = hello.permissions;
  if (
    kind === "env" && target === undefined && "HTTP_PROXY" in hello.variables
  ) {
    return "process.loadEnvFile would also set variables that Deno's module loader " +
      "obeys, such as HTTP_PROXY; use util.parseEnv and Deno.env.set";
  }
  const port = target?.slice(target.lastIndexOf(":"));
  const isLoopback = target?.startsWith("127.") &&
    runtimeApi[0].endsWith(`${port}`);
  if (target && (runtimeApi.includes(target) || isLoopback)) {
    return "this is the address of the Runtime API, which no permission opens: a " +
      "handler that asked it for events would take them from others (only programs " +
      "that it may start, with run or ffi, are not held back)";
  }
  if (everything) {
    return kind === "sys"
      ? "everything is allowed but this, which would slow down the runtime; list flags " +
        `instead, --allow-sys=${target} among them`
      : `everything is allowed but what a --deny-${kind} flag or deno.json denies`;
  }
  const isPlain = target === undefined || /^[\w@%+=:./$-]+$/.test(target);
  const value = isPlain ? target : `'${target.replaceAll("'", `'\\''`)}'`;
  const flag = `--allow-${kind}${value === undefined ? "" : `=${value}`}`;
  const inJson = set === null
    ? 'or list what the function may do under "permissions" in deno.json'
    : `or add it to the permission set "${set}" in deno.json`;
  const unless = denies.includes(kind)
    ? `; what is denied for ${kind} there or in deno.json stays denied`
    : "";
  return `set LAMBDA_DENO_PERMISSIONS="${
    base && `${base} `
  }${flag}", ${inJson}${unless}`;
}

/**
 * @template T
 * @param {T[]} array
 * @returns {T[]} The same, out of reach of a `toJSON` that arrays inherit.
 */
function plain(array) {
  return Object.defineProperty(array, "toJSON", { value: undefined });
}

/**
 * @param {string} text
 * @param {{ text: number }} budget Characters left, less afterwards.
 * @returns {string} What of the text fits into the error body.
 */
function shortened(text, budget) {
  const kept = text.slice(0, budget.text);
  budget.text -= kept.length;
  const rest = text.length - kept.length;
  return rest === 0 ? text : `${kept}\u2026 (${rest} characters more)`;
}

/**
 * The stack as one string per frame, without the message and without our own frames.
 * Positions are those of the TypeScript file: Deno maps them.
 *
 * @param {any} error
 * @param {{ text: number }} budget Characters left, less afterwards.
 * @returns {string[]}
 */
function stackOf(error, budget) {
  const whole = text(() => error.stack);
  const first = whole.search(/^\s+at /m);
  if (first < 0) return [];
  const stack = whole.slice(first, first + budget.text);
  budget.text -= stack.length;
  const lines = stack.split("\n").map((line) => line.trim())
    .filter((line) => line.startsWith("at ") && !line.includes(OUR_FILES));
  const rest = whole.length - first - stack.length;
  if (rest > 0) lines.push(`\u2026 (${rest} characters more)`);
  return lines;
}

/**
 * @param {() => unknown} read
 * @returns {string} What it gives if that is a string, else an attempt at one.
 */
function text(read) {
  return attempt(() => {
    const value = read();
    return typeof value === "string"
      ? value
      : value === undefined
      ? ""
      : String(value);
  }) ?? "";
}

/**
 * @template T
 * @param {() => T} read
 * @returns {T | undefined} Undefined if it throws.
 */
function attempt(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** @param {string} value */
function quote(value) {
  return `'${value}'`;
}

const reroute = (
  /**
   * Keep stdout for frames and stdin for us: everything a handler writes becomes a log
   * record, everything it reads is at its end.
   */
  function () {
    // Deno's own console with another printer: every method keeps its behaviour.
    let pending = "";
    const rerouted = new Console(
      (/** @type {string} */ message, /** @type {number} */ level) => {
        pending += message;
        // One call may print in pieces; the last one ends the line.
        if (!pending.endsWith("\n")) return;
        const record = pending.slice(0, -1);
        pending = "";
        log(PRINTER_LEVELS[level] ?? "INFO", [record]);
      },
    );
    Object.assign(console, rerouted, { clear: () => {} });
    if (hello.logFormat === "json") {
      // In JSON a value stays a value, so the arguments are needed, not their text.
      Object.assign(console, {
        trace: (/** @type {unknown[]} */ ...args) => log("TRACE", args),
        debug: (/** @type {unknown[]} */ ...args) => log("DEBUG", args),
        log: (/** @type {unknown[]} */ ...args) => log("INFO", args),
        info: (/** @type {unknown[]} */ ...args) => log("INFO", args),
        warn: (/** @type {unknown[]} */ ...args) => log("WARN", args),
        error: (/** @type {unknown[]} */ ...args) => log("ERROR", args),
      });
    }
    // Deno keeps both on disk, where the next event's process would find them.
    Object.defineProperty(globalThis, "localStorage", {
      configurable: true,
      enumerable: true,
      get: () => sessionStorage,
    });
    // @ts-ignore as in Node, which has none
    delete globalThis.caches;
    // Node's process.stdout and process.stdin are built on these two objects.
    /** @param {Uint8Array} bytes */
    const writeSync = (bytes) => (writeAll(writeStderr, bytes), bytes.length);
    /** @type {WritableStream<Uint8Array> | undefined} */
    let writable;
    const inherited = { configurable: true, enumerable: true };
    Object.defineProperties(stdout, {
      writeSync: { ...inherited, writable: true, value: writeSync },
      write: {
        ...inherited,
        writable: true,
        value: (/** @type {Uint8Array} */ bytes) =>
          Promise.resolve(writeSync(bytes)),
      },
      close: { ...inherited, writable: true, value: () => {} },
      writable: {
        ...inherited,
        get: () =>
          writable ??= new WritableStream({ write: (c) => void writeSync(c) }),
      },
    });
    Object.defineProperties(stdin, {
      readSync: { ...inherited, writable: true, value: () => null },
      read: {
        ...inherited,
        writable: true,
        value: () => Promise.resolve(null),
      },
      close: { ...inherited, writable: true, value: () => {} },
      readable: {
        ...inherited,
        get: () =>
          new ReadableStream({ start: (controller) => controller.close() }),
      },
    });
  }
);

/** Whose record it is, where that cannot be told. */
const NOBODY = { requestId: "", tenantId: null };

/**
 * Write one log record to stderr, marked as complete so that nobody formats it again.
 *
 * @param {keyof typeof LEVELS} level
 * @param {unknown[]} args As given to the console method.
 */
function log(level, args) {
  const timestamp = new Date().toISOString();
  let record;
  if (hello.logFormat === "json") {
    // The platform filters levels in JSON format only.
    if (LEVELS[level] < LEVELS[hello.logLevel]) return;
    // @ts-ignore no prototype: what a handler puts into Object's has no part in it
    record = jsonRecord({ __proto__: null, timestamp, level }, args);
  } else {
    // A carriage return keeps the lines of a record together in CloudWatch.
    const message = format(args).replaceAll("\n", "\r");
    const { requestId, tenantId } = currentJob() ?? NOBODY;
    const tenant = tenantId === null ? "" : `TenantId: ${tenantId}\t`;
    record = `${timestamp}\t${requestId || "-"}\t${level}\t${tenant}${
      message.slice(0, RECORD_LIMIT)
    }`;
  }
  writeAll(writeStderr, encode(`${hello.marker}${record}\n`));
}

/**
 * The fields of Node's runtime: a single argument stays a JSON value, several are
 * formatted, and the first error among them is told apart.
 *
 * @param {Record<string, unknown>} record
 * @param {unknown[]} args
 * @returns {string}
 */
function jsonRecord(record, args) {
  const { requestId, tenantId } = currentJob() ?? NOBODY;
  if (requestId) record.requestId = requestId;
  if (tenantId !== null) record.tenantId = tenantId;
  const error = args.find((arg) => attempt(() => arg instanceof Error));
  if (args.length === 1) {
    record.message = error === undefined ? args[0] : describe(error);
  } else {
    record.message = format(args);
    if (error !== undefined) Object.assign(record, describe(error));
  }
  const line = attempt(() => stringify(record));
  if (line !== undefined && line.length <= RECORD_LIMIT) return line;
  // Not JSON, or more than the log takes: its text, cut.
  const message = format(args).slice(0, RECORD_LIMIT / 8);
  // @ts-ignore no prototype, as above
  return stringify({
    __proto__: null,
    ...record,
    message,
    stackTrace: undefined,
  });
}

/**
 * @param {unknown[]} args
 * @returns {string} What the console would print for them.
 */
function format(args) {
  const text = advise(
    args.length === 1 && typeof args[0] === "string"
      ? args[0]
      : attempt(() => /** @type {string} */ (inspectArgs(args))) ??
        "a value that cannot be shown",
  );
  // Where we called the handler from is of no use to anybody.
  if (!text.includes(OUR_FILES)) return text;
  const isOurs = (/** @type {string} */ line) => line.includes(OUR_FILES);
  return text.split("\n").filter((line) => !isOurs(line)).join("\n");
}

const frame = (
  /**
   * Build one frame: marker, header, newline, body, marker, newline. In one piece: a short
   * frame then arrives whole, whoever else writes to the pipe.
   *
   * @param {FrameKind} kind
   * @param {Uint8Array} [body]
   * @param {string} [errorType]
   * @param {string} [behind] Written behind it, by the same call.
   * @param {string} [contentType]
   * @returns {Uint8Array}
   */
  function (kind, body, errorType, behind = "", contentType = undefined) {
    const { marker } = hello;
    const length = body?.length ?? 0;
    let more = errorType ? `,"errorType":${stringify(errorType)}` : "";
    if (contentType) more += `,"contentType":${stringify(contentType)}`;
    const head = `${marker}{"kind":"${kind}","bytes":${length}${more}}\n`;
    const tail = `${marker}\n${behind}`;
    if (body === undefined) return encode(head + tail);
    const before = encode(head), after = encode(tail);
    const bytes = new Uint8Array(before.length + length + after.length);
    bytes.set(before);
    bytes.set(body, before.length);
    bytes.set(after, before.length + length);
    return bytes;
  }
);

const doneFrame = (
  /**
   * @param {boolean} goesOn The process takes another invocation.
   * @returns {string} The frame that says that nothing is left to do.
   */
  function (goesOn) {
    const more = goesOn ? ',"more":true' : "";
    return `${hello.marker}{"kind":"DONE","bytes":0${more}}\n${hello.marker}\n`;
  }
);

const decode = (
  /**
   * Decode UTF-8. Deno's TextDecoder takes 0.2 ms when it is first used, and ten times as
   * long as this for what is large.
   *
   * @param {Uint8Array} bytes
   * @returns {string} Without a byte order mark.
   * @throws {TypeError} It is not UTF-8.
   */
  function (bytes) {
    const text = decodeAnything(bytes);
    // This is what anything else becomes; but it may also have been sent.
    return text.includes("\ufffd")
      ? new TextDecoder("utf-8", { fatal: true }).decode(bytes)
      : text;
  }
);

const write = (
  /** @param {Uint8Array} bytes A frame. */
  function (bytes) {
    try {
      writeAll(writeStdout, bytes);
    } catch (error) {
      // The handler closed it for good; the supervisor knows these words.
      log("FATAL", ["Cannot write to stdout:", error]);
      exit(1);
    }
  }
);

const writeAll = (
  /**
   * @param {(bytes: Uint8Array) => number} write
   * @param {Uint8Array} bytes
   */
  function (write, bytes) {
    // A single write may be short.
    for (let offset = 0; offset < bytes.length;) {
      offset += write(bytes.subarray(offset));
    }
  }
);

const readLine = (
  /**
   * Read up to the next newline. Blocking: a waiting worker does nothing else, and this
   * answers in less time than an asynchronous read.
   *
   * @returns {string | null} Null at the end of stdin.
   */
  function () {
    let searched = 0;
    for (;;) {
      const newline = unread.indexOf(10, searched);
      if (newline >= 0) {
        const line = decode(unread.subarray(0, newline));
        unread = unread.subarray(newline + 1);
        return line;
      }
      searched = unread.length;
      if (!readMore()) return null;
    }
  }
);

const readExactly = (
  /**
   * @param {number} length Bytes.
   * @returns {Uint8Array | null} Null if stdin ends before.
   */
  function (length) {
    if (unread.length >= length) {
      const there = unread.subarray(0, length);
      unread = unread.subarray(length);
      return there;
    }
    const bytes = new Uint8Array(length);
    bytes.set(unread);
    const begun = unread.length;
    unread = new Uint8Array(0);
    for (let offset = begun; offset < length;) {
      const count = readStdin(bytes.subarray(offset));
      if (count === null) return null;
      offset += count;
    }
    return bytes;
  }
);

/** What is read into while nothing is unread: a new one each time takes its time. */
const readBuffer = new Uint8Array(65_536);

const readMore = (
  /** @returns {boolean} False at the end of stdin. */
  function () {
    const chunk = unread.length === 0 ? readBuffer : new Uint8Array(65_536);
    const count = readStdin(chunk);
    if (count === null) return false;
    const come = chunk.subarray(0, count);
    if (unread.length === 0) {
      unread = come;
    } else {
      const joined = new Uint8Array(unread.length + count);
      joined.set(unread);
      joined.set(come, unread.length);
      unread = joined;
    }
    return true;
  }
);
