/** What SQL says about each change, kept by triggers in a journal, beside what the stream says about it. */
import type { Begin, Commit, Message, Relation, RowChange, Value } from "../../src/shared/changes/decode/messages.ts";
import { unchanged } from "../../src/shared/changes/decode/messages.ts";
import { decodeMessage, messageKind, relationOf } from "../../src/shared/changes/decode/pgoutput.ts";
import { PeekReader } from "../../src/shared/changes/drain/peek_reader.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { expect } from "vitest";
import { query } from "../support/cluster.ts";

/** Installs the journal. `witness.watch(table)` makes a table's changes part of it. Rolled back work leaves no row. */
export const witnessSql = `
  create schema witness;
  create table witness.journal (
    id bigint generated always as identity, xid text default pg_current_xact_id()::text, op text,
    relation jsonb, old text[], new text[]
  );
  -- The columns as the output functions write them, whatever a cast to text would say.
  create function witness.columns_of(relation oid) returns table (num int, name text, key boolean, type oid, modifier int)
  language sql as $$
    select a.attnum, a.attname, c.relreplident = 'f' or exists (
        select from pg_index i where i.indrelid = relation and a.attnum = any (i.indkey)
          and (c.relreplident = 'd' and i.indisprimary and i.indimmediate or c.relreplident = 'i' and i.indisreplident)
      ), a.atttypid, a.atttypmod
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    order by a.attnum
  $$;
  create function witness.note() returns trigger language plpgsql as $$
  declare
    list text;
    old_values text[];
    new_values text[];
  begin
    select string_agg(format('case when num_nulls(($1).%1$I) = 0 then format(''%%s'', ($1).%1$I) end', c.name), ',' order by c.num)
      into list from witness.columns_of(tg_relid) c;
    if tg_op <> 'INSERT' then execute 'select array[' || coalesce(list, '') || ']::text[]' using old into old_values; end if;
    if tg_op <> 'DELETE' then execute 'select array[' || coalesce(list, '') || ']::text[]' using new into new_values; end if;
    insert into witness.journal (op, relation, old, new) select lower(tg_op),
      jsonb_build_object('oid', tg_relid::bigint, 'schema', tg_table_schema, 'name', tg_table_name,
        'identity', (select relreplident from pg_class where oid = tg_relid),
        'columns', (select coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'typeOid', c.type::bigint,
          'typeModifier', c.modifier, 'isKey', c.key) order by c.num), '[]') from witness.columns_of(tg_relid) c)),
      old_values, new_values;
    return null;
  end
  $$;
  create function witness.watch(relation regclass) returns void language plpgsql as $$
  begin
    execute format('create trigger witness after insert or update or delete on %s for each row execute function witness.note()', relation);
  end
  $$;
`;

export interface Peeked {
  readonly lsn: bigint;
  readonly xid: number;
  readonly message: Message;
}

/** All that the slot holds, in small pieces. The first looks without decoding must agree with the whole decode. */
export async function peek(url: string, slot: string, publications: string): Promise<Peeked[]> {
  const connection = await openDatabase({ url }).connect("holdfast:test");
  try {
    const list: Peeked[] = [];
    const reader = new PeekReader((lsn, xid, data) => {
      const message = decodeMessage(data);
      expect(messageKind(data)).toBe(message.kind);
      expect(relationOf(data)).toBe(tableOf(message));
      list.push({ lsn, xid, message });
    });
    await connection.copyOut(
      `copy (select lsn, xid, data from pg_catalog.pg_logical_slot_peek_binary_changes('${slot}', null, null,
         'proto_version', '1', 'publication_names', '${publications}', 'messages', 'true')) to stdout (format binary)`,
      (bytes) => {
        for (let at = 0; at < bytes.length; at += 1000) reader.push(bytes.subarray(at, at + 1000));
      },
    );
    reader.end();
    return list;
  } finally {
    await connection.close();
  }
}

function tableOf(message: Message): number | null {
  if (message.kind === "relation") return message.relation.oid;
  return "relation" in message ? message.relation : null;
}

interface Noted {
  readonly xid: string;
  readonly op: string;
  readonly relation: Omit<Relation, "identity"> & { readonly identity: string };
  readonly old: (string | null)[] | null;
  readonly new: (string | null)[] | null;
}

