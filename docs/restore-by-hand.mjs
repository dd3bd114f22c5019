// Restores a backup of Holdfast into an empty PostgreSQL database without Holdfast: node 20, zstd and psql are enough.
//   BACKUP_KEYS=… PGHOST=… PGUSER=… PGPASSWORD=… PGDATABASE=… node restore-by-hand.mjs /path/of/the/store [id | latest]
// The role must be a superuser. A copy of the second store needs `age` and BACKUP_IDENTITIES. See restore-by-hand.md.
import { Buffer } from "node:buffer";
import { spawn, spawnSync } from "node:child_process";
import { createDecipheriv, createHash, hkdfSync } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";

const [folder = ".", wanted = "latest"] = process.argv.slice(2);
const env = { ...process.env, PGCLIENTENCODING: "UTF8" };
const fail = (message) => {
  throw new Error(message);
};
const identities = (process.env.BACKUP_IDENTITIES ?? "").replaceAll(",", "\n");
function read(name) {
  const bytes = readFileSync(`${folder}/${name}`);
  if (bytes.toString("latin1", 0, 21) !== "age-encryption.org/v1") return bytes;
  const age = spawnSync("age", ["-d", "-i", "-", `${folder}/${name}`], { input: identities, maxBuffer: 2 ** 31 });
  return age.status === 0 ? age.stdout : fail(`${name} is not opened by BACKUP_IDENTITIES: ${age.stderr ?? age.error}`);
}
const json = (bytes) => JSON.parse(bytes.toString("utf8"));
const b64 = (text) => Buffer.from(text, "base64url");
const quote = (name) => `"${name.replaceAll('"', '""')}"`;
const entries = (process.env.BACKUP_KEYS ?? "").split(",").map((entry) => entry.trim().split(":"));
const keys = new Map(entries.map(([id, key]) => [id, b64(key ?? "")]));
const repository = json(read("v1/repository.json")).id;

function aesGcm(key, nonce, ciphertext, tag, bound = Buffer.alloc(0)) {
  const cipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 }).setAuthTag(tag).setAAD(bound);
  return Buffer.concat([cipher.update(ciphertext), cipher.final()]);
}

// The data key of an epoch, out of a JWE in which each key of BACKUP_KEYS wraps the content key (format.md, "Epochs").
const dataKeys = new Map();
function dataKey(epoch) {
  if (dataKeys.has(epoch)) return dataKeys.get(epoch);
  const jwe = json(read(`v1/keys/${epoch}.jwe.json`));
  const header = json(b64(jwe.protected));
  const { version, ...facts } = header.holdfast;
  if (version !== 1) fail(`the key file of ${epoch} has version ${version}, this script reads version 1`);
  if (facts.epoch !== epoch || facts.repository !== repository) fail(`the key file of ${epoch} belongs elsewhere`);
  const usable = jwe.recipients.find((one) => one.header.alg === "A256GCMKW" && keys.has(one.header.kid));
  if (!usable) fail(`BACKUP_KEYS lacks ${jwe.recipients.map((one) => one.header.kid).join(" or ")}`);
  const { iv, tag, kid } = { ...header, ...usable.header };
  const contentKey = aesGcm(keys.get(kid), b64(iv), b64(usable.encrypted_key), b64(tag));
  const bound = Buffer.from(jwe.protected, "ascii");
  const secret = aesGcm(contentKey, b64(jwe.iv), b64(jwe.ciphertext), b64(jwe.tag), bound);
  dataKeys.set(epoch, Buffer.from(hkdfSync("sha256", secret, repository, "holdfast/v1/data", 32)));
  return dataKeys.get(epoch);
}

// The plaintext of a sealed object (format.md, "Sealed objects"), compared with the hash that the manifest has of it.
function open(name, kind, hash) {
  const bytes = read(name);
  if (bytes.toString("latin1", 0, 8) !== "HOLDFAST") fail(`${name} is not a sealed object`);
  if (bytes[8] !== 1) fail(`${name} has version ${bytes[8]}, this script reads version 1`);
  if (bytes[9] !== kind) fail(`${name} is of another kind`);
  const bound = Buffer.concat([bytes.subarray(0, 58), Buffer.from(repository + name)]);
  const key = dataKey(bytes.toString("latin1", 12, 38));
  let plain = aesGcm(key, bytes.subarray(38, 50), bytes.subarray(58, -16), bytes.subarray(-16), bound);
  if (bytes[10] === 1) {
    const zstd = spawnSync("zstd", ["-dcq"], { input: plain, maxBuffer: 2 ** 31 });
    if (zstd.status !== 0) fail(`${name} cannot be unpacked: ${zstd.stderr ?? zstd.error}`);
    plain = zstd.stdout;
  }
  if (plain.length !== Number(bytes.readBigUInt64BE(50))) fail(`${name} has another length than it says`);
  if (hash && createHash("sha256").update(plain).digest("hex") !== hash) fail(`${name} is not what the manifest says`);
  return plain;
}

function ask(sql) {
  const psql = spawnSync("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1"], { input: sql, env, encoding: "utf8" });
  const lines = psql.stdout.split("\n").filter((line) => line !== "");
  return { lines, error: psql.status === 0 ? null : psql.stderr };
}

