import type { Context } from "./lambda.d.ts";

interface Event {
  name?: string;
}

export function handler(event: Event, context: Context) {
  const name = event.name ?? "world";
  console.log(`Greeting ${name}`);
  return { message: `Hello ${name}`, requestId: context.awsRequestId };
}
