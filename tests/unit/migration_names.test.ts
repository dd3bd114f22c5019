import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const names = readdirSync(new URL("../../supabase/migrations/", import.meta.url)).sort();

describe("the migrations", () => {
  it("carry Holdfast's name, by which a restore tells their records from the user's own", () => {
    expect(names.length).toBeGreaterThan(5);
    expect(names.filter((name) => !/^\d{14}_holdfast_[a-z]+\.sql$/.test(name))).toEqual([]);
  });

  it("end with the record of what was installed, which nothing may follow", () => {
    const folder = new URL("../../supabase/migrations/", import.meta.url);
    const recording = names.filter((name) =>
      /^ +perform backup\.record_install\(\);$/m.test(readFileSync(new URL(name, folder), "utf8"))
    );
    expect(recording).toEqual(names.slice(-1));
    expect(readFileSync(new URL(names.at(-1) ?? "", folder), "utf8").trim()).toMatch(
      /perform backup\.record_install\(\);\nend\n\$\$;$/,
    );
  });

  it("have a version each, since the Supabase CLI skips an equal one in silence", () => {
    expect(new Set(names.map((name) => name.slice(0, 14))).size).toBe(names.length);
  });
});
