/** Definitions of other kinds that ALTER leads to: enums, domains, sequences, publications, settings. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { typeName } from "./identity_names.ts";
import { isRemark } from "./remark_changes.ts";
import { findWord, splitAtCommas, type Token, tokensOf } from "./sql_text.ts";

export type TextChange =
  | {
    readonly kind: "alter";
    readonly before: readonly string[];
    readonly after: readonly string[];
    readonly otherwise?: readonly string[];
  }
  /** To be dropped and made again. */
  | { readonly kind: "remake" }
  | { readonly kind: "keep" | "refuse"; readonly reason: string };

const remake: TextChange = { kind: "remake" };

export interface TextChangeOptions {
  readonly dropExtra: boolean;
  /** Is an enum known to be the very one that it was, not another one of its name? */
  readonly isSameType: boolean;
}

/** `is` has the same identity and kind; only remarks may be equal. Remarks are left to the caller where it alters. */
export function textChange(was: Definition, is: Definition, options: TextChangeOptions): TextChange {
  switch (was.kind) {
    case "schema":
    case "extension":
      return alter([]);
    case "function":
    case "procedure":
      return routineChange(was, is);
    case "sequence":
      return sequenceChange(was, is);
    case "identity":
      return identityChange(was, is);
    case "enum":
      return enumChange(was, is, options);
    case "domain":
      return domainChange(was, is);
    case "default":
      return alter(main(was));
    case "publication":
      return publicationChange(was, is);
    case "statistics":
      return statisticsChange(was, is);
    case "publication table":
      return inAnyOrder(main(was)[0] ?? "") === inAnyOrder(main(is)[0] ?? "") ? alter([]) : remake;
    case "row security":
    case "index marks":
      return remake;
    case "settings":
      return settingsChange(was, is);
    case "database":
      return alter(main(was).filter((text) => !is.statements.includes(text)));
    case "role":
    case "membership":
      return { kind: "keep", reason: "roles belong to the whole server and stay as they are" };
    case "subscription":
      return { kind: "keep", reason: "subscriptions are compared only: their connection is in no backup" };
    case "composite type":
      return compositeChange(was, is);
    default:
      return remake;
  }
}

const alter = (before: readonly string[], after: readonly string[] = []): TextChange => ({
  kind: "alter",
  before,
  after,
});

function main(one: Definition): string[] {
  return one.statements.filter((text) => !isRemark(text));
}

/** With its list of columns sorted: the server writes it in the order of the table, where one may come last now. */
function inAnyOrder(text: string): string {
  const statistics = /^(CREATE STATISTICS [\s\S]+? ON )([\s\S]+)( FROM [\s\S]+)$/.exec(text);
  const published = /^(alter publication [\s\S]+? add table only [^(]+ \()([^)]+)(\)[\s\S]*)$/.exec(text);
  const [, head, list, tail] = statistics ?? (published?.[1]?.endsWith(" where (") === true ? null : published) ?? [];
  return list === undefined ? text : `${head}${splitAtCommas(list).sort().join(", ")}${tail}`;
}

/** How many values are kept is a statement of its own, where somebody set it. */
function statisticsChange(was: Definition, is: Definition): TextChange {
  const [wanted = "", ...target] = main(was);
  const [present = "", set] = main(is);
  if (inAnyOrder(wanted) !== inAnyOrder(present)) return remake;
  return alter(
    target.length > 0 || set === undefined ? target : [set.replace(/ set statistics \d+$/, " set statistics -1")],
  );
}

/** CREATE OR REPLACE keeps what stands on it, where arguments and result are as they were. */
function routineChange(was: Definition, is: Definition): TextChange {
  const head = (one: Definition) => {
    const text = main(one).find((statement) => statement.startsWith("CREATE OR REPLACE ")) ?? "";
    return text.slice(0, text.indexOf("\n LANGUAGE "));
  };
  const standsOnRelations = is.dependsOn.some((identity) =>
    /^(?:table|view|materialized view|foreign table) /.test(identity)
  );
  return head(was) === head(is) && !standsOnRelations ? alter(main(was)) : remake;
}

function sequenceChange(was: Definition, is: Definition): TextChange {
  const pattern = /^create (unlogged )?sequence ([\s\S]+) as ([\s\S]+)$/;
  const [, unlogged, name, options] = pattern.exec(main(was)[0] ?? "") ?? [];
  const [, wasUnlogged, , present] = pattern.exec(main(is)[0] ?? "") ?? [];
  if (name === undefined || options === undefined || present === undefined) return remake;
  const logging = unlogged === wasUnlogged
    ? []
    : [`alter sequence ${name} set ${unlogged === undefined ? "logged" : "unlogged"}`];
  const change = `alter sequence ${name} as ${options}`;
  return {
    kind: "alter",
    before: [...logging, ...(options === present ? [] : [change])],
    after: [],
    // The present value lies outside of the range that it had; the value comes back with the rows.
    otherwise: options === present ? [] : [...logging, `${change} restart`],
  };
}

