import assert from "node:assert/strict";
import { respond } from "./app.ts";

Deno.test("respond() greets", async () => {
  const response = respond(new Request("https://example.com/hello/Ada"));
  assert.deepEqual(await response.json(), { message: "Hello Ada" });
});

Deno.test("respond() says what is not there", () => {
  assert.equal(respond(new Request("https://example.com/")).status, 404);
});
