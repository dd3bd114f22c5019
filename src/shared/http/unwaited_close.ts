import type { Connection, Database } from "../postgres/connection.ts";

/**
 * The same sessions, whose `close` says goodbye without waiting until the server has heard it. Over TLS the wait is a
 * whole second on Deno 2.1.4, and a leg of a function lasts one or two.
 */
export function unwaitedClose(database: Database): Database {
  return {
    label: database.label,
    connect: async (applicationName) => unwaited(await database.connect(applicationName)),
  };
}

function unwaited(inner: Connection): Connection {
  return {
    processId: inner.processId,
    serverVersion: inner.serverVersion,
    query: (text, values) => inner.query(text, values),
    execute: (text) => inner.execute(text),
    copyOut: (text, onData) => inner.copyOut(text, onData),
    copyIn: (text, source) => inner.copyIn(text, source),
    close: () => {
      // Never throws, and is bounded in time by itself.
      void inner.close();
      return Promise.resolve();
    },
  };
}
