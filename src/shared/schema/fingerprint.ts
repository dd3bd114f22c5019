/**
 * Fingerprints of the catalog by a fresh snapshot: has anything changed that shapes definitions, or the text of a table's COPY?
 *
 * A snapshot does not protect from such changes: an enum's label, a function's body, a composite's attribute are read from the newest
 * catalog whatever the snapshot. Both functions therefore refuse a transaction that keeps its snapshot.
 */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import type { CaptureOptions } from "./capture_format.ts";
import { arrayText } from "./quote.ts";
import { cronAccess } from "./cron_access.ts";
import { notOfOwnPublication, notOwnPublication } from "./own_objects.ts";
import { readRows } from "./read_rows.ts";

interface Source {
  readonly catalog: string;
  /** Columns that change without a change of definition, or that cannot be shown as JSON. */
  readonly without?: readonly string[];
  /** Added to each row's text. */
  readonly plus?: string;
  readonly where?: string;
  readonly order?: string;
}

const mine = "o.oid >= 16384";
const notSkipped = (column: string) => `${column} not in (select s.oid from skipped s)`;
const notInSkipped = (column: string) => `${column} not in (select s.oid from skipped_schema s)`;

/** Which rows and columns of which catalogs count. Statistics, sizes and transaction ids do not. */
const sources: readonly Source[] = [
  { catalog: "pg_namespace", where: `(${mine} or o.nspname = 'public') and ${notInSkipped("o.oid")}` },
  {
    catalog: "pg_class",
    without: [
      "relpages",
      "reltuples",
      "relallvisible",
      "relallfrozen",
      "relfilenode",
      "relfrozenxid",
      "relminmxid",
      "relhasindex",
      "relhasrules",
      "relhastriggers",
      "relhassubclass",
      "relrewrite",
    ],
    plus: "(select t.reloptions::text from pg_catalog.pg_class t where t.oid = o.reltoastrelid)",
    where: `${mine} and ${notSkipped("o.oid")}`,
  },
  {
    catalog: "pg_attribute",
    without: ["attmissingval", "attcacheoff"],
    plus: "pg_catalog.md5(o.attmissingval::text)",
    where: `o.attrelid >= 16384 and o.attnum > 0 and ${notSkipped("o.attrelid")}`,
    order: "o.attrelid, o.attnum",
  },
  { catalog: "pg_attrdef", where: `${mine} and ${notSkipped("o.adrelid")}` },
  { catalog: "pg_type", where: `${mine} and ${notInSkipped("o.typnamespace")}` },
  { catalog: "pg_enum", order: "o.enumtypid, o.enumsortorder" },
  { catalog: "pg_range", where: "o.rngtypid >= 16384", order: "o.rngtypid" },
  { catalog: "pg_proc", where: `${mine} and ${notInSkipped("o.pronamespace")}` },
  { catalog: "pg_aggregate", where: "o.aggfnoid >= 16384", order: "o.aggfnoid" },
  { catalog: "pg_operator", where: mine },
  { catalog: "pg_opclass", where: mine },
  { catalog: "pg_opfamily", where: mine },
  { catalog: "pg_amop", where: mine },
  { catalog: "pg_amproc", where: mine },
  { catalog: "pg_cast", where: mine },
  { catalog: "pg_conversion", where: mine },
  { catalog: "pg_collation", where: mine },
  { catalog: "pg_ts_parser", where: mine },
  { catalog: "pg_ts_template", where: mine },
  { catalog: "pg_ts_dict", where: mine },
  { catalog: "pg_ts_config", where: mine },
  { catalog: "pg_ts_config_map", order: "o.mapcfg, o.maptokentype, o.mapseqno" },
  { catalog: "pg_foreign_data_wrapper", where: mine },
  { catalog: "pg_foreign_server", where: mine },
  { catalog: "pg_foreign_table", order: "o.ftrelid" },
  { catalog: "pg_user_mappings", without: ["umoptions"], order: "o.umid" },
  { catalog: "pg_language", where: mine },
  { catalog: "pg_transform", where: mine },
  { catalog: "pg_am", where: mine },
  { catalog: "pg_extension", where: mine },
  { catalog: "pg_event_trigger", where: mine },
  { catalog: "pg_publication", where: `${mine} and ${notOwnPublication("o.pubname")}` },
  { catalog: "pg_publication_rel", where: `${notSkipped("o.prrelid")} and ${notOfOwnPublication("o.prpubid")}` },
  { catalog: "pg_publication_namespace", where: mine },
  { catalog: "pg_statistic_ext", where: `${mine} and ${notSkipped("o.stxrelid")}` },
  { catalog: "pg_default_acl", where: mine },
  { catalog: "pg_policy", where: notSkipped("o.polrelid") },
  { catalog: "pg_rewrite", where: `${mine} and ${notSkipped("o.ev_class")}` },
  { catalog: "pg_trigger", where: `${mine} and ${notSkipped("o.tgrelid")}` },
  { catalog: "pg_constraint", where: `${mine} and ${notSkipped("o.conrelid")} and ${notInSkipped("o.connamespace")}` },
  {
    catalog: "pg_index",
    without: ["indcheckxmin"],
    where: `o.indexrelid >= 16384 and ${notSkipped("o.indrelid")}`,
    order: "o.indexrelid",
  },
  { catalog: "pg_inherits", where: notSkipped("o.inhrelid"), order: "o.inhrelid, o.inhseqno" },
  { catalog: "pg_sequence", where: `o.seqrelid >= 16384 and ${notSkipped("o.seqrelid")}`, order: "o.seqrelid" },
  { catalog: "pg_partitioned_table", where: notSkipped("o.partrelid"), order: "o.partrelid" },
  {
    catalog: "pg_description",
    where: `o.objoid >= 16384 and ${notSkipped("o.objoid")}`,
    order: "o.classoid, o.objoid, o.objsubid",
  },
  { catalog: "pg_shdescription", where: "o.objoid >= 16384", order: "o.classoid, o.objoid" },
  { catalog: "pg_seclabel", order: "o.classoid, o.objoid, o.objsubid, o.provider" },
  { catalog: "pg_shseclabel", order: "o.classoid, o.objoid, o.provider" },
  { catalog: "pg_init_privs", where: "o.objoid >= 16384", order: "o.classoid, o.objoid, o.objsubid" },
  { catalog: "pg_db_role_setting", order: "o.setdatabase, o.setrole" },
  { catalog: "pg_auth_members", without: ["oid"], order: "o.roleid, o.member, o.grantor" },
  { catalog: "pg_roles", without: ["rolpassword"] },
  { catalog: "pg_parameter_acl" },
];

