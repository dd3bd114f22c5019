/** A manifest or a segment replaced by another revision, beside retention and whoever reads it. */
import { sameBytes } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import type { RewriteDeps } from "./rewrite_retained.ts";
import { type Held, holdName } from "./rewriting_queries.ts";

/**
 * Under the row's lock, so that retention does not take it meanwhile. The store first: what the database says of it is then true, and
 * one that was put and not recorded says itself that it was rewritten. What is gone, or in use, stays as it is. Errors: `store_lied`,
 * those of `record`, the connection and the store.
 */
export async function replaceHeld(
  { connection, store, log }: RewriteDeps,
  kind: "manifest" | "segment",
  name: string,
  bytes: Uint8Array,
  record: () => Promise<void>,
): Promise<Held> {
  await connection.execute("begin");
  try {
    const held = await store.size(name) === null ? "gone" : await holdName(connection, kind, name);
    if (held !== "held") {
      await connection.execute("rollback");
      return held;
    }
    log.step("rewrite.putting", { name });
    await store.replace(name, bytes);
    if (!sameBytes(await store.read(name), bytes)) {
      throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written to ${name}`);
    }
    log.step("rewrite.put", { name });
    await record();
    await connection.execute("commit");
    log.step("rewrite.recorded", { name });
    return "held";
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}
