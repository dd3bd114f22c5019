/** Keys, people, identity, and what tells what they did. */
import { type CommandFacts, database, store } from "./facts.ts";

export const access = {
  "keys": {
    summary: "keys of the backups: list, rotate, recovery, check, shred",
    about:
      "`list`: which keys open which epoch. `rotate`: wraps every epoch of --store, and of --secondary where that is set, for exactly the keys of BACKUP_KEYS, and removes what their files held before where a bucket keeps versions; objects are not touched. To replace a key, put the new one first, rotate, then take the old one out and rotate again. `recovery`: makes a pair whose private half stays offline. `check`: opens every epoch and the newest backup with each key that is there, one by one. `shred`: removes the key file of an epoch that is not the newest, so that nothing it sealed opens again; refused while a backup or a segment needs it, unless --with-backups names it as well; needs --db-url, whose database it has to be that writes there: a copy has keys of its own below its prefix. What was done stands in the audit where --db-url is given.",
    words: [
      { name: "what", required: true, help: "`list`, `rotate`, `recovery`, `check` or `shred`" },
      { name: "epoch", required: false, help: "with `shred`: its id, as `list` shows it" },
    ],
    options: ["dry-run", "yes", "with-backups", ...database, ...store, "secondary"],
    examples: [
      { line: "keys rotate -- --dry-run", does: "which keys would open what" },
      { line: "keys recovery", does: "a key for paper: prints both halves once" },
      {
        line: "keys check -- --keys-file /media/usb/recovery.key",
        does: "whether the paper key still opens everything",
      },
      { line: "keys shred e20260101T000000Z-0a1b2c3d -- --dry-run", does: "what would become unreadable with it" },
    ],
  },
  "adopt": {
    summary: "say that a copy is the original now",
    about:
      "A database that is a copy, or may be one, writes below a prefix of its own, `clone-…`, which `status` tells. After this it takes the original's place and store, once the prefix is typed; the original, if it is alive, is the copy from then on. With --keep-prefix it stays where it is and counts as an original of its own. Its backups of meanwhile are restored by their address, `<store>/clone-…`.",
    words: [],
    options: ["keep-prefix", "dry-run", "yes", ...database, ...store],
    examples: [
      { line: "adopt -- --dry-run", does: "who this is, who wrote to the store last, and what would be done" },
      { line: "adopt", does: "takes the place of the original, for good" },
      { line: "adopt -- --keep-prefix --yes", does: "two databases from now on, each with its own backups" },
    ],
  },
  "admins": {
    summary: "who may administrate the backups: list, add, remove",
    about:
      "Administrators are users of the project. They see what is recorded here and call the functions, once signed in with a second factor. The last one cannot be removed. Every change stands in the audit.",
    words: [
      { name: "what", required: true, help: "`list`, `add` or `remove`" },
      { name: "who", required: false, help: "a user's id or address" },
    ],
    options: ["note", ...database],
    examples: [
      { line: 'admins add anna@example.com -- --note "on call"', does: "lets Anna in, with her second factor" },
      { line: "admins list", does: "who they are, and who has no second factor yet" },
      { line: "admins remove anna@example.com", does: "lets her in no more, from now on" },
    ],
  },
  "audit": {
    summary: "show, export or verify the audit log; look for open doors",
    about:
      "`show` (the default): newest first. `export`: all of it, oldest first, one JSON object a line. `verify`: computes the chain of hashes anew and compares it with every anchor in both stores; exit 3 where a row was changed, removed, added or moved, or where the database was put back to an earlier moment. People appear as keyed hashes. `security`: looks at access, our own objects, buckets, administrators, keys and jobs, as a job does each month; exit 3 where something has to be done.",
    words: [{ name: "what", required: false, help: "`show`, `export`, `verify` or `security`" }],
    options: ["limit", "kind", ...database, ...store, "secondary"],
    examples: [
      { line: "audit -- --limit 200", does: "the last 200 rows" },
      {
        line: "audit export -- --kind change",
        does: "every change of administrators, schedules, policies, settings and keys",
      },
      { line: "audit verify", does: "whether anything was changed, by chain and anchors" },
      { line: "audit security", does: "what is open that should not be" },
    ],
  },
} as const satisfies Record<string, CommandFacts>;
