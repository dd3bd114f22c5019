import { z } from "zod";
import type { KillMoment } from "./kill_switch.ts";

const shape = z.union([
  z.strictObject({ function: z.string(), at: z.enum(["now", "request", "response"]) }),
  z.strictObject({
    function: z.string(),
    at: z.literal("line"),
    text: z.string().min(1),
    nth: z.int().min(1).default(1),
  }),
]);

/** The order a request's body asks for, or null when it asks for none. */
export function killMoment(body: unknown): { readonly function: string; readonly moment: KillMoment } | null {
  const parsed = shape.safeParse(body);
  if (!parsed.success) return null;
  const { function: name, ...moment } = parsed.data;
  return { function: name, moment };
}
