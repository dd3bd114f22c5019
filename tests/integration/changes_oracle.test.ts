/** Restores to random places of a random history, against what each commit left; `npm run soak:point` is the longer one. */
import { randomInt } from "node:crypto";
import { describe, expect, it } from "vitest";
import { soakPoint } from "../soak/point_soak.ts";

const variants = [
  { variant: "platform", where: "on PostgreSQL 15 as hosted" },
  { variant: "plain", where: "on a plain PostgreSQL 17" },
  { variant: "lists", where: "where the role may not publish all tables" },
] as const;

describe("a restore to a random place of a random history", () => {
  it.each(variants)("gives what that commit left, $where", async ({ variant }) => {
    const seed = randomInt(1_000_000_000);
    const lines: string[] = [];
    const result = await soakPoint({ variant, seed, targets: 5, rounds: 4, say: (line) => lines.push(line) });
    expect(result.problems, `seed ${seed}\n${lines.join("\n")}`).toEqual([]);
    expect(result.restored).toBe(5);
    expect(result.counts).toMatchObject({ savepoints: expect.any(Number), "rolled back": expect.any(Number) });
  }, 170_000);
});
