/** A definition in the making: what a collector knows before order, grants, comments and platform marks are added. */
import type { DefinitionSection, HeldKind } from "./capture_format.ts";

export interface Draft {
  /** `catalog:oid` of the row that it defines, or `<word>:<anything unique>` for a definition without a row of its own. */
  readonly key: string;
  readonly kind: string;
  readonly section: DefinitionSection;
  /** Statements when the parts named in `apart` (keys of `parts`) stand as drafts of their own. */
  readonly render: (apart: ReadonlySet<string>) => string[];
  /** Pieces that can leave the statement to break a cycle: a column's default, a check constraint. */
  readonly parts: readonly Draft[];
  /** An empty shell to stand in for a view or function until everything it needs is there. */
  readonly stub: readonly string[] | null;
  /** Further catalog rows that it defines. */
  readonly covers: readonly string[];
  /** Keys that must come before, besides what pg_depend says. */
  readonly after: readonly string[];
  /** Key of the relation that it hangs on. */
  readonly table: string | null;
  /** Only for a definition without a row of its own. */
  readonly identity: string | null;
  /** Object word of ALTER … OWNER TO; null when the owner follows from another object. */
  readonly ownerWord: string | null;
  /** Types that older servers leave behind when the owner changes, and newer ones do not let go alone: `schema.name`. */
  readonly ownedTypes: readonly string[];
  /** GRANT and REVOKE beside those of the rows in the inventory. */
  readonly privileges: readonly string[];
  readonly held: HeldKind | null;
  readonly release: readonly string[];
  /** Set when the collector knows better than the rule in platform.ts. */
  readonly platform: string | null | undefined;
}

export function draft(
  key: string,
  kind: string,
  section: DefinitionSection,
  statements: readonly string[] | ((apart: ReadonlySet<string>) => string[]),
  rest: Partial<Omit<Draft, "key" | "kind" | "section" | "render">> = {},
): Draft {
  return {
    key,
    kind,
    section,
    render: typeof statements === "function" ? statements : () => [...statements],
    parts: [],
    stub: null,
    covers: [],
    after: [],
    table: null,
    identity: null,
    ownerWord: null,
    ownedTypes: [],
    privileges: [],
    held: null,
    release: [],
    platform: undefined,
    ...rest,
  };
}
