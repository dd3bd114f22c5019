import { HoldfastError } from "../shared/errors.ts";
import type { Database } from "../shared/postgres/connection.ts";

/** The target of a plan that is made from the store alone. */
export const nowhere: Database = {
  label: "no database",
  connect: () => Promise.reject(new HoldfastError("internal", "a plan asked for the target")),
};
