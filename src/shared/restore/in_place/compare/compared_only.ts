/** What is compared and never touched: extensions, and what the platform owns. Pure. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import { quoteIdent } from "../../../schema/quote.ts";
import type { DefinitionNote } from "../change_format.ts";

/** What differs of the platform's objects and roles, beyond their definitions: who may do what. */
export function platformAccessNotes(was: SchemaCapture, is: SchemaCapture): DefinitionNote[] {
  const present = new Map(is.definitions.map((one) => [one.identity, one]));
  const former = new Set(was.definitions.map((one) => one.identity));
  const notes: DefinitionNote[] = [];
  const say = ({ identity, kind }: Definition, what: string) =>
    notes.push({ identity, kind, action: "keep", reason: `${what}; what the platform owns is compared only` });
  for (const one of was.definitions) {
    const other = present.get(one.identity);
    if (one.platform === null || other === undefined) continue;
    if (one.kind === "role") {
      const changes = differenceOf(attributesOf(one), attributesOf(other));
      if (changes !== null) say(one, `its attributes differ: ${changes}`);
      continue;
    }
    if (one.owner !== other.owner) say(one, `it belongs to ${other.owner} instead of ${one.owner}`);
    const grants = differenceOf(one.privileges, other.privileges);
    if (grants !== null) say(one, `its grants differ: ${grants}`);
  }
  for (const one of is.definitions) {
    if (one.platform === null || former.has(one.identity)) continue;
    if (one.kind === "default privileges" || one.kind === "row security") say(one, "it came after the backup");
  }
  return notes;
}

const attributesOf = (role: Definition) => role.statements.filter((text) => text.startsWith("alter role "));

/** What came and what is gone, for people; null: nothing. */
function differenceOf(was: readonly string[], is: readonly string[]): string | null {
  const said = [
    ...is.filter((text) => !was.includes(text)).map((text) => `now ${text}`),
    ...was.filter((text) => !is.includes(text)).map((text) => `no longer ${text}`),
  ];
  if (said.length === 0) return null;
  return said.slice(0, 3).join(", ") + (said.length > 3 ? ` and ${said.length - 3} more` : "");
}

/** A line a service, since a newer version of one differs in many places. */
export function platformNotes(was: SchemaCapture, is: SchemaCapture): DefinitionNote[] {
  const present = new Map(is.definitions.map((one) => [one.identity, one]));
  const byService = new Map<string, string[]>();
  for (const one of was.definitions) {
    const other = present.get(one.identity);
    // Settings and logins of its roles change with every deployment, maintenance mode among them.
    if (one.platform === null || ["login", "settings", "membership", "role"].includes(one.kind)) continue;
    if (other !== undefined && other.statements.join(";\n") === one.statements.join(";\n")) continue;
    byService.set(one.platform, [...byService.get(one.platform) ?? [], one.identity]);
  }
  return [...byService].map(([service, identities]) => ({
    identity: `platform ${service}`,
    kind: "platform",
    action: "keep",
    reason: `${identities.slice(0, 3).join(", ")}${
      identities.length > 3 ? ` and ${identities.length - 3} more` : ""
    } of the platform differ; what it owns is compared only`,
  }));
}

/** Identities of extensions that are not there. */
export function missingExtensions(was: SchemaCapture, is: SchemaCapture): ReadonlySet<string> {
  const present = new Set(is.extensions.map((one) => one.name));
  return new Set(
    was.extensions.filter((one) => !present.has(one.name)).map((one) => `extension ${quoteIdent(one.name)}`),
  );
}

export function extensionNotes(was: SchemaCapture, is: SchemaCapture): DefinitionNote[] {
  const present = new Map(is.extensions.map((one) => [one.name, one]));
  const former = new Set(was.extensions.map((one) => one.name));
  const note = (name: string, reason: string): DefinitionNote => ({
    identity: `extension ${quoteIdent(name)}`,
    kind: "extension",
    action: "keep",
    reason: `${reason}; extensions are compared only`,
  });
  return [
    ...was.extensions.flatMap((one) => {
      const other = present.get(one.name);
      if (other === undefined) return [note(one.name, "it is not there")];
      if (other.version !== one.version) return [note(one.name, `it was version ${one.version}, is ${other.version}`)];
      return other.schema === one.schema ? [] : [note(one.name, `it was in schema ${one.schema}`)];
    }),
    ...is.extensions.filter((one) => !former.has(one.name)).map((one) => note(one.name, "it came after the backup")),
  ];
}
