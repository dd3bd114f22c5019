/** Cron expressions by the library: what it refuses never reaches the database. */
import { describe, expect, it } from "vitest";
import { checkCron } from "../../src/cli/cron.ts";

describe("a cron expression", () => {
  it.each([
    "* * * * *",
    "0 0 * * *",
    "*/15 * * * *",
    "5-50/20 4,22 * * *",
    "0 12 13 * 5",
    "30 3 * * 7",
    "5/10 * * * *",
  ])(
    "is taken: %s",
    (cron) => expect(() => checkCron(cron)).not.toThrow(),
  );

  it.each([
    "",
    "every day",
    "0 0 * *",
    "0 0 * * * *",
    "60 0 * * *",
    "0 24 * * *",
    "0 0 32 * *",
    "0 0 * 13 *",
    "0 0 * * 8",
  ])(
    "is refused, with what is wrong with it: %j",
    (cron) => {
      expect(() => checkCron(cron)).toThrow(expect.objectContaining({ code: "cron_refused", exit: 2 }));
    },
  );
});
