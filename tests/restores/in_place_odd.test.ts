/** Definitions that are rarely altered by hand, undone by a restore in place. The oracle is pg_dump, and the rows as COPY writes them. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs } from "../support/cluster.ts";
import { ask, Ground, type Place, restoredAsItWas } from "./in_place_fixture.ts";
import { oddChanges, oddSql } from "./in_place_odd_subject.ts";

let ground: Ground;
beforeAll(async () => {
  ground = await Ground.prepare(false, oddSql);
}, clusterMs);
afterAll(() => ground?.cluster.destroy(), clusterMs);

const ids = (place: Place) =>
  ask(
    place,
    `select c.oid::regclass::text as name, c.oid::text, c.relacl::text, c.xmin::text,
            (select array_agg(a.attname || a.attacl::text || a.xmin order by a.attnum) from pg_attribute as a where a.attrelid = c.oid) as columns,
            (select array_agg(r.rulename || r.oid || r.xmin order by r.oid) from pg_rewrite as r where r.ev_class = c.oid and r.rulename <> '_RETURN') as rules,
            (select array_agg(t.tgname || t.oid || t.xmin order by t.oid) from pg_trigger as t where t.tgrelid = c.oid) as triggers
       from pg_class as c where c.relnamespace = 'odd'::regnamespace and c.relkind in ('v', 'm') order by 1`,
  );

describe("a view that differs", () => {
  it("is replaced where it stands: grants, triggers, rules, defaults and what stands on it are not touched", async () => {
    const place = await ground.changed("");
    const before = await ids(place);
    await ask(
      place,
      `create or replace view odd.open_noted with (security_barrier = true, check_option = local) as select id, "The Name", number from odd.noted where id > 5;
       create or replace view odd.of_key as select id, "The Name" from odd.noted where id > 1;
       grant select on odd.counted to anon; revoke select on odd.counted from anon; drop function odd.secret, odd.standard`,
    );
    const changed = await ids(place);
    const { first } = await restoredAsItWas(place, ground.kept);
    expect(
      first.steps.filter((step) => step.kind === "view").map((
        { phase, action, identity },
      ) => [phase, action, identity]),
    )
      .toEqual([["before", "alter", "view odd.open_noted"], ["after", "alter", "view odd.of_key"]]);
    const fixed = (rows: Record<string, unknown>[]) => rows.map(({ name, oid, relacl }) => ({ name, oid, relacl }));
    expect(fixed(await ids(place))).toEqual(fixed(before));
    const untouched = (rows: Record<string, unknown>[]) =>
      rows.map(({ name, columns, rules, triggers, xmin }) =>
        name === "odd.open_noted" || name === "odd.of_key"
          ? { name, columns, rules, triggers }
          : { name, columns, rules, triggers, xmin }
      );
    expect(untouched(await ids(place))).toEqual(untouched(changed));
  });

  it("is dropped and made again where its columns do not allow that, with what stands on it and all its grants", async () => {
    const place = await ground.changed(
      `create or replace view odd.open_noted as select id, "The Name", number, tags from odd.noted; create view odd.fresh as select tags from odd.open_noted`,
    );
    const { first, extra } = await restoredAsItWas(place, ground.kept);
    const dropped = first.steps.filter(({ action }) => action === "drop").map(({ identity }) => identity);
    expect(dropped).toContain("view odd.open_noted");
    expect(first.steps.find(({ identity }) => identity === "view odd.fresh")?.reason).toMatch(
      /stands on view odd.open_noted/,
    );
    expect(extra).toEqual([]);
  });

  it("is dropped where what it uses, then or now, is made anew", async () => {
    const place = await ground.changed(
      `alter table odd.typed add extra integer; create or replace view odd.of_key as select id, "The Name" from odd.noted where exists (select from odd.typed where extra > 0)`,
    );
    const { last } = await restoredAsItWas(place, ground.kept);
    expect(last.steps).toEqual([]);
  });
});

describe("a restore in place", () => {
  it("drops a schema that came since only when no column is of its types any more", async () => {
    const place = await ground.changed(
      `create schema fresh; create type fresh.mood as enum ('x'); alter table odd.typed drop constraint typed_mood_check;
       alter table odd.typed alter mood drop default; alter table odd.typed alter mood type fresh.mood using null`,
    );
    const { extra, emptied } = await restoredAsItWas(place, ground.kept, { dropExtra: true });
    expect([extra, emptied]).toEqual([[], []]);
  });

  it("drops what is computed before what it is computed from", async () => {
    const place = await ground.changed("alter table odd.computed rename a to amount");
    await restoredAsItWas(place, ground.kept, { sameDatabase: false });
  });

  it("empties a table whose values do not fit although a publication refuses to delete them", async () => {
    const place = await ground.changed(
      `alter table odd.seen drop constraint seen_region_at_id_fkey; alter table odd.seen alter id type text;
       insert into odd.seen values ('eu', '2024-01-01', 'no number'); create publication theirs for table odd.seen`,
    );
    await expect(ask(place, "delete from odd.seen")).rejects.toMatchObject({ code: "55000" });
    const { emptied, last } = await restoredAsItWas(place, ground.kept);
    expect([emptied, last.kept.map(({ identity }) => identity)]).toEqual([["odd.seen"], ["publication theirs"]]);
  });
});

/** One change of each area at a time, which takes a fraction of the time of each by itself; those that move everything alone. */
function rounds(): [string, string][] {
  const { alone = {}, ...areas } = oddChanges;
  const lists = Object.values(areas).map((changes) => Object.entries(changes));
  const together = Array.from({ length: Math.max(...lists.map((list) => list.length)) }, (_, at) => {
    const chosen = lists.flatMap((list) => list.slice(at, at + 1));
    return [chosen.map(([name]) => name).join("; "), chosen.map(([, sql]) => sql).join(";")] as [string, string];
  });
  return [...together, ...Object.entries(alone)];
}

describe("a restore in place undoes changes of", () => {
  it.each(rounds())("%s", async (_, changes) => {
    const place = await ground.changed(changes);
    const { first, last } = await restoredAsItWas(place, ground.kept);
    expect(first.steps.length).toBeGreaterThan(0);
    expect(last.steps).toEqual([]);
  });
});
