/** Figures in the text format of Prometheus, held against a parser that was written from the format's own page. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, scalar, session } from "./cluster.ts";
import { wellWorld } from "./monitor_fixture.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const metricName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const labelName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const types = ["counter", "gauge", "histogram", "summary", "untyped"];

interface Parsed {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * The format's rules (version 0.0.4): line feeds end lines, the last one too; one HELP and one TYPE at most a name, TYPE before its
 * samples; all lines of a name in one group; label values escape backslash, quotation mark and line feed; a value as Go reads it;
 * each combination of name and labels once. Throws what is wrong.
 */
function parse(text: string): Parsed[] {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const samples: Parsed[] = [];
  const helped = new Set<string>();
  const typed = new Set<string>();
  const ended = new Set<string>();
  const keys = new Set<string>();
  let group = "";
  const enter = (name: string) => {
    if (name === group) return;
    if (ended.has(name)) throw new Error(`lines of ${name} stand apart`);
    if (group !== "") ended.add(group);
    group = name;
  };
  for (const line of text.slice(0, -1).split("\n")) {
    if (line === "") continue;
    const meta = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (meta !== null) {
      const [, kind, name = "", rest = ""] = meta;
      if (!metricName.test(name)) throw new Error(`no name: ${line}`);
      enter(name);
      const seen = kind === "HELP" ? helped : typed;
      if (seen.has(name)) throw new Error(`twice: ${line}`);
      seen.add(name);
      if (kind === "TYPE" && (!types.includes(rest) || samples.some((one) => one.name === name))) throw new Error(line);
      if (kind === "HELP" && /\\(?![\\n])/.test(rest)) throw new Error(`not escaped: ${line}`);
      continue;
    }
    if (line.startsWith("#")) continue;
    const { name, labels, rest } = readSample(line);
    enter(name);
    if (!typed.has(name)) throw new Error(`no type before: ${line}`);
    if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(NaN|[+-]?Inf)$/.test(rest)) throw new Error(`no value: ${line}`);
    const key = `${name}${JSON.stringify(Object.entries(labels).sort())}`;
    if (keys.has(key)) throw new Error(`twice: ${line}`);
    keys.add(key);
    samples.push({ name, labels, value: Number(rest) });
  }
  return samples;
}

