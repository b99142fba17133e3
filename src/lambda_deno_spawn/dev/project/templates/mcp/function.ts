// The SDK's pattern for types expects these paths without a suffix.
// @ts-types="@modelcontextprotocol/sdk/server/mcp"
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
// @ts-types="@modelcontextprotocol/sdk/server/webStandardStreamableHttp"
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { z } from "zod";
import type { FetchHandler } from "./lambda.d.ts";

const METERS = { mile: 1609.344, yard: 0.9144, foot: 0.3048, inch: 0.0254 };
type Unit = keyof typeof METERS;
const UNITS = Object.keys(METERS) as [Unit, ...Unit[]];

/** Each request has a server of its own, as it has a process of its own. */
function makeServer() {
  const server = new McpServer({ name: "my-function", version: "1.0.0" });
  server.registerTool(
    "convert",
    {
      title: "Convert a length",
      description: "Convert a length to meters",
      inputSchema: { amount: z.number(), from: z.enum(UNITS) },
      outputSchema: { meters: z.number() },
    },
    ({ amount, from }) => {
      const result = { meters: amount * METERS[from] };
      console.log(`Converted ${amount} ${from}`);
      return {
        content: [{ type: "text", text: JSON.stringify(result) }],
        structuredContent: result,
      };
    },
  );
  server.registerResource(
    "units",
    "units://all",
    { description: "Units that can be converted", mimeType: "text/plain" },
    ({ href }) => ({ contents: [{ uri: href, text: UNITS.join("\n") }] }),
  );
  return server;
}

export default {
  async fetch(request) {
    if (new URL(request.url).pathname !== "/mcp") {
      return new Response("Not found", { status: 404 });
    }
    // A client asks by GET for a stream that stays open, and ends a session by DELETE.
    if (request.method !== "POST") {
      return new Response(null, { status: 405, headers: { allow: "POST" } });
    }
    // Without a generator of session ids, no request depends on an earlier one.
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: undefined,
      enableJsonResponse: true,
    });
    await makeServer().connect(transport);
    return await transport.handleRequest(request);
  },
} satisfies FetchHandler;
