import assert from "node:assert/strict";
import event from "./events/prompt.json" with { type: "json" };
import { handler } from "./function.ts";
import type { Context } from "./lambda.d.ts";

const context = { signal: new AbortController().signal } as Context;

Deno.test("handler() responds word by word", async () => {
  const words = await Array.fromAsync(handler(event, context));
  assert.ok(words.length > 10);
  assert.equal(words[0], "You ");
  assert.match(words.join(""), /^You asked: Why .* is left behind\.\n$/);
});

Deno.test("handler() stops when the caller disconnects", async () => {
  const caller = new AbortController();
  const words = handler(event, { signal: caller.signal } as Context);
  await words.next();
  caller.abort();
  await assert.rejects(words.next(), { name: "AbortError" });
});
