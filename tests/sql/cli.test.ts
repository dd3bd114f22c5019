import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import type { Cluster } from "../../src/local/postgres.ts";
import { cli, installedCluster, session } from "./cluster.ts";

let cluster: Cluster;

beforeAll(async () => {
  cluster = await installedCluster();
});

const folder = fileURLToPath(new URL("../../supabase/migrations/", import.meta.url));

interface Finding {
  readonly level: string;
  readonly what: string;
}

describe("supabase db push", () => {
  it("does nothing the second time, and leaves a history of every migration", async () => {
    const again = cli(cluster, ["db", "push", "--yes", "--output-format", "json"]);
    expect(again.status, again.stderr).toBe(0);
    expect(`${again.stdout}${again.stderr}`).not.toMatch(/applying/i);
    const client = await session(cluster);
    try {
      const { rows } = await client.query("select version from supabase_migrations.schema_migrations order by version");
      const files = readdirSync(folder).filter((name) => name.endsWith(".sql")).sort();
      expect(rows.map((row) => row.version)).toEqual(files.map((name) => name.slice(0, 14)));
      expect(new Set(rows.map((row) => row.version)).size).toBe(files.length);
    } finally {
      await client.end();
    }
  });
});

describe("supabase db lint", () => {
  it("finds nothing in our functions, and would find it", async () => {
    // The CLI wants to install it; on a hosted project it may, here only the superuser can.
    const superuser = await session(cluster, "supabase_admin");
    const lint = () => {
      const result = cli(cluster, ["db", "lint", "--schema", "backup,public", "--output-format", "json"]);
      expect(result.status, result.stderr).toBe(0);
      return lintFindings(result.stdout);
    };
    try {
      await superuser.query("create extension if not exists plpgsql_check with schema extensions");
      expect(lint()).toEqual([]);
      await superuser.query(
        "create function backup.wrong() returns int language plpgsql as 'begin return missing from backup.runs; end'",
      );
      expect(lint()).toEqual([{ level: "error", what: expect.stringContaining("backup.wrong") }]);
    } finally {
      await superuser.query("drop function if exists backup.wrong()");
      await superuser.query("drop extension if exists plpgsql_check");
      await superuser.end();
    }
  });
});

function lintFindings(stdout: string): Finding[] {
  const document = JSON.parse(stdout) as {
    results: { function: string; issues: { level: string; message: string }[] }[];
  };
  return document.results.flatMap((one) =>
    one.issues.map((issue) => ({ level: issue.level, what: `${one.function}: ${issue.message}` }))
  );
}

const leftAdvice: Readonly<Record<string, string>> = {
  rls_enabled_no_policy: "no policy is the policy: nobody but the owner reads these tables",
  unused_index: "a new install has not used its indexes yet",
};

/**
 * What a project's own pre-request function sets of the search_path would be undone by a SET clause; what notes a session's
 * settings would see its own.
 */
const unpinned = /backup(_before_request|\.call_chained|\.note_session)\b/;

describe("supabase db advisors", () => {
  it("finds nothing of level WARN or ERROR on our objects, and INFO only where a reason is listed", () => {
    const result = cli(cluster, ["db", "advisors", "--level", "info", "--output-format", "json"]);
    expect(result.status, result.stderr).toBe(0);
    const document = JSON.parse(result.stdout) as {
      results: { name: string; level: string; detail: string; metadata?: { schema?: string; name?: string } }[];
    };
    const ours = document.results.filter(({ metadata, detail }) =>
      metadata?.schema === "backup" || metadata?.name?.startsWith("backup") || /\bbackup[._]|holdfast/.test(detail)
    );
    const warned = ours.filter((one) =>
      one.level !== "INFO" && !(one.name === "function_search_path_mutable" && unpinned.test(one.detail))
    );
    expect(warned.map((one) => `${one.level} ${one.name}: ${one.detail}`)).toEqual(
      [],
    );
    const advice = ours.filter((one) => one.level === "INFO");
    expect([...new Set(advice.map((one) => one.name))].filter((name) => !(name in leftAdvice))).toEqual([]);
    expect(ours.length, "the advisors saw our objects").toBeGreaterThan(0);
  });
});
