import assert from "node:assert/strict";
import app from "./function.ts";
import type { FetchContext } from "./lambda.d.ts";

const context = { awsRequestId: "test" } as FetchContext;

function post(body: string) {
  return app.request("/notes", { method: "POST", body }, context);
}

Deno.test("GET /hello/:name greets", async () => {
  const response = await app.request("/hello/Ada?greeting=Welcome");
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { message: "Welcome Ada" });
});

Deno.test("POST /notes returns the note with its id", async () => {
  const response = await post('{"text": "Buy milk"}');
  assert.equal(response.status, 201);
  assert.deepEqual(await response.json(), { id: "test", text: "Buy milk" });
});

Deno.test("POST /notes rejects a body that is not a note", async () => {
  for (const body of ["", "null", '{"text": 1}']) {
    assert.equal((await post(body)).status, 400);
  }
});

Deno.test("any other path is not found", async () => {
  assert.equal((await app.request("/elsewhere")).status, 404);
});
