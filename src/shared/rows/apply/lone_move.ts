import { compared, type Pair } from "./difference.ts";

/**
 * To follow a difference. Where one row moves, and none comes or goes, nobody can swap a value with it: it is changed where it
 * stands, so that whoever waits for it finds it. So no service waits for the e-mail address of one person. Pure.
 */
export function withoutLoneMove(pair: Pair): string[] {
  const { delta, fit } = pair;
  const key = new Set(fit.key?.map(({ name }) => name));
  const always = new Set(fit.live.columns.filter((one) => one.always && !key.has(one.name)).map(({ name }) => name));
  if (fit.live.pinned.length === 0 || compared(pair).some((one) => always.has(one.live))) return [];
  return [
    `update ${delta} as d set "moves" = false where d."moves" and not d."done" and not exists (
       select from ${delta} as o where not o."done" and (o."moves" or o."action" <> 'update') and o.ctid <> d.ctid
     )`,
  ];
}