const hashFormat = z.object({ name: z.string(), hash: z.string().nullable() });

/**
 * One hash over everything that shapes definitions and COPY text in the schemas of the capture; equal before and after means that
 * nothing changed in between that stayed. Changes in left-out schemas and of temporary objects do not count. Leaves the session
 * with `jit` off. `jobs`: those of pg_cron count as well.
 */
export async function catalogFingerprint(
  connection: Connection,
  options: CaptureOptions,
  { jobs = true }: { readonly jobs?: boolean } = {},
): Promise<string> {
  await refuseKeptSnapshot(connection);
  const parts = sources.map(({ catalog, without, plus, where, order }) => {
    const json = without === undefined
      ? "pg_catalog.to_jsonb(o)"
      : `(pg_catalog.to_jsonb(o) - '{${without.join(",")}}'::text[])`;
    // A polymorphic array has no JSON of its own: it is taken out of the row first.
    const row = catalog === "pg_attribute" ? attributeRow : `pg_catalog.${catalog}`;
    const text = `${json}::text${plus === undefined ? "" : ` || coalesce(${plus}, '')`}`;
    return `select '${catalog}' as name, pg_catalog.md5(pg_catalog.string_agg(${text}, E'\\n' order by ${
      order ?? "o.oid"
    }))
      as hash from ${row} o where ${where ?? "true"}`;
  });
  const rows = await readRows(
    connection,
    "fingerprints",
    hashFormat,
    `with skipped_schema as materialized (
       select n.oid from pg_catalog.pg_namespace n
        where n.nspname ~ '^pg_(temp|toast)' or n.nspname = any ($1::text[])
     ), skipped as materialized (
       select c.oid from pg_catalog.pg_class c where c.relnamespace in (select s.oid from skipped_schema s)
     ) ${parts.join("\nunion all\n")}
     union all
     select 'grants of the system', pg_catalog.md5(pg_catalog.string_agg(o.oid || o.proacl::text, ',' order by o.oid))
       from pg_catalog.pg_proc o where o.oid < 16384 and o.proacl is not null
     union all
     select 'server', pg_catalog.current_setting('server_version_num')`,
    [arrayText(options.leaveOutSchemas)],
  );
  const text = rows.map((row) => `${row.name}=${row.hash ?? ""}`).join("\n") + (jobs ? await cronJobs(connection) : "");
  return await sha256(text);
}

const attributeRow = `(select a.attrelid, a.attname, a.atttypid, a.attstattarget, a.attnum, a.atttypmod, a.attstorage,
    a.attcompression, a.attnotnull, a.atthasdef, a.atthasmissing, a.attidentity, a.attgenerated, a.attisdropped,
    a.attislocal, a.attinhcount, a.attcollation, a.attacl, a.attoptions, a.attfdwoptions, a.attmissingval
  from pg_catalog.pg_attribute a)`;