const isWanted = (name) => wanted === "latest" || name.slice(-36).startsWith(wanted);
const fitting = readdirSync(`${folder}/v1/backups`).sort().filter(isWanted);
if (fitting.length !== 1 && (wanted !== "latest" || !fitting.length)) fail(`${fitting.length} backups fit ${wanted}`);
const manifest = json(open(`v1/backups/${fitting.at(-1)}/manifest`, 3));
if (manifest.version !== 1) fail(`the manifest has version ${manifest.version}, this script reads version 1`);
const capture = json(open(manifest.schemaObject.name, 2, manifest.schemaObject.hash));

const inTheWay = ask("select relname from pg_class where oid >= 16384 and relkind in ('r', 'p', 'v', 'm') limit 1");
if (inTheWay.error ?? inTheWay.lines[0]) fail(inTheWay.error ?? `the database is not empty: ${inTheWay.lines[0]}`);
const roles = new Set(ask("select rolname from pg_roles").lines);

// What this server cannot have, and all that needs it, is left out and named.
const missing = new Set();
const platformParts = capture.definitions.filter((one) => one.platform && one.kind !== "role");
const ofPlatform = new Set(platformParts.map((one) => one.identity));
function reasonToSkip(one) {
  const needed = [...one.dependsOn, one.table, one.kind === "cron job" ? "extension pg_cron" : null];
  if (needed.some((identity) => missing.has(identity))) return "it needs something that is left out";
  if (one.kind === "event trigger" && needed.some((name) => ofPlatform.has(name))) return "it does the platform's work";
  if (one.kind !== "extension") return null;
  const schema = quote(capture.extensions.find((extension) => extension.name === one.name).schema);
  const create = `create extension if not exists ${quote(one.name)} with schema ${schema} cascade`;
  return ask(`begin; create schema if not exists ${schema}; ${create}; rollback;`).error;
}
const definitions = capture.definitions.filter((one) => {
  const reason = one.kind === "role" && roles.has(one.name) ? "there already" : reasonToSkip(one);
  if (reason !== null && reason !== "there already") missing.add(one.identity);
  if (reason !== null) console.error(`not made: ${one.identity}: ${reason.trim().split("\n")[0]}`);
  return reason === null;
});
const skipped = capture.definitions.filter((one) => missing.has(one.identity));
const skippedNames = new Set(skipped.map((one) => `${one.schema}.${one.name}`));
const isThere = (one) => !skippedNames.has(`${one.schema}.${one.name}`) && one.dataOwner !== "extension pg_cron";

// One transaction, committed by the last statement sent: the database is restored whole or stays empty.
const psql = spawn("psql", ["-Xqo/dev/null", "-vON_ERROR_STOP=1"], { env, stdio: ["pipe", "inherit", "inherit"] });
const ended = once(psql, "close");
psql.stdin.on("error", () => {}); // psql ended early and has said why
async function send(data) {
  if (psql.exitCode === null && !psql.stdin.write(data)) await Promise.race([once(psql.stdin, "drain"), ended]);
}
async function run(statements) {
  for (const text of statements) await send(`${text}\n;\n`);
}
async function section(name, parts) {
  const wantedParts = (one) => one.kind === "schema" ? [...parts, "privileges"] : parts;
  for (const one of definitions.filter((each) => each.section === name)) {
    await run(wantedParts(one).flatMap((part) => one[part]));
  }
}
const settings = `client_encoding = 'UTF8'; search_path = ''; datestyle = 'ISO, YMD'; intervalstyle = 'postgres';
  timezone = 'UTC'; extra_float_digits = 3; bytea_output = 'hex'; lc_monetary = 'C'; xmloption = 'content';
  xmlbinary = 'base64'; row_security = off; standard_conforming_strings = on; check_function_bodies = off;
  statement_timeout = 0; client_min_messages = warning; default_toast_compression = pglz`;
await run(["begin", ...settings.split(";").map((setting) => `set ${setting}`)]);
for (const name of ["roles", "pre-data"]) await section(name, ["statements", "ownership"]);
for (const table of manifest.tables.filter(isThere)) {
  const columns = table.columns.map((column) => quote(column.name)).join(", ");
  for (const chunk of table.chunks) {
    await send(`copy ${quote(table.schema)}.${quote(table.name)} ${columns && `(${columns})`} from stdin;\n`);
    await send(Buffer.concat([open(chunk.object, 1, chunk.hash), Buffer.from("\\.\n")]));
  }
}
await section("post-data", ["statements", "ownership"]);
await run(capture.sequences.filter(isThere).map((one) => one.setValueSql));
for (const name of ["roles", "pre-data", "post-data"]) await section(name, ["privileges"]);
await section("last", ["statements", "ownership", "privileges"]);
await run(["commit"]);
psql.stdin.end();
const [code] = await ended;
if (code !== 0) fail(`psql ended with ${code}; the database is as it was`);
console.error(`restored backup ${manifest.id}: the state of ${manifest.consistentAt}, ${manifest.totals.rows} rows`);
