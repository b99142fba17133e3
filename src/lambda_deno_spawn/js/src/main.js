// @ts-check
/**
 * The worker's end of the protocol: loads the handler, reads an invocation from stdin,
 * runs it and frames its outcome on stdout; for the strategy `server` both over HTTP
 * (server.js). Normative text: docs/protocol.md; the supervisor's end is
 * protocol/frames.py. It is loaded for every event, so whatever can be done in Python
 * is done there.
 *
 * @module
 */

/** @import { Close, Head, Resume } from "./input.js" */
/** @import { Job } from "./job.js" */
/** @import { Handler } from "./run.js" */
import { adaptOrServe } from "./choice.js";
import { reroute } from "./console.js";
import {
  beforeTheEnd,
  close,
  hasEnded,
  listenForSigterm,
  watchDeadline,
  watchForListeners,
} from "./ending.js";
import { loadErrorType, noteDenials } from "./errors.js";
import { frame } from "./frames.js";
import { awslambda } from "./handlers.js";
import {
  continueWith,
  decode,
  hello,
  invocationsLeft,
  readEvent,
  readLine,
  receiveHello,
} from "./input.js";
import {
  beginInvocation,
  beginLoading,
  currentJob,
  latestJob,
  tellApart,
} from "./job.js";
import { makeLate } from "./late.js";
import { mendRequire, searchFolders } from "./packages.js";
import { fail, finish } from "./outcome.js";
import { STDOUT, write } from "./output.js";
import { exit, parse } from "./primordials.js";
import { run } from "./run.js";
import { loaded, watchServers } from "./serving.js";
import {
  onNothingLeft,
  onUncaughtError,
  onUnhandledRejection,
} from "./uncaught.js";
import {
  prepareForForks,
  rehearseGivingUp,
  rehearseTimer,
  resume,
} from "./template.js";
import { publishIdentity } from "./store.js";
import { standIn } from "./variables.js";

/**
 * Serve as many invocations as HELLO says, and end.
 *
 * @param {(isTemplate: boolean) => Promise<Record<string, unknown>>} load Imports the
 *   handler's module.
 *   The entry module spells the imports out because Deno has to see them; it reads each
 *   file that it sees, so the other is given only where it is needed.
 * @param {() => Promise<typeof import("../server.js")>} loadServer For processes that
 *   listen.
 */
export async function start(load, loadServer) {
  const line = readLine();
  if (line === null) return;
  receiveHello(line);
  reroute();
  standIn(hello.steering, hello.variables);
  noteDenials(currentJob);
  if (hello.template) {
    makeLate();
    prepareForForks(hello.places);
    await rehearseTimer();
  }
  // @ts-ignore the global of AWS's own runtime
  globalThis.awslambda = awslambda;
  globalThis.addEventListener("unhandledrejection", onUnhandledRejection);
  globalThis.addEventListener("error", onUncaughtError);
  globalThis.addEventListener("beforeunload", onNothingLeft);
  watchForListeners();
  // Not earlier: that reads each member whose name is a symbol.
  publishIdentity();
  const loading = beginLoading(STDOUT);
  let handler;
  try {
    // Before the handler's module, which may replace what these take.
    const servesMore = invocationsLeft > 1 || hello.socket !== null;
    const server = hello.socket === null ? null : await loadServer();
    const { packageFolders, closedFolders, permissions } = hello;
    if (permissions.hidden) mendRequire();
    if (packageFolders.length + closedFolders.length > 0) {
      await searchFolders(packageFolders, closedFolders);
    }
    const listener = server?.open(/** @type {string} */ (hello.socket));
    const rid = server?.openInput(hello.input) ?? 0;
    if (!server && hello.input) continueWith(hello.input);
    watchServers();
    handler = await adaptOrServe(
      await loaded(load(hello.template)),
      hello.export,
    );
    if (server && listener) await serve(server, listener, rid, handler);
    // Not before the module has loaded: a listener keeps the event loop alive, so Deno
    // could not detect a top-level await that never settles.
    if (servesMore) listenForSigterm();
  } catch (error) {
    loading.isFatal = true;
    fail(loading, error, loadErrorType(error));
    return finish(loading);
  }
  // An uncaught error while the module loaded has been reported already.
  if (loading.phase !== "loading") return;
  loading.phase = "idle";
  if (hello.template && hello.places !== null) rehearseGivingUp(hello.places);
  write(frame("READY"));
  if (hello.socket === null) await readInvocations(handler);
}

/** @param {Handler} handler */
async function readInvocations(handler) {
  while (invocationsLeft > 0 && !hasEnded()) {
    const line = readLine();
    if (line === null && latestJob.phase === "done") return close(null);
    if (line === null) exit(0);
    /** @type {Close | Head | Resume} */
    const head = parse(/** @type {string} */ (line));
    if ("limitMs" in head) return close(head.limitMs);
    if ("marker" in head) {
      resume(head);
      write(frame("READY"));
      continue;
    }
    const eventBytes = readEvent(head.eventBytes);
    if (eventBytes === null) exit(0);
    const job = beginInvocation(STDOUT, head);
    if (hello.invocations === 1) watchDeadline(job);
    await run(job, handler, head, /** @type {Uint8Array} */ (eventBytes));
    await finish(job);
  }
}

/**
 * Serve invocations over HTTP, as they come.
 *
 * @param {typeof import("../server.js")} server
 * @param {Deno.UnixListener} listener
 * @param {number} rid Resource of the pipe from the supervisor.
 * @param {Handler} handler
 */
async function serve(server, listener, rid, handler) {
  /** @type {(job: Job, work: () => Promise<void>) => Promise<void>} */
  let within = (_job, work) => work();
  if (hello.concurrency > 1) {
    const jobs = await server.scopes();
    within = (job, work) => jobs.run(job, work);
    tellApart(() => jobs.getStore());
  }
  const stopServing = server.serve(
    listener,
    (line, eventBytes, output) => {
      const head = /** @type {Head} */ (parse(decode(line)));
      const job = beginInvocation(output, head);
      within(job, async () => {
        await run(job, handler, head, eventBytes);
        await finish(job);
      });
      return () => job.abandon();
    },
    hello.concurrency === 1,
  );
  beforeTheEnd(stopServing);
  // The supervisor writes CLOSE there, or nothing; it ends with it, or behind that.
  server.endOf(rid).then((line) => {
    close(line === null ? null : parse(decode(line)).limitMs);
  });
}
