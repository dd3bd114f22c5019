import { readFileSync, writeFileSync } from "node:fs";

/** What the kernel says of one process. */
export interface Reading {
  /** CPU of the process's first thread, which is the one JavaScript runs on, over its whole life. */
  readonly cpuMs: number;
  readonly residentBytes: number;
  /** Highest resident size since the last `forgetPeak`. */
  readonly peakBytes: number;
}

/** Reads `/proc` (nanoseconds from schedstat, sizes from status); null once the process is gone. */
export function readProcess(pid: number): Reading | null {
  try {
    const schedstat = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8");
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return {
      cpuMs: Number(schedstat.split(" ", 1)[0]) / 1e6,
      residentBytes: kilobytes(status, "VmRSS:"),
      peakBytes: kilobytes(status, "VmHWM:"),
    };
  } catch {
    return null; // gone between two looks: the end is reported by the process's own exit
  }
}

/** A process that has no memory map any more (a zombie) has no such line and counts as zero. */
function kilobytes(status: string, field: string): number {
  const at = status.indexOf(field);
  return at < 0 ? 0 : Number.parseInt(status.slice(at + field.length), 10) * 1024;
}

/** Starts the peak anew, so that what the runtime needed to boot is not charged to the first request. */
export function forgetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // Gone, or a kernel without the file: the peak then includes the boot, which is only stricter.
  }
}
