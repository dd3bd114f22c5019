/** The states of a restore. A test compares these names with the check of the table. */
import type { StateFacts } from "./states.ts";

export const restoreStates = {
  planned: {
    setBy: ["begin_restore", "claim_restore"],
    final: false,
    meaning: "asked for; what it would do is worked out, nothing is changed",
    afterCrash: "the lease runs out; another worker claims it, else the watchdog fails it and the side schema expires",
  },
  loading: {
    setBy: ["restore_progress", "claim_restore"],
    final: false,
    meaning: "rows of then are read into a side schema or into another database",
    afterCrash: "as planned; what was loaded is in the side schema or marked in the other database",
  },
  applying: {
    setBy: ["restore_progress", "claim_restore"],
    final: false,
    meaning: "live rows or definitions are changed, in one transaction or in steps that are marked as they commit",
    afterCrash:
      "one transaction is rolled back by the server; steps that committed stay, and a resumed one goes on behind them",
  },
  beside: {
    setBy: ["finish_restore"],
    final: true,
    meaning: "rows of then stand in a side schema until it expires; claim_restore may put them into place",
    afterCrash: "nothing to do",
  },
  succeeded: {
    setBy: ["finish_restore"],
    final: true,
    meaning: "done, with its counts and its time",
    afterCrash: "nothing to do",
  },
  failed: {
    setBy: ["end_restore"],
    final: true,
    meaning: "ended with an error; a person may resume it at its stage",
    afterCrash: "nothing to do",
  },
  cancelled: {
    setBy: ["end_restore"],
    final: true,
    meaning: "ended because somebody asked for it; a person may resume it at its stage",
    afterCrash: "nothing to do",
  },
} as const satisfies Readonly<Record<string, StateFacts>>;

export type RestoreStatus = keyof typeof restoreStates;
