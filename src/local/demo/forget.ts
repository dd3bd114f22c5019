/** A person is erased, from the request to the certificate, in the project that is there at the end of the demo. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { z } from "zod";
import type { SampleApp } from "../../../tests/support/sample_app/load.ts";
import { holdfast } from "./holdfast.ts";
import { type Screen, seconds } from "./screen.ts";

interface Forgotten {
  readonly rows: number;
  readonly backups: number;
  readonly segments: number;
  /** Looked through for the certificate. */
  readonly objects: number;
  readonly mentions: number;
  readonly key: string;
}

interface ForgetDeps {
  readonly client: pg.Client;
  /** Of the CLI: store, keys and database. */
  readonly settings: Readonly<Record<string, string>>;
  readonly fact: (text: string) => void;
  readonly live: (text: string) => void;
}

const report = z.object({
  standing: z.string(),
  live: z.object({ tables: z.array(z.object({ table: z.string(), rows: z.number() })) }).nullable(),
  backups: z.array(z.unknown()),
  seen: z.array(z.unknown()),
});
const erased = z.object({ id: z.string(), status: z.string(), rows: z.array(z.object({ rows: z.number() })) });
const rewritten = z.object({
  backups: z.number(),
  segments: z.number(),
  left: z.array(z.object({ name: z.string(), why: z.string().nullable() })),
});
const pruned = z.object({ refused: z.string().nullable(), removed: z.number() });
const certificate = z.object({
  searched: z.object({ objects: z.number() }),
  mentions: z.array(z.unknown()),
  signature: z.object({ key: z.string() }),
});

/** Whose rows those of a table without a key to people are; and that others' tags on an entry go with it. */
const map = {
  version: 1,
  users: [{ table: "public.events", column: "user_id" }],
  tables: [{ table: "public.entry_tags", rows: "owned" }],
};

/** Somebody without recordings, since Storage is gone by then. Returns a line of the summary. */
export async function forgetSomebody(
  screen: Screen,
  { people, voiceNotes }: SampleApp,
  client: pg.Client,
  settings: Readonly<Record<string, string>>,
): Promise<[string, string][]> {
  screen.step("15 A person asks to be forgotten");
  const began = performance.now();
  const who = people.findLast(({ id }) => !voiceNotes.some((name) => name.startsWith(id)));
  if (who === undefined) throw new Error("everybody of the sample app has recordings");
  const forgotten = await forget({
    client,
    settings,
    fact: (text) => screen.fact(text),
    live: (text) => screen.live(text),
  }, who.id);
  const { rows, backups, segments, objects, mentions, key } = forgotten;
  screen.done(`${objects} objects were opened and searched: the certificate is signed with key ${key}`);
  const told =
    `${rows} rows at once, ${backups} backups and ${segments} segments rewritten, ${objects} objects searched, ${mentions} mentions, in ${
      seconds(performance.now() - began)
    }`;
  return [["erased", told]];
}

/** Errors where anything of it is not so. `user`: has no files. */
async function forget({ client, settings, fact, live }: ForgetDeps, user: string): Promise<Forgotten> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-demo-"));
  const file = join(folder, "backup.map.json");
  await writeFile(file, JSON.stringify(map));
  const run = async (shown: string, args: readonly string[], exits: readonly number[] = [0]) => {
    fact(`holdfast ${shown}`);
    return await holdfast(args, settings, live, exits);
  };
  const prune = async () => {
    const { refused, removed } = pruned.parse(await run("prune", ["prune", "--yes"]));
    if (refused !== null) throw new Error(`the prune was refused: ${refused}`);
    fact(`  ${removed} objects removed`);
  };
  try {
    const before = report.parse(await run("report <user>", ["report", user, "--map", file]));
    const held = (before.live?.tables ?? []).reduce((sum, { rows }) => sum + rows, 0);
    fact(`  ${held} rows of ${before.live?.tables.length} tables, and ${before.backups.length} backups hold them`);

    const done = erased.parse(await run("erase <user>", ["erase", user, "--map", file, "--yes"]));
    const rows = done.rows.reduce((sum, one) => sum + one.rows, 0);
    if (done.status !== "done" || rows < 1) throw new Error(`the erasure is ${done.status} with ${rows} rows`);
    await refusedBack(settings, user);
    fact("  restore-user refuses to bring them back: user_erased");

    await run("incremental", ["incremental"]);
    const first = rewritten.parse(await run("erase rewrite", ["erase", "rewrite", "--jobs", "2", "--yes"]));
    fact(`  ${first.backups} backups and ${first.segments} segments are sealed again without them`);
    await run("verify latest", ["verify", "latest"]);
    await prune();
    // A sweep looks twice, two days apart.
    fact("  two days go by: the demo moves its own records of what was condemned");
    await client.query("update backup.condemned set condemned_at = condemned_at - interval '3 days'");
    await prune();
    const last = rewritten.parse(await run("erase rewrite", ["erase", "rewrite", "--yes"]));
    const [left] = last.left;
    if (left !== undefined) throw new Error(`${last.left.length} objects are left: ${left.name}, ${left.why}`);

    const proof = certificate.parse(await run("erase certificate <erasure>", ["erase", "certificate", done.id]));
    const after = report.parse(await run("report <user>", ["report", user]));
    if (after.standing !== "erased" || after.backups.length > 0) {
      throw new Error(`the report says ${after.standing}, with ${after.backups.length} backups`);
    }
    return {
      rows,
      backups: first.backups,
      segments: first.segments,
      objects: proof.searched.objects,
      mentions: proof.mentions.length,
      key: proof.signature.key,
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function refusedBack(settings: Readonly<Record<string, string>>, user: string): Promise<void> {
  const told = await holdfast(["restore-user", user, "latest"], settings, () => {}, [1, 2, 3]);
  const { error } = z.object({ error: z.object({ code: z.string() }) }).parse(told);
  if (error.code !== "user_erased") throw new Error(`restore-user said ${error.code}`);
}
