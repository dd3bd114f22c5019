/** `keys shred <epoch>`: makes an epoch unreadable for ever. */
import { putAnchor } from "../shared/audit/anchor.ts";
import { currentEpoch, openEpoch } from "../shared/crypto/epochs.ts";
import { epochIdPattern } from "../shared/crypto/epoch.ts";
import {
  mayBeShredded,
  placesOfCopies,
  type SealedByEpoch,
  sealedByEpoch,
  shredEpoch,
} from "../shared/crypto/shred_epoch.ts";
import { HoldfastError } from "../shared/errors.ts";
import { parseManifestName } from "../shared/format/layout.ts";
import { readRepository } from "../shared/format/repository.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { isOurNonce, readStanding } from "../shared/identity/identity_queries.ts";
import { claimAnew, lastClaim, type PlaceDeps, placeIn } from "../shared/identity/settle_place.ts";
import { call } from "../shared/jobs/call.ts";
import { readCopyLag } from "../shared/jobs/copy_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";
import { keyRing } from "./open.ts";
import { openStores } from "./open_store.ts";
import type { Outcome } from "./output.ts";

interface Losses {
  readonly backups: readonly { readonly id: string; readonly createdAt: string; readonly tier: string }[];
  readonly segments: number;
  readonly anchors: number;
  /** Backups of other epochs that keep their own moment and lose later ones. */
  readonly moments: readonly string[];
  /** Places of databases that are copies of this one: what they know of from before they were copied goes for them, too. */
  readonly copies: readonly string[];
}

/** Where this database writes in the store, and in what else has the key files. */
interface Places {
  readonly prefix: string;
  /** The stores as they are set. */
  readonly tops: readonly Store[];
  readonly store: Store;
  readonly copies: readonly Store[];
}

/**
 * A copy has keys of its own, below its prefix: those at the top are the original's, which alone knows what needs them.
 * Errors: `forbidden` while it is in doubt whose the place is, `setting_missing` for a second store that is not set here.
 */
async function placesOf(context: Context, session: Connection): Promise<Places> {
  const tops = await openStores(context);
  const { prefix, isOriginal, adopting } = await readStanding(session);
  if (adopting || (!isOriginal && prefix === "")) {
    throw new HoldfastError("forbidden", "this database may be a copy: whose the keys are is not settled yet", {
      hint: "`holdfast incremental` settles it; `holdfast status` shows it then.",
    });
  }
  const [store, ...copies] = tops.map((top) => placeIn(top, prefix));
  if (store === undefined) throw new HoldfastError("setting_missing", "--store is not set");
  const known = (await readCopyLag(session))?.store;
  if (known !== undefined && ![...tops.slice(1), ...copies].some(({ label }) => label === known)) {
    throw new HoldfastError(
      "setting_missing",
      `the second store, ${known}, has the key file as well, and is not set here`,
      {
        hint: "Set BACKUP_SECONDARY as the functions have it.",
      },
    );
  }
  return { prefix, tops, store, copies };
}

/**
 * The document: `{epoch, done, backups[{id, createdAt, tier}], segments, anchors, moments[], copies[]}`. Errors: `forbidden` for
 * the newest epoch and where it is in doubt whose the keys are, `object_missing` for one that is not there, `epoch_needed`
 * while something needs it and --with-backups does not say that it may go, and for one that another place has the key file
 * of, `run_state` for a hold, a restore or a backup that is under way.
 */
