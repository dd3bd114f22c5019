/** Indexes of partitions that hang on one of the partitioned table: neither goes without the other. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteQualified } from "../../../schema/quote.ts";
import { tokensOf } from "../texts/sql_text.ts";

export interface AttachedIndex {
  /** Identity of the `index partition`. */
  readonly attachment: string;
  /** Identities of the indexes or of the constraints that they are of. */
  readonly child: string;
  readonly parent: string;
}

export function attachedIndexes(definitions: readonly Definition[]): AttachedIndex[] {
  const byName = new Map<string, string>();
  for (const one of definitions) {
    if (["index", "primary key", "unique constraint", "exclusion constraint"].includes(one.kind)) {
      byName.set(quoteQualified(one.schema ?? "", one.name), one.identity);
    }
  }
  return definitions.filter((one) => one.kind === "index partition").flatMap((one) => {
    // alter index a.b attach partition c.d
    const words = tokensOf(one.statements[0] ?? "").map((token) => token.text);
    const parent = byName.get(words.slice(2, 5).join(""));
    const child = byName.get(words.slice(7, 10).join(""));
    return parent === undefined || child === undefined ? [] : [{ attachment: one.identity, child, parent }];
  });
}
