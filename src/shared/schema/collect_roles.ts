/** Roles without passwords, memberships, settings of roles and of the database. */
import { z } from "zod";
import { type Collector, type CollectorContext, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { settingName, settingValue, splitOption } from "./options.ts";
import { platformOfRole } from "./platform.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { ownPreRequest, preRequestSetting, readUnderMaintenance } from "./under_maintenance.ts";

export const collectRoles: Collector = async (context) => [
  ...(await roles(context)),
  ...(await memberships(context)),
  ...(await settings(context)),
  ...(await parameterGrants(context)),
];

async function roles({ connection, objects }: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    connection,
    "roles",
    z.object({
      oid: z.string(),
      name: z.string(),
      super: z.boolean(),
      inherit: z.boolean(),
      createRole: z.boolean(),
      createDb: z.boolean(),
      login: z.boolean(),
      replication: z.boolean(),
      bypassRls: z.boolean(),
      connectionLimit: z.number(),
      validUntil: z.string().nullable(),
    }),
    `select r.oid, r.rolname as name, r.rolsuper as super, r.rolinherit as inherit, r.rolcreaterole as "createRole",
            r.rolcreatedb as "createDb", r.rolcanlogin as login, r.rolreplication as replication,
            r.rolbypassrls as "bypassRls", r.rolconnlimit as "connectionLimit", r.rolvaliduntil::text as "validUntil"
       from pg_catalog.pg_roles r where r.rolname not like 'pg\\_%' order by r.rolname`,
  );
  return rows.filter((role) => objects.has(`pg_authid:${role.oid}`)).flatMap((role) => {
    const name = quoteIdent(role.name);
    const key = `pg_authid:${role.oid}`;
    const platform = platformOfRole(role.name);
    const attributes = [
      role.inherit ? "" : "noinherit",
      role.createRole ? "createrole" : "",
      role.createDb ? "createdb" : "",
      role.connectionLimit === -1 ? "" : `connection limit ${role.connectionLimit}`,
      role.validUntil === null ? "" : `valid until ${quoteLiteral(role.validUntil)}`,
    ].filter((text) => text !== "");
    const statements = [`create role ${name}`];
    if (attributes.length > 0) statements.push(`alter role ${name} ${attributes.join(" ")}`);
    if (role.super) statements.push(`alter role ${name} superuser`);
    if (role.replication) statements.push(`alter role ${name} replication`);
    if (role.bypassRls) statements.push(`alter role ${name} bypassrls`);
    const made = draft(key, "role", "roles", statements, { platform });
    if (!role.login) return [made];
    return [
      made,
      draft(`login:${role.oid}`, "login", "roles", [], {
        identity: `login of role ${name}`,
        held: "login",
        release: [`alter role ${name} login`],
        after: [key],
        platform,
      }),
    ];
  });
}

async function memberships({ connection }: CollectorContext): Promise<Draft[]> {
  const since16 = connection.serverVersion >= 160000;
  const rows = await readRows(
    connection,
    "role memberships",
    z.object({
      role: z.string(),
      member: z.string(),
      grantor: z.string(),
      grantorIsBootstrap: z.boolean(),
      admin: z.boolean(),
      inherit: z.boolean().nullable(),
      set: z.boolean().nullable(),
      roleOid: z.string(),
      memberOid: z.string(),
    }),
    `select r.rolname as role, u.rolname as member, g.rolname as grantor, g.oid = 10 as "grantorIsBootstrap",
            m.admin_option as admin, ${since16 ? "m.inherit_option" : "null::bool"} as inherit,
            ${since16 ? "m.set_option" : "null::bool"} as set, r.oid as "roleOid", u.oid as "memberOid"
       from pg_catalog.pg_auth_members m
       join pg_catalog.pg_roles r on r.oid = m.roleid
       join pg_catalog.pg_roles u on u.oid = m.member
       join pg_catalog.pg_roles g on g.oid = m.grantor
      where u.rolname not like 'pg\\_%'
      order by m.admin_option desc, r.rolname, u.rolname, g.rolname`,
  );
  return rows.map((row) => {
    const grant = `grant ${quoteIdent(row.role)} to ${quoteIdent(row.member)}`;
    const options = row.inherit === null
      ? row.admin ? " with admin option" : ""
      : ` with admin ${row.admin}, inherit ${row.inherit}, set ${row.set ?? true}`;
    const grantor = since16 && !row.grantorIsBootstrap ? ` granted by ${quoteIdent(row.grantor)}` : "";
    const both = platformOfRole(row.role, true) !== null && platformOfRole(row.member) !== null;
    const by = since16 ? ` by ${quoteIdent(row.grantor)}` : "";
    return draft(`membership:${row.roleOid}:${row.memberOid}:${row.grantor}`, "membership", "roles", [
      grant + options + grantor,
    ], {
      identity: `membership of ${quoteIdent(row.member)} in ${quoteIdent(row.role)}${by}`,
      after: [`pg_authid:${row.roleOid}`, `pg_authid:${row.memberOid}`],
      platform: both ? platformOfRole(row.member) : null,
    });
  });
}

