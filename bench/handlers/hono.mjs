/** The same app with our mapping of HTTP events, and called by a plain handler. */
import { Hono } from "npm:hono@4.13.19";

const app = new Hono();
app.get("/hello", (context) => context.text("hello"));

export default app;

export async function plain() {
  const response = await app.request("https://localhost/hello");
  return {
    statusCode: response.status,
    headers: Object.fromEntries(response.headers),
    body: await response.text(),
    isBase64Encoded: false,
  };
}
