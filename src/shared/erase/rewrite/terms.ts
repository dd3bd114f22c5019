/** What names a person in clear: for the search that proves that nothing is left. Sealed in the store until there is the certificate. */
import { platformMentions } from "../../rows/ownership/auth_map.ts";
import type { ReadColumn } from "../judge_row.ts";

export const termKinds = ["id", "e-mail", "phone", "provider id", "file name"] as const;
export type TermKind = typeof termKinds[number];

export interface Term {
  readonly kind: TermKind;
  readonly text: string;
}

/** Of whose row, as the column says it. */
export interface FoundTerm extends Term {
  readonly user: string;
}

interface Source {
  /** The column that says whose the row is. */
  readonly user: string;
  readonly columns: readonly {
    readonly column: string;
    readonly path: readonly string[] | null;
    readonly kind: TermKind;
  }[];
}

/** The tables that say it, with the column that says whose the row is. */
export const termTables = [
  { schema: "auth", name: "users", by: "id" },
  { schema: "auth", name: "identities", by: "user_id" },
  { schema: "auth", name: "mfa_factors", by: "user_id" },
  { schema: "storage", name: "objects", by: "owner_id" },
] as const;

const sources: ReadonlyMap<string, Source> = new Map(
  termTables.map(({ schema, name, by }): [string, Source] => [`${schema}.${name}`, {
    user: by,
    columns: [
      ...schema === "storage" ? [{ column: "name", path: null, kind: "file name" as const }] : [],
      ...platformMentions.filter(({ table }) => table.schema === schema && table.name === name)
        .flatMap(({ column, path, holds }) => {
          const kind = termKinds.find((one) => one === holds);
          return kind === undefined ? [] : [{ column, path, kind }];
        }),
    ],
  }]),
);

/** Shorter ones are in everything. */
const leastLetters = 5;

/** What a row that goes says of whose it is. Pure. */
export function termsIn(
  { schema, name }: { readonly schema: string; readonly name: string },
  columns: readonly string[],
  read: ReadColumn,
): FoundTerm[] {
  const source = sources.get(`${schema}.${name}`);
  if (source === undefined) return [];
  const textOf = (column: string): string | null => {
    const value = read(columns.indexOf(column));
    return value === null || value === undefined ? null : new TextDecoder().decode(value);
  };
  const user = textOf(source.user) ?? textOf("owner");
  if (user === null) return [];
  const found = source.columns.flatMap(({ column, path, kind }): Term[] => {
    const text = textOf(column);
    if (text === null) return [];
    const value = path === null ? text : within(text, path);
    return value === null ? [] : [{ kind, text: value }];
  });
  return [{ kind: "id" as const, text: user }, ...found].filter(({ text }) => text.length >= leastLetters)
    .map((term) => ({ ...term, user }));
}

function within(text: string, path: readonly string[]): string | null {
  try {
    let at: unknown = JSON.parse(text);
    for (const key of path) {
      if (typeof at !== "object" || at === null) return null;
      at = (at as Record<string, unknown>)[key];
    }
    return typeof at === "string" ? at : null;
  } catch {
    return null;
  }
}
