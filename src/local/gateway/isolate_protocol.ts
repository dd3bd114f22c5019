/** Lines between the gateway and the bootstrap that runs inside an isolate's process. */

/** First character of a control line on the isolate's stdout; every other line there is the function's own output. */
export const controlMark = "\u001e";

/** Response header that carries the isolate's state at the moment the response was ready: `pending;sequence`. */
export const stateHeader = "x-isolate-state";

export type FromIsolate =
  | { readonly kind: "listening"; readonly port: number }
  /** Promises given to `waitUntil` that have not settled; `sequence` grows with each change. */
  | { readonly kind: "pending"; readonly pending: number; readonly sequence: number }
  | { readonly kind: "unloaded" }
  | { readonly kind: "armed" }
  /** The line to halt at was just written; the isolate's thread now stands still and waits to be killed. */
  | { readonly kind: "halted" };

export type ToIsolate =
  /** Dispatch `beforeunload` with this `detail.reason`. */
  | { readonly kind: "unload"; readonly reason: UnloadReason }
  /** Stand still right after the `nth` line of output that contains `text`; null takes it back. Answered by `armed`. */
  | { readonly kind: "halt_at"; readonly text: string | null; readonly nth: number };

export type UnloadReason = "cpu" | "memory" | "wall_clock" | "early_drop" | "termination";
