/** Triggers, event triggers and policies. */
import { z } from "zod";
import { type Collector, type CollectorContext, identityOf, ownObject } from "./collector.ts";
import { enabledWord } from "./collect_views.ts";
import { type Draft, draft } from "./draft.ts";
import { platformOf } from "./platform.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { type RoutineBody, webhookRoutines } from "./webhooks.ts";

export const collectTriggers: Collector = async (context) => [
  ...(await triggers(context)),
  ...(await eventTriggers(context)),
  ...(await policies(context)),
];

async function readBodies(context: CollectorContext): Promise<RoutineBody[]> {
  return await readRows(
    context.connection,
    "function bodies",
    z.object({ oid: z.string(), schema: z.string(), name: z.string(), body: z.string() }),
    `select p.oid, n.nspname as schema, p.proname as name,
            coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc, '') as body
       from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where p.oid >= 16384 and p.prokind in ('f', 'p')`,
  );
}

const triggers: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "triggers",
    z.object({
      oid: z.string(),
      name: z.string(),
      tableOid: z.string(),
      table: z.string(),
      tableKind: z.string(),
      function: z.string(),
      functionSchema: z.string(),
      functionOwner: z.string(),
      definition: z.string(),
      enabled: z.string(),
      parentEnabled: z.string().nullable(),
      parentOid: z.string(),
      constraint: z.string(),
    }),
    `select t.oid, t.tgname as name, t.tgrelid as "tableOid",
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as table,
            c.relkind as "tableKind", t.tgfoid as function, fn.nspname as "functionSchema",
            pg_catalog.pg_get_userbyid(f.proowner) as "functionOwner",
            pg_catalog.pg_get_triggerdef(t.oid) as definition, t.tgenabled as enabled,
            p.tgenabled as "parentEnabled", t.tgparentid as "parentOid",
            t.tgconstraint as constraint
       from pg_catalog.pg_trigger t
       join pg_catalog.pg_class c on c.oid = t.tgrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_proc f on f.oid = t.tgfoid
       join pg_catalog.pg_namespace fn on fn.oid = f.pronamespace
       left join pg_catalog.pg_trigger p on p.oid = t.tgparentid
      where t.oid >= 16384 and (not t.tgisinternal or t.tgenabled <> p.tgenabled)
      order by t.oid`,
  );
  await warnOfDisabledKeys(context);
  const webhooks = webhookRoutines(await readBodies(context));
  return rows.flatMap((row) => {
    if (ownObject(context, "pg_trigger", row.oid) === undefined) return [];
    const key = `pg_trigger:${row.oid}`;
    const table = `pg_class:${row.tableOid}`;
    const alter = `alter ${row.tableKind === "f" ? "foreign table" : "table"} only ${row.table}`;
    const webhook = webhooks.has(row.function);
    const state = enabledWord(row.enabled);
    if (row.parentOid !== "0") {
      // Comes with the parent's trigger; only its state can be its own.
      const own = row.enabled === row.parentEnabled
        ? []
        : [`${alter} ${state ?? "enable"} trigger ${quoteIdent(row.name)}`];
      const held = webhook && own.length > 0 ? "webhook" : null;
      return [draft(key, "partition trigger", "post-data", held === null ? own : [], {
        table,
        covers: [`pg_constraint:${row.constraint}`],
        after: [table, `pg_trigger:${row.parentOid}`, `attach:${row.tableOid}`],
        held,
        release: held === null ? [] : own,
      })];
    }
    const target = `trigger ${quoteIdent(row.name)}`;
    const here = row.tableKind === "v" ? null : row.tableKind === "p" ? `alter table ${row.table}` : alter;
    const held = webhook && row.enabled !== "D" && here !== null;
    return [draft(key, "trigger", "post-data", [
      row.definition,
      ...(held ? [`${here} disable ${target}`] : state === null || here === null ? [] : [`${here} ${state} ${target}`]),
    ], {
      table,
      after: [table],
      covers: [`pg_constraint:${row.constraint}`],
      held: held ? "webhook" : null,
      release: held ? [`${here} ${state ?? "enable"} ${target}`] : [],
      platform: triggerPlatform(context, table, row.functionSchema, row.functionOwner),
    })];
  });
};

