// @ts-check
/** What the tests of the parts of runtime.js share. Import it before the parts. */

import { joined } from "./streams.js";
import { receiveHello } from "../../src/lambda_deno_spawn/js/src/input.js";
import { beginInvocation } from "../../src/lambda_deno_spawn/js/src/job.js";

/** @typedef {import("../../src/lambda_deno_spawn/js/src/input.js").Hello} Hello */
/** @typedef {import("../../src/lambda_deno_spawn/js/src/input.js").Head} Head */
/** @typedef {import("../../src/lambda_deno_spawn/js/src/job.js").Output} Output */
/** @typedef {Record<string, any> & { kind: string, body: string }} Frame */

export const MARKER = "0123456789abcdef0123456789abcdef";
const HELLO = {
  version: 3,
  marker: MARKER,
  export: "handler",
  module: "/var/task/function.ts",
  partBytes: 0,
  resultLimitBytes: 6_291_556,
  logFormat: "text",
  logLevel: "TRACE",
  responseMode: "buffered",
  invocations: 1,
  socket: null,
  input: null,
  concurrency: 1,
  closeMs: 500,
  lastWordsMs: 1000,
  console: "log",
  steering: "",
  variables: {},
  packageFolders: [],
  closedFolders: [],
  context: { functionName: "test" },
};
const PERMISSIONS = {
  base: "default",
  set: null,
  denies: [],
  runtimeApi: ["169.254.100.1:9001", "localhost:9001"],
  everything: false,
  hidden: true,
  taskRoot: "/var/task",
  credentialsWithheld: false,
};
/** @type {Head} */
const HEAD = {
  eventBytes: 2,
  requestId: "request-1",
  deadlineEpochMs: 0,
  abortEpochMs: 0,
  functionArn: "arn:aws:lambda:eu-west-1:1:function:test",
  traceId: null,
  clientContext: null,
  identity: null,
  tenantId: null,
};

/**
 * Give the parts the facts of a HELLO line.
 *
 * @param {Omit<Partial<Hello>, "permissions">} [members]
 * @param {Partial<Hello["permissions"]>} [permissions]
 */
export function sayHello(members = {}, permissions = {}) {
  const hello = {
    ...HELLO,
    ...members,
    permissions: { ...PERMISSIONS, ...permissions },
  };
  receiveHello(JSON.stringify(hello));
}

/**
 * @param {Partial<Head>} [members]
 * @returns {Head} The INVOKE line.
 */
export function headOf(members = {}) {
  return { ...HEAD, ...members };
}

/** Keeps what a job writes. @implements {Output} */
export class KeptOutput {
  /** @type {Uint8Array[]} */
  writes = [];
  /** Which of the writes were announced as the last. @type {boolean[]} */
  isLast = [];
  /** How often it was told the end. */
  ends = 0;
  /** `writeLater` waits for it. @type {Promise<void>} */
  room = Promise.resolve();

  /**
   * @param {Uint8Array} bytes
   * @param {boolean} isLast
   */
  write(bytes, isLast) {
    this.writes.push(bytes);
    this.isLast.push(isLast);
  }

  /** @param {Uint8Array} bytes */
  async writeLater(bytes) {
    await this.room;
    this.write(bytes, false);
  }

  end() {
    this.ends += 1;
  }

  /** @returns {Frame[]} */
  get frames() {
    return framesIn(joined(this.writes));
  }

  /** @returns {string[]} */
  get kinds() {
    return this.frames.map(({ kind }) => kind);
  }
}

/** @param {Partial<Head>} [head] */
export function beginJob(head = {}) {
  const output = new KeptOutput();
  return { output, job: beginInvocation(output, headOf(head)) };
}

/**
 * Read frames as docs/protocol.md has them; anything else is an error.
 *
 * @param {Uint8Array} bytes
 * @returns {Frame[]} Members of the header, and the body as text.
 */
export function framesIn(bytes) {
  // A character for each byte, so that lengths are those of the header.
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const frames = [];
  for (let at = 0; at < text.length;) {
    const newline = text.indexOf("\n", at);
    if (!text.startsWith(MARKER, at) || newline < 0) {
      throw new Error(`Not a frame: ${text.slice(at, at + 200)}`);
    }
    const header = JSON.parse(text.slice(at + MARKER.length, newline));
    const end = newline + 1 + header.bytes;
    if (!text.startsWith(`${MARKER}\n`, end)) {
      throw new Error(`Not the end of a frame: ${text.slice(end, end + 200)}`);
    }
    const body = bytes.subarray(newline + 1, end);
    frames.push({ ...header, body: new TextDecoder().decode(body) });
    at = end + MARKER.length + 1;
  }
  return frames;
}