async function cronJobs(connection: Connection): Promise<string> {
  const access = await cronAccess(connection);
  if (access === "absent" || access === "denied") return "";
  const rows = await connection.query(
    `select pg_catalog.md5(pg_catalog.string_agg(pg_catalog.to_jsonb(j)::text, E'\\n' order by j.jobid)) as hash
       from cron.job j
      -- ours, which come and go by themselves
      where coalesce(j.jobname::text, '') !~ '^holdfast-smoke-'`,
  );
  return `\ncron=${rows[0]?.["hash"] ?? ""}`;
}

/** Types whose text depends on rows of other catalogs: reg… names and access lists. */
const unstableTypes = [
  "regproc",
  "regprocedure",
  "regoper",
  "regoperator",
  "regclass",
  "regtype",
  "regconfig",
  "regdictionary",
  "regnamespace",
  "regrole",
  "regcollation",
  "aclitem",
];

/**
 * By table oid: a hash of what turns the table's stored bytes into COPY text, or null when that text may change without the table or
 * its types (a `reg…` or `aclitem` at any depth), so that an earlier chunk must never be taken over.
 */
export async function tableFingerprints(
  connection: Connection,
  options: CaptureOptions,
): Promise<ReadonlyMap<string, string | null>> {
  await refuseKeptSnapshot(connection);
  const rows = await readRows(
    connection,
    "table fingerprints",
    z.object({ oid: z.string(), unstable: z.boolean().nullable(), hash: z.string().nullable() }),
    `with recursive tables as materialized (
       select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'm') and c.oid >= 16384 and n.nspname !~ '^pg_(temp|toast)' and n.nspname <> all ($1::text[])
     ), columns as materialized (
       select a.* from pg_catalog.pg_attribute a join tables t on t.oid = a.attrelid where a.attnum > 0
     ), step(type, part) as (
       select t.oid, t.typbasetype from pg_catalog.pg_type t where t.typbasetype <> 0
       union all select t.oid, t.typelem from pg_catalog.pg_type t where t.typelem <> 0
       union all select r.rngtypid, r.rngsubtype from pg_catalog.pg_range r
       union all select r.rngmultitypid, r.rngtypid from pg_catalog.pg_range r
       union all select t.oid, a.atttypid from pg_catalog.pg_type t join pg_catalog.pg_attribute a on a.attrelid = t.typrelid
         where t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped
           and t.oid in (select x.oid from pg_catalog.pg_type x where x.oid >= 16384)
     ), reach(root, type) as (
       select distinct c.atttypid, c.atttypid from columns c where not c.attisdropped
       union select r.root, s.part from reach r join step s on s.type = r.type
     ), facts as materialized (
       select t.oid, t.typname = any ($2::text[]) and t.typnamespace = 'pg_catalog'::regnamespace as unstable,
              pg_catalog.concat_ws('|', t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typelem, t.typrelid, t.typdelim,
                t.typoutput::oid, (select p.prosrc || coalesce(p.probin, '') from pg_catalog.pg_proc p where p.oid = t.typoutput),
                (select pg_catalog.string_agg(e.oid || '=' || e.enumlabel, ',' order by e.oid)
                   from pg_catalog.pg_enum e where e.enumtypid = t.oid),
                (select pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod,
                     a.attisdropped, pg_catalog.md5(a.attmissingval::text)), ',' order by a.attnum)
                   from pg_catalog.pg_attribute a where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0),
                (select x.extname || ' ' || x.extversion from pg_catalog.pg_depend d
                   join pg_catalog.pg_extension x on x.oid = d.refobjid
                  where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')) as text
         from pg_catalog.pg_type t where t.oid in (select r.type from reach r)
     ), types as materialized (
       select r.root, bool_or(f.unstable) as unstable,
              pg_catalog.md5(pg_catalog.string_agg(f.text, E'\\n' order by f.oid)) as hash
         from reach r join facts f on f.oid = r.type group by r.root
     )
     select t.oid, bool_or(k.unstable) as unstable,
            pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws('|', c.attnum, c.attname, c.atttypid, c.atttypmod,
              c.attgenerated, c.attisdropped, c.atthasmissing, pg_catalog.md5(c.attmissingval::text), k.hash),
              E'\\n' order by c.attnum)
              || pg_catalog.current_setting('server_version_num') || pg_catalog.current_setting('server_encoding')) as hash
       from tables t left join columns c on c.attrelid = t.oid left join types k on k.root = c.atttypid
      group by t.oid`,
    [arrayText(options.leaveOutSchemas), arrayText(unstableTypes)],
  );
  return new Map(rows.map((row) => [row.oid, row.unstable === true ? null : row.hash ?? "no columns"]));
}

/** Also turns off the compiler of queries, which costs more than these queries do. */
async function refuseKeptSnapshot(connection: Connection): Promise<void> {
  await connection.execute("set jit = off");
  const rows = await connection.query("select pg_catalog.current_setting('transaction_isolation') as level");
  if (rows[0]?.["level"] !== "read committed") {
    throw new HoldfastError("internal", "a fingerprint was asked for inside a transaction that keeps its snapshot");
  }
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
