import { setTimeout as sleep } from "node:timers/promises";
import type { Context } from "./lambda.d.ts";

interface Event {
  prompt: string;
}

/** How long the model below thinks about each word, in milliseconds. */
const WORD_MS = 20;

/** Each word is on its way to the caller before the next one is made. */
export async function* handler(event: Event, { signal }: Context) {
  console.log(`Answering ${event.prompt.length} characters`);
  // The signal aborts when the caller has gone: then there is no next word.
  yield* words(event.prompt, signal);
}

/** Stands for a language model: an answer, one word at a time. */
async function* words(prompt: string, signal: AbortSignal) {
  const answer = `You asked: ${prompt} So that nothing of it is left behind.\n`;
  for (const word of answer.match(/\S+\s*/g) ?? []) {
    await sleep(WORD_MS, undefined, { signal });
    yield word;
  }
}
