import { describe, expect, it } from "vitest";
import { parseArguments } from "../../src/cli/arguments.ts";
import { commandNames } from "../../src/cli/command_table.ts";
import { refuseSwallowedFlags } from "../../src/cli/npm_guard.ts";
import { HoldfastError } from "../../src/shared/errors.ts";

function failure(act: () => unknown): HoldfastError {
  try {
    act();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("the command line", () => {
  it("takes options with and without =, and words in any place", () => {
    const parsed = parseArguments(["verify", "--jobs=3", "latest", "--store", "file:///x", "--json"]);
    expect(parsed).toMatchObject({ command: "verify", words: ["latest"] });
    if ("help" in parsed) throw new Error("this is no question for help");
    expect([...parsed.flags]).toEqual(
      expect.arrayContaining([["jobs", "3"], ["store", "file:///x"], ["json", true]]),
    );
  });

  it("answers --help of a command whatever else is wrong with the line", () => {
    for (const command of commandNames) {
      expect(parseArguments([command, "--bogus", "--help"])).toEqual({ help: command });
    }
    expect(parseArguments([])).toEqual({ help: null });
  });

  it.each([
    [["frobnicate"], "no command"],
    [["list", "--bogus"], "--bogus"],
    [["list", "--limit"], "--limit"],
    [["list", "surplus"], "surplus"],
    [["verify"], "<id> is missing"],
    [["verify", "a", "b"], '"b"'],
    [["keygen", "--store", "file:///x"], "--store"],
  ])("refuses %j as a usage error that names what is wrong", (argv, named) => {
    const error = failure(() => parseArguments(argv));
    expect(error).toMatchObject({ code: "usage", exit: 2 });
    expect(error.message).toContain(named);
  });
});

describe("flags that npm kept", () => {
  const npm = (script: string, variables: Record<string, string>) => ({
    npm_lifecycle_event: script,
    ...Object.fromEntries(Object.entries(variables).map(([name, value]) => [`npm_config_${name}`, value])),
  });

  it.each([
    ["backup:list", [], { json: "true" }, "npm run -s backup:list -- --json"],
    ["backup:restore-full", ["latest"], { yes: "true" }, "npm run -s backup:restore-full -- latest --yes"],
    ["backup:create", [], { tier: "weekly" }, "npm run -s backup:create -- --tier weekly"],
    ["backup:create", ["4"], { jobs: "true" }, "npm run -s backup:create -- --jobs 4"],
    [
      "backup:create",
      ["4", "weekly"],
      { jobs: "true", tier: "true" },
      "npm run -s backup:create -- --tier <tier> --jobs <number>",
    ],
    ["backup:accept", ["1b9d"], { reason: "old events" }, "npm run -s backup:accept -- 1b9d --reason 'old events'"],
    ["backup:list", [], { db_url: "postgresql://me@h/d" }, "npm run -s backup:list -- --db-url postgresql://me@h/d"],
  ])("are refused for %s %j %j with the line that was meant", (script, argv, variables, line) => {
    const command = script.slice("backup:".length);
    const name = commandNames.find((each) => each === command);
    if (name === undefined) throw new Error(`no command ${command}`);
    const error = failure(() => refuseSwallowedFlags(name, argv, npm(script, variables), () => []));
    expect(error).toMatchObject({ code: "usage", exit: 2 });
    expect(error.hint.endsWith(`: ${line}`), error.hint).toBe(true);
  });

  it("are seen in npm's own words where they leave nothing in the environment: --local", () => {
    const environment = npm("backup:verify", { json: "true" });
    const words = ["run", "backup:verify", "latest", "--no-global", "--json"];
    const error = failure(() => refuseSwallowedFlags("verify", ["latest"], environment, () => words));
    expect(error).toMatchObject({ code: "usage", exit: 2, message: "npm kept --json and --local for itself" });
    expect(error.hint).toMatch(/: npm run -s backup:verify -- latest --json --local$/);
  });

  it("are seen where npm reads them as its own shorthands: --as and --apply", () => {
    const words = (...more: string[]) => ["run", "backup:restore-user", "u", "latest", ...more];
    const apply = ["--all", "--parseable", "--parseable", "--long", "--yes"];
    const environment = npm("backup:restore-user", { all: "true", yes: "true", parseable: "true", long: "true" });
    const error = failure(() =>
      refuseSwallowedFlags(
        "restore-user",
        ["u", "latest", "n", "missing"],
        environment,
        () => words("--all", "--loglevel", "silent", "n", ...apply, "missing"),
      )
    );
    expect(error).toMatchObject({ code: "usage", exit: 2, message: "npm kept --as and --apply for itself" });
    expect(error.hint).toMatch(/: npm run -s backup:restore-user -- u latest --as n --apply missing$/);
    const both = failure(() =>
      refuseSwallowedFlags(
        "restore-user",
        ["u", "latest", "merge"],
        environment,
        () => words(...apply, "merge", "--yes"),
      )
    );
    expect(both.message).toBe("npm kept --apply and --yes for itself");
  });

  it("are not looked for outside of npm run, where such variables are somebody's settings", () => {
    expect(() => refuseSwallowedFlags("list", [], { npm_config_json: "true" }, () => ["--no-global"])).not.toThrow();
    expect(() => refuseSwallowedFlags("list", [], npm("deploy", { json: "true" }), () => ["--no-global"])).not
      .toThrow();
  });

  it("are those of the command only: npm sets many variables of its own", () => {
    const environment = npm("backup:keygen", { user_agent: "npm/11", cache: "/c", yes: "true", noproxy: "" });
    expect(() => refuseSwallowedFlags("keygen", [], environment, () => ["run", "--loglevel", "silent"])).not.toThrow();
  });
});
