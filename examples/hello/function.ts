interface Event {
  name?: string;
}

let served = 0;

export function handler(event: Event, context: { awsRequestId: string }) {
  served += 1;
  console.log(`Greeting ${event.name ?? "nobody in particular"}`);
  return {
    message: `Hello ${event.name ?? "world"}`,
    servedByThisProcess: served,
    requestId: context.awsRequestId,
  };
}
