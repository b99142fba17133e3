/**
 * Types for handlers: what a function receives and what it may return. Nothing here exists
 * at run time.
 *
 *     import type { FetchHandler } from ".../lambda.d.ts";
 *     export default {
 *       fetch: (request) => new Response(request.url),
 *     } satisfies FetchHandler;
 *
 * @module
 */

import type { Writable } from "node:stream";

/** Facts about an invocation: first those of Node's runtime, then those of this runtime. */
export interface Context {
  readonly functionName: string;
  /** "$LATEST" or a number. */
  readonly functionVersion: string;
  /** Includes the alias or version that the caller used. */
  readonly invokedFunctionArn: string;
  /** Megabytes, as a string. */
  readonly memoryLimitInMB: string;
  readonly awsRequestId: string;
  readonly logGroupName: string;
  readonly logStreamName: string;
  /** Only from mobile applications. */
  readonly identity?: CognitoIdentity;
  /** From mobile applications, or from callers that use the SDK. */
  readonly clientContext?: ClientContext;
  /**
   * A value passed to the callback is sent when the event loop is empty. Set it to false
   * before calling the callback to have it sent at once.
   */
  callbackWaitsForEmptyEventLoop: boolean;
  /** Milliseconds until the deadline, never below zero. */
  getRemainingTimeInMillis(): number;

  /** The caller's tenant, if the function isolates tenants. */
  readonly tenantId?: string;
  /** X-Ray's header, unchanged: `Root=…;Parent=…;Sampled=…`. */
  readonly xRayTraceId?: string;
  /** Aborts with a `TimeoutError` shortly before the handler is stopped. */
  readonly signal: AbortSignal;
  /** Finish this after the response, before the process ends and within the deadline. */
  waitUntil(promise: unknown): void;

  /** Ends the handler immediately, as in older runtimes: prefer a promise. */
  done(error?: unknown, result?: unknown): void;
  /** Same as `done(null, result)`. */
  succeed(result?: unknown): void;
  /** Same as `done(error)`. */
  fail(error?: unknown): void;
}

/** The identity that Amazon Cognito gave to a mobile application. */
export interface CognitoIdentity {
  readonly cognitoIdentityId: string;
  readonly cognitoIdentityPoolId: string;
}

/** The caller's client context: any member may be missing. */
export interface ClientContext {
  // deno-lint-ignore no-explicit-any
  readonly [member: string]: any;
  readonly client?: {
    readonly installation_id?: string;
    readonly app_title?: string;
    readonly app_version_name?: string;
    readonly app_version_code?: string;
    readonly app_package_name?: string;
  };
  // deno-lint-ignore no-explicit-any
  readonly custom?: any;
  // deno-lint-ignore no-explicit-any
  readonly env?: any;
}

/** `export const handler`, `export default` or any other named export. */
// deno-lint-ignore no-explicit-any
export type Handler<E = any, R = any> = (
  event: E,
  context: Context,
) => R | Promise<R>;

/** The callback of older handlers; only its first call has an effect. */
// deno-lint-ignore no-explicit-any
export type Callback<R = any> = (error?: unknown, result?: R) => void;

/** A handler that ends with its callback, or with `done`, `succeed` or `fail` of its context. */
// deno-lint-ignore no-explicit-any
export type CallbackHandler<E = any, R = any> = (
  event: E,
  context: Context,
  callback: Callback<R>,
) => void;

/** The context of a fetch handler: the event contains more than the request. */
export interface FetchContext<
  E extends HttpEvent | VpcLatticeEvent = HttpEvent,
> extends Omit<Context, "done" | "succeed" | "fail"> {
  /** The event that the request was made from. */
  readonly event: E;
  /** The event's request context; an empty object if it has none. */
  readonly requestContext: E extends { requestContext: infer C } ? C
    : Record<string, never>;
  /** The client, as in `Deno.serve`: its port is unknown, so it is 0. */
  readonly remoteAddr: { transport: "tcp"; hostname: string; port: number };
  /** This context, under the name that Hono's adapter for Lambda uses. */
  readonly lambdaContext: Context;
}

/** `export default { fetch }`: API Gateway, function URLs, load balancers, VPC Lattice. */
export interface FetchHandler<
  E extends HttpEvent | VpcLatticeEvent = HttpEvent,
> {
  fetch(
    request: Request,
    context: FetchContext<E>,
  ): Response | Promise<Response>;
}

/** An event that becomes a `Request`. */
export type HttpEvent = ApiGatewayV1Event | ApiGatewayV2Event | AlbEvent;

