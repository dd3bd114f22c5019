/** Every SQL call about who a database is. */
import { HoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Identity } from "./judge.ts";

/** Errors: `schema_missing`. */
export async function readIdentity(connection: Connection): Promise<Identity> {
  const [row] = await connection.query(
    `select i.install_id, i.project_ref, i.present_ref, i.system_identifier, i.database_name, i.store_prefix, i.adopting,
       i.standing = 'copy' as is_copy, pg_catalog.to_char(i.adopted_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as adopted_at,
       c.system_identifier as server, pg_catalog.current_database() as database
     from backup.identity as i, pg_catalog.pg_control_system() as c`,
  );
  if (row === undefined) throw new HoldfastError("schema_missing", "schema backup has no identity");
  return {
    install: text(row, "install_id"),
    ref: row["project_ref"] ?? null,
    presentRef: row["present_ref"] ?? null,
    recorded: { systemIdentifier: text(row, "system_identifier"), database: text(row, "database_name") },
    present: { systemIdentifier: text(row, "server"), database: text(row, "database") },
    prefix: text(row, "store_prefix"),
    isCopy: row["is_copy"] === "t",
    adopting: row["adopting"] === "t",
    adoptedAt: row["adopted_at"] ?? null,
  };
}

/** Who a database is and where it writes, for people. Times in UTC, to the second. */
export interface Standing {
  readonly standing: "original" | "copy";
  readonly project: string | null;
  /** Where functions run now, if that is another project. */
  readonly runsIn: string | null;
  readonly systemIdentifier: string;
  readonly database: string;
  /** Below which it writes in its stores; '': at their top. */
  readonly prefix: string;
  readonly because: string | null;
  readonly since: string | null;
  readonly adopting: boolean;
  /** See `isOriginal`. */
  readonly isOriginal: boolean;
}

/** Errors: `schema_missing`. */
export async function readStanding(connection: Connection): Promise<Standing> {
  const [row] = await connection.query(
    `select i.standing, i.project_ref, i.present_ref, c.system_identifier, pg_catalog.current_database() as database,
       i.store_prefix, i.copied_because, i.adopting, backup.is_original() as original,
       pg_catalog.to_char(i.noticed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as since
     from backup.identity as i, pg_catalog.pg_control_system() as c`,
  );
  if (row === undefined) throw new HoldfastError("schema_missing", "schema backup has no identity");
  return {
    standing: row["standing"] === "copy" ? "copy" : "original",
    project: row["project_ref"] ?? null,
    runsIn: row["present_ref"] ?? null,
    systemIdentifier: text(row, "system_identifier"),
    database: text(row, "database"),
    prefix: text(row, "store_prefix"),
    because: row["copied_because"] ?? null,
    since: row["since"] ?? null,
    adopting: row["adopting"] === "t",
    isOriginal: row["original"] === "t",
  };
}

/** May this database prune, and tell people of more than itself? False for a copy until it is adopted. */
export async function isOriginal(connection: Connection): Promise<boolean> {
  const [row] = await connection.query("select backup.is_original() as yes");
  return row?.["yes"] === "t";
}

/** Where the backup of that id was written, below the stores' top; where this database writes now for one that it does not know. */
export async function prefixOfBackup(connection: Connection, id: string): Promise<string> {
  const [row] = await connection.query(
    `select coalesce((select r.store_prefix from backup.runs as r where r.id::text = $1), i.store_prefix) as prefix
     from backup.identity as i`,
    [id],
  );
  return row?.["prefix"] ?? "";
}

/** What this database has to do with claims at a place: the highest number that it held there, and whether one is due. */
export interface ClaimState {
  readonly held: number;
  readonly isDue: boolean;
  /** Here or elsewhere. */
  readonly hasClaimed: boolean;
  /** Here, since it took an original's place. */
  readonly hasAdopted: boolean;
}

export async function readClaimState(connection: Connection, store: string): Promise<ClaimState> {
  const [row] = await connection.query(
    `select coalesce(max(c.number) filter (where c.store = $1), 0) as held, count(*) > 0 as claimed,
       count(*) filter (where c.store = $1 and c.held_at >= i.adopted_at) > 0 as adopted, backup.claim_is_due($1) as due
     from backup.claims as c, backup.identity as i where c.held_at is not null`,
    [store],
  );
  return {
    held: Number(row?.["held"] ?? 0),
    hasClaimed: row?.["claimed"] === "t",
    hasAdopted: row?.["adopted"] === "t",
    isDue: row?.["due"] !== "f",
  };
}

/** Did this database make that claim, or was it about to? */
export async function isOurNonce(connection: Connection, nonce: string): Promise<boolean> {
  return (await connection.query("select from backup.claims as c where c.nonce = $1", [nonce])).length > 0;
}

/** The nonce to put, which is that of whoever was about to make the same claim before. */
export async function intendClaim(
  connection: Connection,
  claim: { readonly store: string; readonly number: number; readonly nonce: string },
): Promise<string> {
  const [row] = await connection.query("select backup.intend_claim($1, $2::bigint, $3) as nonce", [
    claim.store,
    String(claim.number),
    claim.nonce,
  ]);
  return text(row ?? {}, "nonce");
}

/** `adopts`: ids of the installs whose place it takes; null where it takes none. */
export async function holdClaim(
  connection: Connection,
  nonce: string,
  adopts: readonly string[] | null,
): Promise<void> {
  await connection.query("select backup.hold_claim($1, $2::boolean, $3::uuid[])", [
    nonce,
    String(adopts !== null),
    `{${(adopts ?? []).join(",")}}`,
  ]);
}

/** Nothing where another session has noticed it already. */
export async function becomeCopy(connection: Connection, foundPrefix: string, because: string): Promise<void> {
  await connection.query("select backup.become_copy($1, $2)", [foundPrefix, because]);
}

/** What a person has said. What it does, in a sentence. Errors: `run_state`, `confirmation_wrong` for another prefix. */
export async function adopt(connection: Connection, prefix: string, keepPrefix: boolean): Promise<string> {
  const [row] = await call(connection, "select backup.adopt($1, $2::boolean) as said", [prefix, String(keepPrefix)]);
  return text(row ?? {}, "said");
}

export async function refuseAdoption(connection: Connection, reason: string): Promise<void> {
  await connection.query("select backup.refuse_adoption($1)", [reason]);
}

/** Tells which project this is; null: nobody knows. */
export async function recognise(connection: Connection, projectRef: string | null): Promise<void> {
  if (projectRef !== null) await connection.query("select backup.recognise($1)", [projectRef]);
}

/** Is that where this database writes, with nobody having asked for another place meanwhile? */
export async function stillWritesTo(connection: Connection, prefix: string): Promise<boolean> {
  const rows = await connection.query(
    "select from backup.identity as i where i.store_prefix = $1 and not i.adopting",
    [prefix],
  );
  return rows.length > 0;
}
