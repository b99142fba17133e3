/** Echoes the query of a request to a function URL. */
export function handler(event) {
  return {
    statusCode: 200,
    headers: { "content-type": "text/plain" },
    body: event.rawQueryString,
  };
}
