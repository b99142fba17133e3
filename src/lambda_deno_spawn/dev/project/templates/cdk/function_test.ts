import assert from "node:assert/strict";
import event from "./events/greeting.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { awsRequestId: "test" } as Context;

Deno.test("handler() greets the person in the event", () => {
  const expected = { message: "Hello Ada", requestId: "test" };
  assert.deepEqual(handler(event, context), expected);
});

Deno.test("handler() greets the world without a name", () => {
  assert.equal(handler({}, context).message, "Hello world");
});
