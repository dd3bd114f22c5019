/** What becomes of one row: it goes, changes, or stays. For rows of chunks and of the change stream alike. */
import type { Identity } from "./entry.ts";
import { type ErasedKeys, type ReadColumn, RowJudge } from "./judge_row.ts";
import { prepareIdentity } from "./keyed_hash.ts";
import { type RemovalTable, usersIdentity } from "./removal_plan.ts";
import { isLogOfAuth, scrubPayload } from "./scrub_payload.ts";

export type Fate =
  | { readonly kind: "goes" }
  | { readonly kind: "stays" }
  /** New texts by place; null: NULL. */
  | { readonly kind: "changes"; readonly values: ReadonlyMap<number, string | null> };

const stays: Fate = { kind: "stays" };
const goesAway: Fate = { kind: "goes" };
const users = prepareIdentity(usersIdentity);

export class TableRewriter {
  readonly judge: RowJudge;
  readonly #erased: ErasedKeys;
  readonly #log: { readonly payload: number; readonly address: number } | null;
  /** How many of a row's columns have to be found. */
  readonly width: number;

  constructor(
    erased: ErasedKeys,
    table: RemovalTable,
    columns: readonly string[],
    alsoBy: readonly (readonly string[])[] = [],
  ) {
    this.#erased = erased;
    this.judge = new RowJudge(erased, table, columns, alsoBy);
    const payload = columns.indexOf("payload");
    const ours = isLogOfAuth(table) && payload >= 0;
    this.#log = ours ? { payload, address: columns.indexOf("ip_address") } : null;
    this.width = ours ? columns.length : this.judge.width;
  }

  /** Can any row of it go, or change, by what is known now? */
  get matters(): boolean {
    return this.#log !== null || this.judge.matters;
  }

  get identities(): readonly Identity[] {
    return this.judge.identities;
  }

  fateOf(read: ReadColumn): Fate {
    const verdict = this.judge.judge(read);
    if (verdict.goes) return goesAway;
    // Most rows are these.
    if (verdict.clear.length === 0 && this.#log === null) return stays;
    const values = new Map<number, string | null>();
    for (const place of verdict.clear) values.set(place, null);
    if (this.#log !== null) this.#scrub(read, values);
    return values.size === 0 ? stays : { kind: "changes", values };
  }

  #scrub(read: ReadColumn, values: Map<number, string | null>): void {
    const { payload, address } = this.#log ?? { payload: -1, address: -1 };
    const text = read(payload);
    if (text === null || text === undefined) return;
    const found = scrubPayload(
      new TextDecoder().decode(text),
      (user) => this.#erased.isErased(users, [new TextEncoder().encode(user)]),
    );
    if (found === null) return;
    values.set(payload, found.payload);
    if (found.withoutAddress && address >= 0) values.set(address, "");
  }
}
