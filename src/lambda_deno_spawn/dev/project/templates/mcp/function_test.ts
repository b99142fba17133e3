import { Client } from "@modelcontextprotocol/sdk/client";
// @ts-types="@modelcontextprotocol/sdk/client/streamableHttp"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import assert from "node:assert/strict";
import app from "./function.ts";

const url = new URL("https://example.com/mcp");

/** Have a client of the SDK call the app, without a network. */
async function connected(use: (client: Client) => Promise<void>) {
  const client = new Client({ name: "test", version: "1.0.0" });
  await client.connect(
    new StreamableHTTPClientTransport(url, {
      fetch: (input, init) => app.fetch(new Request(input, init)),
    }),
  );
  try {
    await use(client);
  } finally {
    await client.close();
  }
}

Deno.test("convert is listed and converts", () =>
  connected(async (client) => {
    const { tools } = await client.listTools();
    assert.deepEqual(tools.map(({ name }) => name), ["convert"]);
    const result = await client.callTool({
      name: "convert",
      arguments: { amount: 3, from: "foot" },
    });
    assert.deepEqual(result.structuredContent, { meters: 3 * 0.3048 });
  }));

Deno.test("convert refuses a unit that it does not know", () =>
  connected(async (client) => {
    const result = await client.callTool({
      name: "convert",
      arguments: { amount: 3, from: "parsec" },
    });
    assert.equal(result.isError, true);
  }));

Deno.test("units can be read", () =>
  connected(async (client) => {
    const { contents } = await client.readResource({ uri: "units://all" });
    assert.match(JSON.stringify(contents), /mile/);
  }));

Deno.test("only POST to /mcp is served", async () => {
  assert.equal((await app.fetch(new Request(url))).status, 405);
  const elsewhere = new Request("https://example.com/", { method: "POST" });
  assert.equal((await app.fetch(elsewhere)).status, 404);
});