/** A superuser can switch the triggers of a foreign key off, which no definition says. */
async function warnOfDisabledKeys({ connection, warnings, objects }: CollectorContext): Promise<void> {
  const rows = await connection.query(
    `select distinct 'pg_class:' || t.tgrelid as key from pg_catalog.pg_trigger t
      where t.tgisinternal and t.tgenabled <> 'O' order by 1`,
  );
  for (const row of rows) {
    const table = objects.get(row["key"] ?? "");
    if (table === undefined) continue;
    warnings.push(`foreign keys of table ${identityOf(table)} are switched off; in a copy they work`);
  }
}

/** A trigger on a platform's table is the platform's when its function is. */
function triggerPlatform(
  context: CollectorContext,
  table: string,
  functionSchema: string,
  functionOwner: string,
): string | null {
  const object = context.objects.get(table);
  if (object === undefined) return null;
  const service = platformOf(object);
  const byFunction = platformOf({ catalog: "pg_proc", schema: functionSchema, name: "", owner: functionOwner });
  return service !== null && byFunction !== null ? service : null;
}

const eventTriggers: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "event triggers",
    z.object({
      oid: z.string(),
      event: z.string(),
      tags: z.array(z.string()).nullable(),
      function: z.string(),
      enabled: z.string(),
    }),
    `select e.oid, e.evtevent as event, e.evttags as tags, e.evtfoid::regproc::text as function,
            e.evtenabled as enabled from pg_catalog.pg_event_trigger e where e.oid >= 16384`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_event_trigger", row.oid);
    if (object === undefined) return [];
    const name = identityOf(object);
    const tags = row.tags === null ? "" : ` when tag in (${row.tags.map(quoteLiteral).join(", ")})`;
    const state = enabledWord(row.enabled);
    return [draft(`pg_event_trigger:${row.oid}`, "event trigger", "last", [
      `create event trigger ${name} on ${row.event}${tags} execute function ${row.function}()`,
      ...(state === null ? [] : [`alter event trigger ${name} ${state}`]),
    ], { ownerWord: "event trigger" })];
  });
};

const policies: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "policies",
    z.object({
      oid: z.string(),
      name: z.string(),
      tableOid: z.string(),
      table: z.string(),
      command: z.string(),
      permissive: z.boolean(),
      roles: z.array(z.string().nullable()),
      using: z.string().nullable(),
      check: z.string().nullable(),
    }),
    `select p.oid, p.polname as name, p.polrelid as "tableOid",
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as table,
            p.polcmd as command, p.polpermissive as permissive,
            (select pg_catalog.json_agg(r.rolname order by u.at)
               from pg_catalog.unnest(p.polroles) with ordinality u(oid, at)
               left join pg_catalog.pg_roles r on r.oid = u.oid) as roles,
            pg_catalog.pg_get_expr(p.polqual, p.polrelid) as "using",
            pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as "check"
       from pg_catalog.pg_policy p
       join pg_catalog.pg_class c on c.oid = p.polrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace`,
  );
  const commands: Readonly<Record<string, string>> = { r: "select", a: "insert", w: "update", d: "delete" };
  const drafts: Draft[] = [];
  for (const row of rows) {
    if (ownObject(context, "pg_policy", row.oid) === undefined) continue;
    const command = commands[row.command];
    const everybody = row.roles.includes(null);
    const table = `pg_class:${row.tableOid}`;
    drafts.push(
      draft(`pg_policy:${row.oid}`, "policy", "post-data", [
        `create policy ${quoteIdent(row.name)} on ${row.table}` + (row.permissive ? "" : " as restrictive") +
        (command === undefined ? "" : ` for ${command}`) +
        (everybody ? "" : ` to ${row.roles.map((role) => quoteIdent(role ?? "")).join(", ")}`) +
        (row.using === null ? "" : ` using (${row.using})`) + (row.check === null ? "" : ` with check (${row.check})`),
      ], { table, after: [table], platform: null }),
    );
  }
  return drafts;
};
