import type { Context } from "./lambda.d.ts";

interface SqsEvent {
  Records: { messageId: string; body: string }[];
}

interface Order {
  id: string;
  quantity: number;
}

/** Report the messages that failed: SQS delivers only these again. */
export async function handler(event: SqsEvent, { signal }: Context) {
  const outcomes = await Promise.allSettled(
    event.Records.map((record) => ship(record.body, signal)),
  );
  const batchItemFailures: { itemIdentifier: string }[] = [];
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === "fulfilled") continue;
    const { messageId } = event.Records[index];
    console.error(`Message ${messageId} failed:`, outcome.reason);
    batchItemFailures.push({ itemIdentifier: messageId });
  }
  return { batchItemFailures };
}

// deno-lint-ignore require-await -- stands for a call to a service
async function ship(body: string, signal: AbortSignal) {
  signal.throwIfAborted();
  const { id, quantity }: Order = JSON.parse(body);
  if (!Number.isInteger(quantity) || quantity <= 0) {
    throw new RangeError(`Cannot ship ${quantity} pieces of order ${id}`);
  }
  console.log(`Shipped ${quantity} pieces of order ${id}`);
}
