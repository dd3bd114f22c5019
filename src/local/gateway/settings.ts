import { z } from "zod";
import { hostedLimits } from "./limits.ts";

const milliseconds = z.number().positive().max(86_400_000);

/** What `main.ts` reads as JSON on stdin. Paths are absolute. */
export const gatewaySettings = z.strictObject({
  /** 0: a free one. */
  port: z.int().min(0).max(65_535).default(0),
  /** Twenty lower-case letters, as hosted projects have. */
  projectRef: z.string().regex(/^[a-z]{20}$/).default("localprojectholdfast"),
  /** Where keys and the bytes of Storage are kept. */
  dataFolder: z.string().min(1),
  /** Output of functions and figures of isolates, JSON lines; none without it. */
  journalFile: z.string().optional(),
  database: z.strictObject({
    host: z.string(),
    port: z.int(),
    name: z.string().default("postgres"),
    /** PEM of the authority that signed the server's certificate. */
    authority: z.string(),
    passwords: z.object({
      authenticator: z.string(),
      supabase_auth_admin: z.string(),
      supabase_storage_admin: z.string(),
    }),
  }),
  functions: z.strictObject({
    /** Holds `<name>/index.ts`. Without it there are no functions. */
    folder: z.string().optional(),
    /** `SUPABASE_DB_URL` and the function secrets; the other hosted variables are added. */
    environment: z.record(z.string(), z.string()).default({}),
    /** Folders a function may read: the sources and packages a deploy would upload. */
    readable: z.array(z.string()).default([]),
    limits: z.strictObject({
      cpuSoftMs: milliseconds.default(hostedLimits.cpuSoftMs),
      cpuHardMs: milliseconds.default(hostedLimits.cpuHardMs),
      memoryBytes: z.int().positive().default(hostedLimits.memoryBytes),
      wallMs: milliseconds.default(hostedLimits.wallMs),
      responseMs: milliseconds.default(hostedLimits.responseMs),
    }).prefault({}),
    atMost: z.int().min(1).max(64).default(12),
    concurrency: z.int().min(1).max(100).default(1),
    spare: z.int().min(0).max(4).default(1),
    idleMs: milliseconds.default(60_000),
  }).prefault({}),
  storage: z.strictObject({
    /** For buckets without a limit of their own. */
    fileSizeLimit: z.int().positive().default(50 * 1024 * 1024),
    /** `false` leaves out fsync, for tests that never crash the machine. */
    durable: z.boolean().default(true),
  }).prefault({}),
  /** Lets `/__kill` end isolates. */
  testing: z.boolean().default(false),
  /** Ends the gateway when its stdin closes, so that it never outlives the process that started it. */
  endWithStdin: z.boolean().default(true),
});

export type GatewaySettings = z.infer<typeof gatewaySettings>;
/** The same before defaults are filled in. */
export type GatewaySettingsInput = z.input<typeof gatewaySettings>;

/** What `main.ts` writes on stdout, one line of JSON, once it listens. It carries secrets: for the parent process only. */
export interface GatewayReady {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly projectRef: string;
  readonly anonKey: string;
  readonly serviceRoleKey: string;
  readonly publishableKey: string;
  readonly secretKey: string;
  readonly jwtSecret: string;
}