export async function shred(context: Context, epoch: string | undefined): Promise<Outcome> {
  const { settings } = context;
  if (epoch === undefined || !epochIdPattern.test(epoch)) {
    throw new HoldfastError("usage", "keys shred takes the id of an epoch, as `keys list` shows it");
  }
  const { clock, random, log } = context;
  // Before the session: whoever shreds has to hold the keys of what stays.
  const ring = await keyRing(settings);
  const compressor = await loadZstd();
  const session = await installedSession(context, "holdfast:keys");
  try {
    const places = await placesOf(context, session);
    const { store, copies } = places;
    const deps = { store, ring, clock, random, log, compressor };
    await refuseStrangers(deps, session);
    const repository = await readRepository(store);
    if (repository === null || !(await mayBeShredded(store, epoch))) return await goneAlready(session, epoch);
    const below = await copiesOf(places, epoch);
    const sealed = await look(context, store, epoch);
    const losses = { ...await lossesOf(session, epoch, sealed), copies: below };
    const lines = shown(epoch, losses);
    const document = { epoch, done: false, ...losses };
    if (settings.has("dry-run")) return { exit: 0, document, lines };
    requireConsent(context, epoch, losses);
    if (!settings.has("yes")) {
      context.note(lines.join("\n"));
      if (!(await context.confirm("What is listed can never be read again.", epoch))) {
        const missing = new HoldfastError("confirmation_missing", "nothing was shredded");
        return { exit: missing.exit, document: { ...document, ...missing.toDocument() }, lines: [missing.message] };
      }
    }
    const { segments, anchors } = sealed;
    const facts = JSON.stringify({ backups: losses.backups.map(({ id }) => id), segments, anchors });
    await call(session, "select backup.begin_shredding($1, $2::jsonb)", [epoch, facts]);
    // The order itself is anchored, and the store claimed, under an epoch that stays, before those of this one go.
    if (sealed.claims.length > 0) await claimAnew(deps, session);
    await putAnchor({ ...deps, connection: session }, await currentEpoch(deps, repository.id));
    await refuseNew(context, store, epoch, sealed);
    await call(session, "select backup.forget_epoch($1, $2::jsonb)", [epoch, facts]);
    // The store by which a call that was broken off is gone on with comes last.
    await shredEpoch([...copies, store], epoch, sealed);
    await refuseOpening(store, ring, repository.id, epoch);
    await call(session, "select backup.end_shredding($1)", [epoch]);
    return {
      exit: 0,
      document: { ...document, done: true },
      lines: [
        ...lines,
        `The key file of ${epoch} is gone, and that was looked at. Its objects open for nobody any more.`,
      ],
    };
  } finally {
    await session.close();
  }
}

/** Errors: `forbidden` where another database was the last to say that it writes there. */
async function refuseStrangers(at: PlaceDeps, session: Connection): Promise<void> {
  const last = await lastClaim(at);
  if (last === null || (last.claim !== null && await isOurNonce(session, last.claim.nonce))) return;
  throw new HoldfastError(
    "forbidden",
    `another database writes to ${at.store.label}: what needs its keys it alone knows`,
    {
      hint: "Shred with the database that writes there; `holdfast status` shows where this one does.",
    },
  );
}

/** Errors: `epoch_needed` where the epoch would open by another key file. */
async function copiesOf({ tops, prefix }: Places, epoch: string): Promise<string[]> {
  const found = new Set<string>();
  for (const top of tops) {
    const { prefixes, keyFiles } = await placesOfCopies(top, prefix, epoch);
    const [other] = keyFiles;
    if (other !== undefined) {
      throw new HoldfastError("epoch_needed", `${top.label} has the key file of ${epoch} once more, as ${other}`, {
        hint:
          "What the epoch sealed would open by it. Look whose it is and remove it, then run the same command again.",
      });
    }
    for (const one of prefixes) found.add(one);
  }
  return [...found].sort();
}

/** One that was broken off at its very end is told to the audit now. */
async function goneAlready(session: Connection, epoch: string): Promise<Outcome> {
  const [row] = await call(session, "select backup.end_shredding($1) as ended", [epoch]);
  if (row?.["ended"] !== "t") {
    throw new HoldfastError("object_missing", `the store has no epoch ${epoch}`, {
      hint: "`keys list` shows those that are there.",
    });
  }
  const nothing: Losses = { backups: [], segments: 0, anchors: 0, moments: [], copies: [] };
  return {
    exit: 0,
    document: { epoch, done: true, ...nothing },
    lines: [`${epoch} was shredded; its end is in the audit.`],
  };
}

