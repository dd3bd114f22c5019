import { quoted, type Statements } from "./database.ts";
import { RestFailure } from "./rest_errors.ts";

/** The one schema that the API shows. */
export const exposedSchema = "public";

/** Refuses a table or view that is not there, as PostgREST's schema cache does. Returns its name for SQL. */
export async function relation(sql: Statements, name: string): Promise<string> {
  const [row] = await sql.query(
    `select 1 as there from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')`,
    [exposedSchema, name],
  );
  if (row === undefined) {
    throw new RestFailure(404, "PGRST205", `Could not find the table '${exposedSchema}.${name}' in the schema cache`);
  }
  return `${quoted(exposedSchema)}.${quoted(name)}`;
}

/** Columns of the primary key, in its order. */
export async function primaryKey(sql: Statements, name: string): Promise<string[]> {
  const rows = await sql.query(
    `select a.attname from pg_catalog.pg_constraint k
       join pg_catalog.pg_class c on c.oid = k.conrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       cross join unnest(k.conkey) with ordinality as part (attnum, place)
       join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = part.attnum
      where k.contype = 'p' and n.nspname = $1 and c.relname = $2 order by part.place`,
    [exposedSchema, name],
  );
  return rows.map((row) => row["attname"] ?? "");
}

export interface Routine {
  readonly name: string;
  /** SQL types by argument name. */
  readonly types: Readonly<Record<string, string>>;
  readonly returnsSet: boolean;
  readonly returnsVoid: boolean;
  readonly returnsComposite: boolean;
  readonly volatile: boolean;
}

/** The function of that name whose arguments fit those given: all of them known, none without default missing. */
export async function routine(sql: Statements, name: string, given: readonly string[]): Promise<Routine> {
  const rows = await sql.query(
    `select p.proretset::text as set, (p.prorettype = 'void'::regtype)::text as void, (p.provolatile = 'v')::text as volatile,
            (t.typtype = 'c' or p.prorettype = 'record'::regtype)::text as composite, p.pronargdefaults::text as defaults,
            (select coalesce(json_agg(json_build_array(p.proargnames[place], format_type(type, null)) order by place), '[]')
               from unnest(p.proargtypes::oid[]) with ordinality as a (type, place))::text as arguments
       from pg_catalog.pg_proc p
       join pg_catalog.pg_namespace n on n.oid = p.pronamespace
       join pg_catalog.pg_type t on t.oid = p.prorettype
      where n.nspname = $1 and p.proname = $2 and p.prokind = 'f'`,
    [exposedSchema, name],
  );
  for (const row of rows) {
    const args: [string | null, string][] = JSON.parse(row["arguments"] ?? "[]");
    const required = args.slice(0, args.length - Number(row["defaults"]));
    const known = new Set(args.map(([argument]) => argument));
    const fits = given.every((one) => known.has(one)) && required.every(([one]) => one !== null && given.includes(one));
    if (!fits) continue;
    return {
      name: `${quoted(exposedSchema)}.${quoted(name)}`,
      types: Object.fromEntries(args.map(([argument, type]) => [argument ?? "", type])),
      returnsSet: row["set"] === "true",
      returnsVoid: row["void"] === "true",
      returnsComposite: row["composite"] === "true",
      volatile: row["volatile"] === "true",
    };
  }
  const list = given.length === 0 ? "without parameters" : `(${given.join(", ")})`;
  throw new RestFailure(
    404,
    "PGRST202",
    `Could not find the function ${exposedSchema}.${name}${given.length === 0 ? ` ${list}` : list} in the schema cache`,
  );
}
