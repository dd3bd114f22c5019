import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain, type DrainOptions, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { inOrder, listSegments, readChain } from "../../src/shared/changes/segments/chain_reader.ts";
import { decodeMessage } from "../../src/shared/changes/decode/pgoutput.ts";
import { readRecords } from "../../src/shared/changes/segments/segment.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { useCluster } from "../support/cluster.ts";
import { query, world } from "./backup_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;

const options = (more: Partial<DrainOptions> = {}): DrainOptions => ({
  worker: "test",
  budget: unlimited,
  limits: processDrainLimits,
  ...more,
});

beforeAll(async () => {
  w = await world(cluster());
  await query(w.url, "create table public.notes (id int primary key, t text)");
}, 180_000);

async function stored() {
  const repository = await readRepository(w.deps.store);
  const epochOf = epochSource(w.deps.store, w.deps.ring, repository?.id ?? "");
  const all = [];
  for (const [, segments] of await listSegments(w.deps.store)) {
    for await (
      const segment of readChain(
        { store: w.deps.store, compressor: w.deps.compressor, epochOf },
        inOrder(segments),
      )
    ) all.push(segment);
  }
  return all;
}

describe("a drain", () => {
  it("begins a chain, stores what is committed, and goes on from there", async () => {
    const first = await drain(w.deps, options());
    expect(first).toMatchObject({ outcome: "caught_up", begun: true });
    await query(w.url, "insert into public.notes select i, 'n' || i from generate_series(1, 10) as i");
    await query(w.url, "update public.notes set t = 'x' where id = 3");
    const second = await drain(w.deps, options());
    expect(second).toMatchObject({ outcome: "caught_up", begun: false, segments: [{ transactions: 2, changes: 11 }] });
    const segments = await stored();
    const kinds = segments.flatMap((s) => [...readRecords(s.name, s.records)].map((r) => decodeMessage(r.data).kind));
    const inserts = Array.from({ length: 10 }, () => "insert");
    expect(kinds).toEqual(["begin", "relation", ...inserts, "commit", "begin", "update", "commit"]);
    const [run] = await query(w.url, "select kind, status, tiers, rows from backup.runs where kind = 'incremental'");
    expect(run).toEqual({ kind: "incremental", status: "copying", tiers: ["hourly"], rows: "11" });
  });
});
