-- run as: postgres
create schema if not exists extensions;
set search_path = public, extensions;
create extension if not exists citext with schema extensions;
create extension if not exists hstore with schema extensions;
create schema corpus_extensions;
create table corpus_extensions.words (
  word extensions.citext primary key, facts extensions.hstore default 'a=>1', words extensions.citext[],
  constraint differs check (word is distinct from 'BAD'),
  flag boolean generated always as (nullif(word, 'NULL'::extensions.citext) is null) stored
);
insert into corpus_extensions.words (word, facts) values ('Word', 'k=>"v, w", n=>NULL'), ('bad word', '');
create view corpus_extensions.compares as
  select w.word is distinct from 'WORD'::extensions.citext as differs,
         case w.word when 'word' then 1 else 2 end as chosen,
         nullif(w.word, 'WORD') as without
    from corpus_extensions.words w join corpus_extensions.words x using (word);
create index partial on corpus_extensions.words (word) where word is not distinct from 'Word'::extensions.citext;
create function corpus_extensions.trigger_function() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger when_distinct before update on corpus_extensions.words for each row
  when (old.facts is distinct from new.facts or old.word is distinct from new.word) execute function corpus_extensions.trigger_function();
alter table corpus_extensions.words enable row level security;
create policy distinct_words on corpus_extensions.words using (word is not distinct from 'x'::extensions.citext);
create function corpus_extensions.same(a extensions.citext, b extensions.citext) returns boolean language sql
  return a is not distinct from b;
alter function corpus_extensions.trigger_function() depends on extension hstore;
