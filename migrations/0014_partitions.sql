-- A partition is made as a table of its own and then attached, which waits for nobody who writes. CREATE TABLE … PARTITION OF waits
-- for every open transaction that has written, and all who want to write wait behind it.
create function amends.attach_partition(parent text, child text, low text, high text) returns integer
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
begin
    if to_regclass('amends.' || child) is not null then
        return 0;
    end if;
    execute format('create table amends.%I (like amends.%I including all)', child, parent);
    execute format('alter table amends.%I attach partition amends.%I for values from (%L) to (%L)', parent, child, low, high);
    return 1;
exception
    when check_violation then
        raise warning 'rows of % are in the default partition already, and stay there', child;
        return 0;
    when lock_not_available then
        raise warning 'cannot make % now: %; it is tried again', child, sqlerrm;
        return 0;
    when duplicate_table or unique_violation then
        return 0; -- Somebody else makes it at the same time.
end $$;

revoke execute on function amends.attach_partition(text, text, text, text) from public;

create or replace function amends.make_saga_partitions(ahead interval) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    week    timestamptz := date_trunc('week', now() at time zone 'UTC') at time zone 'UTC';
    parent  text;
    made    integer := 0;
begin
    while week < now() + ahead loop
        foreach parent in array array['saga', 'journal'] loop
            made := made + amends.attach_partition(parent, parent || '_' || to_char(week at time zone 'UTC', 'YYYYMMDD'),
                amends.uuid_floor(week)::text, amends.uuid_floor(week + interval '7 days')::text);
        end loop;
        week := week + interval '7 days';
    end loop;
    return made;
end $$;

create or replace function amends.make_outbox_partitions(ahead bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    size    constant bigint := 1000000;
    newest  bigint := (select case when is_called then last_value else 0 end from amends.outbox_seq);
    part    bigint := newest / size;
    made    integer := 0;
begin
    while part * size < newest + ahead loop
        made := made + amends.attach_partition('outbox', 'outbox_' || part, (part * size)::text, ((part + 1) * size)::text);
        part := part + 1;
    end loop;
    return made;
end $$;

create or replace function amends.make_inbox_partitions(ahead interval) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    week  timestamptz := date_trunc('week', now() at time zone 'UTC') at time zone 'UTC';
    made  integer := 0;
begin
    while week < now() + ahead loop
        made := made + amends.attach_partition('inbox', 'inbox_' || to_char(week at time zone 'UTC', 'YYYYMMDD'),
            amends.uuid_floor(week)::text, amends.uuid_floor(week + interval '7 days')::text);
        week := week + interval '7 days';
    end loop;
    return made;
end $$;
