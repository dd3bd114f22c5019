import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import { definitionKinds } from "../../src/shared/schema/definition_kinds.ts";
import { catalogSources, readInventory } from "../../src/shared/schema/inventory.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import { capture, fillWithCorpus, plainDatabase, withSession } from "./schema_fixture.ts";

/** What no definition can bring back. Made by the superuser. */
const beyond = `
  create schema beyond;
  create type beyond.base;
  create function beyond.base_in(cstring) returns beyond.base language internal immutable strict as 'textin';
  create function beyond.base_out(beyond.base) returns cstring language internal immutable strict as 'textout';
  create type beyond.base (input = beyond.base_in, output = beyond.base_out, like = text);
  create type beyond.canonical_range;
  create function beyond.canonical(beyond.canonical_range) returns beyond.canonical_range language internal immutable strict
    as 'int4range_canonical';
  create type beyond.canonical_range as range (subtype = integer, canonical = beyond.canonical);
  create function beyond.eq(text, text) returns boolean language sql immutable return $1 = $2;
  create operator beyond.=== (function = beyond.eq, leftarg = text, rightarg = text, commutator = operator(beyond.!==));
  create function beyond.cmp(integer, text) returns integer language sql immutable return 0;
  alter operator family pg_catalog.integer_ops using btree add function 1 (integer, text) beyond.cmp(integer, text);
  create table beyond.of_base (b beyond.base);
  create index of_base_i on beyond.of_base ((1));
  create view beyond.of_table as select * from beyond.of_base;
  select lo_create(424242);
  create table beyond.with_invalid_index (a integer);
  insert into beyond.with_invalid_index values (1), (1);
  create text search parser beyond.parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end,
    lextypes = prsd_lextype, headline = prsd_headline);
  create text search template beyond.template (init = dsimple_init, lexize = dsimple_lexize);
  create language beyond_language handler plpgsql_call_handler inline plpgsql_inline_handler validator plpgsql_validator;
  create function beyond.from_sql(internal) returns internal language internal immutable as 'prsd_lextype';
  create transform for hstore language beyond_language (from sql with function beyond.from_sql(internal));`;

