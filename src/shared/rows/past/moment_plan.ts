/** What of a full restore is done where only some tables are wanted. Pure. */
import type { RestorePlan } from "../../restore/plan.ts";
import type { PreparedRestore } from "../../restore/run.ts";
import { nameOf } from "./fold_partitions.ts";
import { readForeignKey } from "./read_definitions.ts";

/** What a foreign key to a table can need of it. */
const keyKinds = new Set(["primary key", "unique constraint", "index", "index partition"]);

/**
 * Every definition, and the rows of all tables but `without` (`schema.name`, quoted where needed; partitions and the
 * partitioned tables over them). A foreign key to a table without its rows could not be made over rows that refer to it:
 * it is made before them, behind the indexes of the tables that stay empty. Materialised views stay empty, too.
 */
export function planWithoutRows({ plan, contents }: PreparedRestore, without: ReadonlySet<string>): RestorePlan {
  const { definitions, tables } = contents.capture;
  const empty = new Set([
    ...tables.filter((shape) => without.has(nameOf(shape))).map(({ identity }) => identity),
    ...definitions.filter(({ kind, schema, name }) =>
      kind === "table" && schema !== null && without.has(nameOf({ schema, name }))
    ).map(({ identity }) => identity),
  ]);
  const early = new Set(
    definitions.filter(({ kind, table, statements }) =>
      kind === "foreign key"
        ? statements.some((text) => text.startsWith("alter table ") && without.has(nameOf(readForeignKey(text).to)))
        : keyKinds.has(kind) && table !== null && empty.has(table)
    ).map(({ identity }) => `post-data ${identity}`),
  );
  const loads = plan.loads.filter((load) => !without.has(nameOf(load)));
  const sum = (of: (load: (typeof loads)[number]) => number) => loads.reduce((total, load) => total + of(load), 0);
  return {
    ...plan,
    loads,
    preData: [...plan.preData, ...plan.postData.filter(({ key }) => early.has(key))],
    postData: plan.postData.filter(({ key }) => !early.has(key)),
    last: plan.last.filter(({ statements }) =>
      !statements.some((text) => text.startsWith("refresh materialized view "))
    ),
    rows: sum(({ rows }) => rows),
    rawBytes: sum(({ rawBytes }) => rawBytes),
  };
}