/** REST API, and HTTP API in format 1.0. Empty maps arrive as null. */
export interface ApiGatewayV1Event {
  /** "1.0" from an HTTP API, absent from a REST API. */
  version?: "1.0";
  resource: string;
  /** Without the stage; from an HTTP API, with the stage. */
  path: string;
  httpMethod: string;
  /** The last value of each name. */
  headers: Record<string, string | undefined> | null;
  multiValueHeaders: Record<string, string[] | undefined> | null;
  /** Decoded. */
  queryStringParameters: Record<string, string | undefined> | null;
  multiValueQueryStringParameters: Record<string, string[] | undefined> | null;
  pathParameters: Record<string, string | undefined> | null;
  stageVariables: Record<string, string | undefined> | null;
  requestContext: ApiGatewayV1RequestContext;
  body: string | null;
  isBase64Encoded: boolean;
}

/** What API Gateway knows about a request, in format 1.0. */
export interface ApiGatewayV1RequestContext {
  accountId: string;
  apiId: string;
  // deno-lint-ignore no-explicit-any
  authorizer?: Record<string, any> | null;
  domainName?: string;
  domainPrefix?: string;
  extendedRequestId?: string;
  httpMethod: string;
  identity: {
    accessKey: string | null;
    accountId: string | null;
    apiKey?: string | null;
    apiKeyId?: string | null;
    caller: string | null;
    // deno-lint-ignore no-explicit-any
    clientCert?: Record<string, any> | null;
    cognitoAuthenticationProvider: string | null;
    cognitoAuthenticationType: string | null;
    cognitoIdentityId: string | null;
    cognitoIdentityPoolId: string | null;
    principalOrgId?: string | null;
    sourceIp: string;
    user: string | null;
    userAgent: string | null;
    userArn: string | null;
  };
  /** With the stage, as the client sent it. */
  path: string;
  protocol: string;
  requestId: string;
  /** Such as "23/Nov/2026:12:00:00 +0000". */
  requestTime?: string;
  /** Unix time, milliseconds. */
  requestTimeEpoch: number;
  resourceId: string;
  resourcePath: string;
  stage: string;
}

/** HTTP API in format 2.0. Members that would be empty are absent. */
export interface ApiGatewayV2Event {
  version: "2.0";
  /** "$default", or method and path of the route. */
  routeKey: string;
  /** With the stage, unless it is `$default`; the path of the `Request` has no stage. */
  rawPath: string;
  /** Without the question mark; "" if there is none. */
  rawQueryString: string;
  /** Cookies of the request, each as `name=value`. */
  cookies?: string[];
  /** Lower-case names; several values are joined by commas. */
  headers: Record<string, string | undefined>;
  /** Several values are joined by commas. */
  queryStringParameters?: Record<string, string | undefined>;
  pathParameters?: Record<string, string | undefined>;
  stageVariables?: Record<string, string | undefined>;
  requestContext: ApiGatewayV2RequestContext;
  body?: string;
  isBase64Encoded: boolean;
}

/** A function URL also uses format 2.0. */
export type FunctionUrlEvent = ApiGatewayV2Event;

/** What API Gateway or a function URL knows about a request, in format 2.0. */
export interface ApiGatewayV2RequestContext {
  accountId: string;
  apiId: string;
  authentication?: {
    clientCert?: {
      clientCertPem: string;
      issuerDN: string;
      serialNumber: string;
      subjectDN: string;
      validity: { notAfter: string; notBefore: string };
    };
  } | null;
  authorizer?: {
    jwt?: {
      // deno-lint-ignore no-explicit-any
      claims: Record<string, any>;
      scopes: string[] | null;
    };
    // deno-lint-ignore no-explicit-any
    lambda?: Record<string, any> | null;
    // deno-lint-ignore no-explicit-any
    iam?: Record<string, any>;
  };
  domainName: string;
  domainPrefix: string;
  http: {
    method: string;
    path: string;
    protocol: string;
    sourceIp: string;
    userAgent: string;
  };
  requestId: string;
  routeKey: string;
  stage: string;
  /** Such as "23/Nov/2026:12:00:00 +0000". */
  time: string;
  /** Unix time, milliseconds. */
  timeEpoch: number;
}

/** Application Load Balancer: the target group decides whether a name has one value or all. */
export interface AlbEvent {
  requestContext: { elb: { targetGroupArn: string } };
  httpMethod: string;
  path: string;
  headers?: Record<string, string | undefined>;
  multiValueHeaders?: Record<string, string[] | undefined>;
  /** Not decoded. */
  queryStringParameters?: Record<string, string | undefined>;
  multiValueQueryStringParameters?: Record<string, string[] | undefined>;
  /** "" if there is none. */
  body: string | null;
  isBase64Encoded: boolean;
}

