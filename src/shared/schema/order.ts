/** A valid creation order: every definition after what it depends on, cycles broken where the objects allow it. Pure. */
import type { DefinitionSection } from "./capture_format.ts";
import { definitionSections } from "./capture_format.ts";
import { definitionKinds } from "./definition_kinds.ts";
import { type Draft, draft } from "./draft.ts";
import { findCycle } from "./find_cycle.ts";
import { Heap } from "./heap.ts";

/** `from` needs `to`. `part` is the row of `from` that needs it (a default, a check), as `catalog:oid`. */
export interface Edge {
  readonly from: string;
  readonly part: string;
  readonly to: string;
}

export interface Node {
  readonly draft: Draft;
  readonly section: DefinitionSection;
  readonly statements: readonly string[];
  /** Keys. */
  readonly dependsOn: readonly string[];
}

export interface Order {
  readonly nodes: readonly Node[];
  readonly warnings: readonly string[];
}

const rankOf = new Map(definitionKinds.map((kind, index) => [kind, index]));
const sectionRank = new Map<DefinitionSection, number>(definitionSections.map((section, index) => [section, index]));

/** Splits, section moves and broken edges together cannot be more than this times the number of definitions. */
const maxRoundsPerDraft = 4;

export function orderDrafts(drafts: readonly Draft[], edges: readonly Edge[]): Order {
  const work = new Work(drafts, edges);
  const limit = 16 + drafts.length * maxRoundsPerDraft;
  for (let round = 0; round < limit; round++) {
    if (!work.settleSections() && !work.breakCycle()) return work.result();
  }
  return work.result();
}

interface Item {
  readonly draft: Draft;
  section: DefinitionSection;
  /** Keys of parts that stand on their own. */
  readonly apart: Set<string>;
  readonly after: Set<string>;
  stubbed: boolean;
}

class Work {
  readonly #items = new Map<string, Item>();
  /** part → part needs. */
  #edges: Edge[];
  readonly #warnings: string[] = [];
  readonly #owner = new Map<string, string>();

  constructor(drafts: readonly Draft[], edges: readonly Edge[]) {
    for (const one of drafts) this.#add(one);
    this.#edges = [...edges];
    for (const one of drafts) {
      for (const to of one.after) this.#edges.push({ from: one.key, part: one.key, to });
    }
  }

