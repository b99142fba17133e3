// @ts-check
/**
 * `awslambda.InvokeStore`: what belongs to the invocation that the calling code runs
 * for, as AWS's Node runtime has it, and the package `@aws/lambda-invoke-store` looks
 * for. Powertools and AWS's SDK read it.
 *
 * @module
 */

import { currentJob } from "./job.js";

const REQUEST_ID = Symbol.for("_AWS_LAMBDA_REQUEST_ID");
const TRACE_ID = Symbol.for("_AWS_LAMBDA_X_RAY_TRACE_ID");
const TENANT_ID = Symbol.for("_AWS_LAMBDA_TENANT_ID");
const PROTECTED = [REQUEST_ID, TRACE_ID, TENANT_ID];

/**
 * @returns {Record<string | symbol, any> | undefined} The values of the invocation;
 *   undefined outside of one.
 */
function values() {
  const job = currentJob();
  if (job === null || job.requestId === "") return undefined;
  job.values ??= {
    [REQUEST_ID]: job.requestId,
    [TRACE_ID]: job.traceId ?? undefined,
    [TENANT_ID]: job.tenantId ?? undefined,
  };
  return job.values;
}

/**
 * Tell code that is not handed the context which invocation it runs for, by the global
 * members of AWS's Node runtime. Loggers and tracers read them.
 */
export function publishIdentity() {
  for (const member of /** @type {const} */ (["requestId", "tenantId"])) {
    const key = Symbol.for(`aws.lambda.runtime.${member}`);
    Object.defineProperty(globalThis, key, {
      configurable: true,
      get: () => currentJob()?.[member] || undefined,
      set(value) {
        const own = { configurable: true, writable: true };
        Object.defineProperty(globalThis, key, { ...own, value });
      },
    });
  }
}

export const invokeStore = {
  getContext: values,
  hasContext: () => values() !== undefined,
  getRequestId: () => values()?.[REQUEST_ID] ?? "-",
  /** @returns {string | undefined} */
  getXRayTraceId: () => values()?.[TRACE_ID],
  /** @returns {string | undefined} */
  getTenantId: () => values()?.[TENANT_ID],
  get: (/** @type {string | symbol} */ key) => values()?.[key],
  set(/** @type {any} */ key, /** @type {unknown} */ value) {
    if (PROTECTED.includes(key)) {
      throw new Error(
        `Cannot modify protected Lambda context field: ${String(key)}`,
      );
    }
    const kept = values();
    if (kept === undefined) throw new Error("No context available");
    kept[key] = value;
  },
  /**
   * Run a function with other values.
   *
   * @template T
   * @param {Record<string | symbol, any>} context
   * @param {() => T} work
   * @returns {T}
   */
  run(context, work) {
    const job = currentJob();
    if (job !== null) job.values = context;
    return work();
  },
};
