/** A replay asks its target what the source was asked: with the text of the functions that the migrations make. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { accessListsSql, describeTableSql } from "../../src/shared/changes/definitions/describe_sql.ts";

const folder = new URL("../../supabase/migrations/", import.meta.url);
const migrations = readdirSync(folder).map((name) => readFileSync(new URL(name, folder), "utf8")).join("\n");

function bodyOf(name: string): string {
  const start = migrations.indexOf(`create function backup.${name}(`);
  expect(start, name).toBeGreaterThan(0);
  const [, body] = migrations.slice(start).split("$$", 3);
  return body?.trim() ?? "";
}

describe("the questions about definitions", () => {
  it.each([["describe_table", describeTableSql], ["access_lists", accessListsSql]])(
    "%s: the same in the migrations and in the replay",
    (name, sql) => expect(sql.trim()).toBe(bodyOf(name)),
  );
});
