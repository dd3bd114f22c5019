/** The things that settings name: databases, keys, the store. Nothing is connected to yet. */
import { readFile } from "node:fs/promises";
import { type KeyRing, parseKeyRing } from "../shared/crypto/key_ring.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { readDatabaseUrl } from "../shared/postgres/database_url.ts";
import { type DatabaseOptions, openDatabase } from "../shared/postgres/pg_connection.ts";
import type { Context } from "./context.ts";
import { parseDotenv } from "./dotenv.ts";
import type { OptionName } from "./options.ts";
import { readSettingFile, type Settings } from "./settings.ts";

interface DatabaseSettings {
  readonly url: OptionName;
  readonly ca: OptionName;
  readonly passwordFile: OptionName;
}

const source: DatabaseSettings = { url: "db-url", ca: "db-ca", passwordFile: "db-password-file" };
const target: DatabaseSettings = {
  url: "target-db-url",
  ca: "target-db-ca",
  passwordFile: "target-db-password-file",
};

const drill: DatabaseSettings = {
  url: "drill-db-url",
  ca: "drill-db-ca",
  passwordFile: "drill-db-password-file",
};

/** Errors: `setting_missing`, `usage`. */
export async function sourceDatabase(context: Pick<Context, "settings" | "note">): Promise<Database> {
  const options = await sourceOptions(context);
  warnOfPlain(context, options, source);
  return openDatabase(options);
}

/** Null when --target-db-url is not set. */
export async function targetDatabase(context: Pick<Context, "settings" | "note">): Promise<Database | null> {
  const options = await targetOptions(context);
  if (options === null) return null;
  warnOfPlain(context, options, target);
  return openDatabase(options);
}

/** What opens the source; plain data, so that it can be handed to a worker. */
export async function sourceOptions(context: Pick<Context, "settings" | "note">): Promise<DatabaseOptions> {
  return await databaseOptions(context, source);
}

export async function targetOptions(context: Pick<Context, "settings" | "note">): Promise<DatabaseOptions | null> {
  return context.settings.get(target.url) === undefined ? null : await databaseOptions(context, target);
}

/** The server that drills restore into; null: that of the source. */
export async function drillOptions(context: Pick<Context, "settings" | "note">): Promise<DatabaseOptions | null> {
  if (context.settings.get(drill.url) === undefined) return null;
  const options = await databaseOptions(context, drill);
  warnOfPlain(context, options, drill);
  return options;
}

/** BACKUP_KEYS, or the file of --keys-file. Errors: `key_missing`, `key_malformed`, `usage`. */
export async function keyRing(settings: Settings): Promise<KeyRing> {
  return parseKeyRing(await keysText(settings));
}

/** The file may hold the value alone, or the line that `keygen` prints. Undefined: not set anywhere. */
export async function keysText(settings: Settings): Promise<string | undefined> {
  const inline = settings.variable("BACKUP_KEYS");
  const file = settings.get("keys-file");
  if (inline !== undefined || file === undefined) return inline;
  const text = await readSettingFile(file, "keys-file");
  return parseDotenv(text).get("BACKUP_KEYS") ?? text.trim();
}

async function databaseOptions(
  context: Pick<Context, "settings" | "note">,
  names: DatabaseSettings,
): Promise<DatabaseOptions> {
  const { settings } = context;
  const url = settings.need(names.url);
  if (settings.isFlag(names.url) && /^\w+:\/\/[^/@]*:[^/@]+@/.test(url)) {
    context.note(
      `warning: a password in --${names.url} shows in process lists; use PGPASSWORD or --${names.passwordFile}`,
    );
  }
  const passwordFile = settings.get(names.passwordFile);
  const password = passwordFile === undefined
    ? settings.variable("PGPASSWORD")
    : await readSettingFile(passwordFile, names.passwordFile);
  const ca = settings.get(names.ca) ?? rootCertificateOf(url);
  return {
    url,
    ...(password === undefined ? {} : { password }),
    ...(ca === undefined ? {} : { caPem: await readCertificates(ca, names.ca) }),
  };
}

/** No word on TLS and no authority to check it against means none; `sslmode=disable` is a decision. */
function warnOfPlain(context: Pick<Context, "note">, options: DatabaseOptions, names: DatabaseSettings): void {
  const { host, tls } = readDatabaseUrl(options.url);
  const isNear = host.startsWith("/") || host === "localhost" || host === "::1" || host.startsWith("127.");
  if (isNear || tls !== "verified_if_ca" || options.caPem !== undefined) return;
  context.note(
    `warning: the connection to ${host} is not encrypted; give its certificate authority with --${names.ca}`,
  );
}

/** What libpq and the Supabase CLI read from the URL itself. */
function rootCertificateOf(url: string): string | undefined {
  const query = url.split("?")[1];
  const path = query === undefined ? null : new URLSearchParams(query).get("sslrootcert");
  return path === null || path === "" || path === "system" ? undefined : path;
}

async function readCertificates(path: string, option: OptionName): Promise<string> {
  // The stack's settings and CI secrets hold the certificate itself.
  if (path.includes("-----BEGIN CERTIFICATE-----")) return path;
  const text = await readFile(path, "utf8").catch(() => "");
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new HoldfastError("usage", `the file of --${option} holds no certificate`, { hint: `Check the path: ${path}` });
}
