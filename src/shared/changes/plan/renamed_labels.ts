/**
 * Labels of enums in rows that were written before a rename and committed behind it: no lock of the server stands between the
 * two, and the row has the old label, at whatever depth of its type. Pure.
 */
import type { Lsn, Relation } from "../decode/messages.ts";
import type { DdlRow, DdlStep } from "../definitions/ddl_replay.ts";
import { leadingTokens, type Token } from "../definitions/statements.ts";
import { quoteQualified, splitQualified, unquoteIdent } from "../../schema/quote.ts";
import { schemaRenameOf } from "./follow_names.ts";

export interface LabelRename {
  /** At the source. */
  readonly typeOid: number;
  readonly from: string;
  readonly to: string;
  /** Of the commit that made it seen. */
  readonly commitLsn: Lsn;
}

/** Is told of the rows of the DDL log in the order of the stream. */
export class RenamedLabels {
  readonly #renames: LabelRename[] = [];
  /** Commands that may have renamed labels, and nobody knows which. */
  readonly #unclear: { readonly name: string; readonly commitLsn: Lsn }[] = [];
  /** Of types, by oid: as they are called at this place. */
  readonly #names = new Map<number, string>();
  readonly #labels = new Map<number, readonly string[]>();

  /** `step`: what its transaction's `DdlTransaction` says of the row. */
  follow(row: DdlRow, step: DdlStep, commitLsn: Lsn): void {
    this.#followSchema(row, step);
    for (const { type, oid, identity, made } of row.objects) {
      if (type !== "type" || oid == null || identity === null) continue;
      this.#names.set(oid, identity);
      const labels = made != null && "labels" in made ? made.labels : null;
      if (row.tag === "ALTER TYPE" && row.what === "command") {
        for (const pair of this.#pairsOf(oid, labels, step)) {
          if (pair === "unclear") this.#unclear.push({ name: identity, commitLsn });
          else this.#renames.push({ typeOid: oid, ...pair, commitLsn });
        }
      }
      if (labels !== null) this.#labels.set(oid, labels);
    }
  }

  /** What a type is called at this place of the stream; null: no row of the log has named it. */
  nameOf(typeOid: number): string | null {
    return this.#names.get(typeOid) ?? null;
  }

  /** Renames that a change did not know, oldest first. `lsn`: of the change; `commitLsn`: of its transaction. */
  unseenBy(relation: Relation, lsn: Lsn, commitLsn: Lsn): readonly LabelRename[] {
    if (this.#renames.length === 0 || !hasOwnTypes(relation)) return [];
    return this.#renames.filter((one) => isUnseen(one, lsn, commitLsn));
  }

  /** The name of a type of which the change may have labels that nobody can tell; null: none. */
  unclearFor(relation: Relation, lsn: Lsn, commitLsn: Lsn): string | null {
    if (this.#unclear.length === 0 || !hasOwnTypes(relation)) return null;
    return this.#unclear.find((one) => isUnseen(one, lsn, commitLsn))?.name ?? null;
  }

  #pairsOf(oid: number, labels: readonly string[] | null, step: DdlStep): ("unclear" | Pair)[] {
    if (step.do === "run") {
      return step.statements.map((one) => leadingTokens(one, 60)).flatMap((tokens) => renameIn(tokens) ?? []);
    }
    if (step.do !== "define" || labels === null) return [];
    const known = this.#labels.get(oid);
    if (known === undefined) return ["unclear"];
    if (known.length !== labels.length) return [];
    return labels.flatMap((to, index) => {
      const from = known[index] ?? "";
      return from === to ? [] : [{ from, to }];
    });
  }

  /** A schema takes its types along. */
  #followSchema(row: DdlRow, step: DdlStep): void {
    const renamed = schemaRenameOf(row, step);
    if (renamed === null || renamed === "unclear") return;
    for (const [oid, identity] of this.#names) {
      const [schema, name] = splitQualified(identity)?.map(unquoteIdent) ?? [];
      if (schema === renamed.former && name !== undefined) this.#names.set(oid, quoteQualified(renamed.now, name));
    }
  }
}

type Pair = Pick<LabelRename, "from" | "to">;

function isUnseen(rename: { readonly commitLsn: Lsn }, lsn: Lsn, commitLsn: Lsn): boolean {
  return rename.commitLsn > lsn && rename.commitLsn !== commitLsn;
}

/** Types of users have oids from here on (FirstNormalObjectId of the server's transam.h). */
const firstOid = 16_384;

/** Can a value of its rows hold a label of an enum? */
export function hasOwnTypes(relation: Relation): boolean {
  return relation.columns.some((column) => column.typeOid >= firstOid);
}

/** Of `alter type … rename value … to …`; null for any other statement. */
function renameIn(tokens: readonly Token[]): "unclear" | Pair | null {
  const isWord = (at: number, word: string) => tokens[at]?.text === word && tokens[at]?.quoted === false;
  if (!isWord(0, "alter") || !isWord(1, "type")) return null;
  const at = tokens.findIndex((_, index) => isWord(index, "rename") && isWord(index + 1, "value"));
  if (at < 0) return null;
  const [from, word, to, ...more] = tokens.slice(at + 2);
  const labels = [constantOf(from), constantOf(to)] as const;
  return word?.text === "to" && more.length === 0 && labels[0] !== null && labels[1] !== null
    ? { from: labels[0], to: labels[1] }
    : "unclear";
}

/** Null for a constant of another kind, with escapes. */
function constantOf(token: Token | undefined): string | null {
  const [, plain] = /^'((?:[^']|'')*)'$/s.exec(token?.text ?? "") ?? [];
  const [, , dollar] = /^(\$[^$]*\$)(.*)\1$/s.exec(token?.text ?? "") ?? [];
  return plain?.replaceAll("''", "'") ?? dollar ?? null;
}
