import assert from "node:assert/strict";
import changes from "./events/changes.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { signal: new AbortController().signal } as Context;

Deno.test("handler() reports the first change that failed", async () => {
  const { batchItemFailures } = await handler(changes, context);
  const [, broken] = changes.Records;
  assert.deepEqual(batchItemFailures, [
    { itemIdentifier: broken.dynamodb.SequenceNumber },
  ]);
});

Deno.test("handler() reports nothing if all succeeded", async () => {
  const [inserted, , removed] = changes.Records;
  const outcome = await handler({ Records: [inserted, removed] }, context);
  assert.deepEqual(outcome, { batchItemFailures: [] });
});

Deno.test("handler() reports the whole batch after the deadline", async () => {
  const late = { signal: AbortSignal.abort() } as Context;
  const { batchItemFailures } = await handler(changes, late);
  const [first] = changes.Records;
  assert.deepEqual(batchItemFailures, [
    { itemIdentifier: first.dynamodb.SequenceNumber },
  ]);
});
