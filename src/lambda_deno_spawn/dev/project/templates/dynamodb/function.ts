import type { Context } from "./lambda.d.ts";

/** An attribute of an item: of text, a number, or of another type. */
type Attribute = { S?: string; N?: string };
type Item = Record<string, Attribute | undefined>;

interface DynamoDbEvent {
  Records: {
    eventName: string;
    dynamodb: { SequenceNumber: string; NewImage?: Item; OldImage?: Item };
  }[];
}

/**
 * Follow the changes of a table in their order, up to the first that fails.
 *
 * Lambda delivers that one and all after it again, so a change may come more than once.
 */
export async function handler(event: DynamoDbEvent, { signal }: Context) {
  for (const { eventName, dynamodb } of event.Records) {
    try {
      if (eventName === "REMOVE") await forget(dynamodb.OldImage ?? {}, signal);
      else await index(dynamodb.NewImage ?? {}, signal);
    } catch (error) {
      console.error(`Change ${dynamodb.SequenceNumber} failed:`, error);
      return {
        batchItemFailures: [{ itemIdentifier: dynamodb.SequenceNumber }],
      };
    }
  }
  return { batchItemFailures: [] };
}

// deno-lint-ignore require-await -- stands for a call to a service
async function index({ id, quantity }: Item, signal: AbortSignal) {
  signal.throwIfAborted();
  if (id?.S === undefined || quantity?.N === undefined) {
    throw new TypeError("Cannot index an order without id and quantity");
  }
  console.log(`Indexed order ${id.S} with ${Number(quantity.N)} pieces`);
}

// deno-lint-ignore require-await -- stands for a call to a service
async function forget({ id }: Item, signal: AbortSignal) {
  signal.throwIfAborted();
  console.log(`Removed order ${id?.S}`);
}
