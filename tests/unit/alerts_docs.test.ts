/** docs/alerts.md lists every kind of alert that our SQL raises, and no other. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { channelNames } from "../../src/shared/alerts/notice.ts";
import { channelVariables } from "../../src/shared/alerts/variables.ts";
import { projectFiles, root } from "./project_files.ts";

const read = (path: string) => readFileSync(join(root, path), "utf8");
const page = read("docs/alerts.md");

/** Kinds that are not behind `raise_alert(`: of the registry of checks, and of the monitor's conditions. */
function registeredIn(source: string): string[] {
  return [
    ...[...source.matchAll(/\balert (?:=>|text not null default) '([a-z_]+)'/g)],
    ...[...source.matchAll(/\('see_[a-z]+', array\[([^\]]+)\]/g)].flatMap(([, kinds = ""]) => [
      ...kinds.matchAll(/'([a-z_]+)'/g),
    ]),
    ...[...source.matchAll(/\breturn query select look, '([a-z_]+)'/g)],
  ].map(([, kind = ""]) => kind);
}

/** Kinds behind `raise_alert(`, of a literal or of a `case` of literals; null where it is neither. */
function kindsIn(source: string): (string | null)[] {
  return [...source.matchAll(/\braise_alert\(\s*(case\b[\s\S]*?\bend\b|'([a-z_]+)'|[\s\S]{0,40})/g)]
    .filter(([whole]) => !/raise_alert\(\s*(kind text|text, text)/.test(whole))
    .filter(([, first = ""]) => !/^(registered\.alert|one\.kind)/.test(first))
    .flatMap(([, first = "", literal]) => {
      if (literal !== undefined) return [literal];
      const cases = [...first.matchAll(/(?:then|else) '([a-z_]+)'/g)].map(([, kind = ""]) => kind);
      return first.startsWith("case") && cases.length > 0 ? cases : [null];
    });
}

describe("docs/alerts.md", () => {
  const sql = readdirSync(join(root, "supabase/migrations")).map((name) => read(`supabase/migrations/${name}`));
  const typescript = projectFiles().filter((path) => /^src\/.*\.ts$/.test(path)).map(read);
  const raised = [...[...sql, ...typescript].flatMap(kindsIn), ...sql.flatMap(registeredIn)];

  it("has every kind, with its severity, and no other", () => {
    expect(raised.length).toBeGreaterThan(30);
    const kinds = [...new Set(raised)].sort();
    const listed = [...page.matchAll(/^- `([a-z_]+)` \(([^)]+)\): \S/gm)];
    expect(listed.map(([, kind]) => kind).sort()).toEqual(kinds);
    for (const [, kind, severity] of listed) expect(severity, kind).toMatch(/^(critical|warning|information)\b/);
  });

  it("names every channel with the variables that set it up", () => {
    const rows = page.split("\n").filter((line) => /^\| `/.test(line)).join("\n");
    for (const name of channelNames) expect(rows).toContain(`| \`${name}\``);
    for (const variable of Object.values(channelVariables)) expect(page).toContain(variable);
  });
});
