// @ts-check
/**
 * The baseline: a runtime built like all others. One long-lived Deno process polls the
 * Runtime API itself with fetch and calls the handler in its own memory. It isolates
 * nothing, so nothing can be much faster. Its argument is the folder of the handlers.
 */
const api = `http://${
  Deno.env.get("AWS_LAMBDA_RUNTIME_API")
}/2018-06-01/runtime/invocation`;
const [file, name] = (Deno.env.get("_HANDLER") ?? "").split(".");
const task = Deno.env.get("LAMBDA_TASK_ROOT");
const { [name]: handler } = await import(`file://${task}/${file}.mjs`);

while (true) {
  const next = await fetch(`${api}/next`);
  const id = next.headers.get("lambda-runtime-aws-request-id");
  const event = JSON.parse(await next.text());
  const body = JSON.stringify(await handler(event));
  const accepted = await fetch(`${api}/${id}/response`, {
    method: "POST",
    body,
  });
  await accepted.body?.cancel();
}