describe("the inventory of a database", () => {
  let cluster: Cluster | undefined;
  let captured: SchemaCapture;
  let database = "";
  const running = (): Cluster => {
    if (cluster === undefined) throw new Error("no cluster");
    return cluster;
  };

  beforeAll(async () => {
    cluster = await startTestCluster({ settings: { allow_in_place_tablespaces: "on" } });
    database = await plainDatabase(cluster);
    await fillWithCorpus(cluster, database);
    const url = cluster.plainUrl(cluster.superuser, database);
    await query(url, `set search_path = public, extensions; ${beyond}`);
    await query(url, "create tablespace beyond location ''");
    await query(url, "alter table corpus_constraints.round_b disable trigger all");
    await query(url, "create table beyond.elsewhere (id integer) tablespace beyond");
    // A unique index that cannot be built stays behind invalid.
    await expect(query(url, "create unique index concurrently broken on beyond.with_invalid_index (a)")).rejects
      .toThrow();
    captured = await capture(cluster, database);
  }, clusterMs);

  afterAll(async () => {
    await cluster?.destroy();
  }, clusterMs);

  it("has a case for every catalog that it reads", async () => {
    const { objects } = await withSession(
      running(),
      "postgres",
      database,
      (connection) => readInventory(connection, []),
    );
    const found = new Set([...objects.values()].map((object) => object.catalog));
    expect(catalogSources.map((source) => source.catalog).filter((catalog) => !found.has(catalog))).toEqual([
      // Members of our own families are details of those.
      "pg_amop",
    ]);
  });

  it("covers every catalog that can hold rows of a user", async () => {
    const rows = await query(
      running().plainUrl(),
      `select c.relname as name from pg_class c where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind = 'r'
        order by c.relname`,
    );
    const read = new Set(catalogSources.map((source) => source.catalog));
    const details = rows.map((row) => String(row["name"])).filter((name) => !read.has(name));
    expect(details).toEqual([
      "pg_aggregate", // of pg_proc
      "pg_attribute", // of pg_class
      "pg_auth_members", // captured as memberships
      "pg_db_role_setting", // captured as settings
      "pg_depend", // the order
      "pg_description", // comments of what they are on
      "pg_enum", // of pg_type
      "pg_foreign_table", // of pg_class
      "pg_index", // of pg_class
      "pg_inherits", // of pg_class
      "pg_init_privs", // extension privileges
      "pg_largeobject", // of pg_largeobject_metadata
      "pg_partitioned_table", // of pg_class
      "pg_range", // of pg_type
      "pg_replication_origin", // the server's own position
      "pg_seclabel", // labels of what they are on
      "pg_sequence", // of pg_class
      "pg_shdepend", // the order
      "pg_shdescription", // comments of what they are on
      "pg_shseclabel", // labels of what they are on
      "pg_statistic", // made again by ANALYZE
      "pg_statistic_ext_data", // made again by ANALYZE
      "pg_subscription_rel", // progress of a subscription
      "pg_ts_config_map", // of pg_ts_config
    ]);
  });

  it("lists what it cannot capture, with the reason", () => {
    const listed = captured.notCaptured.map(({ catalog, identity, reason }) => {
      expect(reason).not.toBe("");
      return `${catalog}: ${identity}`;
    });
    expect(listed.filter((line) => !/of_base|of_table|base_in|base_out|canonical\(/.test(line)).sort()).toEqual([
      "pg_amproc: function of access method function 1 (integer, pg_catalog.text) of pg_catalog.integer_ops USING btree",
      "pg_class: index beyond.broken",
      "pg_largeobject_metadata: large object 424242",
      "pg_operator: operator beyond.!==(pg_catalog.text,pg_catalog.text)",
      "pg_subscription: connection of subscription corpus_subscription",
      "pg_tablespace: tablespace beyond",
      "pg_type: type beyond.base",
      "pg_type: type beyond.canonical_range",
      "pg_user_mapping: password of public on server corpus_server",
    ]);
  });

  it("lists with it what needs it, with the rows, so that a restore is not asked for the impossible", () => {
    const reasons = new Map(captured.notCaptured.map(({ identity, reason }) => [identity, reason]));
    expect(reasons.get("function beyond.base_in(pg_catalog.cstring)")).toBe(
      "needs type beyond.base, which is not captured",
    );
    expect(reasons.get("table beyond.of_base")).toBe("needs type beyond.base, which is not captured");
    expect(reasons.get("view beyond.of_table")).toBe("needs type beyond.base, which is not captured");
    expect(reasons.get("index beyond.of_base_i")).toBe("needs table beyond.of_base, which is not captured");
    expect(captured.tables.filter((table) => table.name === "of_base")).toEqual([]);
    expect(captured.definitions.filter((definition) => definition.identity.includes("of_base"))).toEqual([]);
  });

  it("warns where a copy differs in place", () => {
    expect(captured.warnings.filter((warning) => !warning.includes("corpus_inheritance_order")).sort()).toEqual([
      "foreign keys of table corpus_constraints.round_b are switched off; in a copy they work",
      "index beyond.broken is invalid and is not captured",
      "table beyond.elsewhere comes back in the default tablespace, not beyond",
    ]);
  });

  it("has a definition of every kind there is", () => {
    const kinds = new Set(captured.definitions.map((definition) => definition.kind));
    expect(definitionKinds.filter((kind) => !kinds.has(kind))).toEqual([
      // pg_cron lives in one database of a server; schema_targets.test.ts has its jobs.
      "cron job",
    ]);
    expect([...kinds].filter((kind) => !definitionKinds.includes(kind))).toEqual([]);
  });

  it("captures parsers, templates, languages and transforms", () => {
    const identities = new Set(captured.definitions.map((definition) => definition.identity));
    expect(identities).toContain("text search parser beyond.parser");
    expect(identities).toContain("text search template beyond.template");
    expect(identities).toContain("language beyond_language");
    expect(identities).toContain("transform for extensions.hstore on language beyond_language");
  });
});