/** `alter database` needs the target's own name, which only the target knows. */
export function onThisDatabase(before: string, after: string): string {
  const format = `${before.replaceAll("%", "%%")} database %I ${after.replaceAll("%", "%%")}`;
  const body = `begin execute pg_catalog.format(${quoteLiteral(format)}, pg_catalog.current_database()); end`;
  return `do ${quoteLiteral(body)}`;
}

async function settings(context: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    context.connection,
    "role and database settings",
    z.object({
      roleOid: z.string(),
      role: z.string().nullable(),
      inDatabase: z.boolean(),
      settings: z.array(z.string()),
    }),
    `select s.setrole as "roleOid", r.rolname as role, s.setdatabase <> 0 as "inDatabase", s.setconfig as settings
       from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole
      where s.setdatabase in (0, (select d.oid from pg_catalog.pg_database d
        where d.datname = pg_catalog.current_database()))
      order by r.rolname nulls first, s.setdatabase`,
  );
  const { preRequestBefore } = await readUnderMaintenance(context.connection);
  /** Maintenance mode's own setting is none of the user's: theirs is the one before. */
  const asBefore = (option: ReturnType<typeof splitOption>) =>
    option.name !== preRequestSetting || option.value !== ownPreRequest
      ? [option]
      : preRequestBefore === null
      ? []
      : [{ ...option, value: preRequestBefore }];
  return rows.flatMap((row) => {
    if (row.role === null && !row.inDatabase) {
      context.notCaptured.push({
        catalog: "pg_db_role_setting",
        identity: "settings of all roles",
        reason: "ALTER ROLE ALL ends a hosted server; set them by hand",
      });
      return [];
    }
    const role = row.role === null ? null : quoteIdent(row.role);
    const whose = role === null ? "database" : `role ${role}`;
    const options = row.settings.map(splitOption).flatMap(asBefore);
    for (const { name } of options.filter((option) => isCredential(option.name))) {
      context.notCaptured.push({
        catalog: "pg_db_role_setting",
        identity: `setting ${name} of ${whose}`,
        reason: "credentials are left out",
      });
    }
    const statements = options.filter((option) => !isCredential(option.name)).map(({ name, value }) => {
      const set = `set ${settingName(name)} to ${settingValue(name, value)}`;
      if (role === null) return onThisDatabase("alter", set);
      return row.inDatabase ? onThisDatabase(`alter role ${role} in`, set) : `alter role ${role} ${set}`;
    });
    const where = role !== null && row.inDatabase ? " in this database" : "";
    const key = `settings:${row.roleOid}:${row.inDatabase}`;
    return [draft(key, "settings", row.inDatabase ? "last" : "roles", statements, {
      identity: `settings of ${whose}${where}`,
      after: row.role === null ? [] : [`pg_authid:${row.roleOid}`],
      platform: row.role === null ? null : platformOfRole(row.role),
    })];
  });
}

/** Settings such as `app.settings.jwt_secret`, which a copy must not take over from its source. */
function isCredential(name: string): boolean {
  return name !== "password_encryption" && /secret|passw|token|credential|api_?key|private_?key/i.test(name);
}

/** GRANT SET ON PARAMETER is made of its grants alone, which the privileges of the definition hold. */
// deno-lint-ignore require-await
async function parameterGrants(context: CollectorContext): Promise<Draft[]> {
  return [...context.objects.values()].filter((object) => object.catalog === "pg_parameter_acl").flatMap((object) =>
    ownObject(context, object.catalog, object.oid) === undefined
      ? []
      : [draft(`pg_parameter_acl:${object.oid}`, "parameter", "roles", [])]
  );
}
