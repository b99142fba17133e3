import assert from "node:assert/strict";
import event from "./events/greeting.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { awsRequestId: "test" } as Context;

Deno.test("handler() greets whom the event names", () => {
  const expected = { message: "Hello Ada", requestId: "test" };
  assert.deepEqual(handler(event, context), expected);
});

Deno.test("handler() greets the world if the event names nobody", () => {
  assert.equal(handler({}, context).message, "Hello world");
});
