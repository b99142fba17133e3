import { setTimeout as sleep } from "node:timers/promises";
import type { Context } from "./lambda.d.ts";

interface Event {
  prompt: string;
}

/** Time the model below takes for each word, in milliseconds. */
const WORD_MS = 20;

/** Send each word to the caller before the next one is generated. */
export async function* handler(event: Event, { signal }: Context) {
  console.log(`Responding to ${event.prompt.length} characters`);
  // The signal aborts when the caller disconnects, which ends the loop below.
  yield* words(event.prompt, signal);
}

/** Stand in for a language model: return a response, one word at a time. */
async function* words(prompt: string, signal: AbortSignal) {
  const answer = `You asked: ${prompt} So that nothing of it is left behind.\n`;
  for (const word of answer.match(/\S+\s*/g) ?? []) {
    await sleep(WORD_MS, undefined, { signal });
    yield word;
  }
}
