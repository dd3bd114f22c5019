-- run as: postgres
create schema corpus_text;
create text search dictionary corpus_text.simple_stop (template = simple, stopwords = english, accept = false);
create text search dictionary corpus_text."Quoted" (template = snowball, language = 'french');
create text search configuration corpus_text.config (copy = pg_catalog.english);
alter text search configuration corpus_text.config alter mapping for asciiword, word with corpus_text.simple_stop, corpus_text."Quoted", simple;
alter text search configuration corpus_text.config drop mapping for email;
comment on text search configuration corpus_text.config is 'a configuration';
create collation corpus_text.german (provider = libc, lc_collate = 'C', lc_ctype = 'C');
create collation corpus_text."ICU numeric" (provider = icu, locale = 'und-u-kn-true');
create collation corpus_text.no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
comment on collation corpus_text.no_case is 'ignores case';
create table corpus_text.documents (
  id integer primary key, title text collate corpus_text.no_case, number text collate corpus_text."ICU numeric", body text,
  search tsvector generated always as (to_tsvector('corpus_text.config'::regconfig, coalesce(body, ''))) stored
);
create index documents_search on corpus_text.documents using gin (search);
create index documents_number on corpus_text.documents (number collate corpus_text.german);
insert into corpus_text.documents values (1, 'Title', '10', 'the quick brown fox'), (2, 'TITLE 2', '9', null);
create conversion corpus_text.to_utf8 for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
