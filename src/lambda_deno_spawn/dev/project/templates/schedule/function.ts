import type { Context } from "./lambda.d.ts";

interface ScheduledEvent {
  /** When it was due, to the second. */
  time: string;
}

/** The same occasion gives the same report, however often it is delivered. */
export async function handler(event: ScheduledEvent, { signal }: Context) {
  const day = new Date(event.time).toISOString().slice(0, 10);
  const report = await summarize(day, signal);
  console.log(`Report ${report.name} is done`);
  return report;
}

// deno-lint-ignore require-await -- stands for a query and an upload
async function summarize(day: string, signal: AbortSignal) {
  signal.throwIfAborted();
  return { name: `reports/${day}.json`, day };
}
