/** What a plan knows of the database that a backup is restored into. */

/** `project`: a Supabase project, whose own auth and storage take the rows. `bare`: any other PostgreSQL. */
export type TargetKind = "project" | "bare";

/** Schemas of a hosted project; what is in them is the platform's and does not make a project non-empty. */
export const platformSchemas: readonly string[] = [
  "auth",
  "cron",
  "extensions",
  "graphql",
  "graphql_public",
  "net",
  "pgbouncer",
  "pgsodium",
  "pgsodium_masks",
  "realtime",
  "storage",
  "supabase_functions",
  "vault",
  "_analytics",
  "_realtime",
];

/** Our own schema of the installed product and the one a restore keeps its place in. Never restored, never in the way. */
export const ownSchema = "backup";
export const stateSchema = "holdfast";

/** Most obstacles that are named; all are counted. */
export const maxObstacleNames = 20;

export interface TargetRole {
  readonly name: string;
  readonly superuser: boolean;
  /** May the restoring role act as it, or give itself that right? */
  readonly reachable: boolean;
}

export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly { readonly name: string; readonly generated: boolean }[];
  /** May the restoring role insert? */
  readonly writable: boolean;
}

/** What a backup asks of its target; the facts answer it. */
export interface TargetNeeds {
  readonly extensions: readonly { readonly name: string; readonly schema: string }[];
  readonly eventTriggers: boolean;
  readonly allTables: boolean;
  /** Statements that set something for a role or the database, with the role; null for the database. */
  readonly settings: readonly { readonly statement: string; readonly role: string | null }[];
  /** Tables of the platform's services that rows would go into. */
  readonly rowsInto: readonly { readonly schema: string; readonly name: string }[];
}

/** Plain JSON: it is kept in the target while a restore is under way, so that a resumed one plans the same. */
export interface TargetFacts {
  readonly kind: TargetKind;
  readonly serverVersion: number;
  readonly systemIdentifier: string;
  readonly database: string;
  readonly databaseOid: string;
  readonly encoding: string;
  readonly user: string;
  readonly superuser: boolean;
  readonly roles: readonly TargetRole[];
  readonly schemas: readonly string[];
  readonly extensions: {
    readonly installed: readonly string[];
    /** Those of the backup that cannot be created here, with the reason. */
    readonly refused: readonly { readonly name: string; readonly reason: string }[];
  };
  readonly publications: readonly { readonly name: string; readonly ours: boolean; readonly empty: boolean }[];
  readonly eventTriggers: readonly string[];
  readonly eventTriggersAllowed: boolean;
  readonly subscriptionsAllowed: boolean;
  /** Publications of all tables or of a schema's: a superuser's on plain PostgreSQL, anybody's on a hosted project. */
  readonly allTablesAllowed: boolean;
  /** Those of the backup's settings that the restoring role may not make; empty for a superuser. */
  readonly refusedSettings: readonly string[];
  /** Statements that take back the restoring role's own default privileges, so that objects get the captured grants only. */
  readonly neutralDefaults: readonly string[];
  /** Sequences of the platform's schemas; empty for a bare PostgreSQL. */
  readonly sequences: readonly { readonly schema: string; readonly name: string; readonly writable: boolean }[];
  /** Tables of the platform's schemas; empty for a bare PostgreSQL. */
  readonly tables: readonly TargetTable[];
  readonly obstacles: { readonly count: number; readonly names: readonly string[] };
}
