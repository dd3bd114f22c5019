import type { Connection } from "./connection.ts";

/** `work` and its COMMIT, or a ROLLBACK. The session is in no transaction. Errors: those of `work` and of the connection. */
export async function inTransaction<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  await connection.execute("begin");
  try {
    const result = await work();
    await connection.execute("commit");
    return result;
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}
