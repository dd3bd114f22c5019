/** What runs by itself, whether it does, and what to do when something went wrong. */
import { type CommandFacts, database, store } from "./facts.ts";

export const operation = {
  "status": {
    summary: "say whether backups are as they should be",
    about:
      "The verdict in one line, ok, warning or critical, with its gravest reason; then all reasons and what they stand on. From the database and from which stores are set; exit 3 when it is critical. The dashboard's view public.backup_status and the function `monitor` say the same.",
    words: [],
    options: ["strict", ...database, "store", "secondary", "project-url"],
    examples: [
      { line: "status", does: "how backups stand, in one line and in all" },
      { line: "status -- --strict", does: "exit 3 for a warning too, for a monitor" },
    ],
  },
  "metrics": {
    summary: "print figures for Prometheus",
    about:
      "In its text format, from the database: verdict, ages, sizes, stores and their quotas, the replication slot, runs, alerts, schedules. For a textfile collector, or a look; the function `monitor` serves the same to a scraper with a token of its own (docs/monitoring.md).",
    words: [],
    options: [...database],
    examples: [
      { line: "metrics", does: "all figures" },
      { line: "metrics -- --json", does: "the samples as a document" },
    ],
  },
  "schedules": {
    summary: "show what runs when, change it, pause it, run it now",
    about:
      "`list` (the default): each schedule, when it is due next (UTC), when its job began last, and whether it is paused. `set <name> <cron>`: another time, five fields in UTC. `pause <name>`: it rests --for a time or --until a moment, a week at most (the setting pause_at_most_hours), then the watchdog resumes it; `status` says so meanwhile, and nothing of it counts as missing. The watchdog itself and the telling of alerts are never paused. `resume <name>` ends a pause before its time. `run <name>` does now what is due then. Each change is in the audit. A job that somebody changed in cron.job is taken as it is.",
    words: [
      { name: "what", required: false, help: "`list`, `set`, `pause`, `resume` or `run`" },
      { name: "name", required: false, help: "of the schedule" },
      { name: "cron", required: false, help: 'with `set`: five fields, such as "30 2 * * *"' },
    ],
    options: ["for", "until", "reason", ...database],
    examples: [
      { line: "schedules list", does: "what runs when" },
      { line: 'schedules set daily "30 2 * * *"', does: "the daily backup at half past two (UTC)" },
      { line: 'schedules pause daily -- --for 3h --reason "big import"', does: "no backup in the next three hours" },
      { line: "schedules resume daily", does: "ends the pause" },
      { line: "schedules run retention", does: "prunes now, where that is due" },
    ],
  },
  "checks": {
    summary: "make the daily or weekly checks, and show what they found",
    about:
      "`list`, also without a word: each check with its newest result. `show` and a name: its results with their evidence. `run daily`: the newest backup is recent and verified, its size and rows are as expected, both stores hold what is recorded, every manifest opens, a share of the objects opens (all of them within 30 days), the change stream has no hole. `run weekly`: logs are reviewed, failures documented. The functions do both by themselves; where there is no pg_cron, call `run` from a scheduler of your own. Exit 3 when a check has failed; what cannot be made yet is named, and no failure.",
    words: [
      { name: "action", required: false, help: "`list`, `show` or `run`" },
      { name: "which", required: false, help: "for `show`: a check; for `run`: `daily` or `weekly`" },
    ],
    options: ["limit", ...database, ...store, "secondary"],
    examples: [
      { line: "checks", does: "each check with its newest result" },
      { line: "checks run daily -- --json", does: "makes the daily ones, the results as a document" },
      { line: "checks show objects -- --limit 7", does: "what was opened in the last week" },
    ],
  },
  "doctor": {
    summary: "check settings, database, both stores, keys, alerts and clock",
    about: "One line a check: ok, warn or fail, with the way out. Exit 1 when a check fails. Writes only a probe.",
    words: [],
    options: [...database, ...store, "secondary", "project-url"],
    examples: [{ line: "doctor", does: "everything that is set" }],
  },
  "alerts": {
    summary: "what a person should look at: list, show, ack, test, deliver",
    about:
      "`list`: what is not over, the worst first. `show`: one alert, whom it was told to, and every try. `ack`: says that you have seen it, which ends reminders and escalation; it stays until its cause is gone. `test`: sends a real message by each channel, or by one, and says what came of it. `deliver`: sends what is due from here, with the channels of this environment, and acts as the watchdog where no job does: for a plain PostgreSQL, each minute. docs/alerts.md has the channels and every kind of alert.",
    words: [
      { name: "what", required: false, help: "`list` (the default), `show`, `ack`, `test` or `deliver`" },
      { name: "which", required: false, help: "the id of an alert; with `test` a channel" },
    ],
    options: ["all", "limit", ...database],
    examples: [
      { line: "alerts", does: "what is not over" },
      { line: "alerts ack 12", does: "no reminder and no escalation of alert 12 any more" },
      { line: "alerts test", does: "whether anybody would hear of a failure" },
      { line: "alerts deliver", does: "for a crontab: `* * * * *`, where the database has no pg_cron" },
    ],
  },
  "settings": {
    summary: "settings in the database: list, set; the emergency contact",
    about:
      "What may be tuned, each with its bounds, who gets mail (mail_to, mail_from), and whom to ask in an emergency (contact_name, contact_email, contact_phone), who stands in alerts and, for everybody, in windows of maintenance. Secrets are no settings: they are in the environment of the functions. Every change stands in the audit and is told as an alert that asks for nothing; names and addresses are in the audit as keyed hashes.",
    words: [
      { name: "what", required: false, help: "`list` (the default), `set` or `contact`" },
      { name: "name", required: false, help: "of a setting" },
      { name: "value", required: false, help: 'with `set`; "" for nothing' },
    ],
    options: [...database],
    examples: [
      { line: "settings", does: "all of them" },
      { line: 'settings set contact_phone "+44 20 7946 0000"', does: "whom to call" },
      { line: 'settings set mail_to "ops@example.org anna@example.org"', does: "who gets mail about alerts" },
      { line: "settings contact", does: "the emergency contact in one line" },
    ],
  },
  "maintenance": {
    summary: "refuse writes while work goes on: on, off, status",
    about:
      "While it is on, writes through the API, to Storage and of accounts are refused; reading and signing in go on, and cron jobs are paused. `on` shows what it does and does not reach, and does it once confirmed; then it is proven by real writes, or taken back. `off` puts everything back. With --project-url (and SUPABASE_SERVICE_ROLE_KEY) the proof goes through the project's API, else through the database alone.",
    words: [{ name: "what", required: true, help: "`on`, `off` or `status`" }],
    options: ["message", "until", "yes", ...database, "project-url", "store"],
    examples: [
      {
        line: 'maintenance on -- --message "Back at noon" --until 2024-01-09T12:00:00Z --yes',
        does: "closes the project to writes",
      },
      { line: "maintenance status", does: "whether it is on, since when, and what is not reached" },
      { line: "maintenance off", does: "opens it and puts everything back" },
    ],
  },
  "incident": {
    summary: "something went wrong: open, show, list, note, offer, close, report, page",
    about:
      "`open` runs the emergency procedure: it stops writes by maintenance mode (unless --without-maintenance), tells the channels and the status page, says what changed since --since (else the last 24 hours) and which transactions may have done it, names what can be gone back to, and prints the commands for each way back. It restores nothing: you run what you choose. While one is open it is joined, and goes on where it was broken off. Where the database cannot be reached it says what the stores know, and exits with 3. `offer` looks again, with --before-xid for one transaction. `note` adds to the timeline: --note for those who work on it, --message for the public. `close` ends it; it opens no project that is closed to writes. `report` is the post-recovery report. `page` puts the status page (BACKUP_STATUS_PAGE) in its place, or prints it.",
    words: [
      { name: "what", required: true, help: "`open`, `show`, `list`, `note`, `offer`, `close`, `report` or `page`" },
      { name: "incident", required: false, help: "its number; without it the open one, else the newest" },
    ],
    options: [
      "reason",
      "message",
      "next-update",
      "until",
      "without-maintenance",
      "since",
      "before-xid",
      "note",
      "out",
      "print",
      "limit",
      "dry-run",
      "yes",
      "source",
      ...database,
      ...store,
      "secondary",
      "project-url",
    ],
    examples: [
      {
        line: 'incident open -- --reason "notes are gone" --message "Some notes are missing, we are on it" --yes',
        does: "stops writes, tells people, finds what happened and prints the ways back",
      },
      { line: 'incident open -- --reason "a look" --since 2024-01-09T12:00:00Z --dry-run', does: "only looks" },
      {
        line: 'incident note -- --message "Your notes are being brought back" --next-update 30m',
        does: "tells the public",
      },
      { line: 'incident close -- --note "all rows are back" --message "All notes are back"', does: "ends it" },
      { line: "incident report 3 -- --out incident-3.md", does: "what happened when, by whom, and what is left" },
      { line: "incident page -- --print", does: "the status page as it would be put there" },
    ],
  },
} as const satisfies Record<string, CommandFacts>;
