/** An app that keeps writing in every way it has, and remembers how each attempt went. */
import type { SupabaseClient } from "@supabase/supabase-js";

export const ways = [
  "insert",
  "upsert",
  "update",
  "delete",
  "update of an old row",
  "delete of an old row",
  "call of a definer",
  "upload",
  "new account",
] as const;
export type Way = typeof ways[number];

export interface Attempt {
  readonly way: Way;
  /** Unix time in milliseconds, of the machine that the server runs on too. */
  readonly startMs: number;
  readonly endMs: number;
  readonly written: boolean;
  readonly told: string;
}

export interface WritingClient {
  readonly attempts: readonly Attempt[];
  /** Ends once the attempts under way have. */
  stop(): Promise<void>;
}

/** Between two rounds of all ways; each way is tried some ten times a second. */
const pauseMs = 50;

/** `user` is signed in and owns what it writes; `visitor` is nobody, and signs up; `service` uploads, and touches the rows of `entries` that were there. */
export function startWriting(
  user: SupabaseClient,
  visitor: SupabaseClient,
  service: SupabaseClient,
): WritingClient {
  const attempts: Attempt[] = [];
  let over = false;
  let round = 0;
  const attempt = async (way: Way, write: () => PromiseLike<{ readonly error: unknown }>): Promise<void> => {
    const startMs = Date.now();
    const { error } = await Promise.resolve(write()).catch((error: unknown) => ({ error }));
    const { code, status } = (error ?? {}) as Record<string, unknown>;
    attempts.push({
      way,
      startMs,
      endMs: Date.now(),
      written: error === null,
      told: `${String(status)} ${String(code)}`,
    });
  };
  const goOn = async (turn: () => Promise<void>): Promise<void> => {
    while (!over) {
      await turn();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  const own = () => user.from("entries");
  const rows = goOn(async () => {
    const title = `by the client ${++round}`;
    await attempt("insert", () => own().insert({ title }));
    await attempt("upsert", () => own().upsert({ id: crypto.randomUUID(), title }));
    // a statement that matches no row writes nothing, and is refused all the same
    await attempt("update", () => own().update({ title: `${title} again` }).eq("title", title));
    await attempt("delete", () => own().delete().eq("title", `${title} again`));
    await attempt(
      "update of an old row",
      () => service.from("entries").update({ title: "changed" }).eq("number", round % 2000),
    );
    await attempt("delete of an old row", () => service.from("entries").delete().eq("number", 1 + round % 2000));
    await attempt("call of a definer", () => user.rpc("add_entry", { title }));
  });
  const files = goOn(() =>
    attempt("upload", () => service.storage.from("photos").upload(`${crypto.randomUUID()}.txt`, new Blob(["new"])))
  );
  const people = goOn(() =>
    attempt(
      "new account",
      () => visitor.auth.signUp({ email: `${crypto.randomUUID()}@journal.example`, password: crypto.randomUUID() }),
    )
  );
  return {
    attempts,
    async stop() {
      over = true;
      await Promise.all([rows, files, people]);
    },
  };
}
