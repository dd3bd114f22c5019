import { describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { TableName } from "../../src/shared/restore/project_rows.ts";
import { nameOf } from "../../src/shared/rows/past/fold_partitions.ts";
import type { Edge, Graph, GraphTable } from "../../src/shared/rows/past/graph.ts";
import { emptyMap, readBackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { ownedTables, type OwnershipPlan, planOwnership } from "../../src/shared/rows/ownership/ownership.ts";
import { liveRelation, ownershipSql } from "../../src/shared/rows/ownership/ownership_sql.ts";
import { ownershipSteps } from "../../src/shared/rows/ownership/ownership_steps.ts";
import { userIdColumns } from "../../src/shared/rows/ownership/user_id_columns.ts";
import { checkShares, rowsThatMatter, totalSql } from "../../src/shared/rows/ownership/share_limit.ts";

/** `posts: id uuid, author uuid > users; …`: a `>` is a foreign key to the first column of that table. */
function graphOf(...lines: readonly string[]): Graph {
  const tables: GraphTable[] = [];
  const edges: Edge[] = [];
  const named = (text: string): TableName => {
    const [schema, name] = text.includes(".") ? text.split(".") : text === "users" ? ["auth", text] : ["public", text];
    return { schema: schema ?? "", name: name ?? "" };
  };
  for (const line of ["users: id uuid", ...lines]) {
    const [name = "", columns = ""] = line.split(": ");
    const table = named(name);
    const parts = columns.split(", ").map((part) =>
      /^(\w+) ([\w() ]+?)(?: > ([\w.]+))?(?: (\(.*\)))?$/.exec(part) ?? []
    );
    tables.push({
      ...table,
      columns: parts.map((part) => ({ name: part[1] ?? "", type: part[2] ?? "", notNull: false })),
      key: parts[0]?.[1] === "id" ? ["id"] : null,
      partitions: [],
    });
    for (const [, column = "", , target, action = "(cascade)"] of parts) {
      if (target === undefined) continue;
      edges.push({
        constraint: `${table.name}_${column}`,
        from: table,
        columns: [column],
        to: named(target),
        toColumns: ["id"],
        onDelete: action === "(set null)" ? "set null" : "cascade",
      });
    }
  }
  return { tables, edges };
}

const orderOf = (plan: OwnershipPlan) => plan.groups.map(({ tables }) => tables.map(({ name }) => name).join("+"));
const planned = (plan: OwnershipPlan, name: string) => {
  const table = ownedTables(plan).find((one) => nameOf(one) === name);
  if (table === undefined) throw new Error(`${name} is not planned`);
  return table;
};

describe("an ownership plan", () => {
  it("puts parents before children and leaves out tables that reach no user", () => {
    const plan = planOwnership(
      graphOf(
        "b: id uuid, a uuid > a",
        "a: id uuid, owner uuid > users",
        "alone: id uuid",
        "c: id uuid, b uuid > b, alone uuid > alone",
      ),
      emptyMap,
    );
    expect(orderOf(plan)).toEqual(["users", "a", "b", "c"]);
    expect(planned(plan, "public.c").upward.map(({ to }) => to.name)).toEqual(["b"]);
  });

  it("keeps the tables of a cycle together, and says that they are one", () => {
    const plan = planOwnership(
      graphOf(
        "b: id bigint, a bigint > a",
        "a: id bigint, b bigint > b, owner uuid > users",
        "c: id bigint, b bigint > b",
      ),
      emptyMap,
    );
    expect(orderOf(plan)).toEqual(["users", "a+b", "c"]);
    expect(plan.groups.map(({ cyclic }) => cyclic)).toEqual([false, true, false]);
  });

  it("opens a cycle over a type whose texts do not tell equality, and says which key is not followed", () => {
    const plan = planOwnership(
      graphOf(
        "b: id numeric, a bigint > a",
        "a: id bigint, b numeric > b, owner uuid > users",
        "c: id numeric, b numeric > b",
      ),
      emptyMap,
    );
    expect(orderOf(plan)).toEqual(["users", "a", "b", "c"]);
    expect(plan.notFollowed).toMatchObject([{ constraint: "a_b", reason: expect.stringContaining("cycle") }]);
  });

  it("names keys that are not followed only where they could have led to a user", () => {
    const plan = planOwnership(
      graphOf(
        "posts: id uuid, author uuid > users (set null), category uuid > categories (set null), parent uuid > posts",
        "categories: id uuid",
        "notes: id uuid, post uuid > posts, owner uuid > users",
      ),
      emptyMap,
    );
    expect(orderOf(plan)).toEqual(["users", "notes"]);
    expect(plan.notFollowed.map(({ constraint }) => constraint)).toEqual(["posts_author"]);
  });

  it("takes nothing of a database without auth.users", () => {
    const graph = graphOf("a: id uuid");
    const plan = planOwnership({ ...graph, tables: graph.tables.slice(1) }, emptyMap);
    expect(plan.groups).toEqual([]);
  });

  it("does not tell rows apart by a key whose column the server computes", () => {
    const graph = graphOf("a: id uuid, owner uuid > users");
    const tables = graph.tables.map((table) => ({
      ...table,
      columns: table.columns.filter(({ name }) => name !== "id" || table.name === "users"),
    }));
    expect(planned(planOwnership({ ...graph, tables }, emptyMap), "public.a").key).toBeNull();
  });

  it("knows of auth and storage what their keys miss, and what a restore never brings back", () => {
    const plan = planOwnership(
      graphOf(
        "auth.sessions: id uuid, user_id uuid > users",
        "auth.refresh_tokens: id bigint, user_id character varying(255), session_id uuid > auth.sessions",
        "auth.flow_state: id uuid, user_id uuid",
        "auth.mfa_factors: id uuid, user_id uuid > users, secret text",
        "auth.from_the_future: id uuid, user_id uuid > users",
        "storage.buckets: id text, owner_id text",
        "storage.objects: id uuid, bucket_id text > storage.buckets, owner_id text",
        "devices: id uuid, session_id uuid > auth.sessions",
        "device_keys: id uuid, device_id uuid > devices",
        "visits: id uuid, session_id uuid > auth.sessions, user_id uuid > users",
      ),
      emptyMap,
    );
    const treated = Object.fromEntries(ownedTables(plan).map((table) => [nameOf(table), table.treatment.restore]));
    expect(treated).toEqual({
      "auth.users": "rows",
      "auth.sessions": "never",
      "auth.refresh_tokens": "never",
      "auth.flow_state": "never",
      "auth.mfa_factors": "credentials",
      "auth.from_the_future": "never",
      "storage.objects": "files",
      "public.devices": "never",
      "public.device_keys": "never",
      "public.visits": "rows",
    });
    expect(planned(plan, "public.device_keys").treatment.why).toContain("public.devices");
    expect(planned(plan, "auth.refresh_tokens").upward.map(({ to }) => to.name)).toEqual(["sessions", "users"]);
    expect(planned(plan, "auth.users").treatment.credentials).toEqual(["encrypted_password"]);
    expect(planned(plan, "storage.objects").upward).toMatchObject([{ constraint: null, userColumn: "owner_id" }]);
  });

  it("says what of the map fits nothing, by its place", () => {
    const map = readBackupMap(JSON.stringify({
      version: 1,
      keys: [{ table: "public.a", columns: ["x"], follow: true }, {
        table: "public.a",
        columns: ["owner"],
        follow: true,
      }],
      users: [{ table: "public.a", column: "gone" }, { table: "public.b", column: "id" }],
      tables: [{ table: "public.c", rows: "owned" }, { table: "public.alone", rows: "shared" }],
    }));
    const plan = planOwnership(graphOf("a: id uuid, owner uuid > users", "alone: id uuid"), map);
    expect(plan.unmatched).toEqual([
      "keys[0]: public.a has no such foreign key over (x)",
      "users[0]: there is no stored column gone in public.a",
      "users[1]: there is no stored column id in public.b",
      "tables[0]: there is no table public.c",
      "tables[1]: no row of public.alone can reach a user",
    ]);
  });
});

describe("two decisions on the same thing", () => {
  it("are settled by the last one", () => {
    const graph = graphOf("a: id uuid, owner uuid > users, parent uuid > a", "b: id uuid, owner uuid > users");
    const entry = (follow: boolean) => ({ table: "public.a", columns: ["parent"], follow });
    const keys = (...follows: boolean[]) =>
      planOwnership(graph, readBackupMap(JSON.stringify({ version: 1, keys: follows.map(entry) })));
    expect(keys(false, true).notFollowed).toEqual([]);
    expect(keys(true, false).notFollowed).toMatchObject([{ reason: "backup.map.json says so" }]);
    const tables = (...rows: string[]) =>
      planOwnership(
        graph,
        readBackupMap(JSON.stringify({ version: 1, tables: rows.map((one) => ({ table: "public.b", rows: one })) })),
      );
    expect(planned(tables("never", "owned"), "public.b").rule).toBe("owned");
    expect(orderOf(tables("owned", "never"))).not.toContain("b");
  });
});

describe("the steps of an extraction", () => {
  const messages = graphOf(
    "messages: id bigint, sender uuid > users, recipient uuid > users",
    "files: id bigint, message bigint > messages",
  );

  it("start at the user's id and go down", () => {
    const { candidates } = ownershipSteps(planOwnership(messages, emptyMap));
    expect(candidates.map(({ steps }) => steps)).toMatchObject([
      [{ table: { name: "users" }, conditions: [{ columns: ["id"], from: null }] }],
      [{
        table: { name: "messages" },
        conditions: [{ columns: ["sender"], from: null }, { columns: ["recipient"], from: null }],
      }],
      [{
        table: { name: "files" },
        conditions: [{ columns: ["message"], from: { name: "messages" }, fromColumns: ["id"] }],
      }],
    ]);
  });

  it("read no further rows where those that were taken lead to nothing else", () => {
    expect(ownershipSteps(planOwnership(messages, emptyMap)).referred).toEqual([]);
  });

  it("read the entry that a comment stands under, and what that leads to, children first", () => {
    const plan = planOwnership(
      graphOf(
        "books: id bigint, owner uuid > users",
        "entries: id bigint, book bigint > books",
        "comments: id bigint, entry bigint > entries, author uuid > users",
      ),
      emptyMap,
    );
    expect(ownershipSteps(plan).referred.map(({ steps }) => steps)).toEqual([
      [{
        table: { schema: "public", name: "entries" },
        conditions: [{ columns: ["id"], from: { schema: "public", name: "comments" }, fromColumns: ["entry"] }],
      }],
      [{
        table: { schema: "public", name: "books" },
        conditions: [{ columns: ["id"], from: { schema: "public", name: "entries" }, fromColumns: ["book"] }],
      }],
    ]);
  });

  it("repeat for the tables of a cycle", () => {
    const plan = planOwnership(
      graphOf("b: id bigint, a bigint > a", "a: id bigint, b bigint > b, owner uuid > users"),
      emptyMap,
    );
    const { candidates, referred } = ownershipSteps(plan);
    expect(candidates.map(({ repeat }) => repeat)).toEqual([false, true]);
    expect(referred).toMatchObject([{ repeat: true, steps: [{ table: { name: "a" } }, { table: { name: "b" } }] }]);
  });
});

describe("the share limit", () => {
  const plan = (map = emptyMap) =>
    planOwnership(graphOf("a: id uuid, owner uuid > users", "b: id uuid, a uuid > a"), map);
  const share = (reached: number, total: number) => [{ schema: "public", name: "b", reached, total }];

  it("refuses a closure of more than half of a table, naming it and no user", () => {
    expect(() => checkShares(plan(), share(101, 201))).toThrowError(
      expect.objectContaining({
        code: "ownership_unclear",
        message: expect.stringContaining("public.b: 50.2 % of the rows, more than 50 %"),
      }),
    );
    expect(() => checkShares(plan(), share(100, 200))).not.toThrow();
  });

  it("lets small tables be, and what the map allows", () => {
    expect(() => checkShares(plan(), share(100, 100))).not.toThrow();
    expect(() => checkShares(plan(), share(101, 101))).toThrow(HoldfastError);
    const allowed = readBackupMap('{"version": 1, "share": 0.2, "tables": [{"table": "public.b", "share": 1}]}');
    expect(() => checkShares(plan(allowed), share(101, 101))).not.toThrow();
    expect(() => checkShares(plan(allowed), [{ schema: "public", name: "a", reached: 30, total: 120 }])).toThrow(
      HoldfastError,
    );
  });

  it("counts no more rows than it takes to decide, and decides the same", () => {
    const table = planned(plan(), "public.b");
    for (let reached = 0; reached < 400; reached++) {
      for (const total of [99, 100, 101, 102, 200, 201, 399, 400, 798, 799, 1000].filter((rows) => rows >= reached)) {
        const counted = Math.min(total, rowsThatMatter(table, reached));
        const refused = (rows: number) => {
          try {
            checkShares(plan(), share(reached, rows));
            return false;
          } catch {
            return true;
          }
        };
        if (reached % 37 === 0 || Math.abs(total - 2 * reached) < 3) expect(refused(counted)).toBe(refused(total));
      }
    }
    expect(totalSql(table, 4, "only public.b")).toContain("from only public.b limit 101");
  });
});

describe("columns that hold users' ids", () => {
  it("are those that refer to a user's id over any number of keys, followed or not, and those that the map names", () => {
    const graph = graphOf(
      "posts: id bigint, author uuid > profiles, editor uuid > users (set null), actor text",
      "profiles: id uuid > users, referred_by uuid > profiles",
      "comments: id bigint, post bigint > posts",
    );
    const columns = userIdColumns(
      graph,
      readBackupMap('{"version": 1, "users": [{"table": "public.posts", "column": "actor"}]}'),
    );
    const of = (name: string) => columns({ schema: "public", name }).toSorted();
    expect(of("profiles")).toEqual(["id", "referred_by"]);
    expect(of("posts")).toEqual(["actor", "author", "editor"]);
    expect(of("comments")).toEqual([]);
  });
});

describe("the SQL", () => {
  const graph = graphOf("a: id uuid, owner uuid > users");

  it("reads a table without those that inherit from it, and a partitioned one with its partitions", () => {
    expect(liveRelation({ schema: "public", name: "A b", partitions: [] })).toBe(`only public."A b"`);
    expect(liveRelation({ schema: "public", name: "a", partitions: [{ schema: "public", name: "a_1" }] })).toBe(
      "public.a",
    );
  });

  it("refuses a table that is not in the plan", () => {
    const sql = ownershipSql(planOwnership(graph, emptyMap), () => null, "$1", () => "=");
    expect(() => sql({ schema: "public", name: "b" })).toThrowError(expect.objectContaining({ code: "internal" }));
  });
});
