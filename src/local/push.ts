import { join } from "node:path";
import { root, runProgram } from "./child.ts";

/** Where `supabase db push` finds a database; a `Cluster` is one. */
export interface PushTarget {
  readonly host: string;
  readonly port: number;
  /** Certificate of the authority that signed the server's own (PEM). */
  readonly caFile: string;
  password(role: string): string;
}

/** `supabase db push` as a person would run it, with the password in the environment. Running it again does nothing. */
export async function pushMigrations(target: PushTarget, database = "postgres"): Promise<void> {
  const authority = encodeURIComponent(target.caFile);
  const address = `postgresql://postgres@${target.host}:${target.port}/${database}`;
  await runProgram(join(root, "node_modules/.bin/supabase"), [
    "db",
    "push",
    "--yes",
    `--remote=${address}?sslmode=verify-full&sslrootcert=${authority}`,
    "--output-format",
    "json",
  ], { PGPASSWORD: target.password("postgres"), SUPABASE_TELEMETRY_DISABLED: "1" });
}
