/** The order of all commits as PostgreSQL's own decoder tells it through a slot of the test's own. */
import { ask } from "./point_client.ts";

export interface Ordered {
  readonly xid: number;
  /** Where the commit's record begins and ends. */
  readonly startLsn: bigint;
  readonly endLsn: bigint;
  /** Microseconds since 1970. */
  readonly at: bigint;
}

const name = (database: string) => `oracle_${database}`;

/** Before the history; the role must be allowed to make slots. */
export async function watchOrder(url: string, database: string): Promise<void> {
  await ask(url, "create publication oracle for table app.ledger with (publish = 'insert')");
  await ask(url, `select pg_create_logical_replication_slot('${name(database)}', 'pgoutput')`);
}

/** Every commit that wrote to the ledger since. Ends the watch. */
export async function readOrder(url: string, database: string): Promise<Ordered[]> {
  const rows = await ask(
    url,
    `select data from pg_logical_slot_peek_binary_changes('${name(database)}', null, null,
       'proto_version', '1', 'publication_names', 'oracle') where get_byte(data, 0) in (66, 67)`,
  );
  await ask(url, `select pg_drop_replication_slot('${name(database)}')`);
  const ordered: Ordered[] = [];
  let xid = 0;
  for (const { data } of rows) {
    if (!(data instanceof Uint8Array)) throw new Error("a message is no bytes");
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    // Protocol 1 of logical replication. Begin: position, time, id. Commit: flags, position, end, time.
    if (data[0] === 66) xid = view.getUint32(17);
    else {
      const at = view.getBigInt64(18) + 946_684_800_000_000n;
      ordered.push({ xid, startLsn: view.getBigUint64(2), endLsn: view.getBigUint64(10), at });
    }
  }
  return ordered;
}
