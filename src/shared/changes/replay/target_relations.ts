/** What the stream told of tables, by the names that the target has for them. */
import type { Relation } from "../decode/messages.ts";
import type { DdlRow, DdlStep } from "../definitions/ddl_replay.ts";
import { asNamed, followNames } from "../plan/follow_names.ts";
import { TableNames } from "../plan/named_tables.ts";

/** Is told of relations and of rows of the DDL log in the order of the stream. */
export class TargetRelations {
  readonly #relations = new Map<number, Relation>();
  readonly #names: TableNames;

  /** `tables`: of the full backup. */
  constructor(tables: ConstructorParameters<typeof TableNames>[0]) {
    this.#names = new TableNames(tables);
  }

  get(oid: number): Relation | undefined {
    return this.#relations.get(oid);
  }

  /** True where it was another before. */
  tell(told: Relation): boolean {
    const relation = asNamed(this.#names, told);
    const known = this.#relations.get(relation.oid);
    this.#relations.set(relation.oid, relation);
    return known !== undefined && JSON.stringify(known) !== JSON.stringify(relation);
  }

  /** True where one of them has another name after this row. `step`: what its transaction's `DdlTransaction` says of it. */
  follow(row: DdlRow, step: DdlStep): boolean {
    followNames(this.#names, row, step);
    let isChanged = false;
    const oids = row.tag === "ALTER SCHEMA" ? this.#relations.keys() : row.objects.map(({ oid }) => oid ?? -1);
    for (const oid of [...oids]) {
      const relation = this.#relations.get(oid);
      const renamed = relation === undefined ? undefined : asNamed(this.#names, relation);
      if (renamed === undefined || renamed === relation) continue;
      this.#relations.set(oid, renamed);
      isChanged = true;
    }
    return isChanged;
  }
}
