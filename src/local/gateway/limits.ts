/**
 * What an isolate may use, as the hosted platform counts it (Supabase docs, "Edge Functions: limits", free plan).
 * Tests lower the figures; nothing in the product raises them.
 */
export interface IsolateLimits {
  /** CPU of the isolate's own thread since its first request: no new requests from here on, ended once idle. */
  readonly cpuSoftMs: number;
  /** CPU since the first request at which the isolate is killed. */
  readonly cpuHardMs: number;
  /** Resident memory of the whole process, the runtime's own share included: stricter than the platform's heap count. */
  readonly memoryBytes: number;
  /** Time since the first request at which the isolate is killed; from half of it on it gets no new requests. */
  readonly wallMs: number;
  /** Time without response headers after which the caller gets 504; the isolate goes on. */
  readonly responseMs: number;
}

export const hostedLimits: IsolateLimits = {
  cpuSoftMs: 1_000,
  cpuHardMs: 2_000,
  memoryBytes: 256 * 1024 * 1024,
  wallMs: 150_000,
  responseMs: 150_000,
};

/** Why an isolate ended. `cpu`, `memory`, `wall_clock`: killed over a limit; `retired`, `idle`: ended between requests. */
export type EndReason = "cpu" | "memory" | "wall_clock" | "retired" | "idle" | "crashed" | "killed" | "stopped";

/** The limit a reading passes, hardest first, or null. */
export function limitPassed(
  use: { readonly cpuMs: number; readonly peakBytes: number; readonly wallMs: number },
  limits: IsolateLimits,
): "cpu" | "memory" | "wall_clock" | null {
  if (use.peakBytes > limits.memoryBytes) return "memory";
  if (use.cpuMs >= limits.cpuHardMs) return "cpu";
  if (use.wallMs >= limits.wallMs) return "wall_clock";
  return null;
}

/** Why an isolate takes no new requests any more, or null while it is young. */
export function noLongerYoung(
  use: { readonly cpuMs: number; readonly wallMs: number },
  limits: IsolateLimits,
): "cpu" | "wall_clock" | null {
  if (use.cpuMs >= limits.cpuSoftMs) return "cpu";
  if (use.wallMs >= limits.wallMs / 2) return "wall_clock";
  return null;
}