  #add(one: Draft): void {
    this.#items.set(one.key, { draft: one, section: one.section, apart: new Set(), after: new Set(), stubbed: false });
    this.#owner.set(one.key, one.key);
  }

  /** Edges between items as they stand now, self edges left out. */
  #current(): { from: Item; to: Item; edge: Edge }[] {
    const list: { from: Item; to: Item; edge: Edge }[] = [];
    for (const edge of this.#edges) {
      const whole = this.#items.get(edge.from);
      const apart = this.#items.get(edge.part);
      const from = whole !== undefined && whole.apart.has(edge.part) ? apart : whole;
      const to = this.#items.get(edge.to);
      if (from !== undefined && to !== undefined && from !== to) list.push({ from, to, edge });
    }
    return list;
  }

  /** Nothing may need what only a later section makes: it moves there, or the part of it that needs it does. */
  settleSections(): boolean {
    for (const { from, to, edge } of this.#current()) {
      if (rank(from) >= rank(to)) continue;
      if (this.#takeApart(from, edge.part, to.section)) return true;
      if (isStorage(from.draft)) {
        // Data goes into it before that section, so what it needs must do with a stub.
        if (this.#stub(to)) return true;
        this.#drop(edge, `${label(from.draft)} needs ${label(to.draft)}, which comes later`);
        return true;
      }
      from.section = to.section;
      return true;
    }
    return false;
  }

  breakCycle(): boolean {
    const links = this.#current();
    const cycle = findCycle([...this.#items.values()], links);
    if (cycle === null) return false;
    for (const { from, to, edge } of cycle) {
      if (this.#takeApart(from, edge.part, to.section)) return true;
    }
    for (const { from } of cycle) {
      if (this.#stub(from)) return true;
    }
    const weakest = cycle[0];
    if (weakest === undefined) return false;
    const names = cycle.map(({ from }) => label(from.draft)).join(" → ");
    this.#drop(weakest.edge, `definitions depend on each other in a circle: ${names}`);
    return true;
  }

  #takeApart(item: Item, part: string, section: DefinitionSection): boolean {
    if (part === item.draft.key || item.apart.has(part)) return false;
    const piece = item.draft.parts.find((candidate) => candidate.key === part);
    if (piece === undefined) return false;
    item.apart.add(part);
    this.#add(piece);
    const added = this.#items.get(part);
    if (added !== undefined && rank(added) < (sectionRank.get(section) ?? 0)) added.section = section;
    this.#edges.push({ from: part, part, to: item.draft.key });
    return true;
  }

  /** The object becomes a stub that needs only its columns' types; its body follows once everything else is there. */
  #stub(item: Item): boolean {
    if (item.draft.stub === null || item.stubbed) return false;
    const key = `body:${item.draft.key}`;
    item.stubbed = true;
    item.section = item.draft.section;
    const body = draft(key, item.draft.kind, "pre-data", item.draft.render(new Set()), {
      identity: `body of ${label(item.draft)}`,
      table: item.draft.key,
      after: [item.draft.key],
    });
    this.#add(body);
    const moved: Edge[] = [];
    this.#edges = this.#edges.map((edge) => {
      if (edge.from !== item.draft.key) return edge;
      moved.push(edge);
      return { from: key, part: key, to: edge.to };
    });
    this.#edges.push({ from: key, part: key, to: item.draft.key });
    // Column types and the schema are needed by the stub as well.
    for (const edge of moved) {
      const kind = this.#items.get(edge.to)?.draft.kind ?? "";
      if (stubNeeds.has(kind)) this.#edges.push(edge);
    }
    return true;
  }

  #drop(edge: Edge, warning: string): void {
    this.#edges = this.#edges.filter((other) => other !== edge);
    this.#warnings.push(warning);
  }

  result(): Order {
    const links = this.#current();
    const needs = new Map<Item, Set<Item>>();
    const users = new Map<Item, Set<Item>>();
    for (const { from, to } of links) {
      needs.set(from, (needs.get(from) ?? new Set()).add(to));
      users.set(to, (users.get(to) ?? new Set()).add(from));
    }
    const items = [...this.#items.values()].sort(compareItems);
    const position = new Map(items.map((item, index) => [item, index]));
    const open = new Map(items.map((item) => [item, needs.get(item)?.size ?? 0]));
    const ready = new Heap(items.filter((item) => open.get(item) === 0).map((item) => position.get(item) ?? 0));
    const nodes: Node[] = [];
    for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
      const item = items[next];
      if (item === undefined) continue;
      nodes.push({
        draft: item.draft,
        section: item.section,
        statements: item.stubbed ? [...(item.draft.stub ?? [])] : item.draft.render(item.apart),
        dependsOn: [...(needs.get(item) ?? [])].map((need) => need.draft.key),
      });
      for (const user of users.get(item) ?? []) {
        const left = (open.get(user) ?? 1) - 1;
        open.set(user, left);
        if (left === 0) ready.push(position.get(user) ?? 0);
      }
    }
    const bySection = definitionSections.flatMap((section) => nodes.filter((node) => node.section === section));
    return { nodes: bySection, warnings: this.#warnings };
  }
}

const stubNeeds = new Set([
  "schema",
  "extension",
  "enum",
  "domain",
  "composite type",
  "range",
  "collation",
  "shell type",
]);

const rank = (item: Item): number => sectionRank.get(item.section) ?? 0;
const isStorage = (one: Draft): boolean =>
  one.kind === "table" || one.kind === "foreign table" || one.kind === "partition";
const label = (one: Draft): string => one.identity ?? one.key;

function compareItems(a: Item, b: Item): number {
  const bySection = rank(a) - rank(b);
  if (bySection !== 0) return bySection;
  const byRank = (rankOf.get(a.draft.kind) ?? definitionKinds.length) -
    (rankOf.get(b.draft.kind) ?? definitionKinds.length);
  if (byRank !== 0) return byRank;
  const nameA = a.draft.identity ?? a.draft.key;
  const nameB = b.draft.identity ?? b.draft.key;
  return nameA < nameB ? -1 : nameA > nameB ? 1 : 0;
}
