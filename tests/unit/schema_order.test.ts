import { describe, expect, it } from "vitest";
import { definitionSections } from "../../src/shared/schema/capture_format.ts";
import { type Draft, draft } from "../../src/shared/schema/draft.ts";
import { type Edge, type Order, orderDrafts } from "../../src/shared/schema/order.ts";

const need = (from: string, to: string, part = from): Edge => ({ from, part, to });
const keys = (order: Order): string[] => order.nodes.map((node) => node.draft.key);

function table(key: string, parts: string[] = []): Draft {
  return draft(key, "table", "pre-data", (apart) => [`table ${key} with ${parts.filter((part) => !apart.has(part))}`], {
    identity: key,
    parts: parts.map((part) =>
      draft(part, "default", "pre-data", [`default ${part}`], { identity: part, after: [key], table: key })
    ),
  });
}
const view = (key: string): Draft =>
  draft(key, "view", "pre-data", [`view ${key}`], { identity: key, stub: [`stub ${key}`] });
const functionOf = (key: string): Draft => draft(key, "function", "pre-data", [`function ${key}`], { identity: key });
const primaryKey = (key: string, on: string): Draft =>
  draft(key, "primary key", "post-data", [`key ${key}`], { identity: key, after: [on] });

function expectValid(order: Order): void {
  const seen = new Set<string>();
  const problems: string[] = [];
  let section = 0;
  for (const node of order.nodes) {
    for (const to of node.dependsOn) if (!seen.has(to)) problems.push(`${node.draft.key} before ${to}`);
    const at = definitionSections.indexOf(node.section);
    if (at < section) problems.push(`${node.draft.key} in an earlier section`);
    section = at;
    seen.add(node.draft.key);
  }
  expect(problems).toEqual([]);
}

describe("the order of definitions", () => {
  it("follows dependencies, then kinds, then names, whatever the order of arrival", () => {
    const drafts = [view("v"), table("b"), table("a"), functionOf("f"), draft("s", "schema", "pre-data", ["s"])];
    const edges = [need("a", "s"), need("b", "s"), need("v", "b"), need("a", "b"), need("f", "s")];
    const order = orderDrafts(drafts, edges);
    expectValid(order);
    expect(keys(order)).toEqual(["s", "f", "b", "a", "v"]);
    expect(keys(orderDrafts([...drafts].reverse(), [...edges].reverse()))).toEqual(keys(order));
  });

  it("takes a default out of its table when the default's function needs the table", () => {
    const order = orderDrafts([table("t", ["d"]), functionOf("f")], [need("t", "f", "d"), need("f", "t")]);
    expectValid(order);
    expect(keys(order)).toEqual(["t", "f", "d"]);
    expect(order.nodes[0]?.statements).toEqual(["table t with "]);
    expect(order.warnings).toEqual([]);
  });

  it("leaves a default in its table where nothing asks otherwise", () => {
    const order = orderDrafts([table("t", ["d"]), functionOf("f")], [need("t", "f", "d")]);
    expect(keys(order)).toEqual(["f", "t"]);
    expect(order.nodes[1]?.statements).toEqual(["table t with d"]);
  });

  it("makes one of two views that need each other a stub first", () => {
    const order = orderDrafts([view("a"), view("b")], [need("a", "b"), need("b", "a")]);
    expectValid(order);
    expect(order.nodes.flatMap((node) => node.statements)).toEqual(["stub a", "view b", "view a"]);
    expect(order.warnings).toEqual([]);
  });

  it("moves a view that needs a key behind the data, with all that needs the view", () => {
    const drafts = [table("t"), primaryKey("k", "t"), view("v"), view("w")];
    const order = orderDrafts(drafts, [need("v", "t"), need("v", "k"), need("w", "v")]);
    expectValid(order);
    expect(order.nodes.filter((node) => node.section === "post-data").map((node) => node.draft.key)).toEqual([
      "k",
      "v",
      "w",
    ]);
  });

  it("makes such a view a stub when a table has its row type, since the table's data comes first", () => {
    const drafts = [table("t"), primaryKey("k", "t"), view("v"), table("u")];
    const order = orderDrafts(drafts, [need("v", "t"), need("v", "k"), need("u", "v")]);
    expectValid(order);
    expect(order.nodes.map((node) => [node.section, node.statements[0]])).toEqual([
      ["pre-data", "table t with "],
      ["pre-data", "stub v"],
      ["pre-data", "table u with "],
      ["post-data", "key k"],
      ["post-data", "view v"],
    ]);
  });

  it("moves a default whose function waits for a key, not its table", () => {
    const drafts = [table("t", ["d"]), primaryKey("k", "t"), functionOf("f")];
    const order = orderDrafts(drafts, [need("f", "k"), need("t", "f", "d")]);
    expectValid(order);
    expect(order.nodes.map((node) => [node.draft.key, node.section])).toEqual([
      ["t", "pre-data"],
      ["k", "post-data"],
      ["f", "post-data"],
      ["d", "post-data"],
    ]);
  });

  it("loses nothing and says so where a circle cannot be broken", () => {
    const order = orderDrafts([functionOf("f"), functionOf("g")], [need("f", "g"), need("g", "f")]);
    expect(keys(order).sort()).toEqual(["f", "g"]);
    expect(order.warnings).toEqual([expect.stringContaining("depend on each other in a circle: f → g")]);
  });

  it("is valid and complete for any graph of tables, defaults, views and keys", () => {
    let seed = 12345;
    const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
    for (let round = 0; round < 300; round++) {
      const drafts: Draft[] = [];
      const count = 3 + random(9);
      for (let n = 0; n < count; n++) {
        const kind = random(4);
        if (kind === 0) drafts.push(table(`t${n}`, [`d${n}`]));
        else if (kind === 1) drafts.push(view(`v${n}`));
        else if (kind === 2) drafts.push(functionOf(`f${n}`));
        else drafts.push(table(`t${n}`), primaryKey(`k${n}`, `t${n}`));
      }
      const edges: Edge[] = [];
      for (let n = 0; n < count * 2; n++) {
        const from = drafts[random(drafts.length)];
        const to = drafts[random(drafts.length)];
        if (from === undefined || to === undefined || from === to || from.kind === "primary key") continue;
        edges.push(need(from.key, to.key, from.parts[0]?.key ?? from.key));
      }
      const order = orderDrafts(drafts, edges);
      for (const one of drafts) expect(keys(order)).toContain(one.key);
      expect(new Set(keys(order)).size).toBe(order.nodes.length);
      // A circle of functions alone cannot be broken; it is told, never hidden.
      if (order.warnings.length === 0) expectValid(order);
    }
  });
});
