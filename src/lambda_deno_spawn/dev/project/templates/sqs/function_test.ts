import assert from "node:assert/strict";
import batch from "./events/batch.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { signal: new AbortController().signal } as Context;

Deno.test("handler() reports only the message that failed", async () => {
  const { batchItemFailures } = await handler(batch, context);
  const [, poison] = batch.Records;
  assert.deepEqual(batchItemFailures, [{ itemIdentifier: poison.messageId }]);
});

Deno.test("handler() reports nothing if all succeeded", async () => {
  const [first, , last] = batch.Records;
  const outcome = await handler({ Records: [first, last] }, context);
  assert.deepEqual(outcome, { batchItemFailures: [] });
});

Deno.test("handler() reports every message after the deadline", async () => {
  const late = { signal: AbortSignal.abort() } as Context;
  const { batchItemFailures } = await handler(batch, late);
  assert.equal(batchItemFailures.length, batch.Records.length);
});
