/** What full restores in place that were broken off leave to the next one. */
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { markTold, readEarlierTries } from "../../src/shared/restore/in_place/earlier_tries.ts";
import { goneMark, inheritGone, prepareGone, readGone } from "../../src/shared/restore/in_place/gone_definitions.ts";
import type { GoneDefinition } from "../../src/shared/restore/in_place/change_format.ts";
import { beginOrGoOn } from "../../src/shared/rows/work_begin.ts";
import { installedCluster } from "./cluster.ts";

let session: Connection;
const target = { label: "here/postgres", connect: () => Promise.reject(new Error("nobody connects")) };

beforeAll(async () => {
  session = await openDatabase({ url: (await installedCluster()).plainUrl("postgres") }).connect("broken");
});
afterAll(() => session?.close());
beforeEach(() => session.execute("begin"));
afterEach(() => session.execute("rollback"));

const begin = (digest: string, mode: "replace" | "merge" = "replace") =>
  beginOrGoOn(session, target, {
    scope: "full",
    mode,
    sourceBackup: randomUUID(),
    pointAt: null,
    userId: null,
    digest,
  });
type Begun = Awaited<ReturnType<typeof begin>>;

const view = (identity: string, text = `create ${identity}`): GoneDefinition => ({
  identity,
  kind: "view",
  reason: "in the way",
  again: true,
  statements: [text],
});

async function write(schema: string | null, ...gone: GoneDefinition[]): Promise<void> {
  await prepareGone(session, schema ?? "");
  for (const text of goneMark(schema ?? "")({ gone })) await session.execute(text);
}

async function safetyBackup(): Promise<string> {
  const [run] = await session.query(
    `insert into backup.runs (kind, tiers, status, origin, finished_at, manifest_name, manifest_hash)
     values ('full', array['safety'], 'succeeded', 'cli', 'infinity', 'm', 'h') returning id`,
  );
  return run?.["id"] ?? "";
}

/** It has taken a safety backup, has written down what went, and ends there. Returns that backup. */
async function breakOff(begun: Begun, gone: readonly GoneDefinition[], code = "internal"): Promise<string> {
  const { id, token, sideSchema } = begun;
  const safety = await safetyBackup();
  await session.query("select backup.restore_progress($1, $2, $3)", [
    id,
    token,
    JSON.stringify({ status: "applying", ...(begun.goesOn ? {} : { safety_run: safety }) }),
  ]);
  await session.execute(`create schema if not exists ${sideSchema}`);
  await write(sideSchema, ...gone);
  await session.query("select backup.fail_restore($1, $2, $3)", [id, token, JSON.stringify({ code, message: "m" })]);
  return safety;
}

const finish = ({ id, token }: Begun) => session.query("select backup.finish_restore($1, $2, $3)", [id, token, "{}"]);
const earlierOf = ({ id, sideSchema }: Begun) => readEarlierTries(session, { id, schema: sideSchema ?? "" });
const close = () => session.query("select backup.maintenance_on('m', null, 'restore:' || gen_random_uuid())");

/** What the restore makes again, with what it inherits. */
async function goneOf(begun: Begun): Promise<string[]> {
  await session.execute(`create schema if not exists ${begun.sideSchema}`);
  const earlier = await earlierOf(begun);
  for (const _ of [1, 2]) await inheritGone(session, begun.sideSchema ?? "", earlier);
  const [row] = await session.query(`select count(*) as n from ${begun.sideSchema}."holdfast gone of try any"`);
  const gone = await readGone(session, begun.sideSchema ?? "");
  expect(row?.["n"]).toBe(String(gone.length));
  return gone.map(({ statements }) => statements.join());
}

describe("a full restore in place that was broken off", () => {
  it.each(["internal", "cancelled"])("with %s is gone on with by the same call", async (code) => {
    const first = await begin("a");
    await breakOff(first, [], code);
    expect(await begin("a")).toMatchObject({ goesOn: true, id: first.id });
  });

  it("is not gone on with, and leaves nothing to later ones, once another has made everything what it was", async () => {
    const other = await begin("b");
    await breakOff(other, [view("view a")]);
    const first = await begin("a");
    await breakOff(first, [view("view b")]);
    await finish(await begin("b"));
    const again = await begin("a");
    expect(again).toMatchObject({ goesOn: false });
    expect(await earlierOf(again)).toEqual({ safetyRun: null, olderSafety: null, sideSchemas: [], lists: [] });
  });

  it("leaves to one of another choice what went, and the safety backup from before; a merge changes nothing of that", async () => {
    await close();
    const first = await begin("a");
    const before = await breakOff(first, [view("view a"), view("view b")]);
    await finish(await begin("m", "merge"));
    const second = await begin("b");
    expect(await earlierOf(second)).toMatchObject({ safetyRun: before, olderSafety: null });
    expect(await goneOf(second)).toEqual(["create view a", "create view b"]);
    await breakOff(second, [view("view c")]);
    const third = await begin("c");
    expect(await earlierOf(third)).toMatchObject({ safetyRun: before });
    expect(await goneOf(third)).toEqual(["create view a", "create view b", "create view c"]);
  });

  it("leaves what went in its record where a person drops its side schema", async () => {
    const first = await begin("a");
    await breakOff(first, [view("view a"), view("view b")]);
    await session.query("select backup.drop_side($1)", [first.id]);
    const second = await begin("a");
    expect(second.goesOn).toBe(false);
    expect(await goneOf(second)).toEqual(["create view a", "create view b"]);
    await finish(second);
    expect(await earlierOf(await begin("a"))).toMatchObject({ lists: [] });
  });

  it("is not what there was before, where the project was opened since; its safety backup is told", async () => {
    await close();
    const first = await begin("a");
    const before = await breakOff(first, []);
    await session.execute("select backup.maintenance_off(); select pg_sleep(0.01)");
    await close();
    const second = await begin("b");
    expect(await earlierOf(second)).toMatchObject({ safetyRun: null, olderSafety: { run: before } });
    await breakOff(second, []);
    expect(await earlierOf(await begin("a"))).toMatchObject({ safetyRun: before });
  });

  it("keeps the safety backups of all its tries from being removed", async () => {
    const first = await begin("a");
    const backups = [await breakOff(first, []), await breakOff(await begin("a"), [])];
    const used = await session.query("select backup from backup.backups_in_use() where restore = $1", [first.id]);
    expect(used.map((row) => row["backup"])).toEqual(expect.arrayContaining(backups));
  });
});

it("what went is made again as it was at last, but for a policy, which was only shut", async () => {
  const side = "restore_01234567";
  await session.execute(`create schema ${side}`);
  const policy = (text: string) => ({ ...view("policy p on t", text), kind: "policy" });
  await write(side, view("view a", "first"), policy("first policy"), view("view a", "last"), policy("shut"));
  expect((await readGone(session, side)).map(({ statements }) => statements.join())).toEqual(["first policy", "last"]);
});

it("a database without records knows by side schemas of the same role what went, until it was told", async () => {
  const [side, own] = ["restore_01234567", "restore_89abcdef"];
  await session.execute(`create schema ${side}; create schema ${own}`);
  await write(side, view("view a"));
  await write(own);
  const untold = async () => (await readEarlierTries(session, { id: null, schema: own })).sideSchemas;
  expect(await untold()).toEqual([side]);
  await markTold(session, [own, side]);
  expect(await untold()).toEqual([]);
});
