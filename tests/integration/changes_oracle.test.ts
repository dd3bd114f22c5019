/** Restores to random places of a random history, against what each commit left; `npm run soak:point` is the longer one. */
import { randomInt } from "node:crypto";
import { describe, expect, it } from "vitest";
import { soakPoint } from "../soak/point_soak.ts";
import { isLong } from "../support/sampled.ts";

const targets = isLong ? 12 : 4;

const variants = [
  { variant: "platform", where: "on PostgreSQL 15 as hosted" },
  { variant: "plain", where: "on a plain PostgreSQL 17" },
  { variant: "lists", where: "where not all tables may be published" },
] as const;

describe("a restore to a random place of a random history", () => {
  for (const { variant, where } of variants) {
    const seed = randomInt(1_000_000_000);
    it(`gives what that commit left, ${where}, seed ${seed}`, async () => {
      const lines: string[] = [];
      const result = await soakPoint({ variant, seed, targets, rounds: 4, say: (line) => lines.push(line) });
      expect(result.problems, lines.join("\n")).toEqual([]);
      expect(result.restored, "compared with what the source had").toBe(targets);
      const wanted = ["savepoints", "rolled back", "prepared", "truncates", "spooled", "parts"];
      for (const kind of variant === "lists" ? wanted : [...wanted, "ddl"]) {
        expect(result.counts[kind] ?? 0, `${kind} of the history`).toBeGreaterThan(0);
      }
    }, 170_000);
  }
});
