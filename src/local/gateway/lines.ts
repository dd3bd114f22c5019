/** A longer line is cut here, so that an endless one does not grow in memory. */
const longestLine = 64 * 1024;

/** The lines of a byte stream, without their ends; what follows the last end counts as a line. */
export async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
    if (rest.length > longestLine) {
      yield rest;
      rest = "";
    }
  }
  if (rest !== "") yield rest;
}
