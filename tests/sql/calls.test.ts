import { Buffer } from "node:buffer";
import { createHash, createHmac, randomBytes } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkSignature } from "../../src/shared/http/caller.ts";
import { fillVault, installedCluster, rolledBack, scalar, session, sqlstate, workerSecret } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

interface Queued {
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
  readonly text: string;
}

async function queued(requestId: string | null): Promise<Queued> {
  const { rows } = await postgres.query(
    "select url, headers, encode(body, 'hex') as body, q::text as whole from net.http_request_queue as q where id = $1",
    [requestId],
  );
  const [row] = rows as { url: string; headers: string; body: string; whole: string }[];
  if (row === undefined) throw new Error("the request is not in the queue");
  return { url: row.url, headers: JSON.parse(row.headers), body: Buffer.from(row.body, "hex"), text: row.whole };
}

describe("backup.invoke", () => {
  it("signs function, time, nonce and body as stock HMAC-SHA256 does, and as the function checks it", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const id = await scalar(postgres, `select backup.invoke('backup', '{"action": "leg", "ü": "ßé🔒"}')`);
      const call = await queued(id);
      expect(call.url).toBe("http://127.0.0.1:9/functions/v1/backup");
      const issued = call.headers["x-holdfast-timestamp"] ?? "";
      const nonce = call.headers["x-holdfast-nonce"] ?? "";
      const lines = ["backup", issued, nonce, createHash("sha256").update(call.body).digest("hex")].join("\n");
      expect(call.headers["x-holdfast-signature"]).toBe(
        createHmac("sha256", workerSecret).update(lines).digest("hex"),
      );
      const headers = new Headers(call.headers);
      const body = Uint8Array.from(call.body);
      const checked = { functionName: "backup", headers, body, secret: workerSecret, now: new Date() };
      expect((await checkSignature(checked)).nonce).toBe(nonce);
      await expect(checkSignature({ ...checked, functionName: "verify" })).rejects.toMatchObject({
        code: "unauthorised",
      });
    });
  });

  it("never puts the secret into the queue", async () => {
    await rolledBack(postgres, async () => {
      const secret = randomBytes(30).toString("base64url");
      await fillVault(postgres, secret);
      const call = await queued(await scalar(postgres, `select backup.invoke('backup', '{"action": "leg"}')`));
      for (const form of [secret, Buffer.from(secret).toString("hex"), Buffer.from(secret).toString("base64")]) {
        expect(call.text).not.toContain(form);
        expect(call.body.toString()).not.toContain(form);
      }
      expect(call.headers["authorization"]).toBeUndefined();
    });
  });

  it.each([
    ["no secret", "delete from vault.secrets where name = 'holdfast_worker_secret'"],
    ["no address", "delete from vault.secrets where name = 'holdfast_project_url'"],
    [
      "a short secret",
      "select vault.update_secret(id, 'short') from vault.secrets where name = 'holdfast_worker_secret'",
    ],
    ["an empty address", "select vault.update_secret(id, '') from vault.secrets where name = 'holdfast_project_url'"],
    [
      "an address with a path",
      "select vault.update_secret(id, 'https://x.test/functions') from vault.secrets where name = 'holdfast_project_url'",
    ],
  ])("raises setting_missing and queues nothing with %s in Vault", async (_what, spoil) => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await postgres.query(spoil);
      const before = await scalar(postgres, "select count(*) from net.http_request_queue");
      expect(await sqlstate(postgres, `select backup.invoke('backup', '{}')`)).toBe("HF002");
      expect(await scalar(postgres, "select count(*) from net.http_request_queue")).toBe(before);
    });
  });
});

describe("backup.accept_call", () => {
  const later = "now() + interval '5 minutes'";

  it("accepts a nonce once, also for a call that backup.invoke announced", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const id = await scalar(postgres, `select backup.invoke('backup', '{"action": "leg"}')`);
      const nonce = (await queued(id)).headers["x-holdfast-nonce"];
      const accept = `select backup.accept_call($1, 'backup', ${later})`;
      expect(await scalar(postgres, accept, [nonce])).toBe("t");
      expect(await scalar(postgres, accept, [nonce])).toBe("f");
      await postgres.query("select backup.end_call($1, 'done')", [nonce]);
      expect(await scalar(postgres, accept, [nonce])).toBe("f");
      expect(await scalar(postgres, accept, ["signed-elsewhere-0001"])).toBe("t");
      expect(await scalar(postgres, accept, ["signed-elsewhere-0001"])).toBe("f");
    });
  });

  it("refuses a nonce that was announced for another function, and a call that is past its time", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const id = await scalar(postgres, `select backup.invoke('backup', '{"action": "leg"}')`);
      const nonce = (await queued(id)).headers["x-holdfast-nonce"];
      expect(await scalar(postgres, `select backup.accept_call($1, 'verify', ${later})`, [nonce])).toBe("f");
      const late = "select backup.accept_call('signed-elsewhere-0002', 'backup', now() - interval '1 second')";
      expect(await scalar(postgres, late)).toBe("f");
    });
  });

  it("lets one of two sessions through that bring the same nonce at the same time", async () => {
    const other = await session(await installedCluster());
    const accept = `select backup.accept_call('signed-elsewhere-0003', 'backup', ${later})`;
    try {
      await rolledBack(other, async () => {
        expect(await scalar(other, accept)).toBe("t");
        await postgres.query("begin; set local lock_timeout = '200ms'");
        try {
          expect(await sqlstate(postgres, accept), "the second waits for the first to end").toBe("55P03");
        } finally {
          await postgres.query("rollback");
        }
      });
    } finally {
      await other.end();
    }
  });
});
