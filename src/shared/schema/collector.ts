/** What every collector gets: a session, the inventory, and a place for remarks. */
import type { Connection } from "../postgres/connection.ts";
import type { NotCaptured } from "./capture_format.ts";
import { type CatalogObject, objectKeyOf } from "./inventory.ts";
import type { Draft } from "./draft.ts";

export interface CollectorContext {
  readonly connection: Connection;
  readonly leaveOutSchemas: readonly string[];
  readonly objects: ReadonlyMap<string, CatalogObject>;
  readonly notCaptured: NotCaptured[];
  readonly warnings: string[];
}

/** Reads some catalogs and returns drafts for those of their rows that are in the inventory. */
export type Collector = (context: CollectorContext) => Promise<Draft[]>;

/** The inventory's object for a row, undefined when the row belongs to the system, an extension or a schema left out. */
export function ownObject(context: CollectorContext, catalog: string, oid: string): CatalogObject | undefined {
  return context.objects.get(objectKeyOf(catalog, oid));
}

/** The object's name for SQL: schema-qualified and quoted by the server. */
export function identityOf(object: CatalogObject): string {
  return object.identity ?? object.name;
}
