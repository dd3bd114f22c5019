/** Reads objects one after the other while the next ones are on their way. */
import type { Store } from "./store.ts";

/** The latency of a store counts once for so many objects. */
const objectsAhead = 8;
const bytesAhead = 16 * 1024 * 1024;

/**
 * In the order of `objects`. At most 8 are on their way or waiting, and more than one only while they are no more than
 * 16 MiB together. An error comes at the object that it is of; those of objects that nobody asked for are nobody's.
 */
export async function* readAhead<T extends { readonly name: string; readonly size: number }>(
  store: Pick<Store, "read">,
  objects: readonly T[],
): AsyncGenerator<{ readonly object: T; readonly bytes: Uint8Array }> {
  const waiting: { readonly object: T; readonly bytes: Promise<Uint8Array> }[] = [];
  let size = 0;
  let next = 0;
  for (;;) {
    for (let object = objects[next]; object !== undefined; object = objects[next]) {
      const fits = waiting.length === 0 || (waiting.length < objectsAhead && size + object.size <= bytesAhead);
      if (!fits) break;
      const bytes = store.read(object.name);
      bytes.catch(() => {});
      waiting.push({ object, bytes });
      size += object.size;
      next++;
    }
    const first = waiting.shift();
    if (first === undefined) return;
    size -= first.object.size;
    yield { object: first.object, bytes: await first.bytes };
  }
}
