/** The short form of `npm run soak:quarter`: a week over the beginning of a quarter, with two faults. */
import { expect, it } from "vitest";
import { shortFaults } from "../soak/quarter_faults.ts";
import { soakQuarter } from "../soak/quarter_soak.ts";

it("a week with its clock moved keeps its calendar, tells each of its faults once, and nothing else", async () => {
  const seed = 1 + Math.floor(Math.random() * 1_000_000);
  const told: string[] = [`seed ${seed}`];
  const say = (line: string) => void told.push(line);
  const { problems, runs } = await soakQuarter({
    preset: "short",
    seed,
    days: 7,
    faults: shortFaults,
    drainsEachHour: false,
    say,
  });
  expect(problems, told.join("\n")).toEqual([]);
  expect(runs).toBeGreaterThan(30);
}, 300_000);
