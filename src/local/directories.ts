import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { stackDirectory } from "./unprivileged.ts";

/** A file system in memory, on Linux. */
const memory = "/dev/shm";
/** Of both the file system and the machine; a cluster has 100 MB, and with a gigabyte of WAL that a slot holds back the most. */
const enoughBytes = 6 * 1024 ** 3;

/**
 * A new directory below the stack's, named after this process, so that a later one can tell what was left behind by one
 * that is gone, and removes it. What need not be `durable` is kept in memory where there is plenty of it: making and
 * removing the thousands of files of a cluster costs a disk's file system more than PostgreSQL's own work.
 */
export function newDirectory(subject: "clusters" | "stacks", durable: boolean): string {
  const place = durable || !plentyOfMemory() ? stackDirectory() : join(memory, `holdfast-${process.getuid?.() ?? 0}`);
  const all = join(place, subject);
  mkdirSync(all, { recursive: true, mode: 0o755 });
  for (const name of readdirSync(all)) {
    const owner = /^of-(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) rmSync(join(all, name), { recursive: true, force: true });
  }
  const directory = mkdtempSync(join(all, `of-${process.pid}-`));
  // The server's user has to get in.
  chmodSync(directory, 0o755);
  return directory;
}

function plentyOfMemory(): boolean {
  if (!existsSync(memory)) return false;
  const { bavail, bsize } = statfsSync(memory);
  return Math.min(bavail * bsize, freemem()) >= enoughBytes;
}