async function look({ progress }: Context, store: Store, epoch: string): Promise<SealedByEpoch> {
  const sealed = await sealedByEpoch(
    store,
    epoch,
    (done, total) => progress.update({ label: "looking who needs it", done, total, unit: "objects" }),
  );
  progress.clear();
  return sealed;
}

async function lossesOf(session: Connection, epoch: string, sealed: SealedByEpoch): Promise<Omit<Losses, "copies">> {
  const needs = await call(
    session,
    `select n.id from backup.epoch_needs($1, array(select pg_catalog.json_array_elements_text($2::json))) as n
      where n.what = 'moments' order by n.id`,
    [epoch, JSON.stringify(sealed.segments)],
  );
  return {
    backups: sealed.manifests.flatMap((name) => {
      const backup = parseManifestName(name);
      return backup === null ? [] : [{ ...backup, createdAt: backup.createdAt.toISOString() }];
    }),
    segments: sealed.segments.length,
    anchors: sealed.anchors.length,
    moments: needs.map((row) => row["id"] ?? ""),
  };
}

function shown(epoch: string, { backups, segments, anchors, moments, copies }: Losses): string[] {
  return [
    backups.length + segments === 0 ? `Nothing needs ${epoch} any more.` : `With ${epoch} these become unreadable:`,
    ...backups.map(({ id, createdAt, tier }) => `  backup ${id} of ${createdAt}, ${tier}`),
    ...(segments === 0 ? [] : [`  ${segments} segments of the change stream`]),
    ...moments.map((id) => `  moments after backup ${id}, which stays`),
    ...(anchors === 0 ? [] : [`  ${anchors} anchors of the audit: a newer one is put first`]),
    ...(backups.length + segments === 0
      ? []
      : copies.map((prefix) => `  the same for the copy that writes below ${prefix}: its own backups there stay`)),
  ];
}

function requireConsent({ settings }: Context, epoch: string, { backups, segments }: Losses): void {
  const typed = settings.get("with-backups");
  if (typed !== undefined && typed !== epoch) {
    throw new HoldfastError("confirmation_wrong", "--with-backups names another epoch", {
      hint: `Type the id of the epoch that is to go: ${epoch}`,
    });
  }
  if (backups.length + segments > 0 && typed === undefined) {
    throw new HoldfastError(
      "epoch_needed",
      `${backups.length} backups and ${segments} segments need epoch ${epoch}`,
      { hint: `--dry-run lists them; \`--with-backups ${epoch}\` lets them go with it.` },
    );
  }
}

/** What was sealed with it meanwhile, by somebody who had it open. Errors: `run_state`; the key file is there still. */
async function refuseNew(context: Context, store: Store, epoch: string, before: SealedByEpoch): Promise<void> {
  const now = await look(context, store, epoch);
  const all = ({ manifests, segments, anchors, claims }: SealedByEpoch) =>
    [manifests, segments, anchors, claims].flat();
  const known = new Set(all(before));
  const fresh = all(now).find((name) => !known.has(name));
  if (fresh === undefined) return;
  throw new HoldfastError("run_state", `${fresh} was sealed with epoch ${epoch} meanwhile`, {
    hint: "Nothing was removed from the store; run the same command again.",
  });
}

/** Read back: the epoch must not open any more. Errors: `store_lied`. */
async function refuseOpening(
  store: Store,
  ring: Parameters<typeof openEpoch>[1],
  repository: string,
  epoch: string,
): Promise<void> {
  const opened = await openEpoch(store, ring, repository, epoch).then(() => true, () => false);
  if (opened) throw new HoldfastError("store_lied", `${store.label} still gives the key file of epoch ${epoch}`);
}
