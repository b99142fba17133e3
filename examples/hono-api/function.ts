import { Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { z } from "zod";
import { find, search } from "./books.ts";

/** Hono's bindings are the context of the invocation. */
interface Bindings {
  awsRequestId: string;
}

const Order = z.object({
  isbn: z.string().regex(/^\d{13}$/, "13 digits"),
  quantity: z.int().min(1).max(10),
});

const app = new Hono<{ Bindings: Bindings }>();

app.get("/books", (c) => c.json({ books: search(c.req.query("q") ?? "") }));

app.get("/books/:isbn", (c) => {
  const book = find(c.req.param("isbn"));
  if (book === undefined) return c.json({ error: "No such book" }, 404);
  const seen = Number(getCookie(c, "seen") ?? 0) + 1;
  setCookie(c, "seen", `${seen}`, { path: "/", httpOnly: true, secure: true });
  setCookie(c, "last", book.isbn, { path: "/" });
  return c.json({ ...book, seen });
});

app.post("/orders", async (c) => {
  const body = await c.req.json().catch(() => undefined);
  const order = Order.safeParse(body);
  if (!order.success) {
    return c.json({ error: z.flattenError(order.error) }, 400);
  }
  const { isbn, quantity } = order.data;
  const book = find(isbn);
  if (book === undefined) return c.json({ error: "No such book" }, 404);
  const id = c.env.awsRequestId;
  console.log(`Order ${id}: ${quantity} of ${isbn}`);
  c.header("location", `/orders/${id}`);
  return c.json({ id, total: quantity * book.price }, 201);
});

app.notFound((c) => c.json({ error: `Nothing at ${c.req.path}` }, 404));

export default app;
