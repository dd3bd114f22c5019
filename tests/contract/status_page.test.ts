/** The status page in a bucket, on a server that checks signatures: served as what it is, read back, told where it cannot be put. */
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { openStatusPage } from "../../src/shared/incidents/publish_page.ts";
import { type PageContent, withIncident } from "../../src/shared/incidents/status_page.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { s3Place } from "../../src/shared/store/s3_call.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";

let server: S3Server;
beforeAll(async () => {
  server = await startS3Server();
});
afterAll(() => server.close());

const at = "2026-01-01T10:00:00Z";
const content: PageContent = withIncident(null, "We are on it.", at);

function opened(more: Record<string, string> = {}) {
  const variables: Record<string, string> = {
    BACKUP_STATUS_PAGE: `s3://${server.bucket}/status?endpoint=${encodeURIComponent(server.endpoint)}`,
    BACKUP_STATUS_PAGE_S3_ACCESS_KEY_ID: server.accessKeyId,
    BACKUP_STATUS_PAGE_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
    ...more,
  };
  const deps = { fetch, clock: systemClock, random: webCryptoRandom };
  const page = openStatusPage((name) => variables[name], deps);
  if (page === null) throw new Error("no page is set up");
  return page;
}

describe("the status page in a bucket", () => {
  it("is there as HTML and JSON, asked for anew each time, and is replaced by the next one", async () => {
    const page = opened();
    expect(await page.present()).toBeNull();
    await page.put(content, at);
    expect(await page.present()).toEqual(content);
    const { bucketUrl, send } = s3Place({ ...server, prefix: "" }, { fetch, clock: systemClock });
    for (const [name, type] of [["status.json", "application/json"], ["status.html", "text/html"]] as const) {
      const answer = await send("GET", `${bucketUrl}/status/${name}`);
      expect(answer.status, name).toBe(200);
      expect(answer.headers.get("content-type"), name).toContain(type);
      expect(answer.headers.get("cache-control"), name).toBe("no-cache");
      expect(new TextDecoder().decode(answer.body), name).toContain("We are on it.");
    }
    const next = withIncident(content, "Nearly done.", "2026-01-01T11:00:00Z");
    await page.put(next, "2026-01-01T11:00:00Z");
    expect(await page.present()).toEqual(next);
  });

  it("is a failure where the store refuses, and its credentials are in no message", async () => {
    const page = opened({ BACKUP_STATUS_PAGE_S3_SECRET_ACCESS_KEY: "another-secret-key" });
    const failure = await page.put(content, at).then(() => null, (error: unknown) => error);
    expect(failure).toMatchObject({ code: "store_denied" });
    expect(String(failure)).not.toContain("another-secret-key");
  });
});

describe("the status page in a folder", () => {
  it("is readable for whoever serves it, whatever this process keeps to itself", async () => {
    const parent = mkdtempSync(join(tmpdir(), "holdfast-page-"));
    const before = process.umask(0o077);
    try {
      const page = opened({ BACKUP_STATUS_PAGE: `file://${parent}/public` });
      for (const time of [at, "2026-01-01T11:00:00Z"]) {
        await page.put(content, time);
        for (const name of ["status.json", "status.html"]) {
          expect((statSync(join(parent, "public", name)).mode & 0o777).toString(8), name).toBe("644");
        }
      }
      expect((statSync(join(parent, "public")).mode & 0o777).toString(8)).toBe("755");
      expect(readdirSync(join(parent, "public")).sort()).toEqual(["status.html", "status.json"]);
    } finally {
      process.umask(before);
      rmSync(parent, { recursive: true, force: true });
    }
  });
});