function readSample(
  line: string,
): { readonly name: string; readonly labels: Record<string, string>; readonly rest: string } {
  const name = /^[^{\s]+/.exec(line)?.[0] ?? "";
  if (!metricName.test(name)) throw new Error(`no name: ${line}`);
  const labels: Record<string, string> = {};
  let at = name.length;
  if (line[at] === "{") {
    at++;
    while (line[at] !== "}") {
      const label = /^([^=]+)="((?:[^"\\]|\\[\\"n])*)"(,?)/.exec(line.slice(at));
      if (label === null) throw new Error(`no label at ${at}: ${line}`);
      const [whole, key = "", value = "", comma] = label;
      if (!labelName.test(key) || key in labels) throw new Error(`no label's name: ${line}`);
      labels[key] = value.replace(/\\([\\"n])/g, (_, sign: string) => sign === "n" ? "\n" : sign);
      at += whole.length;
      if (comma === "" && line[at] !== "}") throw new Error(`no comma: ${line}`);
    }
    at++;
  }
  if (line[at] !== " ") throw new Error(`no blank: ${line}`);
  return { name, labels, rest: line.slice(at + 1) };
}

const metrics = async () => await scalar(postgres, "select backup.metrics()") ?? "";

describe("the parser of this test", () => {
  it.each([
    ["# TYPE a gauge\na 1", "does not end"],
    ["# TYPE a gauge\n# TYPE b gauge\na 1\n", "stand apart"],
    ["# TYPE a gauge\na 1\na 1\n", "twice"],
    ['# TYPE a gauge\na{b="c} 1\n', "no label"],
    ["# TYPE a gauge\na one\n", "no value"],
    ["a 1\n", "no type"],
    ["# TYPE a fast\na 1\n", "# TYPE a fast"],
  ])("refuses %j", (text, why) => expect(() => parse(text)).toThrow(why));
});

describe("the metrics", () => {
  it("are in the text format, and tell what the rows say", async () => {
    await wellWorld(postgres, async () => {
      await postgres.query("update backup.settings set value = '1000' where name = 'primary_quota_bytes'");
      await postgres.query("select backup.pause_schedule('weekly', backup.clock_now() + interval '1 hour', 'why')");
      await postgres.query("select backup.raise_alert('test', 'subject', 'message', 'critical')");
      await postgres.query("select backup.tell_fact('clock:second', '{\"aheadSeconds\": -2.5}')");
      await postgres.query("select backup.look()");
      const samples = parse(await metrics());
      const value = (name: string, labels: Readonly<Record<string, string>> = {}) =>
        samples.find((one) => one.name === name && JSON.stringify(one.labels) === JSON.stringify(labels))?.value;
      expect(value("holdfast_verdict")).toBe(2);
      expect(value("holdfast_last_backup_timestamp_seconds")).toBe(Date.parse("2031-05-01T11:00:00Z") / 1000);
      expect(value("holdfast_recovery_point_age_seconds")).toBe(3_600);
      expect(value("holdfast_last_backup_duration_seconds")).toBe(300);
      expect(value("holdfast_last_backup_verified")).toBe(1);
      expect(value("holdfast_alerts", { severity: "critical" })).toBe(1);
      expect(value("holdfast_alerts_by_kind", { kind: "test", severity: "critical" })).toBe(1);
      expect(value("holdfast_store_quota_bytes", { store: "first" })).toBe(1_000);
      expect(value("holdfast_store_quota_bytes", { store: "second" }), "not set").toBeUndefined();
      expect(value("holdfast_schedule_paused", { schedule: "weekly" })).toBe(1);
      expect(value("holdfast_schedule_paused", { schedule: "daily" })).toBe(0);
      expect(value("holdfast_schedule_next_timestamp_seconds", { schedule: "daily" }))
        .toBe(Date.parse("2031-05-02T00:00:00Z") / 1000);
      expect(value("holdfast_clock_ahead_seconds", { clock: "second" })).toBe(-2.5);
      expect(value("holdfast_monitor_timestamp_seconds")).toBe(Date.parse("2031-05-01T12:00:00Z") / 1000);
      expect(samples.filter(({ name }) => name === "holdfast_schedule_paused").length).toBeGreaterThan(7);
      expect(samples.every(({ name }) => name.startsWith("holdfast_"))).toBe(true);
    });
  });

  it("hold nothing secret, nobody's name, and nothing that makes a line of its own", async () => {
    await wellWorld(postgres, async () => {
      await postgres.query("select backup.raise_alert('test', 'person@example.com', e'secret\\n\"}\\\\ 1', 'warning')");
      await postgres.query(
        "select backup.tell_stores('s3://first-bucket', 's3://second-bucket'); select backup.tell_keys('{k-secret-id}')",
      );
      await postgres.query(
        "insert into backup.told_facts (subject, facts) values (e'clock:a\"b\\\\c', '{\"aheadSeconds\": 1}')",
      );
      const text = await metrics();
      const samples = parse(text);
      expect(text).not.toMatch(/person@|secret|bucket|k-secret|https?:/);
      // As the rules for escaping want it, though no clock of ours is called so.
      expect(samples.find(({ name }) => name === "holdfast_clock_ahead_seconds")?.labels).toEqual({ clock: 'a"b\\c' });
    });
  });

  it("are there where there is nothing to tell", async () => {
    await wellWorld(postgres, async () => {
      await postgres.query("delete from backup.runs");
      const names = parse(await metrics()).map(({ name }) => name);
      expect(names).toContain("holdfast_verdict");
      expect(names).not.toContain("holdfast_last_backup_timestamp_seconds");
    });
  });
});
