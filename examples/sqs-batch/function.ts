interface SqsEvent {
  Records: { messageId: string; body: string }[];
}

interface Payment {
  account: string;
  cents: number;
}

/** Report the failed messages, so that only those are delivered again. */
export async function handler(event: SqsEvent) {
  const outcomes = await Promise.allSettled(
    event.Records.map((record) => book(record.body)),
  );
  const batchItemFailures = [];
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === "fulfilled") continue;
    const { messageId } = event.Records[index];
    console.error(`Message ${messageId} failed:`, outcome.reason);
    batchItemFailures.push({ itemIdentifier: messageId });
  }
  return { batchItemFailures };
}

// deno-lint-ignore require-await -- stands for a call to a service
async function book(body: string) {
  const { account, cents }: Payment = JSON.parse(body);
  if (!Number.isInteger(cents) || cents <= 0) {
    throw new RangeError(`Cannot book ${cents} cents for ${account}`);
  }
  console.log(`Booked ${cents} cents for ${account}`);
}
