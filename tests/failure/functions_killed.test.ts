/** Functions that the platform ends in the middle of a backup, at each named point of a run. */
import { describe, expect, it } from "vitest";
import { type Project, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, fill);

async function fill({ query }: Project): Promise<void> {
  await query(
    `create table public.letters (id int primary key, body text not null);
     insert into letters select i, repeat(md5(i::text), 16) from generate_series(1, 60000) as i;
     create table public.stamps (letter int references letters, at timestamptz default now());
     insert into stamps select i from generate_series(1, 5000) as i;
     create table public.nothing (i int)`,
  );
}

/** Otherwise the next backup takes everything over and reads nothing. */
async function change({ query }: Project): Promise<void> {
  await query("update letters set body = body || 'x' where id % 40 = 0; update stamps set at = now()");
}

const points = [
  { at: "attempt.exported", attempts: 2 },
  { at: "attempt.planned", attempts: 1 },
  { at: "chunk.read", attempts: 1 },
  { at: "chunk.put", attempts: 1 },
  { at: "chunk.recorded", attempts: 1 },
  { at: "counts.recorded", attempts: 1 },
  { at: "manifest.put", attempts: 1 },
] as const;

describe("a backup whose function is killed", () => {
  for (const { at, attempts } of points) {
    it(`at ${at} goes on and succeeds, in the ${attempts === 1 ? "same snapshot" : "next snapshot"}`, async () => {
      await change(project());
      const kill = await project().killAt(`step:${at}`);
      const { run, joined } = await project().startBackup();
      expect(joined).toBe(false);
      await kill.fired();
      const ended = await project().ended(run);
      expect(ended, await project().story(run)).toMatchObject({
        status: "succeeded",
        attempt: attempts,
        error_code: null,
      });
      expect(await project().verify(run)).toMatchObject({ ok: true, problems: [], rows: Number(ended.rows) });
    });
  }
});
