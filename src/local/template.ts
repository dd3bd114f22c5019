import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { HoldfastError } from "../shared/errors.ts";
import { makeServerCertificate } from "./certificates.ts";
import { makeSources } from "./databases.ts";
import { initialise, settingsFile } from "./initdb.ts";
import { migrationFiles } from "./installed.ts";
import type { PostgresBinaries } from "./packages.ts";
import { installPlatform, platformFiles, setPasswords } from "./platform.ts";
import { freePort } from "./ports.ts";
import { Postmaster } from "./postmaster.ts";
import { pushMigrations } from "./push.ts";
import { stackDirectory } from "./unprivileged.ts";

/** A stopped cluster that others are copied from: making one takes seconds, copying it a fraction of one. */
export interface Template {
  readonly dataDirectory: string;
  readonly caFile: string;
  /** Of the superuser, until the copy gets passwords of its own. */
  readonly password: string;
}

/** Raised when what the code below writes into a data directory changes. */
const layout = 2;

const dayMs = 86_400_000;

/**
 * `plain`: PostgreSQL and nothing else. `platform`: what a hosted project has. `sources`: that, and the databases that
 * `createDatabase` copies from. `installed`: the platform, and Holdfast in `postgres` as `supabase db push` leaves it.
 */
export type TemplateKind = "plain" | "platform" | "sources" | "installed";

/** The role that owns a cluster. */
export function superuserOf(platform: boolean): "supabase_admin" | "postgres" {
  return platform ? "supabase_admin" : "postgres";
}

/**
 * The template for these programs, made when there is none yet. Kept in the stack's directory under a hash of all that
 * shapes it, so a changed file of `platform/`, or a changed migration where they are in it, makes a new one. Two processes at once may both make it; one is kept.
 */
export async function templateFor(binaries: PostgresBinaries, kind: TemplateKind): Promise<Template> {
  const templates = join(stackDirectory(), "templates");
  mkdirSync(templates, { recursive: true, mode: 0o755 });
  const directory = join(templates, keyOf(binaries, kind));
  if (!existsSync(directory)) {
    removeOld(templates);
    const partial = mkdtempSync(join(templates, "partial-"));
    try {
      await make(partial, binaries, kind);
      renameSync(partial, directory);
    } catch (error) {
      if (!existsSync(directory)) throw error;
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }
  return at(directory, readFileSync(join(directory, "password"), "utf8"));
}

/** Those of earlier versions of the code, and what an interrupted process left; a day old, so that nobody uses them now. */
function removeOld(templates: string): void {
  for (const name of readdirSync(templates)) {
    const old = join(templates, name);
    if (statSync(old).mtimeMs < Date.now() - dayMs) rmSync(old, { recursive: true, force: true });
  }
}

/** Copies the template's data to `dataDirectory`, which must not exist. */
export function copyTemplate(template: Template, dataDirectory: string): void {
  const done = spawnSync("cp", ["-a", "--reflink=auto", template.dataDirectory, dataDirectory], { encoding: "utf8" });
  if (done.status !== 0) {
    throw new HoldfastError("internal", `copying the template failed: ${(done.stderr ?? "").trim()}`);
  }
}

function at(directory: string, password: string): Template {
  return { dataDirectory: join(directory, "data"), caFile: join(directory, "ca.pem"), password };
}

function keyOf(binaries: PostgresBinaries, kind: TemplateKind): string {
  const server = statSync(join(binaries.bin, "postgres"));
  const hash = createHash("sha256").update(
    JSON.stringify([layout, binaries.version, kind, server.size, server.mtimeMs]),
  );
  const files = [
    ...(kind === "plain" ? [] : platformFiles()),
    ...(kind === "sources" || kind === "installed" ? migrationFiles() : []),
  ];
  for (const file of files) hash.update(`${file.name}\n${file.sql}\n`);
  return `${binaries.version}-${kind}-${hash.digest("hex").slice(0, 16)}`;
}

async function make(directory: string, binaries: PostgresBinaries, kind: TemplateKind): Promise<void> {
  const platform = kind !== "plain";
  chmodSync(directory, 0o755);
  const password = randomBytes(24).toString("base64url");
  const template = at(directory, password);
  const certificate = makeServerCertificate("holdfast local PostgreSQL");
  const settings = settingsFile({
    cron: platform && binaries.version === 15,
    durable: false,
    // Nor pg_cron's: a job that ran here would be in the past of every copy.
    settings: { max_worker_processes: "0" },
  });
  const superuser = superuserOf(platform);
  initialise({ binaries, dataDirectory: template.dataDirectory, superuser, password, certificate, settings });
  writeFileSync(template.caFile, certificate.authority);
  writeFileSync(join(directory, "password"), password, { mode: 0o600 });
  if (!platform) return;
  const postmaster = new Postmaster(binaries, template.dataDirectory, join(directory, "server.log"));
  try {
    const port = await postmaster.start(await freePort(), false);
    const urlOf = (role: string, database: string) => `postgresql://${role}:${password}@127.0.0.1:${port}/${database}`;
    await installPlatform(urlOf(superuser, "postgres"));
    if (kind === "platform") return;
    await setPasswords(urlOf(superuser, "postgres"), { postgres: password });
    if (kind === "sources") await makeSources(urlOf);
    else await pushMigrations({ host: "127.0.0.1", port, caFile: template.caFile, password: () => password });
  } finally {
    await postmaster.stop("fast");
  }
}
