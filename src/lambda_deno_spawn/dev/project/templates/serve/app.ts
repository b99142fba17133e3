/** Answers a request, whatever serves it. */
export function respond(request: Request): Response {
  const { pathname, searchParams } = new URL(request.url);
  const name = pathname.match(/^\/hello\/(.+)$/)?.[1];
  if (name === undefined) {
    return Response.json({ error: `Nothing at ${pathname}` }, { status: 404 });
  }
  const greeting = searchParams.get("greeting") ?? "Hello";
  return Response.json({ message: `${greeting} ${decodeURIComponent(name)}` });
}
