/** The types of lambda.d.ts, used as a function would use them: `deno check` judges. */

import assert from "node:assert/strict";
import type {
  AlbEvent,
  ApiGatewayV1Event,
  ApiGatewayV2Event,
  ApiGatewayV2Result,
  CallbackHandler,
  Context,
  FetchHandler,
  FunctionUrlEvent,
  Handler,
  HttpEvent,
  ResponseStream,
  StreamifyHandler,
  VpcLatticeV2Event,
} from "../../src/lambda_deno_spawn/js/lambda.d.ts";

interface Order {
  id: string;
}

const handler: Handler<Order, { found: string }> = async (event, context) => {
  const id: string = event.id;
  const left: number = context.getRemainingTimeInMillis();
  const signal: AbortSignal = context.signal;
  const tenant: string | undefined = context.tenantId;
  const trace: string | undefined = context.xRayTraceId;
  const pool: string | undefined = context.identity?.cognitoIdentityPoolId;
  const app: string | undefined = context.clientContext?.client?.app_title;
  const facts: string[] = [
    context.functionName,
    context.functionVersion,
    context.invokedFunctionArn,
    context.memoryLimitInMB,
    context.awsRequestId,
    context.logGroupName,
    context.logStreamName,
  ];
  context.callbackWaitsForEmptyEventLoop = false;
  context.waitUntil(Promise.resolve([left, tenant, trace, pool, app, facts]));
  await Promise.resolve(signal.aborted);
  // @ts-expect-error the event has no such member
  event.colour;
  // @ts-expect-error who serves is not the handler's to change
  context.functionName = "another";
  return { found: id };
};

const wrongResult: Handler<Order, { found: string }> =
  // @ts-expect-error a number is not such a result
  () => 1;

const anything: Handler = (event) => event.whatever;

const http: Handler<FunctionUrlEvent, ApiGatewayV2Result> = (event) => ({
  statusCode: 200,
  cookies: event.cookies ?? [],
  headers: { "x-method": event.requestContext.http.method },
  body: event.body ?? "",
});

const site: FetchHandler = {
  fetch(request, context) {
    const event: HttpEvent = context.event;
    context.waitUntil(Promise.resolve());
    if ("rawPath" in event) return new Response(event.rawQueryString);
    if ("elb" in event.requestContext) {
      return new Response(event.requestContext.elb.targetGroupArn);
    }
    return new Response(request.url, { status: 201 });
  },
};

const api = {
  async fetch(request, { event }) {
    const user = event.requestContext.authorizer?.jwt?.claims.sub;
    return Response.json({ user, sent: await request.json() });
  },
} satisfies FetchHandler<ApiGatewayV2Event>;

const older: CallbackHandler<Order, number> = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  if (event.id === "") return context.fail(new Error("no id"));
  // @ts-expect-error the result is a number
  callback(null, event.id);
  callback(null, 1);
};

const lattice: FetchHandler<VpcLatticeV2Event> = {
  fetch(_request, { event, remoteAddr, requestContext }) {
    const names: string[] = event.headers.host ?? [remoteAddr.hostname];
    return Response.json([names, requestContext.serviceArn]);
  },
};

const wrongSite: FetchHandler = {
  // @ts-expect-error a fetch handler returns a response
  fetch: () => "text",
};

const streamed: StreamifyHandler<Order> = (event, responseStream) => {
  const stream: ResponseStream = awslambda.HttpResponseStream.from(
    responseStream,
    { statusCode: 200, headers: { "content-type": "text/plain" } },
  );
  stream.setContentType("text/plain");
  stream.write(event.id);
  stream.end();
};

/** Never called: outside a worker the global does not exist. */
function streamify(): Handler<Order, void> {
  return awslambda.streamifyResponse(streamed);
}

function describe(event: ApiGatewayV1Event | AlbEvent): string {
  const ip = "identity" in event.requestContext
    ? event.requestContext.identity.sourceIp
    : event.headers?.["x-forwarded-for"];
  return `${event.httpMethod} ${event.path} ${ip}`;
}

Deno.test("the types accept what a function does and refuse what it may not", async () => {
  const context = { waitUntil() {} } as unknown as Context;
  assert.equal(await anything({ whatever: 7 }, context), 7);
  assert.equal(typeof handler, "function");
  assert.equal(typeof wrongResult, "function");
  assert.equal(typeof http, "function");
  assert.equal(typeof site.fetch, "function");
  assert.equal(typeof api.fetch, "function");
  assert.equal(typeof older, "function");
  assert.equal(typeof lattice.fetch, "function");
  assert.equal(typeof wrongSite.fetch, "function");
  assert.equal(typeof streamify, "function");
  assert.equal(typeof describe, "function");
});
