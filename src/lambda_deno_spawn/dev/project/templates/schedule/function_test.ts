import assert from "node:assert/strict";
import nightly from "./events/nightly.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { signal: new AbortController().signal } as Context;

Deno.test("handler() names the report by the day it is due", async () => {
  const report = await handler(nightly, context);
  assert.equal(report.name, "reports/2026-11-28.json");
});

Deno.test("handler() gives the same report if it is called again", async () => {
  assert.deepEqual(
    await handler(nightly, context),
    await handler(nightly, context),
  );
});

Deno.test("handler() rejects an event without a time", async () => {
  await assert.rejects(handler({ time: "soon" }, context), RangeError);
});
