// @ts-check
/**
 * Additions to Deno's own telemetry: records of the console, which is another one here,
 * and the trace that an event belongs to. Decision 0036.
 *
 * @module
 */

/** @import { Head } from "./input.js" */
import { attempt } from "./errors.js";
import { hello } from "./input.js";
import { Console, core, isNativeError } from "./primordials.js";

/** The key under which every version of OpenTelemetry's API keeps registrations. */
const API = Symbol.for("opentelemetry.js.api.1");
/** The key of the span in a context of that API. */
const SPAN = Symbol.for("OpenTelemetry Context Key SPAN");
/** Name of X-Ray's header. */
const XRAY = "x-amzn-trace-id";
/** Hexadecimal digits of X-Ray's ids. */
const ROOT = /^1-([0-9a-f]{8})-([0-9a-f]{24})$/i;
const PARENT = /^[0-9a-f]{16}$/i;

/** The error that is being logged, whose members are fields of the record. */
let shown = /** @type {Error | null} */ (null);

/** @returns {any} What is registered with the API; undefined: nothing. */
function registered() {
  return /** @type {any} */ (globalThis)[API];
}

/**
 * Let Deno's telemetry have what the console prints.
 *
 * @param {Record<string, any>} console The console's methods; they are replaced.
 */
export function capture(console) {
  if (hello.console === "log") return;
  /** @type {Record<string, any>} */
  const captured = new Console(record);
  captured.fatal = captured.error;
  for (const name of Object.keys(captured)) {
    const print = console[name], keep = captured[name];
    if (typeof keep !== "function") continue;
    console[name] = (/** @type {unknown[]} */ ...args) => {
      shown = isNativeError(args[0]) ? args[0] : null;
      keep(...args);
      if (hello.console === "both") print(...args);
    };
  }
}

/**
 * Give a record to Deno's telemetry, with the span that it belongs to.
 *
 * @param {string} message
 * @param {number} level
 */
function record(message, level) {
  const span = registered()?.context?.active().getValue(SPAN);
  const { op_otel_log, op_otel_log_foreign } = core.ops;
  const { name = "", message: text = "", stack = "" } = shown ?? {};
  const error = [`${name}`, `${text}`, `${stack}`];
  shown = null;
  if (span === undefined) {
    op_otel_log(message, level, undefined, ...error);
    return;
  }
  const { traceId, spanId, traceFlags } = span.spanContext();
  op_otel_log_foreign(message, level, traceId, spanId, traceFlags, ...error);
}

/**
 * @param {Head} head
 * @param {unknown} event
 * @returns {(<T>(work: () => T) => T) | null} Runs a handler as part of the trace that
 *   its event belongs to; null: there is no telemetry, or no trace.
 */
export function traceOf(head, event) {
  const api = registered();
  if (api?.context === undefined) return null;
  const context = attempt(() => contextOf(api, head, event));
  return context === undefined
    ? null
    : (work) => api.context.with(context, work);
}

/**
 * @param {any} api
 * @param {Head} head
 * @param {any} event
 * @returns {any} The context in which the event was sent: that of the headers of a
 *   request, else that of X-Ray; undefined: none is known.
 */
function contextOf(api, head, event) {
  const active = api.context.active();
  const carrier = headersOf(event);
  if (head.traceId !== null) carrier[XRAY] = head.traceId;
  const keys = () => Object.keys(carrier);
  const get = (/** @type {unknown} */ _, /** @type {string} */ name) =>
    carrier[name.toLowerCase()];
  const sent = api.propagation?.extract(active, carrier, { get, keys }) ??
    active;
  if (sent.getValue(SPAN) !== undefined) return sent;
  const spanContext = xraySpan(head.traceId);
  if (spanContext === null) return sent === active ? undefined : sent;
  return sent.setValue(SPAN, {
    spanContext: () => spanContext,
    isRecording: () => false,
  });
}

/**
 * @param {any} event
 * @returns {Record<string, string>} The headers of the request that it describes, their
 *   names in lower case.
 */
function headersOf(event) {
  /** @type {Record<string, string>} */
  const headers = Object.create(null);
  const given = event?.headers ?? event?.multiValueHeaders;
  if (typeof given !== "object") return headers;
  for (const [name, value] of Object.entries(given ?? {})) {
    const first = Array.isArray(value) ? value[0] : value;
    if (typeof first === "string") headers[name.toLowerCase()] = first;
  }
  return headers;
}

/**
 * Read X-Ray's header. One that is not sampled is as good as none: X-Ray keeps nothing
 * of that trace, and samplers that follow their parent would keep nothing either.
 *
 * @param {string | null} header `Root=1-...;Parent=...;Sampled=1`.
 * @returns {{ traceId: string, spanId: string, traceFlags: number,
 *   isRemote: boolean } | null}
 */
export function xraySpan(header) {
  /** @type {Record<string, string>} */
  const fields = Object.create(null);
  for (const field of (header ?? "").split(";")) {
    const at = field.indexOf("=");
    fields[field.slice(0, at).trim().toLowerCase()] = field.slice(at + 1)
      .trim();
  }
  const root = ROOT.exec(fields.root ?? "");
  if (root === null || !PARENT.test(fields.parent ?? "")) return null;
  if (fields.sampled !== "1") return null;
  return {
    traceId: `${root[1]}${root[2]}`.toLowerCase(),
    spanId: fields.parent.toLowerCase(),
    traceFlags: 1,
    isRemote: true,
  };
}
