/** Comments, security labels, column grants and DEPENDS ON EXTENSION, by the row they belong to. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { type Grant, grantsOf } from "./inventory.ts";
import { readRows } from "./read_rows.ts";
import { groupBy } from "./relations.ts";

const columnNoteFormat = z.object({ key: z.string(), column: z.string(), comment: z.string() });
const columnGrantFormat = z.object({
  key: z.string(),
  column: z.string(),
  acl: z.array(
    z.object({ grantor: z.string(), grantee: z.string().nullable(), privilege: z.string(), grantable: z.boolean() }),
  ),
});
const labelFormat = z.object({
  key: z.string(),
  column: z.string().nullable(),
  provider: z.string(),
  label: z.string(),
});
const dependsFormat = z.object({ key: z.string(), extension: z.string() });

export interface Remarks {
  readonly columnComments: ReadonlyMap<string, readonly { column: string; comment: string }[]>;
  readonly columnGrants: ReadonlyMap<string, readonly { column: string; acl: Grant[] }[]>;
  readonly labels: ReadonlyMap<string, readonly z.infer<typeof labelFormat>[]>;
  readonly dependsOnExtension: ReadonlyMap<string, readonly { extension: string }[]>;
}

export async function readRemarks(connection: Connection): Promise<Remarks> {
  const comments = await readRows(
    connection,
    "column comments",
    columnNoteFormat,
    `select 'pg_class:' || d.objoid as key, a.attname as column, d.description as comment
       from pg_catalog.pg_description d
       join pg_catalog.pg_attribute a on a.attrelid = d.objoid and a.attnum = d.objsubid
      where d.classoid = 'pg_catalog.pg_class'::regclass and d.objsubid > 0 and d.objoid >= 16384
      order by d.objoid, d.objsubid`,
  );
  const grants = await readRows(
    connection,
    "column grants",
    columnGrantFormat,
    `select 'pg_class:' || a.attrelid as key, a.attname as column, ${grantsOf("a.attacl")} as acl
       from pg_catalog.pg_attribute a
      where a.attacl is not null and a.attrelid >= 16384 and a.attnum > 0 and not a.attisdropped
      order by a.attrelid, a.attnum`,
  );
  const labels = await readRows(
    connection,
    "security labels",
    labelFormat,
    `select l.classoid::regclass::text || ':' || l.objoid as key, a.attname as column, l.provider, l.label
       from pg_catalog.pg_seclabel l
       left join pg_catalog.pg_attribute a on l.objsubid > 0 and a.attrelid = l.objoid and a.attnum = l.objsubid
     union all
     select s.classoid::regclass::text || ':' || s.objoid, null, s.provider, s.label from pg_catalog.pg_shseclabel s
     order by 1, 2, 3`,
  );
  const depends = await readRows(
    connection,
    "dependencies on extensions",
    dependsFormat,
    `select d.classid::regclass::text || ':' || d.objid as key, x.extname as extension
       from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
      where d.deptype = 'x' and d.refclassid = 'pg_catalog.pg_extension'::regclass order by 1, 2`,
  );
  return {
    columnComments: groupBy(comments, (row) => row.key),
    columnGrants: groupBy(grants, (row) => row.key),
    labels: groupBy(labels, (row) => row.key),
    dependsOnExtension: groupBy(depends, (row) => row.key),
  };
}
