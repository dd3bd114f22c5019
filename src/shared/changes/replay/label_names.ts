/** Enums of a target with the labels that they had at a change's place: rows keep what a label is, whatever it is called. */
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { LabelRename, RenamedLabels } from "../plan/renamed_labels.ts";

/** In the transaction of the replay; one that is rolled back takes its renames along. */
export class LabelNames {
  readonly #labels: RenamedLabels;
  /** Renames that are taken back for now, oldest first. */
  #takenBack: readonly LabelRename[] = [];

  constructor(labels: RenamedLabels) {
    this.#labels = labels;
  }

  /** Are labels called what they are called where exactly these renames are not seen? */
  areWithout(unseen: readonly LabelRename[]): boolean {
    return unseen.length === this.#takenBack.length && unseen.every((one, index) => one === this.#takenBack[index]);
  }

  rolledBack(): void {
    this.#takenBack = [];
  }

  async goWithout(connection: Connection, unseen: readonly LabelRename[]): Promise<void> {
    for (const { typeOid, from, to } of this.#takenBack) await this.#rename(connection, typeOid, from, to);
    this.#takenBack = unseen;
    for (const { typeOid, from, to } of unseen.toReversed()) await this.#rename(connection, typeOid, to, from);
  }

  /** A type that is gone is in no table: its drop has waited for every transaction that wrote to one. */
  async #rename(connection: Connection, typeOid: number, from: string, to: string): Promise<void> {
    const name = this.#labels.nameOf(typeOid);
    if (name === null) return;
    const [row] = await connection.query(
      `select pg_catalog.pg_get_userbyid(t.typowner) as owner from pg_catalog.pg_type as t
        where t.oid = pg_catalog.to_regtype($1)
          and exists (select from pg_catalog.pg_enum as e where e.enumtypid = t.oid and e.enumlabel = $2)`,
      [name, from],
    );
    if (row === undefined) return;
    await connection.execute(
      `set local role ${quoteIdent(row["owner"] ?? "")};
       alter type ${name} rename value ${quoteLiteral(from)} to ${quoteLiteral(to)};
       reset role`,
    );
  }
}
