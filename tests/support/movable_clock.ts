/** The clock of a server's processes, moved while they run: Debian's libfaketime in front of the C library. */
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureFaketime } from "../../src/local/packages.ts";

export interface MovableClock {
  /** What the server's processes need in their environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** So many seconds from this machine's clock, from the next look at the clock on; whole seconds. */
  move(seconds: number): void;
  remove(): void;
}

/** As far from the machine's as it is told; only the time of day: what measures how long something takes goes on evenly. */
export function movableClock(): MovableClock {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-clock-"));
  chmodSync(folder, 0o755);
  const file = join(folder, "offset");
  /** Whole, so that no process reads half of it. */
  const move = (seconds: number) => {
    writeFileSync(`${file}.new`, `${seconds < 0 ? "-" : "+"}${Math.abs(seconds)}\n`, { mode: 0o644 });
    renameSync(`${file}.new`, file);
  };
  move(0);
  return {
    move,
    environment: {
      LD_PRELOAD: ensureFaketime(),
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      // The times of files stay as they are: a look at the sizes of all files would read the offset for each.
      NO_FAKE_STAT: "1",
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
