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
  "export": {
    summary: "give a person what the project holds of them",
    about:
      "Into a new folder: export.json, the rows that they own as of one moment with a description of each table and column, signed; and their files beside it. Rows that are others' as well are left out, and named; what is of others in their own rows is taken out; passwords, tokens and secrets of second factors are in no export. backup.map.json decides where keys do not say whose rows they are. It is for the person's own access: no backup, and the system is not restored from it. `list` shows exports, also those that people order for themselves by the function; `cancel` ends one and removes it; `verify` tells whether a document is as this project signed it.",
    words: [
      {
        name: "user",
        required: true,
        help: "their id in auth.users, or their address; or `list`, `cancel` or `verify`",
      },
      { name: "which", required: false, help: "with `cancel`: the id of the export; with `verify`: the file" },
    ],
    options: ["out", "map", "without-files", "all", "limit", "keys-file", ...database],
    examples: [
      { line: "export anna@example.com -- --out .", does: "all of Anna's rows and files, in a folder here" },
      { line: "export list -- --json", does: "which exports there are" },
      { line: "export cancel 1b4e28ba-2fa1-11d2-883f-0016d3cca427", does: "ends one, and removes what lies of it" },
      { line: "export verify export-1b4e28ba-20240109T120000Z/export.json", does: "has it been changed?" },
    ],
  },
  "import-export": {
    summary: "bring a person's own rows and files in from the document of an export",
    about:
      "For support staff, where somebody asks for what they had once taken with them. The document has to be as this project signed it, or one whose identity was adopted here. Without --apply, what is missing, what is there and where it differs; nothing is changed. With it, rows go in in the order of their keys, are read again, and every reference is verified; files follow with their owner. Nothing that is there is overwritten: an export is no backup. Before, an administrator asks by the function import-export, and another one agrees, or the person, freshly signed in (docs/imports.md). Whoever was erased stays erased. A call that was broken off goes on when it is repeated. `list` shows imports, `withdraw` ends one that has not gone in.",
    words: [
      { name: "document", required: true, help: "the file export.json, its files beside it; or `list` or `withdraw`" },
      { name: "which", required: false, help: "with `withdraw`: the id of the import" },
    ],
    options: [
      "apply",
      "only",
      "where",
      "dry-run",
      "yes",
      "map",
      "without-files",
      "fire-triggers",
      "skip-safety-backup",
      "limit",
      ...database,
      ...store,
      "project-url",
      "jobs",
      "max-memory",
    ],
    examples: [
      { line: "import-export export-1b4e28ba/export.json", does: "what is missing, and how what is there differs" },
      { line: "import-export export-1b4e28ba/export.json -- --apply all --yes", does: "all of it, once it is agreed" },
      {
        line: "import-export export.json -- --only public.notes --where id=7 --apply all",
        does: "one row, which must not be there",
      },
      { line: "import-export list -- --json", does: "who asked, who agreed, what came of it" },
    ],
  },
  "report": {
    summary: "what is kept of a person, where, until when, and who saw it",
    about:
      "Rows by table and files by bucket in the live project; backups, the change stream and copies of files, with the day until which retention, a hold or a lock keeps them; what is in the second store; downloads, exports and side schemas that lie there; what a guardian asked for; and from the audit, by keyed hash, who restored, exported or looked at it. Of somebody who was erased it answers by their id, from the ledger, the audit and the certificate. Where nobody can tell, it says so. That it was made stands in the audit.",
    words: [{
      name: "user",
      required: true,
      help: "their id in auth.users, or their address; of who was erased, the id",
    }],
    options: ["map", ...database],
    examples: [
      { line: "report anna@example.com", does: "all of it, to read" },
      { line: "report 5b0d… -- --json", does: "the same as a document" },
    ],
  },
  "guardians": {
    summary: "what guardians of children asked for: list, show",
    about:
      "An administrator records a guardian's request by the function `privacy`: who asked, how it was made sure who they are, what they asked for, and their words, which are sealed into the erasure ledger and kept as long as it. `list` names nobody. `show` opens what was said, which stands in the audit. What was asked for is done by `report` and `erase` with the child's id; the record notes it.",
    words: [
      { name: "what", required: true, help: "`list` or `show`" },
      { name: "request", required: false, help: "with `show`: the id of the request" },
    ],
    options: ["limit", ...database, ...store],
    examples: [
      { line: "guardians list", does: "what was asked for, and what was done" },
      { line: "guardians show 0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11", does: "who asked, and in which words" },
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