/** VPC Lattice; also becomes a `Request`. */
export type VpcLatticeEvent = VpcLatticeV1Event | VpcLatticeV2Event;

/** VPC Lattice, event structure version V1. */
export interface VpcLatticeV1Event {
  /** May have a query string. */
  raw_path: string;
  method: string;
  /** Several values are joined by commas. */
  headers: Record<string, string | undefined>;
  query_string_parameters: Record<string, string | undefined>;
  body: string | null;
  is_base64_encoded: boolean;
}

/** VPC Lattice, event structure version V2. */
export interface VpcLatticeV2Event {
  version: "2.0";
  path: string;
  method: string;
  headers: Record<string, string[] | undefined>;
  queryStringParameters?: Record<string, string[] | undefined>;
  body?: string | null;
  isBase64Encoded: boolean;
  requestContext: {
    serviceNetworkArn: string;
    serviceArn: string;
    targetGroupArn: string;
    identity?: {
      sourceVpcArn?: string;
      type?: string;
      principal?: string;
      principalOrgID?: string;
      sessionName?: string;
      x509IssuerOu?: string;
      x509SanDns?: string;
      x509SanNameCn?: string;
      x509SanUri?: string;
      x509SubjectCn?: string;
    };
    region: string;
    /** Unix time, microseconds. */
    timeEpoch: string;
  };
}

/** What a `handler` may return to API Gateway in format 1.0. */
export interface ApiGatewayV1Result {
  statusCode: number;
  headers?: Record<string, string | number | boolean>;
  multiValueHeaders?: Record<string, (string | number | boolean)[]>;
  body?: string;
  isBase64Encoded?: boolean;
}

/** What a `handler` may return to API Gateway in format 2.0 and to function URLs. */
export interface ApiGatewayV2Result {
  statusCode?: number;
  headers?: Record<string, string | number | boolean>;
  cookies?: string[];
  body?: string;
  isBase64Encoded?: boolean;
}

/** What a `handler` may return to a load balancer: at most one megabyte of JSON. */
export interface AlbResult {
  statusCode: number;
  /** Such as "200 OK". */
  statusDescription?: string;
  headers?: Record<string, string | number | boolean>;
  /** Read only if the event has them too. */
  multiValueHeaders?: Record<string, (string | number | boolean)[]>;
  body?: string;
  isBase64Encoded?: boolean;
}

/** The body of a streamed response, which ends when this does. */
export interface ResponseStream extends Writable {
  /** Call it before the first write. */
  setContentType(contentType: string): void;
}

/** The head of a streamed HTTP response, sent before its body. */
export interface HttpMetadata {
  statusCode?: number;
  /** Without `set-cookie`. */
  headers?: Record<string, string>;
  cookies?: string[];
  /** Understood by REST APIs only. */
  multiValueHeaders?: Record<string, string[]>;
}

/** The argument of `awslambda.streamifyResponse`. */
// deno-lint-ignore no-explicit-any
export type StreamifyHandler<E = any> = (
  event: E,
  responseStream: ResponseStream,
  context: Context,
) => unknown;

/** The global `awslambda`, as in Node's runtime. */
export interface AwsLambda {
  /** Mark a handler as one that writes its response to a stream. */
  // deno-lint-ignore no-explicit-any
  streamifyResponse<E = any>(
    handler: StreamifyHandler<E>,
    options?: { highWaterMark?: number },
  ): Handler<E, void>;
  HttpResponseStream: {
    /** Set status, headers and cookies; returns the stream for the body. */
    from(
      responseStream: ResponseStream,
      metadata: HttpMetadata,
    ): ResponseStream;
  };
  /** Values of the invocation, for code that does not get the context. */
  InvokeStore: InvokeStore;
}

/** As in Node's runtime; the package `@aws/lambda-invoke-store` uses it. */
export interface InvokeStore {
  getContext(): Record<string | symbol, unknown> | undefined;
  /** False outside an invocation, such as while the module loads. */
  hasContext(): boolean;
  /** `-` outside an invocation. */
  getRequestId(): string;
  getXRayTraceId(): string | undefined;
  getTenantId(): string | undefined;
  get(key: string | symbol): unknown;
  /** Keep a value for the rest of the invocation. */
  set(key: string | symbol, value: unknown): void;
  /** Run a function with other values. */
  run<T>(context: Record<string | symbol, unknown>, work: () => T): T;
}

declare global {
  var awslambda: AwsLambda;
}
