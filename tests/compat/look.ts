/** What a restored shop is compared with: the server's own words for its rows and definitions, by plain queries. */

type Ask = (text: string) => Promise<Record<string, unknown>[]>;

const queries: Readonly<Record<string, string>> = {
  customers: "select t::text as row from shop.customers t order by 1",
  orders: "select t::text as row from shop.orders t order by 1",
  events: "select tableoid::regclass || ' ' || t::text as row from shop.events t order by 1",
  nothing: "select count(*)::text as row from shop.nothing",
  empty: "select count(*)::text as row from shop.empty",
  totals: "select t::text as row from shop.totals t order by 1",
  open_orders: "select count(*)::text as row from shop.open_orders",
  sequences: `select last_value || ' ' || is_called as row from shop.tickets
    union all select last_value || ' ' || is_called from shop.orders_id_seq`,
  columns: `select format('%s %s %s %s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
      a.attidentity, pg_get_expr(d.adbin, d.adrelid)) as row
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid in (select oid from pg_class where relnamespace = 'shop'::regnamespace and relkind in ('r', 'p', 'v', 'm'))
      and a.attnum > 0 order by a.attrelid::regclass::text, a.attnum`,
  indexes: `select pg_get_indexdef(indexrelid) as row from pg_index i join pg_class c on c.oid = i.indrelid
    where c.relnamespace = 'shop'::regnamespace order by 1`,
  constraints: `select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) as row from pg_constraint
    where connamespace = 'shop'::regnamespace and contype <> 'n' order by 1`,
  policies: `select format('%s %s %s', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)) as row from pg_policy
    where polrelid in ('shop.customers'::regclass)`,
  triggers: `select pg_get_triggerdef(oid) as row from pg_trigger where not tgisinternal
    and tgrelid in (select oid from pg_class where relnamespace = 'shop'::regnamespace) order by 1`,
  security: `select relname || ' ' || relrowsecurity as row from pg_class
    where relnamespace = 'shop'::regnamespace and relkind in ('r', 'p') order by 1`,
  grants: `select relname || ' ' || e.privilege_type as row from pg_class c, aclexplode(c.relacl) e
    where relnamespace = 'shop'::regnamespace and e.grantee = 0 order by 1`,
  comments: "select obj_description('shop.customers'::regclass) as row",
  labels: `select enumlabel::text as row from pg_enum e join pg_type t on t.oid = e.enumtypid
    where t.typnamespace = 'shop'::regnamespace order by enumsortorder`,
};

/** Every answer as lines of text, by the name of its question. */
export async function lookAtShop(ask: Ask): Promise<Record<string, unknown[]>> {
  const answers: Record<string, unknown[]> = {};
  await ask("set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set search_path = ''; set extra_float_digits = 3");
  for (const [name, text] of Object.entries(queries)) answers[name] = (await ask(text)).map((row) => row["row"]);
  return answers;
}
