import { verifyAudit } from "../../shared/audit/verify_audit.ts";
import { epochSource } from "../../shared/crypto/epochs.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { readRepository } from "../../shared/format/repository.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { readStanding } from "../../shared/identity/identity_queries.ts";
import { placeIn } from "../../shared/identity/settle_place.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStores } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";

interface Entry {
  readonly id: number;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly detail: unknown;
}

/** Actions that change what is set, by their first word. */
const changes = ["admin", "schedule", "policy", "setting", "objective", "install", "key", "map"];
const rowsAtOnce = 1000;

/**
 * The document of `show`: `[{id, at, actor, action, subject, detail}]`, newest first; of `export`: the same, oldest first; of
 * `verify`: `{ok, tampered[], rewound[{from, to}], anchors, anchoredTo}`, with exit 3 where it is not ok; of `security`: `{ok,
 * findings[{kind, subject, severity, message, firstSeen}]}`, with exit 3 where one is more than information.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "show"] = context.words;
  if (what === "verify") return await verify(context);
  if (what === "security") return await security(context);
  if (what !== "show" && what !== "export") {
    throw new HoldfastError("usage", "audit takes `show`, `export`, `verify` or `security`");
  }
  const kind = context.settings.get("kind");
  if (kind !== undefined && kind !== "change") throw new HoldfastError("usage", "--kind takes `change`");
  const session = await installedSession(context, "holdfast:audit");
  try {
    return what === "show" ? await show(context, session, kind) : await exportAll(context, session, kind);
  } finally {
    await session.close();
  }
}

async function show(context: Context, session: Connection, kind: "change" | undefined): Promise<Outcome> {
  const limit = context.settings.integer("limit", 1, 100_000);
  const entries = await readEntries(session, kind, "order by l.id desc limit $2::int", [String(limit)]);
  const lines = entries.map((one) => [one.at, one.actor, one.action, one.subject, JSON.stringify(one.detail)]);
  return { exit: 0, document: entries, lines: lines.length === 0 ? ["The audit log is empty."] : columns(lines) };
}

/** All of it, oldest first, as JSON lines where no document is asked for. */
async function exportAll({ progress }: Context, session: Connection, kind: "change" | undefined): Promise<Outcome> {
  const all: Entry[] = [];
  for (;;) {
    const after = String(all.at(-1)?.id ?? 0);
    const some = await readEntries(session, kind, "and l.id > $2::bigint order by l.id limit $3::int", [
      after,
      String(rowsAtOnce),
    ]);
    all.push(...some);
    progress.update({ label: "reading the audit", done: all.length, total: null, unit: "rows" });
    if (some.length < rowsAtOnce) break;
  }
  progress.clear();
  return { exit: 0, document: all, lines: all.map((one) => JSON.stringify(one)) };
}

/** `rest` continues a `where`, with parameters from `$2` on. */
async function readEntries(
  session: Connection,
  kind: "change" | undefined,
  rest: string,
  values: readonly string[],
): Promise<Entry[]> {
  const rows = await session.query(
    `select l.id, to_char(l.recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, l.actor, l.action,
       l.subject, l.detail::text as detail
     from backup.audit_log as l where ($1::text[] is null or split_part(l.action, '.', 1) = any ($1::text[])) ${rest}`,
    [kind === undefined ? null : `{${changes.join(",")}}`, ...values],
  );
  return rows.map((row) => ({
    id: Number(row["id"]),
    at: row["at"] ?? "",
    actor: row["actor"] ?? "",
    action: row["action"] ?? "",
    subject: row["subject"] ?? "",
    detail: JSON.parse(row["detail"] ?? "{}") as unknown,
  }));
}

async function verify(context: Context): Promise<Outcome> {
  const tops = await openStores(context);
  const ring = await keyRing(context.settings);
  const compressor = await loadZstd();
  const session = await installedSession(context, "holdfast:audit");
  try {
    const { prefix } = await readStanding(session);
    // A copy anchors below its own prefix, and what it did before it was one is anchored at the top.
    const places = tops.flatMap((top) => [...new Set([top, placeIn(top, prefix)])]);
    const stores = await Promise.all(places.map(async (store) => {
      const repository = await readRepository(store);
      return { store, compressor, epochOf: epochSource(store, ring, repository?.id ?? "") };
    }));
    const verdict = await verifyAudit(session, stores);
    const { ok, tampered, rewound, anchors, anchoredTo } = verdict;
    const lines = [
      ...tampered.map((one) => `TAMPERED: ${one}`),
      ...rewound.map(({ from, to }) =>
        `rewound from ${from.at} (place ${from.place}) to ${
          to.at ?? "its beginning"
        } (place ${to.place}): the database was restored; acts between are gone from it`
      ),
      ok ? "The audit log is whole." : "The audit log is not whole.",
      `${anchors} anchors were compared; the last protects rows up to place ${anchoredTo}, later ones are not protected yet.`,
    ];
    return { exit: ok ? 0 : 3, document: verdict, lines };
  } finally {
    await session.close();
  }
}

async function security(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:audit");
  try {
    await session.query("select backup.audit_security()");
    const rows = await session.query(
      `select f.kind, f.subject, f.severity, f.message,
         to_char(f.first_seen at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first_seen
       from backup.findings as f where f.resolved_at is null
       order by array_position(array['critical', 'warning', 'info'], f.severity), f.kind, f.subject`,
    );
    const findings = rows.map((row) => ({
      kind: row["kind"] ?? "",
      subject: row["subject"] ?? "",
      severity: row["severity"] ?? "",
      message: row["message"] ?? "",
      firstSeen: row["first_seen"] ?? "",
    }));
    const ok = findings.every(({ severity }) => severity === "info");
    const lines = findings.map((one) => [one.severity, one.kind, one.subject, one.message]);
    return {
      exit: ok ? 0 : 3,
      document: { ok, findings },
      lines: [...columns(lines), ok ? "Nothing has to be done." : "Each finding is an alert until it is mended."],
    };
  } finally {
    await session.close();
  }
}
