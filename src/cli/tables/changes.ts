/** The change stream. */
import { type CommandFacts, database, store } from "./facts.ts";

export const changes = {
  "incremental": {
    summary: "store what has changed since the last time",
    about:
      "Reads the change stream of --db-url to its end and writes it to --store. The first one begins the stream; what it holds can be restored once a full backup was taken after that. Another drainer at work is waited for. Where --secondary is set, what the second store lacks is copied at the end; what fails there is a warning.",
    words: [],
    options: [...database, ...store, "secondary"],
    examples: [{ line: "incremental -- --json", does: "the changes up to now, the result as a document" }],
  },
  "follow": {
    summary: "store changes as they happen, until Ctrl-C",
    about:
      "Drains the change stream without pause, so that a restore can reach to a few seconds ago. Trouble that passes is told and waited out. Where --secondary is set, what is new is copied there each minute, and every 15 minutes what is missing.",
    words: [],
    options: ["interval", ...database, ...store, "secondary"],
    examples: [{ line: "follow", does: "from this machine, every 2 seconds" }],
  },
  "timeline": {
    summary: "show which moments can be restored",
    about:
      "From the store and the keys alone: spans that are covered, gaps between them, full backups, and a picture. With --db-url set it also says why there is a gap.",
    words: [],
    options: ["source", ...database, ...store],
    examples: [{ line: "timeline -- --store s3://bucket/prefix", does: "when the project is gone" }],
  },
} as const satisfies Record<string, CommandFacts>;
