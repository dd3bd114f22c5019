/** What can be restored, found from the store and the keys alone. */
import { epochSource } from "../../crypto/epochs.ts";
import { HoldfastError } from "../../errors.ts";
import { quarantineOf } from "../../format/manifest.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import { readRepository } from "../../format/repository.ts";
import { readAhead } from "../../store/read_ahead.ts";
import { listBackups, type OpenedBackup, type ReadDeps } from "../../verify/find_backup.ts";
import { inOrder, type ListedSegment, listSegments, withoutOpenEnd } from "./chain_reader.ts";
import { openSegment, type SegmentHeader } from "./segment.ts";

/** A chain as far as it can be followed. */
export interface KnownChain {
  readonly id: string;
  /** In order, whole transactions only. */
  readonly segments: readonly ListedSegment[];
  /** Of the last of them; null: there is none. */
  readonly last: SegmentHeader | null;
  /** The first segment that lies behind the end and cannot be reached: one between is missing. */
  readonly beyond: ListedSegment | null;
}

/** Every moment from `from` to `to` can be restored. ISO 8601. */
export interface TimelineWindow {
  readonly from: string;
  readonly to: string;
  readonly chain: string;
}

export interface Timeline {
  readonly windows: readonly TimelineWindow[];
  /** Between windows. */
  readonly gaps: readonly { readonly from: string; readonly to: string }[];
  readonly fulls: readonly { readonly id: string; readonly consistentAt: string; readonly chain: string | null }[];
}

/** The store's backups and chains, each opened once. */
export class ChangeHistory {
  /** Newest first. */
  readonly backups: readonly OpenedBackup[];
  readonly chains: ReadonlyMap<string, KnownChain>;

  private constructor(backups: readonly OpenedBackup[], chains: ReadonlyMap<string, KnownChain>) {
    this.backups = backups;
    this.chains = chains;
  }

  /** Opens every manifest and the last segment of every chain. Errors: those of keys and store, `manifest_damaged`, … */
  static async read(deps: ReadDeps): Promise<ChangeHistory> {
    const listed = await listBackups(deps.store);
    const repository = await readRepository(deps.store);
    if (repository === null || listed.length === 0) {
      throw new HoldfastError("backup_not_found", `${deps.store.label} holds no backup`);
    }
    const epochOf = epochSource(deps.store, deps.ring, repository.id);
    const openDeps = { compressor: deps.compressor, epochOf };
    const backups: OpenedBackup[] = [];
    for await (const { object, bytes } of readAhead(deps.store, listed)) {
      backups.push({ ...await openManifest(openDeps, object.name, bytes), epochOf });
    }
    // Names tell seconds only; two small backups can have the same one.
    backups.sort((a, b) => b.manifest.generation - a.manifest.generation);
    const chains = new Map<string, KnownChain>();
    for (const [id, segments] of await listSegments(deps.store)) {
      const ordered = inOrder(segments);
      const end = ordered.at(-1);
      if (end === undefined) continue;
      const last = await openSegment(openDeps, end.name, await deps.store.read(end.name));
      const whole = withoutOpenEnd(ordered, last);
      const wholeEnd = whole.at(-1);
      const header = wholeEnd === undefined
        ? null
        : wholeEnd === end
        ? last.header
        : (await openSegment(openDeps, wholeEnd.name, await deps.store.read(wholeEnd.name))).header;
      const beyond = segments.filter((one) => one.startLsn >= end.endLsn)
        .reduce<ListedSegment | null>(
          (least, one) => least === null || one.startLsn < least.startLsn ? one : least,
          null,
        );
      chains.set(id, { id, segments: whole, last: header, beyond });
    }
    return new ChangeHistory(backups, chains);
  }

  timeline(): Timeline {
    const fulls = [...this.backups].reverse().map(({ manifest }) => ({
      id: manifest.id,
      consistentAt: manifest.consistentAt,
      chain: manifest.chain ?? null,
    }));
    // What was quarantined is not restored from unasked.
    const suspicious = new Set(
      this.backups.filter((one) => quarantineOf(one.manifest) !== null).map((one) => one.manifest.id),
    );
    const windows: TimelineWindow[] = [];
    for (const chain of this.chains.values()) {
      const first = fulls.find((full) => full.chain === chain.id && !suspicious.has(full.id));
      if (first === undefined || chain.last === null || chain.last.takenAt <= first.consistentAt) continue;
      windows.push({ from: first.consistentAt, to: chain.last.takenAt, chain: chain.id });
    }
    windows.sort((a, b) => a.from < b.from ? -1 : 1);
    const gaps = windows.slice(1).flatMap((window, index) => {
      const before = windows[index];
      return before === undefined || before.to >= window.from ? [] : [{ from: before.to, to: window.from }];
    });
    return { windows, gaps, fulls };
  }
}

/** `from … to`, one a line; for messages. */
export function describeWindows({ windows }: Timeline): string {
  if (windows.length === 0) return "no moment between full backups";
  return windows.map((window) => `${window.from} to ${window.to}`).join(", ");
}
