/** A project whose clock is moved: a server of its own, its functions in this process, two stores, people who are told. */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { generateIdentity, identityToRecipient } from "age-encryption";
import pg from "pg";
import { makeServerCertificate } from "../../src/local/certificates.ts";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";
import type { Clock } from "../../src/shared/clock.ts";
import { generateKey } from "../../src/shared/crypto/key_ring.ts";
import type { LogLine } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { movableClock } from "../support/movable_clock.ts";
import { type MailServer, type Receiver, startMailServer, startReceiver } from "../support/receivers.ts";
import { Cron } from "./quarter_cron.ts";
import { type Platform, sendQueued } from "./quarter_functions.ts";
import { Network } from "./quarter_network.ts";

export interface World {
  readonly cluster: Cluster;
  /** As `postgres`, the role that installed it. */
  readonly person: pg.Client;
  /** As the superuser: the platform's own. */
  readonly admin: pg.Client;
  readonly cron: Cron;
  readonly network: Network;
  readonly platform: Platform;
  readonly mail: MailServer;
  readonly hook: Receiver;
  /** Ids of the messages that the webhook's receiver took. */
  webhooks(): string[];
  /** Lines of the functions, the last some hundred. */
  readonly lines: LogLine[];
  now(): Date;
  /** The clock of the server, the functions and the stores; never backwards. */
  moveTo(moment: Date): void;
  /** Moves it on, as when something takes so long. */
  moveBy(seconds: number): void;
  rows(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  /** Sends what functions were called for, until nothing is left. */
  settle(): Promise<number>;
  destroy(): Promise<void>;
}

export const webhookSecret = `whsec_${Buffer.from("0123456789abcdef0123456789abcdef").toString("base64")}`;
const projectUrl = "https://quarterquarterquarte.supabase.co";
/** A pause without anybody to wake it is made short: a store that is down costs the same tries in less time. */
const longestPauseMs = 10;
const linesKept = 300;
const elsewhere = "without_jobs";

export async function startWorld(start: Date): Promise<World> {
  const shift = movableClock();
  let aheadSeconds = 0;
  const set = (seconds: number) => {
    aheadSeconds = Math.max(aheadSeconds, Math.ceil(seconds));
    shift.move(aheadSeconds);
  };
  const now = () => new Date(Date.now() + aheadSeconds * 1000);
  const moveTo = (moment: Date) => set((moment.getTime() - Date.now()) / 1000);
  moveTo(start);
  const cluster = await startCluster({
    version: 15,
    platform: true,
    prepared: "installed",
    durable: false,
    environment: shift.environment,
    settings: {
      // Jobs are started by quarter_cron.ts: pg_cron itself looks where there are none.
      "cron.database_name": elsewhere,
      // A moved clock would begin both with every move.
      autovacuum_naptime: "1d",
      checkpoint_timeout: "1d",
    },
  });
  const certificate = makeServerCertificate("receivers of a quarter");
  const [mail, hook] = [await startMailServer(certificate), await startReceiver(certificate)];
  const watcher = await startReceiver(certificate);
  const person = await sessionOf(cluster.plainUrl("postgres"));
  const admin = await sessionOf(cluster.plainUrl("supabase_admin"));
  await admin.query(`create database ${elsewhere} template template0`);
  const network = new Network(now, certificate.authority);
  const lines: LogLine[] = [];
  const platform: Platform = {
    environment: {
      SUPABASE_DB_URL: cluster.plainUrl("postgres"),
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: "unused",
      BACKUP_KEYS: generateKey(webCryptoRandom).entry,
      BACKUP_WORKER_SECRET: randomBytes(36).toString("base64url"),
      BACKUP_STORE: network.address("first"),
      BACKUP_S3_ACCESS_KEY_ID: "first",
      BACKUP_S3_SECRET_ACCESS_KEY: "first",
      BACKUP_SECONDARY: network.address("second"),
      BACKUP_SECONDARY_S3_ACCESS_KEY_ID: "second",
      BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: "second",
      BACKUP_RECIPIENTS: await identityToRecipient(await generateIdentity()),
      BACKUP_SMTP_URL: `smtps://holdfast:${encodeURIComponent(mail.password)}@localhost:${mail.port}`,
      BACKUP_SMTP_CA: certificate.authority,
      BACKUP_WEBHOOK_URL: `https://localhost:${hook.port}/hook`,
      BACKUP_WEBHOOK_SECRET: webhookSecret,
      BACKUP_HEARTBEAT_URL: `https://localhost:${watcher.port}/beat`,
      BACKUP_PRIVATE_CHANNELS: "1",
    },
    clock: clockOf(now),
    fetch: network.fetch,
    onLine: (line) => {
      lines.push(line);
      if (lines.length > linesKept) lines.shift();
    },
  };
  const { BACKUP_WORKER_SECRET: secret } = platform.environment;
  await person.query("select vault.create_secret($1, 'holdfast_project_url')", [projectUrl]);
  await person.query("select vault.create_secret($1, 'holdfast_worker_secret')", [secret]);
  return {
    cluster,
    person,
    admin,
    cron: new Cron(admin, person, now()),
    network,
    platform,
    mail,
    hook,
    webhooks: () => hook.taken.map(({ headers }) => headers["webhook-id"] ?? ""),
    lines,
    now,
    moveTo,
    moveBy: (seconds) => set(aheadSeconds + seconds),
    rows: async (text, values = []) =>
      (await person.query<Record<string, unknown>>(text, values.length > 0 ? [...values] : undefined)).rows,
    settle: () => sendQueued(admin, platform),
    async destroy() {
      await person.end();
      await admin.end();
      await mail.close();
      await hook.close();
      await watcher.close();
      await cluster.destroy();
      shift.remove();
    },
  };
}

async function sessionOf(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query("set timezone = 'UTC'");
  return client;
}

/** The moved time of day; durations are real, and those of pauses that were cut short are counted as if they had been made. */
function clockOf(now: () => Date): Clock {
  let skippedMs = 0;
  return {
    now,
    monotonicMs: () => performance.now() + skippedMs,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        // What waits for a signal is made to wait: it does something again and again meanwhile.
        const realMs = signal === undefined ? Math.min(ms, longestPauseMs) : ms;
        skippedMs += ms - realMs;
        const timer = setTimeout(() => {
          signal?.removeEventListener("abort", stop);
          resolve();
        }, realMs);
        function stop() {
          clearTimeout(timer);
          reject(signal?.reason);
        }
        signal?.addEventListener("abort", stop, { once: true });
      }),
  };
}
