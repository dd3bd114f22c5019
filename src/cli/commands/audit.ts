import { verifyAudit } from "../../shared/audit/verify_audit.ts";
import { epochSource } from "../../shared/crypto/epochs.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { readRepository } from "../../shared/format/repository.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
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
const changes = ["admin", "schedule", "policy", "setting", "install", "key", "map"];
const rowsAtOnce = 1000;

/**
 * The document of `show`: `[{id, at, actor, action, subject, detail}]`, newest first; of `export`: the same, oldest first; of
 * `verify`: `{ok, tampered[], rewound[{from, to}], anchors, anchoredTo}`, with exit 3 where it is not ok.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "show"] = context.words;
  if (what === "verify") return await verify(context);
  if (what !== "show" && what !== "export") {
    throw new HoldfastError("usage", "audit takes `show`, `export` or `verify`");
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
  const store = await openStore(context);
  const ring = await keyRing(context.settings);
  const repository = await readRepository(store);
  const session = await installedSession(context, "holdfast:audit");
  try {
    const anchorStore = {
      store,
      compressor: await loadZstd(),
      epochOf: epochSource(store, ring, repository?.id ?? ""),
    };
    const verdict = await verifyAudit(session, [anchorStore]);
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
