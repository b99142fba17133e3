import { Hono } from "hono";
import type { FetchContext } from "./lambda.d.ts";

/** Hono's bindings hold the context of the invocation. */
const app = new Hono<{ Bindings: FetchContext }>();

app.get("/hello/:name", (c) => {
  const greeting = c.req.query("greeting") ?? "Hello";
  return c.json({ message: `${greeting} ${c.req.param("name")}` });
});

app.post("/notes", async (c) => {
  const note = await c.req.json().catch(() => undefined);
  if (typeof note?.text !== "string") {
    return c.json({ error: "Expected JSON with a text" }, 400);
  }
  const id = c.env.awsRequestId;
  console.log(`Note ${id} has ${note.text.length} characters`);
  return c.json({ id, text: note.text }, 201);
});

app.notFound((c) => c.json({ error: `Nothing at ${c.req.path}` }, 404));

export default app;
