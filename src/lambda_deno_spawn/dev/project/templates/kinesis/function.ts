import type { Context } from "./lambda.d.ts";

interface KinesisEvent {
  Records: {
    kinesis: { sequenceNumber: string; partitionKey: string; data: string };
  }[];
}

interface Reading {
  sensor: string;
  celsius: number;
}

/**
 * Store readings in their order, up to the first that fails.
 *
 * Lambda delivers that one and all after it again, so a record may come more than once.
 */
export async function handler(event: KinesisEvent, { signal }: Context) {
  for (const { kinesis } of event.Records) {
    try {
      await store(decode(kinesis.data), signal);
    } catch (error) {
      console.error(`Record ${kinesis.sequenceNumber} failed:`, error);
      return {
        batchItemFailures: [{ itemIdentifier: kinesis.sequenceNumber }],
      };
    }
  }
  return { batchItemFailures: [] };
}

function decode(data: string): Reading {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

// deno-lint-ignore require-await -- stands for a call to a service
async function store({ sensor, celsius }: Reading, signal: AbortSignal) {
  signal.throwIfAborted();
  if (!Number.isFinite(celsius)) {
    throw new RangeError(`Cannot store ${celsius} °C of sensor ${sensor}`);
  }
  console.log(`Stored ${celsius} °C of sensor ${sensor}`);
}
