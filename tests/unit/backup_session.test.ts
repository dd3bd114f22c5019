import { describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";

/** A server that answers the questions of `openSession`, and keeps what it was told. */
function server(facts: { version: number; standby: boolean }): Database & { told: string[]; closed: number } {
  const told: string[] = [];
  const place = {
    label: "stub",
    told,
    closed: 0,
    connect(): Promise<Connection> {
      return Promise.resolve({
        processId: 1,
        serverVersion: facts.version,
        query: () => Promise.resolve([{ standby: facts.standby ? "t" : "f" }]),
        execute: (text) => Promise.resolve(void told.push(text)),
        copyOut: () => Promise.reject(new Error("not here")),
        copyIn: () => Promise.reject(new Error("not here")),
        close: () => Promise.resolve(void place.closed++),
      });
    },
  };
  return place;
}

describe("a session of a backup", () => {
  it("is refused by a standby, whose snapshots list no running transactions", async () => {
    const standby = server({ version: 150020, standby: true });
    await expect(openSession(standby, "x")).rejects.toMatchObject({ code: "standby_refused" });
    expect(standby.closed).toBe(1);
  });

  it("is refused by a server older than 15", async () => {
    const old = server({ version: 140010, standby: false });
    await expect(openSession(old, "x")).rejects.toMatchObject({ code: "server_unsupported" });
    expect(old.closed).toBe(1);
  });

  it("turns off every time-out that its server knows", async () => {
    for (const [version, knows] of [[150020, false], [170010, true]] as const) {
      const primary = server({ version, standby: false });
      await openSession(primary, "x");
      const told = primary.told.join(";");
      expect(told).toContain("set statement_timeout = 0");
      expect(told).toContain("set idle_in_transaction_session_timeout = 0");
      expect(told).toContain("set client_connection_check_interval = 0");
      expect(told.includes("set transaction_timeout = 0")).toBe(knows);
    }
  });
});
