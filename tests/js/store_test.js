// @ts-check
/** What code finds in `awslambda.InvokeStore`. */

import assert from "node:assert/strict";
import { beginJob, KeptOutput, sayHello } from "./doubles.js";
import { beginLoading } from "../../src/lambda_deno_spawn/js/src/job.js";
import { publishIdentity } from "../../src/lambda_deno_spawn/js/src/store.js";
import { awslambda } from "../../src/lambda_deno_spawn/js/src/handlers.js";

const { InvokeStore: store } = awslambda;

Deno.test("the store has the facts of the invocation, and values beside them", () => {
  sayHello();
  beginLoading(new KeptOutput());
  assert.equal(store.hasContext(), false);
  assert.equal(store.getRequestId(), "-");
  assert.throws(() => store.set("a", 1), /No context available/);
  beginJob({ requestId: "r-1", traceId: "Root=1", tenantId: "blue" });
  assert.equal(store.hasContext(), true);
  assert.deepEqual(
    [store.getRequestId(), store.getXRayTraceId(), store.getTenantId()],
    ["r-1", "Root=1", "blue"],
  );
  assert.equal(store.get(Symbol.for("_AWS_LAMBDA_REQUEST_ID")), "r-1");
  store.set("user", "ada");
  assert.equal(store.get("user"), "ada");
  assert.throws(
    () => store.set(Symbol.for("_AWS_LAMBDA_REQUEST_ID"), "forged"),
    /Cannot modify protected Lambda context field/,
  );
  assert.equal(store.run({ user: "bob" }, () => store.get("user")), "bob");
});

Deno.test("each invocation has a store of its own", () => {
  sayHello();
  beginJob({ requestId: "r-1" });
  store.set("user", "ada");
  beginJob({ requestId: "r-2" });
  assert.equal(store.get("user"), undefined);
  assert.equal(store.getXRayTraceId(), undefined);
  assert.equal(store.getContext() === undefined, false);
});

Deno.test("global members name the invocation, and can be replaced", () => {
  sayHello();
  /** @type {Record<symbol, unknown>} */
  const global = globalThis;
  const keys = ["requestId", "tenantId"].map((member) =>
    Symbol.for(`aws.lambda.runtime.${member}`)
  );
  publishIdentity();
  try {
    const members = () => keys.map((key) => global[key]);
    beginLoading(new KeptOutput());
    assert.deepEqual(members(), [undefined, undefined]);
    beginJob({ requestId: "r-1", tenantId: "blue" });
    assert.deepEqual(members(), ["r-1", "blue"]);
    beginJob({ requestId: "r-2" });
    assert.deepEqual(members(), ["r-2", undefined]);
    global[keys[0]] = "set";
    assert.deepEqual(members(), ["set", undefined]);
  } finally {
    for (const key of keys) delete global[key];
  }
});