function identityChange(was: Definition, is: Definition): TextChange {
  const pattern =
    /^(alter table [\s\S]+ alter column (?:"(?:[^"]|"")+"|\S+)) add generated (always|by default) as identity \(sequence name ((?:"(?:[^"]|"")+"|[^\s."]+)\.(?:"(?:[^"]|"")+"|[^\s"]+)) ([\s\S]+)\)$/;
  const [, target, mode, name, options] = pattern.exec(main(was)[0] ?? "") ?? [];
  const [, otherTarget, otherMode, , present] = pattern.exec(main(is)[0] ?? "") ?? [];
  if (target === undefined || options === undefined || target !== otherTarget) return remake;
  const changeMode = mode === otherMode ? [] : [`${target} set generated ${mode}`];
  const persistence = main(was).slice(1).filter((text) => !is.statements.includes(text));
  const logged = main(is).slice(1).length > 0 && main(was).length === 1 ? [`alter sequence ${name} set logged`] : [];
  const change = options === present ? [] : [`alter sequence ${name} ${options}`];
  return {
    kind: "alter",
    before: [...changeMode, ...persistence, ...logged, ...change],
    after: [],
    otherwise: change.length === 0
      ? []
      : [...changeMode, ...persistence, ...logged, ...change.map((text) => `${text} restart`)],
  };
}

/** The labels as literals, in their order. */
function enumLabels(one: Definition): string[] {
  const text = main(one)[0] ?? "";
  return splitAtCommas(text.slice(text.indexOf(" as enum (") + " as enum (".length, -1));
}

/** Labels are renamed or added; one that came after the backup stays, since PostgreSQL drops none. */
function enumChange(was: Definition, is: Definition, { dropExtra, isSameType }: TextChangeOptions): TextChange {
  const name = typeName(is.identity);
  const wanted = enumLabels(was);
  const present = enumLabels(is);
  if (wanted.join() === present.join()) return alter([]);
  // Of another type of this name, which may have another meaning for each of its labels, none is renamed.
  if (isSameType && wanted.length === present.length) {
    const pairs = wanted.flatMap((label, index) =>
      label === present[index] ? [] : [[present[index] ?? "", label] as const]
    );
    const isRenaming = pairs.every(([from, to]) => !wanted.includes(from) && !present.includes(to));
    if (isRenaming) return alter(pairs.map(([from, to]) => `alter type ${name} rename value ${from} to ${to}`));
  }
  const extra = present.filter((label) => !wanted.includes(label));
  const common = present.filter((label) => wanted.includes(label));
  // Columns are converted to a new type; a label that came since has no place there.
  if (wanted.filter((label) => present.includes(label)).join() !== common.join()) return remake;
  if (extra.length > 0 && (dropExtra || (!isSameType && common.length < wanted.length))) return remake;
  if (common.length < wanted.length) {
    let before: string | undefined;
    return alter(wanted.flatMap((label) => {
      const place = before === undefined
        ? (present[0] === undefined ? "" : ` before ${present[0]}`)
        : ` after ${before}`;
      before = label;
      return present.includes(label) ? [] : [`alter type ${name} add value if not exists ${label}${place}`];
    }));
  }
  const what = extra.length === 1 ? "a label came after the backup and stays" : "labels came after the backup and stay";
  return { kind: "keep", reason: `${what}: PostgreSQL takes none back` };
}

/** Labels of an enum and attributes of a composite type that came since: values of a table may have them. */
export function valuesLost(was: Definition, is: Definition): string[] {
  if (is.kind === "enum") return enumLabels(is).filter((label) => !enumLabels(was).includes(label));
  if (is.kind !== "composite type") return [];
  const wanted = attributesOf(was);
  return [...attributesOf(is)].filter(([name, text]) => wanted.get(name) !== text).map(([name]) => name);
}

function attributesOf(one: Definition): Map<string, string> {
  const text = main(one)[0] ?? "";
  const list = splitAtCommas(text.slice(text.indexOf(" as (") + " as (".length, -1));
  return new Map(list.map((attribute) => [tokensOf(attribute)[0]?.text ?? "", attribute]));
}

/** Attributes go and come at the end; a value that is there loses or gets them. */
function compositeChange(was: Definition, is: Definition): TextChange {
  const [wanted, present] = [attributesOf(was), attributesOf(is)];
  const stays = [...present.keys()].filter((name) => wanted.has(name));
  const isMoved =
    [...stays, ...[...wanted.keys()].filter((name) => !present.has(name))].join() !== [...wanted.keys()].join();
  if (isMoved || stays.some((name) => wanted.get(name) !== present.get(name))) return remake;
  const name = `alter type ${typeName(is.identity)}`;
  return alter([
    ...[...present.keys()].filter((one) => !wanted.has(one)).map((one) => `${name} drop attribute ${one}`),
    ...[...wanted].filter(([one]) => !present.has(one)).map(([, text]) => `${name} add attribute ${text}`),
  ]);
}

const domainWords = new Set(["collate", "default", "not", "constraint"]);

interface DomainText {
  /** Name, base type and collation. */
  readonly head: string;
  readonly default: string | null;
  readonly notNull: boolean;
  /** Name to text. */
  readonly constraints: ReadonlyMap<string, string>;
}

function readDomain(text: string): DomainText {
  const tokens = tokensOf(text);
  const piece = (from: Token | undefined, to: Token | undefined) =>
    text.slice(from?.start ?? text.length, to?.start).trim();
  let at = findWord(tokens, domainWords, 1);
  if (tokens[at]?.text === "collate") at = findWord(tokens, domainWords, at + 1);
  const head = piece(tokens[0], tokens[at]);
  let given: string | null = null;
  let notNull = false;
  const constraints = new Map<string, string>();
  while (at < tokens.length) {
    const end = findWord(tokens, domainWords, at + 1);
    const word = tokens[at]?.text;
    if (word === "default") given = piece(tokens[at + 1], tokens[end]);
    else if (word === "not") notNull = true;
    else constraints.set(tokens[at + 1]?.text ?? "", piece(tokens[at + 2], tokens[end]));
    at = end;
  }
  return { head, default: given, notNull, constraints };
}

function domainChange(was: Definition, is: Definition): TextChange {
  const name = `alter domain ${typeName(is.identity)}`;
  const wanted = readDomain(main(was).find((text) => text.startsWith("create domain ")) ?? "");
  const present = readDomain(main(is).find((text) => text.startsWith("create domain ")) ?? "");
  if (wanted.head !== present.head) return remake;
  const before: string[] = [];
  const after: string[] = [];
  for (const [constraint, text] of present.constraints) {
    if (wanted.constraints.get(constraint) !== text) before.push(`${name} drop constraint ${constraint}`);
  }
  for (const [constraint, text] of wanted.constraints) {
    if (present.constraints.get(constraint) !== text) after.push(`${name} add constraint ${constraint} ${text}`);
  }
  if (wanted.default !== present.default) {
    before.push(wanted.default === null ? `${name} drop default` : `${name} set default ${wanted.default}`);
  }
  if (wanted.notNull && !present.notNull) after.push(`${name} set not null`);
  if (!wanted.notNull && present.notNull) before.push(`${name} drop not null`);
  return alter(before, after);
}

function publicationChange(was: Definition, is: Definition): TextChange {
  const pattern = /^create publication ("(?:[^"]|"")+"|\S+)( for all tables)? with \(([\s\S]+)\)$/;
  const [, name, all, options] = pattern.exec(main(was)[0] ?? "") ?? [];
  const [, , otherAll, present] = pattern.exec(main(is)[0] ?? "") ?? [];
  if (name === undefined || options === undefined || present === undefined || all !== otherAll) return remake;
  if (options === present) return alter([]);
  const viaRoot = options.includes("publish_via_partition_root") ? "" : ", publish_via_partition_root = false";
  return alter([], [`alter publication ${name} set (${options}${viaRoot})`]);
}

/** Settings that came since are taken back. */
function settingsChange(was: Definition, is: Definition): TextChange {
  const pattern = /^(alter role (?:"(?:[^"]|"")+"|\S+) )set (\S+) to /;
  const subject = (text: string) => pattern.exec(text)?.[0] ?? text;
  const wanted = new Set(main(was).map(subject));
  const gone = main(is).filter((text) => !wanted.has(subject(text)));
  if (gone.some((text) => !pattern.test(text))) {
    return { kind: "keep", reason: "settings of the database that came after the backup stay" };
  }
  return alter([
    ...gone.map((text) => text.replace(/^([\s\S]+? )set (\S+) to [\s\S]*$/, "$1reset $2")),
    ...main(was).filter((text) => !is.statements.includes(text)),
  ]);
}
