/** What a stretch of the stream does to the rows of storage.objects. */
import { isFiles } from "../../restore/project_rows.ts";
import { type Relation, unchanged, type Value } from "../decode/messages.ts";
import { decodeMessage, messageKind, relationOf } from "../decode/pgoutput.ts";

/** A row that came or changed. */
export interface ChangedFile {
  /** Members of a JSON object, `"name": value, …`: of an update that left large values where they were without these. */
  readonly members: string;
  /** It lacks such values: they are those of the row before. */
  readonly isPartial: boolean;
}

export interface FileChanges {
  /** By the ids of their rows, as they are in the end; null: removed. */
  readonly rows: ReadonlyMap<string, ChangedFile | null>;
  /** Every row that was there before was removed by TRUNCATE. */
  readonly emptied: boolean;
}

const jsonTypes: ReadonlySet<number> = new Set([114, 3802]);
/** What Storage computes. */
const computed: ReadonlySet<string> = new Set(["path_tokens", "level"]);

/** Is told of what is not left out, in the order of the stream. */
export class SeenFiles {
  readonly #rows = new Map<string, ChangedFile | null>();
  #emptied = false;
  #relation: Relation | null = null;

  relation(relation: Relation): void {
    if (isFiles(relation)) this.#relation = relation;
  }

  /** As `SeenTables.change`. */
  change(oid: number | null, data: Uint8Array): void {
    const relation = this.#relation;
    if (relation === null) return;
    if (messageKind(data) === "truncate") return this.#truncate(relation, data);
    if (oid !== relation.oid || relationOf(data) !== relation.oid) return;
    const message = decodeMessage(data);
    const at = relation.columns.findIndex(({ name }) => name === "id");
    if (message.kind === "delete") this.#rows.set(String(message.old.values[at]), null);
    if (message.kind !== "insert" && message.kind !== "update") return;
    const former = message.kind === "update" ? message.old?.values[at] : undefined;
    const id = String(message.row[at]);
    const before = this.#rows.get(typeof former === "string" ? former : id);
    if (typeof former === "string" && former !== id) this.#rows.set(former, null);
    this.#rows.set(id, changed(relation, message.row, before ?? null));
  }

  get changes(): FileChanges {
    return { rows: this.#rows, emptied: this.#emptied };
  }

  #truncate(relation: Relation, data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "truncate" || !message.relations.includes(relation.oid)) return;
    this.#rows.clear();
    this.#emptied = true;
  }
}

/** What `before` says of a column counts where the row does not say it: of two members of one name the last one does. */
function changed(relation: Relation, row: readonly Value[], before: ChangedFile | null): ChangedFile {
  const members: string[] = before === null ? [] : [before.members];
  let isPartial = false;
  for (const [index, { name, typeOid }] of relation.columns.entries()) {
    const value = row[index];
    if (computed.has(name) || value === undefined) continue;
    if (value === unchanged) isPartial = true;
    else members.push(`${JSON.stringify(name)}: ${jsonOf(value, typeOid)}`);
  }
  // A row that came in this stretch was whole.
  return { members: members.join(", "), isPartial: isPartial && before?.isPartial !== false };
}

function jsonOf(value: string | null, typeOid: number): string {
  if (value === null) return "null";
  return jsonTypes.has(typeOid) ? value : JSON.stringify(value);
}
