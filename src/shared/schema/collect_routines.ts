/** Functions, procedures and aggregates. */
import { z } from "zod";
import { type Collector, ownObject } from "./collector.ts";
import { draft } from "./draft.ts";
import { quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";

export const collectRoutines: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "functions",
    z.object({
      oid: z.string(),
      kind: z.string(),
      definition: z.string(),
    }),
    `select p.oid, p.prokind as kind, pg_catalog.pg_get_functiondef(p.oid) as definition
       from pg_catalog.pg_proc p
      where p.prokind <> 'a' and p.oid >= 16384
        and not exists (select from pg_catalog.pg_depend m where m.deptype = 'e'
          and m.classid = 'pg_catalog.pg_proc'::regclass and m.objid = p.oid)`,
  );
  const routines = rows.flatMap((row) => {
    const object = ownObject(context, "pg_proc", row.oid);
    if (object === undefined) return [];
    const kind = row.kind === "p" ? "procedure" : "function";
    const definition = row.definition.trimEnd();
    return [draft(`pg_proc:${row.oid}`, kind, "pre-data", [definition], { ownerWord: kind })];
  });
  return [...routines, ...(await aggregates(context))];
};

const aggregates: Collector = async (context) => {
  const text = z.string().nullable();
  const rows = await readRows(
    context.connection,
    "aggregates",
    z.object({
      oid: z.string(),
      name: z.string(),
      arguments: z.string(),
      kind: z.string(),
      stateFunction: z.string(),
      stateType: z.string(),
      stateSpace: z.number(),
      initial: text,
      final: z.string(),
      finalExtra: z.boolean(),
      finalModify: z.string(),
      combine: z.string(),
      serial: z.string(),
      deserial: z.string(),
      movingState: z.string(),
      movingInverse: z.string(),
      movingType: text,
      movingSpace: z.number(),
      movingInitial: text,
      movingFinal: z.string(),
      movingFinalExtra: z.boolean(),
      movingFinalModify: z.string(),
      sortOperator: text,
      parallel: z.string(),
    }),
    `select p.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname) as name,
            pg_catalog.pg_get_function_arguments(p.oid) as arguments, a.aggkind as kind,
            a.aggtransfn::text as "stateFunction", pg_catalog.format_type(a.aggtranstype, null) as "stateType",
            a.aggtransspace as "stateSpace", a.agginitval as initial, a.aggfinalfn::text as final,
            a.aggfinalextra as "finalExtra", a.aggfinalmodify as "finalModify", a.aggcombinefn::text as combine,
            a.aggserialfn::text as serial, a.aggdeserialfn::text as deserial, a.aggmtransfn::text as "movingState",
            a.aggminvtransfn::text as "movingInverse",
            case when a.aggmtranstype <> 0 then pg_catalog.format_type(a.aggmtranstype, null) end as "movingType",
            a.aggmtransspace as "movingSpace", a.aggminitval as "movingInitial", a.aggmfinalfn::text as "movingFinal",
            a.aggmfinalextra as "movingFinalExtra", a.aggmfinalmodify as "movingFinalModify",
            (select pg_catalog.quote_ident(sn.nspname) || '.' || o.oprname from pg_catalog.pg_operator o
               join pg_catalog.pg_namespace sn on sn.oid = o.oprnamespace where o.oid = a.aggsortop) as "sortOperator",
            p.proparallel as parallel
       from pg_catalog.pg_aggregate a
       join pg_catalog.pg_proc p on p.oid = a.aggfnoid
       join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where p.oid >= 16384`,
  );
  const finalModes: Readonly<Record<string, string>> = { r: "read_only", s: "shareable", w: "read_write" };
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_proc", row.oid);
    if (object === undefined) return [];
    // An ordered-set aggregate's final function reads and writes its state unless told otherwise.
    const usual = row.kind === "n" ? "r" : "w";
    const details = [`sfunc = ${row.stateFunction}`, `stype = ${row.stateType}`];
    if (row.stateSpace !== 0) details.push(`sspace = ${row.stateSpace}`);
    if (row.initial !== null) details.push(`initcond = ${quoteLiteral(row.initial)}`);
    if (row.final !== "-") details.push(`finalfunc = ${row.final}`);
    if (row.finalExtra) details.push("finalfunc_extra");
    if (row.finalModify !== usual) details.push(`finalfunc_modify = ${finalModes[row.finalModify] ?? "read_only"}`);
    if (row.combine !== "-") details.push(`combinefunc = ${row.combine}`);
    if (row.serial !== "-") details.push(`serialfunc = ${row.serial}`);
    if (row.deserial !== "-") details.push(`deserialfunc = ${row.deserial}`);
    if (row.movingState !== "-") {
      details.push(`msfunc = ${row.movingState}`, `minvfunc = ${row.movingInverse}`);
      details.push(`mstype = ${row.movingType ?? row.stateType}`);
      if (row.movingSpace !== 0) details.push(`msspace = ${row.movingSpace}`);
      if (row.movingInitial !== null) details.push(`minitcond = ${quoteLiteral(row.movingInitial)}`);
      if (row.movingFinal !== "-") details.push(`mfinalfunc = ${row.movingFinal}`);
      if (row.movingFinalExtra) details.push("mfinalfunc_extra");
      if (row.movingFinalModify !== usual) {
        details.push(`mfinalfunc_modify = ${finalModes[row.movingFinalModify] ?? "read_only"}`);
      }
    }
    if (row.sortOperator !== null) details.push(`sortop = operator(${row.sortOperator})`);
    if (row.kind === "h") details.push("hypothetical");
    if (row.parallel !== "u") details.push(`parallel = ${row.parallel === "s" ? "safe" : "restricted"}`);
    const signature = `${row.name}(${row.arguments === "" ? "*" : row.arguments})`;
    return [draft(`pg_proc:${row.oid}`, "aggregate", "pre-data", [
      `create aggregate ${signature} (\n    ${details.join(",\n    ")}\n)`,
    ], { ownerWord: "routine" })];
  });
};
