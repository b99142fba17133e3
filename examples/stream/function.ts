import { tokens } from "./tokens.ts";

interface Event {
  prompt: string;
}

/** Each token is on its way to the caller before the next one is made. */
export async function* handler(
  event: Event,
  context: { signal: AbortSignal },
) {
  // The signal aborts when the caller has gone: then there is no next one.
  yield* tokens(event.prompt, context.signal);
}
