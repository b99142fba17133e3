import { setTimeout as sleep } from "node:timers/promises";

/** How long the model below thinks about each token, in milliseconds. */
const TOKEN_MS = 30;

/** Stands for a language model: generates a reply, one token at a time. */
export async function* tokens(prompt: string, signal: AbortSignal) {
  const answer = `You asked: ${prompt} So that nothing of it is left behind.`;
  for (const token of answer.match(/\S+\s*/g) ?? []) {
    await sleep(TOKEN_MS, undefined, { signal });
    yield token;
  }
}
