-- run as: postgres
create schema corpus_types;

create type corpus_types.mood as enum ('sad', 'ok', 'it''s "fine"', 'très bien');
alter type corpus_types.mood add value 'before ok' before 'ok';
create type corpus_types.no_labels as enum ();
create type corpus_types.pair as (a integer, "B b" text collate "C", gone integer, c corpus_types.mood[]);
alter type corpus_types.pair drop attribute gone;
alter type corpus_types.pair add attribute later numeric(10, 2);
comment on column corpus_types.pair."B b" is 'an attribute';
create domain corpus_types.email as text collate "C" default 'nobody@example.org' not null
  constraint has_at check (value like '%@%') constraint "short enough" check (length(value) < 200);
create domain corpus_types.emails as corpus_types.email[];
create domain corpus_types.amount as numeric(12, 2);
alter domain corpus_types.amount add constraint positive check (value >= 0) not valid;
create domain corpus_types.person as corpus_types.pair;
create type corpus_types.float_range as range (subtype = float8, subtype_diff = float8mi);
create type corpus_types.text_range as range (subtype = text, collation = "C", multirange_type_name = corpus_types.texts_range);
comment on type corpus_types.mood is 'how one feels';
comment on domain corpus_types.email is 'an address';
comment on constraint has_at on domain corpus_types.email is 'must have an at sign';

create table corpus_types.every_type (
  id bigint primary key,
  c_bool boolean, c_int2 smallint, c_int4 integer, c_int8 bigint, c_float4 real, c_float8 double precision,
  c_numeric numeric, c_numeric_typmod numeric(20, 5), c_money money, c_text text, c_varchar varchar(40), c_char char(5),
  c_name name, c_internal_char "char", c_bytea bytea, c_date date, c_time time, c_time3 time(3), c_timetz timetz,
  c_timestamp timestamp, c_timestamptz timestamptz, c_timestamptz0 timestamptz(0), c_interval interval,
  c_interval_ym interval year to month, c_interval_ds interval day to second(2), c_uuid uuid, c_json json, c_jsonb jsonb,
  c_jsonpath jsonpath, c_xml xml, c_inet inet, c_cidr cidr, c_macaddr macaddr, c_macaddr8 macaddr8, c_bit bit(5),
  c_varbit varbit, c_varbit9 varbit(9), c_point point, c_line line, c_lseg lseg, c_box box, c_path path, c_polygon polygon,
  c_circle circle, c_tsvector tsvector, c_tsquery tsquery, c_pg_lsn pg_lsn, c_oid oid, c_regclass regclass,
  c_regtype regtype, c_xid8 xid8, c_txid_snapshot txid_snapshot, c_pg_snapshot pg_snapshot,
  c_int4range int4range, c_int8range int8range, c_numrange numrange, c_daterange daterange, c_tsrange tsrange,
  c_tstzrange tstzrange, c_multirange int4multirange, c_tstzmultirange tstzmultirange, c_mood corpus_types.mood,
  c_pair corpus_types.pair, c_email corpus_types.email, c_amount corpus_types.amount, c_person corpus_types.person,
  c_float_range corpus_types.float_range, c_text_range corpus_types.text_range, c_texts corpus_types.texts_range,
  c_int_array integer[], c_text_array text[], c_2d integer[][], c_mood_array corpus_types.mood[],
  c_pair_array corpus_types.pair[], c_email_array corpus_types.email[], c_emails corpus_types.emails
);
insert into corpus_types.every_type (id, c_email) values (0, 'all@null');
insert into corpus_types.every_type values (
  1, true, 32767, 2147483647, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308, 'NaN', 123456789012345.12345,
  '$1,234.56', E'tab\there\nnewline\\backslash', 'varchar ✓', 'abc', 'a name', 'x', '\x00ff10deadbeef', 'infinity',
  '24:00:00', '23:59:59.999', '23:59:59.999999+15:59', 'infinity', '-infinity', '2024-02-29 23:59:59.6+00',
  '1 year -2 mons +3 days -04:05:06.789', '10 years 3 mons', '3 days 04:05:06.78', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  '{"a" : 1,   "a": 2, "n": 1.000}', '{"a": [1, 2.000, null, "\u00e9"], "big": 12345678901234567890.123}', '$.a[*] ? (@ > 2)',
  '<a x="1">text &amp; more</a>', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'1', B'101010101',
  '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(1,1)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(1,0))', '<(1,2),3>',
  'a:1A fat:2B,4 cat:5', 'fat & (rat | !cat:A)', '16/B374D848', 4294967295, 'pg_class', 'integer', '18446744073709551615',
  '10:20:10,14,15', '10:20:10,14,15', '[1,10)', 'empty', '(,5.5]', '[2020-01-01,infinity)', '[2020-01-01 00:00,)',
  '[2020-01-01 00:00+00,2021-01-01 00:00+00)', '{[1,3),[5,7)}', '{}', 'it''s "fine"', row(1, 'x,"y"', '{sad,ok}', 9.99),
  'a@b', 12.34, row(2, null, null, 1), '[1.5,2.5)', '[a,b)', '{[a,b),[c,d)}', '{1,NULL,3}', '{"",NULL,"NULL","a,b","q\"q"}',
  '[0:1][-1:0]={{1,2},{3,4}}', '{ok,"très bien"}', array[row(1, 'é', '{}', 0)::corpus_types.pair, null], '{a@b,c@d}', '{x@y}'
);
insert into corpus_types.every_type (id, c_int2, c_float4, c_float8, c_numeric, c_text, c_date, c_timestamp, c_timestamptz,
  c_interval, c_money, c_bytea, c_jsonb, c_int_array, c_email)
values
  (2, -32768, '-0', '-0', '-infinity', '', '4713-01-01 BC', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC',
   '-178000000 years', '-92233720368547758.08', '', 'null', '{}', 'e@f'),
  (3, 0, 'NaN', 'NaN', ('1' || repeat('0', 999) || '.' || repeat('3', 500))::numeric, '\N', '5874897-12-31',
   '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '00:00:00.000001', 0, '\x5c2e', '{}', '{{1},{2}}', 'g@h'),
  (4, 1, 'infinity', '-infinity', 0.000, '\.', '0001-01-01', 'epoch', '0044-03-15 12:00:00+00 BC', '0', 0.01, '\x0a0d09',
   '"\\u0041 plain"', null, 'i@j'),
  (5, 1, 1e-37, 5e-324, '1e-300', E'\r\n line ends \x08\x0b\x0c', null, null, null, null, null, null, 'false', null, 'k@l');

create table corpus_types.large_values (id integer primary key, body text, packed bytea, doc jsonb);
insert into corpus_types.large_values
select n, (select string_agg(md5((n * 100003 + i)::text), '') from generate_series(1, 40000) i),
       decode(repeat(md5(n::text), 70000), 'hex'), jsonb_build_object('n', n, 'text', repeat('€', 100000))
  from generate_series(1, 3) n;
