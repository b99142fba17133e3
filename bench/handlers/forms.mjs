/** The same byte, buffered and streamed. */
export function buffered() {
  return 1;
}

export async function* generator() {
  yield "1";
  await new Promise((resolve) => setTimeout(resolve, 5));
  yield "2";
}

export const streamified = globalThis.awslambda?.streamifyResponse(
  async (_event, stream) => {
    stream.write("1");
    await new Promise((resolve) => setTimeout(resolve, 5));
    stream.end("2");
  },
);
