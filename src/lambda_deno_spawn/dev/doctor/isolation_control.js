// @ts-check
/**
 * The control of `doctor --isolation`: a runtime built like every other one. One process
 * for all events polls the Runtime API and calls the handler in its own memory. It logs
 * the request id of the current event.
 *
 * @module
 */
const api = `http://${
  Deno.env.get("AWS_LAMBDA_RUNTIME_API")
}/2018-06-01/runtime/invocation`;
const [file, name] = (Deno.env.get("_HANDLER") ?? "").split(".");
// Saved before the handler's module can replace them, as careful runtimes do.
const { fetch } = globalThis;
const { parse, stringify } = JSON;
const { log } = console;
let requestId = "";

console.log = (...values) => {
  log([new Date().toISOString(), requestId, "INFO", ...values].join("\t"));
};

const { [name]: handler } = await import(
  `file://${Deno.env.get("LAMBDA_TASK_ROOT")}/${file}.js`
);

for (;;) {
  const next = await fetch(`${api}/next`);
  requestId = next.headers.get("lambda-runtime-aws-request-id") ?? "";
  const result = await handler(parse(await next.text()));
  const body = stringify(result);
  const accepted = await fetch(`${api}/${requestId}/response`, {
    method: "POST",
    body,
  });
  await accepted.body?.cancel();
}
