import type { RestoreMode } from "./apply/difference.ts";
import type { RowsAsked } from "./asked.ts";

/** What was asked for, as the side schema keeps it between legs. */
export interface LegRequest {
  readonly asked: RowsAsked;
  /** For records: several rows may fit. */
  readonly all: boolean;
  /** Which plan is made when the rows lie beside. */
  readonly mode: RestoreMode;
}
