/** The states of a run and of a task. A test compares these names with the checks of the tables. */

export interface StateFacts {
  /** The SQL functions (schema `backup`) that set it; nothing else does. */
  readonly setBy: readonly string[];
  /** May a run or task stay here for ever? */
  readonly final: boolean;
  readonly meaning: string;
  /** What a process that dies in this state leaves behind, and who goes on. Every state is a committed row. */
  readonly afterCrash: string;
}

export const runStates = {
  queued: {
    setBy: ["request_run"],
    final: false,
    meaning: "asked for; nobody has begun",
    afterCrash: "the next leg claims its first task; the watchdog starts one when none comes",
  },
  snapshotting: {
    setBy: ["claim_task", "begin_attempt", "return_task"],
    final: false,
    meaning: "a worker takes locks and a snapshot and makes the plan",
    afterCrash: "the lease of the plan runs out; the next worker begins a new attempt and ends a keeper left behind",
  },
  copying: {
    setBy: ["add_tasks"],
    final: false,
    meaning: "the keeper holds the snapshot; workers read ranges and count rows",
    afterCrash: "a worker's lease runs out and its task is claimed again; without the keeper a new attempt begins",
  },
  finishing: {
    setBy: ["claim_task"],
    final: false,
    meaning: "all is read and counted; the manifest is being made",
    afterCrash: "the lease runs out; the manifest is made again under the same name and an identical one is adopted",
  },
  succeeded: {
    setBy: ["finish_run", "accept_run"],
    final: true,
    meaning: "a backup: manifest and all its objects are in the store and were read back",
    afterCrash: "nothing to do",
  },
  quarantined: {
    setBy: ["finish_run"],
    final: true,
    meaning: "whole, but much smaller than the one before without a cause; counts once a person accepts it",
    afterCrash: "nothing to do",
  },
  failed: {
    setBy: ["fail_run", "claim_task", "return_task"],
    final: true,
    meaning: "ended with error_code, error_message and hint; an alert is open",
    afterCrash: "nothing to do; what it put into the store is swept or reused later",
  },
  cancelled: {
    setBy: ["cancel_run"],
    final: true,
    meaning: "ended by a person",
    afterCrash: "nothing to do; what it put into the store is swept or reused later",
  },
  pruned: {
    setBy: ["order_removals"],
    final: true,
    meaning: "was a backup, until retention removed it; the row stays for two years",
    afterCrash: "what is left of it in the stores stands in backup.removals; the next prune goes on",
  },
} as const satisfies Record<string, StateFacts>;

export const taskStates = {
  open: {
    setBy: ["request_run", "add_tasks", "return_task"],
    final: false,
    meaning: "can be claimed, after not_before when that is set",
    afterCrash: "nothing to do",
  },
  leased: {
    setBy: ["claim_task"],
    final: false,
    meaning: "one worker has it until lease_until; its token goes with every call",
    afterCrash: "after lease_until it is claimed again under a new token; the old worker gets lease_lost",
  },
  done: {
    setBy: ["complete_task", "add_tasks", "finish_run"],
    final: true,
    meaning: "its result is recorded in the same transaction",
    afterCrash: "nothing to do",
  },
  failed: {
    setBy: ["return_task"],
    final: true,
    meaning: "what failed its run",
    afterCrash: "nothing to do",
  },
  void: {
    setBy: ["begin_attempt", "return_task", "fail_run", "cancel_run"],
    final: true,
    meaning: "of an older attempt or an ended run: nobody may work on it",
    afterCrash: "nothing to do",
  },
} as const satisfies Record<string, StateFacts>;

export type RunStatus = keyof typeof runStates;

/** Whether legs still have work. */
export function isActive(status: RunStatus): boolean {
  return !runStates[status].final;
}
