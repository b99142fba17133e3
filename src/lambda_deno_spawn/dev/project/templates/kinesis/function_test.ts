import assert from "node:assert/strict";
import batch from "./events/readings.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { signal: new AbortController().signal } as Context;

Deno.test("handler() reports the first record that failed", async () => {
  const { batchItemFailures } = await handler(batch, context);
  const [, broken] = batch.Records;
  assert.deepEqual(batchItemFailures, [
    { itemIdentifier: broken.kinesis.sequenceNumber },
  ]);
});

Deno.test("handler() reports nothing if all succeeded", async () => {
  const [first, , last] = batch.Records;
  const outcome = await handler({ Records: [first, last] }, context);
  assert.deepEqual(outcome, { batchItemFailures: [] });
});

Deno.test("handler() reports the whole batch after the deadline", async () => {
  const late = { signal: AbortSignal.abort() } as Context;
  const { batchItemFailures } = await handler(batch, late);
  const [first] = batch.Records;
  assert.deepEqual(batchItemFailures, [
    { itemIdentifier: first.kinesis.sequenceNumber },
  ]);
});
