import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

interface Document {
  readonly ok: boolean;
  readonly rawBytes: number;
}

/** How many raw bytes a second does `verify` with two workers read from a folder? Of a backup of its own, or of `store`. */
export async function verify(setting: Setting, rounds: number, report: Report, store?: string): Promise<void> {
  const folder = temporaryFolder("verify");
  try {
    const place = store ?? join(folder.path, "store");
    if (store === undefined) {
      await measure(ours(setting, ["init"], place));
      await measure(ours(setting, ["create", "--tier", "manual", "--wait"], place));
    }
    let rawBytes = 0;
    for (let round = 0; round < rounds; round++) {
      const verified = await measure(ours(setting, ["verify", "latest", "--jobs", "2"], place));
      report.run("holdfast verify --jobs 2, file store", verified.wallMs, verified.peakBytes);
      const document = JSON.parse(verified.stdout) as Document;
      if (!document.ok) throw new Error("the backup is not sound");
      rawBytes = document.rawBytes;
    }
    const seconds = report.seconds("holdfast verify --jobs 2, file store");
    report.findAtLeast(
      "verify by CLI, 2 workers, from a folder: raw bytes a second",
      rawBytes / 1e6 / seconds,
      "MB",
      200,
    );
  } finally {
    folder.remove();
  }
}
