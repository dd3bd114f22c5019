/** What Auth logged, without the person: as `scrub` has a server do it. Pure. */
import { platformMentions } from "../rows/ownership/auth_map.ts";

const scrubbed = "erased";
const entries = { schema: "auth", name: "audit_log_entries" } as const;

export const isLogOfAuth = ({ schema, name }: { readonly schema: string; readonly name: string }): boolean =>
  schema === entries.schema && name === entries.name;

export interface Scrubbed {
  readonly payload: string;
  /** The address is the person's as well. */
  readonly withoutAddress: boolean;
}

/** Null: the entry is of nobody who was erased, or no JSON object. */
export function scrubPayload(payload: string, isErased: (user: string) => boolean): Scrubbed | null {
  const document = readObject(payload);
  if (document === null) return null;
  const traits = asObject(document["traits"]);
  const tops = [
    ...(isOf(document["actor_id"], isErased) ? ["actor_"] : []),
    ...(isOf(traits?.["user_id"], isErased) ? ["traits"] : []),
  ];
  if (tops.length === 0) return null;
  const copy: Record<string, unknown> = { ...document, ...(traits === null ? {} : { traits: { ...traits } }) };
  for (const { table, path } of platformMentions) {
    const [first = "", second] = path ?? [];
    if (table.name !== entries.name || !tops.some((top) => first.startsWith(top))) continue;
    const holder = second === undefined ? copy : asObject(copy[first]);
    const key = second ?? first;
    if (holder !== null && key in holder) holder[key] = scrubbed;
  }
  return { payload: JSON.stringify(copy), withoutAddress: tops.includes("actor_") };
}

const isOf = (value: unknown, isErased: (user: string) => boolean): boolean =>
  typeof value === "string" && isErased(value);

function readObject(text: string): Record<string, unknown> | null {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return null;
  }
}

function asObject(value: unknown): Record<string, unknown> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : null;
}
