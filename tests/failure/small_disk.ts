/** A disk of a set size for a test's server: a file system in memory of its own, as full as the server makes it. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmdirSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { serverUser } from "../../src/local/unprivileged.ts";

const prefix = "holdfast-disk-of-";

export interface SmallDisk {
  /** Belongs to the server's user. */
  readonly directory: string;
  usedBytes(): number;
  freeBytes(): number;
  /** Never below what is used. */
  resize(bytes: number): void;
  /** Once the server has no file there any more. A second call does nothing. */
  remove(): void;
}

/**
 * Mounts it, which takes root and the right to mount, in a container as well. Throws where that is refused: without a
 * disk that is really full nothing is shown. What a process that was killed left mounted goes with the next call.
 */
export function makeSmallDisk(bytes: number): SmallDisk {
  removeLeftovers();
  const directory = mkdtempSync(join(tmpdir(), `${prefix}${process.pid}-`));
  const { uid, gid } = serverUser();
  const options = `size=${bytes},mode=0700,uid=${uid},gid=${gid}`;
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", options, "holdfast-disk", directory], { encoding: "utf8" });
  if (mounted.status !== 0) {
    rmdirSync(directory);
    const reason = mounted.error?.message ?? mounted.stderr.trim();
    throw new Error(`this test fills a disk of its own, and mounting one was refused; run it as root: ${reason}`);
  }
  let there = true;
  const statistics = () => statfsSync(directory);
  return {
    directory,
    usedBytes: () => {
      const { blocks, bfree, bsize } = statistics();
      return (blocks - bfree) * bsize;
    },
    freeBytes: () => {
      const { bfree, bsize } = statistics();
      return bfree * bsize;
    },
    resize: (size) => void execFileSync("mount", ["-o", `remount,size=${size}`, directory]),
    remove: () => {
      if (!there) return;
      there = false;
      unmount(directory);
    },
  };
}

/** Lazily, so that nothing stays mounted even where a server still holds a file. */
function unmount(directory: string): void {
  execFileSync("umount", ["-l", directory]);
  rmdirSync(directory);
}

function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = name.startsWith(prefix) ? /^(\d+)-/.exec(name.slice(prefix.length))?.[1] : undefined;
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    const directory = join(tmpdir(), name);
    spawnSync("umount", ["-l", directory]);
    rmdirSync(directory);
  }
}
