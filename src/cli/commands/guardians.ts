import { openOrCreateRepository } from "../../shared/format/repository.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { readIdentity } from "../../shared/identity/identity_queries.ts";
import { placeIn } from "../../shared/identity/settle_place.ts";
import { listGuardians, readGuardian } from "../../shared/privacy/guardian.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";

const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** `list`: an array of requests, without a name; `show`: `{request, guardian{name, reach, relation}, asks, identityBy, saidOn, statement}`. */
export async function run(context: Context): Promise<Outcome> {
  const [what, request] = context.words;
  if (what === "list" && request === undefined) return await list(context);
  if (what === "show" && request !== undefined && idPattern.test(request)) return await show(context, request);
  throw new HoldfastError("usage", "guardians takes `list`, or `show` and the id of a request");
}

async function list(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:guardians");
  try {
    const rows = await listGuardians(session, context.settings.integer("limit", 1, 10_000));
    const lines = rows.map((row) =>
      ["id", "status", "asks", "relation", "identity_by", "said_on", "erasure"].map((name) => row[name] ?? "-")
    );
    return {
      exit: 0,
      document: rows,
      lines: rows.length === 0 ? ["No guardian has asked for anything."] : columns(lines),
    };
  } finally {
    await session.close();
  }
}

async function show(context: Context, request: string): Promise<Outcome> {
  const { settings, clock, random } = context;
  const session = await installedSession(context, "holdfast:guardians");
  try {
    const { prefix } = await readIdentity(session);
    const store = placeIn(await openStore(context), prefix);
    const { id: repositoryId } = await openOrCreateRepository({ store, clock, random });
    const deps = {
      connection: session,
      store,
      ring: await keyRing(settings),
      compressor: await loadZstd(),
      repositoryId,
    };
    const { child: _, ...said } = await readGuardian(deps, request);
    const { guardian: { name, reach, relation }, asks, identityBy, saidOn, statement } = said;
    return {
      exit: 0,
      document: { request, ...said },
      lines: [
        `${name} (${relation}), ${reach}`,
        `asked for ${asks.join(" and ")} on ${saidOn}, known by ${identityBy}`,
        "",
        statement,
      ],
    };
  } finally {
    await session.close();
  }
}
