/** How a restore of rows begins: where it goes, its record, and what an earlier try left. */
import { beginRestore, type BegunRestore, claimRestore, type RestoreRequest } from "../jobs/restore_queries.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { quoteQualified } from "../schema/quote.ts";
import { keepTries } from "./apply/done_counts.ts";

/** What the target is, read from it. */
export interface TargetIdentity {
  readonly database: string;
  readonly systemIdentifier: string;
  /** Holdfast is installed there, so that restores are recorded. */
  readonly installed: boolean;
}

export interface WorkRequest extends Pick<RestoreRequest, "scope" | "mode" | "sourceBackup" | "pointAt" | "userId"> {
  /** SHA-256 of what was asked for: one that was broken off while it applied is gone on with by the same request. */
  readonly digest: string;
}

const leaseSeconds = 90;

/** Errors: `run_state` while another restore in place is at work, the same request's too. */
export async function beginOrGoOn(
  records: Connection,
  target: Database,
  { digest, ...request }: WorkRequest,
): Promise<BegunRestore & { readonly goesOn: boolean }> {
  const [broken] = request.mode === "beside" ? [] : await records.query(
    `select r.id, r.side_schema from backup.restores as r
      where r.state ->> 'digest' = $1 and r.mode = $2 and r.side_schema is not null
        and (r.status in ('planned', 'loading', 'applying')
          or (r.status in ('failed', 'cancelled') and r.stage = 'applying'))
        and r.side_dropped_at is null and (r.lease_until is null or r.lease_until < backup.clock_now())
        -- else what it left half-way is no more
        and (r.finished_at is null or not exists (select from backup.restores as s
          where s.scope = 'full' and s.mode = 'replace' and s.target_is_here and s.status = 'succeeded'
            and s.finished_at > r.started_at))
      order by r.started_at desc limit 1`,
    [digest, request.mode],
  );
  const id = broken?.["id"] ?? null;
  const lease = id === null ? null : await claimRestore(records, id, { worker: "cli", leaseSeconds, resume: true });
  if (lease !== null) await endSessions(records, sessionName(broken?.["side_schema"] ?? ""));
  if (lease !== null) return { ...lease, sideSchema: broken?.["side_schema"] ?? null, goesOn: true };
  const begun = await beginRestore(records, {
    ...request,
    side: true,
    state: { digest },
    targetLabel: target.label,
    targetIsHere: true,
    worker: "cli",
    leaseSeconds,
  });
  return { ...begun, goesOn: false };
}

/** Of the session that works on the rows of that side schema, where it has been given a name of its own. */
export function sessionName(sideSchema: string): string {
  return `holdfast:${sideSchema}`;
}

/** Ends sessions of this role that have the name, and waits for their end: who took over is alone. */
export async function endSessions(records: Connection, name: string): Promise<void> {
  await records.query(
    `select pg_catalog.pg_terminate_backend(a.pid, 5000) from pg_catalog.pg_stat_activity as a
      where a.application_name = $1 and a.datname = pg_catalog.current_database() and a.usename = current_user`,
    [name],
  );
}

/** What is loaded and computed again goes; what earlier tries did, and rows as they were before it, stays. */
export async function clearSide(connection: Connection, schema: string): Promise<void> {
  await keepTries(connection, schema);
  const rows = await connection.query(
    `select c.relname from pg_catalog.pg_class as c
      where c.relnamespace = pg_catalog.to_regnamespace($1) and c.relkind = 'r' and c.relname not like 'holdfast % of try %'`,
    [schema],
  );
  for (const { relname } of rows) await connection.execute(`drop table ${quoteQualified(schema, relname ?? "")}`);
}

/** Errors: those of the connection. */
export async function readIdentity(connection: Connection): Promise<TargetIdentity> {
  const [row] = await connection.query(
    `select pg_catalog.current_database() as database, s.system_identifier,
            pg_catalog.to_regclass('backup.restores') is not null as installed
       from pg_catalog.pg_control_system() as s`,
  );
  return {
    database: row?.["database"] ?? "",
    systemIdentifier: row?.["system_identifier"] ?? "",
    installed: row?.["installed"] === "t",
  };
}
