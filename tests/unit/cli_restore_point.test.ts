import { describe, expect, it } from "vitest";
import { parseArguments } from "../../src/cli/arguments.ts";
import { pointOf } from "../../src/cli/commands/restore_point.ts";
import { Settings } from "../../src/cli/settings.ts";
import { parseTableNames } from "../../src/cli/table_names.ts";
import { HoldfastError } from "../../src/shared/errors.ts";

/** As a person types it. */
function given(...argv: string[]) {
  const parsed = parseArguments(["restore-point", ...argv]);
  if ("help" in parsed) throw new Error("this is no question for help");
  return { words: parsed.words, settings: new Settings(parsed.flags, () => undefined) };
}

function failure(act: () => unknown): HoldfastError {
  try {
    act();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("the point of restore-point", () => {
  it.each([
    [["2024-01-09T12:00:00Z"], { by: "time", at: 1_704_801_600_000_000n }],
    [["2024-01-09T14:00:00.000001+02:00"], { by: "time", at: 1_704_801_600_000_001n }],
    [["16/B374D848"], { by: "lsn", lsn: 0x16b374d848n }],
    [["latest"], { by: "end" }],
    [["--before-xid", "8589934592"], { by: "before_xid", xid: 8_589_934_592n }],
  ])("is read from %j", (argv, point) => {
    const { words, settings } = given(...argv);
    expect(pointOf(words, settings)).toEqual(point);
  });

  it.each([
    [[], "no moment"],
    [["latest", "--before-xid", "7"], "a moment and --before-xid"],
    [["--before-xid", "0x7"], "--before-xid"],
    [["--before-xid=-7"], "--before-xid"],
    [["yesterday"], "yesterday"],
    [["2024-02-30T12:00:00Z"], "no such day"],
    [["2024-01-09 12:00:00"], "no time zone"],
  ])("is a usage error for %j", (argv, named) => {
    const { words, settings } = given(...argv);
    const error = failure(() => pointOf(words, settings));
    expect(error).toMatchObject({ code: "usage", exit: 2 });
    expect(error.message).toContain(named);
  });
});

describe("tables on the command line", () => {
  it("are taken from several flags and from commas, each once", () => {
    const { settings } = given(
      "latest",
      "--without-table",
      "app.notes, app.Lines",
      "--without-table",
      '"App"."a,b ""c"""',
      "--without-table=app.notes",
    );
    expect(parseTableNames(settings.get("without-table"), "without-table")).toEqual([
      "app.notes",
      "app.lines",
      '"App"."a,b ""c"""',
    ]);
    expect(parseTableNames(settings.get("at-full"), "at-full")).toEqual([]);
  });

  it("are named as the change stream names them: quoted only where it is needed", () => {
    expect(parseTableNames('"app"."notes",app.Select', "at-full")).toEqual(["app.notes", 'app."select"']);
  });

  it.each(["notes", "a.b.c", 'app."notes', "app.", ",", "app.no tes", ""])("are refused as usage: %j", (text) => {
    expect(failure(() => parseTableNames(text, "at-full"))).toMatchObject({ code: "usage", exit: 2 });
  });
});
