import type { Clock } from "../shared/clock.ts";
import type { Log, LogLevel } from "../shared/log.ts";
import type { Random } from "../shared/random.ts";
import type { Outcome } from "./output.ts";
import type { Progress } from "./progress.ts";
import type { Settings } from "./settings.ts";

/** What a command works with. */
export interface Context {
  readonly settings: Settings;
  /** The words after the command's name, as many as its table says. */
  readonly words: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** What `log` writes at least; workers have logs of their own. */
  readonly logLevel: LogLevel;
  readonly progress: Progress;
  /** Width of the terminal that the result goes to; 80 where it is none. */
  readonly columns: number;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** A line for people on stderr. */
  note(text: string): void;
  /** What the person typed, without blanks around it; null without a terminal. */
  ask(question: string): Promise<string | null>;
  /** True once the person typed `word`; false for nothing, and without a terminal. Errors: `confirmation_wrong`. */
  confirm(question: string, word: string): Promise<boolean>;
}

export type Command = (context: Context) => Promise<Outcome>;
