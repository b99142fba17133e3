import { tokens } from "./tokens.ts";

interface Event {
  prompt: string;
}

/** Stream tokens; each is sent before the next one is generated. */
export async function* handler(
  event: Event,
  context: { signal: AbortSignal },
) {
  // The signal aborts when the caller disconnects, which stops the model.
  yield* tokens(event.prompt, context.signal);
}
