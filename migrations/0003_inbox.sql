-- The inbox: which messages a consumer's handler has taken effect for.

create table amends.inbox (
    consumer   text        not null,
    message_id uuid        not null,
    handled_at timestamptz not null default clock_timestamp(),
    primary key (consumer, message_id)
) partition by range (message_id);

comment on table amends.inbox is 'Written in the handler''s transaction: a message is handled once while its row is kept.';

create function amends.make_inbox_partitions(ahead interval) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    week  timestamptz := date_trunc('week', now() at time zone 'UTC') at time zone 'UTC';
    child text;
    made  integer := 0;
begin
    while week < now() + ahead loop
        child := 'inbox_' || to_char(week at time zone 'UTC', 'YYYYMMDD');
        if to_regclass('amends.' || child) is null then
            begin
                execute format('create table amends.%I partition of amends.inbox for values from (%L) to (%L)',
                    child, amends.uuid_floor(week), amends.uuid_floor(week + interval '7 days'));
                made := made + 1;
            exception when check_violation then
                raise warning 'rows of % are in the default partition already, and stay there', child;
            end;
        end if;
        week := week + interval '7 days';
    end loop;
    return made;
end $$;

create table amends.inbox_default partition of amends.inbox default;
select amends.make_inbox_partitions(interval '28 days');
