import { describe, expect, it } from "vitest";
import { createLetIn } from "../../src/shared/http/people.ts";
import { createTurns } from "../../src/shared/http/turns.ts";
import { silentLog } from "../../src/shared/log.ts";
import type { Connection, Database, Row } from "../../src/shared/postgres/connection.ts";

/** All that is under way has gone as far as it can. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

describe("turns", () => {
  /** Work that ends when it is told to, by name, in the order in which it began. */
  function yard(bounds: { atOnce: number; waiting: number; waitingOfOne: number }) {
    const turns = createTurns(bounds);
    const [begun, ends] = [[] as string[], new Map<string, (error?: Error) => void>()];
    const take = (key: string, name: string) =>
      turns.take(key, () =>
        new Promise<string>((resolve, reject) => {
          begun.push(name);
          ends.set(name, (error) => error === undefined ? resolve(name) : reject(error));
        }));
    const end = async (name: string, error?: Error) => {
      ends.get(name)?.(error);
      await settled();
    };
    return { take, end, begun };
  }

  it("lets so many work at a time, and those with few calls between the calls of one with many", async () => {
    const { take, end, begun } = yard({ atOnce: 2, waiting: 10, waitingOfOne: 5 });
    const all = ["a1", "a2", "a3", "a4", "a5", "b1", "c1"].map((name) => take(name.charAt(0), name));
    expect(begun).toEqual(["a1", "a2"]);
    for (const name of ["a1", "a2", "a3", "b1", "c1", "a4", "a5"]) await end(name);
    expect(begun).toEqual(["a1", "a2", "a3", "b1", "c1", "a4", "a5"]);
    expect(await Promise.all(all)).toEqual(["a1", "a2", "a3", "a4", "a5", "b1", "c1"]);
    const after = take("d", "d1");
    expect(begun.at(-1)).toBe("d1");
    await end("d1");
    await after;
  });

  it("hands on the turn of work that failed", async () => {
    const { take, end, begun } = yard({ atOnce: 1, waiting: 10, waitingOfOne: 5 });
    const [failed, next] = [take("a", "a1"), take("b", "b1")];
    await Promise.all([expect(failed).rejects.toThrow("gone"), end("a1", new Error("gone"))]);
    expect(begun).toEqual(["a1", "b1"]);
    await end("b1");
    await next;
  });

  it("refuses at once whoever has too many waiting, and everybody when all have", async () => {
    const { take, end } = yard({ atOnce: 1, waiting: 3, waitingOfOne: 2 });
    const waiting = [take("a", "a1"), take("a", "a2"), take("a", "a3")];
    const full = { code: "too_many_calls", status: 429, waitSeconds: 2 };
    await expect(take("a", "a4")).rejects.toMatchObject(full);
    waiting.push(take("b", "b1"));
    await expect(take("c", "c1")).rejects.toMatchObject(full);
    await end("a1");
    waiting.push(take("c", "c2"));
    for (const name of ["a2", "b1", "a3", "c2"]) await end(name);
    await Promise.all(waiting);
  });
});

describe("people", () => {
  const person = (name: string) => ({ sub: name, session_id: name, aal: "aal2", amr: [] });

  /** Judges by name: `admin…` is let in, the others are not; holds the sessions that are open. */
  function house({ paused = 0 } = {}) {
    let [now, open, most, opened] = [0, 0, 0, 0];
    const told: unknown[] = [];
    const connection = (): Connection => ({
      processId: 1,
      serverVersion: 150000,
      query: async (text, values = []): Promise<Row[]> => {
        await settled();
        if (text.includes("note_refusal")) return told.push(...JSON.parse(values[0] ?? "[]")), [];
        const isAdmin = String(values[0]).includes(`"sub":"admin`);
        return [{ verdict: isAdmin ? "accepted" : "not_admin", pause: isAdmin ? "0" : String(paused) }];
      },
      execute: () => Promise.resolve(),
      copyOut: () => Promise.reject(new Error("not here")),
      copyIn: () => Promise.reject(new Error("not here")),
      close: () => Promise.resolve(void open--),
    });
    const database: Database = {
      label: "house",
      connect: () => {
        opened++;
        most = Math.max(most, ++open);
        return Promise.resolve(connection());
      },
    };
    const clock = { now: () => new Date(0), monotonicMs: () => now, sleep: () => Promise.resolve() };
    const letIn = createLetIn({ clock, log: silentLog });
    return {
      enter: (name: string) => letIn(() => database, person(name), "backup", "second factor"),
      sessions: () => ({ open, most, opened }),
      told,
      wait: (seconds: number) => now += seconds * 1000,
    };
  }

  it("who flood it take two sessions at a time; an administrator among them is let in, and keeps theirs", async () => {
    const { enter, sessions, told } = house();
    const crowd = Array.from({ length: 60 }, (_, at) => enter(`somebody ${at % 10}`));
    const admin = enter("admin");
    const outcomes = await Promise.allSettled(crowd);
    const codes = outcomes.map((one) => one.status === "rejected" ? one.reason.code : "let in");
    expect(new Set(codes)).toEqual(new Set(["forbidden"]));
    await admin;
    expect(sessions()).toEqual({ open: 1, most: 3, opened: 61 });
    expect(told).toEqual([]);
  });

  it("who send more than can wait are refused without a session, and counted with the next one", async () => {
    const { enter, sessions, told } = house();
    const outcomes = await Promise.allSettled(Array.from({ length: 30 }, () => enter("somebody")));
    const codes = outcomes.map((one) => one.status === "rejected" ? one.reason.code : "let in");
    expect(codes.filter((code) => code === "forbidden")).toHaveLength(10);
    expect(codes.filter((code) => code === "too_many_calls")).toHaveLength(20);
    expect(sessions()).toEqual({ open: 0, most: 2, opened: 10 });
    expect(told).toEqual([{ person: "somebody", function_name: "backup", reason: "too_many_calls", times: 20 }]);
  });

  it("who have to wait are told so without a session, and looked at again after some seconds", async () => {
    const { enter, sessions, told, wait } = house({ paused: 900 });
    const refused = (seconds: number) => ({ code: "too_many_refusals", waitSeconds: seconds });
    await expect(enter("somebody")).rejects.toMatchObject(refused(900));
    wait(4);
    for (let time = 0; time < 3; time++) await expect(enter("somebody")).rejects.toMatchObject(refused(896));
    expect(sessions().opened).toBe(1);
    wait(2);
    await expect(enter("somebody")).rejects.toMatchObject(refused(900));
    expect(sessions()).toMatchObject({ open: 0, opened: 2 });
    expect(told).toEqual([{ person: "somebody", function_name: "backup", reason: "paused", times: 3 }]);
  });
});
