import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { tokens } from "./tokens.ts";

interface Event {
  body: string;
}

interface Context {
  signal: AbortSignal;
}

type StreamHandler = (
  event: Event,
  stream: Writable,
  context: Context,
) => Promise<void>;

declare const awslambda: {
  streamifyResponse(handler: StreamHandler): unknown;
  HttpResponseStream: {
    from(
      stream: Writable,
      head: { statusCode: number; headers: Record<string, string> },
    ): Writable;
  };
};

/** Server-sent events, which a page reads with `EventSource`. */
export const handler = awslambda.streamifyResponse(
  async (event, stream, context) => {
    const { prompt } = JSON.parse(event.body);
    const response = awslambda.HttpResponseStream.from(stream, {
      statusCode: 200,
      headers: {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
      },
    });
    // Waits for slow callers, and ends the response.
    await pipeline(
      Readable.from(serverSentEvents(tokens(prompt, context.signal))),
      response,
    );
  },
);

async function* serverSentEvents(source: AsyncIterable<string>) {
  for await (const token of source) yield `data: ${JSON.stringify(token)}\n\n`;
  yield "event: done\ndata: {}\n\n";
}
