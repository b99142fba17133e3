import { setTimeout as sleep } from "node:timers/promises";

interface Push {
  repository: string;
  branch: string;
  commit: string;
}

const encoder = new TextEncoder();

/** Loaded before the event arrives. */
const key = await crypto.subtle.importKey(
  "raw",
  encoder.encode(requiredVariable("WEBHOOK_SECRET")),
  { name: "HMAC", hash: "SHA-256" },
  false,
  ["verify"],
);

export default {
  async fetch(
    request: Request,
    context: { waitUntil(promise: Promise<unknown>): void },
  ): Promise<Response> {
    if (request.method !== "POST") {
      return new Response("Only POST\n", {
        status: 405,
        headers: { allow: "POST" },
      });
    }
    const body = await request.bytes();
    if (!await isSigned(body, request.headers.get("x-hub-signature-256"))) {
      return Response.json({ error: "Wrong signature" }, { status: 401 });
    }
    const push: Push = JSON.parse(new TextDecoder().decode(body));
    // The sender gets the response long before this is done.
    context.waitUntil(deploy(push));
    return Response.json({ accepted: push.commit }, { status: 202 });
  },
};

/** Check the signature of the raw bytes, in constant time. */
async function isSigned(body: BufferSource, header: string | null) {
  const hex = /^sha256=([0-9a-f]{64})$/.exec(header ?? "")?.[1];
  if (hex === undefined) return false;
  return await crypto.subtle.verify(
    "HMAC",
    key,
    Uint8Array.fromHex(hex),
    body,
  );
}

async function deploy({ repository, branch, commit }: Push) {
  await sleep(200); // stands for the work
  console.log(`Deployed ${repository}/${branch} at ${commit.slice(0, 7)}`);
}

function requiredVariable(name: string): string {
  const value = Deno.env.get(name);
  if (value) return value;
  throw new Error(`Cannot start without the variable ${name}`);
}