export interface StreamTransaction {
  readonly begin: Begin;
  readonly commit: Commit;
  /** With the table as the stream described it last before the change. */
  readonly changes: readonly { readonly change: RowChange; readonly relation: Relation }[];
  readonly others: readonly Message[];
}

/** The stream's transactions in commit order; anything out of place fails the test. */
export function transactionsOf(peeked: readonly Peeked[]): StreamTransaction[] {
  const known = new Map<number, Relation>();
  const done: StreamTransaction[] = [];
  let open: { begin: Begin; changes: StreamTransaction["changes"][number][]; others: Message[] } | null = null;
  for (const { lsn, xid, message } of peeked) {
    if (message.kind === "begin") {
      expect(open).toBeNull();
      open = { begin: message, changes: [], others: [] };
      expect(message.xid).toBe(xid);
      continue;
    }
    if (message.kind === "message" && !message.transactional) continue;
    if (open === null) throw new Error(`${message.kind} outside of a transaction`);
    expect(xid).toBe(open.begin.xid);
    if (message.kind === "commit") {
      expect(message.commitLsn).toBe(open.begin.commitLsn);
      expect(message.committedAt).toBe(open.begin.committedAt);
      expect(message.endLsn).toBe(lsn);
      expect(message.endLsn > message.commitLsn).toBe(true);
      done.push({ ...open, commit: message });
      open = null;
    } else if (message.kind === "relation") known.set(message.relation.oid, message.relation);
    else if (message.kind === "insert" || message.kind === "update" || message.kind === "delete") {
      const relation = known.get(message.relation);
      if (relation === undefined) throw new Error("a change of a table that was not described");
      open.changes.push({ change: message, relation });
    } else open.others.push(message);
  }
  expect(open).toBeNull();
  return done;
}

/**
 * The stream says what the journal says: the same transactions, committed at the server's own times, each with the same
 * changes in the same order, of tables described as the catalog did at that moment. Returns the stream's transactions.
 */
export async function expectStreamIsJournal(url: string, slot: string, publications: string) {
  const transactions = transactionsOf(await peek(url, slot, publications));
  const journal = await query(
    url,
    "select xid, op, relation, old, new from witness.journal order by id",
  ) as unknown as Noted[];
  const withChanges = transactions.filter(({ changes }) => changes.length > 0);
  expect(journal.length).toBeGreaterThan(0);
  // Identity nothing, and a table without a key: such tables are published for inserts alone.
  const published = journal.filter(({ op, relation }) => op === "insert" || relation.columns.some((c) => c.isKey));
  expect(withChanges.map(({ begin }) => String(begin.xid)).sort()).toEqual(
    [...new Set(published.map(({ xid }) => xid))].sort(),
  );
  for (const { begin, changes } of withChanges) {
    const noted = published.filter(({ xid }) => xid === String(begin.xid));
    expect(changes.map(({ change }) => change.kind)).toEqual(noted.map(({ op }) => op));
    changes.forEach((seen, index) => expectChange(seen, noted[index]));
  }
  const times = await query(
    url,
    `select xid, (extract(epoch from pg_xact_commit_timestamp(xid::xid)) * 1000000)::bigint::text as at
     from unnest($1::text[]) as xid`,
    [transactions.map(({ begin }) => String(begin.xid))],
  );
  expect(transactions.map(({ begin }) => ({ xid: String(begin.xid), at: String(begin.committedAt) }))).toEqual(times);
  return transactions;
}

function expectChange({ change, relation }: StreamTransaction["changes"][number], noted: Noted | undefined): void {
  if (noted === undefined) throw new Error("a change that the journal does not have");
  expect({ ...relation, identity: relation.identity[0] }).toEqual(noted.relation);
  const keys = relation.columns.map(({ isKey }) => isKey);
  const keyOf = (row: readonly (string | null)[]) => row.map((value, index) => keys[index] ? value : null);
  const before = noted.old ?? [];
  if (change.kind !== "delete") {
    const row = change.row.map((value, index) => (value === unchanged ? before[index] : value) ?? null);
    expect(row).toEqual(noted.new);
  }
  if (change.kind === "insert") return;
  const whole = relation.identity === "full";
  const moved = change.kind === "delete" || String(keyOf(before)) !== String(keyOf(noted.new ?? []));
  const old: { what: string; values: readonly Value[] } | null = whole
    ? { what: "row", values: before }
    : moved
    ? { what: "key", values: keyOf(before) }
    : null;
  expect(change.old).toEqual(old);
}
