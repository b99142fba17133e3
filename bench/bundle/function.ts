/** A typical function: a router, an SDK, a schema; about 1 MB as a bundle. */
import { ListBucketsCommand, S3Client } from "npm:@aws-sdk/client-s3@3.1175.0";
import { Hono } from "npm:hono@4.13.19";
import { z } from "npm:zod@4.6.7";

const s3 = new S3Client({ region: "us-east-1" });
const order = z.object({ n: z.number() });
const app = new Hono();
app.get("/buckets", async (context) => {
  const { Buckets } = await s3.send(new ListBucketsCommand());
  return context.json(Buckets);
});

export function handler(event: unknown) {
  return { ok: true, n: order.parse(event).n, routes: app.routes.length };
}
